"""The codec ``frame``, our own: a block is its columns, each as one frame.

Column k of a block is a frame with labels id k + 1, which the stream's labels message
says the meaning of; its source is the stream, its sequence that of the message. The
first, of the times, has a device stamp: time of the first sample, ns, and its number.
Frames begin at multiples of 8 bytes. Any other message is one frame of JSON, source 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ataraxis.datamux.remote.codec import Arrays, Message, checked
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage, CorruptFrame
from ataraxis.frame import DType, Frame, Header
from ataraxis.labels import Labels

_DEEP = 2**62


class FrameCodec:
    """Blocks as frames: no work a sample, one copy on its way out, none on its way in.

    Examples
    --------
    >>> codec = FrameCodec()
    >>> codec.decode(codec.encode({"op": "bye"}))
    {'op': 'bye'}
    """

    name = "frame"

    def encode(self, message: Message) -> bytes:
        """Write a message as one frame of JSON."""
        return Frame.from_value(message, DType.JSON, time_ns=0).to_bytes()

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> bytearray:
        """Write a block, a frame a column; see `Codec.encode_block`."""
        t = arrays[0]
        start_s = float(t[0]) if len(t) else 0.0
        begin = round(start_s * 1e9) if abs(start_s) < _DEEP * 1e-9 else 0
        frames = [
            Frame.from_value(
                array,
                source=stream,
                sequence=sequence,
                time_ns=begin,
                device_time=None if k else begin,
                device_sequence=None if k else first,
                labels_id=k + 1,
            )
            for k, array in enumerate(arrays)
        ]
        data = bytearray(sum(_padded(frame.nbytes) for frame in frames))
        at = 0
        for frame in frames:
            at += _padded(frame.encode_into(data, at))
        return data

    def decode(self, data: bytes) -> Message:
        """Read a message; the frames of a block are left for `arrays`."""
        try:
            header = Header.read(data)
            if header.source:
                return {
                    "op": "block",
                    "stream": header.source,
                    "sequence": header.sequence,
                    "data": data,
                }
            frame = Frame.from_buffer(data)
            if frame.dtype != DType.JSON or frame.nbytes != len(data):
                raise BadMessage(f"a {frame.dtype.name} frame: expected one of JSON")
            return checked(frame.value)
        except (CorruptFrame, RecursionError) as error:
            raise BadMessage(f"no frame: {error}") from error

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Read the columns of a block; views of the message."""
        data, at, first = message["data"], 0, 0
        found: list[NDArray[Any]] = []
        rows = -1
        for k, column in enumerate(columns):
            try:
                header = Header.read(data, at)
                rows = header.shape[0] if rows < 0 and header.shape else rows
                shape = (max(rows, 0), *column.shape)
                labels = Labels(column.dtype, shape)
                frame = Frame.from_buffer(data, at, labels=labels)
                array = frame.array
            except (CorruptFrame, TypeError, ValueError) as error:
                raise BadMessage(f"column {k} of a block: {error}") from error
            if (
                (frame.source, frame.sequence)
                != (message["stream"], message["sequence"])
                or frame.labels_id != k + 1
                or array.shape != shape
                or array.dtype != column.dtype
            ):
                raise BadMessage(
                    f"column {k} of a block is {array.dtype} {array.shape}: expected "
                    f"{column.dtype} {shape}"
                )
            first = frame.device_sequence or 0 if k == 0 else first
            found.append(array)
            at += _padded(frame.nbytes)
        if at != len(data):
            raise BadMessage(f"{len(data) - at} bytes follow the columns of a block")
        return first, found


def _padded(nbytes: int) -> int:
    return -(-nbytes // 8) * 8
