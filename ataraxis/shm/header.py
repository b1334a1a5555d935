r"""The header page of a segment: packed once, validated before use.

::

    0x000  8  magic ``ATRXSHM\x01``     0x040  8  created, wall clock ns
    0x008  4  0x01020304                0x048  4  user id      0x04C  4  page bytes
    0x00C  2  major   0x00E  2  minor   0x050 16  boot id of the creating host
    0x010  4  kind                      0x060  8  x 4  geometry: participants,
    0x014  4  layout id                            control, labels, payload bytes
    0x018  8  total bytes               0x080  8  x 4  offsets of the same
    0x020  8  incompatible features     0x0A0  4  CRC-32 of the labels
    0x028  8  compatible features       0x3FC  4  CRC-32 of bytes 0x000 to 0x3FB
    0x030 16  uuid                      0x800     the live words (layout.h)

Offsets are recomputed from the geometry and must agree; none is taken from the file.
The header is copied once, checked and kept as a `SegmentHeader`, and not read twice.
"""

from __future__ import annotations

import enum
import os
import struct
import time
import uuid as uuids
import zlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from ataraxis.clock import boot_id
from ataraxis.errors import LayoutError

MAGIC = b"ATRXSHM\x01"
MAJOR, MINOR = 1, 0
PAGE = 4096
LIVE = 0x800
PARTICIPANT_BYTES = 64
MAX_PARTICIPANTS = 1024
LABELS_LIMIT = 1 << 20
SIZE_LIMIT = 1 << 46
READY = 1
_FIXED = struct.Struct("<8sIHHIIQQQ16sQII16s4Q4QI")
_CRC_AT = 0x3FC


class Kind(enum.IntEnum):
    """What a segment holds."""

    ARRAY = 1
    STREAM = 2
    QUEUE = 3
    FRAMEBUFFER = 4
    ARENA = 5


@dataclass(frozen=True)
class Geometry:
    """Sizes of the parts of a segment; every offset follows from these four numbers."""

    participants: int
    """Number of participant slots, 1 to 1024."""
    control_bytes: int
    """Size of the control words of the kind."""
    labels_bytes: int
    """Size of the labels, JSON."""
    payload_bytes: int
    """Size of the data."""

    control: int = field(init=False)
    """Offset of the control words: a multiple of 128 bytes."""
    labels: int = field(init=False)
    """Offset of the labels."""
    payload: int = field(init=False)
    """Offset of the data: the start of a page."""
    total: int = field(init=False)
    """Length of the file."""

    def __post_init__(self) -> None:
        control = _up(PAGE + PARTICIPANT_BYTES * self.participants, 128)
        labels = control + self.control_bytes
        payload = _up(labels + self.labels_bytes, PAGE)
        keep = object.__setattr__
        keep(self, "control", control)
        keep(self, "labels", labels)
        keep(self, "payload", payload)
        keep(self, "total", _up(payload + self.payload_bytes, PAGE))

    @property
    def offsets(self) -> tuple[int, int, int, int]:
        """Offsets of participants, control, labels and payload."""
        return PAGE, self.control, self.labels, self.payload

    def problem(self) -> str | None:
        """Return what is impossible about these numbers, or None."""
        if not 1 <= self.participants <= MAX_PARTICIPANTS:
            return f"{self.participants} participants (1 to {MAX_PARTICIPANTS})"
        if not 0 < self.control_bytes <= SIZE_LIMIT or self.control_bytes % 128:
            return f"a control block of {self.control_bytes} bytes"
        if not 0 <= self.labels_bytes <= LABELS_LIMIT:
            return f"labels of {self.labels_bytes} bytes (at most {LABELS_LIMIT})"
        if not 0 <= self.payload_bytes <= SIZE_LIMIT:
            return f"a payload of {self.payload_bytes} bytes (at most {SIZE_LIMIT})"
        return None


@dataclass(frozen=True)
class SegmentHeader:
    """A segment's header, validated."""

    kind: Kind
    geometry: Geometry
    uuid: bytes
    created_ns: int
    """Wall clock, ns since 1970."""
    uid: int
    boot_id: bytes
    labels_crc: int

    @classmethod
    def new(cls, kind: Kind, geometry: Geometry, labels: bytes) -> SegmentHeader:
        """Make the header of a new segment."""
        now, crc = time.time_ns(), zlib.crc32(labels)
        fresh = uuids.uuid4().bytes
        return cls(kind, geometry, fresh, now, os.geteuid(), _boot_id(), crc)

    def pack(self) -> bytes:
        """Return the header page without the live words: 0x400 bytes."""
        g = self.geometry
        fixed = _FIXED.pack(
            MAGIC, 0x01020304, MAJOR, MINOR, self.kind, layout_id(self.kind), g.total,
            0, 0, self.uuid, self.created_ns, self.uid, PAGE, self.boot_id,
            g.participants, g.control_bytes, g.labels_bytes, g.payload_bytes,
            *g.offsets, self.labels_crc,
        )  # fmt: skip
        body = fixed.ljust(_CRC_AT, b"\0")
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def unpack(cls, page: bytes, file_bytes: int, where: str | Path) -> SegmentHeader:
        """Validate a header of unknown contents: a private copy of 4096 bytes.

        Raises `LayoutError`, which names `where` and the wrong byte, if it is not a
        segment, of another version, or damaged.
        """
        if len(page) < PAGE:
            raise _wrong(
                where, len(page), "the end of the file", f"{PAGE} bytes of header"
            )
        return cls._checked(page[: _CRC_AT + 4], file_bytes, where)

    @classmethod
    @lru_cache(maxsize=64)
    def _checked(cls, page: bytes, file_bytes: int, where: str | Path) -> SegmentHeader:
        """Validate; equal bytes give the same header."""
        values = _FIXED.unpack_from(page)
        magic, endian, major, minor, kind, layout, total, incompatible = values[:8]
        crc = struct.unpack_from("<I", page, _CRC_AT)[0]
        if magic != MAGIC:
            raise _wrong(where, 0, magic, MAGIC)
        if endian != 0x01020304:
            raise _wrong(where, 8, hex(endian), "0x1020304 (little-endian)")
        if crc != zlib.crc32(page[:_CRC_AT]):
            raise _wrong(where, _CRC_AT, hex(crc), hex(zlib.crc32(page[:_CRC_AT])))
        if major != MAJOR or incompatible:
            version = f"version {major}.{minor}, features {incompatible:#x}"
            raise _wrong(
                where, 12, version, f"version {MAJOR}.x; use the release that wrote it"
            )
        if kind not in iter(Kind):
            raise _wrong(where, 16, f"kind {kind}", "a known kind")
        if layout != layout_id(Kind(kind)):
            raise _wrong(where, 20, hex(layout), hex(layout_id(Kind(kind))))
        geometry = Geometry(*values[14:18])
        if problem := geometry.problem():
            raise _wrong(where, 0x60, problem, "a possible geometry")
        if values[18:22] != geometry.offsets:
            raise _wrong(where, 0x80, values[18:22], geometry.offsets)
        if total != geometry.total or file_bytes != total:
            raise _wrong(
                where, 24, f"{total} of {file_bytes} bytes", f"{geometry.total} bytes"
            )
        return cls(
            Kind(kind), geometry, values[9], values[10], values[11], values[13],
            values[22],
        )  # fmt: skip


def _wrong(
    where: str | Path, offset: int, found: object, expected: object
) -> LayoutError:
    return LayoutError(
        f"{where}: not a usable ataraxis segment: at byte 0x{offset:x} found "
        f"{found}, expected {expected}. Remove the file if nothing uses it"
    )


@cache
def layout_id(kind: Kind) -> int:
    """Return the fingerprint of the kind's structs.

    The structs are asserted in layout.h; raise the revision with every change of them.
    """
    revision = {
        Kind.ARRAY: 1,
        Kind.STREAM: 1,
        Kind.QUEUE: 2,
        Kind.FRAMEBUFFER: 1,
        Kind.ARENA: 1,
    }
    return zlib.crc32(f"{kind.name}/{revision[kind]}/{PARTICIPANT_BYTES}".encode())


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


@cache
def _boot_id() -> bytes:
    text = boot_id()
    return uuids.UUID(text).bytes if text else bytes(16)
