"""Pictures as a page gets them: small enough for its panel, as JPEG if possible."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.viewer.bundle import JPEG, RAW, Part, picture

_QUALITY = 80
_MOST_PIXELS = 2_000_000
_SAMPLED = 40_000
_PERCENTILES = (0.5, 99.5)


def part_of(
    panel: int, newest: tuple[int, int, NDArray[Any]], width: int, *, is_raw: bool
) -> Part:
    """Return the newest frame as a part of a bundle.

    Parameters
    ----------
    panel : int
        Number of the panel.
    newest : tuple
        Sequence, time and pixels, shape (y, x) or (y, x, channels).
    width : int
        Width of the panel, pixels: of a larger frame every n-th pixel is sent.
    is_raw : bool
        Send it as it is, not as JPEG.
    """
    sequence, time_ns, pixels = newest
    whole = pixels.shape[0], pixels.shape[1]
    step = max(1, -(-whole[1] // max(width, 64)))
    while (whole[0] // step) * (whole[1] // step) > _MOST_PIXELS:
        step += 1
    pixels = pixels[::step, ::step]
    small, bounds = as_bytes(pixels if pixels.ndim == 3 else pixels[..., None])
    encode = None if is_raw else jpeg_encoder()
    encoding, data = RAW, small.tobytes()
    if encode is not None:
        encoding, data = JPEG, encode(small)
    shape = (small.shape[0], small.shape[1], small.shape[2])
    return picture(panel, sequence, time_ns, shape, encoding, data, bounds, whole)


def as_bytes(
    pixels: NDArray[Any],
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return pixels as uint8, and the values of black and white.

    Other dtypes than uint8 are stretched between two percentiles of the frame.

    Examples
    --------
    >>> as_bytes(np.array([[[0], [100]]], "u2"))[0].ravel().tolist()
    [0, 255]
    """
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels), (0.0, 255.0)
    values = pixels.astype("f4")
    few = values.reshape(-1)
    few = few[:: max(1, len(few) // _SAMPLED)]
    few = few[np.isfinite(few)]
    low, high = (float(v) for v in np.percentile(few, _PERCENTILES)) if len(few) else (
        0.0, 1.0,
    )  # fmt: skip
    scaled = (np.nan_to_num(values, nan=low) - low) * (255 / ((high - low) or 1.0))
    return np.clip(scaled, 0, 255).astype(np.uint8), (low, high)


@functools.lru_cache(1)
def jpeg_encoder() -> Callable[[NDArray[np.uint8]], bytes] | None:
    """Return a function that makes a JPEG; None without simplejpeg."""
    try:
        from simplejpeg import encode_jpeg
    except ImportError:
        return None

    def encode(pixels: NDArray[np.uint8]) -> bytes:
        is_grey = pixels.shape[2] == 1
        space, sampling = ("GRAY", "Gray") if is_grey else ("RGB", "420")
        found: bytes = encode_jpeg(pixels, _QUALITY, space, sampling, fastdct=True)
        return found

    return encode
