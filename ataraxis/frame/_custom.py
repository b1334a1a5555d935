"""Types of your own: codes 100 to 200, registered by name in each process.

The name travels in the payload (a length byte, UTF-8, then your bytes), so that a code
which means another type at the other end is refused instead of misread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

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


def register_data_type(
    code: int,
    cls: type[_T],
    encode: Callable[[_T], Buffer],
    decode: Callable[[memoryview], _T],
    name: str | None = None,
) -> DType:
    """Let frames carry instances of a class.

    Parameters
    ----------
    code : int
        100 to 200, the same in every process.
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
