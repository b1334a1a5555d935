"""Conversation: a channel, its session, and the bytes that have arrived.

The drivers of outlets, inlets and control channels are loops around it. One thread
receives; any thread may send.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING

from ataraxis.errors import BadMessage
from ataraxis.link.carrier import Channel, ChannelClosed
from ataraxis.link.messages import (
    LinkMessage,
    Refuse,
    encode,
    is_data,
    next_message,
)
from ataraxis.link.session import CALM_BEAT_S, DEAD_S, LinkSession

if TYPE_CHECKING:
    from typing_extensions import Buffer

SMALL_BYTES = 128 << 10
"""Bytes of a receive buffer of a channel that carries messages only, at first."""
_HEAD_BYTES, _LENGTH_AT = 64, 8
_LARGE = 64 << 10
MOST_BYTES = 2 << 20
"""Bytes of a receive buffer at most, unless an inlet asks for more: any message."""
SEND_S = DEAD_S
"""Longest time that a send may take: the other side is taken for dead then, s."""


class Conversation:
    """A channel with its session: sends and receives, and ends when the peer is silent.

    Parameters
    ----------
    channel : Channel
        The channel; closed by `close`.
    session : LinkSession
        Its session.
    nbytes : int
        Bytes of the receive buffer: at least two whole frames.

    Attributes
    ----------
    buffer : memoryview
        What has arrived is in ``buffer[start:stop]``.
    """

    def __init__(
        self, channel: Channel, session: LinkSession, nbytes: int = SMALL_BYTES
    ) -> None:
        self.channel, self.session = channel, session
        self._gate = Lock()
        self._memory = bytearray(nbytes)
        self.buffer = memoryview(self._memory)
        self.start = self.stop = 0

    # ---- sending

    def send(self, *messages: LinkMessage) -> None:
        """Send messages, and what the session owes; raises as `Channel.send`."""
        with self._gate:
            self._send_due(messages)

    def send_frames(self, data: Buffer, nbytes: int) -> None:
        """Send frames as they are, after the messages that the session owes."""
        with self._gate:
            self._send_due(())
            self.channel.send(data, SEND_S)
            self.session.sent(nbytes, time.monotonic())

    def _send_due(self, messages: tuple[LinkMessage, ...]) -> None:
        due = [*self.session.due(time.monotonic()), *messages]
        if due:
            self.channel.send(b"".join(map(encode, due)), SEND_S)
            self.session.sent(1, time.monotonic())

    # ---- receiving

    def receive(self, timeout: float) -> int:
        """Receive more bytes; return how many, 0 within `timeout`.

        Raises
        ------
        ChannelClosed
            The channel has ended, or the other side was silent for `DEAD_S`.
        """
        lacks = self.lacks
        self._make_room(lacks)
        end = self.stop + lacks if lacks >= _LARGE else len(self.buffer)
        found = self.channel.receive_into(self.buffer[self.stop : end], max(timeout, 0))
        now = time.monotonic()
        if found:
            self.stop += found
            self.session.received(found, now)
        elif self.session.is_dead(now):
            raise ChannelClosed(self.session.refusal or self._silence())
        return found

    def wait_time(self, now: float) -> float:
        """Return how long to wait for bytes before the session wants its turn, s."""
        return min(max(self.session.next_wake(now) - now, 0.0), CALM_BEAT_S)

    def messages(self, *, has_frames: bool = False) -> Iterator[LinkMessage]:
        """Take the messages that have arrived, up to a frame or the end of the bytes.

        Without `has_frames`, a frame of a stream is refused.

        Those of the session are done with; the others are for the caller.

        Raises
        ------
        BadMessage
            The bytes are not of a message.
        ChannelClosed
            One of the two sides refuses the other.
        """
        while True:
            if self.start == self.stop:
                return
            if has_frames and is_data(self.buffer, self.start, self.stop):
                return
            message, end = next_message(self.buffer, self.start, self.stop)
            if message is None:
                return
            self.start = end
            is_known = self.session.take(message, time.monotonic())
            if self.session.refusal:
                self.refuse("")
                raise ChannelClosed(self.session.refusal)
            if not is_known:
                yield message

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be received before something was taken."""
        return self.stop - self.start >= max(len(self._memory), MOST_BYTES)

    @property
    def lacks(self) -> int:
        """How many bytes of the frame that has begun to arrive are still to come.

        0: its length is not known, or it is whole.
        """
        held = self.stop - self.start
        if held < _HEAD_BYTES:
            return 0
        at = self.start + _LENGTH_AT
        length = int.from_bytes(self.buffer[at : at + 8], "little")
        return max(_HEAD_BYTES + length - held, 0)

    def _make_room(self, lacks: int) -> None:
        """Move the bytes to the front, if there is not enough room behind them.

        Of a large frame the rest alone is received: then nothing is moved after it.
        """
        if self.start == self.stop:
            self.start = self.stop = 0
        elif self.start and (
            self.stop + lacks > len(self._memory) or 2 * self.stop > len(self._memory)
        ):
            left = self.stop - self.start
            self.buffer[:left] = self.buffer[self.start : self.stop]
            self.start, self.stop = 0, left
        if self.stop == len(self._memory):
            if self.stop >= MOST_BYTES:
                raise BadMessage(
                    f"host {self.channel.peer!r} sent a frame of more than "
                    f"{MOST_BYTES} bytes, larger than any that was announced"
                )
            self.grow(min(2 * self.stop, MOST_BYTES))

    def grow(self, nbytes: int) -> None:
        """Make the buffer at least so large; what has arrived stays."""
        if nbytes <= len(self._memory):
            return
        made = bytearray(nbytes)
        left = self.stop - self.start
        made[:left] = self.buffer[self.start : self.stop]
        self.start, self.stop, self._memory = 0, left, made
        self.buffer = memoryview(made)

    # ---- the end

    def greet(self, timeout: float) -> Iterator[LinkMessage]:
        """Exchange `Hello`; return further messages that came with the other's.

        Raises
        ------
        ChannelClosed, BadMessage
            The other side refuses, is refused, or has not answered within `timeout`, s.
        """
        deadline = time.monotonic() + timeout
        self.send()
        while True:
            early = list(self.messages())
            if self.session.is_open:
                return iter(early)
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChannelClosed(self._silence())
            self.receive(left)

    def refuse(self, why: str) -> None:
        """Tell the other side why the channel ends, if it still listens; and end it."""
        try:
            self.send(*([Refuse(why)] if why else []))
        except (OSError, BadMessage):
            pass  # it has ended already
        self.close()

    def close(self) -> None:
        """Close the channel; from any thread."""
        self.channel.close()

    def _silence(self) -> str:
        return f"host {self.channel.peer!r} has been silent for {DEAD_S:g} s"
