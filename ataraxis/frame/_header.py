"""`Header`: the 64 bytes before every payload, and the extensions its flags name.

The byte table is in `ataraxis.frame`. Payloads are not looked at here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ataraxis.frame._checksum import crc32
from ataraxis.frame._codes import DType
from ataraxis.frame._layout import (
    EXTENTS,
    FIXED,
    HEADER_BYTES,
    HEADER_CRC_AT,
    LABELS_AT,
    MAGIC,
    MAX_NDIM,
    ORIGIN,
    SEQUENCE_AT,
    STAMP_SIGNED,
    STAMP_UNSIGNED,
    TIME_AT,
    WORD,
    Origin,
)
from ataraxis.frame._parse import read_fields, read_fixed

if TYPE_CHECKING:
    from typing_extensions import Buffer

_U32, _U64, _I64 = 2**32 - 1, 2**64 - 1, 2**63


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What the 64 bytes and the extensions of a frame say.

    Examples
    --------
    >>> header = Header(dtype=DType.U8, shape=(3,), payload_bytes=3, sequence=7)
    >>> buffer = bytearray(header.nbytes)
    >>> header.write(buffer)
    >>> Header.read(buffer).sequence
    7
    """

    dtype: DType = DType.RAW
    """What the payload is."""
    shape: tuple[int, ...] = ()
    """Extents of the payload, at most 8; () for a scalar or anything but an array."""
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
    """Device time in the source's own ticks, i64 or u64; None if it gives none."""
    device_sequence: int | None = None
    """Device counter, u64; None without a device time."""
    device_unsigned: bool = False
    """The source's ticks are unsigned."""
    origin: Origin | None = None
    """Which input it came from, if from one."""
    checksum: bool = False
    """The bytes after the header have a checksum."""
    end_of_stream: bool = False
    """No frame follows."""
    session_event: bool = False
    """It is an event of the session."""
    pickled: bool = False
    """The payload is, or contains, a pickle."""

    @property
    def extended(self) -> bool:
        """The extents need the extension."""
        return len(self.shape) > 4 or any(extent >> 32 for extent in self.shape)

    @property
    def flags(self) -> int:
        """The flags as in the header."""
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
            Where the frame begins, byte.
        crc : int, optional
            CRC-32 of all bytes after the header; counts when `checksum` is set.
        seed : int, optional
            What the header's CRC goes on from: ``crc32(uuid)`` in a journal.

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
        """Say how long a frame is, of which perhaps only 64 bytes are here yet.

        Parameters
        ----------
        buffer : bytes-like
            At least 64 bytes from `offset` on.
        offset, seed : int, optional
            As for `read`.

        Returns
        -------
        int
            Bytes of the whole frame, header included; not checked against anything
            but the header's own CRC.

        Raises
        ------
        CorruptFrame
            Here is no header.

        Examples
        --------
        >>> buffer = bytearray(64)
        >>> Header(payload_bytes=1000).write(buffer)
        >>> Header.peek_nbytes(buffer)
        1064
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
        offset : int, optional
            Where the frame begins, byte.
        seed : int, optional
            What the header's CRC goes on from: ``crc32(uuid)`` in a journal.

        Returns
        -------
        Header
            The same that was written.

        Raises
        ------
        CorruptFrame
            A wrong magic, CRC, code, flag, extent or size.
        """
        # The constructor of a frozen dataclass sets each field by a call.
        header = object.__new__(cls)
        header.__dict__.update(read_fields(memoryview(buffer), offset, seed))
        return header


def check_ranges(header: Header) -> None:
    """Refuse numbers that their fields do not hold, before anything is written."""
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
            raise ValueError(f"{name}={number}: give one from {least} to {most}.")


def restamp(
    buffer: Buffer,
    offset: int = 0,
    *,
    labels_id: int = 0,
    seed: int = 0,
    sequence: int | None = None,
) -> None:
    """Give an encoded frame the labels id and header CRC of its next hop, in place.

    Parameters
    ----------
    buffer : writable bytes-like
        Holds the header of a frame that was checked.
    offset : int, optional
        Where the frame begins, byte.
    labels_id : int, optional
        Entry of the labels at the next hop, u32.
    seed : int, optional
        What the header's CRC goes on from there: ``crc32(uuid)`` in a journal.
    sequence : int, optional
        Its number there, u64; as it is, if not given.

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
