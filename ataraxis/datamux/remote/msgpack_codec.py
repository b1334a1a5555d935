"""The codec ``msgpack``: small, and the columns of a block as their bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.remote.codec import Arrays, Fragments, Message, checked, whole
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage
from ataraxis.log.optional import need


class MsgpackCodec:
    """Columns as binary, little-endian, in C order."""

    name = "msgpack"

    def __init__(self) -> None:
        self._msgpack = need("msgpack", "remote", "the codec 'msgpack'")

    def encode(self, message: Message) -> bytes:
        """Encode a message."""
        data: bytes = self._msgpack.packb(message, use_bin_type=True)
        return data

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Fragments:
        """Encode a block; see `Codec.encode_block`."""
        message = {
            "op": "block",
            "stream": stream,
            "sequence": sequence,
            "first": first,
            "columns": [_bytes(array) for array in arrays],
        }
        return Fragments([self.encode(message)])

    def decode(self, data: bytes | memoryview) -> Message:
        """Decode a message."""
        try:
            return checked(
                self._msgpack.unpackb(
                    data, raw=False, strict_map_key=True, ext_hook=_refused
                )
            )
        except BadMessage:
            raise
        except Exception as error:  # msgpack raises many kinds
            raise BadMessage(f"not msgpack: {str(error)[:200]}") from error

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Decode the columns of a block; views of the message."""
        parts = message.get("columns")
        if not isinstance(parts, list) or len(parts) != len(columns):
            raise BadMessage(f"block: expected {len(columns)} columns")
        found: list[NDArray[Any]] = []
        rows = len(parts[0]) // 8 if isinstance(parts[0], bytes) else 0
        for part, column in zip(parts, columns, strict=True):
            size = column.dtype.itemsize * math.prod(column.shape) * rows
            if not isinstance(part, bytes) or len(part) != size:
                raise BadMessage(
                    f"block: column {column.name!r} is not {rows} rows of "
                    f"{column.dtype} {column.shape}"
                )
            shape = (rows, *column.shape)
            if size:
                found.append(np.frombuffer(part, column.dtype).reshape(shape))
            else:
                found.append(np.empty(shape, column.dtype))
        return whole(message, "first"), found


def _bytes(array: NDArray[Any]) -> Any:
    """View the bytes of a contiguous array."""
    if not array.nbytes:
        return b""
    flat: Any = array.reshape(-1).view("u1")
    return memoryview(flat)


def _refused(code: int, data: bytes) -> Any:
    raise BadMessage(f"msgpack extension {code}: not a plain value")
