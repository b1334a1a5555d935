"""Bundle: what one message to a page carries; ``ax-view`` 1, little-endian.

A bundle is a head and parts; each part is a head and a payload, padded to 8 bytes, so
that a page views its numbers in the message without a copy. `static/bundle.js` is the
other side; `tests/golden/view` holds examples that both decode.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC, VERSION = b"AXV1", 1
STATE, COLUMNS, PICTURE, BINS = 1, 2, 3, 4
LOST = 1
"""Flag of columns: an empty one was lost; else no sample was due."""
FRESH = 2
"""Flag of columns: the first ones since the page has asked; earlier ones are void."""
HISTORY = 4
"""Flag of columns: those that the page has asked for, of the past."""
RAW, JPEG = 0, 1
"""Encodings of a picture."""
DTYPES = ("", "i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
"""Dtypes of columns, by their codes."""

HEAD = struct.Struct("<4sHHqQ")
PART = struct.Struct("<BBHI")
_COLUMNS = struct.Struct("<qqdIHBB")
_PICTURE = struct.Struct("<qQHHBBHffHH4x")
_BINS = struct.Struct("<ddII")


@dataclass(frozen=True)
class Part:
    """One part of a bundle."""

    kind: int
    """`STATE`, `COLUMNS`, `PICTURE` or `BINS`."""
    panel: int
    """Number of the page's panel; 0 for the state."""
    payload: Sequence[bytes | memoryview]
    """In pieces."""
    flags: int = 0


def encode(parts: Sequence[Part], now_ns: int, tick: int) -> bytes:
    """Return a bundle.

    Examples
    --------
    >>> data = encode([state({"verdict": "live"})], 5, 1)
    >>> len(data) % 8, decode(data)[0]
    (0, {'now_ns': 5, 'tick': 1})
    """
    pieces: list[bytes | memoryview] = [
        HEAD.pack(MAGIC, VERSION, len(parts), now_ns, tick)
    ]
    for part in parts:
        size = sum(memoryview(piece).nbytes for piece in part.payload)
        pieces.append(PART.pack(part.kind, part.flags, part.panel, size))
        pieces += [*part.payload, bytes(-size % 8)]
    return b"".join(pieces)


def state(words: dict[str, Any]) -> Part:
    """Return what the page shows as text."""
    text = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
    return Part(STATE, 0, [text.encode("utf-8", "replace")])


def columns(
    panel: int,
    first: int,
    low: NDArray[Any],
    high: NDArray[Any],
    time_ns: int,
    ns_a_column: float,
    *,
    are_lost: bool = True,
    is_fresh: bool = False,
    is_past: bool = False,
) -> Part:
    """Return columns, each of shape (columns, channels); `time_ns` is of `first`."""
    code = DTYPES.index(low.dtype.str[1:])
    head = _COLUMNS.pack(first, time_ns, ns_a_column, len(low), low.shape[1], code, 0)
    flags = LOST * are_lost | FRESH * is_fresh | HISTORY * is_past
    return Part(COLUMNS, panel, [head, _bytes(low), _bytes(high)], flags)


def picture(
    panel: int,
    sequence: int,
    time_ns: int,
    shape: tuple[int, int, int],
    encoding: int,
    data: bytes | memoryview,
    bounds: tuple[float, float],
    whole: tuple[int, int],
) -> Part:
    """Return a picture of `shape` (y, x, channels).

    `bounds` are the values shown as black and white; `whole` is the size (y, x) of the
    frame, of which every n-th pixel may be sent.
    """
    high, wide, channels = shape
    head = _PICTURE.pack(
        sequence, time_ns, wide, high, encoding, channels, 0, *bounds,
        whole[1], whole[0],
    )  # fmt: skip
    return Part(PICTURE, panel, [head, data])


def bins(panel: int, first: float, step: float, counts: NDArray[np.uint32]) -> Part:
    """Return counts in bins of equal width `step` from `first` on."""
    head = _BINS.pack(first, step, len(counts), 0)
    return Part(BINS, panel, [head, _bytes(counts.astype("<u4"))])


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


# ---- reading, as the page does


def decode(data: bytes) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return the head and the parts of a bundle, as `static/bundle.js` does.

    Raises
    ------
    ValueError
        It is not a bundle of this version.
    """
    if len(data) < HEAD.size:
        raise ValueError(f"{len(data)} bytes are not a bundle")
    magic, version, count, now_ns, tick = HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"not a bundle of version {VERSION}: {data[:8]!r}")
    at, parts = HEAD.size, []
    for _ in range(count):
        kind, flags, panel, size = PART.unpack_from(data, at)
        at += PART.size
        payload = data[at : at + size]
        if len(payload) < size:
            raise ValueError(f"a part of {size} bytes is cut off")
        found = {"kind": kind, "flags": flags, "panel": panel}
        parts.append(found | _DECODERS[kind](payload))
        at += size + -size % 8
    return {"now_ns": now_ns, "tick": tick}, parts


def _read_state(data: bytes) -> dict[str, Any]:
    return {"state": json.loads(data)}


def _read_columns(data: bytes) -> dict[str, Any]:
    first, time_ns, ns, count, channels, code, _ = _COLUMNS.unpack_from(data)
    values = np.frombuffer(data, f"<{DTYPES[code]}", 2 * count * channels, 32)
    low, high = values.reshape(2, count, channels)
    names = ("first", "time_ns", "ns_a_column", "low", "high")
    return dict(zip(names, (first, time_ns, ns, low, high), strict=True))


def _read_picture(data: bytes) -> dict[str, Any]:
    found = _PICTURE.unpack_from(data)
    names = (
        "sequence", "time_ns", "width", "height", "encoding", "channels", "_", "low",
        "high", "whole_width", "whole_height",
    )  # fmt: skip
    return {**dict(zip(names, found, strict=True)), "data": data[_PICTURE.size :]}


def _read_bins(data: bytes) -> dict[str, Any]:
    first, step, count, _ = _BINS.unpack_from(data)
    counts = np.frombuffer(data, "<u4", count, _BINS.size)
    return {"first": first, "step": step, "counts": counts}


_DECODERS = {
    STATE: _read_state, COLUMNS: _read_columns, PICTURE: _read_picture, BINS: _read_bins
}  # fmt: skip
