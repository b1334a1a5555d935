"""`fit`: the one rule of which values a dtype takes.

A value is stored unchanged or refused; only floats are rounded, to the precision of the
dtype. The rule compares values, not only types: ``[10, 11]`` fits uint64, ``-1`` and
``3.7`` do not.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray


def fit(
    value: Any,
    dtype: np.dtype[Any],
    casting: str | None,
    what: str,
    ways: str = "Convert it yourself",
) -> NDArray[Any]:
    """Return `value` as an array of `dtype`, or refuse.

    Parameters
    ----------
    value : array-like
        Any shape.
    dtype : dtype
        Of the array that is written.
    casting : str or None
        None: the rule above. Else numpy's rule of that name ("unsafe" allows all).
    what : str
        The name of the target, for errors.
    ways : str
        What to do instead, for errors.

    Returns
    -------
    ndarray
        Of exactly `dtype`; `value` itself if it is one already.

    Raises
    ------
    ValueError
        The values do not fit.
    TypeError
        It is a masked array, or holds one.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis.labels import fit
    >>> fit([1, 255], np.dtype("u1"), None, "stream 'x'")
    array([  1, 255], dtype=uint8)
    >>> fit([1, 256], np.dtype("u1"), None, "stream 'x'")
    Traceback (most recent call last):
    ValueError: stream 'x': [1, 256] (int64) does not fit uint8 as it is: values would \
change. Convert it yourself
    """
    given = _as_array(value, dtype, what)
    if given.dtype == dtype:
        return given
    if casting is not None:
        if not np.can_cast(given.dtype, dtype, casting):  # type: ignore[arg-type]
            why = f"casting={casting!r} does not allow it"
            raise _refusal(what, given, dtype, why, ways)
        with np.errstate(all="ignore"):
            return _real_if(dtype, given).astype(dtype)
    if dtype.names is not None or given.dtype.names is not None:
        is_alike = _have_same_fields(given.dtype, dtype)
        if not is_alike or not np.can_cast(given.dtype, dtype, "safe"):
            raise _refusal(what, given, dtype, "the fields differ", ways)
        return given.astype(dtype)
    if not _comparable(given.dtype.kind, dtype.kind):
        raise _refusal(what, given, dtype, "they are of different kinds", ways)
    if given.dtype.kind == "c" and dtype.kind != "c" and given.imag.any():
        raise _refusal(what, given, dtype, "they are complex", ways)
    with np.errstate(all="ignore"):
        given = _real_if(dtype, given)
        cast = given.astype(dtype)
    if not _same_values(given, cast):
        raise _refusal(what, given, dtype, "values would change", ways)
    return cast


def _have_same_fields(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether fields have the same names in order: numpy casts by position."""
    if given.names is None or wanted.names is None:
        return given.names is None and wanted.names is None
    return given.names == wanted.names and all(
        _have_same_fields(given[name].base, wanted[name].base) for name in given.names
    )


def unmasked(value: Any, what: str) -> NDArray[Any]:
    """Return a value as an array, itself if it is one; `what` is for errors.

    Raises
    ------
    TypeError
        It is a masked array, or a list or tuple that holds one.
    ValueError
        numpy would change it: text that ends in NULs, or values of mixed types.
    """
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise _masked(what)
        return np.asarray(value)
    _check(value, what)
    found = np.asarray(value)
    _check_mixed(value, found, what)
    return found


def _check_mixed(value: Any, found: NDArray[Any], what: str) -> None:
    """Refuse values that one dtype for all has changed: [2**63, -1], [1, "a"]."""
    if found.dtype.kind not in "fcSU" or not found.size or hasattr(value, "dtype"):
        return
    if found.dtype.kind in "SU":
        for item in np.asarray(value, object).flat:
            if not isinstance(item, str | bytes):
                raise ValueError(
                    f"{what}: {_shown(item)} is mixed with text and would become text: "
                    "give values of one kind"
                )
        return
    with np.errstate(all="ignore"):
        if not (np.abs(found) >= 2**53).any():
            return
    for item, real in zip(np.asarray(value, object).flat, found.flat, strict=True):
        if not isinstance(item, int | np.integer):
            continue
        if not np.isfinite(real) or int(real.real) != int(item):
            raise ValueError(
                f"{what}: {item} is mixed with values that make numpy choose "
                f"{found.dtype}, and would become {real}: give an array of a dtype "
                "that holds all of them"
            )


def _check(value: Any, what: str, depth: int = 0) -> None:
    """Refuse what numpy would silently drop: masks, and NULs at the end of text."""
    if isinstance(value, np.ma.MaskedArray):
        raise _masked(what)
    if isinstance(value, str | bytes):
        if value[-1:] in ("\0", b"\0"):
            raise ValueError(
                f"{what}: {_shown(value)} ends in NULs, which numpy drops: give it "
                "without them, or as bytes of a uint8 array"
            )
        return
    is_sequence = isinstance(value, Sequence) and not isinstance(value, range)
    if not is_sequence or depth > _DEPTH:
        return
    kinds = set(map(type, value))
    if not kinds <= _PLAIN:
        for item in value:
            _check(item, what, depth + 1)


_DEPTH = 64
_MOST = 2**63 - 1
_PLAIN = frozenset({int, float, complex, bool, type(None)})


def _masked(what: str) -> TypeError:
    return TypeError(
        f"{what}: a masked array is two arrays, its values and its mask, and the mask "
        "would be lost: give value.filled(...), or the values and ~mask separately"
    )


def whole(value: SupportsIndex, what: str) -> int:
    """Return an integer, also NumPy's, as int; `TypeError` for another value."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{what}={value!r} must be a whole number, got {type(value).__name__}"
        ) from None


def _as_array(value: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    if isinstance(value, np.ndarray | np.generic):
        return unmasked(value, what)
    if not isinstance(value, int | float):
        _check(value, what)
    try:
        if dtype.names is not None:
            return _as_records(value, dtype, what)
        if dtype.kind in "mM":
            return _as_times(value, dtype)
        given = np.asarray(value)
        if given.size == 0:
            return given.astype(dtype)
        if given.dtype == object:
            if not all(isinstance(item, int) for item in given.flat):
                raise TypeError("not a number or text")
            # Integers beyond 64 bits: numpy checks whether the dtype holds them.
            if dtype.kind not in "iufc":
                raise TypeError("not a number of 64 bits")
            items = given
            with np.errstate(all="ignore"):
                given = np.asarray(value, dtype)
            pairs = zip(items.flat, given.real.flat, strict=True)
            if dtype.kind in "fc" and not all(
                np.isfinite(real) and int(real) == item for item, real in pairs
            ):
                raise ValueError("values would change")
        _check_mixed(value, given, what)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{what}: {_shown(value)} cannot be stored as {dtype}: {error}"
        ) from error
    return given


def _as_records(value: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Return structured elements of tuples; each field must `fit`."""
    first = value
    while isinstance(first, list) and first:
        first = first[0]
    if hasattr(first, "dtype"):
        return np.asarray(value)
    names = dtype.names or ()
    loose = np.asarray(value, [(name, object) for name in names])
    records = np.empty(loose.shape, dtype)
    for name in names:
        field, where = dtype[name], f"{what}, {name!r}"
        if not field.shape:
            records[name] = fit(loose[name].tolist(), field, None, where)
            continue
        for place in np.ndindex(loose.shape):
            records[name][place] = fit(loose[name][place], field.base, None, where)
    return records


def _as_times(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return text and dates in their own unit, integers in the dtype's."""
    value = _plain_times(value)
    given = np.asarray(value)
    are_times = given.dtype.kind in "mM" and not hasattr(value, "dtype")
    if are_times and any(isinstance(i, int) for i in np.asarray(value, object).flat):
        raise TypeError("numbers mixed with times: give all of them a unit")
    if not given.size:
        return np.empty(given.shape, dtype)
    if given.dtype.kind in "bfc":
        raise TypeError("a time given as a number must be an integer, in the unit")
    if given.dtype.kind in "iu":
        least, most = int(given.min()), int(given.max())
        if max(-least, most) > _MOST:  # -2**63 is NaT
            raise TypeError("beyond the times of 64 bits")
    if given.dtype.kind in "iu" or _are_none(given):
        return np.asarray(value, dtype)
    try:
        return np.asarray(value, f"{dtype.kind}8")
    except ValueError:
        return np.asarray(value, dtype)


def _plain_times(value: Any) -> Any:
    """Convert pandas' times to numpy's: as those of `datetime` they lose their ns."""
    for name in ("to_datetime64", "to_timedelta64"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, list | tuple):
        return [_plain_times(item) for item in value]
    return value


def _are_none(given: NDArray[Any]) -> bool:
    """Return whether all are None or NaT, without a unit: numpy would warn."""
    if given.dtype.kind in "US":
        return bool(np.isin(np.char.lower(given.astype("U")), ("nat", "")).all())
    return given.dtype == object and all(item is None for item in given.flat)


def _real_if(dtype: np.dtype[Any], given: NDArray[Any]) -> NDArray[Any]:
    """Return the real part if the dtype holds nothing else: numpy would warn."""
    return given.real if given.dtype.kind == "c" and dtype.kind != "c" else given


def _comparable(given: str, wanted: str) -> bool:
    return given == wanted or (given in "biufc" and wanted in "biufc")


def _same_values(given: NDArray[Any], cast: NDArray[Any]) -> bool:
    before, after = given.dtype.kind, cast.dtype.kind
    if before in "iu" and after in "iu":
        limits = np.iinfo(cast.dtype)
        if given.size == 0:
            return True
        return bool(int(given.min()) >= limits.min and int(given.max()) <= limits.max)
    if before in "iu" and after in "fc":
        return _exact_as_floats(given, cast)
    if before in "mM":
        lost = np.isnat(given) != np.isnat(cast)
        back = cast.astype(given.dtype)
        return not bool(np.any(lost | ((back != given) & ~np.isnat(given))))
    if (before in "bf" and after in "fc") or before == after == "c":
        # Floats may be rounded, but must not become infinite.
        return bool(np.array_equal(np.isfinite(given), np.isfinite(cast)))
    with np.errstate(all="ignore"):
        back = cast.astype(given.dtype)
    if after in "iu" and not np.array_equal(given.real < 0, cast < 0):
        # 2**63 wraps and converts back to itself: compare signs.
        return False
    return bool(np.array_equal(back, given))


def _exact_as_floats(given: NDArray[Any], cast: NDArray[Any]) -> bool:
    """Return whether integers are exact as floats: small ones always are."""
    limit = 2 ** (np.finfo(cast.dtype).nmant + 1)
    large = (given > limit) | (given < -limit)
    pairs = zip(given[large], cast.real[large], strict=True)
    return all(np.isfinite(real) and int(real) == int(value) for value, real in pairs)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refusal(
    what: str, given: NDArray[Any], dtype: np.dtype[Any], why: str, ways: str
) -> ValueError:
    some = given.item() if given.size == 1 else given
    shown = _shown(some.tolist() if 1 < given.size <= 20 else some)
    return ValueError(
        f"{what}: {shown} ({given.dtype}) does not fit {dtype} as it is: {why}. {ways}"
    )
