"""Values to payloads and back; arrays are in `_arrays`, containers in `_tree`."""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np

from ataraxis.errors import CorruptFrame
from ataraxis.frame._arrays import (
    EncodedPayload,
    cast_array,
    decode_array,
    encode_array,
    view,
)
from ataraxis.frame._header import CUSTOM_END, CUSTOM_START, PLAIN, DType, corrupt
from ataraxis.frame._tree import (
    INLINE,
    MAX_DEPTH,
    TREES,
    decode_bool,
    decode_bytes,
    decode_tree,
    encode_tree,
    int_bytes,
)
from ataraxis.labels import fit, is_data_array

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CODE_OF_CLASS = {**INLINE, bytearray: DType.RAW, memoryview: DType.RAW}
_CLASSES: dict[int, tuple[type[Any], ...]] = {
    DType.RAW: (bytes, bytearray, memoryview),
    DType.STR: (str,),
    DType.ARRAY: (list,),
    DType.TUPLE: (tuple,),
    DType.NONE: (type(None),),
    DType.DICT: (dict,),
}


def encode(
    value: Any,
    code: DType | None = None,
    *,
    interned: bool = False,
    allow_pickle: bool = False,
) -> EncodedPayload:
    """Encode a value as a code, by default the code of its type."""
    if code is None:
        code = _CODE_OF_CLASS.get(type(value))
    if code is None:
        custom = custom_of(type(value))
        if custom is not None:
            code = custom.code
        elif isinstance(value, (np.ndarray, np.generic)) or is_data_array(value):
            return encode_array(value, interned=interned)
        elif allow_pickle:
            code = DType.PICKLED
        else:
            raise TypeError(
                f"no frame carries a {type(value).__module__}."
                f"{type(value).__qualname__} as it is: convert it,"
                " register_data_type() its class, or allow_pickle=True on both ends."
            )
    if CUSTOM_START <= code <= CUSTOM_END:
        return EncodedPayload(code, (), encode_custom(value, code))
    if code == DType.ND_ARR:
        if not isinstance(value, (np.ndarray, np.generic)) and not is_data_array(value):
            raise _unfit(value, code, "an ndarray, NumPy scalar or DataArray")
        return encode_array(value, code, interned=interned)
    if code == DType.PICKLED:
        return _pickle(value, allow_pickle)
    if code == DType.JSON:
        return EncodedPayload(code, (), [_json(value)])
    if code == DType.INT:
        return EncodedPayload(code, (), [int_bytes(_integer(value, code))])
    if code in PLAIN:
        return _encode_plain(value, code, interned)
    if not isinstance(value, _CLASSES[code]):
        raise _unfit(value, code, _CLASSES[code][0].__name__)
    if code in TREES:
        parts, pickled = encode_tree(
            value, lambda v: encode(v, None, allow_pickle=allow_pickle)
        )
        return EncodedPayload(code, (), parts, pickled)
    if code == DType.STR:
        return EncodedPayload(code, (), [value.encode("utf-8", "surrogatepass")])
    if code == DType.NONE:
        return EncodedPayload(code, (), [])
    data = memoryview(value)
    return EncodedPayload(
        code, (), [data if data.c_contiguous and data.nbytes else data.tobytes()]
    )


def _unfit(value: Any, code: DType, expected: str) -> TypeError:
    return TypeError(
        f"dtype {code.name} takes {expected}, got {type(value).__name__}: convert the"
        " value, or omit dtype."
    )


def _integer(value: Any, code: DType) -> int:
    """Return an integer, also of NumPy's; refuse bools and other numbers."""
    if isinstance(value, (bool, np.bool_)) and code == DType.INT:
        raise _unfit(value, code, "an integer")
    try:
        return operator.index(value)
    except TypeError:
        raise _unfit(value, code, "an integer") from None


def _encode_plain(value: Any, code: DType, interned: bool) -> EncodedPayload:
    """Encode an array of the code's dtype, or one number."""
    dtype, layout = PLAIN[code]
    if isinstance(value, np.ndarray) and (value.ndim or interned):
        return encode_array(cast_array(value, code), interned=interned)
    number: Any = value.item() if isinstance(value, (np.ndarray, np.generic)) else value
    if code == DType.BOOL:
        if not isinstance(number, bool):
            raise _unfit(value, code, "a bool")
        numbers: list[Any] = [number]
    elif dtype.kind in "ui":
        numbers = [_integer(number, code)]
    elif not isinstance(number, (int, float, complex)[: 3 if dtype.kind == "c" else 2]):
        raise _unfit(value, code, "a number")
    elif isinstance(number, int):
        numbers = [fit(number, dtype, None, f"dtype {code.name}").real.item()]
        numbers += [0.0] * (dtype.kind == "c")
    else:
        numbers = [number.real, number.imag] if dtype.kind == "c" else [number]
    try:
        return EncodedPayload(code, (), [struct.pack(layout, *numbers)])
    except (struct.error, OverflowError) as error:
        raise ValueError(
            f"{number} does not fit {code.name}: {error}; take a wider dtype."
        ) from error


def _pickle(value: Any, allow_pickle: bool) -> EncodedPayload:
    if not allow_pickle:
        raise TypeError(
            "dtype PICKLED needs allow_pickle=True on both ends; reading a pickle runs"
            " code, so use it only between programs that trust each other."
        )
    import pickle

    return EncodedPayload(
        DType.PICKLED, (), [pickle.dumps(value, protocol=5)], pickled=True
    )


def _json(value: Any) -> bytes:
    """Encode a value that JSON preserves; refuse others."""
    _check_json(value, 0)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _check_json(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"the value nests deeper than {MAX_DEPTH} levels: flatten it.")
    if type(value) is list:
        for item in value:
            _check_json(item, depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"key {key!r} of JSON must be a str: use DICT.")
            _check_json(item, depth + 1)
    elif type(value) is float and not math.isfinite(value):
        raise ValueError(f"JSON cannot hold {value}: omit dtype.")
    elif type(value) not in (str, int, float, bool, type(None)):
        raise TypeError(f"JSON does not preserve {type(value).__name__}: omit dtype.")


def decode(
    code: DType,
    shape: tuple[int, ...],
    payload: memoryview,
    *,
    allow_pickle: bool = False,
    pickled: bool = False,
    verify: bool = True,
) -> Any:
    """Decode a payload. `pickled` is the header's flag.

    Raises only `CorruptFrame`, with offsets from the payload's first byte.
    """
    if code in PLAIN and shape:
        return view(payload, PLAIN[code][0], shape, verify=verify)
    if code in PLAIN:
        return _decode_number(code, payload)
    if code == DType.ND_ARR:
        return decode_array(payload, shape, verify=verify)
    if code in TREES:
        again = partial(
            decode, allow_pickle=allow_pickle, pickled=pickled, verify=verify
        )
        return decode_tree(code, payload, again)
    if code == DType.NONE:
        return None
    if code == DType.JSON:
        return _decode_json(payload)
    if code == DType.PICKLED:
        return _unpickle(payload, allow_pickle and pickled)
    if CUSTOM_START <= code <= CUSTOM_END:
        return decode_custom(payload, code)
    return decode_bytes(code, payload, 0)


def _decode_number(code: DType, payload: memoryview) -> Any:
    dtype, layout = PLAIN[code]
    if len(payload) != dtype.itemsize:
        raise corrupt(0, code.name, f"{len(payload)} bytes", dtype.itemsize)
    if code == DType.BOOL:
        return decode_bool(payload, 0)
    numbers = struct.unpack(layout, payload)
    return complex(*numbers) if len(numbers) == 2 else numbers[0]


def _decode_json(payload: memoryview) -> Any:
    try:
        value = json.loads(
            str(payload, "utf-8", "surrogatepass"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
        )
        _check_json(value, 0)
    except CorruptFrame:
        raise
    except (ValueError, RecursionError) as error:
        raise corrupt(0, "JSON", str(error), "valid JSON") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise corrupt(0, "JSON", "a key given twice", "each key once")
    return result


def _refuse(constant: str) -> Any:
    raise corrupt(0, "JSON", constant, "standard JSON")


def _unpickle(payload: memoryview, allowed: bool) -> Any:
    if not allowed:
        raise corrupt(
            0,
            "payload",
            "a pickle",
            "none; pass allow_pickle=True if you trust the writer",
        )
    import pickle

    try:
        return pickle.loads(payload)
    except Exception as error:
        raise corrupt(
            0, "pickle", f"{type(error).__name__}: {error}", "one that loads"
        ) from error


# ---- custom types: codes 100 to 200, registered by name in each process

_T = TypeVar("_T")


class Custom(NamedTuple):
    """A registered type."""

    code: DType
    """100 to 200."""
    cls: type[Any]
    """The class; subclasses are not included."""
    encode: Callable[[Any], Buffer]
    """Returns the bytes of an instance."""
    decode: Callable[[memoryview], Any]
    """Returns the instance of a read-only view of these bytes."""
    name: str
    """Its name on both ends."""


_BY_CODE: dict[int, Custom] = {}
_BY_CLASS: dict[type[Any], Custom] = {}


@overload
def register_data_type(
    code: int,
    cls: type[_T],
    encode: Callable[[_T], Buffer],
    decode: Callable[[memoryview], _T],
    name: str | None = None,
) -> DType: ...


@overload
def register_data_type(code: type[Any], cls: int | None = None) -> DType: ...


def register_data_type(
    code: Any,
    cls: Any = None,
    encode: Any = None,
    decode: Any = None,
    name: str | None = None,
) -> DType:
    """Let frames carry instances of a class.

    Parameters
    ----------
    code : int
        100 to 200, the same in every process. Or, as in uPipe, the class itself, with
        ``to_byte_array`` and ``from_byte_array``, and in place of `cls` its code, by
        default the next free one; then all processes must register in the same order,
        else decoding raises `CorruptFrame`.
    cls : type
        Its instances, not those of subclasses, are sent under `code`.
    encode : callable
        Takes an instance, returns bytes-like.
    decode : callable
        Takes a read-only memoryview of these bytes, returns an instance. Its exceptions
        become `CorruptFrame`.
    name : str, optional
        Name of the type on both ends, at most 255 bytes of UTF-8; by default
        ``module.qualname`` of the class.

    Returns
    -------
    DType
        The member for `code`.

    Raises
    ------
    ValueError
        The code is out of range or has another name, or the class has another code or
        needs no registration.

    Examples
    --------
    >>> from pathlib import PurePosixPath as Path
    >>> register_data_type(
    ...     199, Path, lambda path: str(path).encode(), lambda b: Path(str(b, "utf8"))
    ... )
    <DType.CUSTOM_199: 199>
    """
    if isinstance(code, type):
        return _register_class(code, cls)
    if not (isinstance(cls, type) and callable(encode) and callable(decode)):
        raise TypeError(
            f"register_data_type({code!r}, ...): give cls, encode and decode; or only "
            "a class that has to_byte_array and from_byte_array"
        )
    name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
    if not CUSTOM_START <= code <= CUSTOM_END:
        raise ValueError(
            f"code must be from {CUSTOM_START} to {CUSTOM_END}, got {code}."
        )
    if not 0 < len(name.encode()) < 256:
        raise ValueError(f"name must be 1 to 255 bytes of UTF-8, got {name!r}.")
    known = _BY_CODE.get(code)
    if known is not None and known.name != name:
        raise ValueError(
            f"code {code} is registered for {known.name!r}: take another code for"
            f" {name!r}."
        )
    same = _BY_CLASS.get(cls)
    if same is not None and same.code != code:
        raise ValueError(f"{cls.__qualname__} is registered as {int(same.code)}.")
    if cls.__module__ in ("builtins", "numpy"):
        raise ValueError(f"frames carry {cls.__qualname__} without registration.")
    if known is not None:
        _BY_CLASS.pop(known.cls, None)
    custom = Custom(DType(code), cls, encode, decode, name)
    _BY_CODE[code] = _BY_CLASS[cls] = custom
    return custom.code


def _register_class(cls: type[Any], code: int | None) -> DType:
    """Register a class with uPipe's methods."""
    for method in ("to_byte_array", "from_byte_array"):
        if not callable(getattr(cls, method, None)):
            raise TypeError(
                f"register_data_type({cls.__qualname__}): {method}() is missing; add "
                "it, or call register_data_type(code, cls, encode, decode)"
            )
    known = _BY_CLASS.get(cls)
    if code is None and known is not None:
        code = known.code
    if code is None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        # A class that was defined again, in a notebook cell, is the same type.
        same = (k for k, custom in _BY_CODE.items() if custom.name == name)
        free = (k for k in range(CUSTOM_START, CUSTOM_END + 1) if k not in _BY_CODE)
        code = next(same, None) or next(free, None)
        if code is None:
            raise ValueError("every code from 100 to 200 is registered: give one")
    return register_data_type(code, cls, cls.to_byte_array, cls.from_byte_array)


def custom_of(cls: type[Any]) -> Custom | None:
    """Return the registration of a class."""
    return _BY_CLASS.get(cls)


def encode_custom(value: Any, code: int) -> list[Any]:
    """Encode an instance: its type's name, then its bytes."""
    custom = _BY_CODE.get(code)
    if custom is None or not isinstance(value, custom.cls):
        raise TypeError(
            f"dtype {code} is"
            f" {'not registered' if custom is None else custom.name}, the value is of"
            f" type {type(value).__name__}: register_data_type() first."
        )
    name = custom.name.encode()
    return [bytes([len(name)]) + name, custom.encode(value)]


def decode_custom(payload: memoryview, code: int) -> Any:
    """Decode an instance, if the code has the same type name here."""
    custom = _BY_CODE.get(code)
    if custom is None:
        raise corrupt(
            0,
            "payload",
            f"custom code {code}",
            "a registered one: call register_data_type() in this process",
        )
    name = custom.name.encode()
    head = bytes([len(name)]) + name
    found = payload[: len(head)].tobytes()
    if found != head:
        raise corrupt(0, f"type name of code {code}", found[1:], repr(custom.name))
    try:
        return custom.decode(payload[len(head) :])
    except Exception as error:
        raise corrupt(
            len(head), custom.name, f"{type(error).__name__}: {error}", "its bytes"
        ) from error
