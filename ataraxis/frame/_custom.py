"""Types of your own: codes 100 to 200, registered by name in each process.

The name travels in the payload (a length byte, UTF-8, then your bytes), so that a code
which means another type at the other end is refused instead of misread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from ataraxis.frame._codes import CUSTOM_END, CUSTOM_START, DType
from ataraxis.frame._header import corrupt

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")


class Custom(NamedTuple):
    """A registered type."""

    code: DType
    """100 to 200."""
    cls: type[Any]
    """The class, exactly: a subclass would not come back as itself."""
    encode: Callable[[Any], Buffer]
    """Turns an instance into bytes."""
    decode: Callable[[memoryview], Any]
    """Turns a read-only view of these bytes into an instance."""
    name: str
    """What both ends call it."""


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
        100 to 200, the same in every process. Or, as uPipe has it, the class itself,
        with ``to_byte_array`` and ``from_byte_array``, and its code, if not the next
        that is free, in place of `cls`; both processes must register in the same order
        then, and are told if they did not.
    cls : type
        Instances of exactly this class are sent under `code`.
    encode : callable
        Takes an instance, returns bytes-like.
    decode : callable
        Takes a read-only memoryview of these bytes, returns an instance. Whatever it
        raises becomes `CorruptFrame`.
    name : str, optional
        What both ends call the type, at most 255 bytes of UTF-8; ``module.qualname``
        of the class if not given.

    Returns
    -------
    DType
        The member for `code`.

    Raises
    ------
    ValueError
        The code is out of range or has another name, or the class has another code or
        is one that frames carry anyway.

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
            f"register_data_type({code!r}, ...): give the class, and what encodes and "
            "decodes it; or a class that has to_byte_array and from_byte_array, alone"
        )
    name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
    if not CUSTOM_START <= code <= CUSTOM_END:
        raise ValueError(f"code={code}: give one from {CUSTOM_START} to {CUSTOM_END}.")
    if not 0 < len(name.encode()) < 256:
        raise ValueError(f"name={name!r}: give 1 to 255 bytes of UTF-8.")
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
    """Register a class that writes and reads itself, as uPipe has it."""
    for method in ("to_byte_array", "from_byte_array"):
        if not callable(getattr(cls, method, None)):
            raise TypeError(
                f"register_data_type({cls.__qualname__}): it has no {method}(); give "
                "one, or say register_data_type(code, cls, encode, decode)"
            )
    known = _BY_CLASS.get(cls)
    if code is None and known is not None:
        code = known.code
    if code is None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        # Defined again, in a notebook cell: the same type.
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
    """Write an instance: its type's name, then its own bytes."""
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
    """Read an instance, if the code means the same type here."""
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
