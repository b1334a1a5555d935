"""Dispatches: numbered messages between two agents that survive a broken channel.

Each side keeps what it has sent until the other one has it, sends it again over the
next channel, and drops what comes twice. It does no I/O. A long message travels in
pieces.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, NamedTuple

from ataraxis.errors import BadMessage
from ataraxis.link.messages import Ask, Reply

PIECE = 20_000
"""Characters of a piece: as JSON in JSON, and that twice as long, it is a message."""
MOST = 64 << 20
"""Most characters of a message in pieces."""


class Dispatch(NamedTuple):
    """A message that has arrived."""

    what: str
    fields: dict[str, Any]


class DispatchLine:
    """One end of a line of dispatches, through any number of channels.

    Examples
    --------
    >>> a, b = DispatchLine(), DispatchLine()
    >>> a.put("spawn", row=3)
    >>> lost = a.due()  # the channel breaks
    >>> a.begin(), b.begin()
    (None, None)
    >>> [b.take(message) for message in a.due()]
    [Dispatch(what='spawn', fields={'row': 3})]
    >>> [a.take(message) for message in b.due()], a.waiting
    ([None], 0)
    """

    def __init__(self) -> None:
        self._kept: deque[Ask] = deque()
        self._number = 0
        self._next = 1
        """The first number that was not sent over this channel."""
        self._taken = self._told = 0
        self._text: list[str] = []
        self._size = 0

    @property
    def waiting(self) -> int:
        """How many messages the other side has not confirmed."""
        return len(self._kept)

    def put(self, what: str, /, **fields: Any) -> None:
        """Add a message; `fields` are what JSON can hold."""
        text = json.dumps(fields, separators=(",", ":"))
        stops = range(0, len(text), PIECE)
        for start in stops:
            self._number += 1
            piece = {"text": text[start : start + PIECE], "last": start == stops[-1]}
            self._kept.append(Ask(self._number, what, piece))

    def begin(self) -> None:
        """Begin again with a new channel."""
        self._next = self._kept[0].number if self._kept else self._number + 1

    def due(self) -> list[Ask | Reply]:
        """Return what is to be sent now; it counts as sent over this channel."""
        found: list[Ask | Reply] = []
        if self._taken > self._told:
            self._told = self._taken
            found.append(Reply(self._taken))
        # A snapshot: other threads put at the end.
        for message in list(self._kept):
            if message.number >= self._next:
                found.append(message)
                self._next = message.number + 1
        return found

    def take(self, message: Any) -> Dispatch | None:
        """Take a message of the other side; return it if it is whole and new.

        Raises
        ------
        BadMessage
            It is not one of a line, one before it is missing, or it is too long.
        """
        if isinstance(message, Reply):
            while self._kept and self._kept[0].number <= message.number:
                self._kept.popleft()
            return None
        if not isinstance(message, Ask):
            raise BadMessage(f"expected a dispatch, got {type(message).__name__}")
        if message.number <= self._taken:
            self._told = min(self._told, message.number - 1)
            return None
        text, is_last = message.arguments.get("text"), message.arguments.get("last")
        if message.number != self._taken + 1 or not isinstance(text, str):
            raise BadMessage(
                f"expected dispatch {self._taken + 1}, got {message.number}"
            )
        self._size += len(text)
        if self._size > MOST:
            raise BadMessage(f"a dispatch has more than {MOST} characters")
        self._taken = message.number
        self._text.append(text)
        if not is_last:
            return None
        whole, self._text, self._size = "".join(self._text), [], 0
        try:
            fields = json.loads(whole)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"a dispatch is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadMessage("a dispatch must be a JSON object")
        return Dispatch(message.what, fields)
