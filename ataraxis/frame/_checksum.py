"""The checksum of frames: CRC-32 (IEEE), as `zlib.crc32`, by the fastest at hand."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def crc32(data: Buffer, value: int = 0) -> int:
    """Return the CRC-32 (IEEE) of bytes, continued from `value`.

    Parameters
    ----------
    data : bytes-like
        Contiguous.
    value : int, optional
        Checksum of what came before; of a file's uuid, for the frames of a journal.

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
    """Prefer ISA-L, which is several times faster; zlib is always there."""
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
