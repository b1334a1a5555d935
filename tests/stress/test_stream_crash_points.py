"""A death at every named point of the stream kernels: the others go on.

`POINTS` lists what leads to each point. docs/explanation/concurrency.md has the same
names in its kill table, with what is half done there and what repairs it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import variants
from workers_stream_crash import GO, MARK, READY, SLOT, WORDS, on_the_wire, until
from workers_stress import Zygote

from ataraxis._kernels import snapshot
from ataraxis._kernels.link import OK, BufferToRing, RingToBuffer
from ataraxis._kernels.memory import byte_held
from ataraxis.stream import Consumer, Producer
from ataraxis.stream.inspector import DURABLES, READER_BYTES, STREAM_BYTES

LIMIT_S = 1.0
SLOTS = 4
SLEEPERS_AT = 768 + 128  # ax_stream.data.sleepers
POINTS = {
    "claim_before": "produce",
    "claim_word": "produce",
    "claim_tail": "produce",
    "send_half": "produce",
    "publish_before": "produce",
    "publish_word": "produce",
    "wake_cleared": "wake",
    "run_claimed": "produce rows",
    "run_tail": "produce rows",
    "run_filled": "produce rows",
    "pin_set": "view",
    "cursor_before": "consume",
    "cursor_moved": "consume",
    "join_published": "join",
    "join_done": "join",
    "durable_owned": "register",
    "cleanup_slot": "reap",
    "cleanup_slots": "reap",
    "cleanup_cursor": "reap",
    "cleanup_detached": "reap",
    "resume_alone": "resume",
    "resume_announced": "resume",
    "resume_counting": "resume",
    "end_unmarked": "end",
    "end_marked": "end",
    "outflow_taken": "outflow",
    "outflow_copied": "outflow",
    "outflow_spilled": "outflow",
    "inflow_claimed": "inflow",
    "inflow_filled": "inflow",
    "inflow_published": "inflow",
    "inflow_absent": "inflow",
}


def of(way: str) -> list[str]:
    return [point for point, leads in POINTS.items() if leads == way]


def test_every_point_has_a_line() -> None:
    assert variants.stream_points() == set(POINTS)


class Stage:
    """A stream, two readers, and the process that dies."""

    def __init__(self, arena: Path, mother: Zygote, *, is_ours: bool = True) -> None:
        self.arena, self.mother, self.board = arena, mother, mother.board
        self.sent: list[int] = []
        self.stream = self.make() if is_ours else None
        self.handles: list[Any] = []

    def make(self, *, resume: bool = False) -> Producer:
        return Producer(
            "s", shape=(WORDS,), dtype="u8", buffer_count=SLOTS, shared=not resume,
            resume=resume, context=self.arena,
        )  # fmt: skip

    def readers(self) -> tuple[Consumer, Consumer]:
        both = tuple(
            Consumer("s", context=self.arena, policy=policy, timeout=20, label=policy)
            for policy in ("lossless", "lossy")
        )
        self.handles += both
        return both

    def send(self, n: int = 1) -> None:
        for _ in range(n):
            assert self.stream.send(self.frame(len(self.sent)), timeout=5)
            self.sent.append(len(self.sent))

    def frame(self, k: int) -> np.ndarray[Any, Any]:
        return np.full(WORDS, k, "u8")

    def start(self, point: str, job: str, worker: int = 1, **arguments: Any) -> int:
        pid = self.mother.start(
            f"workers_stream_crash:{job}", worker, crash_at=point, **arguments
        )
        self.board.until(lambda: self.board.mine(worker, READY))
        return pid

    def die(self, pid: int, worker: int = 1) -> float:
        """Light the fuse; when the dead one's byte was free."""
        self.board[GO] = worker + 1
        code = self.mother.wait(pid)
        assert code == -9, f"the point was not reached: {self.mother.complaints()}"
        part = (self.stream or self.handles[0])._segment.participant
        slot = self.board.mine(worker, SLOT)
        until(lambda: not byte_held(part.descriptor, slot), 5)
        return time.monotonic()

    def kill(self, pid: int) -> None:
        self.mother.kill(pid)
        assert self.mother.wait(pid) == -9

    def leave_nothing(self, *readers: Consumer, durable: int = 0) -> None:
        """Only we take part; every slot can be used, and none is pinned."""
        assert self.stream is not None
        part = self.stream._segment.participant
        part.sweep()
        assert snapshot.producers(part) == [part.slot]
        ours = {reader._segment.participant.slot for reader in readers}
        entries = snapshot.readers(part)
        assert {e[0] for e in entries if not e[1]} == ours
        assert len([e for e in entries if e[1]]) == durable
        for word, pins in control_lines(self.stream):
            assert word & 7 != 1, "a slot is being written by no producer"
            assert pins == 0, "a slot is pinned by no reader"
        held = [s for s in range(128) if byte_held(part.descriptor, s)]
        assert set(held) <= ours | {part.slot}

    def close(self) -> None:
        for handle in self.handles:
            handle.close()
        if self.stream is not None:
            self.stream.unlink()


def control_lines(stream: Producer) -> Iterator[tuple[int, int]]:
    """Word and pins of every slot, as they are in the file."""
    segment = stream._segment
    geometry = segment.header.geometry
    n = geometry.participants
    stride = (64 + (n + 63) // 64 * 8 + 127) // 128 * 128
    first = geometry.control + STREAM_BYTES + (n + DURABLES) * READER_BYTES
    memory = memoryview(segment.mapping)
    for k in range(stream.buffer_count):
        at = first + k * stride
        yield (
            struct.unpack_from("<Q", memory, at)[0],
            sum(struct.unpack_from(f"<{(n + 63) // 64}Q", memory, at + 64)),
        )


@pytest.fixture
def stage(mother: Zygote, arena: Path) -> Iterator[Stage]:
    made = Stage(arena, mother)
    yield made
    made.close()
    assert os.listdir(arena) == []


def values(reader: Consumer, n: int) -> list[int]:
    """Receive `n` whole frames."""
    got = []
    for _ in range(n):
        frame = reader.receive(timeout=5)
        assert frame is not None
        assert (frame.array == frame.array[0]).all(), "torn"
        got.append(int(frame.array[0]))
        del frame
    return got


@pytest.mark.parametrize("point", of("produce"))
def test_one_of_several_producers(point: str, stage: Stage) -> None:
    gating, watching = stage.readers()
    pid = stage.start(point, "produce", shared=True, frames=1)
    assert values(gating, 1) == values(watching, 1) == [MARK]
    stage.send(2)
    free = stage.die(pid)
    got: list[int] = []
    # What was published is received, also when no reader was woken.
    expected = [0, 1] + ([MARK + 1] if point == "publish_word" else [])
    got += values(gating, len(expected))
    for _ in range(3 * SLOTS):
        stage.send()
        got += values(gating, 1)
    assert time.monotonic() - free < LIMIT_S
    assert got == expected + stage.sent[2:]
    seen = []
    while (frame := watching.receive(blocking=False)) is not None:
        seen.append(int(frame.array[0]))
        del frame
    assert seen[-2:] == stage.sent[-2:]
    assert seen == sorted(seen)
    stage.leave_nothing(gating, watching)


@pytest.mark.parametrize("point", of("produce"))
def test_the_only_producer(point: str, mother: Zygote, arena: Path) -> None:
    stage = Stage(arena, mother, is_ours=False)
    pid = mother.start(
        "workers_stream_crash:produce", 1, crash_at=point, shared=False, frames=3
    )
    gating, watching = stage.readers()
    stage.board.until(lambda: stage.board.mine(1, READY))
    free = stage.die(pid)
    count = 3 + (point == "publish_word")
    for reader in (gating, watching):
        got = [int(frame.array[0]) for frame in reader]
        assert got == [MARK + k for k in range(count)]
        assert not reader.is_alive
        assert reader.is_ended
        assert reader.dropped_count == 0
    # Its name is free at once.
    stage.stream = stage.make()
    assert time.monotonic() - free < LIMIT_S
    stage.leave_nothing()
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize("is_kept", [False, True], ids=["", "durable"])
@pytest.mark.parametrize(
    "point", [*of("produce rows"), "publish_before", "publish_word"]
)
def test_the_only_producer_in_a_run(
    point: str, is_kept: bool, mother: Zygote, arena: Path
) -> None:
    """The published part of a run is received, the rest is not, and no slot is lost."""
    frames = 4  # a run of four follows: a ring of 64 slots is announced in parts
    stage = Stage(arena, mother, is_ours=False)
    pid = mother.start(
        "workers_stream_crash:produce_rows", 1, crash_at=point, frames=frames
    )
    gating = Consumer(
        "s", context=arena, policy="lossless", timeout=20,
        durable="recorder" if is_kept else None,
    )  # fmt: skip
    watching = Consumer("s", context=arena, policy="lossy", timeout=20)
    stage.handles += gating, watching
    stage.board.until(lambda: stage.board.mine(1, READY))
    free = stage.die(pid)
    expected = list(range(frames + (point == "publish_word")))
    for reader in (gating, watching):
        assert [int(frame.array[0]) for frame in reader] == expected
        assert reader.dropped_count == 0
    # Its name is free at once, and the ring goes on where a durable name keeps it.
    stage.stream = Producer("s", shape=(8,), dtype="u8", buffer_count=64, context=arena)
    assert time.monotonic() - free < LIMIT_S
    if is_kept:
        rows = np.repeat(np.arange(100, 300, dtype="u8"), 8).reshape(200, 8)
        again = Consumer("s", context=arena, durable="recorder", timeout=20)
        stage.handles.append(again)
        sender = threading.Thread(target=stage.stream.send_block, args=(rows,))
        sender.start()
        assert (again.read(200, timeout=20) == rows).all()
        sender.join()
        again.close()
    stage.leave_nothing()
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize("point", ["publish_word", *of("wake")])
def test_a_sleeper_is_not_forgotten(point: str, stage: Stage) -> None:
    """The frame was published, and the sleeper was not woken: it looks in time."""
    gating, watching = stage.readers()
    pid = stage.start(point, "produce", shared=True, frames=0)
    got: list[int] = []
    sleepers = [
        threading.Thread(target=lambda r=reader: got.extend(values(r, 1)))
        for reader in (gating, watching)
    ]
    for thread in sleepers:
        thread.start()
    until(lambda: len(asleep(stage.stream)) == 2, 5)
    free = stage.die(pid)
    for thread in sleepers:
        thread.join(5)
    assert time.monotonic() - free < LIMIT_S
    assert got == [MARK, MARK]
    stage.send(SLOTS)
    assert values(gating, SLOTS) == values(watching, SLOTS) == stage.sent
    stage.leave_nothing(gating, watching)


def asleep(stream: Producer) -> list[int]:
    """Participants whose bit says that they sleep until there are data."""
    segment = stream._segment
    at = segment.header.geometry.control + SLEEPERS_AT
    words = struct.unpack_from("<16Q", memoryview(segment.mapping), at)
    return [k * 64 + b for k in range(16) for b in range(64) if words[k] >> b & 1]


@pytest.mark.parametrize("point", of("view"))
def test_a_viewer(point: str, stage: Stage) -> None:
    gating, _ = stage.readers()
    for k in range(SLOTS):
        stage.send()
        assert values(gating, 1) == [k]
    pid = stage.start(point, "consume", policy="lossy")
    free = stage.die(pid)
    for _ in range(40):
        stage.send()
        assert values(gating, 1) == stage.sent[-1:]
    assert time.monotonic() - free < LIMIT_S
    stage.leave_nothing(*stage.handles)
    skipped = stage.stream.statistics().skipped
    for _ in range(2 * SLOTS):
        stage.send()
        assert values(gating, 1) == stage.sent[-1:]
    assert stage.stream.statistics().skipped == skipped


@pytest.mark.parametrize("point", of("consume"))
def test_a_reader_of_rows(point: str, mother: Zygote, arena: Path) -> None:
    """It gives frames back in runs, of an eighth of the ring: has them all, or none."""
    stage = Stage(arena, mother, is_ours=False)
    stage.stream = Producer("s", shape=(8,), dtype="u8", buffer_count=64, context=arena)
    pid = stage.start(point, "consume", durable="recorder", rows=60)
    rows = np.repeat(np.arange(60, dtype="u8"), 8).reshape(60, 8)
    stage.stream.send_block(rows)
    stage.die(pid)
    begin = 8 if point == "cursor_moved" else 0
    again = Consumer("s", context=arena, durable="recorder", timeout=20)
    stage.handles.append(again)
    assert (again.read(60 - begin, timeout=20) == rows[begin:]).all()
    assert again.dropped_count == 0
    sender = threading.Thread(target=stage.stream.send_block, args=(rows,))
    sender.start()
    assert (again.read(60, timeout=20) == rows).all()
    sender.join()
    again.close()
    stage.leave_nothing()
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize("durable", [None, "recorder"])
@pytest.mark.parametrize("point", of("consume"))
def test_a_reader_that_gates(point: str, durable: str | None, stage: Stage) -> None:
    gating, _ = stage.readers()
    policy = None if durable else "lossless"
    pid = stage.start(point, "consume", policy=policy, durable=durable)
    for k in range(SLOTS):
        stage.send()
        assert values(gating, 1) == [k]
    free = stage.die(pid)
    if durable:
        # It was done with frame 0 exactly when its cursor had moved.
        begin = int(point == "cursor_moved")
        stage.send(begin)
        assert values(gating, begin) == stage.sent[SLOTS:]
        assert stage.stream.next_to_send(blocking=False) is None
        assert stage.stream.next_to_send(blocking=False) is None
        stage.stream._segment.participant.sweep()
        assert stage.stream.statistics().detached == (durable,)
        with pytest.raises(TimeoutError):
            stage.stream.send(stage.frame(0), timeout=0.1)
        again = Consumer("s", context=stage.arena, durable=durable)
        assert values(again, len(stage.sent) - begin) == stage.sent[begin:]
        stage.send(SLOTS)
        assert values(again, SLOTS) == values(gating, SLOTS) == stage.sent[-SLOTS:]
        again.close()
    else:
        for _ in range(3 * SLOTS):
            stage.send()
            assert values(gating, 1) == stage.sent[-1:]
        assert time.monotonic() - free < LIMIT_S
    stage.leave_nothing(*stage.handles)


@pytest.mark.parametrize("durable", [None, "recorder"])
@pytest.mark.parametrize("point", of("join"))
def test_a_joiner(point: str, durable: str | None, stage: Stage) -> None:
    gating, _ = stage.readers()
    stage.send(2)
    policy = None if durable else "lossless"
    pid = stage.start(point, "consume", policy=policy, durable=durable, join=True)
    free = stage.die(pid)
    assert values(gating, 2) == [0, 1]
    is_promised = durable is not None and point == "join_done"
    stage.stream._segment.participant.sweep()
    assert len(stage.stream.statistics().detached) == is_promised
    if is_promised:
        stage.send(2)
        assert values(gating, 2) == [2, 3]
        with pytest.raises(TimeoutError):
            stage.stream.send(stage.frame(0), timeout=0.1)
        again = Consumer("s", context=stage.arena, durable=durable)
        assert values(again, 4) == [0, 1, 2, 3]
        again.close()
    free = free if not is_promised else time.monotonic()
    for _ in range(3 * SLOTS):
        stage.send()
        assert values(gating, 1) == stage.sent[-1:]
    assert time.monotonic() - free < LIMIT_S
    stage.leave_nothing(*stage.handles)


@pytest.mark.parametrize("point", of("register"))
def test_a_durable_name(point: str, stage: Stage) -> None:
    gating, _ = stage.readers()
    stage.send(2)
    pid = stage.start(point, "consume", durable="recorder", join=True)
    free = stage.die(pid)
    again = Consumer("s", context=stage.arena, durable="recorder")
    assert time.monotonic() - free < LIMIT_S
    assert values(gating, 2) == values(again, 2) == [0, 1]
    stage.send(SLOTS)
    assert values(gating, SLOTS) == values(again, SLOTS) == stage.sent[-SLOTS:]
    again.close()
    stage.leave_nothing(*stage.handles)


def test_a_name_that_promised_nothing_is_not_kept(stage: Stage) -> None:
    """Killed before it had a cursor: the stream goes when it has been read."""
    gating, watching = stage.readers()
    stage.send(1)
    stage.die(stage.start("durable_owned", "consume", durable="recorder", join=True))
    stage.stream.close()
    stage.stream = None
    for reader in (gating, watching):
        assert [int(frame.array[0]) for frame in reader] == [0]
        reader.close()
    assert os.listdir(stage.arena) == []


@pytest.mark.parametrize("point", of("reap"))
def test_a_death_while_cleaning_up(point: str, stage: Stage) -> None:
    """The next one does it again, whatever was done already."""
    gating, _ = stage.readers()
    durable = stage.start("", "consume", 3, durable="recorder")
    viewer = stage.start("", "consume", 4, policy="lossy")
    before = len(stage.sent)
    pid = stage.start(point, "sweep")
    # The claim of the dead is in the ring: passed over when it was cleaned up.
    stage.die(stage.start("claim_word", "produce", 2, shared=True, frames=0), 2)
    stage.kill(durable)
    stage.kill(viewer)
    free = stage.die(pid)
    stage.send(2)
    assert values(gating, 2) == stage.sent[before:]
    stage.stream._segment.participant.sweep()
    assert stage.stream.statistics().detached == ("recorder",)
    assert time.monotonic() - free < LIMIT_S
    again = Consumer("s", context=stage.arena, durable="recorder")
    assert values(again, 2) == stage.sent[before:]
    for _ in range(3 * SLOTS):
        stage.send()
        assert values(gating, 1) == values(again, 1) == stage.sent[-1:]
    again.close()
    stage.leave_nothing(*stage.handles)


@pytest.mark.parametrize("point", [*of("produce"), "end_unmarked"])
def test_a_producer_to_be_resumed(point: str, mother: Zygote, arena: Path) -> None:
    """Its readers wait; the next one goes on: no number is missing or there twice."""
    stage = Stage(arena, mother, is_ours=False)
    pid = mother.start(
        "workers_stream_crash:produce", 1, crash_at=point, shared=False, frames=3,
        resume=True,
    )  # fmt: skip
    gating, watching = stage.readers()
    stage.board.until(lambda: stage.board.mine(1, READY))
    if point == "end_unmarked":
        assert values(gating, 3) == [MARK, MARK + 1, MARK + 2]
    free = stage.die(pid)
    count = 3 + (point in ("publish_word", "end_unmarked"))
    stage.stream = stage.make(resume=True)
    assert stage.stream.last_sent_iteration == count
    assert time.monotonic() - free < LIMIT_S
    assert stage.stream.statistics().sent == count
    got = values(gating, count - (3 if point == "end_unmarked" else 0))
    for k in range(count, count + 3 * SLOTS):
        stage.stream.send(np.full(WORDS, MARK + k, "u8"), timeout=5)
        got += values(gating, 1)
    first = 3 if point == "end_unmarked" else 0
    assert got == [MARK + k for k in range(first, count + 3 * SLOTS)]
    assert gating.dropped_count == 0
    assert not gating.is_ended
    stage.leave_nothing(gating, watching)
    stage.stream.close()
    stage.stream = None
    assert gating.receive(timeout=5) is None
    assert gating.is_ended
    stage.close()
    assert os.listdir(arena) == []


def test_an_end_that_was_marked(mother: Zygote, arena: Path) -> None:
    """Killed before it had left: it has ended all the same."""
    stage = Stage(arena, mother, is_ours=False)
    pid = mother.start(
        "workers_stream_crash:produce", 1, crash_at="end_marked", shared=False,
        frames=2, resume=True,
    )  # fmt: skip
    gating, watching = stage.readers()
    stage.board.until(lambda: stage.board.mine(1, READY))
    stage.die(pid)
    for reader in (gating, watching):
        got = [int(frame.array[0]) for frame in reader]
        assert got == [MARK, MARK + 1, MARK + 2]
        assert reader.is_ended
    stage.stream = stage.make(resume=True)
    assert stage.stream.last_sent_iteration == 0
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize(
    ("point", "before"),
    [
        *((point, "publish_word") for point in of("resume")),
        *((point, "send_half") for point in of("resume") if point != "resume_counting"),
    ],
)
def test_a_death_while_resuming(
    point: str, before: str, mother: Zygote, arena: Path
) -> None:
    stage = Stage(arena, mother, is_ours=False)
    first = mother.start(
        "workers_stream_crash:produce", 1, crash_at=before, shared=False, frames=2,
        resume=True,
    )  # fmt: skip
    gating, watching = stage.readers()
    stage.board.until(lambda: stage.board.mine(1, READY))
    second = stage.start(point, "resume", 2)
    stage.die(first)
    free = stage.die(second, 2)
    stage.stream = stage.make(resume=True)
    count = 2 + (before == "publish_word")
    assert stage.stream.last_sent_iteration == count
    assert time.monotonic() - free < LIMIT_S
    stage.stream.send(np.full(WORDS, MARK + count, "u8"), timeout=5)
    expected = [MARK + k for k in range(count + 1)]
    assert values(gating, count + 1) == values(watching, count + 1) == expected
    stage.leave_nothing(gating, watching)
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize(
    ("point", "lost"),
    [
        (point, lost)
        for point in [*of("inflow"), "publish_before", "publish_word"]
        for lost in (0, 2)
        if lost or point != "inflow_absent"
    ],
)
def test_an_inflow(point: str, lost: int, mother: Zygote, arena: Path) -> None:
    """The ring is the record of what is here: the next one asks for what is missing."""
    stage = Stage(arena, mother, is_ours=False)
    pid = mother.start(
        "workers_stream_crash:inflow", 1, crash_at=point, frames=2, lost=lost
    )
    gating, watching = stage.readers()
    stage.board.until(lambda: stage.board.mine(1, READY))
    stage.die(pid)
    stage.stream = stage.make(resume=True)
    inflow = BufferToRing(stage.stream)
    is_published = point in ("inflow_published", "publish_word")
    assert inflow.next == 2 + (lost if point != "inflow_absent" else 0) + is_published
    inflow.lose(2, lost)
    numbers = [2 + lost, 3 + lost]
    data = b"".join(on_the_wire(k, k) for k in numbers)
    assert values(gating, 2) == values(watching, 2) == [0, 1]
    assert inflow.write(data, 0, len(data)) == (len(data), OK)
    assert inflow.repeated == is_published
    for reader in (gating, watching):
        frames = [reader.receive(timeout=5) for _ in range(2)]
        assert [frame.sequence for frame in frames] == numbers
        assert [int(frame.array[-1]) for frame in frames] == numbers
        assert reader.dropped_count == lost
        del frames
    stage.leave_nothing(gating, watching)
    stage.close()
    assert os.listdir(arena) == []


@pytest.mark.parametrize("point", of("outflow"))
def test_an_outflow(point: str, stage: Stage, tmp_path: Path) -> None:
    """What was not released is in the ring for the next one."""
    stage.stream.unlink()
    stage.stream = stage.make(resume=True)
    pid = stage.start(point, "outflow", spill=str(tmp_path))
    stage.send(3)
    stage.die(pid)
    again = Consumer("s", context=stage.arena, durable="agent")
    outflow = RingToBuffer(again, 1)
    assert outflow.take(10) == (2, -2)
    assert (outflow.first, outflow.next, outflow.skipped) == (1, 3, 1)
    assert outflow.release(3) == 2
    stage.send(SLOTS)
    assert outflow.take(10)[0] == SLOTS
    outflow.release(1 << 62)
    again.close()
    stage.leave_nothing()
