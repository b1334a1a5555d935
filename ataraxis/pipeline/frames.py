"""Frames of a pipe: their origin, and a quick way to write and read them.

The origin identifies a frame: ``source`` is its lane, the path from the head of the
pipe; ``sequence`` is the number of the value at the head. A function of one value makes
exactly one frame per value: several results travel together, and no result is a frame
too. So a reader notices a lost or a repeated frame.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.frame import MAGIC, DType, Flag, Frame, Origin, crc32

# The kind of a frame, in the low byte of the origin's part.
# BUNDLE: several results of one value. GAP: no result. SKIPPED: a gap where the value
# went to the dead letters. GROUP: the results that belong to the keys of one worker;
# other workers get the rest. CALLED: a caller waits for the result, and the worker
# emits itself: Python reads the frame, so that the worker's next `get` can answer.
PLAIN, BUNDLE, GAP, GROUP, CALLED, SKIPPED = range(6)
GAPS = (GAP, SKIPPED)
# Of a value in parts: the index of the part and their count, in the bytes above.
_INDEX, _COUNT = 8, 20
_MOST_PARTS = 0xFFF
# Any two lanes differ in more bits than a damaged byte has.
HEAD_LANE = 0x1B3F_6A59_C7D2_84E1
_CALL = 2**62
CALL_LANE = 0x24C0_95A6_382D_7B1E | _CALL
_FLAGS = int(Flag.CHECKSUM | Flag.ORIGIN)
_FIXED = struct.Struct("<4sBBHQQq4IIII")
_ORIGIN = struct.Struct("<QQII")
_WORD = struct.Struct("<I")
_NUMBERS: dict[int, struct.Struct] = {
    DType[f"{kind}{8 << k}"]: struct.Struct(f"<{form}")
    for kind, forms in (("U", "BHIQ"), ("I", "bhiq"))
    for k, form in enumerate(forms)
}
_ARRAYS = {
    "|u1": DType.U8, "<u2": DType.U16, "<u4": DType.U32, "<u8": DType.U64,
    "|i1": DType.I8, "<i2": DType.I16, "<i4": DType.I32, "<i8": DType.I64,
    "<f2": DType.F16, "<f4": DType.F32, "<f8": DType.F64, "<c8": DType.C64,
    "<c16": DType.C128,
}  # fmt: skip
_F64 = struct.Struct("<d")
_LONG = 1024


def lane_of(lane: int, index: int) -> int:
    """Return the lane of a processor's results of the frames of a lane."""
    mixed = (lane * 0x9E3779B97F4A7C15 + index + 11) & (2**64 - 1)
    mixed = ((mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed ^ mixed >> 32) & (2**61 - 1) | 2**61 | lane & _CALL


def is_call(lane: int) -> bool:
    """Whether callers at the head wait for the results of a lane's frames."""
    return bool(lane & _CALL)


def part_of(kind: int, index: int = 0, count: int = 0) -> int:
    """Return an origin's part: a kind, and which of `count` parts of a value."""
    if count > _MOST_PARTS:
        raise ValueError(
            f"a value can have at most {_MOST_PARTS} parts, got {count}: consecutive "
            "processors with key= whose inputs are several results of one value "
            "multiply their numbers of workers; use fewer workers"
        )
    return kind | index << _INDEX | count << _COUNT


def kind_of(part: int) -> int:
    """Return the kind of a frame."""
    return part & 0xFF


def index_of(part: int) -> tuple[int, int]:
    """Return the index of a part and their count; (0, 0): the whole value."""
    return part >> _INDEX & 0xFFF, part >> _COUNT


class Stamp(NamedTuple):
    """Where and when a frame was made, for its header and its origin."""

    lane: int
    sequence: int
    part: int
    source: int
    """Index of the processor that emits it."""
    time_ns: int


def write(
    value: Any,
    dtype: DType | int | None,
    lane: int,
    sequence: int,
    part: int,
    overlap: int,
    source: int,
    time_ns: int,
    allow_pickle: bool = False,
) -> bytes:
    """Return a value as the bytes of a frame with its origin; see `Stamp`.

    The sequence is in the header too, which has its own checksum. `overlap` is the
    number of samples from the previous block. Raises as `Frame.from_value`.
    """
    shape: tuple[int, ...] = ()
    kind = type(value)
    data: Any = None
    code: int | None = None
    if kind is int and dtype in _NUMBERS:
        code = int(dtype)
        with suppress(struct.error):  # from_value raises an error with the reason
            data = _NUMBERS[code].pack(value)
    elif dtype is not None:
        pass
    elif kind is np.ndarray:
        code, shape = _ARRAYS.get(value.dtype.str), value.shape
        if code is not None and value.flags.c_contiguous and value.size:
            data = memoryview(value).cast("B") if 0 < value.ndim <= 4 else None
    elif kind is int:
        code = DType.INT
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    elif kind is float:
        code, data = DType.F64, _F64.pack(value)
    elif kind is bytes:
        code, data = DType.RAW, value
    elif value is None:
        code, data = DType.NONE, b""
    if data is None:
        if isinstance(value, Frame):
            # Made by the function itself, as in uPipe: only its value is sent.
            value = value.value
        return Frame.from_value(
            value,
            dtype,
            sequence=sequence,
            source=source,
            time_ns=time_ns,
            origin=Origin(lane, sequence, part, overlap),
            allow_pickle=allow_pickle,
        ).to_bytes()
    origin = _ORIGIN.pack(lane, sequence, part, overlap)
    crc = zlib.crc32(origin)
    crc = zlib.crc32(data, crc) if len(data) < _LONG else crc32(data, crc)
    extents = shape + (0,) * (4 - len(shape))
    head = _FIXED.pack(
        MAGIC, code, len(shape), _FLAGS, len(origin) + len(data), sequence,
        time_ns or now_ns(), *extents, source, crc, 0,
    )  # fmt: skip
    return b"".join((head, _WORD.pack(zlib.crc32(head)), origin, data))


class Read(NamedTuple):
    """A frame, as `read` returns it."""

    lane: int
    sequence: int
    part: int
    overlap: int
    source: int
    time_ns: int
    is_last: bool
    value: Any


def read(data: bytes, allow_pickle: bool = False) -> Read:
    """Read and check a whole frame; raises `CorruptFrame`.

    Arrays are read-only views of `data`.
    """
    return read_frame(Frame.from_buffer(data, allow_pickle=allow_pickle))


def read_frame(frame: Frame) -> Read:
    """Return the same of a `Frame`."""
    origin = frame.origin
    if frame.end_of_stream:
        return Read(0, 0, GAP, 0, 0, frame.time_ns, True, None)
    if origin is None:
        return Read(0, -1, PLAIN, 0, frame.source, frame.time_ns, False, frame.value)
    lane, sequence, part, overlap = origin
    value = None if kind_of(part) in GAPS else frame.value
    source, time_ns = frame.source, frame.time_ns
    return Read(lane, sequence, part, overlap, source, time_ns, False, value)


def last_frame() -> bytes:
    """Return the frame that marks the end of a queue."""
    return Frame.from_value(None, end_of_stream=True).to_bytes()
