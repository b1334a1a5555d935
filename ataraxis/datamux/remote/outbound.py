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

# ---- messages of a stream that are not confirmed: kept, to be sent again

SHORT_BYTES = 2**16


class Total:
    """Bytes that the buffers of all clients hold together, and their limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.busy = 0
        """Streams without rate limit that are not waiting."""
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Bytes that are left."""
        return max(0, self.limit - self.used)

    def add(self, nbytes: int) -> None:
        """Add to the count; negative to subtract."""
        with self._lock:
            self.used += nbytes

    def add_busy(self, count: int) -> None:
        """Add to the number of busy streams."""
        with self._lock:
            self.busy += count


class Budget:
    """Bytes that the buffers of one client may hold together.

    A client may use as much of the total as it leaves free: half if it is alone, a
    third if another has a third, and so on. Clients that never read cannot exhaust it.
    """

    def __init__(self, limit: int, total: Total | None = None) -> None:
        self.limit = limit
        self.total = Total(2 * limit) if total is None else total
        self.used = 0
        self.changed = threading.Condition()

    def has(self, nbytes: int) -> bool:
        """Whether there is budget for so many more bytes."""
        return self.used + nbytes <= min(self.limit, self.total.free)

    def add(self, nbytes: int) -> None:
        """Add to the count; negative to subtract."""
        self.used += nbytes
        self.total.add(nbytes)


class ResendBuffer:
    """Messages of one stream by number, from the first that is not confirmed.

    Threads that share it hold ``budget.changed``.

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
        """Number of the next message to send."""
        self.flying = 0
        """Bytes sent and not confirmed, also of messages evicted since."""
        self.evicted = 0
        """Messages evicted before they were confirmed."""

    @property
    def next(self) -> int:
        """Number of the next message to append."""
        return self.first + len(self._kept)

    def fits(self, nbytes: int) -> bool:
        """Whether there is budget; always for a single message that is short, or for
        which all clients together have budget.
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
        """Drop the oldest message to free budget; whether one existed."""
        if not self._kept:
            return False
        self._drop()
        self.evicted += 1
        return True

    @property
    def is_due(self) -> bool:
        """Whether the sender must be woken: only the newest message is unsent, or an
        unsent one was evicted. Otherwise it is busy, or waits for a confirmation.
        """
        return self.cursor >= self.next - 1 or self.cursor < self.first

    def take(self, window: int) -> Fragments | None:
        """Return the next message to send, unless `window` bytes are unconfirmed.

        Raises `RemoteError` if it was evicted.
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
        """Drop the messages before this number, which were read."""
        while self.first < min(until, self.cursor):
            self._drop()
        while self._sent and self._sent[0][0] < until:
            self.flying -= self._sent.popleft()[1]
        self._notify()

    def rewind(self, to: int) -> None:
        """Send again from this number on; raise `RemoteError` if it was evicted."""
        self._check(to)
        if to > self.next:
            raise RemoteError(f"message {to} was requested, the next is {self.next}")
        self.confirm(to)
        self.cursor = to
        self._sent.clear()
        self.flying = 0

    def _check(self, number: int) -> None:
        if number < self.first:
            raise RemoteError(
                f"evicted: {self.first - number} messages were dropped before they "
                f"were read, as the {self.budget.limit} bytes kept for a client were "
                "full; read faster, or request less"
            )

    def clear(self, following: int | None = None) -> None:
        """Drop everything; the next message has the number `following`."""
        while self._kept:
            self._drop()
        if following is not None:
            self.first = self.cursor = following
        self._sent.clear()
        self.flying = 0
        self._notify()

    def _notify(self) -> None:
        """Wake threads that wait for budget."""
        with self.budget.changed:
            self.budget.changed.notify_all()


# ---- the sink

MESSAGE_BYTES = 4 * 2**20
_JSON_BYTES = 2**17  # as text up to ten times as large
_REST_S = 5.0
_SHARE = 8  # messages become shorter if fewer than this fit


class Outlet:
    """Encodes blocks into a `ResendBuffer`, from which the connection sends them.

    At most `window` bytes are unconfirmed. A live source is never delayed: if the
    buffer is full, its oldest message is evicted, and a reader that needs it gets an
    error. A recording waits. A stream is paced if it has a rate limit. `notify` is
    called from the task's thread when messages are ready to be sent.
    """

    takes_blocks = True

    def __init__(
        self,
        number: int,
        codec: Codec,
        budget: Budget,
        notify: Callable[[], None],
        *,
        window: int,
        is_live: bool,
        is_paced: bool = True,
    ) -> None:
        self.number = number
        self._codec = codec
        self._resend_buffer = ResendBuffer(budget)
        self._changed = budget.changed
        self._notify = notify
        self._window = window
        self._is_live = is_live
        self._layout: Layout | None = None
        self._is_closed = False
        self.details: Callable[[], Message] = dict
        """Returns further values for the end message."""
        self.delivered = 0
        self.dropped = 0
        self.is_ended = False
        """Whether the last message is in the buffer."""
        self._is_busy = False
        self._worked_s = 0.0
        self._is_paced = is_paced
        self._be_busy(not is_paced)

    # ---- in the task's thread

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Encode blocks into the buffer; a recording waits while it is full."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(
                    f"a transform on a server must return blocks, got "
                    f"{type(block).__name__}"
                )
            if not len(block):
                continue
            self._put(block, is_over)
        if not self._is_paced:
            self._rest(is_over)

    def _rest(self, is_over: IsOver) -> None:
        """Pause as long as other busy streams had to wait for this one.

        Otherwise the threads of many streams without rate limit would delay the thread
        that serves clients.
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
            packed = layout.pack()
            self._append(lambda number: self._encoded("labels", number, packed))
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
        # Only this thread appends, so the number stays valid.
        data = encode(self._resend_buffer.next)
        with self._changed:
            if self._is_closed:
                return
            self._resend_buffer.append(data)
            is_due = self._resend_buffer.is_due
        if is_due:
            self._notify()

    def _encoded(self, op: str, number: int, more: Message) -> Fragments:
        message = {"op": op, "stream": self.number, "sequence": number, **more}
        return Fragments([self._codec.encode(message)])

    def _waited(self, size: int, is_over: IsOver) -> bool:
        """Wait until there is budget; return whether there is."""
        with self._changed:
            while not (self._is_closed or self._resend_buffer.fits(size)):
                if is_over():
                    return False
                if not (self._is_live and self._resend_buffer.evict()):
                    self._be_busy(False)
                    self._changed.wait(SLICE_S)
            return not self._is_closed

    def finish(self, end: End, is_over: IsOver) -> End:
        """Encode the end, the last message."""
        error = None if end.error is None else packed_error(end.error)
        more = {"reason": end.reason, "error": error, **self.details()}
        self._append(lambda number: self._encoded("end", number, more))
        self.is_ended = True
        self._be_busy(False)
        self._notify()
        return end

    def wake(self) -> None:
        """Make a wait check whether it is over."""
        with self._changed:
            self._changed.notify_all()

    # ---- in the connection's loop

    def take(self) -> Fragments | None:
        """Return the next message to send, if the window allows one."""
        with self._changed:
            try:
                return self._resend_buffer.take(self._window)
            except RemoteError as error:
                return self._end_as_lost(self._resend_buffer.cursor, error)

    def _end_as_lost(self, number: int, error: RemoteError) -> Fragments | None:
        """End the stream, whose next message was evicted."""
        self._resend_buffer.clear(following=number)
        more = {"reason": "lost", "error": packed_error(error), **self.details()}
        self._resend_buffer.append(self._encoded("end", number, more))
        self._is_closed = self.is_ended = True
        self._be_busy(False)
        return self._resend_buffer.take(self._window)

    def confirm(self, until: int) -> None:
        """Drop the messages that were read."""
        with self._changed:
            self._resend_buffer.confirm(until)

    def rewind(self, to: int) -> None:
        """Go back to the message that the client needs next."""
        with self._changed:
            try:
                self._resend_buffer.rewind(to)
            except RemoteError as error:
                self._end_as_lost(to, error)
                self._resend_buffer.rewind(to)

    @property
    def is_over(self) -> bool:
        """Whether all messages were sent and read."""
        with self._changed:
            return (
                self.is_ended and self._resend_buffer.first == self._resend_buffer.next
            )

    @property
    def is_closed(self) -> bool:
        """Whether the stream was closed."""
        return self._is_closed

    def close(self) -> None:
        """Drop all messages: the client does not read any more."""
        with self._changed:
            self._is_closed = self.is_ended = True
            self._resend_buffer.clear()
        self._be_busy(False)
