"""The codec ``json``: text for browsers; exact, also NaN and large integers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.remote.codec import Arrays, Fragments, Message, checked, whole
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage

_AT_ONCE = 512  # numbers: about 0.6 ms
_PLAIN = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class JsonCodec:
    """Columns as flat lists of numbers; numbers that are not finite as text.

    Examples
    --------
    >>> codec = JsonCodec()
    >>> bytes(codec.encode_block(1, 7, 70, [np.array([0.5, np.nan])]))
    b'{"op":"block","stream":1,"sequence":7,"first":70,"columns":[[0.5,"nan"]]}'
    """

    name = "json"

    def encode(self, message: Message) -> bytes:
        """Encode a message."""
        return _PLAIN.encode(message).encode()

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Fragments:
        """Encode a block; see `Codec.encode_block`."""
        head = f'{{"op":"block","stream":{stream},"sequence":{sequence},"first":{first}'
        columns = ",".join(map(_text, arrays))
        return Fragments([f'{head},"columns":[{columns}]}}'.encode()])

    def decode(self, data: bytes | memoryview) -> Message:
        """Decode a message."""
        try:
            return checked(json.loads(bytes(data)))  # not from a memoryview
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadMessage):
                raise
            raise BadMessage(f"not JSON: {str(error)[:200]}") from error

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Decode the columns of a block."""
        lists = message.get("columns")
        if not isinstance(lists, list) or len(lists) != len(columns):
            raise BadMessage(f"block: expected {len(columns)} columns")
        found: list[NDArray[Any]] = []
        rows = len(lists[0]) if isinstance(lists[0], list) else 0
        for listed, column in zip(lists, columns, strict=True):
            try:
                found.append(_array(listed, column.dtype).reshape(rows, *column.shape))
            except (TypeError, ValueError, OverflowError) as error:
                raise BadMessage(
                    f"block: column {column.name!r} is not {rows} rows of "
                    f"{column.dtype}: {str(error)[:100]}"
                ) from error
        return whole(message, "first"), found


def _text(array: NDArray[Any]) -> str:
    """Encode a column in pieces, as other threads cannot run within one."""
    items = _listed(array)
    pieces = (
        _PLAIN.encode(items[at : at + _AT_ONCE])[1:-1]
        for at in range(0, len(items), _AT_ONCE)
    )
    return f"[{','.join(pieces)}]"


def _listed(array: NDArray[Any]) -> list[Any]:
    kind = array.dtype.kind
    flat = array.reshape(-1)
    if kind == "c":
        flat = flat.view(flat.real.dtype)
    elif kind in "mM":
        flat = flat.view("i8")
    items: list[Any] = flat.tolist()
    if kind == "S":
        return [item.decode("latin-1") for item in items]
    if kind in "fc" and not np.isfinite(flat).all():
        return [item if item - item == 0 else str(item) for item in items]
    return items


def _array(listed: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(listed, list):
        raise TypeError("not a list")
    kind = dtype.kind
    if kind == "S":
        return np.array([item.encode("latin-1") for item in map(str, listed)], dtype)
    if kind == "U":
        return np.array([*map(str, listed)], dtype)
    if kind in "mM":
        return np.array(listed, "i8").reshape(-1).view(dtype)
    if kind == "c":
        part = np.empty(0, dtype).real.dtype
        return np.array(listed, part).reshape(-1).view(dtype)
    return np.array(listed, dtype).reshape(-1)
