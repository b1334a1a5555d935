"""The codec ``frame``, our own: a block is its columns, each as one frame.

Column k of a block is a frame with labels id k + 1, which the stream's labels message
says the meaning of; its source is the stream, its sequence that of the message. The
first, of the times, has a device stamp: time of the first sample, ns, and its number.
Frames begin at multiples of 8 bytes. Any other message is one frame of JSON, source 0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ataraxis.datamux.remote.codec import Arrays, Message, checked
from ataraxis.datamux.remote.data import COPIED_BYTES, Data
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage, CorruptFrame
from ataraxis.frame import HEADER_BYTES, MAGIC, DType, Frame, crc32, restamp
from ataraxis.labels import Labels

_DEEP = 2**62
_KEPT = 4096
_PEEK = struct.Struct("<16xQ24xI")  # sequence and source of a header
_ORDER = struct.Struct("<Qq")
_CRC = struct.Struct("<I")
_STAMP = struct.Struct("<qQ")


class FrameCodec:
    """Blocks as frames: no work a sample, one copy on its way out, none on its way in.

    Examples
    --------
    >>> codec = FrameCodec()
    >>> codec.decode(codec.encode({"op": "bye"}))
    {'op': 'bye'}
    """

    name = "frame"

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def encode(self, message: Message) -> bytes:
        """Write a message as one frame of JSON."""
        return Frame.from_value(message, DType.JSON, time_ns=0).to_bytes()

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Data:
        """Write a block, a frame a column; see `Codec.encode_block`.

        Large columns are not copied: the message is in pieces, and they are views.
        """
        t = arrays[0]
        start_s = float(t[0]) if len(t) else 0.0
        begin = round(start_s * 1e9) if abs(start_s) < _DEEP * 1e-9 else 0
        pieces: list[bytearray | memoryview] = [bytearray()]
        for k, array in enumerate(arrays):
            key = (k, stream, array.dtype.str, array.shape)
            head = bytearray(self._heads.get(key) or self._head(key, array))
            payload = _bytes_of(array)
            crc = 0
            if not k:
                _STAMP.pack_into(head, HEADER_BYTES, begin, first)
                crc = crc32(head[HEADER_BYTES:])
            _ORDER.pack_into(head, 16, sequence, begin)
            _CRC.pack_into(head, 52, crc32(payload, crc))
            restamp(head, labels_id=k + 1)
            _append(pieces, head, payload)
        return Data(pieces)

    def _head(self, key: tuple[Any, ...], array: NDArray[Any]) -> bytes:
        """Make the header of a column; all but number, time and CRC stays."""
        k, stream = key[:2]
        stamp = None if k else 0
        frame = Frame.from_value(
            array, source=stream, time_ns=0, labels_id=k + 1,
            device_time=stamp, device_sequence=stamp,
        )  # fmt: skip
        head = bytearray(HEADER_BYTES + frame.extension_bytes)
        frame.write(head)
        if len(self._heads) >= _KEPT:
            self._heads.clear()
        made = self._heads[key] = bytes(head)
        return made

    def decode(self, data: bytes) -> Message:
        """Read a message; the frames of a block are left for `arrays`."""
        try:
            # Of a block no more than this for now: `arrays` checks all of it.
            if len(data) >= HEADER_BYTES and data[:4] == MAGIC:
                sequence, source = _PEEK.unpack_from(data)
                if source:
                    return {
                        "op": "block",
                        "stream": source,
                        "sequence": sequence,
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
                frame = Frame.from_buffer(data, at)
                if frame.dtype == DType.ND_ARR:
                    labels = Labels(column.dtype, frame.shape)
                    frame = Frame.from_buffer(data, at, labels=labels)
                array = frame.array
            except (CorruptFrame, TypeError, ValueError) as error:
                raise BadMessage(f"column {k} of a block: {error}") from error
            rows = len(array) if rows < 0 and array.ndim else rows
            shape = (rows, *column.shape)
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


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """View the bytes of a contiguous array."""
    flat: Any = array.reshape(-1)
    return memoryview(flat.view("u1")) if array.nbytes else memoryview(b"")


def _append(
    pieces: list[bytearray | memoryview], head: bytearray, payload: memoryview
) -> None:
    """Add a frame and its padding: what is small to the last piece, else as a view."""
    _last(pieces).extend(head)
    if len(payload) < COPIED_BYTES:
        _last(pieces).extend(payload)
    else:
        pieces.append(payload)
    nbytes = len(head) + len(payload)
    _last(pieces).extend(bytes(_padded(nbytes) - nbytes))


def _last(pieces: list[bytearray | memoryview]) -> bytearray:
    last = pieces[-1]
    if isinstance(last, bytearray):
        return last
    made = bytearray()
    pieces.append(made)
    return made
