"""`Key`: which worker of several has a value, by something in it: always the same one.

A value goes into the input queue of one worker, so values of one key are worked on in
the order in which they came, and a class may keep what it knows of a key in itself.
"""

from __future__ import annotations

import base64
import inspect
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ataraxis.pipeline.function import Code, code_of, kind_of

_F64 = struct.Struct("<d")


@dataclass(frozen=True)
class Key:
    """What tells values apart, in a form that travels.

    Examples
    --------
    >>> Key.of("track", "mouse")
    Key(item='mouse', code=None)
    """

    item: str | int | None = None
    """What stands in brackets behind the value; None: ask the function."""
    code: Code | None = None

    @classmethod
    def of(cls, processor: str, given: Any) -> Key:
        """Make it of what ``Processor(key=...)`` was given.

        Raises
        ------
        TypeError
            It is no plain function of a value, nor a name or a number.
        """
        if isinstance(given, str | int) and not isinstance(given, bool):
            return cls(given)
        is_plain = callable(given) and not inspect.iscoroutinefunction(given)
        if not is_plain or kind_of(given) != "map":
            raise TypeError(
                f"key={given!r} of processor {processor!r}: a plain function of a "
                "value, or the name or number that stands in brackets behind it"
            )
        return cls(code=code_of(given, None))

    def as_dict(self) -> dict[str, Any]:
        """Write it for JSON."""
        if self.code is None:
            return {"item": self.item}
        if self.code.name:
            return {"function": self.code.name}
        return {"pickle": base64.b64encode(self.code.pickle).decode()}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Key:
        """Read what `as_dict` returned."""
        if "item" in said:
            return cls(said["item"])
        pickle = base64.b64decode(said.get("pickle", ""))
        return cls(code=Code("map", said.get("function", ""), pickle))


class Router:
    """Says which worker has a value; made where values are put.

    Parameters
    ----------
    key : Key
        What tells values apart.
    processor : str
        Whose key it is.
    count : int
        How many workers it has.

    Examples
    --------
    >>> router = Router(Key("mouse"), "track", 3)
    >>> router.place_of({"mouse": 7, "x": 0.5}), router.place_of({"mouse": 7.0})
    (1, 1)
    """

    def __init__(self, key: Key, processor: str, count: int) -> None:
        self._key, self._processor, self._count = key, processor, count
        self._call: Callable[[Any], Any] | None = None

    def place_of(self, value: Any) -> int:
        """Return the number of the worker that has a value.

        Raises
        ------
        ValueError
            The key's function raised, or the value has no such item.
        TypeError
            What it returned is no number, text, bytes, None, or tuple of these.
        """
        try:
            key = self._function()(value)
        except Exception as error:
            raise ValueError(
                f"key= of processor {self._processor!r} raised {type(error).__name__}: "
                f"{error}; it was asked of a {type(value).__name__}"
            ) from error
        try:
            return number_of(key) % self._count
        except TypeError:
            raise TypeError(
                f"key= of processor {self._processor!r} returned a "
                f"{type(key).__name__}: a number, text, bytes, None or a tuple of these"
            ) from None

    def shares_of(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Share values out: those of each worker, in their order."""
        shares: list[list[Any]] = [[] for _ in range(self._count)]
        for value in values:
            shares[self.place_of(value)].append(value)
        return [tuple(share) for share in shares]

    def _function(self) -> Callable[[Any], Any]:
        if self._call is None:
            code, item = self._key.code, self._key.item
            self._call = (lambda value: value[item]) if code is None else code.load()
        return self._call


def number_of(key: Any) -> int:
    """Return a number of a key: the same in every process, also of equal keys.

    A whole number is its own, so that keys from 0 on are shared out evenly.

    Examples
    --------
    >>> number_of(5), number_of(5.0), number_of("mouse")
    (5, 5, 2939533037)
    """
    if getattr(key, "ndim", None) == 0:
        key = key.item()
    if isinstance(key, int):
        return int(key)
    if isinstance(key, float):
        return int(key) if key.is_integer() else zlib.crc32(_F64.pack(key))
    if isinstance(key, str):
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))
    if isinstance(key, bytes):
        return zlib.crc32(key)
    if key is None:
        return 0
    if isinstance(key, tuple):
        return zlib.crc32(repr([number_of(part) for part in key]).encode())
    raise TypeError(f"{type(key).__name__} is no key")
