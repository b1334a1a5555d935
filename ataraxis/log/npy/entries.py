"""Names and bytes of the entries of the npy layout.

``{source:03d}_{stamp:020d}.npy`` holds one uint8 array of shape (9 + n,): the source
id, the stamp as u64 little-endian, then the n bytes of payload. A second entry of the
same source and stamp is called ``..._1.npy``, the third ``..._2.npy``; the readers of
ataraxis-data-structures use only the first two numbers, so they read these too.
"""

from __future__ import annotations

import ast
import functools
import re
import struct
from typing import NamedTuple

from ataraxis.errors import CorruptFrame

NPY_BYTES = 128
"""Size of the npy header of an entry."""
PREFIX = struct.Struct("<BQ")
"""Source id and stamp: the first 9 bytes of the array of an entry."""
SUFFIX = ".npy"
SOURCE_LIMIT = 256

_MAGIC = b"\x93NUMPY"
_NAME = re.compile(r"([0-9]{1,20})_([0-9]{1,60})(?:_([0-9]{1,60}))?", re.ASCII)
_U64 = 2**64


class EntryKey(NamedTuple):
    """Identifies an entry; keys sort as in archives of ataraxis-data-structures."""

    stamp: int
    """Stamp from the caller, u64."""
    source: int
    """Source id, 0 to 255."""
    copy: int = 0
    """0 for the first entry of this source and stamp, then 1, 2, ..."""

    @property
    def stem(self) -> str:
        """Its name in an archive.

        Examples
        --------
        >>> EntryKey(5, 1).stem, EntryKey(5, 1, 2).stem
        ('001_00000000000000000005', '001_00000000000000000005_2')
        """
        first = f"{self.source:03d}_{self.stamp:020d}"
        return f"{first}_{self.copy}" if self.copy else first


def parse_stem(stem: str) -> EntryKey | None:
    """Parse the name of an entry without its suffix; None if it is not one.

    Examples
    --------
    >>> parse_stem("007_00072623859790382856")
    EntryKey(stamp=72623859790382856, source=7, copy=0)
    >>> parse_stem("results") is None
    True
    """
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    source, stamp, copy = int(found[1]), int(found[2]), int(found[3] or 0)
    if source >= 2**32 or stamp >= _U64 or copy >= 2**63:
        return None
    return EntryKey(stamp, source, copy)


@functools.lru_cache(maxsize=4096)
def npy_header(count: int) -> bytes:
    """Return the npy header of a uint8 array, shape (count,), as `numpy.save` does."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}"
    text = text.ljust(NPY_BYTES - 11) + "\n"
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text.encode("ascii")


def entry_head(source: int, stamp: int, payload_bytes: int) -> bytes:
    """Return the bytes of an entry before its payload."""
    return npy_header(PREFIX.size + payload_bytes) + PREFIX.pack(source, stamp)


def payload_start(data: memoryview | bytes) -> int:
    """Return where the payload of an entry starts; it extends to the end.

    `data` is the whole npy file. Raises `CorruptFrame` if it is not the npy file of a
    uint8 vector of at least 9 bytes, or is incomplete.
    """
    size = len(data)
    if size >= NPY_BYTES + PREFIX.size and data[:NPY_BYTES] == npy_header(
        size - NPY_BYTES
    ):
        return NPY_BYTES + PREFIX.size
    start, count = _foreign_header(bytes(data[:4096]))
    if size != start + count:
        raise CorruptFrame(
            f"an entry of {count} bytes needs a file of {start + count}, found {size}"
        )
    if count < PREFIX.size:
        raise CorruptFrame(f"an entry has at least {PREFIX.size} bytes, found {count}")
    return start + PREFIX.size


def _foreign_header(head: bytes) -> tuple[int, int]:
    """Parse the npy header of another NumPy version: start and number of data bytes."""
    if len(head) < 12 or head[:6] != _MAGIC:
        raise CorruptFrame(f"not an npy file: it begins with {head[:6]!r}")
    wide = head[6] > 1
    length: int = struct.unpack_from("<I" if wide else "<H", head, 8)[0]
    start = (12 if wide else 10) + length
    try:
        text = head[12 if wide else 10 : start].decode("latin1")
        header = ast.literal_eval(text.strip())
        descr, shape = header["descr"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError) as error:
        raise CorruptFrame(f"its npy header cannot be read: {error}") from error
    if descr not in ("|u1", "u1", "<u1") or not _is_vector(shape):
        raise CorruptFrame(f"an entry is a uint8 vector, found {descr!r} of {shape!r}")
    return start, shape[0]


def _is_vector(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) == 1
        and type(shape[0]) is int
        and 0 <= shape[0] < 2**62
    )


def check_entry(key: EntryKey, data: memoryview | bytes) -> int:
    """Return where the payload of an entry starts, and check its source and stamp.

    ataraxis-data-structures writes an id that is not uint8 in full or its lowest byte
    only: both are accepted. Raises `CorruptFrame` like `payload_start`, or if source or
    stamp differ from the name.
    """
    start = payload_start(data) - PREFIX.size
    stamp = key.stamp.to_bytes(8, "little")
    for width in (1, 2, 4, 8):
        source = (key.source % 256**width).to_bytes(width, "little")
        if data[start : start + width + 8] == source + stamp:
            return start + width + 8
    source_found, stamp_found = PREFIX.unpack_from(data, start)
    raise CorruptFrame(
        f"its name says source {key.source}, stamp {key.stamp}; its bytes say "
        f"{source_found} and {stamp_found}"
    )
