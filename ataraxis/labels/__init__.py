"""Labels: what an array means, in xarray's own words, as small JSON.

The dtype, shape, dims, coords and attrs of an array live here, with their way to JSON
and back, to xarray and back, and from a label to a position. Arrays do not. Which
values a dtype takes is said here, too, by one rule for every room: `fit`.

Limits, all of them checked in both directions: JSON of 1 MiB, 8 dimensions,
2**62 bytes of array, 64 MiB of coordinates, dtypes of 4096 fields and 8 levels,
attributes of 32 levels.
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
