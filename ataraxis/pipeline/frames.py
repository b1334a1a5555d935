"""Frames of a pipe: their origin, and a quick way to write and read them.

The origin identifies a frame: ``source`` is its lane, the path from the head of the
pipe; ``sequence`` is the number of the value at the head. A function of one value makes
exactly one frame per value: several results travel together, and no result is a frame
too. So a reader notices a lost or a repeated frame.
"""

from __future__ import annotations

import struct
import zlib
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
_FIXED = struct.Struct("<4sBBHQQq4IIII")
_ORIGIN = struct.Struct("<QQII")
_WORD = struct.Struct("<I")
_FLAGS = int(Flag.CHECKSUM | Flag.ORIGIN)
_NUMBERS = {
    DType.U8: struct.Struct("<B"),
    DType.U16: struct.Struct("<H"),
    DType.U32: struct.Struct("<I"),
    DType.U64: struct.Struct("<Q"),
    DType.I8: struct.Struct("<b"),
    DType.I16: struct.Struct("<h"),
    DType.I32: struct.Struct("<i"),
    DType.I64: struct.Struct("<q"),
}
_ARRAYS = {
    "|u1": DType.U8, "<u2": DType.U16, "<u4": DType.U32, "<u8": DType.U64,
    "|i1": DType.I8, "<i2": DType.I16, "<i4": DType.I32, "<i8": DType.I64,
    "<f2": DType.F16, "<f4": DType.F32, "<f8": DType.F64, "<c8": DType.C64,
    "<c16": DType.C128,
}  # fmt: skip
_LONG = 1024
_F64 = struct.Struct("<d")
_CODES: dict[int, struct.Struct] = {int(k): v for k, v in _NUMBERS.items()}
_CODES[int(DType.F64)] = _F64
_QUICK = 64 + _ORIGIN.size


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
    code = 0
    if kind is int and dtype is not None and dtype in _NUMBERS:
        code = int(dtype)
        try:
            data = _NUMBERS[DType(code)].pack(value)
        except struct.error:
            data = None  # from_value raises an error that gives the reason
    elif kind is np.ndarray and dtype is None and 0 < value.ndim <= 4:
        plain = _ARRAYS.get(value.dtype.str)
        if plain is not None and value.size and value.flags.c_contiguous:
            code, shape = int(plain), value.shape
            data = memoryview(value).cast("B") if value.ndim else None
    elif dtype is None:
        if kind is int:
            code = DType.INT
            length = value.bit_length() // 8 + 1
            data = value.to_bytes(length, "little", signed=True)
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
    length = len(origin) + len(data)
    ndim = len(shape)
    extents = shape + (0,) * (4 - ndim)
    head = _FIXED.pack(
        MAGIC, code, ndim, _FLAGS, length, sequence, time_ns or now_ns(), *extents,
        source, crc, 0,
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
    if len(data) >= _QUICK:
        head = _FIXED.unpack_from(data)
        flags, crc = head[3], head[12]
        end = _QUICK + head[4] - _ORIGIN.size
        number = _CODES.get(head[1]) if head[2] == 0 else None
        if (
            number is not None
            and flags == _FLAGS
            and head[0] == MAGIC
            and end == len(data)
            and zlib.crc32(data[:60]) == _WORD.unpack_from(data, 60)[0]
            and zlib.crc32(data[64:]) == crc
            and end == _QUICK + number.size
        ):
            lane, sequence, part, overlap = _ORIGIN.unpack_from(data, 64)
            value = number.unpack_from(data, _QUICK)[0]
            return Read(lane, sequence, part, overlap, head[11], head[6], False, value)
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
