"""`NpzWriter`: an npz archive of entries, written once through, in bounded memory.

The members are whole npy files. Beside the name, the central directory keeps when the
source file was written (extra field 0x5841, u64 ns): so that archiving again knows an
entry it has from another one of the same stamp.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

STORED, DEFLATED = 0, 8
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
LOCAL_MAGIC, CENTRAL_MAGIC = b"PK\x03\x04", b"PK\x01\x02"
END_MAGIC, END_64_MAGIC, LOCATOR_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
WRITTEN = struct.Struct("<2HQ")
WRITTEN_ID = 0x5841
WIDE_ID = 0x0001
_U32, _U16 = 2**32 - 1, 2**16 - 1
_DATE = 0x21  # 1 January 1980: what is written does not depend on when
_PIECE = 1 << 20
_LARGEST = 2**62
_LEVEL = 6


class Member(NamedTuple):
    """What the directory of an archive says of one member."""

    name: bytes
    """Its name, with ``.npy``."""
    method: int
    """0 stored, 8 deflated."""
    crc: int
    """CRC-32 of the npy file."""
    packed_bytes: int
    """Bytes in the archive."""
    nbytes: int
    """Bytes of the npy file."""
    written_ns: int = 0
    """When the source file was written, ns of wall time; 0 if not known."""


class NpzWriter:
    """Write members one after another, then the directory; nothing is kept in memory.

    Parameters
    ----------
    path : str or Path
        A new file; the caller renames it when it is whole.
    compress : bool
        Deflate the members (as NumPy's ``savez_compressed``), or store them.
    """

    def __init__(self, path: str | Path, *, compress: bool) -> None:
        self._compress = compress
        self._file: IO[bytes] = open(path, "xb", buffering=_PIECE)  # noqa: SIM115
        self._central: IO[bytes] = tempfile.TemporaryFile(dir=Path(path).parent)  # noqa: SIM115
        self._at = 0
        self.count = 0

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._central.close()
        self._file.close()

    def add(self, name: str, data: memoryview | bytes, written_ns: int = 0) -> Member:
        """Add a member; what the directory will say of it.

        Parameters
        ----------
        name : str
            Of the entry, without suffix.
        data : bytes-like
            The npy file.
        written_ns : int, optional
            When that was written.
        """
        crc = crc32(data)
        packed: Buffer = data
        packed_bytes = len(data)
        if self._compress:
            packed = zlib.compress(data, _LEVEL, -15)
            packed_bytes = len(packed)
        member = Member(
            f"{name}.npy".encode("ascii"),
            DEFLATED if self._compress else STORED,
            crc,
            packed_bytes,
            len(data),
            written_ns,
        )
        self.add_packed(member, [packed])
        return member

    def add_packed(self, member: Member, pieces: Iterable[Buffer]) -> None:
        """Add a member whose bytes are packed already, as another archive had them."""
        start = self._at
        wide = b""
        sizes = (member.packed_bytes, member.nbytes)
        is_wide = max(sizes) >= _U32
        if is_wide:
            wide = struct.pack("<2H2Q", WIDE_ID, 16, sizes[1], sizes[0])
        fields = (
            45 if is_wide else 20,
            0,
            member.method,
            0,
            _DATE,
            member.crc,
            *((_U32, _U32) if is_wide else sizes),
            len(member.name),
        )
        self._put(LOCAL.pack(LOCAL_MAGIC, *fields, len(wide)) + member.name + wide)
        for piece in pieces:
            self._put(piece)
        if self._at - start - LOCAL.size - len(wide) - len(member.name) != sizes[0]:
            raise ValueError(f"{member.name!r} has other bytes than its directory says")
        self._direct(member, fields, start, is_wide)
        self.count += 1

    def finish(self) -> None:
        """Write the directory, and bring all to the disk."""
        start = self._at
        self._central.seek(0)
        while piece := self._central.read(_PIECE):
            self._put(piece)
        size, count = self._at - start, self.count
        if count >= _U16 or start + size >= _U32:
            sizes = (count, count, size, start)
            end = END_64.pack(
                END_64_MAGIC, END_64.size - 12, 45, 45, 0, 0, *sizes
            ) + LOCATOR.pack(LOCATOR_MAGIC, 0, self._at, 1)
            self._put(end)
        few = min(count, _U16)
        self._put(
            END.pack(END_MAGIC, 0, 0, few, few, min(size, _U32), min(start, _U32), 0)
        )
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put(self, data: Buffer) -> None:
        self._at += self._file.write(data)

    def _direct(
        self, member: Member, fields: tuple[int, ...], start: int, is_wide: bool
    ) -> None:
        """Note the member for the directory."""
        wide = b""
        if is_wide or start >= _U32:
            far = [member.nbytes, member.packed_bytes] if is_wide else []
            far += [start] if start >= _U32 else []
            wide = struct.pack(f"<2H{len(far)}Q", WIDE_ID, 8 * len(far), *far)
        extra = wide
        if member.written_ns:
            extra += WRITTEN.pack(WRITTEN_ID, 8, member.written_ns)
        fields = (45 if wide else 20, *fields)
        record = CENTRAL.pack(
            CENTRAL_MAGIC, *fields, len(extra), 0, 0, 0, 0, min(start, _U32)
        )
        self._central.write(record + member.name + extra)


def unpack(packed: memoryview | bytes, method: int, nbytes: int) -> memoryview | bytes:
    """Return the bytes of a member; `CorruptFrame` if they are not `nbytes`."""
    if method == DEFLATED:
        inflate = zlib.decompressobj(-15)
        try:
            packed = inflate.decompress(packed, min(nbytes, _LARGEST) + 1)
        except zlib.error as error:
            raise CorruptFrame(f"a member cannot be inflated: {error}") from error
        if inflate.unused_data:
            raise CorruptFrame("a member ends before its packed bytes do")
    elif method != STORED:
        raise CorruptFrame(f"a member is packed by method {method}, not 0 or 8")
    if len(packed) != nbytes:
        raise CorruptFrame(f"a member has {len(packed)} bytes, expected {nbytes}")
    return packed
