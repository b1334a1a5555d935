"""`Labels`: dtype, shape, dims, coords and attrs of one array, as small JSON."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.errors import LayoutError
from ataraxis.labels._coordinates import (
    COORDS_BYTES,
    Coordinate,
    coordinate,
    coordinate_from_json,
    coordinate_to_json,
    position_of,
    position_without_labels,
)
from ataraxis.labels._dtypes import (
    MAX_NDIM,
    dtype_from_json,
    dtype_to_json,
    dump,
    is_size,
    load,
    plain,
    tagged,
    text,
    untagged,
)

if TYPE_CHECKING:
    import xarray as xr

# ---- checks of dtype, shape and dims

MAX_BYTES = 2**62


def checked_dtype(given: Any) -> np.dtype[Any]:
    """Return a dtype that `dtype_to_json` can describe, or refuse it."""
    dtype: np.dtype[Any] = np.dtype(given)
    if dtype.subdtype is not None:
        raise ValueError(
            f"dtype {dtype} is itself an array of shape {dtype.shape}: append that to"
            f" shape and give dtype={dtype.base}."
        )
    dtype_to_json(dtype)
    return dtype


def checked_shape(given: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return extents that an array can have, or refuse them."""
    shape = tuple(operator.index(extent) for extent in given)
    if len(shape) > MAX_NDIM:
        raise ValueError(
            f"shape {shape} has {len(shape)} dimensions and at most {MAX_NDIM} are"
            " kept: reshape the array."
        )
    if any(extent < 0 for extent in shape):
        raise ValueError(f"shape {shape} has a negative extent.")
    if math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) >= MAX_BYTES:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} is too large.")
    return shape


def checked_dims(
    given: Sequence[str] | None, shape: tuple[int, ...]
) -> tuple[str, ...]:
    """Return one unique name per extent, or refuse them."""
    if given is None:
        return tuple(f"dim_{i}" for i in range(len(shape)))
    if isinstance(given, str):
        given = (given,)
    dims = tuple(text(dim, "a name in dims") for dim in given)
    if len(dims) != len(shape):
        raise ValueError(
            f"dims {dims} are {len(dims)} names, but shape {shape} has {len(shape)}"
            " dimensions: give one name for each."
        )
    if len(set(dims)) != len(dims):
        raise ValueError(f"dims {dims} has a duplicate name: make them unique.")
    return dims


# ---- the labels

LABELS_LIMIT = 2**20
_REQUIRED = {"dtype", "shape", "dims"}
_OPTIONAL = {"coords", "attrs", "name"}


@dataclass(frozen=True, eq=False, init=False)
class Labels:
    """The dtype, shape, dimension names, coordinates and attributes of an array.

    Immutable; copies everything given. Two are equal if their canonical JSON is.

    Parameters
    ----------
    dtype : dtype-like
        Any dtype without Python objects.
    shape : sequence of int
        At most 8 extents, each 0 or more.
    dims : sequence of str, optional
        One unique name per extent; by default ``dim_0, dim_1, ...``, as in xarray.
    coords : mapping, optional
        Name of a dimension to its 1-d labels, or any name to ``(dims, values)`` or
        ``(dims, values, attrs)``. A tuple of 2 or 3 always has this meaning.
    attrs : mapping, optional
        JSON-able attributes: str, int, float, bool, None, lists and dicts of these.
    name : str, optional
        The array's own name, as in xarray.

    Raises
    ------
    ValueError, TypeError
        An argument does not fit: the message names it and what to do.

    Examples
    --------
    >>> labels = Labels("f8", (4, 3), ("mouse", "axis"), {"axis": list("xyz")})
    >>> labels.position("axis", "y")
    1
    >>> Labels.from_json(labels.to_json()) == labels
    True
    """

    dtype: np.dtype[Any]
    """dtype of one item, without Python objects."""
    shape: tuple[int, ...]
    """Extents, at most 8."""
    dims: tuple[str, ...]
    """One name per extent."""
    coords: Mapping[str, Coordinate]
    """Name to `Coordinate` (dims, values, attrs)."""
    attrs: dict[str, Any]
    """JSON-able attributes; do not change them in place."""
    name: str | None
    """The array's own name, if it has one."""

    def __init__(
        self,
        dtype: Any,
        shape: Sequence[int],
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        kept_dtype = checked_dtype(dtype)
        kept_shape = checked_shape(shape, kept_dtype)
        kept_dims = checked_dims(dims, kept_shape)
        extents = dict(zip(kept_dims, kept_shape, strict=True))
        kept_coords = {
            text(key, "a name in coords"): coordinate(key, value, extents)
            for key, value in (coords or {}).items()
        }
        size = sum(coord.values.nbytes for coord in kept_coords.values())
        if size > COORDS_BYTES:
            raise ValueError(
                f"coords have {size} bytes together and at most {COORDS_BYTES} are"
                " kept: share large coordinates as arrays of their own."
            )
        keep = object.__setattr__
        keep(self, "dtype", kept_dtype)
        keep(self, "shape", kept_shape)
        keep(self, "dims", kept_dims)
        keep(self, "coords", kept_coords)
        keep(self, "attrs", plain(dict(attrs or {}), "attrs"))
        keep(self, "name", None if name is None else text(name, "name"))

    def __eq__(self, other: object) -> bool:
        """Compare canonical JSON: NaN equals NaN, attributes have no order."""
        if not isinstance(other, Labels):
            return NotImplemented
        return self is other or self._tree() == other._tree()

    def __hash__(self) -> int:
        """Hash dtype, shape and dims."""
        return hash((self.dtype.str, self.shape, self.dims))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as JSON: NumPy's pickles lose the byte order of times."""
        return _unpickled, (self._tree(),)

    @property
    def nbytes(self) -> int:
        """Bytes of an array of this dtype and shape."""
        return math.prod(self.shape) * self.dtype.itemsize

    def _tree(self) -> bytes:
        """Return the JSON, of any size."""
        tree: dict[str, Any] = {
            "dtype": dtype_to_json(self.dtype),
            "shape": list(self.shape),
            "dims": list(self.dims),
        }
        if self.coords:
            tree["coords"] = {
                name: coordinate_to_json(coord) for name, coord in self.coords.items()
            }
        if self.attrs:
            tree["attrs"] = tagged(self.attrs)
        if self.name is not None:
            tree["name"] = self.name
        return dump(tree)

    def to_json(self) -> bytes:
        """Return canonical JSON: sorted keys, UTF-8, no whitespace.

        Returns
        -------
        bytes
            Equal labels give equal bytes. Empty parts are omitted.

        Raises
        ------
        ValueError
            The JSON is longer than 1 MiB.

        Examples
        --------
        >>> Labels("u1", (2,)).to_json()
        b'{"dims":["dim_0"],"dtype":"|u1","shape":[2]}'
        """
        data = self._tree()
        if len(data) > LABELS_LIMIT:
            raise ValueError(
                f"the labels take {len(data)} bytes as JSON and at most {LABELS_LIMIT}"
                " are kept: share large coordinates as arrays of their own."
            )
        return data

    @classmethod
    def from_json(
        cls, data: bytes | bytearray | memoryview, *, limit: int = LABELS_LIMIT
    ) -> Labels:
        """Read labels from JSON, trusted or not.

        Parameters
        ----------
        data : bytes-like
            As `to_json` returns it.
        limit : int, optional
            Most bytes to read; by default 1 MiB.

        Raises
        ------
        LayoutError
            `data` is not valid. No other exception is raised.
        """
        if len(data) > limit:
            raise LayoutError(f"labels of {len(data)} bytes: at most {limit} are read.")
        try:
            return cls._from_tree(load(bytes(data)))
        except LayoutError:
            raise
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise LayoutError(f"the labels contradict themselves: {error}") from error

    @classmethod
    def _from_tree(cls, tree: Any) -> Labels:
        """Check the structure of the JSON; `__init__` checks its values."""
        if not isinstance(tree, dict) or not (
            tree.keys() >= _REQUIRED and tree.keys() <= _REQUIRED | _OPTIONAL
        ):
            raise LayoutError("labels are an object with dtype, shape and dims.")
        dims, shape, coords = tree["dims"], tree["shape"], tree.get("coords", {})
        if not (
            isinstance(shape, list)
            and len(shape) <= MAX_NDIM
            and all(is_size(extent) for extent in shape)
            and isinstance(dims, list)
            and len(dims) == len(shape)
            and all(isinstance(dim, str) for dim in dims)
            and isinstance(coords, dict)
            and isinstance(tree.get("attrs", {}), dict)
            and isinstance(tree.get("name", ""), str)
        ):
            raise LayoutError("shape, dims, coords, attrs or name is of a wrong type.")
        extents = dict(zip(dims, shape, strict=True))
        budget, built = COORDS_BYTES, {}
        for name, data in coords.items():
            built[name] = coordinate_from_json(name, data, extents, budget)
            budget -= built[name][1].nbytes
        attrs = untagged(tree.get("attrs", {}))
        if not isinstance(attrs, dict):
            raise LayoutError("attrs is not an object.")
        dtype = dtype_from_json(tree["dtype"])
        return cls(dtype, shape, dims, built, attrs, tree.get("name"))

    def position(self, dim: str, label: Any) -> int | slice | list[int]:
        """Return the positions of labels along a dimension.

        Parameters
        ----------
        dim : str
            A dimension. Without a coordinate, its labels are positions.
        label : scalar, list, or slice of labels
            Matched exactly. A slice includes both ends; along a sorted coordinate its
            ends need not exist. Times may be given as text.

        Returns
        -------
        int, list of int, or slice
            An index of that axis of the array. A list also for a label that occurs more
            than once.

        Raises
        ------
        KeyError
            No such dimension or label; the message names close ones.

        Examples
        --------
        >>> labels = Labels("f8", (3,), ("axis",), {"axis": list("xyz")})
        >>> labels.position("axis", slice("x", "y"))
        slice(0, 2, None)
        >>> labels.position("axis", ["z", "x"])
        [2, 0]
        """
        if dim not in self.dims:
            close = difflib.get_close_matches(str(dim), self.dims, 1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise KeyError(f"no dimension {dim!r} among {self.dims}{hint}")
        if dim not in self.coords:
            return position_without_labels(dim, self.shape[self.dims.index(dim)], label)
        return position_of(dim, self.coords[dim].values, label)

    def to_xarray(
        self, array: np.ndarray[Any, Any], name: str | None = None
    ) -> xr.DataArray:
        """Return an array with the labels, without copying it.

        Parameters
        ----------
        array : ndarray
            Of exactly this dtype and shape.
        name : str, optional
            Name of the result; by default that of the labels.

        Returns
        -------
        xarray.DataArray
            Its data are a view of `array`, read-only if that is.

        Raises
        ------
        ValueError
            `array` has another dtype or shape.

        Notes
        -----
        Built through a Dataset, because ``DataArray(a, coords=...)`` copies every
        coordinate (pydata/xarray#9910). xarray itself copies times of a unit other
        than s, ms, us and ns.

        Examples
        --------
        >>> values = np.zeros((4, 3))
        >>> labels = Labels("f8", (4, 3), ("mouse", "axis"), {"axis": list("xyz")})
        >>> np.shares_memory(labels.to_xarray(values, "pose").sel(axis="y"), values)
        True
        """
        import xarray as xr

        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"the labels are for {self.dtype} of shape {self.shape}, the array is"
                f" {array.dtype} of shape {array.shape}: make labels for this array."
            )
        key = "__ataraxis__"
        data = xr.Dataset(
            {key: (self.dims, array, dict(self.attrs))}, coords=dict(self.coords)
        )[key]
        data.name = self.name if name is None else name
        return data

    @classmethod
    def from_xarray(cls, data_array: xr.DataArray) -> Labels:
        """Return the labels of a DataArray, with its name.

        Parameters
        ----------
        data_array : xarray.DataArray
            Its dims must be str, its coordinates bool, numbers, text or times.

        Raises
        ------
        TypeError, ValueError
            A part cannot be kept: the message names it and what to do.

        Examples
        --------
        >>> import xarray as xr
        >>> Labels.from_xarray(xr.DataArray([1.5], {"t": [0]}, name="v")).name
        'v'
        """
        coords: dict[Any, Any] = {
            name: Coordinate(coord.dims, coord.values, coord.attrs)
            for name, coord in data_array.coords.items()
        }
        return cls(
            data_array.dtype,
            data_array.shape,
            data_array.dims,  # type: ignore[arg-type]
            coords,
            data_array.attrs,
            data_array.name,  # type: ignore[arg-type]
        )


def _unpickled(data: bytes) -> Labels:
    """Read labels of a pickle, of any size."""
    return Labels.from_json(data, limit=len(data))
