"""Frames with an origin, put and got in one call: as `Frame` writes and reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ataraxis import MemQ
from ataraxis._kernels.queue_handle import FrameLease, Message
from ataraxis.errors import CorruptFrame
from ataraxis.frame import DType, Frame, Origin
from ataraxis.pipeline.frames import read, write

QUICK: list[Any] = [
    *(s * (2**k + d) for k in (7, 8, 15, 31, 62) for d in (-1, 0, 1) for s in (1, -1)),
    0, 1, 2**63 - 1, 1.5, float("inf"), True, False, None, b"", b"abc", "abc", b"x",
    np.arange(5.0), np.zeros((2, 3), "u1"), np.arange(3, dtype="c8"), b"x" * 3000, "",
]  # fmt: skip
LONG: list[Any] = [
    2**63, -(2**200), "héé", [1], (1,), np.float32(3), np.arange(4)[::2],
    np.zeros(0), np.array(3), np.array(["a"]), np.arange(3, dtype=">i4"), b"x" * 5000,
]  # fmt: skip
INTEGERS = [DType.U8, DType.U16, DType.U32, DType.U64, DType.I8, DType.I16, DType.I32,
            DType.I64]  # fmt: skip
EDGES = [d + s * 2**k for k in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, 0, 1)
         for s in (1, -1)]  # fmt: skip


@pytest.fixture
def queue() -> MemQ:
    with MemQ(None, 8, 4096) as made:
        yield made
        made.unlink()


def post(queue: MemQ, value: Any, code: int = -1) -> bool | None:
    return queue.post(value, code, (5, 6, 0), 3, 99, 0)


@pytest.mark.parametrize("value", QUICK, ids=lambda v: repr(v)[:20])
def test_the_frame_is_the_one_that_frame_writes(queue: MemQ, value: Any) -> None:
    assert post(queue, value)
    with_origin = Frame.from_value(
        value, sequence=6, source=3, time_ns=99, origin=Origin(5, 6, 0, 0)
    )
    parcel = queue.hold(0)
    assert isinstance(parcel, Message)
    assert parcel.data == with_origin.to_bytes()
    assert type(parcel.value) is type(value)
    assert np.array_equal(parcel.value, value)
    assert getattr(parcel.value, "dtype", None) == getattr(value, "dtype", None)
    assert (parcel.lane, parcel.sequence, parcel.source) == (5, 6, 3)
    assert (parcel.time_ns, parcel.overlap, parcel.attempt) == (99, 0, 1)
    assert parcel.acknowledge()
    assert queue.empty()


def test_a_copy_of_any_length_has_the_checksum_of_its_bytes(queue: MemQ) -> None:
    """Short, long, and around each step of the copy that sums as it goes."""
    data = np.random.default_rng(4).bytes(300_100)
    steps = [k + d for k in (1024, 4096, 65536, 300_000) for d in (-65, -1, 0, 1, 63)]
    for k, length in enumerate([*range(700), *steps]):
        value = data[k % 64 :][:length]
        assert post(queue, value)
        parcel = queue.hold(0)
        assert isinstance(parcel, Message)
        assert parcel.value == value
        made = Frame.from_value(
            value, sequence=6, source=3, time_ns=99, origin=Origin(5, 6, 0, 0)
        )
        assert parcel.data == made.to_bytes()
        assert parcel.acknowledge()


@pytest.mark.parametrize("value", LONG, ids=lambda v: repr(v)[:20])
def test_what_goes_the_long_way_is_not_put(queue: MemQ, value: Any) -> None:
    queue._is_without_arena = True
    assert post(queue, value) is None
    assert queue.empty()


@pytest.mark.parametrize("code", INTEGERS)
def test_integers_of_a_width(queue: MemQ, code: DType) -> None:
    fitting = 0
    for value in [0, 1, -1, *EDGES]:
        try:
            frame = write(value, code, 5, 6, 0, 0, 3, 99)
        except ValueError:
            assert post(queue, value, code) is None
            continue
        assert post(queue, value, code)
        parcel = queue.hold(0)
        assert (parcel.data, parcel.value) == (frame, value)
        parcel.acknowledge()
        fitting += 1
    assert fitting > 3


def test_a_dropped_parcel_comes_again(queue: MemQ) -> None:
    post(queue, 7)
    first = queue.hold(0)
    assert first.attempt == 1
    assert queue.hold(0) is None
    del first
    second = queue.hold(0)
    assert (second.value, second.attempt) == (7, 2)
    second.give_back()
    second.give_back()
    third = queue.hold(0)
    assert (third.id, third.attempt) == (second.id, 3)
    third.acknowledge()
    third.give_back()
    assert queue.hold(0) is None


def test_no_room(queue: MemQ) -> None:
    assert [post(queue, k) for k in range(9)] == [True] * 8 + [False]
    assert queue.post(9, -1, (5, 6, 0), 3, 99, 0.01) is False
    parcels = [queue.hold(0) for _ in range(8)]
    assert [parcel.value for parcel in parcels] == list(range(8))


@pytest.mark.parametrize("at", [0, 5, 17, 55, 61, 70, 88])
def test_a_changed_byte_goes_the_long_way_and_is_found(queue: MemQ, at: int) -> None:
    frame = bytearray(write(7, None, 5, 6, 0, 0, 3, 99))
    frame[at] ^= 4
    queue.offer(bytes(frame), 0)
    held = queue.hold(0)
    assert isinstance(held, FrameLease)
    with pytest.raises(CorruptFrame):
        read(held.data)
    held.acknowledge()


def test_other_frames_come_as_their_bytes(queue: MemQ) -> None:
    queue.put(7)
    part = write(7, None, 5, 6, 1, 0, 3, 99)
    queue.offer(part, 0)
    held = [queue.hold(0) for _ in range(2)]
    assert [type(h) for h in held] == [FrameLease, FrameLease]
    assert held[1].data == part


@pytest.mark.parametrize("value", [-(2**63), np.array([True, False])], ids=repr)
def test_some_are_put_quickly_and_read_the_long_way(queue: MemQ, value: Any) -> None:
    assert post(queue, value)
    held = queue.hold(0)
    assert isinstance(held, FrameLease)
    assert held.data == write(value, None, 5, 6, 0, 0, 3, 99)
    assert np.array_equal(read(held.data).value, value)
