"""What a stream has sent and nobody has confirmed: kept, to be sent again."""

from __future__ import annotations

import threading
from collections import deque

from ataraxis.datamux.remote.data import Data
from ataraxis.errors import RemoteError


class Room:
    """Bytes that the rings of one client may hold together, and who waits for them.

    Parameters
    ----------
    limit : int
        How many.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.changed = threading.Condition()


class Ring:
    """Messages of one stream by their numbers, from the first that is not confirmed.

    Where several threads use it, they hold ``room.changed``.

    Parameters
    ----------
    room : Room
        Shared with the other streams of the client.

    Examples
    --------
    >>> ring = Ring(Room(100))
    >>> for data in (b"a", b"b", b"c"):
    ...     ring.append(Data([data]))
    >>> bytes(ring.take(10)), bytes(ring.take(10))
    (b'a', b'b')
    >>> ring.confirm(1)
    >>> ring.rewind(1)
    >>> bytes(ring.take(10)), ring.room.used
    (b'b', 2)
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self._kept: deque[Data] = deque()
        self._sent: deque[tuple[int, int]] = deque()
        self.first = 0
        """Number of the oldest message that is kept."""
        self.cursor = 0
        """Number of the next to be sent."""
        self.flying = 0
        """Bytes sent and not confirmed, also of what was given up since."""
        self.evicted = 0
        """Messages given up before they were confirmed."""

    @property
    def next(self) -> int:
        """Number that the next message will have."""
        return self.first + len(self._kept)

    def fits(self, nbytes: int) -> bool:
        """Tell whether there is room; for one message there always is."""
        return not self._kept or self.room.used + nbytes <= self.room.limit

    def append(self, data: Data) -> None:
        """Keep a message."""
        self._kept.append(data)
        self.room.used += len(data)

    def _drop(self) -> None:
        self.room.used -= len(self._kept.popleft())
        self.first += 1

    def evict(self) -> bool:
        """Give up the oldest message to make room; whether there was one."""
        if not self._kept:
            return False
        self._drop()
        self.evicted += 1
        return True

    @property
    def is_due(self) -> bool:
        """Whether only the newest is unsent, or something was given up unsent.

        With more of them there is nothing to tell: their sender is busy, or waits until
        something is confirmed.
        """
        return self.cursor >= self.next - 1 or self.cursor < self.first

    def take(self, window: int) -> Data | None:
        """Return the next message to send, unless so many bytes are on their way.

        Raises
        ------
        RemoteError
            It was evicted.
        """
        self._check(self.cursor)
        if self.cursor >= self.next:
            return None
        data = self._kept[self.cursor - self.first]
        if self.flying and self.flying + len(data) > window:
            return None
        self._sent.append((self.cursor, len(data)))
        self.cursor += 1
        self.flying += len(data)
        return data

    def confirm(self, until: int) -> None:
        """Forget what comes before the message of this number: it was read."""
        while self.first < min(until, self.cursor):
            self._drop()
        while self._sent and self._sent[0][0] < until:
            self.flying -= self._sent.popleft()[1]
        self._told()

    def rewind(self, to: int) -> None:
        """Send again from the message of this number on.

        Raises
        ------
        RemoteError
            It was evicted.
        """
        self._check(to)
        if to > self.next:
            raise RemoteError(f"message {to} is asked for, {self.next} is the next")
        self.confirm(to)
        self.cursor = to
        self._sent.clear()
        self.flying = 0

    def _check(self, number: int) -> None:
        if number < self.first:
            raise RemoteError(
                f"evicted: {self.first - number} messages were given up before they "
                f"were read, as the {self.room.limit} bytes kept for a client were "
                "full; read faster, or ask for less"
            )

    def clear(self, following: int | None = None) -> None:
        """Forget everything; the next message has the number `following`."""
        while self._kept:
            self._drop()
        if following is not None:
            self.first = self.cursor = following
        self._sent.clear()
        self.flying = 0
        self._told()

    def _told(self) -> None:
        """Wake those who wait for room."""
        with self.room.changed:
            self.room.changed.notify_all()
