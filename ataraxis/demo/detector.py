"""The online spike detector of the demo: a step of a pipe, in two workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 6.0
_DEVIATION = 0.6745  # median absolute deviation of a normal distribution of std 1


def spikes(block: NDArray[np.generic]) -> int:
    """Count the upward crossings of a threshold, over all channels.

    Parameters
    ----------
    block : ndarray of numbers
        Shape (samples,) or (samples, channels).

    Returns
    -------
    int
        Crossings of 6 standard deviations, estimated by the median absolute deviation
        of the block.

    Examples
    --------
    >>> block = np.tile([[1], [-1]], (50, 4))
    >>> block[20, 1] = block[40, 3] = 100
    >>> spikes(block)
    2
    """
    x: NDArray[Any] = np.asarray(block, np.float32).reshape(len(block), -1)
    x = x - np.median(x, axis=0)
    level = LEVEL * np.median(np.abs(x), axis=0) / _DEVIATION
    is_high = x > np.maximum(level, 1e-6)
    return int(np.count_nonzero(is_high[1:] & ~is_high[:-1]) + is_high[:1].sum())
