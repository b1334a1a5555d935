"""Messages as bytes: the protocol of codecs, and the codecs by name.

A message is a dict with an ``"op"``, of plain values. Blocks, which are most of the
traffic, are encoded separately: as columns, in the order of a `Layout` sent before.
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
    """Encodes messages, and decodes untrusted ones without running code."""

    name: str

    def encode(self, message: Message) -> bytes:
        """Encode a message of plain values."""

    def encode_block(
        self, stream: int, sequence: int, first: int, arrays: Arrays
    ) -> Fragments:
        """Encode a block: its stream and number, its first sample, its columns."""

    def decode(self, data: bytes | memoryview) -> Message:
        """Decode a message, or raise `BadMessage`; of a block only its head.

        The head is ``stream`` and ``sequence``.
        """

    def arrays(
        self, message: Message, columns: Sequence[Column]
    ) -> tuple[int, list[NDArray[Any]]]:
        """Decode first number and columns of a block; `BadMessage` if they misfit."""


_HOME = {
    "frame": "ataraxis.datamux.remote.frame_codec:FrameCodec",
    "json": "ataraxis.datamux.remote.json_codec:JsonCodec",
    "msgpack": "ataraxis.datamux.remote.msgpack_codec:MsgpackCodec",
}
CODECS = tuple(_HOME)
"""Names of the codecs, the default first."""


def codec_of(name: str) -> Codec:
    """Return the codec of a name: 'frame', 'json' or 'msgpack'.

    Raises `SourceNotFound` for others; `ModuleNotFoundError`, with the command that
    installs it, if its package is missing.
    """
    found: Codec = made(_HOME, name, "codec")
    return found


def checked(message: Any) -> Message:
    """Return a decoded message, after checking its op and numbers."""
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise BadMessage("not a message: expected an object with an 'op'")
    if message["op"] == "block":
        for key in ("stream", "sequence"):
            whole(message, key)
    return message


def whole(message: Message, key: str) -> int:
    """Return an integer of a message; `BadMessage` if it is not one of 0 or more."""
    value = message.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadMessage(
            f"{message['op']}: {key} must be 0 or more, got {str(value)[:40]!r}"
        )
    return value


# ---- an encoded message, perhaps in pieces, so that large columns are not copied

LENT_BYTES = 2**14
"""Columns of this size are not copied before they are sent."""


class Fragments:
    """The pieces of a message, in order; not copied, so they must not change."""

    __slots__ = ("_nbytes", "pieces")

    def __init__(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self.pieces = [piece for piece in pieces if len(piece)]
        self._nbytes = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self._nbytes

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
