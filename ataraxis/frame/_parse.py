"""Reading headers that strangers wrote: nothing is trusted, one error comes out."""

from __future__ import annotations

import math

from ataraxis.frame._checksum import crc32
from ataraxis.frame._codes import KNOWN, PLAIN, DType
from ataraxis.frame._layout import (
    CRC_AT,
    EXTENTS,
    EXTENTS_AT,
    FIXED,
    FLAGS_AT,
    HEADER_BYTES,
    HEADER_CRC_AT,
    LENGTH_AT,
    MAGIC,
    MAX_BYTES,
    MAX_NDIM,
    NDIM_AT,
    ORIGIN,
    STAMP_SIGNED,
    STAMP_UNSIGNED,
    WORD,
    Origin,
    corrupt,
)

# Plain integers: an IntFlag takes a microsecond for each `&`.
_CHECKSUM, _END_OF_STREAM, _PICKLED, _EXTENTS = 1, 2, 4, 8
_DEVICE_STAMP, _DEVICE_UNSIGNED, _ORIGIN, _SESSION_EVENT = 16, 32, 64, 128


def read_fixed(view: memoryview, at: int, seed: int) -> tuple[int, ...]:
    """Read the first 60 bytes if they are a header's."""
    if at < 0:
        raise ValueError(f"offset={at}: a frame begins at byte 0 or later.")
    if len(view) - at < HEADER_BYTES:
        raise corrupt(at, "header", f"{max(len(view) - at, 0)} bytes", "64 or more")
    fields = FIXED.unpack_from(view, at)
    if fields[0] != MAGIC:
        raise corrupt(at, "magic", fields[0], MAGIC)
    stored = WORD.unpack_from(view, at + HEADER_CRC_AT)[0]
    computed = crc32(view[at : at + HEADER_CRC_AT], seed)
    if stored != computed:
        raise corrupt(
            at + HEADER_CRC_AT, "header CRC", f"{stored:#010x}", f"{computed:#010x}"
        )
    return fields


def read_fields(view: memoryview, at: int, seed: int) -> dict[str, object]:
    """Read header and extensions as the arguments of `Header`; trust nothing."""
    fields = read_fixed(view, at, seed)
    _, code, ndim, bits, length, sequence, time_ns, *extents = fields[:11]
    source, crc, labels_id = fields[11:]
    if code not in KNOWN:
        raise corrupt(at + 4, "dtype code", code, "a code of DType")
    if bits > 255 or bits & 48 == _DEVICE_UNSIGNED:
        raise corrupt(at + FLAGS_AT, "flags", f"{bits:#x}", "known ones only")
    if not bits & _CHECKSUM and crc:
        raise corrupt(at + CRC_AT, "checksum", f"{crc:#x}", "0, since no flag names it")
    if ndim > MAX_NDIM:
        raise corrupt(at + NDIM_AT, "ndim", ndim, "at most 8")
    start = at + HEADER_BYTES
    if length > len(view) - start:
        raise corrupt(
            at + LENGTH_AT, "length", length, f"at most the {len(view) - start} here"
        )
    needed = (
        (64 if bits & _EXTENTS else 0)
        + (16 if bits & _DEVICE_STAMP else 0)
        + (24 if bits & _ORIGIN else 0)
    )
    if length < needed:
        raise corrupt(at + LENGTH_AT, "length", length, f"{needed} of extensions")
    extents_at, listed = at + EXTENTS_AT, tuple(extents)
    if bits & _EXTENTS:
        if any(listed):
            raise corrupt(extents_at, "extents", listed, "0, as the extension has them")
        extents_at, listed = start, EXTENTS.unpack_from(view, start)
        start += EXTENTS.size
    shape = listed[:ndim]
    is_short = ndim <= 4 and not any(extent >> 32 for extent in shape)
    if any(listed[ndim:]) or bool(bits & _EXTENTS) == is_short:
        raise corrupt(extents_at, "extents", listed, f"{ndim} in their shortest form")
    device_time = device_sequence = origin = None
    if bits & _DEVICE_STAMP:
        unsigned = bits & _DEVICE_UNSIGNED
        stamp = STAMP_UNSIGNED if unsigned else STAMP_SIGNED
        device_time, device_sequence = stamp.unpack_from(view, start)
        start += stamp.size
    if bits & _ORIGIN:
        origin = Origin(*ORIGIN.unpack_from(view, start))
    dtype = DType(code)
    _check_shape(dtype, shape, length - needed, bits, at)
    return {
        "dtype": dtype,
        "shape": shape,
        "payload_bytes": length - needed,
        "sequence": sequence,
        "time_ns": time_ns,
        "source": source,
        "labels_id": labels_id,
        "device_time": device_time,
        "device_sequence": device_sequence,
        "device_unsigned": bool(bits & _DEVICE_UNSIGNED),
        "origin": origin,
        "checksum": bool(bits & _CHECKSUM),
        "end_of_stream": bool(bits & _END_OF_STREAM),
        "session_event": bool(bits & _SESSION_EVENT),
        "pickled": bool(bits & _PICKLED),
    }


def _check_shape(
    dtype: DType, shape: tuple[int, ...], size: int, bits: int, at: int
) -> None:
    """Refuse a shape or size that the code cannot have."""
    if math.prod(max(extent, 1) for extent in shape) >= MAX_BYTES:
        raise corrupt(at + EXTENTS_AT, "extents", shape, "an array of below 2**62")
    if dtype in PLAIN:
        expected = math.prod(shape) * PLAIN[dtype][0].itemsize
        if size != expected:
            raise corrupt(
                at + LENGTH_AT, f"payload of {dtype.name} {shape}", size, expected
            )
    elif shape and dtype != DType.ND_ARR:
        raise corrupt(at + NDIM_AT, f"ndim of {dtype.name}", len(shape), 0)
    if dtype == DType.NONE and size:
        raise corrupt(at + LENGTH_AT, "payload of NONE", size, 0)
    holds = dtype in (DType.ARRAY, DType.TUPLE, DType.DICT, DType.PICKLED)
    if (bits & _PICKLED and not holds) or (dtype == DType.PICKLED and not bits & 4):
        raise corrupt(at + FLAGS_AT, "pickled flag", f"{bits:#x}", f"as {dtype.name}")
