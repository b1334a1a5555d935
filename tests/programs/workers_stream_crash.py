"""Processes that pass a crash point of a stream; run by a `Zygote` of the crash build.

Each job gets ready, says so on the board, waits for GO, and only then can die.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GO = 1
SLOT, READY, DONE = 0, 1, 2
WORDS = 16384  # 128 KiB: a frame that is copied in two halves
MARK = 1 << 40  # what the victim's frames hold


class Fuse:
    """Crash points are off until it is lit."""

    def __init__(self, board: Any, worker: int) -> None:
        self.board, self.worker = board, worker
        self.point = os.environ.pop("ATARAXIS_CRASH_AT", "")

    def light(self, end: Any) -> None:
        self.board.set_mine(self.worker, SLOT, end._segment.participant.slot)
        self.board.set_mine(self.worker, READY, 1)
        self.board.until(lambda: self.board[GO] == self.worker + 1)
        os.environ["ATARAXIS_CRASH_AT"] = self.point


def produce(
    arena: Path,
    board: Any,
    worker: int,
    shared: bool,
    frames: int,
    resume: bool = False,
) -> None:
    """Send some frames in peace, and then one more."""
    from ataraxis.stream import Producer

    warnings.simplefilter("ignore", RuntimeWarning)
    fuse = Fuse(board, worker)
    stream = Producer(
        "s", shape=(WORDS,), dtype="u8", buffer_count=4, shared=shared, context=arena,
        resume=resume,
    )  # fmt: skip
    if not shared:
        stream.wait_for_subscribers(2, timeout=20)
    for k in range(frames):
        stream.send(np.full(WORDS, MARK + k, "u8"))
    fuse.light(stream)
    stream.send(np.full(WORDS, MARK + frames, "u8"))
    stream.close()


def produce_rows(arena: Path, board: Any, worker: int, frames: int) -> None:
    """Send some small frames in peace, and then a block of them."""
    from ataraxis.stream import Producer

    fuse = Fuse(board, worker)
    stream = Producer("s", shape=(8,), dtype="u8", buffer_count=64, context=arena)
    stream.wait_for_subscribers(2, timeout=20)
    for k in range(frames):
        stream.send(np.full(8, k, "u8"))
    fuse.light(stream)
    stream.send_block(
        np.repeat(np.arange(frames, frames + 8, dtype="u8"), 8).reshape(8, 8)
    )
    stream.close()


def resume(arena: Path, board: Any, worker: int) -> None:
    """Go on with a stream whose producer died, with the fuse lit before."""
    from ataraxis.shm.header import Kind
    from ataraxis.shm.segment import Segment
    from ataraxis.stream import Producer

    fuse = Fuse(board, worker)
    watch = Segment.attach("s", kind=Kind.STREAM, context=arena)
    board.set_mine(worker, SLOT, watch.participant.slot)
    board.set_mine(worker, READY, 1)
    board.until(lambda: board[GO] == worker + 1)
    os.environ["ATARAXIS_CRASH_AT"] = fuse.point
    Producer(
        "s", shape=(WORDS,), dtype="u8", buffer_count=4, resume=True, context=arena
    ).close()


def on_the_wire(sequence: int, value: int, words: int = WORDS) -> bytes:
    """Return a frame as it comes from another machine."""
    from ataraxis.frame import Frame

    frame = Frame.from_value(
        np.full(words, value, "u8"), sequence=sequence, source=1, labels_id=1,
        time_ns=sequence,
    )  # fmt: skip
    return frame.to_bytes()


def inflow(arena: Path, board: Any, worker: int, frames: int, lost: int) -> None:
    """Publish some frames from bytes in peace, and then a loss and one more."""
    from ataraxis._kernels.link import OK, BufferToRing
    from ataraxis.stream import Producer

    fuse = Fuse(board, worker)
    stream = Producer(
        "s", shape=(WORDS,), dtype="u8", buffer_count=4, resume=True, context=arena
    )
    stream.wait_for_subscribers(2, timeout=20)
    inflow = BufferToRing(stream)
    data = b"".join(on_the_wire(k, k) for k in range(frames))
    assert inflow.write(data, 0, len(data)) == (len(data), OK)
    fuse.light(stream)
    inflow.lose(frames, lost)
    data = on_the_wire(frames + lost, frames + lost)
    assert inflow.write(data, 0, len(data)) == (len(data), OK)
    stream.close()


def outflow(arena: Path, board: Any, worker: int, spill: str) -> None:
    """Hold frames, copy them, write them to a journal, release them."""
    from ataraxis._kernels.link import RingToBuffer
    from ataraxis.log.journal.writer import JournalWriter
    from ataraxis.stream import Consumer

    fuse = Fuse(board, worker)
    stream = Consumer("s", context=arena, durable="agent")
    outflow = RingToBuffer(stream)
    journal = JournalWriter(spill, "spool")
    journal.describe(1, "s", None)
    fuse.light(stream)
    assert outflow.wait(20) == 0
    outflow.take(4)
    outflow.copy(outflow.first, bytearray(1 << 20), 0)
    outflow.spill(journal, 1, -1, 1 << 62)
    outflow.release(1 << 62)
    journal.close()
    stream.close()


def consume(
    arena: Path,
    board: Any,
    worker: int,
    policy: str | None = None,
    durable: str | None = None,
    held: int = 0,
    join: bool = False,
    rows: int = 0,
) -> None:
    """Receive, or read rows; or join, with the fuse lit before."""
    from ataraxis.shm.header import Kind
    from ataraxis.shm.segment import Segment
    from ataraxis.stream import Consumer

    fuse = Fuse(board, worker)

    def make() -> Any:
        return Consumer("s", context=arena, policy=policy, durable=durable)

    if join:
        watch = Segment.attach("s", kind=Kind.STREAM, context=arena)
        board.set_mine(worker, SLOT, watch.participant.slot)
        board.set_mine(worker, READY, 1)
        board.until(lambda: board[GO] == worker + 1)
        os.environ["ATARAXIS_CRASH_AT"] = fuse.point
        make()
        return
    stream = make()
    kept = [stream.receive() for _ in range(held)]
    fuse.light(stream)
    if rows:
        stream.read(rows, timeout=20)
    for _ in range(8):
        frame = stream.receive(timeout=20)
        frame.release()
    del kept
    stream.close()


def sweep(arena: Path, board: Any, worker: int) -> None:
    """Clean up after the dead process."""
    from ataraxis.stream import Consumer

    fuse = Fuse(board, worker)
    stream = Consumer("s", context=arena, policy="latest")
    fuse.light(stream)
    stream._segment.participant.sweep()
    board.set_mine(worker, DONE, 1)
    stream.close()


def until(condition: Callable[[], object], timeout: float) -> None:
    """Wait without a nap: what is measured is milliseconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(0.0005)
