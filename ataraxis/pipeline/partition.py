"""`Key`: distributes values to workers by key; each key always to the same worker.

A value goes into the input queue of one worker, so values of one key are processed in
order, and a class may keep the state of a key in itself.
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
    """The key of values, in a form that travels.

    Examples
    --------
    >>> Key.of("track", "mouse")
    Key(item='mouse', code=None)
    """

    item: str | int | None = None
    """Name or index of the key in the value; None: call the function."""
    code: Code | None = None

    @classmethod
    def of(cls, processor: str, given: Any) -> Key:
        """Return the key for ``Processor(key=given)``.

        Raises
        ------
        TypeError
            `given` is not a plain function of a value, a name or an index.
        """
        if isinstance(given, str | int) and not isinstance(given, bool):
            return cls(given)
        is_plain = callable(given) and not inspect.iscoroutinefunction(given)
        if not is_plain or kind_of(given) != "map":
            raise TypeError(
                f"key= of processor {processor!r} must be a plain function of a value, "
                f"a field name or an index, got {given!r}"
            )
        return cls(code=code_of(given, None))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        if self.code is None:
            return {"item": self.item}
        if self.code.name:
            return {"function": self.code.name}
        return {"pickle": base64.b64encode(self.code.pickle).decode()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Key:
        """Return the key of which `as_dict` has returned the fields."""
        if "item" in fields:
            return cls(fields["item"])
        pickle = base64.b64decode(fields.get("pickle", ""))
        return cls(code=Code("map", fields.get("function", ""), pickle))


class Router:
    """Selects the worker of a value, in the process that puts the value.

    Parameters
    ----------
    key : Key
        The key.
    processor : str
        The processor of the key.
    count : int
        Its number of workers.

    Examples
    --------
    >>> router = Router(Key("mouse"), "track", 3)
    >>> router.worker_of({"mouse": 7, "x": 0.5}), router.worker_of({"mouse": 7.0})
    (1, 1)
    """

    def __init__(self, key: Key, processor: str, count: int) -> None:
        self._key, self._processor, self._count = key, processor, count
        self._call: Callable[[Any], Any] | None = None

    def worker_of(self, value: Any) -> int:
        """Return the number of the worker that gets a value.

        Raises
        ------
        ValueError
            The key's function raised, or the value has no such item.
        TypeError
            The key is not a number, text, bytes, None, or a tuple of these.
        """
        try:
            if self._call is None:
                code, item = self._key.code, self._key.item
                self._call = (lambda each: each[item]) if code is None else code.load()
            key = self._call(value)
        except Exception as error:
            raise ValueError(
                f"key= of processor {self._processor!r} raised {type(error).__name__}: "
                f"{error}; its value was a {type(value).__name__}"
            ) from error
        try:
            return number_of(key) % self._count
        except TypeError:
            raise TypeError(
                f"key= of processor {self._processor!r} must return a number, text, "
                f"bytes, None or a tuple of these, got {type(key).__name__}"
            ) from None

    def shares_of(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the values of each worker, in their order."""
        shares: list[list[Any]] = [[] for _ in range(self._count)]
        for value in values:
            shares[self.worker_of(value)].append(value)
        return [tuple(share) for share in shares]


def number_of(key: Any) -> int:
    """Return a number for a key: the same in every process, and for equal keys.

    The number of an integer is the integer, so that keys from 0 on spread evenly.

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
    raise TypeError(f"a key cannot be a {type(key).__name__}")
