"""The frame: the unit of data, the same bytes in memory, on disk and on the wire.

A header of 64 bytes, little-endian, naturally aligned; then the extensions that the
flags name, in this order; then the payload.

====== ==== =====================================================================
offset size field
====== ==== =====================================================================
0      4    magic ``AXF1``
4      1    dtype code (`DType`)
5      1    ndim of the payload, 0 to 8 (0: a scalar, or no array)
6      2    flags (`Flag`): checksum 1, end of stream 2, pickled 4, extents 8,
            device stamp 16, it is unsigned 32, origin 64, session event 128
8      8    bytes that follow the header: extensions and payload
16     8    sequence, u64
24     8    time, i64 ns, monotonic
32     16   extents 0 to 3, u32
48     4    source id
52     4    CRC-32 of all bytes after the header, 0 without the flag
56     4    labels id, 0: its own
60     4    CRC-32 of bytes 0 to 59, continued from a seed in journals
====== ==== =====================================================================

Extensions: *extents* 64 bytes (8 x u64; if ndim > 4 or an extent passes u32), *device
stamp* 16 (i64 or u64 time, u64 counter), *origin* 24 (u64 source, u64 sequence, u32
part, u32 attempt). Each header has exactly one encoding; any other is refused.
"""

from ataraxis.frame._frame import Frame, frame_size
from ataraxis.frame._header import (
    HEADER_BYTES,
    MAGIC,
    MAX_NDIM,
    DType,
    Flag,
    Header,
    Origin,
    crc32,
    restamp,
)
from ataraxis.frame._values import register_data_type

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_NDIM",
    "DType",
    "Flag",
    "Frame",
    "Header",
    "Origin",
    "crc32",
    "frame_size",
    "register_data_type",
    "restamp",
]
