"""Small names that StreamingHub's ``util`` has, and the seed's snippets use."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ataraxis.datamux.end import END_OF_STREAM

__all__ = [
    "END_OF_STREAM",
    "Enveloper",
    "envelope",
    "gen_randseq",
    "identity",
    "prefix",
    "sleep",
]

T = TypeVar("T")
prefix = "d_"
"""What the id of a task begins with."""
sleep = time.sleep


def gen_randseq(length: int = 16) -> str:
    """Return random letters, of the system's entropy: no seed repeats them.

    Examples
    --------
    >>> len(gen_randseq()), gen_randseq() == gen_randseq()
    (16, False)
    """
    return "".join(secrets.choice(string.ascii_letters) for _ in range(length))


def identity(x: T) -> T:
    """Return what was given."""
    return x


def envelope(x: Any, prefix: bytes, suffix: bytes) -> list[Any]:
    """Return ``[prefix, x, suffix]``."""
    return [prefix, x, suffix]


class Enveloper:
    """A transform that puts each item between a prefix and a suffix.

    Parameters
    ----------
    prefix, suffix : bytes, optional
        What goes before and after.
    transform : callable, optional
        Applied to the item first.

    Examples
    --------
    >>> Enveloper(prefix=b"topic")({"a": 1})
    [b'topic', {'a': 1}]
    """

    def __init__(
        self,
        *,
        prefix: bytes | None = None,
        transform: Callable[[Any], Any] | None = None,
        suffix: bytes | None = None,
    ) -> None:
        self.prefix = prefix
        self.transform = transform
        self.suffix = suffix

    def __call__(self, msg: Any) -> Any:
        """Return the item, transformed and enveloped."""
        if self.transform is not None:
            msg = self.transform(msg)
        if self.prefix is None and self.suffix is None:
            return msg
        before = [] if self.prefix is None else [self.prefix]
        return [*before, msg, *([] if self.suffix is None else [self.suffix])]
