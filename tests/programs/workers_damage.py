"""Peers that go on while control words are damaged under them; run by a `Zygote`.

A peer serves one generation of a segment after another: the board says which. It uses
timeouts of 0.05 s, goes on after every exception of ours, and counts its rounds (BEAT).
What it sends says by itself whether it is whole; what arrives otherwise is counted
(BAD). TROUBLE counts the exceptions.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import signal
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STOP, GENERATION = 0, 1
OPEN, BEAT, TROUBLE, BAD, GOOD, CLOSED, WHERE, WORST, DEED = (*range(8), 9)
DEEDS = ("open", "act", "close")
TICKET = 2048  # words of the board: where the frame buffer's tickets pass
WAIT_S = 0.05
SLOTS, ROW = 16, 24
MIX = np.arange(1, 1 + ROW, dtype="u8") * np.uint64(0x9E3779B97F4A7C15)
PARTICIPANTS = 16


def row(k: int) -> NDArray[np.uint64]:
    """Make a payload that says by itself whether it is whole."""
    made = (np.uint64(k) + np.uint64(1)) * MIX
    made[0] = k
    return made


def is_row(found: NDArray[np.uint64]) -> bool:
    return found.shape == (ROW,) and bool((found == row(int(found[0]))).all())


def sealed(k: int) -> bytes:
    data = row(k).tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def is_sealed(data: Any) -> bool:
    data = bytes(data)
    return zlib.crc32(data[:-4]).to_bytes(4, "little") == data[-4:] and len(data) > 4


class Peer:
    """Opens a segment of a generation, acts on it round by round, and lets go of it."""

    def __init__(self, arena: Path, board: Any, worker: int, generation: int) -> None:
        self.arena, self.board, self.worker = arena, board, worker
        self.generation, self.name = generation, f"g{generation}"
        self.k = self.rounds = 0
        self.open()

    def open(self) -> None:
        raise NotImplementedError

    def act(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def judge(self, is_whole: bool, where: int = -1) -> None:
        word = GOOD if is_whole else BAD
        self.board.set_mine(self.worker, word, self.board.mine(self.worker, word) + 1)
        if not is_whole:
            self.board.set_mine(self.worker, WHERE, where)


class Control(Peer):
    """Touches nothing: how late it is says how busy the machine is."""

    def open(self) -> None:
        pass

    def act(self) -> None:
        time.sleep(0.01)

    def close(self) -> None:
        pass


class Sender(Peer):
    def open(self) -> None:
        from ataraxis.stream import Producer

        shared = self.generation % 2 == 1
        self.end = Producer(
            self.name, shape=(ROW,), dtype="u8", buffer_count=SLOTS, shared=shared,
            context=self.arena, participants=PARTICIPANTS,
        )  # fmt: skip

    def act(self) -> None:
        self.rounds += 1
        if self.rounds % 3:
            self.end.send(row(self.k), timeout=WAIT_S)
            self.k += 1
        else:
            rows = np.stack([row(self.k + i) for i in range(5)])
            self.k += 5
            self.end.send_block(rows, timeout=WAIT_S)

    def close(self) -> None:
        self.end.close()


class SecondSender(Sender):
    """Joins where several may send; else it looks on from outside."""

    def open(self) -> None:
        if self.generation % 2:
            super().open()

    def act(self) -> None:
        from ataraxis.stream import inspector

        if self.generation % 2:
            super().act()
        else:
            inspector.Inspector(self.name, context=self.arena).statistics()
            time.sleep(0.005)

    def close(self) -> None:
        if self.generation % 2:
            super().close()


class Receiver(Peer):
    policy, durable = "lossless", None

    def open(self) -> None:
        from ataraxis.stream import Consumer

        more = {} if self.durable is None else {
            "durable": self.durable, "detached_timeout": 1.0,
        }  # fmt: skip
        self.end = Consumer(self.name, context=self.arena, policy=self.policy, **more)
        self.kept: list[Any] = []

    def act(self) -> None:
        from ataraxis.errors import LayoutError

        self.rounds += 1
        if self.end is None or self.rounds % 500 == 0:
            self.kept, self.end = [], None
            self.open()
        if self.rounds % 3 and self.policy != "latest":
            try:
                rows = self.end.read(4, timeout=WAIT_S)
            except LayoutError:
                raise
            except ValueError:
                # As documented: its length was damaged, so it is received instead.
                pass
            else:
                for found in rows:
                    self.judge(is_row(found))
                return
        frame = self.end.receive(timeout=WAIT_S)
        if frame is not None:
            index = (frame.buffer_id - 1) % SLOTS
            found = frame.array.copy()
            self.judge(frame._code != 0 and is_row(found), index)
            if self.rounds % 7 == 0:
                self.kept = [frame]
            frame.release()

    def close(self) -> None:
        self.kept = []
        if self.end is not None:
            self.end.close()


class Lossy(Receiver):
    policy = "lossy"


class Latest(Receiver):
    policy = "latest"


class Durable(Receiver):
    durable = "name"


class Putter(Peer):
    def open(self) -> None:
        from ataraxis.stream import MemQ

        lease = 0.3 if self.generation % 3 == 0 else None
        if self.worker == 0:
            self.end = MemQ(
                self.name, SLOTS, 1024, context=self.arena, lease_timeout=lease,
                participants=PARTICIPANTS,
            )  # fmt: skip
        else:
            self.end = MemQ.attach(self.name, context=self.arena)
        if self.generation % 2:
            self.end.share_slots()

    def act(self) -> None:
        self.rounds += 1
        if self.rounds % 4:
            self.end.put(sealed(self.k), timeout=WAIT_S)
            self.k += 1
        else:
            self.end.put_many([sealed(self.k + i) for i in range(5)], timeout=WAIT_S)
            self.k += 5

    def close(self) -> None:
        self.end.close()


class Getter(Putter):
    def act(self) -> None:
        self.rounds += 1
        way = self.rounds % 4
        if way == 0:
            for data in self.end.get_many(8, timeout=WAIT_S):
                self.judge(is_sealed(data))
        elif way == 1:
            with self.end.lease(timeout=WAIT_S) as lease:
                self.judge(is_sealed(lease.value))
        else:
            self.judge(is_sealed(self.end.get(timeout=WAIT_S)))


class Interrupted(Exception):
    """What our own signal raises, as Ctrl-C does."""


def interrupt(*_: Any) -> None:
    raise Interrupted


class Writer(Peer):
    """Every way into the array has a timeout, or is ended by a signal."""

    def open(self) -> None:
        from ataraxis import SharedMemoryArray

        signal.signal(signal.SIGALRM, interrupt)
        self.end = SharedMemoryArray.create_array(
            self.name, row(0), exists_ok=True, context=self.arena,
            participants=PARTICIPANTS,
        )  # fmt: skip

    @contextlib.contextmanager
    def alarm(self) -> Any:
        signal.setitimer(signal.ITIMER_REAL, WAIT_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def act(self) -> None:
        self.rounds += 1
        self.k += 1
        with self.alarm():
            if self.rounds % 2:
                self.end[...] = row(self.k)
        if not self.rounds % 2 and self.end.lock.acquire(WAIT_S):
            try:
                self.end[...] = row(self.k)
            finally:
                self.end.lock.release()

    def close(self) -> None:
        self.end.disconnect()
        with contextlib.suppress(OSError):
            (self.arena / self.name).unlink()


class Reader(Writer):
    def act(self) -> None:
        self.rounds += 1
        if self.rounds % 50 == 0:
            self.end.wait_for_change(timeout=WAIT_S)
            return
        with self.alarm():
            found = self.end[...]
        self.judge(is_row(found))


class Server(Peer):
    def open(self) -> None:
        from ataraxis import FrameBufferServer

        self.end = FrameBufferServer(
            self.name, 8192, context=self.arena, participants=PARTICIPANTS
        )
        self.end.start()

    def act(self) -> None:
        self.end.statistics()
        time.sleep(0.001)

    def close(self) -> None:
        self.end.stop()


class Chunks(Peer):
    def open(self) -> None:
        from ataraxis import FrameBufferClient

        self.end = FrameBufferClient(self.name, context=self.arena)
        self.end.start()

    def act(self) -> None:
        data = sealed(self.k)
        self.k += 1
        at = self.end.allocate(len(data))
        words = self.board.words
        sum_ = self.end.write(at, data)
        words[TICKET : TICKET + 3] = (
            at, len(data), np.frombuffer(sum_, "i8")[0],
        )  # fmt: skip
        if self.k % 100 == 0:
            self.end.stop()
            self.end.start()

    def close(self) -> None:
        self.end.stop()


class Fetcher(Chunks):
    def act(self) -> None:
        at, size, sum_ = (int(w) for w in self.board.words[TICKET : TICKET + 3])
        self.k += 1
        if size:
            checksum = np.int64(sum_).tobytes()
            self.judge(is_sealed(self.end.read(at, size, checksum)))
            with self.end.view(at, size, checksum) as live:
                found = bytes(live)
            self.judge(is_sealed(found))


CASTS: dict[str, tuple[type[Peer], ...]] = {
    "stream": (Sender, SecondSender, Receiver, Lossy, Latest, Durable, Control),
    "queue": (Putter, Putter, Getter, Getter, Control),
    "array": (Writer, Writer, Reader, Control),
    "framebuffer": (Server, Chunks, Fetcher, Control),
}


def play(arena: Path, board: Any, worker: int, cast: str) -> None:
    """Be one peer of a cast, generation after generation, until STOP."""
    from ataraxis.errors import AtaraxisError

    for room in ("shm", "stream", "stream.inspector", "framebuffer"):
        importlib.import_module(f"ataraxis.{room}")
    warnings.simplefilter("ignore")
    stack = open(arena / f".stack{worker}", "w")  # noqa: SIM115 - as long as we live
    faulthandler.register(signal.SIGUSR1, file=stack)
    make = CASTS[cast][worker]
    ours = (AtaraxisError, TimeoutError, Interrupted)

    def count(word: int) -> None:
        board.set_mine(worker, word, board.mine(worker, word) + 1)

    def attempt(what: int, deed: Callable[[], Any]) -> Any:
        began = time.monotonic_ns()
        try:
            return deed()
        except ours:
            count(TROUBLE)
            # A peer that is told at once is not to fill the machine with that.
            time.sleep(0.0005)
            return None
        finally:
            took = time.monotonic_ns() - began
            if took > board.mine(worker, WORST):
                board.set_mine(worker, WORST, took)
                board.set_mine(worker, DEED, what)
            count(BEAT)

    done = 0
    while not board[STOP]:
        generation = board[GENERATION]
        if generation in (0, done):
            time.sleep(0.001)
            count(BEAT)
            continue
        peer = None
        while peer is None and board[GENERATION] == generation and not board[STOP]:
            peer = attempt(0, lambda g=generation: make(arena, board, worker, g))
        board.set_mine(worker, OPEN, generation)
        while board[GENERATION] == generation and not board[STOP]:
            attempt(1, peer.act)
        if peer is not None:
            attempt(2, peer.close)
        peer = None
        done = generation
        board.set_mine(worker, CLOSED, generation)
