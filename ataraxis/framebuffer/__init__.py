"""The frame buffer: chunks of a ring, passed by offset, checked by checksum.

One `FrameBufferServer` owns the memory; every `FrameBufferClient` reads and writes it.
Offsets, sizes and checksums, or tickets, travel by any RPC.
"""

from ataraxis.errors import FrameBufferTimeout
from ataraxis.framebuffer.client import FrameBufferClient
from ataraxis.framebuffer.ring import FrameBufferStatistics
from ataraxis.framebuffer.server import FrameBufferServer
from ataraxis.framebuffer.ticket import Ticket

__all__ = [
    "FrameBufferClient",
    "FrameBufferServer",
    "FrameBufferStatistics",
    "FrameBufferTimeout",
    "Ticket",
]
