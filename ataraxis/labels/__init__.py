"""Labels: the dtype, shape, dims, coords and attrs of an array, as small JSON.

They convert to JSON and back, to xarray and back, and from a label to a position.
`fit` is the one rule of which values a dtype takes.

Limits, checked when writing and reading: JSON of 1 MiB, 8 dimensions, 2**62 bytes of
array, 64 MiB of coordinates, dtypes of 4096 fields and 8 levels, attributes of 32
levels.
"""

from ataraxis.labels._alignment import align, is_data_array, labels_at
from ataraxis.labels._casting import fit, unmasked, whole
from ataraxis.labels._coordinates import Coordinate
from ataraxis.labels._dtypes import MAX_NDIM, dtype_from_json, dtype_to_json
from ataraxis.labels._labels import LABELS_LIMIT, Labels

__all__ = [
    "LABELS_LIMIT",
    "MAX_NDIM",
    "Coordinate",
    "Labels",
    "align",
    "dtype_from_json",
    "dtype_to_json",
    "fit",
    "is_data_array",
    "labels_at",
    "unmasked",
    "whole",
]
