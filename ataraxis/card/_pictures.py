"""Pictures of a card: a sparkline as SVG, an image as PNG within the page."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.card._card import Markup, plain

_WIDE, _HIGH = 660, 36
_PIXELS = 200 * 150


def columns_of(values: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return minimum and maximum of each of at most `count` pieces of a 1-d array.

    Examples
    --------
    >>> columns_of(np.array([1, 5, 2, 9]), 2)
    (array([1, 2]), array([5, 9]))
    """
    starts = np.unique(np.linspace(0, len(values), count, endpoint=False).astype(int))
    if not len(values):
        return values, values
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def sparkline(values: NDArray[Any], caption: str = "") -> Markup | None:
    """Return a 1-d array as a line that holds each minimum and maximum; None: empty."""
    values = np.asarray(values)
    if values.dtype.kind == "b":
        values = values.astype("u1")
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        return None
    values = values[np.isfinite(values)].astype("f8")
    if not len(values):
        return None
    low, high = columns_of(values, _WIDE // 2)
    top, reach = float(high.max()), float(high.max() - low.min()) or 1.0
    step = _WIDE / max(len(low), 1)
    x = np.arange(len(low)) * step + step / 2
    y0 = (top - high) / reach * (_HIGH - 3) + 1
    y1 = np.maximum((top - low) / reach * (_HIGH - 3) + 1, y0 + 1.2)
    above = "".join(f"L{a:.0f} {b:.1f}" for a, b in zip(x, y0, strict=True))
    below = "".join(f"L{a:.0f} {b:.1f}" for a, b in zip(x[::-1], y1[::-1], strict=True))
    label = plain(caption or "newest values")
    return Markup(
        f'<svg width="{_WIDE}" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'role="img" aria-label="{label}"><path fill="currentColor" '
        f'fill-opacity="0.65" d="M{above[1:]}{below}z"/></svg>',
        caption,
    )


def image(pixels: NDArray[Any], caption: str = "") -> Markup | None:
    """Return an image as PNG, of every n-th pixel; None if it is not an image.

    Shape (y, x), or (y, x, 3) of uint8. Other numbers than uint8 are stretched between
    their smallest and their largest.
    """
    found = np.asarray(pixels)
    is_colour = found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
    is_grey = found.ndim == 2 and found.dtype.kind in "iufb"
    if not (is_colour or is_grey) or not found.size:
        return None
    most = _PIXELS // 3 if is_colour else _PIXELS
    step = max(1, int(np.ceil(np.sqrt(found.shape[0] * found.shape[1] / most))))
    small = found[::step, ::step]
    if small.dtype != np.uint8:
        small = small.astype("f8")
        small = np.where(np.isfinite(small), small, 0)
        reach = float(small.max() - small.min()) or 1.0
        small = (small - small.min()) * (255 / reach)
    data = base64.b64encode(png(small.astype("u1"))).decode()
    high, wide = small.shape[:2]
    scale = min(320 / wide, 240 / high)
    return Markup(
        f'<img src="data:image/png;base64,{data}" width="{round(wide * scale)}" '
        f'height="{round(high * scale)}" alt="{plain(caption or "newest image")}">',
        caption,
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 pixels, shape (y, x) or (y, x, 3), as a PNG file."""
    high, wide = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).reshape(high, -1)
    lines = np.zeros((high, flat.shape[1] + 1), np.uint8)  # before each: no filter
    lines[:, 1:] = flat

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    about = struct.pack(
        ">IIBBBBB", wide, high, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0
    )
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", about),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            chunk(b"IEND", b""),
        ]
    )
