"""The layout of a frame's header: offsets, structs, flags, and the error of decoding.

The byte table is in `ataraxis.frame`; who reads and writes it is next door.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

from ataraxis.errors import CorruptFrame

MAGIC = b"AXF1"
HEADER_BYTES = 64
MAX_NDIM = 8
MAX_BYTES = 2**62
NDIM_AT, FLAGS_AT, LENGTH_AT, SEQUENCE_AT, TIME_AT, EXTENTS_AT = 5, 6, 8, 16, 24, 32
SOURCE_AT, CRC_AT, LABELS_AT, HEADER_CRC_AT = 48, 52, 56, 60
FIXED = struct.Struct("<4sBBHQQq4IIII")
WORD = struct.Struct("<I")
EXTENTS = struct.Struct("<8Q")
STAMP_SIGNED = struct.Struct("<qQ")
STAMP_UNSIGNED = struct.Struct("<QQ")
ORIGIN = struct.Struct("<QQII")


class Flag(IntFlag):
    """The bits of the header's flags; all others are 0."""

    CHECKSUM = 1
    """The CRC at byte 52 is that of all bytes after the header."""
    END_OF_STREAM = 2
    """No frame follows."""
    PICKLED = 4
    """The payload is, or contains, a pickle."""
    EXTENTS = 8
    """The extents extension is there, and the header's own extents are 0."""
    DEVICE_STAMP = 16
    """The device stamp is there."""
    DEVICE_UNSIGNED = 32
    """The device stamp's time is unsigned."""
    ORIGIN = 64
    """The origin is there."""
    SESSION_EVENT = 128
    """The payload is an event of the session."""


class Origin(NamedTuple):
    """Which input a frame of a pipeline came from."""

    source: int
    """Source id of the input, u64."""
    sequence: int
    """Sequence of the input, u64."""
    part: int = 0
    """Which of the frames made from that input, u32."""
    attempt: int = 0
    """How often the input had been tried before, u32."""


def corrupt(at: int, what: str, found: object, expected: object) -> CorruptFrame:
    """Make the one error of decoding, in its one form."""
    shown = found if isinstance(found, str) else repr(found)
    return CorruptFrame(
        f"{what} at byte {at}: found {shown[:100]}, expected {expected}."
    )
