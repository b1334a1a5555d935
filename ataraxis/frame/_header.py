"""`Header`: the 64 bytes before a payload, and the extensions its flags name.

The byte table is in `ataraxis.frame`.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ataraxis.errors import CorruptFrame

if TYPE_CHECKING:
    from typing_extensions import Buffer

# ---- `DType`: what a frame's payload is, one byte in the header

CUSTOM_START = 100
CUSTOM_END = 200


class DType(IntEnum):
    """The type of a payload; 1 to 9 and the custom range are uPipe's numbers.

    ``DType(137)`` is a member named ``CUSTOM_137``, registered or not.
    ``CUSTOM_TYPE_START`` and ``CUSTOM_TYPE_END`` are the first and the last code for
    your own types, 100 and 200.

    Examples
    --------
    >>> DType.U32, DType(137), DType(DType.CUSTOM_TYPE_START + 1)
    (<DType.U32: 3>, <DType.CUSTOM_137: 137>, <DType.CUSTOM_101: 101>)
    """

    if TYPE_CHECKING:
        CUSTOM_TYPE_START: ClassVar[DType]
        CUSTOM_TYPE_END: ClassVar[DType]

    RAW = 0
    """Bytes as they are."""
    U8 = 1
    """Unsigned integer of 8 bits, or an array of such."""
    U16 = 2
    """Unsigned integers of 16 bits."""
    U32 = 3
    """Unsigned integers of 32 bits."""
    U64 = 4
    """Unsigned integers of 64 bits."""
    STR = 5
    """Text, UTF-8."""
    JSON = 6
    """JSON text, only on request."""
    ARRAY = 7
    """Python list."""
    TUPLE = 8
    """Python tuple."""
    ND_ARR = 9
    """Array whose dtype is in its labels: records, times, text, big-endian, xarray."""
    I8 = 10
    """Signed integers of 8 bits."""
    I16 = 11
    """Signed integers of 16 bits."""
    I32 = 12
    """Signed integers of 32 bits."""
    I64 = 13
    """Signed integers of 64 bits."""
    F16 = 14
    """Floats of 16 bits."""
    F32 = 15
    """Floats of 32 bits."""
    F64 = 16
    """Floats of 64 bits; of no dimension: a Python float."""
    C64 = 17
    """Complex numbers of two 32-bit floats."""
    C128 = 18
    """Complex numbers of two 64-bit floats; of no dimension: a Python complex."""
    BOOL = 19
    """Booleans, one byte each; of no dimension: a Python bool."""
    NONE = 20
    """None."""
    INT = 21
    """Python integer of any size."""
    DICT = 22
    """Python dict."""
    PICKLED = 230
    """A pickle: only where both ends allow it."""
    UNKNOWN = 230
    """uPipe's name of PICKLED."""

    @classmethod
    def _missing_(cls, value: object) -> DType | None:
        if not isinstance(value, int) or not CUSTOM_START <= value <= CUSTOM_END:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"CUSTOM_{value}"
        member._value_ = value
        return cls._value2member_map_.setdefault(value, member)  # type: ignore[return-value]


# Set here so that they are not members.
DType.CUSTOM_TYPE_START = DType(CUSTOM_START)
DType.CUSTOM_TYPE_END = DType(CUSTOM_END)

# Code of a plain element -> its dtype and how struct writes one of it.
PLAIN: dict[DType, tuple[np.dtype[Any], str]] = {
    DType.U8: (np.dtype("u1"), "<B"),
    DType.U16: (np.dtype("<u2"), "<H"),
    DType.U32: (np.dtype("<u4"), "<I"),
    DType.U64: (np.dtype("<u8"), "<Q"),
    DType.I8: (np.dtype("i1"), "<b"),
    DType.I16: (np.dtype("<i2"), "<h"),
    DType.I32: (np.dtype("<i4"), "<i"),
    DType.I64: (np.dtype("<i8"), "<q"),
    DType.F16: (np.dtype("<f2"), "<e"),
    DType.F32: (np.dtype("<f4"), "<f"),
    DType.F64: (np.dtype("<f8"), "<d"),
    DType.C64: (np.dtype("<c8"), "<ff"),
    DType.C128: (np.dtype("<c16"), "<dd"),
    DType.BOOL: (np.dtype("?"), "<?"),
}
CODE_OF = {dtype.str: code for code, (dtype, _) in PLAIN.items()}
KNOWN = frozenset(DType) | frozenset(range(CUSTOM_START, CUSTOM_END + 1))

# ---- the checksum of frames


def crc32(data: Buffer, value: int = 0) -> int:
    """Return the CRC-32 (IEEE) of bytes, continued from `value`.

    Parameters
    ----------
    data : bytes-like
        Contiguous.
    value : int, optional
        Checksum of the bytes before; of the file's uuid, in a journal.

    Returns
    -------
    int
        0 to 2**32 - 1, the same as `zlib.crc32`.

    Examples
    --------
    >>> hex(crc32(b"123456789"))
    '0xcbf43926'
    >>> crc32(b"6789", crc32(b"12345")) == crc32(b"123456789")
    True
    """
    return _fastest()(data, value)


@functools.cache
def _fastest() -> Callable[[Buffer, int], int]:
    """Return the CRC of ISA-L, which is several times faster, or else zlib's."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.crc32
    from ataraxis._kernels.memory import vzeroupper as leave

    def tidy(data: Buffer, value: int) -> int:
        crc: int = isal_zlib.crc32(data, value)
        leave()
        return crc

    return tidy


# ---- the layout of a header

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
    """There is an extents extension, and the header's own extents are 0."""
    DEVICE_STAMP = 16
    """There is a device stamp."""
    DEVICE_UNSIGNED = 32
    """The device stamp's time is unsigned."""
    ORIGIN = 64
    """There is an origin."""
    SESSION_EVENT = 128
    """The payload is an event of the session."""


class Origin(NamedTuple):
    """The input that a frame of a pipeline was made from."""

    source: int
    """Source id of the input, u64."""
    sequence: int
    """Sequence of the input, u64."""
    part: int = 0
    """Number among the frames made from that input, u32."""
    attempt: int = 0
    """How often the input was tried before, u32."""


def corrupt(at: int, what: str, found: object, expected: object) -> CorruptFrame:
    """Return the error of decoding: what is wrong at which byte."""
    shown = found if isinstance(found, str) else repr(found)
    return CorruptFrame(
        f"{what} at byte {at}: found {shown[:100]}, expected {expected}."
    )


# ---- reading untrusted headers

# Plain integers: `&` of an IntFlag takes a microsecond.
_CHECKSUM, _END_OF_STREAM, _PICKLED, _EXTENTS = 1, 2, 4, 8
_DEVICE_STAMP, _DEVICE_UNSIGNED, _ORIGIN, _SESSION_EVENT = 16, 32, 64, 128


def read_fixed(view: memoryview, at: int, seed: int) -> tuple[int, ...]:
    """Return the fields in the first 60 bytes of a header, and check its CRC."""
    if at < 0:
        raise ValueError(f"offset must be byte 0 or later, got {at}.")
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
    """Return header and extensions as the arguments of `Header`; check all of it."""
    fields = read_fixed(view, at, seed)
    _, code, ndim, bits, length, sequence, time_ns, *extents = fields[:11]
    source, crc, labels_id = fields[11:]
    if code not in KNOWN:
        raise corrupt(at + 4, "dtype code", code, "a code of DType")
    if bits > 255 or bits & 48 == _DEVICE_UNSIGNED:
        raise corrupt(at + FLAGS_AT, "flags", f"{bits:#x}", "known ones only")
    if not bits & _CHECKSUM and crc:
        raise corrupt(at + CRC_AT, "checksum", f"{crc:#x}", "0 without its flag")
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
        stamp = STAMP_UNSIGNED if bits & _DEVICE_UNSIGNED else STAMP_SIGNED
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
    """Raise for a shape or size that the code cannot have."""
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


# ---- `Header`

_U32, _U64, _I64 = 2**32 - 1, 2**64 - 1, 2**63


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """The fields of a frame's 64 bytes and extensions.

    Examples
    --------
    >>> header = Header(dtype=DType.U8, shape=(3,), payload_bytes=3, sequence=7)
    >>> buffer = bytearray(header.nbytes)
    >>> header.write(buffer)
    >>> Header.read(buffer).sequence
    7
    """

    dtype: DType = DType.RAW
    """Type of the payload."""
    shape: tuple[int, ...] = ()
    """Extents of an array, at most 8; else ()."""
    payload_bytes: int = 0
    """Bytes of payload."""
    sequence: int = 0
    """Number within the stream, u64, from 0, never reused."""
    time_ns: int = 0
    """Monotonic time of the host that made it, ns; of a block, of its first sample."""
    source: int = 0
    """Source id, u32."""
    labels_id: int = 0
    """Entry of interned labels, u32; 0: the payload's own, if any."""
    device_time: int | None = None
    """Device time in the source's own ticks, i64 or u64; None if it has none."""
    device_sequence: int | None = None
    """Device counter, u64; None without a device time."""
    device_unsigned: bool = False
    """Whether the source's ticks are unsigned."""
    origin: Origin | None = None
    """The input it was made from, in a pipeline."""
    checksum: bool = False
    """Whether the bytes after the header have a checksum."""
    end_of_stream: bool = False
    """Whether no frame follows."""
    session_event: bool = False
    """Whether it is an event of the session."""
    pickled: bool = False
    """Whether the payload is, or contains, a pickle."""

    @property
    def extended(self) -> bool:
        """Whether the extents need the extension."""
        return len(self.shape) > 4 or any(extent >> 32 for extent in self.shape)

    @property
    def flags(self) -> int:
        """The bits of `Flag`."""
        return (
            self.checksum * 1
            + self.end_of_stream * 2
            + self.pickled * 4
            + self.extended * 8
            + (self.device_time is not None) * 16
            + self.device_unsigned * 32
            + (self.origin is not None) * 64
            + self.session_event * 128
        )

    @property
    def extension_bytes(self) -> int:
        """Bytes of extensions, between header and payload; a multiple of 8."""
        return (
            self.extended * EXTENTS.size
            + (self.device_time is not None) * STAMP_SIGNED.size
            + (self.origin is not None) * ORIGIN.size
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the whole frame: header, extensions and payload."""
        return HEADER_BYTES + self.extension_bytes + self.payload_bytes

    def extensions(self) -> bytes:
        """Return the bytes of the extensions."""
        parts = []
        if self.extended:
            extents = self.shape + (0,) * (MAX_NDIM - len(self.shape))
            parts.append(EXTENTS.pack(*extents))
        if self.device_time is not None:
            stamp = STAMP_UNSIGNED if self.device_unsigned else STAMP_SIGNED
            parts.append(stamp.pack(self.device_time, self.device_sequence or 0))
        if self.origin is not None:
            parts.append(ORIGIN.pack(*self.origin))
        return b"".join(parts)

    def write(
        self, buffer: Buffer, offset: int = 0, *, crc: int = 0, seed: int = 0
    ) -> None:
        """Write header and extensions in front of a payload.

        Parameters
        ----------
        buffer : writable bytes-like
            `nbytes` from `offset` on are the frame's.
        offset : int, optional
            Byte at which the frame begins.
        crc : int, optional
            CRC-32 of all bytes after the header; used if `checksum` is set.
        seed : int, optional
            Start value of the header's CRC: ``crc32(uuid)`` in a journal.

        Raises
        ------
        ValueError
            A field does not fit, or `buffer` is too small.
        """
        extents: tuple[int, ...] = (0,) * 4
        if not self.extended:
            extents = (self.shape + (0,) * 4)[:4]
        try:
            fixed = FIXED.pack(
                MAGIC,
                self.dtype,
                len(self.shape),
                self.flags,
                self.extension_bytes + self.payload_bytes,
                self.sequence,
                self.time_ns,
                *extents,
                self.source,
                crc if self.checksum else 0,
                self.labels_id,
            )
            head = fixed + WORD.pack(crc32(fixed, seed)) + self.extensions()
        except struct.error as error:
            raise ValueError(f"{self} does not fit a header: {error}.") from error
        memoryview(buffer)[offset : offset + len(head)] = head

    @classmethod
    def peek_nbytes(cls, buffer: Buffer, offset: int = 0, *, seed: int = 0) -> int:
        """Return the length of a frame of which only the header may be here yet.

        Parameters
        ----------
        buffer : bytes-like
            At least 64 bytes from `offset` on.
        offset, seed : int, optional
            As for `write`.

        Returns
        -------
        int
            Bytes of the whole frame, header included; only the header's CRC is checked.

        Raises
        ------
        CorruptFrame
            There is no header at `offset`.
        """
        length: int = read_fixed(memoryview(buffer), offset, seed)[4]
        return HEADER_BYTES + length

    @classmethod
    def read(cls, buffer: Buffer, offset: int = 0, *, seed: int = 0) -> Header:
        """Read and check header and extensions.

        Parameters
        ----------
        buffer : bytes-like
            Holds the whole frame from `offset` on.
        offset, seed : int, optional
            As for `write`.

        Raises
        ------
        CorruptFrame
            A wrong magic, CRC, code, flag, extent or size.
        """
        # Faster than the constructor, which sets each field of a frozen class by call.
        header = object.__new__(cls)
        header.__dict__.update(read_fields(memoryview(buffer), offset, seed))
        return header


def check_ranges(header: Header) -> None:
    """Raise for numbers that do not fit their fields."""
    origin = header.origin or Origin(0, 0)
    low = 0 if header.device_unsigned else -_I64
    for name, number, least, most in (
        ("sequence", header.sequence, 0, _U64),
        ("time_ns", header.time_ns, -_I64, _I64 - 1),
        ("source", header.source, 0, _U32),
        ("labels_id", header.labels_id, 0, _U32),
        ("device_time", header.device_time or 0, low, _U64),
        ("device_sequence", header.device_sequence or 0, 0, _U64),
        ("origin.source", origin.source, 0, _U64),
        ("origin.sequence", origin.sequence, 0, _U64),
        ("origin.part", origin.part, 0, _U32),
        ("origin.attempt", origin.attempt, 0, _U32),
    ):
        if not least <= number <= most:
            raise ValueError(f"{name} must be {least} to {most}, got {number}.")


def restamp(
    buffer: Buffer,
    offset: int = 0,
    *,
    labels_id: int = 0,
    seed: int = 0,
    sequence: int | None = None,
) -> None:
    """Set the labels id and header CRC of an encoded frame, in place.

    Parameters
    ----------
    buffer : writable bytes-like
        Holds the header of a frame that was checked.
    offset, seed : int, optional
        As for `Header.write`.
    labels_id : int, optional
        Entry of the labels where the frame goes, u32.
    sequence : int, optional
        New sequence, u64; by default unchanged.

    Examples
    --------
    >>> from ataraxis.frame import Frame
    >>> data = bytearray(Frame.from_value(b"", labels_id=1).to_bytes())
    >>> restamp(data, labels_id=9)
    >>> Frame.from_buffer(data).labels_id
    9
    """
    target = memoryview(buffer)
    if sequence is not None:
        target[offset + SEQUENCE_AT : offset + TIME_AT] = sequence.to_bytes(8, "little")
    WORD.pack_into(target, offset + LABELS_AT, labels_id)
    header = target[offset : offset + HEADER_CRC_AT]
    WORD.pack_into(target, offset + HEADER_CRC_AT, crc32(header, seed))
