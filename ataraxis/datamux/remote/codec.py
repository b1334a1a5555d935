"""How messages become bytes: the protocol, and the codecs by name.

A message is a dict with an ``"op"``, of plain values. A block has its own way, as it is
most of what moves: its columns, in the order of a `Layout` that was sent before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ataraxis.datamux.catalog import made
from ataraxis.datamux.remote.layout import Column
from ataraxis.errors import BadMessage

Message = dict[str, Any]
Arrays = Sequence[NDArray[Any]]


class Codec(Protocol):
    """Writes messages, and reads those of strangers: nothing is run, ever."""

    name: str

    def encode(self, message: Message) -> bytes:
        """Write a message of plain values."""

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Fragments:
        """Write a block: its stream and number, its first sample, its columns."""

    def decode(self, data: bytes | memoryview) -> Message:
        """Read a message; of a block only ``stream`` and ``sequence`` for now.

        Raises
        ------
        BadMessage
            It is none.
        """

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Read the rest of a block: the number of its first sample, and its columns.

        Raises
        ------
        BadMessage
            It does not fit the columns.
        """


_HOME = {
    "frame": "ataraxis.datamux.remote.frame_codec:FrameCodec",
    "json": "ataraxis.datamux.remote.json_codec:JsonCodec",
    "msgpack": "ataraxis.datamux.remote.msgpack_codec:MsgpackCodec",
}
CODECS = tuple(_HOME)
"""Names of the codecs, the default first."""


def codec_of(name: str) -> Codec:
    """Return the codec of a name: 'frame', 'json' or 'msgpack'.

    Raises
    ------
    SourceNotFound
        There is none of that name.
    ModuleNotFoundError
        What it needs is not installed: what to type.

    Examples
    --------
    >>> codec_of("json").decode(b'{"op": "bye"}')
    {'op': 'bye'}
    """
    found: Codec = made(_HOME, name, "codec")
    return found


def checked(message: Any) -> Message:
    """Return a decoded message if it is one: a dict with an op, of plain values."""
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise BadMessage("not a message: expected an object with an 'op'")
    if message["op"] == "block":
        for key in ("stream", "sequence"):
            whole(message, key)
    return message


def whole(message: Message, key: str) -> int:
    """Return a whole number from 0 of a message, or say that it is none."""
    value = message.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadMessage(f"{message['op']}: {key} is {str(value)[:40]!r}: no number")
    return value


# ---- A message on its way out, perhaps in pieces: what is large is not copied together

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
