"""`StreamInlet`: one mirror at its own host: what arrives is published, once, in order.

The ring is the record of what is here: its next number is what is asked for on the
next link, so an inlet that is killed between publishing and acknowledging finds out by
looking. A smaller number is dropped and counted, a larger one closes the link: a hole
is never published. It does no I/O of its own and reads no clock: it acts on a
`MirrorRing` that its host makes (`MirrorHost`), `now` is an argument. One thread at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from ataraxis._kernels.journal_write import FULL, OK
from ataraxis.errors import BadMessage
from ataraxis.link.messages import (
    HEAD_BYTES,
    Absent,
    Ack,
    FarAccount,
    FramesLost,
    LinkMessage,
    Offer,
    StreamEnd,
    Want,
)

CONTROL = 1
"""Status of `MirrorRing.write`: a message begins there."""
GAP = 2
WINDOW_BYTES = 1 << 22
ACK_BYTES, ACK_FRAMES, ACK_S = 1 << 16, 64, 0.01


class MirrorRing(Protocol):
    """The producer of a mirror's ring; `ataraxis._kernels.link.BufferToRing`."""

    @property
    def next(self) -> int:
        """Number of the next frame that is taken."""

    @property
    def repeated(self) -> int:
        """Frames that were dropped, as they were here already."""

    @property
    def fault(self) -> str:
        """Why `write` refused a frame."""

    def write(self, buffer: Any, start: int, stop: int) -> tuple[int, int]:
        """Publish whole frames, without waiting; return where the rest begins, and why.

        OK, FULL, `CONTROL`, `GAP`, or another status: no frame of this stream.
        """

    def lose(self, first: int, count: int) -> None:
        """Pass over frames that will not come; readers count them."""

    def skip(self, first: int, count: int) -> None:
        """Pass over numbers that never had a frame; readers do not count them."""

    def account(self, refused: int, gaps: int, stalled_ns: int) -> None:
        """Note losses and waits of the stream's own host."""


class MirrorHost(Protocol):
    """Makes the rings of one mirror, and ends them."""

    def begin(self, offer: Offer) -> MirrorRing:
        """Make the ring of a stream; its first frame has the number ``offer.first``.

        A ring of the same stream that a dead agent left is `StreamInlet.resume`'s.
        """

    def end(self, end: StreamEnd) -> None:
        """End the ring: its readers learn of it after the last frame."""


class StreamInlet:
    """One mirror.

    Parameters
    ----------
    host : MirrorHost
        Makes its rings.
    stream, mirror : str
        Name of the stream at its own host; name of the mirror.
    policy : {'lossless', 'lossy', 'latest'}, optional
        Which frames are wanted.
    on_spool_full : {'wait', 'lose'}, optional
        What the other host does when its spool is full.
    is_recorded : bool, optional
        Acknowledge only what `recorded` was told: what durable readers have released.
    channel_window : int, optional
        Most bytes that the channel carries without being acknowledged.

    Attributes
    ----------
    state : {'connecting', 'flowing', 'spooling', 'disconnected', 'ended', 'lost'}
        'spooling': the other host sends frames from its disk; 'lost': see `fail`.
    stream_id : str
        Id of the stream whose ring is here, '' before the first.

    Notes
    -----
    A caller sends `want` first on each link. Then it gives `publish` what arrives, and
    `take` the messages between; it sends `ack_due` after each, and at `next_wake`. On
    `BadMessage` it closes the link and begins another.
    """

    def __init__(
        self,
        host: MirrorHost,
        stream: str,
        mirror: str,
        *,
        policy: Literal["lossless", "lossy", "latest"] = "lossless",
        on_spool_full: Literal["wait", "lose"] = "wait",
        is_recorded: bool = False,
        channel_window: int | None = None,
    ) -> None:
        self.host, self.stream, self.mirror = host, stream, mirror
        self.policy, self.on_spool_full = policy, on_spool_full
        self.is_recorded = is_recorded
        self.state = "connecting"
        self.reason = ""
        """Why there is no stream, as far as is known."""
        self.stream_id = ""
        self.ring: MirrorRing | None = None
        self.end: StreamEnd | None = None
        self.account: FarAccount | None = None
        self.links = self.lost = self.frames = self.nbytes = 0
        self._window = min(channel_window or WINDOW_BYTES, WINDOW_BYTES)
        self._ack_frames = ACK_FRAMES
        self._recorded = 0
        self._offer: Offer | None = None
        self._consumed = 0
        self._acked: Ack | None = None
        self._waits_since: float | None = None
        self._frames_since = self._bytes_since = 0

    # ---- links

    def resume(
        self, ring: MirrorRing, stream_id: str, *, has_ended: bool = False
    ) -> None:
        """Go on with a ring that an earlier agent left; before the first `want`."""
        self.ring, self.stream_id = ring, stream_id
        self.end = StreamEnd(ring.next) if has_ended else None

    def want(self, now: float) -> Want:
        """Begin a link, or ask for the next stream of the name on this one."""
        self.links += 1
        self._offer = self._waits_since = None
        self._consumed = self._frames_since = self._bytes_since = 0
        self.state = "connecting"
        ring = self.ring
        self._acked = Ack(0 if ring is None else self._safe, self._window)
        return Want(
            self.stream, self.mirror, self.policy, self.stream_id,
            None if ring is None else ring.next,
            None if ring is None else self._safe,
            self.end is not None, self._window, self.on_spool_full,
        )  # fmt: skip

    def lost_link(self, now: float) -> None:
        """The link is closed: nothing more arrives before the next `want`."""
        self._offer = None
        self._acked = None
        if self.state not in ("ended", "lost"):
            self.state = "disconnected"

    def fail(self, reason: str) -> None:
        """The mirror cannot go on: the other host refuses it for good."""
        self.state, self.reason = "lost", reason

    # ---- what arrives

    def publish(
        self, buffer: Any, start: int, stop: int, now: float
    ) -> tuple[int, int]:
        """Publish the frames in ``buffer[start:stop]``.

        Parameters
        ----------
        buffer : bytes-like
            What arrived, from a frame's or message's first byte at `start` on.
        start, stop : int
            Of these bytes.
        now : float
            Monotonic time, s.

        Returns
        -------
        at : int
            First byte that was not taken.
        status : int
            OK: only a part of a frame is left; `CONTROL`: a message begins at `at`, see
            `messages.next_message`; FULL: the ring has no room, try again later.

        Raises
        ------
        BadMessage
            No frame of this stream, a damaged one, or one before which others are
            missing: close the link. Those before it were published.
        """
        if self._offer is None or self.ring is None or self.end is not None:
            return start, CONTROL
        before = self.ring.next
        at, status = self.ring.write(buffer, start, stop)
        frames = self.ring.next - before
        self.frames += frames
        self.nbytes += at - start
        self._consumed += at - start
        self._note(frames, at - start, now)
        if status not in (OK, FULL, CONTROL):
            what = "frames before it are missing" if status == GAP else self.ring.fault
            raise BadMessage(
                f"stream {self.stream!r}: a frame after number {self.ring.next - 1} "
                f"was refused: {what}"
            )
        return at, status

    def take(self, message: LinkMessage, now: float) -> bool:
        """Take a message; return whether it was for a mirror.

        Raises
        ------
        BadMessage
            It does not follow what was sent before: close the link.
        """
        match message:
            case Offer():
                self._take_offer(message, now)
            case Absent():
                self.reason = message.why or f"{self.stream!r} does not exist there"
            case FramesLost():
                self._take_lost(message, now)
            case FarAccount():
                self._take_account(message)
            case StreamEnd():
                self._take_end(message, now)
            case _:
                return False
        return True

    def _take_offer(self, offer: Offer, now: float) -> None:
        if self._acked is None or self._offer is not None:
            raise BadMessage(f"{self.stream!r} was offered without being asked for")
        if offer.stream_id == self.stream_id and self.ring is not None:
            if self.end is not None or offer.first != self.ring.next:
                raise BadMessage(
                    f"{self.stream!r} was offered from {offer.first} on, but "
                    f"{self.ring.next} was asked for"
                )
        else:
            if self.ring is not None and self.end is None:
                self._end_here(
                    "it was replaced at its host while the link was down: its last "
                    "frames did not arrive"
                )
            ring = self.host.begin(offer)
            self.ring, self.stream_id, self.end = ring, offer.stream_id, None
            self._recorded = ring.next
        self._offer, self.state, self.reason = offer, "flowing", ""
        frame = HEAD_BYTES + offer.slot_bytes
        self._window = max(self._window, 2 * frame)
        self._ack_frames = max(ACK_FRAMES, offer.slots // 16)
        self._acked = Ack(self._safe, self._acked.granted)
        self._note(0, 0, now)

    def _end_here(self, why: str) -> None:
        assert self.ring is not None
        end = StreamEnd(self.ring.next, True, why)
        self.host.end(end)
        self.end = end

    def _take_lost(self, lost: FramesLost, now: float) -> None:
        ring = self._flowing()
        if lost.first > ring.next:
            raise BadMessage(
                f"stream {self.stream!r}: frames from {lost.first} on are said to be "
                f"lost, but {ring.next} was not sent"
            )
        count = lost.first + lost.count - ring.next
        if count > 0 and lost.is_skipped:
            ring.skip(ring.next, count)
            self._note(self._ack_frames, 0, now)
        elif count > 0:
            ring.lose(ring.next, count)
            self.lost += count
            self._note(self._ack_frames, 0, now)

    def _take_account(self, account: FarAccount) -> None:
        ring = self._flowing()
        self.account = account
        self.state = "spooling" if account.spooled_bytes else "flowing"
        ring.account(account.refused, account.gaps, account.stalled_ns)

    def _take_end(self, end: StreamEnd, now: float) -> None:
        ring = self._flowing()
        if end.next != ring.next:
            raise BadMessage(
                f"stream {self.stream!r} ends at {end.next}, but {ring.next} is next"
            )
        self.host.end(end)
        self.end, self.state = end, "ended"
        if self.account is not None and not self.is_recorded:
            # All of it is here: no later account says so.
            self.account = replace(self.account, spooled_bytes=0)
        self._note(self._ack_frames, 0, now)

    def _flowing(self) -> MirrorRing:
        if self._offer is None or self.ring is None or self.end is not None:
            raise BadMessage(f"a message of stream {self.stream!r} without its offer")
        return self.ring

    # ---- what is acknowledged

    def recorded(self, next: int) -> None:
        """Note that the durable readers here have released frames before a number."""
        self._recorded = max(self._recorded, next)

    @property
    def _safe(self) -> int:
        """Number before which frames need not be sent again."""
        assert self.ring is not None
        if self.is_recorded:
            return min(self.ring.next, self._recorded)
        return self.ring.next

    def _note(self, frames: int, nbytes: int, now: float) -> None:
        self._frames_since += frames
        self._bytes_since += nbytes
        if self._waits_since is None:
            self._waits_since = now

    @property
    def is_ack_held(self) -> bool:
        """Whether an acknowledgement waits for more frames: send it if none come."""
        return self._waits_since is not None and self._bytes_since >= self._ack_bytes

    def ack_due(self, now: float, *, is_calm: bool = False) -> Ack | None:
        """Return the acknowledgement to send now, if it is time for one.

        While frames arrive (not `is_calm`), one is for a third of the window: each
        costs both hosts as much as some 50 KB of frames.
        """
        if self._acked is None or self._offer is None or self.ring is None:
            return None
        safe = max(self._safe, self._acked.next)
        granted = max(self._window + self._consumed, self._acked.granted)
        has_ended = self.end is not None and safe == self.end.next
        ack = Ack(safe, granted, has_ended)
        if ack == self._acked:
            self._waits_since = None
            return None
        if self._waits_since is None:
            self._waits_since = now
        if (
            has_ended
            or self._frames_since >= self._ack_frames
            or self._bytes_since >= (self._ack_bytes if is_calm else self._window // 3)
            or now - self._waits_since >= ACK_S
        ):
            self._acked, self._waits_since = ack, None
            self._frames_since = self._bytes_since = 0
            return ack
        return None

    @property
    def _ack_bytes(self) -> int:
        return max(ACK_BYTES, self._window // 32)

    def next_wake(self, now: float) -> float:
        """Return when `ack_due` may have something without a frame, s."""
        if self._waits_since is None:
            return now + 1.0
        return max(self._waits_since + ACK_S, now)

    # ---- what is

    @property
    def behind(self) -> int:
        """Frames that the stream has and that are not here, as far as is known."""
        if self.ring is None or self.account is None:
            return 0
        return max(self.account.next - self.ring.next, 0)

    def statistics(self) -> InletStatistics:
        """Return the totals since the inlet was made."""
        return InletStatistics(
            self.state, self.frames, self.nbytes, self.lost,
            self.ring.repeated if self.ring is not None else 0,
            self.links, self.behind,
            self.account.spooled_bytes if self.account is not None else 0,
        )  # fmt: skip


@dataclass(frozen=True)
class InletStatistics:
    """Totals of a mirror at its own host."""

    state: str
    frames: int
    """Frames published."""
    nbytes: int
    """Bytes of frames that arrived."""
    lost: int
    """Frames that the other host told as lost."""
    repeated: int
    """Frames that arrived again, and were dropped."""
    links: int
    """Links so far."""
    behind: int
    """Frames that the stream has and that are not here."""
    spooled_bytes: int
    """Bytes that wait in the other host's spool."""
