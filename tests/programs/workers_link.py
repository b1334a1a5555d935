"""Programs of the laboratories of `link_rig`: a camera, a reader, a recorder, an agent.

As a script: ``workers_link.py PROGRAM {JSON}``. Each writes what it found to files that
survive its death: numbers as they come, and a status of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

HEAD = 24
"""Bytes of a frame before its contents: number, checksum, wall time of `send`, ns."""
ROW = 24
"""Bytes of a row of a reader: number, wall time, wall time of its `send`, ns."""
KINDS = 251


def contents(size: int) -> bytes:
    """Return what frames are pieces of: frame `k` begins at byte ``k % KINDS``."""
    seed = bytes((7 * k * k + 3 * k + 1) % 251 for k in range(4093))
    return (seed * (-(-(size + KINDS) // len(seed))))[: size + KINDS]


def ints(*numbers: int) -> bytes:
    return b"".join(n.to_bytes(8, "little") for n in numbers)


class Status:
    """What a program says of itself, in a file that is replaced as a whole."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.found: dict[str, Any] = {}
        self._written = 0.0

    def set(self, *, now: bool = False, **found: Any) -> None:
        """Remember; write it at most ten times a second, or `now`."""
        self.found.update(found)
        if now or time.monotonic() - self._written > 0.1:
            self._written = time.monotonic()
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(self.found))
            temporary.replace(self._path)


def tell_run(told: Status, run: Any, found: Sequence[int]) -> None:
    """Tell of a pipe, whose results go to `found`, while it runs."""
    while run.state == "running":
        told.set(
            received=len(found),
            pids={f"{n}.{k}": pid for (n, k), pid in run.workers.items()},
            where={f"{n}.{k}": host for (n, k), host in run.where.items()},
            events=[f"{e.what} {e.processor} {e.text}" for e in run.history],
        )
        time.sleep(0.02)


def camera(
    stream: str,
    status: str,
    *,
    count: int,
    hz: float = 120.0,
    size: int = 100_000,
    slots: int = 32,
    readers: int = 1,
    lag_s: float = 0.0,
    keep: bool = True,
) -> None:
    """Send numbered frames at `hz` (0: as fast as possible), and measure each `send`.

    Waits for `readers` first. Ends the stream after `count` frames, or after SIGUSR1;
    then stays until SIGTERM, unless `keep` is False. `slow` of its status are the sends
    that took more than 20 ms: wall time, and how long, s.
    """
    import numpy as np

    from ataraxis import Producer

    told = Status(status)
    stalls: list[str] = []
    slow: list[tuple[float, float]] = []
    over = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: over.set())

    def stalled(statistics: Any) -> None:
        stalls.append(", ".join(r.label for r in statistics.readers))
        told.set(now=True, stalls=len(stalls), stalled_by=stalls[-1])

    pattern = contents(size - HEAD)
    sums = [zlib.crc32(pattern[k : k + size - HEAD]) for k in range(KINDS)]
    frame = np.zeros(size, "u1")
    plain = np.frombuffer(pattern, "u1")
    producer = Producer(
        stream, shape=(size,), dtype="u1", buffer_count=slots, on_stall=stalled,
        attrs={"rate_hz": hz, "units": "counts"},
    )  # fmt: skip
    told.set(now=True, sent=0, ready=True)
    producer.wait_for_subscribers(readers, timeout=90)
    worst = late = 0.0
    began = time.monotonic() + lag_s
    if lag_s:
        time.sleep(lag_s)
    sent = 0
    for k in range(count):
        if over.is_set():
            break
        due = began + k / hz if hz else 0.0
        if (pause := due - time.monotonic()) > 0:
            time.sleep(pause)
        frame[:HEAD] = np.frombuffer(ints(k, sums[k % KINDS], time.time_ns()), "u1")
        frame[HEAD:] = plain[k % KINDS : k % KINDS + size - HEAD]
        before = time.monotonic()
        producer.send(frame, device_time=k * 10**6, device_sequence=k, timeout=600)
        took = time.monotonic() - before
        if took > 0.02 and len(slow) < 5000:
            slow.append((time.time(), took))
        worst = max(worst, took)
        late = max(late, before - due) if hz else 0.0
        sent = k + 1
        told.set(sent=sent, worst_s=worst, late_s=late)
    producer.end()
    told.set(now=True, done=True, sent=sent, worst_s=worst, late_s=late, slow=slow)
    if keep:
        signal.sigwait({signal.SIGTERM})
    producer.close()


def reader(
    stream: str,
    status: str,
    rows: str,
    *,
    durable: str | None = "reader",
    policy: str = "lossless",
    timeout: float = 60.0,
    hold_s: float = 0.0,
    skips: bool = False,
) -> None:
    """Receive all frames; append a row for each to a file, before it is released.

    `hold_s` is how long each frame is held, as by a reader that is slow. A frame that a
    killed reader had written but not released comes again: one a kill, which is counted
    apart and not written twice. `skips`: any number of them, as after a restart of the
    host, where the ring knows nothing of the reader.
    """
    from ataraxis import Consumer

    told = Status(status)
    file = os.open(rows, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    size = os.fstat(file).st_size
    os.ftruncate(file, size - size % ROW)
    newest = -1
    if size >= ROW:
        newest = int.from_bytes(os.pread(file, 8, size - size % ROW - ROW), "little")
    consumer = Consumer(
        stream, durable=durable, policy=None if durable else policy, timeout=timeout
    )
    labels = consumer.labels
    told.set(
        now=True, ready=True, attrs=dict(labels.attrs), again=0, damaged=0,
        stream_id=consumer.stream_id,
    )  # fmt: skip
    pattern: bytes | None = None
    sums: list[int] = []
    again = damaged = received = 0
    last_time = 0
    for frame in consumer:
        data = frame.buffer
        number = int.from_bytes(data[:8], "little")
        total = int.from_bytes(data[8:16], "little")
        sent = int.from_bytes(data[16:24], "little")
        if pattern is None:
            pattern = contents(len(data) - HEAD)
            sums = [zlib.crc32(pattern[k : k + len(data) - HEAD]) for k in range(KINDS)]
        is_whole = (
            zlib.crc32(data[HEAD:]) == total == sums[number % KINDS]
            and frame.device_sequence == number
            and frame.device_time == number * 10**6
            and frame.sequence == number
            and frame.time_ns >= last_time
        )
        damaged += not is_whole
        last_time = frame.time_ns
        received += 1
        if (number == newest and received == 1) or (skips and number <= newest):
            again += 1  # written by the one before this, which died with it
        else:
            os.write(file, ints(number, time.time_ns(), sent))
        del data
        if hold_s:
            time.sleep(hold_s)
        frame.release()
        told.set(received=received, again=again, damaged=damaged, newest=number)
    told.set(
        now=True, ended=True, lost=consumer.dropped_count, received=received,
        again=again, damaged=damaged,
    )  # fmt: skip
    consumer.close()
    os.close(file)


def recorder(
    stream: str, status: str, directory: str, *, timeout: float = 60.0
) -> None:
    """Record a stream until it ends; goes on in the same directory after a kill."""
    from ataraxis import Recorder

    told = Status(status)
    with Recorder([stream], directory) as found:
        told.set(now=True, ready=True)
        found.wait(timeout)
        state = found.statistics()[stream]
    told.set(now=True, ended=True, frames=state.frames)


def many(status: str, *, count: int, hz: float, size: int, slots: int = 8) -> None:
    """Lend `count` streams ``idle.0`` ..., each at `hz` (0: silent), until a signal."""
    import numpy as np

    from ataraxis import Producer

    producers = [
        Producer(f"idle.{k}", shape=(size,), dtype="u1", buffer_count=slots)
        for k in range(count)
    ]
    Status(status).set(now=True, ready=True)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    frame = np.zeros(size, "u1")
    while not over.wait(1 / hz if hz else None):
        for producer in producers:
            producer.send(frame, timeout=60)
    for producer in producers:
        producer.close()


def agent(
    hosts: str,
    *,
    package: str = "",
    crash_at: str = "",
    after_s: float = 0.0,
    arguments: tuple[str, ...] = (),
) -> None:
    """Run ``ataraxis agent``; it dies at the point `crash_at`, `after_s` later."""
    if package:
        # The variant, not whatever is installed for development.
        sys.meta_path[:] = [
            f for f in sys.meta_path if "Mesonpy" not in type(f).__name__
        ]
        sys.path.insert(0, package)
    from ataraxis.cli import main

    if package:
        import ataraxis._kernels.memory as kernel

        assert kernel.__file__.startswith(package), kernel.__file__
    if crash_at:

        def arm() -> None:
            time.sleep(after_s)
            os.environ["ATARAXIS_CRASH_AT"] = crash_at

        threading.Thread(target=arm, daemon=True).start()
    sys.argv = ["ataraxis", "agent", "--hosts", hosts, *arguments]
    main()


def truth(status: str, rows: str, *, hosts: list[str], seconds: float) -> None:
    """Read ``clock.<host>`` of each host; append (local, offset, bound, drift) rows."""
    import numpy as np

    from ataraxis import Consumer

    told = Status(status)
    consumers = {
        host: Consumer(f"clock.{host}", policy="lossy", timeout=60) for host in hosts
    }
    told.set(now=True, ready=True)
    end = time.monotonic() + seconds
    counted = dict.fromkeys(hosts, 0)
    with open(rows, "ab", buffering=0) as file:
        while time.monotonic() < end:
            for index, (host, consumer) in enumerate(consumers.items()):
                while (frame := consumer.receive(blocking=False)) is not None:
                    row = np.asarray(frame.array, "i8").reshape(-1)[:4].copy()
                    frame.release()
                    file.write(np.array([index, *row], "<i8").tobytes())
                    counted[host] += 1
            told.set(counted=counted)
            time.sleep(0.05)
    for consumer in consumers.values():
        consumer.close()
    told.set(now=True, ended=True, counted=counted)


def pipe(
    status: str, *, context: str, count: int, stages: list[dict[str, Any]],
    lease_s: float = 10.0, buffer_count: int = 256,
) -> None:  # fmt: skip
    """Run a pipe over the hosts of the laboratory; each stage is a worker function.

    The status has results as they come, whether they are right, events and pids.
    """
    import workers_pipe

    from ataraxis.cluster import Cluster
    from ataraxis.pipeline import Pipe, Processor

    told, found = Status(status), list[int]()
    made = Pipe("lab", context=context)
    last: Any = made
    for number, stage in enumerate(stages):
        func = getattr(workers_pipe, stage.pop("func"))
        name = f"{func.__name__}{number}"
        last = last.add(Processor(name, func=func, buffer_count=buffer_count, **stage))
    began = time.monotonic()
    with Cluster(context=context, lease_s=lease_s) as cluster:
        run = made.run(range(count), found, engine=cluster)
        run.wait_until_ready(60)
        told.set(now=True, ready=True)
        tell_run(told, run, found)
        run.wait(60)
    numbers = found
    told.set(
        now=True, ended=True, received=len(numbers),
        missing=len(set(range(count)) - set(numbers)),
        repeated=len(numbers) - len(set(numbers)),
        disordered=sum(b < a for a, b in pairwise(numbers)),
        seconds=time.monotonic() - began,
        events=[f"{e.what} {e.processor} {e.text}" for e in run.history],
    )  # fmt: skip


DIAMONDS = ("sides", "competing", "single")


def diamond(
    status: str, *, context: str, count: int, shape: str, gate: str = "",
    lease_s: float = 5.0, buffer_count: int = 256,
) -> None:  # fmt: skip
    """Run a diamond over the hosts 'one' and 'two' of the laboratory, and judge it.

    `shape` 'sides': one side on each host, two workers each, joined and put in order on
    'two'; 'single': one worker each, whose results are never put in order; 'competing':
    both hosts do both steps. Results are 2 k and 2 k + 1, or 2 k alone. The file `gate`
    has the number of values that may be put in so far.
    """
    import workers_pipe as w

    from ataraxis.cluster import Cluster
    from ataraxis.pipeline import Pipe, Processor

    told, found = Status(status), list[int]()
    made = Pipe("diamond", context=context)
    common: dict[str, Any] = {"buffer_count": buffer_count, "ordered": True}
    if shape == "competing":
        common |= {"tag": "fast", "workers": 4}
        made.add(Processor("left", func=w.even_side, **common)).add(
            Processor("join", func=w.same, **common)
        )
    else:
        common["workers"] = 2 if shape == "sides" else 1
        left = Processor("left", func=w.even_side, host="one", **common)
        right = Processor("right", func=w.odd_side, host="two", **common)
        join = Processor("join", func=w.same, host="two", buffer_count=buffer_count)
        made.add(left).add(join)
        made.add(right).add(join)

    def values() -> Iterator[int]:
        allowed = 0 if gate else count
        for k in range(count):
            while k >= allowed:
                with contextlib.suppress(FileNotFoundError, ValueError):
                    allowed = int(Path(gate).read_text())
                time.sleep(0.005 if k >= allowed else 0)
            yield k

    with Cluster(context=context, lease_s=lease_s) as cluster:
        run = made.run(values(), found, engine=cluster)
        run.wait_until_ready(60)
        began = time.monotonic()
        told.set(now=True, ready=True)
        tell_run(told, run, found)
        seconds = time.monotonic() - began
        run.wait(60)
    sides = [[v // 2 for v in found if v % 2 == k] for k in (0, 1)]
    del sides[1 if shape == "competing" else 2 :]
    events = [f"{e.what} {e.processor} {e.text}" for e in run.history]
    told.set(
        now=True, ended=True, received=len(found), seconds=seconds, events=events,
        missing=sum(len(set(range(count)).difference(side)) for side in sides),
        repeated=len(found) - len(set(found)),
        disordered=sum(b <= a for side in sides for a, b in pairwise(side)),
        restarts=sum(event.startswith("restarted") for event in events),
    )  # fmt: skip


PROGRAMS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (camera, reader, recorder, many, agent, truth, pipe, diamond)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))


def mapping_worker(context: str, inbox: str, out: str, index: int = 0) -> None:
    """Map the values of one queue into another, as a worker does, until it is killed.

    A value is squared; what is made is put before the value is acknowledged.
    """
    from ataraxis import MemQ
    from ataraxis.pipeline.frames import lane_of, last_frame, read

    queue, target = (MemQ.attach(name, context=context) for name in (inbox, out))
    while True:
        lease = queue.lease()
        if lease.frame.end_of_stream:
            target.offer(last_frame())
            lease.acknowledge()
            return
        found = read(lease.frame.to_bytes())
        origin = lane_of(found.lane, index), found.sequence, 0
        if not target.post(found.value**2, -1, origin, index, found.time_ns, None):
            raise RuntimeError("the result was not put")
        lease.acknowledge()


def passing_on(names: list[str]) -> None:
    """Move values down a row of queues: put into the next, acknowledge in the last."""
    from ataraxis import MemQ
    from ataraxis.pipeline.frames import lane_of, read

    queues = [MemQ.attach(name) for name in names]
    while True:
        for k in range(len(queues) - 1):
            while (queues[k]).qsize():
                lease = queues[k].lease()
                found = read(lease.frame.to_bytes())
                queues[k + 1].post(
                    found.value, -1, (lane_of(found.lane, k), found.sequence, 0), k, 1,
                    None,
                )  # fmt: skip
                lease.acknowledge()
