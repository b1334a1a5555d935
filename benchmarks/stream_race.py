"""One sample: a sender and its receivers, each a process, checked, with a deadline.

Every message begins with its number. A receiver that sees a wrong number, or another
count than the sender's, makes the sample void. Nothing counts before every receiver has
received a first message, so that connecting is not measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np

NUMBER = struct.Struct("Q")
WARM, END = 1 << 62, 1 << 63
unpack = NUMBER.unpack_from


class Void(Exception):
    """The sample does not count: messages were lost, or a process hung or died."""


@dataclass(frozen=True)
class Plan:
    """The settings of one sample."""

    size: int
    slots: int
    seconds: float
    receivers: int = 1
    kind: str = "flat out"  # or "paced", "spinning" (paced too), "first use", "blocks"
    rate: float = 1000
    cpus: tuple[int, int] | None = None
    deadline: float = 20.0


class Shared:
    """Shared words of a sample: which receivers have started, which have finished."""

    def __init__(self, receivers: int) -> None:
        self._memory = mmap.mmap(-1, 4096)
        self.warm = np.frombuffer(self._memory, "u8", receivers)
        self.done = np.frombuffer(self._memory, "u8", receivers, 2048)
        self.began = np.frombuffer(self._memory, "f8", 1, 3072)  # the first send


# ---- the sender


def send_all(peer: Any, plan: Plan, shared: Shared) -> dict[str, float]:
    data = np.ones(max(plan.size // 8, 1), "u8")
    peer.address = data.ctypes.data
    send = peer.sender()
    number = memoryview(data)[:1]
    number[0] = WARM
    while not shared.warm.all():
        send(data)
        time.sleep(0.001)
    run = {"blocks": send_blocks, "first use": send_first}.get(plan.kind, send_flat_out)
    if plan.kind in ("paced", "spinning"):
        run = send_paced
    begin = time.process_time()
    shared.began[0] = time.perf_counter()
    count, found = run(peer, send, data, plan)
    found["cpu_us"] = (time.process_time() - begin) / max(count, 1) * 1e6
    number[0] = END | count
    send(data)
    getattr(peer, "flush", int)()
    while not shared.done.all():
        time.sleep(0.001)
    return found


def send_flat_out(peer: Any, send: Callable, data: np.ndarray, plan: Plan):
    number = memoryview(data)
    count, burst = 0, max(1, min(256, (4 << 20) // plan.size))
    end = time.perf_counter() + plan.seconds
    while time.perf_counter() < end:
        for k in range(count, count + burst):
            number[0] = k
            send(data)
        count += burst
    return count, {}


def send_paced(peer: Any, send: Callable, data: np.ndarray, plan: Plan):
    number = memoryview(data)
    count = int(plan.seconds * plan.rate)
    due = time.monotonic_ns()
    for _ in range(count):
        due += int(1e9 / plan.rate)
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(left * 1e-9)
        number[0] = time.monotonic_ns()
        send(data)
    return count, {}


def send_first(peer: Any, send: Callable, data: np.ndarray, plan: Plan):
    """Time the first `slots` sends after the warm-up, and as many later sends."""
    number = memoryview(data)
    took, faults = [], []
    for k in range(6 * plan.slots):
        time.sleep(1 / plan.rate)
        number[0] = k
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begin = time.perf_counter_ns()
        send(data)
        took.append((time.perf_counter_ns() - begin) / 1000)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    first, later = np.array(took[: plan.slots]), np.array(took[plan.slots :])
    return len(took), {
        "first_us": float(np.percentile(first, 99)),
        "later_us": float(np.percentile(later, 99)),
        "faults": max(faults[: plan.slots]),
    }


def send_blocks(peer: Any, send: Callable, data: np.ndarray, plan: Plan):
    rows = peer.rows
    block = np.zeros((rows, plan.size // 8), "u8")
    block[:, 0] = np.arange(rows)
    numbers, count = block[:, 0], 0
    end = time.perf_counter() + plan.seconds
    while time.perf_counter() < end:
        peer.stream.send_block(block)
        numbers += rows
        count += rows
    return count, {}


# ---- a receiver


def receive_all(peer: Any, plan: Plan, shared: Shared, me: int) -> dict[str, float]:
    receive = peer.receiver(plan.kind == "spinning")
    (k,) = unpack(receive())
    if k != WARM:
        raise Void(f"the first message is {k:#x}")
    shared.warm[me] = 1
    while k == WARM:
        (k,) = unpack(receive())
    if plan.kind in ("paced", "spinning"):
        found = receive_paced(receive, k)
    elif plan.kind == "blocks":
        found = receive_blocks(peer, receive, k, plan)
    else:
        found = receive_counted(receive, k, shared)
    shared.done[me] = 1
    return found


def receive_counted(receive: Callable, k: int, shared: Shared) -> dict[str, float]:
    """Count messages from the first send on; each must be the next one."""
    due = 0
    while k == due:
        due += 1
        (k,) = unpack(receive())
    seconds = time.perf_counter() - shared.began[0]
    check_end(k, due)
    return {"rate": due / seconds}


def check_end(k: int, due: int) -> None:
    if k != END | due:
        what = f"the end after {k & ~END}" if k & END else f"message {k}"
        raise Void(f"got {what}, expected message {due}")
    if due < 1:
        raise Void("not a message")


def receive_paced(receive: Callable, stamp: int) -> dict[str, float]:
    """Return one-way delays; stamps must rise."""
    delays, last = [], 0
    while not stamp & END:
        delays.append(time.monotonic_ns() - stamp)
        if stamp <= last:
            raise Void("a time stamp was repeated or out of order")
        last = stamp
        (stamp,) = unpack(receive())
    check_end(stamp, len(delays))
    steady = np.array(delays[len(delays) // 10 :]) / 1000
    p50, p99 = np.percentile(steady, (50, 99))
    return {"p50": float(p50), "p99": float(p99)}


def receive_blocks(peer: Any, receive: Callable, k: int, plan: Plan):
    """Check every number of every block."""
    if k & END:
        raise Void("not a block")
    # The first frame was received alone, so the rest of its block comes alone too.
    for due in range(1, peer.rows):
        (k,) = unpack(receive())
        if k != due:
            raise Void(f"got message {k}, expected message {due}")
    out = np.empty((peer.rows, plan.size // 8), "u8")
    ramp = np.arange(peer.rows, 2 * peer.rows, dtype="u8")
    begin, rows = time.perf_counter(), peer.rows
    count = rows
    while True:
        peer.stream.read(1, out[:1])
        if out[0, 0] & END:
            break
        peer.stream.read(rows - 1, out[1:])
        if not np.array_equal(out[:, 0], ramp):
            raise Void(f"expected messages {count} to {count + rows}, got others")
        ramp += rows
        count += rows
    seconds = time.perf_counter() - begin
    check_end(int(out[0, 0]), count)
    return {"rate": (count - rows) / seconds}


# ---- the processes


def child(work: Callable, arguments: tuple, cpu: int | None, answer: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # one peer logs to stdout
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        answer.send(work(*arguments))
    except Void as void:
        answer.send(str(void))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        answer.send(f"{type(error).__name__}: {error} ({last.name}:{last.lineno})")
    # Some destructors and threads of peers hang: leave without them.
    answer.close()
    os._exit(0)


def sample(make: Callable[[Plan], Any], plan: Plan) -> dict[str, float]:
    """Run one sample; the slowest receiver counts. Raise Void if it does not count."""
    fork = multiprocessing.get_context("fork")
    shared = Shared(plan.receivers)
    peer = make(plan)
    jobs = [(send_all, (peer, plan, shared), plan.cpus and plan.cpus[0])]
    for me in range(plan.receivers):
        arguments = (peer, plan, shared, me)
        jobs.append((receive_all, arguments, plan.cpus and plan.cpus[1]))
    processes, answers = [], []
    try:
        for work, arguments, cpu in jobs:
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=child, args=(work, arguments, cpu, theirs))
            process.start()
            theirs.close()
            processes.append(process)
            answers.append(ours)
        return collect(answers, plan)
    finally:
        for process in processes:
            # They exit by themselves after their answer, unless something went wrong.
            process.join(0.2)
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
        peer.close()


def collect(answers: list[Any], plan: Plan) -> dict[str, float]:
    found: dict[str, float] = {}
    waiting = list(answers)
    end = time.monotonic() + plan.deadline
    while waiting:
        ready = wait(waiting, max(end - time.monotonic(), 0))
        if not ready:
            raise Void(f"hung: killed after {plan.deadline:.0f} s")
        for answer in ready:
            waiting.remove(answer)
            try:
                news = answer.recv()
            except EOFError:
                raise Void("a process died") from None
            if isinstance(news, str):
                raise Void(news)
            for key, value in news.items():
                worst = min if key == "rate" else max
                found[key] = worst(found.get(key, value), value)
    return found
