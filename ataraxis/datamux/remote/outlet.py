"""The sink of a task whose reader is on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ataraxis.datamux.block import Block
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.codec import Codec, Message
from ataraxis.datamux.remote.data import Data
from ataraxis.datamux.remote.failure import packed_error
from ataraxis.datamux.remote.layout import Layout
from ataraxis.datamux.remote.ring import Ring, Room
from ataraxis.datamux.sink import SLICE_S, IsOver
from ataraxis.errors import RemoteError

MESSAGE_BYTES = 4 * 2**20


class Outlet:
    """Writes blocks into a ring, from which a session sends them.

    Parameters
    ----------
    number : int
        Of the stream, chosen by the client.
    codec : Codec
        How blocks become bytes.
    room : Room
        What the client's streams may hold together.
    tell : callable
        Called, from the task's thread, when there is something to send.
    window : int
        Bytes that may be on their way.
    is_live : bool
        A live source is never held up: when the ring is full, its oldest message is
        given up, and a reader that needed it is told. A recording waits.
    """

    takes_blocks = True

    def __init__(
        self,
        number: int,
        codec: Codec,
        room: Room,
        tell: Callable[[], None],
        *,
        window: int,
        is_live: bool,
    ) -> None:
        self.number = number
        self._codec = codec
        self._ring = Ring(room)
        self._changed = room.changed
        self._tell = tell
        self._window = window
        self._is_live = is_live
        self._layout: Layout | None = None
        self._is_closed = False
        self.details: Callable[[], Message] = dict
        """Called for what else the end is to say."""
        self.delivered = 0
        self.dropped = 0
        self.is_ended = False
        """Whether its last message is in the ring."""

    # ---- in the task's thread

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Write blocks into the ring; wait while it is full, if it may."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(
                    f"a transform on a server gives blocks, not {type(block).__name__}"
                )
            if not len(block):
                continue
            self._put(block, is_over)

    def _put(self, block: Block, is_over: IsOver) -> None:
        layout = self._layout
        arrays = None if layout is None else layout.fitted(block)
        if arrays is None:
            self._layout = layout = Layout.of(block)
            told = layout.pack()
            self._append(lambda number: self._said("labels", number, told))
            arrays = layout.arrays(block)
        size = sum(array.nbytes for array in arrays)
        if size > MESSAGE_BYTES and len(block) > 1:
            half = len(block) // 2
            self._put(block[:half], is_over)
            self._put(block[half:], is_over)
        elif self._waited(size, is_over):
            self._append(
                lambda number: self._codec.encode_block(
                    self.number, number, block.sequence, arrays
                )
            )
            self.delivered += 1

    def _append(self, encode: Callable[[int], Data]) -> None:
        # Only this thread appends, so that the number holds until it does.
        data = encode(self._ring.next)
        with self._changed:
            if self._is_closed:
                return
            self._ring.append(data)
            is_due = self._ring.is_due
        if is_due:
            self._tell()

    def _said(self, op: str, number: int, more: Message) -> Data:
        message = {"op": op, "stream": self.number, "sequence": number, **more}
        return Data([self._codec.encode(message)])

    def _waited(self, size: int, is_over: IsOver) -> bool:
        """Wait until there is room; whether there is."""
        with self._changed:
            while not (self._is_closed or self._ring.fits(size)):
                if is_over():
                    return False
                if not (self._is_live and self._ring.evict()):
                    self._changed.wait(SLICE_S)
            return not self._is_closed

    def finish(self, end: End, is_over: IsOver) -> End:
        """Write the end; it is the last message."""
        error = None if end.error is None else packed_error(end.error)
        more = {"reason": end.reason, "error": error, **self.details()}
        self._append(lambda number: self._said("end", number, more))
        self.is_ended = True
        self._tell()
        return end

    def wake(self) -> None:
        """Make a wait look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    # ---- in the session's loop

    def take(self) -> Data | None:
        """Return the next message to send, if there is one and it may go."""
        with self._changed:
            try:
                return self._ring.take(self._window)
            except RemoteError as error:
                return self._gave_up(self._ring.cursor, error)

    def _gave_up(self, number: int, error: RemoteError) -> Data | None:
        """End the stream here: what should come next is not there any more."""
        self._ring.clear(following=number)
        told = {"reason": "lost", "error": packed_error(error), **self.details()}
        self._ring.append(self._said("end", number, told))
        self._is_closed = self.is_ended = True
        return self._ring.take(self._window)

    def confirm(self, until: int) -> None:
        """Forget what was read."""
        with self._changed:
            self._ring.confirm(until)

    def rewind(self, to: int) -> None:
        """Go back to the message that the client needs next."""
        with self._changed:
            try:
                self._ring.rewind(to)
            except RemoteError as error:
                self._gave_up(to, error)
                self._ring.rewind(to)

    @property
    def is_over(self) -> bool:
        """Whether everything was sent and read."""
        with self._changed:
            return self.is_ended and self._ring.first == self._ring.next

    @property
    def is_closed(self) -> bool:
        """Whether nobody wants more of it."""
        return self._is_closed

    def close(self) -> None:
        """Forget it: nobody reads any more."""
        with self._changed:
            self._is_closed = self.is_ended = True
            self._ring.clear()
