"""Strategies for hypothesis: dtypes, arrays, labels and values that ataraxis carries.

The modules of the package are contracts: tests that every implementation of a protocol
must pass. For ataraxis and its plug-ins; hypothesis is imported at use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.labels import Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from hypothesis.strategies import SearchStrategy

    from ataraxis.datamux.source import Source

_NUMBERS = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_UNITS = ("Y", "M", "D", "h", "m", "s", "ms", "us", "ns", "ps")


def dtypes(*, structured: bool = True) -> SearchStrategy[np.dtype[Any]]:
    """Draw dtypes that ataraxis carries, in either byte order.

    Parameters
    ----------
    structured : bool, optional
        Include records: nested, aligned, with sub-arrays and gaps.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(dtypes(structured=False), lambda dtype: dtype.kind == "f").kind
    'f'
    """
    from hypothesis import strategies as st

    order = st.sampled_from("<>")
    simple = st.one_of(
        st.sampled_from(["?", "i1", "u1"]),
        st.builds(
            "{}{}".format,
            order,
            st.sampled_from(_NUMBERS),
        ),
        st.builds(
            "{}{}8[{}]".format, order, st.sampled_from("mM"), st.sampled_from(_UNITS)
        ),
        st.builds("{}U{}".format, order, st.integers(1, 4)),
        st.builds("{}{}".format, st.sampled_from("SV"), st.integers(1, 5)),
    ).map(np.dtype)
    if not structured:
        return simple
    return st.recursive(simple, _records, max_leaves=4).map(_without_shape)


def _without_shape(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the item dtype of a sub-array, which only a field can be."""
    while dtype.subdtype is not None:
        dtype = dtype.subdtype[0]
    return dtype


def _records(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Draw records and sub-arrays of the dtypes drawn by `inner`."""
    from hypothesis import strategies as st

    names = st.text("abµ", min_size=1, max_size=3)
    fields = st.dictionaries(names, inner, min_size=1, max_size=3)

    def packed(fields: dict[str, Any], align: bool) -> np.dtype[Any]:
        return np.dtype(list(fields.items()), align=align)

    def gaps(fields: dict[str, Any], gap: int) -> np.dtype[Any]:
        offsets, at = [], gap
        for field in fields.values():
            offsets.append(at)
            at += field.itemsize + gap
        layout: Any = {
            "names": list(fields),
            "formats": list(fields.values()),
            "offsets": offsets,
            "itemsize": at,
        }
        dtype: np.dtype[Any] = np.dtype(layout)
        return dtype

    shapes = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)
    return st.one_of(
        st.builds(packed, fields, st.booleans()),
        st.builds(gaps, fields, st.integers(0, 5)),
        st.builds(lambda base, shape: np.dtype((base, shape)), inner, shapes),
    )


def shapes(max_ndim: int = 8, max_size: int = 64) -> SearchStrategy[tuple[int, ...]]:
    """Draw shapes of 0 to `max_ndim` extents, empty ones included.

    Parameters
    ----------
    max_ndim : int, optional
        Most dimensions.
    max_size : int, optional
        Most items.
    """
    from hypothesis import strategies as st

    extents = st.lists(st.integers(0, 4), max_size=max_ndim).map(tuple)
    return extents.filter(lambda shape: int(np.prod(shape)) <= max_size)


def arrays(
    dtype: SearchStrategy[np.dtype[Any]] | None = None,
    shape: SearchStrategy[tuple[int, ...]] | None = None,
) -> SearchStrategy[np.ndarray[Any, Any]]:
    """Draw arrays: C, Fortran, strided and reversed.

    Parameters
    ----------
    dtype, shape : SearchStrategy, optional
        By default `dtypes()` and `shapes()`.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(arrays(), lambda array: array.ndim == 1).ndim
    1
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_array(draw: Any) -> np.ndarray[Any, Any]:
        of = draw(dtypes() if dtype is None else dtype)
        extents = draw(shapes() if shape is None else shape)
        count = int(np.prod(extents)) * of.itemsize
        data = draw(st.binary(min_size=min(count, 64), max_size=min(count, 64)))
        array = _filled(of, extents, (data * (count // max(len(data), 1) + 1))[:count])
        form = draw(st.sampled_from(["C", "F", "reversed", "every second"]))
        if form == "F":
            return np.asfortranarray(array)
        if form == "reversed":
            return array[::-1] if array.ndim else array
        if form == "every second" and array.ndim:
            return np.repeat(array, 2, axis=0)[::2]
        return array

    return draw_array()


def _filled(
    dtype: np.dtype[Any], shape: tuple[int, ...], data: bytes
) -> np.ndarray[Any, Any]:
    """Return an array of these bytes, with valid text and bools."""
    array = np.zeros(shape, dtype)
    if array.size and dtype.itemsize:
        array.reshape(-1).view("u1")[:] = np.frombuffer(data, "u1")
    _make_valid(array)
    return array


def _make_valid(array: np.ndarray[Any, Any]) -> None:
    """Replace invalid text and bools in place."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _make_valid(array[name])
    elif array.dtype.kind == "b":
        array[...] = array.view("u1") % 2 == 1
    elif array.dtype.kind == "U":
        array[...] = "aµ😀"[: array.dtype.itemsize // 4]


def labels(shape: tuple[int, ...] | None = None) -> SearchStrategy[Labels]:
    """Draw labels with coordinates and attributes.

    Parameters
    ----------
    shape : tuple of int, optional
        Of the array; by default any.
    """
    from hypothesis import strategies as st

    texts = st.text("abc$µ\n", max_size=4)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
    attrs = st.dictionaries(
        texts,
        st.recursive(
            scalars,
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=3,
    )
    kept = dtypes(structured=False).filter(lambda dtype: dtype.kind in "biufcmMU")

    @st.composite
    def draw_labels(draw: Any) -> Labels:
        extents = draw(shapes(4)) if shape is None else shape
        names = st.text("xyztµ", min_size=1, max_size=4)
        size = len(extents)
        dims = draw(st.lists(names, min_size=size, max_size=size, unique=True))
        coords: dict[str, Any] = {}
        for i, dim in enumerate(dims):
            if draw(st.booleans()):
                coords[dim] = draw(arrays(kept, st.just((extents[i],))))
            if draw(st.booleans()):
                along = draw(arrays(kept, st.just((extents[i],))))
                coords[f"of {dim}"] = (dim, along, draw(attrs))
        name = draw(st.none() | texts)
        return Labels(draw(dtypes()), extents, dims, coords, draw(attrs), name)

    return draw_labels()


def values() -> SearchStrategy[Any]:
    """Draw values that frames carry: Python's and NumPy's, nested."""
    from hypothesis import strategies as st

    huge = st.integers(-(2**600), 2**600)
    text = st.text(st.characters(exclude_categories=()), max_size=8)
    keys: SearchStrategy[Hashable] = st.recursive(
        st.none()
        | st.booleans()
        | huge
        | st.floats(allow_nan=False)
        | st.complex_numbers(allow_nan=False)
        | text
        | st.binary(max_size=8),
        lambda inner: st.lists(inner, max_size=3).map(tuple),
        max_leaves=3,
    )
    leaves = st.one_of(
        keys, st.floats(), st.complex_numbers(), arrays(), numpy_scalars()
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=10,
    )


def numpy_scalars() -> SearchStrategy[Any]:
    """Draw NumPy scalars of every kind except raw bytes and text."""
    from hypothesis import strategies as st

    kept = dtypes(structured=False).filter(
        lambda dtype: dtype.kind in "biufcmM" and dtype.isnative
    )
    return arrays(kept, st.just(())).map(lambda array: array[()])


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal in type and every bit.

    Parameters
    ----------
    one, other : object
        Values of `values()`.

    Returns
    -------
    bool
        True also for NaN of the same bits, and for arrays of the same dtype, shape and
        items; memory order and the gaps of records are ignored.

    Examples
    --------
    >>> equal([1, np.arange(2)], [1, np.arange(2)]), equal(True, 1), equal(0.0, -0.0)
    (True, False, False)
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        names: Any = one.dtype.names
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if names is not None:
            of: Any = one
            return all(equal(of[name], other[name]) for name in names)
        return bool(one.tobytes() == other.tobytes())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return equal(list(one), list(other)) and all(
            equal(one[key], other[key]) for key in one
        )
    if isinstance(one, (float, complex)):
        return np.array(one).tobytes() == np.array(other).tobytes()
    return bool(one == other)


def check_source(
    make: Callable[[], Source], *, samples: int = 4, timeout: float = 10.0
) -> None:
    """Raise `AssertionError` if a source violates the protocol `Source`.

    Parameters
    ----------
    make : callable
        Returns a source that is not open, and whose device exists and keeps giving
        samples. Called once.
    samples : int, optional
        How many to read, each time.
    timeout : float, optional
        Longest wait for them, s.
    """
    from ataraxis.datamux import contract

    contract.check_source(make, samples=samples, timeout=timeout)
