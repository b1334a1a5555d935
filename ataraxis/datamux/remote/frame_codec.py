"""The codec ``frame`` of ataraxis: a block is its columns, each as one frame.

Column k of a block is a frame with labels id k + 1, which the labels message of the
stream describes; its source is the stream, its sequence that of the message. The first
column, time, has a device stamp: time of the first sample, ns, and its number. Frames
begin at multiples of 8 bytes. Any other message is one frame of JSON, source 0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.remote.codec import (
    LENT_BYTES,
    Arrays,
    Fragments,
    Message,
    checked,
)
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage, CorruptFrame
from ataraxis.frame import HEADER_BYTES, MAGIC, DType, Frame, crc32
from ataraxis.labels import Labels

_DEEP = 2**62
_KEPT = 4096
_PEEK = struct.Struct("<16xQ24xI")  # sequence and source of a header
# Kind, sequence, extents and source, CRC, labels, CRC of the header.
_HEADER = struct.Struct("<16sQ8x20sIII")
_CRC_AT, _HEADER_CRC_AT = 52, 60
_SOUND = "iufc"  # any bytes are valid values of these
_ORDER = struct.Struct("<Qq")
_CRC = struct.Struct("<I")
_STAMP = struct.Struct("<qQ")


class FrameCodec:
    """Blocks as frames: constant work per block, one copy to send, none to receive."""

    name = "frame"

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], bytes] = {}
        self._seen: dict[tuple[int, int], ArrayCache] = {}

    def encode(self, message: Message) -> bytes:
        """Encode a message as one frame of JSON."""
        return Frame.from_value(message, DType.JSON, time_ns=0).to_bytes()

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Fragments:
        """Encode a block, one frame per column; see `Codec.encode_block`.

        Large columns are not copied: the message has pieces, which are views.
        """
        t = arrays[0]
        start_s = float(t[0]) if len(t) else 0.0
        begin = round(start_s * 1e9) if abs(start_s) < _DEEP * 1e-9 else 0
        pieces: list[bytearray | memoryview] = []
        small = bytearray()
        for k, array in enumerate(arrays):
            key = (k, stream, array.dtype.str, array.shape)
            head = bytearray(self._heads.get(key) or self._head(key, array))
            payload = _bytes_of(array)
            crc = 0
            if not k:
                _STAMP.pack_into(head, HEADER_BYTES, begin, first)
                crc = crc32(head[HEADER_BYTES:])
            _ORDER.pack_into(head, 16, sequence, begin)
            _CRC.pack_into(head, _CRC_AT, crc32(payload, crc))
            _CRC.pack_into(head, _HEADER_CRC_AT, crc32(head[:_HEADER_CRC_AT]))
            small += head
            if len(payload) < LENT_BYTES:
                small += payload
            else:
                pieces += (small, payload)
                small = bytearray()
            nbytes = len(head) + len(payload)
            small += bytes(_padded(nbytes) - nbytes)
        return Fragments([*pieces, small])

    def _head(self, key: tuple[Any, ...], array: NDArray[Any]) -> bytes:
        """Return the header of a column; number, time and CRC are filled in later."""
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

    def decode(self, data: bytes | memoryview) -> Message:
        """Decode a message; `arrays` decodes the frames of a block."""
        try:
            # Of a block only this: `arrays` checks all of it.
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
                raise BadMessage(f"expected a JSON frame, got {frame.dtype.name}")
            return checked(frame.value)
        except (CorruptFrame, RecursionError) as error:
            raise BadMessage(f"not a frame: {error}") from error

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Decode the columns of a block; views of the message."""
        data, at, first = memoryview(message["data"]), 0, 0
        stream, sequence = message["stream"], message["sequence"]
        found: list[NDArray[Any]] = []
        rows = -1
        for k, column in enumerate(columns):
            seen = self._seen.get((stream, k))
            array = None
            if seen is not None and seen.column is column and rows in (-1, seen.rows):
                array = seen.again(data, at, sequence)
            if seen is None or array is None:
                array, seen = self._read(data, at, k, column, stream, sequence, rows)
            if k == 0 and seen.stamp_at is not None:
                first = _STAMP.unpack_from(data, at + seen.stamp_at)[1]
            rows = seen.rows
            found.append(array)
            at += _padded(seen.nbytes)
        if at != len(data):
            raise BadMessage(f"{len(data) - at} bytes follow the columns of a block")
        return first, found

    def _read(
        self, data: memoryview, at: int, k: int, column: Column, stream: int,
        sequence: int, rows: int,
    ) -> tuple[NDArray[Any], ArrayCache]:  # fmt: skip
        """Decode a column, and keep its header for the next block."""
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
            (frame.source, frame.sequence, frame.labels_id) != (stream, sequence, k + 1)
            or array.shape != shape
            or array.dtype != column.dtype
        ):
            raise BadMessage(
                f"column {k} of a block is {array.dtype} {array.shape}: expected "
                f"{column.dtype} {shape}"
            )
        start = HEADER_BYTES + frame.extension_bytes
        is_stamped = frame.device_time is not None
        seen = ArrayCache(
            column, _constant(data, at), rows, start, frame.nbytes, array.shape,
            start - _STAMP.size if is_stamped and frame.origin is None else None,
        )  # fmt: skip
        if frame.checksum and array.size and array.dtype.kind in _SOUND:
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            self._seen[stream, k] = seen
        return array, seen


class ArrayCache(NamedTuple):
    """A checked header of a column, to which the next one is compared."""

    column: Column
    constant: tuple[bytes, bytes, int]
    rows: int
    start: int
    nbytes: int
    shape: tuple[int, ...]
    stamp_at: int | None

    def again(self, data: memoryview, at: int, sequence: int) -> NDArray[Any] | None:
        """Decode the next column if only number, time and values differ."""
        end = at + self.nbytes
        if end > len(data):
            return None
        kind, number, shape, crc, labels_id, head_crc = _HEADER.unpack_from(data, at)
        if (
            (kind, shape, labels_id) != self.constant
            or number != sequence
            or crc32(data[at : at + _HEADER_CRC_AT]) != head_crc
            or crc32(data[at + HEADER_BYTES : end]) != crc
        ):
            return None  # decoded as a `Frame` instead
        values = data[at + self.start : end]
        array: NDArray[Any] = np.frombuffer(values, self.column.dtype)
        return array.reshape(self.shape)


def _constant(data: memoryview, at: int) -> tuple[bytes, bytes, int]:
    kind, _, shape, _, labels_id, _ = _HEADER.unpack_from(data, at)
    return kind, shape, labels_id


def _padded(nbytes: int) -> int:
    return -(-nbytes // 8) * 8


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """View the bytes of a contiguous array."""
    flat: Any = array.reshape(-1)
    return memoryview(flat.view("u1")) if array.nbytes else memoryview(b"")
