"""What a producer's options ask for: the labels of a frame, and how many slots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import DTypeLike

from ataraxis.labels import Labels

# A ring that stays in the cache is several times as fast as one that does not.
DEFAULT_BYTES = 1 << 20
LEAST, MOST = 4, 1024


def frame_labels(
    buffer_size: int | None,
    shape: Sequence[int] | None,
    dtype: DTypeLike | None,
    dims: Sequence[str] | None,
    coords: Mapping[str, Any] | None,
    attrs: Mapping[str, Any] | None,
) -> tuple[Labels, int]:
    """Return the labels of a frame, and the payload bytes of a slot."""
    if shape is None:
        if dtype is not None or dims is not None or coords is not None:
            raise ValueError("dtype, dims and coords need shape=, of one frame")
        if buffer_size is None or not 0 <= buffer_size < 1 << 46:
            raise ValueError(
                f"buffer_size={buffer_size!r}: bytes of a frame, or shape="
            )
        return Labels("u1", (buffer_size,), attrs=attrs), buffer_size
    labels = Labels("f8" if dtype is None else dtype, shape, dims, coords, attrs)
    if len(labels.shape) > 4:
        raise ValueError(f"shape {labels.shape}: a stream's frame has 4 dims at most")
    return labels, max(labels.nbytes, buffer_size or 0)


def slot_count(
    capacity: int, count: int | None, seconds: float | None, labels: Labels
) -> int:
    """Return how many slots to make."""
    if seconds is not None:
        rate = labels.attrs.get("rate_hz")
        if count is not None or not rate or not seconds > 0:
            raise ValueError(
                f"buffer_seconds={seconds!r} goes instead of buffer_count and needs "
                "attrs={'rate_hz': ...}, frames a second"
            )
        return max(2, math.ceil(seconds * float(rate)) + 1)
    if count is None:
        return int(min(MOST, max(LEAST, DEFAULT_BYTES // (capacity + 192))))
    if not 0 < count < 1 << 31:
        raise ValueError(f"buffer_count={count}: at least 1")
    return int(count)
