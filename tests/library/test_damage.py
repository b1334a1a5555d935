"""A damaged control word is reported if other words contradict it, else waited for.

What is waited for obeys `timeout` and Ctrl-C, and lets other threads run.
docs/explanation/concurrency.md, "Damaged words".
"""

from __future__ import annotations

import contextlib
import mmap
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import PATH, TESTS

from ataraxis import (
    Consumer,
    FrameBufferClient,
    FrameBufferServer,
    FrameBufferTimeout,
    MemQ,
    Producer,
    SharedMemoryArray,
)
from ataraxis.errors import CorruptFrame, LayoutError, OwnerDied
from ataraxis.framebuffer.ring import name_of
from ataraxis.shm.header import LIVE
from ataraxis.stream.inspector import DURABLES, READER, READER_BYTES, STREAM

PARTICIPANTS, SLOTS, STREAM_BYTES = 16, 8, 1280
WRITING, READY, LEASED = 1, 2, 4
GATING, DETACHED = 1, 2
PINS = 128  # bytes of a slot's control line in a stream
QUEUE = {"tail": 128, "head": 256}
LINES = 896 + 128 * PARTICIPANTS
LINE = {
    "word": 0,
    "left": 8,
    "id": 16,
    "deadline": 24,
    "bytes": 32,
    "frames": 36,
    "flags": 40,
}


class Words:
    """Return the control block of a segment, to inspect and damage."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.control = struct.unpack_from("<4Q4Q", self.map, 0x60)[5]

    def __getitem__(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.map, self.control + at)[0])

    def __setitem__(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self.map, self.control + at, value)

    def half(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.map, self.control + at, value)

    def flip(self, at: int, bit: int) -> None:
        self[at] ^= 1 << bit


@pytest.fixture
def opened(context: Path) -> Iterator[list[Any]]:
    """Close the test's handles, and remove the damaged segment's name."""
    handles: list[Any] = []
    yield handles
    for handle in reversed(handles):
        handle.map.close() if isinstance(handle, Words) else handle.close()
    # A stream keeps its name until it was read to its end.
    for path in context.iterdir():
        path.unlink()


def stream(
    opened: list[Any], context: Path, sent: int = 0, **how: Any
) -> tuple[Producer, Words]:
    producer = Producer("s", 64, SLOTS, participants=PARTICIPANTS, **how)
    words = Words(context / "s")
    opened += [producer, words]
    for k in range(sent):
        producer.send(b"%d" % k)
    return producer, words


def reader(opened: list[Any], **how: Any) -> Consumer:
    opened.append(Consumer("s", **{"policy": "lossless", **how}))
    return opened[-1]


def no_participant(number: int, *handles: Any) -> int:
    """Return `number`, or the next one that is not a handle's."""
    taken = {handle.slot for handle in handles}
    while number in taken:
        number = (number + 1) % PARTICIPANTS
    return number


def slot(k: int) -> int:
    lines = PARTICIPANTS + DURABLES
    return STREAM_BYTES + lines * READER_BYTES + k * PINS


def cursor(k: int) -> int:
    return STREAM_BYTES + k * READER_BYTES + READER["cursor"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("timeout", [0, 0.3, None])
@pytest.mark.parametrize("bit", [63, 40, 17])
def test_a_lap_that_no_producer_has_come_to_stops_the_producer(
    opened: list[Any], context: Path, bit: int, timeout: float | None, shared: bool
) -> None:
    producer, words = stream(opened, context, 3, shared=shared)
    words.flip(slot(3), bit)
    began = time.monotonic()
    with pytest.raises(LayoutError, match=r"slot 3 says lap \d+, and .* to lap 1"):
        producer.send(b"x", timeout=timeout)
    assert time.monotonic() - began < 1
    words.flip(slot(3), bit)
    assert producer.send(b"x", timeout=0.3)


def test_a_block_stops_at_the_damaged_slot(opened: list[Any], context: Path) -> None:
    producer = Producer(
        "s", shape=(2,), dtype="i4", buffer_count=SLOTS, participants=PARTICIPANTS
    )
    words = Words(context / "s")
    opened += [producer, words]
    words.flip(slot(5), 30)
    with pytest.raises(LayoutError, match="slot 5"):
        producer.send_block(np.zeros((7, 2), "i4"), timeout=0.3)
    assert producer.statistics().sent == 5


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_a_tail_that_ran_ahead_is_no_end_of_what_can_be_read(
    opened: list[Any], context: Path, policy: str
) -> None:
    producer, words = stream(opened, context, 2)
    consumer = reader(opened, policy=policy)
    words.flip(STREAM["tail"], 40)
    if policy == "lossless":
        with pytest.raises(LayoutError, match=r"the tail is 1099511627778"):
            producer.send(b"x", timeout=0.3)
        assert consumer.receive(timeout=0.3).read() == b"0"
        assert consumer.receive(timeout=0.3).read() == b"1"
        with pytest.raises(LayoutError, match="slot 2 says lap 0, and by the tail"):
            consumer.receive(timeout=1)
    else:
        for _ in range(3):
            with contextlib.suppress(LayoutError, TimeoutError):
                consumer.receive(timeout=0.1)


def test_a_tail_that_fell_back_is_helped_on_or_reported(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, 3 * SLOTS + 1)
    words[STREAM["tail"]] -= SLOTS
    assert producer.send(b"x", timeout=0.3)  # within a lap, producers help it along
    assert words[STREAM["tail"]] == 3 * SLOTS + 2
    words[STREAM["tail"]] -= 2 * SLOTS
    with pytest.raises(LayoutError, match="says lap"):
        producer.send(b"x", timeout=0.3)


def test_a_state_that_does_not_exist_is_not_waited_for(
    opened: list[Any], context: Path
) -> None:
    _, words = stream(opened, context, 2)
    consumer = reader(opened)
    words[slot(0)] |= 7
    with pytest.raises(LayoutError, match="slot 0 says state 7"):
        consumer.receive(timeout=1)


def test_a_reader_that_only_polls_is_told_too(opened: list[Any], context: Path) -> None:
    _, words = stream(opened, context, 2)
    consumer = reader(opened)
    words[slot(0)] |= 7

    def poll() -> None:
        for _ in range(1000):
            assert consumer.receive(False) is None

    with pytest.raises(LayoutError, match="slot 0 says state 7"):
        poll()


@pytest.mark.parametrize("owner", [77, 9, 0x1FFF])
def test_a_slot_that_no_producer_writes_is_not_waited_for(
    opened: list[Any], context: Path, owner: int
) -> None:
    made, words = stream(opened, context, 1)
    consumer = reader(opened)
    owner = no_participant(
        owner, made._segment.participant, consumer._segment.participant
    )
    words[slot(0)] = 1 << 16 | owner << 3 | WRITING
    with pytest.raises(LayoutError, match=f"participant {owner} as its writer"):
        consumer.receive(timeout=1)


def test_bits_beyond_the_participants_are_not_followed(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, 1)
    consumer = reader(opened)
    for word in ("readers", "durables"):
        words.flip(STREAM[word], 63)
        words.flip(STREAM[word], 40)
    for k in range(1, 4 * SLOTS):
        assert producer.send(b"%d" % k, timeout=0.3)
        assert consumer.receive(timeout=0.3).read() == b"%d" % (k - 1)


def test_a_cursor_that_is_merely_low_is_a_slow_reader(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, SLOTS)
    consumer = reader(opened)
    me = consumer._segment.participant.slot
    for _ in range(SLOTS):
        consumer.receive(timeout=0.3).release()
    words[cursor(me)] = 0 << 2 | GATING
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        producer.send(b"x", timeout=0.3)
    assert 0.25 < time.monotonic() - began < 1.3
    # Its reader restores the cursor at its next wait.
    with pytest.raises(TimeoutError):
        consumer.receive(timeout=0.05)
    assert producer.send(b"x", timeout=0.3)


def test_a_cursor_more_than_the_ring_behind_is_reported(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, SLOTS)
    consumer = reader(opened)
    for k in range(2 * SLOTS):
        consumer.receive(timeout=0.3).release()
        producer.send(b"%d" % k, timeout=0.3)
    words[cursor(consumer._segment.participant.slot)] = 2 << 2 | GATING

    def send() -> None:
        for _ in range(SLOTS):
            producer.send(b"x", timeout=0.3)

    with pytest.raises(LayoutError, match="a reader that gates"):
        send()


def test_a_frame_overwritten_under_its_reader_is_reported(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, SLOTS)
    consumer = reader(opened)
    frame = consumer.receive(timeout=0.3)
    words[cursor(consumer._segment.participant.slot)] = 1000 << 2 | GATING
    producer.send(b"y", timeout=0.3)
    frame.release()
    with pytest.raises(LayoutError, match=r"slot 0 was written again \(lap 2\)"):
        consumer.receive(timeout=0.3)


def test_a_durable_name_beyond_the_tail_is_refused(
    opened: list[Any], context: Path
) -> None:
    producer, words = stream(opened, context, 3)
    consumer = Consumer("s", durable="d", detached_timeout=60)
    consumer.receive(timeout=0.3).release()
    del consumer
    at = cursor(PARTICIPANTS)
    assert words[at] & 3 == DETACHED
    good = words[at]
    words.flip(at, 50)
    with pytest.raises(LayoutError, match="the tail is 3"):
        Consumer("s", durable="d", detached_timeout=60)
    words[at] = good
    consumer = reader(opened, durable="d", detached_timeout=60)
    assert consumer.receive(timeout=0.3).read() == b"1"
    assert producer.send(b"x", timeout=0.3)


def test_latest_looks_at_no_more_than_the_ring(
    opened: list[Any], context: Path
) -> None:
    producer = Producer(
        "s", shape=(2,), dtype="i4", buffer_count=SLOTS, participants=PARTICIPANTS
    )
    words = Words(context / "s")
    opened += [producer, words]
    producer.send(np.zeros(2, "i4"))
    consumer = reader(opened, policy="lossy")
    words.flip(STREAM["tail"], 60)
    began = time.monotonic()
    assert len(consumer.latest(3)) == 0
    assert time.monotonic() - began < 1


# ---- queue


def queue(
    opened: list[Any], context: Path, put: int = 0, **how: Any
) -> tuple[MemQ, Words]:
    made = MemQ("q", SLOTS, 256, participants=PARTICIPANTS, **how)
    words = Words(context / "q")
    opened += [made, words]
    for k in range(put):
        made.put(k)
    return made, words


def line(k: int, word: str = "word") -> int:
    return LINES + k * 64 + LINE[word]


@pytest.mark.parametrize("bit", [63, 40, 21])
def test_a_lap_that_no_putter_has_come_to_stops_both_sides(
    opened: list[Any], context: Path, bit: int
) -> None:
    made, words = queue(opened, context, 2)
    words.flip(line(2), bit)
    with pytest.raises(LayoutError, match=r"slot 2 says lap \d+"):
        made.put(b"x", timeout=0.3)
    words.flip(line(2), bit)
    words.flip(line(0), bit)
    with pytest.raises(LayoutError, match=r"slot 0 says lap \d+"):
        made.get(timeout=0.3)


def test_a_queue_of_one_slot_does_not_spin(opened: list[Any], context: Path) -> None:
    made = MemQ("q", 1, 256, participants=PARTICIPANTS)
    words = Words(context / "q")
    opened += [made, words]
    words.flip(line(0), 63)
    with pytest.raises(LayoutError, match="slot 0 says lap"):
        made.put(b"x", timeout=0.3)


def test_a_head_beyond_the_tail_is_reported(opened: list[Any], context: Path) -> None:
    made, words = queue(opened, context, 2)
    words.flip(QUEUE["head"], 33)
    with pytest.raises(LayoutError, match="the head is 8589934592"):
        made.get(timeout=1)
    with pytest.raises(LayoutError, match="the head"):
        made.get(False)


def test_a_head_far_behind_catches_up_at_once(opened: list[Any], context: Path) -> None:
    made, words = queue(opened, context)
    # The state of a queue that was used for a long time.
    lap = 1 << 30
    for k in range(SLOTS):
        words[line(k)] = lap << 20
    words[QUEUE["tail"]] = words[QUEUE["head"]] = lap * SLOTS
    made.put("one")
    words[QUEUE["head"]] = 5
    began = time.monotonic()
    assert made.get(timeout=0.3) == "one"
    assert time.monotonic() - began < 1


def test_an_empty_queue_that_was_used_for_a_long_time_is_waited_for(
    opened: list[Any], context: Path
) -> None:
    made, words = queue(opened, context)
    lap = 1 << 30
    for k in range(SLOTS):
        words[line(k)] = lap << 20
    words[QUEUE["tail"]] = words[QUEUE["head"]] = lap * SLOTS + 1
    with pytest.raises(TimeoutError):
        made.get(timeout=0.05)
    words[line(1)] |= 7
    with pytest.raises(LayoutError, match="slot 1 says state 7"):
        made.get(timeout=0.05)


@pytest.mark.parametrize(
    ("word", "value"), [("left", 0), ("left", 6), ("frames", 0), ("frames", 1 << 20)]
)
def test_frames_that_cannot_be_left_are_given_up_and_reported_once(
    opened: list[Any], context: Path, word: str, value: int
) -> None:
    made, words = queue(opened, context, 2)
    words.half(line(0, word), value)
    with pytest.raises(LayoutError, match=r"slot 0 has .* frames, but marks"):
        made.get(timeout=0.3)
    assert made.get(timeout=0.3) == 1
    assert made.statistics().corrupt == 1
    made.join(timeout=0.3)


@pytest.mark.parametrize("owner", [77, 9, 0x3FF])
def test_a_lease_of_an_absent_owner_is_redelivered(
    opened: list[Any], context: Path, owner: int
) -> None:
    made, words = queue(opened, context, 1)
    owner = no_participant(owner, made._segment.participant)
    words[line(0)] = 1 << 20 | 1 << 13 | owner << 3 | LEASED
    words[QUEUE["head"]] = 1
    assert made.get(timeout=1) == 0


@pytest.mark.parametrize("owner", [77, 9])
def test_a_slot_that_no_putter_fills_is_not_waited_for(
    opened: list[Any], context: Path, owner: int
) -> None:
    made, words = queue(opened, context, 1)
    owner = no_participant(owner, made._segment.participant)
    words[line(0)] = 1 << 20 | owner << 3 | WRITING
    with pytest.raises(LayoutError, match=f"participant {owner} as its writer"):
        made.get(timeout=1)


def test_a_lease_longer_than_any_is_over(opened: list[Any], context: Path) -> None:
    made, words = queue(opened, context, 1, lease_timeout=0.2)
    lease = made.lease(timeout=0.3)
    words.flip(line(0, "deadline"), 61)
    assert made.get(timeout=1) == 0
    with pytest.raises(Exception, match="lease"):
        lease.acknowledge()


def test_a_damaged_ticket_opens_and_removes_nothing_else(
    opened: list[Any], context: Path
) -> None:
    made, words = queue(opened, context)
    made.put(b"one")
    made.put(b"two")
    victim = context / "victim"
    victim.write_bytes(b"")
    # Slot 0 names a separate segment that is not the queue's.
    words.half(line(0, "flags"), 1)
    assert made.get(timeout=0.3) == b"one"  # the frame was there all the same
    made.put(b"three")
    words.half(line(2, "flags"), 1)
    words.half(line(2, "bytes"), 6)
    payload = struct.unpack_from("<4Q4Q", words.map, 0x60)[7]
    stride = words[8]
    words.map[payload + 2 * stride : payload + 2 * stride + 6] = b"victim"
    assert made.get(timeout=0.3) == b"two"
    with pytest.raises(CorruptFrame):
        made.get(timeout=0.3)
    assert victim.exists()
    made.join(timeout=0.3)


# ---- array


def array(opened: list[Any], context: Path) -> tuple[SharedMemoryArray, Words]:
    made = SharedMemoryArray.create_array("a", np.arange(4), participants=PARTICIPANTS)
    words = Words(context / "a")
    opened.append(words)
    return made, words


@pytest.mark.parametrize("owner", [499, 11, 0xFFFE])
def test_a_lock_of_an_absent_owner_is_reported(
    opened: list[Any], context: Path, owner: int
) -> None:
    made, words = array(opened, context)
    owner = no_participant(owner, made._participant)
    words.half(0, owner + 1)
    for deed in (
        lambda: made.lock.acquire(0.3),
        lambda: made.lock.acquire(0),
        lambda: made.lock.acquire(None),
        lambda: made.__setitem__(0, 5),
        lambda: made.add(0, 1),
    ):
        began = time.monotonic()
        with pytest.raises(LayoutError, match=f"participant {owner} as its owner"):
            deed()
        assert time.monotonic() - began < 1
    assert made[0] == 0  # reads do not take it
    words.half(0, 0)
    made[0] = 5
    made.destroy()


def test_an_odd_version_without_a_writer_does_not_stop_reads(
    opened: list[Any], context: Path
) -> None:
    made, words = array(opened, context)
    words.flip(8, 0)
    assert made[...].tolist() == [0, 1, 2, 3]
    made[1] = 7
    assert made[...].tolist() == [0, 7, 2, 3]
    made.destroy()


def test_a_lock_that_had_another_owner_at_its_release_makes_the_data_doubtful(
    opened: list[Any], context: Path
) -> None:
    made, words = array(opened, context)
    assert made.lock.acquire()
    mine = made.statistics().owner
    words.half(0, 1 + (mine + 1) % PARTICIPANTS)
    made.lock.release()
    with pytest.raises(OwnerDied, match="another owner when it was released"):
        made[...]
    made[...] = np.zeros(4, int)
    assert made[...].tolist() == [0, 0, 0, 0]
    made.destroy()


@pytest.mark.parametrize("state", [0, 2, 0x10])
def test_waiting_for_change_keeps_its_timeout_whatever_the_segment_says(
    opened: list[Any], context: Path, state: int
) -> None:
    made, words = array(opened, context)
    struct.pack_into("<I", words.map, LIVE, state)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        made.wait_for_change(timeout=0.2)
    assert time.monotonic() - began < 1
    made.destroy()


@pytest.mark.parametrize("state", [0, 2, 0xFFFFFFFF])
def test_who_attaches_puts_the_state_of_a_segment_right(
    opened: list[Any], context: Path, state: int
) -> None:
    made, words = queue(opened, context, 1)
    struct.pack_into("<I", words.map, LIVE, state)
    with MemQ.attach("q") as other:
        assert other.get(timeout=0.3) == 0
    assert struct.unpack_from("<I", words.map, LIVE)[0] == 1
    assert made.empty()


# ---- frame buffer


def test_a_damaged_head_expires_chunks_and_hangs_no_process(
    opened: list[Any], context: Path
) -> None:
    with FrameBufferServer("k", 4096) as server, FrameBufferClient("k") as client:
        words = Words(context / name_of("k"))
        opened.append(words)
        at = client.allocate(100)
        checksum = client.write(at, b"x" * 100)
        for head in ((1 << 64) - 1, 1 << 63, 12345678901, 0):
            words[0] = head
            assert client.read(at, 100, checksum) == b"x" * 100
            assert server.statistics().capacity_bytes == 4096
        for _ in range(80):
            with_new = client.write(client.allocate(100), b"y" * 100)
        with pytest.raises(FrameBufferTimeout):
            client.read(at, 100, checksum)
        assert with_new != checksum
        words.half(128, 5000)
        assert not server.statistics().is_served


# ---- damage that is not detectable: waited for, with the GIL released, until Ctrl-C

WAITS = """
import os, struct, sys, threading, time
from pathlib import Path
sys.path[:0] = {tests!r}
import numpy as np
from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray
from test_damage import SLOTS, Words, cursor, line, GATING, LEASED
context = Path(os.environ["ATARAXIS_CONTEXT"])
if sys.argv[1] == "stream":
    producer = Producer("s", 64, SLOTS, participants=16)
    consumer = Consumer("s", policy="lossless")
    for _ in range(SLOTS):
        producer.send(b"x")
        consumer.receive().release()
    words = Words(context / "s")
    words[cursor(consumer._segment.participant.slot)] = 0 | GATING
    deed = lambda: producer.send(b"x")
elif sys.argv[1] == "queue":
    queue = MemQ("q", SLOTS, 256, participants=16)
    queue.put(1)
    words = Words(context / "q")
    # Leased by a live participant that has not leased it.
    words[line(0)] = 1 << 20 | 1 << 13 | queue._segment.participant.slot << 3 | LEASED
    words[256] = 1
    deed = lambda: queue.get()
else:
    array = SharedMemoryArray.create_array("a", np.arange(4), participants=16)
    words = Words(context / "a")
    words.half(0, array._participant.slot + 1)
    deed = lambda: array.__setitem__(0, 1)
ticks = 0
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1
        if ticks == 20:
            print("ticks", flush=True)
threading.Thread(target=tick, daemon=True).start()
try:
    deed()
    print("returned", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
if sys.argv[1] == "array":
    words.half(0, 0)
words.map.close()
"""


@pytest.mark.parametrize("kind", ["stream", "queue", "array"])
def test_what_cannot_be_proved_is_waited_for_until_ctrl_c(
    context: Path, kind: str
) -> None:
    script = WAITS.format(tests=[str(TESTS / "library"), *PATH.split(":")])
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script, kind], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        watchdog = threading.Timer(30, child.kill)
        watchdog.start()
        try:
            assert child.stdout.readline() == "ticks\n"
            began = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            assert time.monotonic() - began < 2
            child.stdout.read()
            assert child.wait(20) == 0
        finally:
            watchdog.cancel()
            child.kill()
    for path in context.iterdir():
        path.unlink()
