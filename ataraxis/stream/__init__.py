"""Streams: one producer, many consumers, every one sees every frame.

``import ataraxis.stream as mx`` stands in for ``import momentumx as mx``.
"""

from __future__ import annotations

from ataraxis._kernels.consumer import Frame
from ataraxis.errors import (
    AlreadySent,
    DataOverflow,
    EndOfStream,
    ReleasedBuffer,
    StreamExists,
    StreamUnavailable,
)
from ataraxis.stream.consumer import Consumer, wait_for_stream
from ataraxis.stream.inspector import Inspector
from ataraxis.stream.lease import Lease
from ataraxis.stream.memq import MemQ
from ataraxis.stream.producer import Producer
from ataraxis.stream.samples import SampleBlock
from ataraxis.stream.statistics import (
    QueueStatistics,
    ReaderStatistics,
    StreamStatistics,
)
from ataraxis.stream.write_buffer import WriteBuffer

ReadBuffer = Frame

__all__ = [
    "AlreadySent",
    "Consumer",
    "DataOverflow",
    "EndOfStream",
    "Frame",
    "Inspector",
    "Lease",
    "MemQ",
    "Producer",
    "QueueStatistics",
    "ReadBuffer",
    "ReaderStatistics",
    "ReleasedBuffer",
    "SampleBlock",
    "StreamExists",
    "StreamStatistics",
    "StreamUnavailable",
    "WriteBuffer",
    "wait_for_stream",
]
