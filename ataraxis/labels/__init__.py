"""Labels: the dtype, shape, dims, coords and attrs of an array, as small JSON.

They convert to JSON and back, to xarray and back, and from a label to a position.
`fit` is the one rule of which values a dtype takes; `sample_times` computes the times
of the samples of a block.

Limits, checked when writing and reading: JSON of 1 MiB, 8 dimensions, 2**62 bytes of
array, 64 MiB of coordinates, dtypes of 4096 fields and 8 levels, attributes of 32
levels.
"""

from ataraxis.labels._alignment import align, is_data_array, labels_at
from ataraxis.labels._casting import fit, unmasked, whole
from ataraxis.labels._coordinates import Coordinate
from ataraxis.labels._dtypes import MAX_NDIM, dtype_from_json, dtype_to_json
from ataraxis.labels._labels import LABELS_LIMIT, Labels
from ataraxis.labels._rates import (
    RATES,
    check_times,
    frame_rate,
    given_rate,
    is_blocks,
    sample_rate,
    sample_times,
    samples_per_frame,
    stamp_of,
)

__all__ = [
    "LABELS_LIMIT",
    "MAX_NDIM",
    "RATES",
    "Coordinate",
    "Labels",
    "align",
    "check_times",
    "dtype_from_json",
    "dtype_to_json",
    "fit",
    "frame_rate",
    "given_rate",
    "is_blocks",
    "is_data_array",
    "labels_at",
    "sample_rate",
    "sample_times",
    "samples_per_frame",
    "stamp_of",
    "unmasked",
    "whole",
]
