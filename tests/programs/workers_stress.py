"""Workers of the stress tests, and the process that forks them.

A `Zygote` is one fresh interpreter with ataraxis imported and nothing attached; it
forks a worker per command, so that hundreds of deaths cost milliseconds each. Workers
talk through a `Board`: plain int64 words in a file of their own, which survive them.
Run as a script, this file is the zygote.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent))
WORDS = 4096
STOP, GO, INSIDE, OWNER, BROKEN, WARNED, READY, DONE = range(8)
MINE = 64  # words of worker k: MINE + 16 * k ...
SLOT, PHASE, BEAT, COUNT, TORN = range(5)
IDLE, WRITING, READING, OTHER = range(4)


class Board:
    """Words shared by all workers of a test, outside the library under test."""

    def __init__(self, directory: Path) -> None:
        path = directory / "board"
        if not path.exists():
            path.write_bytes(bytes(8 * WORDS))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * WORDS)
        self.words: NDArray[np.int64] = np.frombuffer(self._map, np.int64)

    def close(self) -> None:
        del self.words
        self._map.close()

    def __getitem__(self, k: int) -> int:
        return int(self.words[k])

    def __setitem__(self, k: int, value: int) -> None:
        self.words[k] = value

    def mine(self, worker: int, word: int) -> int:
        return int(self.words[MINE + 16 * worker + word])

    def set_mine(self, worker: int, word: int, value: int) -> None:
        self.words[MINE + 16 * worker + word] = value

    def until(self, test: Callable[[], Any], timeout: float = 20) -> None:
        """Wait for something that another process does, with a deadline."""
        deadline = time.monotonic() + timeout
        while not test():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout} s for what another process does")
            time.sleep(0.0002)


class Zygote:
    """A process that forks workers on command; ends with all of them."""

    def __init__(
        self,
        arena: Path,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        package: Path | None = None,
    ) -> None:
        self.arena = arena
        self.directory = directory
        self.board = Board(directory)
        self.errors = directory / "errors"
        self.errors.mkdir(exist_ok=True)
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [
                *prefix, sys.executable, "-P", str(HERE), str(directory),
                str(package or ""),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True,
        )  # fmt: skip
        assert self.ask(cmd="hello")["ok"]

    def ask(self, within: float = 60, **command: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], within)[0]:
            raise TimeoutError(f"the zygote does not answer {command}")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the zygote died at {command}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(
        self, job: str, worker: int = 0, *, crash_at: str = "", **arguments: Any
    ) -> int:
        """Fork a worker; its pid."""
        answer = self.ask(
            cmd="run", arena=str(self.arena), job=job, worker=worker,
            crash_at=crash_at, arguments=arguments,
        )  # fmt: skip
        return int(answer["pid"])

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        self.ask(cmd="kill", pid=pid, number=int(number))

    def wait(self, pid: int, timeout: float = 30) -> int:
        """Wait for a worker's end; its exit code, minus the signal that killed it."""
        answer = self.ask(timeout + 5, cmd="wait", pid=pid, timeout=timeout)
        if answer["code"] is None:
            raise TimeoutError(f"worker {pid} does not end within {timeout} s")
        return int(answer["code"])

    def finish(self, *pids: int, timeout: float = 60) -> None:
        """Wait for workers that must end well."""
        for pid in pids:
            code = self.wait(pid, timeout)
            assert code == 0, f"worker {pid} ended with {code}: {self.complaints()}"
        self.check()

    def complaints(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.errors.iterdir()))

    def check(self) -> None:
        assert not any(self.errors.iterdir()), self.complaints()

    def lend(self, arena: Path) -> Zygote:
        """Start afresh in another context: no workers, an empty board."""
        self.ask(cmd="end")
        self.arena = arena
        self.board.words[:] = 0
        for complaint in self.errors.iterdir():
            complaint.unlink()
        return self

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.process.stdout.close()
        self.board.close()


def serve(directory: str) -> None:
    """Fork workers as the input requests, line by line, until it ends."""
    pids: set[int] = set()
    board = Board(Path(directory))
    for line in sys.stdin:
        c = json.loads(line)
        answer: dict[str, Any] = {"ok": True}
        if c["cmd"] == "run":
            pid = os.fork()
            if pid == 0:
                work(c, directory, board)
            pids.add(pid)
            answer["pid"] = pid
        elif c["cmd"] == "kill":
            os.kill(c["pid"], c["number"])
        elif c["cmd"] == "wait":
            answer["code"] = reap(c["pid"], c["timeout"])
            if answer["code"] is not None:
                pids.discard(c["pid"])
        elif c["cmd"] == "end":
            end(pids)
        print(json.dumps(answer), flush=True)
    end(pids)


def end(pids: set[int]) -> None:
    while pids:
        pid = pids.pop()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def reap(pid: int, timeout: float) -> int | None:
    watch = os.pidfd_open(pid)
    try:
        if not select.select([watch], [], [], timeout)[0]:
            return None
    finally:
        os.close(watch)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def work(c: dict[str, Any], directory: str, board: Board) -> None:
    """Be one worker; never returns."""
    code = 1
    try:
        os.close(0)
        os.open("/dev/null", os.O_RDWR)
        os.dup2(2, 1)
        random.seed(os.getpid() ^ time.monotonic_ns())
        warnings.simplefilter("always")
        count_warnings(board, c["worker"])
        os.environ["ATARAXIS_CRASH_AT"] = c["crash_at"]
        module, _, name = c["job"].rpartition(":")
        jobs = vars(importlib.import_module(module)) if module else globals()
        jobs[name](Path(c["arena"]), board, c["worker"], **c["arguments"])
        code = 0
    except BaseException:
        text = f"{c['job']} {c['arguments']}:\n{traceback.format_exc()}"
        (Path(directory) / "errors" / str(os.getpid())).write_text(text)
    finally:
        os._exit(code)


def count_warnings(board: Board, worker: int) -> None:
    """Count LockRecovered on the board; anything else is a complaint."""
    from ataraxis.errors import LockRecovered

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if category is not LockRecovered:
            raise AssertionError(f"warning: {message}")
        times = int(str(message).split("died holding it (")[1].split("x")[0])
        words = board.words
        words[MINE + 16 * worker + 8] += times

    warnings.showwarning = show  # type: ignore[assignment]


def warned(board: Board, workers: int = 32) -> int:
    """Sum up the LockRecovered warnings of all workers."""
    return sum(board.mine(k, 8) for k in range(workers))


def open_array(arena: Path, name: str, timeout: float = 10) -> Any:
    from ataraxis import SharedMemoryArray

    return SharedMemoryArray.attach(name, context=arena, timeout=timeout)


# ---- jobs


def count_add(arena: Path, board: Board, worker: int, n: int, threads: int = 1) -> None:
    array = open_array(arena, "count")

    def add() -> None:
        for _ in range(n):
            array.add(0, 1)

    in_threads(add, threads)


def count_section(
    arena: Path, board: Board, worker: int, n: int, threads: int = 1
) -> None:
    array = open_array(arena, "count")

    def add() -> None:
        for _ in range(n):
            with array.array() as view:
                view[0] = view[0] + 1

    in_threads(add, threads)


def count_update(
    arena: Path, board: Board, worker: int, n: int, threads: int = 1
) -> None:
    array = open_array(arena, "count")

    def add() -> None:
        for _ in range(n):
            array.update(lambda old: old + 1, 0)

    in_threads(add, threads)


def count_exchange(
    arena: Path, board: Board, worker: int, n: int, threads: int = 1
) -> None:
    array = open_array(arena, "count")

    def add() -> None:
        for _ in range(n):
            while True:
                old = array[0]
                if array.compare_exchange(0, old, old + 1):
                    break

    in_threads(add, threads)


def count_mixed(
    arena: Path, board: Board, worker: int, n: int, threads: int = 1
) -> None:
    array = open_array(arena, "count")

    def add() -> None:
        me = worker * 1000 + threading.get_ident() % 997
        for k in range(n):
            way = (k + worker) % 4
            if way == 0:
                array.add(0, 1)
            elif way == 1:
                with array.array() as view:
                    if board[INSIDE]:
                        board[BROKEN] = 1
                    board[INSIDE] = me
                    view[0] += 1
                    if board[INSIDE] != me:
                        board[BROKEN] = 1
                    board[INSIDE] = 0
            elif way == 2:
                with array.lock:
                    if board[INSIDE]:
                        board[BROKEN] = 1
                    board[INSIDE] = me
                    array[0] = array[0] + 1
                    array.add(0, 0)
                    if board[INSIDE] != me:
                        board[BROKEN] = 1
                    board[INSIDE] = 0
            else:
                array.update(lambda old: old + 1, 0)

    in_threads(add, threads)


def in_threads(job: Callable[[], None], n: int) -> None:
    if n == 1:
        job()
        return
    failed: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


def write_patterns(arena: Path, board: Board, worker: int, way: str) -> None:
    array = open_array(arena, "frame")
    k = 0
    source = np.empty(array.shape, array.dtype)
    while not board[STOP]:
        k += 1
        if way == "section":
            with array.array() as view:
                view[...] = 2 * k + worker
        else:
            source[...] = 2 * k + worker
            array[...] = source
        board.set_mine(worker, COUNT, k)


def read_patterns(arena: Path, board: Board, worker: int, way: str) -> None:
    array = open_array(arena, "frame")
    out = 0
    while not board[STOP]:
        copy = array[...] if way == "copy" else array.snapshot().values
        if copy.min() != copy.max():
            raise AssertionError(f"torn: {np.unique(copy)}")
        out += 1
        board.set_mine(worker, COUNT, out)


def write_in_order(arena: Path, board: Board, worker: int) -> None:
    array = open_array(arena, "order")
    k = 0
    while not board[STOP]:
        k += 1
        for i in range(len(array)):
            array[i] = k
        board.set_mine(worker, COUNT, k)


def read_in_order(arena: Path, board: Board, worker: int) -> None:
    array = open_array(arena, "order")
    out = 0
    while not board[STOP]:
        copy = array[...]
        # Written in this order: a later element is never ahead of an earlier one.
        if np.any(np.diff(copy) > 0) or copy[0] - copy[-1] > 1:
            raise AssertionError(f"out of order: {copy}")
        out += 1
        board.set_mine(worker, COUNT, out)


def hold(
    arena: Path,
    board: Board,
    worker: int,
    name: str = "main",
    way: str = "lock",
    seconds: float = 60,
) -> None:
    """Take the lock, report it, and stay until GO is set to our number + 1."""
    array = open_array(arena, name)
    board.set_mine(worker, SLOT, array._participant.slot)
    context = array.lock if way == "lock" else array.array()
    with context as view:
        board[OWNER] = worker + 1
        if way == "section":
            view[0] = worker
        board.set_mine(worker, PHASE, WRITING)
        deadline = time.monotonic() + seconds
        while board[GO] != worker + 1 and time.monotonic() < deadline:
            time.sleep(0.0005)
            if board[OWNER] != worker + 1:
                raise AssertionError("another process is in the section")
    board.set_mine(worker, PHASE, OTHER)


def take(
    arena: Path, board: Board, worker: int, name: str = "main", times: int = 1
) -> None:
    """Wait for the lock, take it, say so."""
    array = open_array(arena, name)
    board.set_mine(worker, SLOT, array._participant.slot)
    for _ in range(times):
        board.set_mine(worker, PHASE, READING)
        with array.lock:
            board[OWNER] = worker + 1
            board.set_mine(worker, PHASE, WRITING)
            if board[OWNER] != worker + 1:
                raise AssertionError("another process is in the section")
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
    board.set_mine(worker, PHASE, OTHER)


def section(array: Any, board: Board, worker: int, *, is_slow: bool = False) -> None:
    """Write the whole array under the lock, looking out for others inside."""
    board.set_mine(worker, PHASE, WRITING)
    with array.array() as view:
        board[OWNER] = worker + 1
        value = view[0] + 1
        for part in np.array_split(view, 4):
            part[...] = value
            if is_slow:
                time.sleep(0.0002)
            if board[OWNER] != worker + 1:
                board[BROKEN] += 1
    board.set_mine(worker, PHASE, IDLE)


def survive(arena: Path, board: Board, worker: int) -> None:
    """Take the lock again and again, and say when; never to be killed."""
    array = open_array(arena, "main")
    board.set_mine(worker, SLOT, array._participant.slot)
    while not board[STOP]:
        with array.lock:
            board[OWNER] = worker + 1
            if board[OWNER] != worker + 1:
                board[BROKEN] += 1
        board.set_mine(worker, BEAT, time.monotonic_ns())
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
        time.sleep(0.0002)


def suffer(arena: Path, board: Board, worker: int, seed: int) -> None:
    """Do everything that a participant does, until killed."""
    from ataraxis import SharedMemoryArray
    from ataraxis.errors import (
        LayoutError,
        OwnerDied,
        SegmentExists,
        SegmentNotFound,
        StaleSegment,
    )

    chance = random.Random(seed)
    array = open_array(arena, "main")
    board.set_mine(worker, SLOT, array._participant.slot)
    large = np.zeros(array.shape, array.dtype)
    small = np.zeros(1 << 16, np.int64)
    board.set_mine(worker, READY, 1)
    while True:
        do = chance.choice(["section", "copy", "attach", "create", "unlink", "read"])
        try:
            if do == "section":
                section(array, board, worker, is_slow=chance.random() < 0.5)
            elif do == "copy":
                large[...] = chance.randrange(1 << 30)
                board.set_mine(worker, PHASE, WRITING)
                array[...] = large
                board.set_mine(worker, PHASE, IDLE)
            elif do == "attach":
                # A handle of its own segment, attached again each time.
                other = SharedMemoryArray.attach("side", context=arena, timeout=5)
                other.add(0, 1)
                other.disconnect()
            elif do == "create":
                own = SharedMemoryArray.create_array(
                    f"own-{worker}", small, context=arena, exist_ok=True
                )
                own[0] = 1
                own.destroy()
            elif do == "unlink":
                try:
                    one = SharedMemoryArray.create_array("same", small, context=arena)
                except SegmentExists:
                    one = SharedMemoryArray.attach("same", context=arena)
                one.destroy()
            else:
                array[...]
        except OwnerDied:
            # Another process died half way; the test heals.
            board.set_mine(worker, PHASE, IDLE)
        except (SegmentNotFound, StaleSegment):
            pass
        except LayoutError as error:
            raise AssertionError("corrupt") from error


def sleepy(arena: Path, board: Board, worker: int, name: str = "main") -> None:
    """Take part and do nothing."""
    array = open_array(arena, name)
    board.set_mine(worker, SLOT, array._participant.slot)
    board.set_mine(worker, READY, 1)
    while not board[STOP]:
        time.sleep(0.001)
    del array


def fork_in_section(arena: Path, board: Board, worker: int) -> None:
    """Fork inside a section; the child leaves it, the parent stays for a while."""
    array = open_array(arena, "main")
    with array.array() as view:
        board[OWNER] = worker + 1
        child = os.fork()
        if child:
            view[0] = 5
            board.set_mine(worker, PHASE, WRITING)
            os.waitpid(child, 0)
            board.set_mine(worker, PHASE, OTHER)
            board.until(lambda: board[GO] == worker + 1)
            if board[OWNER] != worker + 1:
                raise AssertionError("the child gave our lock away")
    if not child:
        # Inert until used, then a participant of its own.
        if array.lock.is_held or array.is_connected:
            raise AssertionError("an inherited handle claims to be connected")
        os._exit(0)


def parent_of(
    arena: Path, board: Board, worker: int, name: str = "main", way: str = "fork"
) -> None:
    """Hold the lock and have a child that outlives us; both wait to be killed."""
    array = open_array(arena, name)
    board.set_mine(worker, SLOT, array._participant.slot)
    array.lock.acquire()
    pid = os.fork()
    if pid == 0 and way == "exec":
        os.execv("/bin/sleep", ["sleep", "60"])
    board.set_mine(worker, COUNT if pid else TORN, pid or os.getpid())
    if pid:
        board.set_mine(worker, PHASE, WRITING)
    time.sleep(60)


def inherited(arena: Path, board: Board, worker: int) -> None:
    """Use a handle that came through a raw fork, in the child."""
    array = open_array(arena, "main")
    slot = array._participant.slot
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            array.add(0, 1)
            with array.array() as view:
                view[1] += 1
            code = 0 if array._participant.slot != slot else 2
            array.disconnect()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if status:
        raise AssertionError(f"the child ended with {status}")
    if array._participant.slot != slot:
        raise AssertionError("our slot changed")
    array.add(0, 1)


def executes(arena: Path, board: Board, worker: int) -> None:
    """Hold the lock and become another program."""
    array = open_array(arena, "main")
    board.set_mine(worker, SLOT, array._participant.slot)
    array.lock.acquire()
    board.set_mine(worker, PHASE, WRITING)
    board.until(lambda: board[GO] == worker + 1)
    os.execv("/bin/sleep", ["sleep", "60"])


def closes_all(arena: Path, board: Board, worker: int, first: str) -> None:
    """Close every descriptor, as daemons do, and go on."""
    from ataraxis import SharedMemoryArray

    mine = SharedMemoryArray.create_array("mine", np.zeros(2), context=arena)
    array = open_array(arena, "main")
    board.set_mine(worker, SLOT, array._participant.slot)
    if first == "hold":
        array.lock.acquire()
    os.closerange(3, 200)
    # Other processes have their numbers now.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    board.set_mine(worker, PHASE, WRITING)
    board.until(lambda: board[GO] == worker + 1)
    if first == "hold":
        array.lock.release()
    else:
        # A process died holding it: found out by a probe that was opened again.
        if not array.lock.acquire(5):
            raise AssertionError("a dead owner is taken for alive")
        array.lock.release()
    array.disconnect()
    mine.destroy()
    for number in others:
        os.fstat(number)
    board.set_mine(worker, PHASE, OTHER)


def waits_interrupted(arena: Path, board: Board, worker: int) -> None:
    """Wait for the lock while a timer fires every ms."""
    fired = []

    def fire(*_: object) -> None:
        fired.append(1)
        board.set_mine(worker, TORN, len(fired))

    signal.signal(signal.SIGALRM, fire)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    array = open_array(arena, "main")
    board.set_mine(worker, PHASE, READING)
    with array.lock:
        board.set_mine(worker, COUNT, 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not fired:
        raise AssertionError("no signal came")


def reaps_with_child(arena: Path, board: Board, worker: int) -> None:
    """Reap a dead owner while a forked child of ours lives (and we may be killed)."""
    array = open_array(arena, "main")
    pid = os.fork()
    if pid == 0:
        board.set_mine(worker, TORN, os.getpid())
        time.sleep(60)
    board.set_mine(worker, COUNT, pid)
    board.until(lambda: board.mine(worker, TORN))
    array.lock.acquire()
    array.lock.release()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def leave(arena: Path, board: Board, worker: int, name: str) -> None:
    """Create and destroy; die in between, if requested."""
    from ataraxis import SharedMemoryArray

    SharedMemoryArray.create_array(name, np.ones(4), context=arena).destroy()


def crash(arena: Path, board: Board, worker: int, way: str) -> None:
    """Walk past a crash point, in the way that leads there."""
    from ataraxis import SharedMemoryArray

    def make(name: str, **more: Any) -> Any:
        return SharedMemoryArray.create_array(
            name, np.full(1 << 12, 7, np.int64), context=arena, **more
        )

    if way == "create":
        make("made").destroy()
        return
    array = open_array(arena, "main")
    board.set_mine(worker, SLOT, array._participant.slot)
    board.set_mine(worker, READY, 1)
    if way == "attach":
        array.disconnect()
    elif way == "section":
        with array.array() as view:
            view[: len(view) // 2] = 9
            view[...] = 9
            array.heal()
    elif way == "assign":
        array[...] = np.full(len(array), 9, np.int64)
    elif way == "element":
        array[3] = 9
    elif way == "wait":
        # A process holds it until our word is set.
        board.until(lambda: array.statistics().owner >= 0)
        board.set_mine(worker, PHASE, READING)
        with array.lock:
            pass
    elif way == "change":
        array.wait_for_change(10)
    elif way == "reap":
        # Its owner was killed.
        with array.lock:
            pass
    elif way == "retired":
        open_array(arena, "half").disconnect()


def attach_often(arena: Path, board: Board, worker: int, n: int) -> None:
    """Attach and let go, again and again; descriptors and maps must not grow."""

    def usage() -> tuple[int, int]:
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("life" in m for m in maps)

    before = usage()
    for _ in range(n):
        array = open_array(arena, "life")
        array.add(0, 1)
        array.disconnect()
        del array
    if usage() != before:
        raise AssertionError(f"{before} -> {usage()}")


if __name__ == "__main__":
    if sys.argv[2]:
        # The variant, not whatever is installed for development.
        sys.meta_path[:] = [
            f for f in sys.meta_path if "Mesonpy" not in type(f).__name__
        ]
        sys.path.insert(0, sys.argv[2])
    sys.path.insert(1, str(HERE.parent))
    import workers_stress
    import xarray  # noqa: F401 - once, not in every worker

    from ataraxis import SharedMemoryArray

    SharedMemoryArray  # noqa: B018 - loads the rooms
    if sys.argv[2]:
        import ataraxis._kernels.memory as kernel

        assert kernel.__file__.startswith(sys.argv[2]), kernel.__file__
    workers_stress.serve(sys.argv[1])
