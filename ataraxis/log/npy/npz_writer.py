"""`NpzWriter`: an npz archive of entries, written sequentially in bounded memory.

The members are npy files. The central directory also has the time of each source file
(extra field 0x5841, u64 ns), by which a later run distinguishes an archived entry from
another one of the same stamp.
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
_DATE = 0x21  # 1 January 1980: archives are reproducible
_PIECE = 1 << 20
_LARGEST = 2**62
_LEVEL = 6


class Member(NamedTuple):
    """Contents of the directory about one member."""

    name: bytes
    """File name, with ``.npy``."""
    method: int
    """0 stored, 8 deflated."""
    crc: int
    """CRC-32 of the npy file."""
    packed_bytes: int
    """Bytes in the archive."""
    nbytes: int
    """Bytes of the npy file."""
    written_ns: int = 0
    """Time of the source file, ns of wall time; 0 if unknown."""


class NpzWriter:
    """Write members one after another, then the directory; keeps nothing in memory.

    The file at `path` is new; the caller renames it when it is complete. With
    `compress`, members are deflated, as NumPy's ``savez_compressed`` does.
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
        """Add a member, named without suffix, of the bytes of an npy file.

        Returns its directory entry. `written_ns` is the time of that file.
        """
        crc = crc32(data)
        packed: Buffer = data
        packed_bytes = len(data)
        if self._compress:
            packed = zlib.compress(data, _LEVEL, -15)
            packed_bytes = len(packed)
        method = DEFLATED if self._compress else STORED
        file_name = f"{name}.npy".encode("ascii")
        member = Member(file_name, method, crc, packed_bytes, len(data), written_ns)
        self.add_packed(member, [packed])
        return member

    def add_packed(self, member: Member, pieces: Iterable[Buffer]) -> None:
        """Add a member that is packed already, from another archive."""
        start = self._at
        wide = b""
        sizes = (member.packed_bytes, member.nbytes)
        is_wide = max(sizes) >= _U32
        if is_wide:
            wide = struct.pack("<2H2Q", WIDE_ID, 16, sizes[1], sizes[0])
        fields = (
            45 if is_wide else 20, 0, member.method, 0, _DATE, member.crc,
            *((_U32, _U32) if is_wide else sizes), len(member.name),
        )  # fmt: skip
        self._put(LOCAL.pack(LOCAL_MAGIC, *fields, len(wide)) + member.name + wide)
        for piece in pieces:
            self._put(piece)
        if self._at - start - LOCAL.size - len(wide) - len(member.name) != sizes[0]:
            raise ValueError(f"the size of {member.name!r} differs from its record")
        self._add_record(member, fields, start, is_wide)
        self.count += 1

    def finish(self) -> None:
        """Write the directory, and sync the archive."""
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

    def _add_record(
        self, member: Member, fields: tuple[int, ...], start: int, is_wide: bool
    ) -> None:
        """Write the member's record for the directory to a temporary file."""
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
    """Return the bytes of a member; raise `CorruptFrame` unless they are `nbytes`."""
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
