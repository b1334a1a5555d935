"""A message on its way out, perhaps in pieces: what is large is not copied together."""

from __future__ import annotations

from collections.abc import Sequence

LENT_BYTES = 2**14
"""Columns from here on are not copied before they are sent: bytes cost more then."""


class Fragments:
    """The pieces of a message, in order.

    Parameters
    ----------
    pieces : sequence of bytes-like
        Not copied; they must not change until the message was read.

    Examples
    --------
    >>> data = Fragments([b"ab", memoryview(b"c")])
    >>> len(data), bytes(data)
    (3, b'abc')
    """

    __slots__ = ("_nbytes", "pieces")

    def __init__(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self.pieces = [piece for piece in pieces if len(piece)]
        self._nbytes = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self._nbytes

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
