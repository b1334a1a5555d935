"""dtypes as JSON and back, exactly: byte order, offsets, padding and sub-arrays.

Without object dtypes, eval or pickle: text is matched against a grammar before NumPy
parses it, and NumPy's dtype must have the same text.

A simple dtype is its ``dtype.str`` (``"<f8"``, ``"<M8[ns]"``); a structured one is
``{"fields": [[name, dtype, offset], ...], "itemsize": n}`` with ``"aligned": true``
when it is; a sub-array is ``{"base": dtype, "shape": [...]}``.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from ataraxis.errors import LayoutError

MAX_NDIM = 8
MAX_FIELDS = 4096
MAX_DEPTH = 8
MAX_ITEMSIZE = 2**31 - 1

_SIMPLE = re.compile(
    r"[<>|](?:[biufcSUV][0-9]{1,10}"
    r"|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)",
    re.ASCII,
)
_KINDS = frozenset("biufcmMSUV")


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as a JSON tree.

    Parameters
    ----------
    dtype : numpy.dtype
        Any dtype without Python objects or field titles, structured ones at most 8
        deep and of at most 4096 fields.

    Returns
    -------
    str or dict
        `dtype_from_json` returns an equal dtype for it.

    Raises
    ------
    TypeError
        The dtype holds Python objects, variable-width strings or field titles.
    ValueError
        The dtype has too many fields, is too deep or too large.

    Examples
    --------
    >>> dtype_to_json(np.dtype(">f8"))
    '>f8'
    >>> dtype_to_json(np.dtype([("t", "<u8"), ("xyz", "<f4", 3)]))["itemsize"]
    20
    """
    return _describe(dtype, 0, [0])


def _describe(dtype: np.dtype[Any], depth: int, seen: list[int]) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(
            f"the dtype nests deeper than {MAX_DEPTH} levels: flatten its fields."
        )
    if dtype.itemsize > MAX_ITEMSIZE:
        raise ValueError(
            f"an item of dtype {str(dtype)[:80]} has {dtype.itemsize} bytes and at most"
            f" {MAX_ITEMSIZE} fit: make the large part a dimension of the array."
        )
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        if len(shape) > MAX_NDIM:
            raise ValueError(
                f"a field has {len(shape)} dimensions and at most {MAX_NDIM} are kept."
            )
        return {"base": _describe(base, depth + 1, seen), "shape": list(shape)}
    if dtype.names is not None:
        return _describe_fields(dtype, depth, seen)
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise TypeError(
            f"dtype {dtype} stores its values outside the array, so they cannot be"
            " shared: convert it first, e.g. array.astype('U') for text or"
            " array.astype('f8') for numbers."
        )
    return dtype.str


def _describe_fields(dtype: np.dtype[Any], depth: int, seen: list[int]) -> Any:
    fields = []
    names = dtype.names or ()
    table: Any = dtype.fields or {}
    seen[0] += len(names)
    if seen[0] > MAX_FIELDS:
        raise ValueError(f"the dtype has more than {MAX_FIELDS} fields.")
    for name in names:
        if len(table[name]) > 2 or not name:
            raise TypeError(
                f"field {name!r} of the dtype has a title or an empty name, which are"
                " not kept: rebuild the dtype with plain names."
            )
        name.encode()
        field, offset = table[name]
        fields.append([name, _describe(field, depth + 1, seen), offset])
    described: dict[str, Any] = {"fields": fields, "itemsize": dtype.itemsize}
    if dtype.isalignedstruct:
        described["aligned"] = True
    return described


def dtype_from_json(data: Any) -> np.dtype[Any]:
    """Return the dtype of a tree of `dtype_to_json`.

    Parameters
    ----------
    data : str or dict
        Parsed JSON, trusted or not.

    Returns
    -------
    numpy.dtype
        Without Python objects.

    Raises
    ------
    LayoutError
        `dtype_to_json` does not make such a tree.

    Examples
    --------
    >>> dtype_from_json("<i4")
    dtype('int32')
    >>> dtype_from_json("|O")
    Traceback (most recent call last):
    ataraxis.errors.LayoutError: dtype '|O' is not of the kinds b i u f c m M S U V.
    """
    return _build(data, 0, [0])


def _build(data: Any, depth: int, seen: list[int]) -> np.dtype[Any]:
    if depth > MAX_DEPTH:
        raise LayoutError(f"the dtype nests deeper than {MAX_DEPTH} levels.")
    if isinstance(data, str):
        return _build_simple(data)
    if isinstance(data, dict) and data.keys() == {"base", "shape"}:
        return _build_subarray(data, depth, seen)
    if isinstance(data, dict) and data.keys() - {"aligned"} == {"fields", "itemsize"}:
        return _build_fields(data, depth, seen)
    raise LayoutError(f"a dtype is text, fields or a sub-array, not {repr(data)[:80]}.")


def _build_simple(text: str) -> np.dtype[Any]:
    if not _SIMPLE.fullmatch(text):
        raise LayoutError(
            f"dtype {text[:80]!r} is not of the kinds b i u f c m M S U V."
        )
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, OverflowError) as error:
        raise LayoutError(f"dtype {text!r} is not one of NumPy's: {error}.") from error
    if dtype.str != text or not 0 <= dtype.itemsize <= MAX_ITEMSIZE:
        raise LayoutError(
            f"dtype {text!r} must be written {dtype.str!r}, as NumPy does."
        )
    return dtype


def _build_subarray(data: dict[str, Any], depth: int, seen: list[int]) -> np.dtype[Any]:
    base = _build(data["base"], depth + 1, seen)
    shape = data["shape"]
    if not (
        isinstance(shape, list)
        and 1 <= len(shape) <= MAX_NDIM
        and all(is_size(extent) for extent in shape)
        and math.prod(max(n, 1) for n in shape) * max(base.itemsize, 1) <= MAX_ITEMSIZE
    ):
        raise LayoutError(f"a sub-array cannot have shape {repr(shape)[:80]}.")
    try:
        return np.dtype((base, tuple(shape)))
    except (TypeError, ValueError, OverflowError) as error:
        raise LayoutError(f"NumPy refuses a sub-array: {error}.") from error


def _build_fields(data: dict[str, Any], depth: int, seen: list[int]) -> np.dtype[Any]:
    fields, itemsize, aligned = data["fields"], data["itemsize"], data.get("aligned")
    if not (
        isinstance(fields, list)
        and is_size(itemsize)
        and itemsize <= MAX_ITEMSIZE
        and (aligned is True or "aligned" not in data)
    ):
        raise LayoutError("a structured dtype needs a list of fields and an itemsize.")
    seen[0] += len(fields)
    if seen[0] > MAX_FIELDS:
        raise LayoutError(f"the dtype has more than {MAX_FIELDS} fields.")
    names, formats, offsets = [], [], []
    for field in fields:
        if not (
            isinstance(field, list)
            and len(field) == 3
            and isinstance(field[0], str)
            and field[0]
            and is_size(field[2])
        ):
            raise LayoutError(
                f"a field is [name, dtype, offset], not {repr(field)[:80]}."
            )
        dtype = _build(field[1], depth + 1, seen)
        if field[2] + dtype.itemsize > itemsize:
            raise LayoutError(
                f"field {field[0][:80]!r} ends at byte {field[2] + dtype.itemsize} of"
                f" an item of {itemsize} bytes."
            )
        names.append(field[0])
        formats.append(dtype)
        offsets.append(field[2])
    spec = {
        "names": names,
        "formats": formats,
        "offsets": offsets,
        "itemsize": itemsize,
    }
    try:
        built: np.dtype[Any] = np.dtype(spec, align=bool(aligned))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError) as error:
        raise LayoutError(f"NumPy refuses the fields: {error}.") from error
    if built.names != tuple(names) or built.itemsize != itemsize:
        raise LayoutError("NumPy would lay these fields out differently.")
    return built


def is_size(value: Any) -> bool:
    """Return whether parsed JSON is an integer of 0 or more (and not a bool)."""
    return type(value) is int and value >= 0


# ---- strict JSON for labels: exact when written, bounded when read

ATTRS_DEPTH = 32
MAX_INT_BITS = 4096
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return a copy of a JSON-able value, with NumPy values as Python's; or refuse."""
    if depth > ATTRS_DEPTH:
        raise ValueError(f"{where} nests deeper than {ATTRS_DEPTH} levels: flatten it.")
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, where)
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise ValueError(
                f"{where} is an integer of {value.bit_length()} bits and at most"
                f" {MAX_INT_BITS} are kept: store it as text."
            )
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            text(key, f"a key of {where}"): plain(item, f"{where}[{key!r}]", depth + 1)
            for key, item in value.items()
        }
    raise TypeError(
        f"{where} is of type {type(value).__name__}; labels keep str, int, float, bool,"
        " None, lists and dicts of these: convert it, e.g. with str()."
    )


def text(value: Any, where: str) -> str:
    """Return a str that UTF-8 can hold, or refuse."""
    if not isinstance(value, str):
        raise TypeError(
            f"{where} is {value!r} of type {type(value).__name__}: give it as a str."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} is {str(value)!r}, which UTF-8 cannot hold: {error.reason}."
        ) from error
    return str(value)


def tagged(value: Any) -> Any:
    """Return a plain tree as standard JSON; NaN is ``{"$f": "nan"}``."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$f": repr(value)}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, dict):
        return {
            ("$" + key if key.startswith("$") else key): tagged(item)
            for key, item in value.items()
        }
    return value


def untagged(value: Any, depth: int = 0) -> Any:
    """Undo `tagged` on an untrusted tree."""
    if depth > ATTRS_DEPTH:
        raise LayoutError(f"attributes nest deeper than {ATTRS_DEPTH} levels.")
    if isinstance(value, float) and not math.isfinite(value):
        raise LayoutError("a number is too large for a float.")
    if isinstance(value, list):
        return [untagged(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$f"}:
        if not isinstance(value["$f"], str) or value["$f"] not in _NON_FINITE:
            raise LayoutError(f"{repr(value)[:80]} is not a tagged float.")
        return _NON_FINITE[value["$f"]]
    result = {}
    for key, item in value.items():
        if key.startswith("$") and not key.startswith("$$"):
            raise LayoutError(f"{key[:80]!r} is not a tag of labels.")
        result[key[1:] if key.startswith("$") else key] = untagged(item, depth + 1)
    return result


def dump(tree: Any) -> bytes:
    """Return standard JSON in canonical form."""
    return json.dumps(
        tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def load(data: bytes) -> Any:
    """Parse untrusted JSON; raises only `LayoutError`."""
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except LayoutError:
        raise
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"not JSON that ataraxis writes: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LayoutError(f"the key {twice[:80]!r} is given twice.")
    return result


def _refuse(constant: str) -> Any:
    raise LayoutError(f"{constant} is not standard JSON.")
