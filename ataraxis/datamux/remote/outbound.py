"""The sink of a task whose reader is on another machine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ataraxis.datamux.block import Block
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.codec import Codec, Fragments, Message
from ataraxis.datamux.remote.layout import Layout, packed_error
from ataraxis.datamux.sinks.sink import SLICE_S, IsOver
from ataraxis.errors import RemoteError

# ---- what a stream has sent and nobody has confirmed: kept, to be sent again

SHORT_BYTES = 2**16


class Total:
    """Bytes that the rings of all clients hold together.

    Parameters
    ----------
    limit : int
        How many they may.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.busy = 0
        """Streams that are being made as fast as they are taken, and do not wait."""
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many are left."""
        return max(0, self.limit - self.used)

    def add(self, nbytes: int) -> None:
        """Count some more, or less."""
        with self._lock:
            self.used += nbytes

    def add_busy(self, count: int) -> None:
        """Count one more that is busy, or one less."""
        with self._lock:
            self.busy += count


class Budget:
    """Bytes that the rings of one client may hold together, and who waits for them.

    Of what all clients may hold, one may have as much as is free: half, if it is alone,
    a third, if another one has its third, and so on. Clients that never read cannot
    take the last of it.

    Parameters
    ----------
    limit : int
        How many.
    total : Total, optional
        What all clients hold.
    """

    def __init__(self, limit: int, total: Total | None = None) -> None:
        self.limit = limit
        self.total = Total(2 * limit) if total is None else total
        self.used = 0
        self.changed = threading.Condition()

    def has(self, nbytes: int) -> bool:
        """Tell whether there is budget for so many more."""
        return self.used + nbytes <= min(self.limit, self.total.free)

    def add(self, nbytes: int) -> None:
        """Count some more, or less."""
        self.used += nbytes
        self.total.add(nbytes)


class ResendBuffer:
    """Messages of one stream by their numbers, from the first that is not confirmed.

    Where several threads use it, they hold ``budget.changed``.

    Parameters
    ----------
    budget : Budget
        Shared with the other streams of the client.

    Examples
    --------
    >>> resend_buffer = ResendBuffer(Budget(100))
    >>> for data in (b"a", b"b", b"c"):
    ...     resend_buffer.append(Fragments([data]))
    >>> bytes(resend_buffer.take(10)), bytes(resend_buffer.take(10))
    (b'a', b'b')
    >>> resend_buffer.confirm(1)
    >>> resend_buffer.rewind(1)
    >>> bytes(resend_buffer.take(10)), resend_buffer.budget.used
    (b'b', 2)
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._kept: deque[Fragments] = deque()
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
        """Tell whether there is budget; for one message there always is, if it is short
        or all clients together have budget for it.
        """
        if self._kept:
            return self.budget.has(nbytes)
        return nbytes <= SHORT_BYTES or nbytes <= self.budget.total.free

    def append(self, data: Fragments) -> None:
        """Keep a message."""
        self._kept.append(data)
        self.budget.add(len(data))

    def _drop(self) -> None:
        self.budget.add(-len(self._kept.popleft()))
        self.first += 1

    def evict(self) -> bool:
        """Give up the oldest message to make budget; whether there was one."""
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

    def take(self, window: int) -> Fragments | None:
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
                f"were read, as the {self.budget.limit} bytes kept for a client were "
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
        """Wake those who wait for budget."""
        with self.budget.changed:
            self.budget.changed.notify_all()


# ---- the sink

MESSAGE_BYTES = 4 * 2**20
_JSON_BYTES = 2**17  # as text they are ten times as much on the way
_REST_S = 5.0
_SHARE = 8  # messages are shorter where less than so many of them fit


class Outlet:
    """Writes blocks into a resend_buffer, from which a session sends them.

    Parameters
    ----------
    number : int
        Of the stream, chosen by the client.
    codec : Codec
        How blocks become bytes.
    budget : Budget
        What the client's streams may hold together.
    tell : callable
        Called, from the task's thread, when there is something to send.
    window : int
        Bytes that may be on their way.
    is_live : bool
        A live source is never held up: when the buffer is full, its oldest message is
        given up, and a reader that needed it is told. A recording waits.
    is_paced : bool
        Whether it waits for its own time; else it is made as fast as it is taken.
    """

    takes_blocks = True

    def __init__(
        self,
        number: int,
        codec: Codec,
        budget: Budget,
        tell: Callable[[], None],
        *,
        window: int,
        is_live: bool,
        is_paced: bool = True,
    ) -> None:
        self.number = number
        self._codec = codec
        self._resend_buffer = ResendBuffer(budget)
        self._changed = budget.changed
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
        """Whether its last message is in the resend_buffer."""
        self._is_busy = False
        self._worked_s = 0.0
        self._is_paced = is_paced
        self._be_busy(not is_paced)

    # ---- in the task's thread

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Write blocks into the resend_buffer; wait while it is full, if it may."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(
                    f"a transform on a server gives blocks, not {type(block).__name__}"
                )
            if not len(block):
                continue
            self._put(block, is_over)
        if not self._is_paced:
            self._rest(is_over)

    def _rest(self, is_over: IsOver) -> None:
        """Leave the processor to others as long as they had to leave it to this one.

        Many streams that are made as fast as they are taken would each run a thread,
        and the one that serves clients would wait for all of them.
        """
        total, worked_s = self._resend_buffer.budget.total, time.thread_time()
        self._be_busy(True)
        owed_s = (worked_s - self._worked_s) * (total.busy - 1)
        end_s = time.monotonic() + min(owed_s, _REST_S)
        while (left_s := end_s - time.monotonic()) > 0 and not is_over():
            time.sleep(min(left_s, SLICE_S))
        self._worked_s = time.thread_time()

    def _be_busy(self, is_busy: bool) -> None:
        with self._changed:
            is_busy = is_busy and not (self._is_closed or self.is_ended)
            if is_busy != self._is_busy:
                self._is_busy = is_busy
                self._resend_buffer.budget.total.add_busy(1 if is_busy else -1)

    def _put(self, block: Block, is_over: IsOver) -> None:
        layout = self._layout
        arrays = None if layout is None else layout.fitted(block)
        if arrays is None:
            self._layout = layout = Layout.of(block)
            told = layout.pack()
            self._append(lambda number: self._said("labels", number, told))
            arrays = layout.arrays(block)
        size = sum(array.nbytes for array in arrays)
        free = self._resend_buffer.budget.total.free // _SHARE
        most = _JSON_BYTES if self._codec.name == "json" else MESSAGE_BYTES
        if size > max(SHORT_BYTES, min(most, free)) and len(block) > 1:
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

    def _append(self, encode: Callable[[int], Fragments]) -> None:
        # Only this thread appends, so that the number holds until it does.
        data = encode(self._resend_buffer.next)
        with self._changed:
            if self._is_closed:
                return
            self._resend_buffer.append(data)
            is_due = self._resend_buffer.is_due
        if is_due:
            self._tell()

    def _said(self, op: str, number: int, more: Message) -> Fragments:
        message = {"op": op, "stream": self.number, "sequence": number, **more}
        return Fragments([self._codec.encode(message)])

    def _waited(self, size: int, is_over: IsOver) -> bool:
        """Wait until there is budget; whether there is."""
        with self._changed:
            while not (self._is_closed or self._resend_buffer.fits(size)):
                if is_over():
                    return False
                if not (self._is_live and self._resend_buffer.evict()):
                    self._be_busy(False)
                    self._changed.wait(SLICE_S)
            return not self._is_closed

    def finish(self, end: End, is_over: IsOver) -> End:
        """Write the end; it is the last message."""
        error = None if end.error is None else packed_error(end.error)
        more = {"reason": end.reason, "error": error, **self.details()}
        self._append(lambda number: self._said("end", number, more))
        self.is_ended = True
        self._be_busy(False)
        self._tell()
        return end

    def wake(self) -> None:
        """Make a wait look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    # ---- in the session's loop

    def take(self) -> Fragments | None:
        """Return the next message to send, if there is one and it may go."""
        with self._changed:
            try:
                return self._resend_buffer.take(self._window)
            except RemoteError as error:
                return self._gave_up(self._resend_buffer.cursor, error)

    def _gave_up(self, number: int, error: RemoteError) -> Fragments | None:
        """End the stream here: what should come next is not there any more."""
        self._resend_buffer.clear(following=number)
        told = {"reason": "lost", "error": packed_error(error), **self.details()}
        self._resend_buffer.append(self._said("end", number, told))
        self._is_closed = self.is_ended = True
        self._be_busy(False)
        return self._resend_buffer.take(self._window)

    def confirm(self, until: int) -> None:
        """Forget what was read."""
        with self._changed:
            self._resend_buffer.confirm(until)

    def rewind(self, to: int) -> None:
        """Go back to the message that the client needs next."""
        with self._changed:
            try:
                self._resend_buffer.rewind(to)
            except RemoteError as error:
                self._gave_up(to, error)
                self._resend_buffer.rewind(to)

    @property
    def is_over(self) -> bool:
        """Whether everything was sent and read."""
        with self._changed:
            return (
                self.is_ended and self._resend_buffer.first == self._resend_buffer.next
            )

    @property
    def is_closed(self) -> bool:
        """Whether nobody wants more of it."""
        return self._is_closed

    def close(self) -> None:
        """Forget it: nobody reads any more."""
        with self._changed:
            self._is_closed = self.is_ended = True
            self._resend_buffer.clear()
        self._be_busy(False)
