"""numpy in YAML: scalars, dtypes, and arrays as nested lists.

An array whose dtype is in its annotation is a plain nested list; any other is a mapping
of ``dtype``, ``shape`` and ``data``, which preserves empty arrays and all dtypes.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, get_args

import numpy as np

from ataraxis.config import scalars
from ataraxis.config.node import Mapping, Scalar, Sequence, YamlNode, resolved
from ataraxis.config.schema import container_of, type_name

# ---- scalars and elements of arrays

# Written with the shortest digits of their own precision: float32 0.1 is ``0.1``.

_REAL = r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|\.inf|\.nan)"
# Refused: numpy has no zones, and would only warn when it shifts such a time.
_ZONED = re.compile(r":.*(?:[Zz]|[-+]\d\d:?\d\d)$")
_COMPLEX = re.compile(rf"({_REAL})([-+]{_REAL.removeprefix('[-+]?')})j", re.ASCII)


class ElementError(Exception):
    """An element does not fit; carries the node for its line."""

    def __init__(
        self, node: YamlNode | None = None, expected: str = "", hint: str = ""
    ) -> None:
        super().__init__(hint)
        self.node, self.expected, self.hint = node, expected, hint


def write_element(value: Any) -> Scalar | None:
    """Write one element; ``None`` for a kind that is not kept."""
    kind = value.dtype.kind
    if kind == "b":
        return Scalar(text=str(bool(value)).lower(), kind="bool")
    if kind in "iu":
        return Scalar(text=scalars.format_int(int(value)), kind="int")
    if kind == "f":
        return Scalar(text=_digits(value), kind="float")
    if kind == "c":
        imaginary = _digits(value.imag)
        sign = "" if imaginary.startswith("-") else "+"
        return Scalar(text=f"{_digits(value.real)}{sign}{imaginary}j")
    if kind == "U":
        return Scalar(text=str(value))
    if kind == "S":
        return Scalar(text=bytes(value).decode("latin-1"))
    if kind in "mM":
        unit, count = np.datetime_data(value.dtype)
        unit = unit if count == 1 else f"{count}{unit}"
        if kind == "M":
            number = str(np.datetime_as_string(value))
        else:
            number = "NaT" if np.isnat(value) else str(value.astype("i8"))
        return Scalar(text=f"{number} {unit}")
    return None


def _digits(value: Any) -> str:
    if np.isnan(value):
        return ".nan"
    if np.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return scalars.dotted(str(value))


def read_element(node: YamlNode, dtype: np.dtype[Any], exact: bool) -> Any:
    """Read one element; `ElementError` for a number that the dtype cannot hold."""
    node = resolved(node)
    if not isinstance(node, Scalar):
        raise ElementError(node, dtype.name)
    text, kind = node.text, node.kind
    if dtype.kind == "b" and kind == "bool":
        return np.bool_(scalars.parse_bool(text))
    if dtype.kind in "iu" and kind == "int":
        value = scalars.parse_int(text)
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            hint = f"{dtype.name} holds {limits.min} to {limits.max}"
            raise ElementError(node, dtype.name, hint)
        return dtype.type(value)
    if dtype.kind == "f" and kind in (("float",) if exact else ("int", "float")):
        return _read_float(node, text, dtype)
    if dtype.kind == "c" and (match := _COMPLEX.fullmatch(text)) is not None:
        parts = (part.removeprefix("+") for part in match.groups())
        pair = np.array([_read_float(node, part, _part_of(dtype)) for part in parts])
        return pair.view(dtype.newbyteorder("="))[0]
    if dtype.kind in "US" and kind in ("str", "timestamp", "merge"):
        return _read_text(node, dtype)
    if dtype.kind in "mM" and kind == "str":
        return _read_time(node, dtype)
    raise ElementError(node, dtype.name)


def _part_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the real part of a complex one."""
    return np.zeros((), dtype.newbyteorder("=")).real.dtype


def _read_float(node: YamlNode, text: str, dtype: np.dtype[Any]) -> Any:
    if scalars.kind_of(text) not in ("int", "float"):
        raise ElementError(node, dtype.name)
    digits = text.lower().replace("_", "")
    if digits.endswith((".inf", ".nan")):
        digits = digits.replace(".", "")
    elif scalars.kind_of(text) == "int":
        digits = str(scalars.parse_int(text))
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # longdouble ignores errstate
        value = dtype.type(digits)
    if np.isinf(value) and "inf" not in digits:
        raise ElementError(node, dtype.name, f"{dtype.name} cannot hold it")
    return value


def _read_text(node: Scalar, dtype: np.dtype[Any]) -> Any:
    raw: Any = node.text
    if dtype.kind == "S":
        try:
            raw = node.text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ElementError(node, dtype.name, "bytes 0 to 255 only") from error
    width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    if width and len(raw) > width:
        raise ElementError(node, dtype.name, f"at most {width} characters")
    return dtype.type(raw)


def _read_time(node: Scalar, dtype: np.dtype[Any]) -> Any:
    """Read ``2026-11-20T19:11 us`` or ``250 ms``, always with the unit."""
    text, _, unit = node.text.rpartition(" ")
    example = "2026-11-20T19:11:42 ms" if dtype.kind == "M" else "250 ms"
    if not text or _ZONED.search(text):
        hint = f"write it with its unit and without a zone, as '{example}'"
        raise ElementError(node, dtype.name, hint)
    fixed = np.datetime_data(dtype)[0] != "generic"
    try:
        amount: Any = text
        if dtype.kind == "m" and text != "NaT":
            amount = int(text)
        maker: Any = np.datetime64 if dtype.kind == "M" else np.timedelta64
        value = maker(amount, *(() if unit == "generic" else (unit,)))
    except (ValueError, TypeError, OverflowError, Warning) as error:
        raise ElementError(node, dtype.name, f"write it as '{example}'") from error
    if fixed and value.dtype != dtype.newbyteorder("="):
        raise ElementError(node, dtype.name, "another unit than the dtype's")
    return value


# ---- arrays

_KEYS = ("dtype", "shape", "data")
_MOST_DIMENSIONS = 32


def write_numpy(value: Any, annotation: Any) -> YamlNode:
    """Write a numpy scalar, dtype or array; `ElementError` if it is not kept."""
    origin = container_of(annotation)[0]
    node: YamlNode | None = None
    if issubclass(origin, np.dtype):
        node = _write_dtype(value) if isinstance(value, np.dtype) else None
    elif issubclass(origin, np.ndarray):
        if type(value) is np.ndarray:
            node = _write_array(value, _annotated_dtype(annotation))
    elif type(value) is origin and origin is not np.void:
        node = write_element(value)
    if node is None:
        hint = "arrays of objects are not kept" if _holds_objects(value) else ""
        raise ElementError(expected=type_name(annotation), hint=hint)
    return node


def _holds_objects(value: Any) -> bool:
    dtype = value if isinstance(value, np.dtype) else getattr(value, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.hasobject


def _annotated_dtype(annotation: Any) -> np.dtype[Any] | None:
    """Return the dtype of ``NDArray[np.float32]``; ``None`` if it is not concrete."""
    arguments = container_of(annotation)[1]
    inner = get_args(arguments[-1]) if arguments else ()
    scalar = inner[0] if inner else None
    if not isinstance(scalar, type) or not issubclass(scalar, np.generic):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # abstract types: np.floating, np.generic
            dtype = np.dtype(scalar)
    except (TypeError, DeprecationWarning):
        return None
    concrete = dtype.type is scalar and dtype.itemsize and dtype.kind in "biufc"
    return dtype if concrete else None


def _write_dtype(dtype: np.dtype[Any]) -> YamlNode | None:
    """Write a dtype by name, a record as the list of its fields."""
    if dtype.hasobject:
        return None
    if dtype.names is None and dtype.subdtype is None:
        text = dtype.name if dtype.isnative and dtype.kind in "biufc" else dtype.str
        return Scalar(text=text) if np.dtype(text) == dtype else None
    if dtype.names is None:
        return None
    rows: list[YamlNode] = []
    for name in dtype.names:
        member = _field_dtype(dtype, name)
        inner, shape = member.subdtype or (member, ())
        written = _write_dtype(inner)
        if written is None:
            return None
        row = Sequence(items=[Scalar(text=name), written], flow=True)
        if shape:
            row.items.append(_shape_node(shape))
        rows.append(row)
    node = Sequence(items=rows)
    # A dtype with padding or titles, which are not in the list, is not kept.
    return node if _dtype_of(node) == dtype else None


def _shape_node(shape: tuple[int, ...]) -> Sequence:
    return Sequence(items=[Scalar(text=str(n), kind="int") for n in shape], flow=True)


def _write_array(value: Any, annotated: np.dtype[Any] | None) -> YamlNode | None:
    dtype_node = _write_dtype(value.dtype)
    data = _write_nested(value) if dtype_node is not None else None
    if dtype_node is None or data is None:
        return None
    if annotated == value.dtype and value.dtype.isnative and value.ndim and value.size:
        return data
    shape = _shape_node(value.shape)
    keys = [Scalar(text=key) for key in _KEYS]
    return Mapping(pairs=list(zip(keys, [dtype_node, shape, data], strict=True)))


def _write_nested(value: Any) -> YamlNode | None:
    """Write an array as nested lists, a record as the list of its fields."""
    if isinstance(value, np.ndarray) and value.ndim:
        rows = [_write_nested(row) for row in value]
    elif value.dtype.names is not None:
        rows = [_write_nested(value[name]) for name in value.dtype.names]
    else:
        return write_element(value[()] if isinstance(value, np.ndarray) else value)
    items = [row for row in rows if row is not None]
    return Sequence(items=items, flow=True) if len(items) == len(rows) else None


def read_numpy(node: YamlNode, annotation: Any, exact: bool) -> Any:
    """Read a numpy scalar, dtype or array; `ElementError` if the node is not one."""
    origin = container_of(annotation)[0]
    try:
        if issubclass(origin, np.dtype):
            return _dtype_of(node)
        if not issubclass(origin, np.ndarray):
            return read_element(node, np.dtype(origin), exact)
        return _read_array(node, _annotated_dtype(annotation))
    except ElementError as refused:
        expected = refused.expected or type_name(annotation)
        raise ElementError(refused.node or node, expected, refused.hint) from refused
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        hint = str(error) or type(error).__name__
        raise ElementError(node, type_name(annotation), hint) from error


def _dtype_of(node: YamlNode) -> np.dtype[Any]:
    """Read a dtype by name or as the list of its fields, without objects."""
    node = resolved(node)
    dtype: np.dtype[Any]
    if isinstance(node, Scalar) and node.kind == "str" and "," not in node.text:
        try:
            dtype = np.dtype(node.text)
        except (TypeError, ValueError, SyntaxError, Warning) as error:
            raise ElementError(node, "the name of a dtype, as float32") from error
    elif isinstance(node, Sequence):
        dtype = np.dtype([_dtype_row(resolved(row)) for row in node.items])
    else:
        raise ElementError(node, "a dtype")
    if dtype.hasobject:
        raise ElementError(node, "a dtype without objects")
    return dtype


def _dtype_row(row: YamlNode) -> Any:
    if not isinstance(row, Sequence) or len(row.items) not in (2, 3):
        raise ElementError(row, "a field as [name, dtype] or [name, dtype, shape]")
    name = resolved(row.items[0])
    if not isinstance(name, Scalar) or name.kind != "str":
        raise ElementError(name, "the name of a field")
    parts: list[Any] = [name.text, _dtype_of(row.items[1])]
    return (*parts, *(_read_shape(item) for item in row.items[2:]))


def _read_shape(node: YamlNode) -> tuple[int, ...]:
    node = resolved(node)
    sizes = node.items if isinstance(node, Sequence) else []
    if not isinstance(node, Sequence) or len(sizes) > _MOST_DIMENSIONS:
        raise ElementError(node, "a shape, as [4, 3]")
    return tuple(int(read_element(size, np.dtype(np.uint32), True)) for size in sizes)


def _read_array(node: YamlNode, annotated: np.dtype[Any] | None) -> Any:
    shape = None
    data = resolved(node)
    dtype = annotated
    if isinstance(data, Mapping):
        keys = [(resolved(key), value) for key, value in data.pairs]
        parts = {key.text: value for key, value in keys if isinstance(key, Scalar)}
        if sorted(parts) != sorted(_KEYS) or len(data.pairs) != len(_KEYS):
            raise ElementError(data, "the keys dtype, shape and data")
        dtype, shape = _dtype_of(parts["dtype"]), _read_shape(parts["shape"])
        data = resolved(parts["data"])
    elif not isinstance(data, Sequence):
        raise ElementError(data)
    if dtype is None:
        dtype = _inferred(data)
    if shape is None:
        shape = _shape_of(data)
    values = _read_nested(data, shape, dtype)
    array = np.empty(shape, dtype)
    if array.size:
        array[...] = np.array(values, dtype).reshape(shape)
    return array


def _shape_of(node: YamlNode) -> tuple[int, ...]:
    """Return the shape of nested lists, by their first items."""
    shape = []
    node = resolved(node)
    while isinstance(node, Sequence):
        shape.append(len(node.items))
        if not node.items:
            break
        node = resolved(node.items[0])
    return tuple(shape)


def _inferred(node: YamlNode) -> np.dtype[Any]:
    """Return the dtype of a bare list: bool, int64 or float64."""
    kinds, stack = set(), [node]
    while stack:
        item = resolved(stack.pop())
        if isinstance(item, Sequence):
            stack.extend(item.items)
        elif isinstance(item, Scalar):
            kinds.add(item.kind)
    if kinds == {"bool"}:
        return np.dtype(np.bool_)
    if kinds == {"int"}:
        return np.dtype(np.int64)
    if kinds and kinds <= {"int", "float"}:
        return np.dtype(np.float64)
    raise ElementError(node, "", "give dtype, shape and data")


def _read_nested(node: YamlNode, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    node = resolved(node)
    if shape:
        if not isinstance(node, Sequence) or len(node.items) != shape[0]:
            raise ElementError(node, f"a list of {shape[0]}")
        return [_read_nested(item, shape[1:], dtype) for item in node.items]
    if dtype.subdtype is not None:
        return _read_nested(node, dtype.shape, dtype.subdtype[0])
    if dtype.names is None:
        return read_element(node, dtype, False)
    if not isinstance(node, Sequence) or len(node.items) != len(dtype.names):
        raise ElementError(node, f"a record of {len(dtype.names)} fields")
    kinds = [_field_dtype(dtype, name) for name in dtype.names]
    pairs = zip(node.items, kinds, strict=True)
    return tuple(_read_nested(item, (), kind) for item, kind in pairs)


def _field_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    assert dtype.fields is not None
    return dtype.fields[name][0]
