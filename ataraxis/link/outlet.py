"""`StreamOutlet`: one stream at its own host, and its mirrors at others.

The ring is the window: a frame that was sent stays in its slot until every mirror has
acknowledged it, or it is in the spool. An outlet does no I/O of its own and reads no
clock: it acts on a `FrameStore` (the ring) and a `FrameSpool` (files), `now` is an
argument, and the bytes for a mirror are written into the caller's buffer. One thread at
a time: the caller has a lock.

A mirror is known by its key, the names of its host and of itself; the link to it may
break and be replaced at any time. Where its next frame is follows from what the mirror
says that it has: in the ring, in the spool, or lost, which is always told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from ataraxis._kernels.journal_write import DAMAGED, ENDED, LAPPED
from ataraxis.errors import BadMessage, DataOverflow, LoggerError, SpoolFull
from ataraxis.link.messages import (
    HEAD_BYTES,
    Ack,
    FarAccount,
    FramesLost,
    LinkMessage,
    Offer,
    StreamEnd,
    Want,
    encode,
)
from ataraxis.link.spool import HeldFrames, KnownMirror, MirrorKey, SpoolMemory

PATIENCE_S = 0.5
"""A mirror that acknowledges nothing for so long has its frames spooled."""
FULL_S = 0.5
"""A full ring of frames that are not acknowledged in this time is spooled: the link is
too slow. One that is full of newer frames has a fast producer, which waits."""
MOSTLY_S, WARY_S = 0.1, 10.0
"""If the producer is paced by a device, a ring of which 3/4 are held for so long is
spooled, also if mirrors acknowledge; and for a while after that without a wait."""
LOOK_S = 0.05
RETRY_S = 1.0
"""A disk that failed is tried again after this time."""
ACCOUNT_S = 0.5
REMEMBER_S = 5.0
BATCH_BYTES = 1 << 22


class FrameStore(HeldFrames, Protocol):
    """Frames of a ring whose slots are held; `ataraxis._kernels.link.RingToBuffer`.

    Made with `expected`, so that `first` and `next` are known without a frame.
    """

    @property
    def next(self) -> int | None:
        """Number after the newest held frame; of the next one without any."""

    @property
    def held(self) -> int:
        """Held frames."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the held frames."""

    def take(self, most: int) -> tuple[int, int]:
        """Hold up to so many more frames; return how many, and a status."""

    def accept(self) -> int:
        """After LAPPED: pass over the missing frames; return how many they are."""

    def copy(self, sequence: int, buffer: Any, start: int) -> tuple[int, int, int]:
        """Copy whole frames; return where they end, the next number, and a status."""

    def missing(self, sequence: int) -> int:
        """After LAPPED: return how many frames from a number on are missing."""

    def release(self, until: int) -> int:
        """Give back the slots of frames before a number."""


class FrameSpool(Protocol):
    """Frames on disk; `ataraxis.link.spool.Spool`."""

    @property
    def first(self) -> int:
        """Number of the oldest frame; `next` without any."""

    @property
    def next(self) -> int:
        """Number after the newest frame that is in a file."""

    @property
    def nbytes(self) -> int:
        """Bytes of its files."""

    @property
    def limit(self) -> int:
        """Most bytes of its files."""

    @property
    def oldest_until(self) -> int:
        """Number after the last frame of its oldest file: what dropping that costs."""

    def append(self, store: HeldFrames, until: int) -> int:
        """Write held frames before a number; return `next`. They are in a file then."""

    def read(self, sequence: int, buffer: memoryview, start: int) -> tuple[int, int]:
        """Copy whole frames; return where they end, and the next number."""

    def trim(self, until: int) -> None:
        """Forget frames before a number, and remove files without others."""

    def recall(self) -> SpoolMemory:
        """Return what was remembered."""

    def remember(self, memory: SpoolMemory) -> None:
        """Keep which mirrors exist, also over a kill of this process."""


@dataclass
class _MirrorState:
    """A mirror, linked or not."""

    key: MirrorKey
    needs: int
    """Every frame before this number may be forgotten."""
    progress_at: float
    on_spool_full: str = "wait"
    has_ended: bool = False
    """Whether it has the stream to its end."""
    link: OutletLink | None = None
    frames: int = 0
    nbytes: int = 0
    links: int = 0
    lost: int = 0
    """Frames told as lost, in ranges that it has passed."""
    told: list[tuple[int, int]] = field(default_factory=list)
    """Ranges told as lost that it may not have passed yet."""

    def count_loss(self, first: int, end: int) -> None:
        """Count a range once, however often and in what parts it is told."""
        ranges = sorted([*self.told, (first, end)])
        joined = ranges[:1]
        for a, b in ranges[1:]:
            if a <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(joined[-1][1], b)
            else:
                joined.append((a, b))
        self.told = joined

    def pass_losses(self, until: int) -> None:
        while self.told and self.told[0][1] <= until:
            first, end = self.told.pop(0)
            self.lost += end - first


class OutletLink:
    """One link to one mirror: made by `StreamOutlet.want`, used until it breaks.

    Attributes
    ----------
    key : MirrorKey
        The mirror.
    is_current : bool
        False once the mirror has another link, or was forgotten: close the channel.
    """

    def __init__(
        self,
        outlet: StreamOutlet,
        key: MirrorKey,
        start: int,
        acked: int,
        credit: int,
    ) -> None:
        self.outlet, self.key = outlet, key
        self.is_current = True
        self.sent, self.acked = start, acked
        self.granted, self.sent_bytes = credit, 0
        self.has_sent_end = False
        self.queue: list[bytes] = []
        self.account: FarAccount | None = None
        self.account_at = float("-inf")

    def push(self, message: LinkMessage) -> None:
        """Queue a message; it precedes frames that are not written yet."""
        self.queue.append(encode(message))

    def fill(self, buffer: Any, now: float) -> int:
        """Write what is to be sent now: messages, then whole frames.

        Parameters
        ----------
        buffer : writable bytes-like
            Has room for the largest frame and a message: ``outlet.buffer_bytes``.
        now : float
            Monotonic time, s.

        Returns
        -------
        int
            Bytes written from the buffer's start; 0: nothing to send, or no credit.

        Raises
        ------
        DataOverflow
            Not one frame fits the buffer.
        """
        return self.outlet.fill(self, memoryview(buffer).cast("B"), now)

    def ack(self, ack: Ack, now: float) -> None:
        """Take what the mirror has; `BadMessage` if it cannot be: close the channel."""
        self.outlet.ack(self, ack, now)

    def close(self, now: float) -> None:
        """The channel is closed: what was not acknowledged will be sent again."""
        self.outlet.close(self, now)


class StreamOutlet:
    """One stream and its mirrors.

    Parameters
    ----------
    stream, stream_id : str
        Name and id of the stream.
    labels : str
        Its labels, as JSON.
    store : FrameStore or None
        The ring; None if it is gone, and only the spool is left.
    spool : FrameSpool or None
        Files for frames that cannot wait in the ring; None: the producer waits.
    slots, slot_bytes : int
        Of the ring; most bytes of a payload.
    now : float
        Monotonic time, s.
    is_lossless : bool, optional
        False: for one mirror of policy 'lossy' or 'latest', which has a consumer of its
        own. Frames are released as they are sent; those that were overwritten are told.
    is_paced : bool, optional
        Whether frames come at a rate of their own, as a device's, which must not wait
        for a slow link; False: a producer that is faster than its link waits.
    has_holes : bool, optional
        Whether numbers may have no frame, as of a stream that several producers share:
        numbers between frames, of which no loss was noted here, are told as skipped.

    Notes
    -----
    The loop of a caller: `tick` after each frame of the ring, each acknowledgement and
    at `next_wake`, then `OutletLink.fill` for each link. Mirrors that `spool` remembers
    count from the start, linked or not.
    """

    def __init__(
        self,
        stream: str,
        stream_id: str,
        labels: str,
        store: FrameStore | None,
        spool: FrameSpool | None,
        *,
        slots: int,
        slot_bytes: int,
        now: float,
        is_lossless: bool = True,
        is_paced: bool = True,
        has_holes: bool = False,
    ) -> None:
        self.is_paced, self.has_holes = is_paced, has_holes
        self.stream, self.stream_id, self.labels = stream, stream_id, labels
        self.store, self.spool = store, spool
        self.slots, self.slot_bytes = slots, slot_bytes
        self.is_lossless = is_lossless
        self.problem = ""
        """Why frames wait in the ring, '' if they need not."""
        self._mirrors: dict[MirrorKey, _MirrorState] = {}
        self._end: StreamEnd | None = None
        self._events: list[str] = []
        self._account = FarAccount(0, 0, 0, 0)
        self._full_since: float | None = None
        self._full_until = 0
        self._wary_until = now
        self._retry_at = self._remember_at = now
        self._is_warned = self._is_full_told = self._is_drained = False
        self.is_noted = True
        """Whether the disk has what must be known after a kill: while the newest stream
        of a name has not, earlier ones may not be dropped, see `adopt`."""
        self._has_begun = False
        """Whether it has or had a mirror: before, all frames wait for the first."""
        if spool is not None:
            memory = spool.recall()
            for key, known in memory.mirrors.items():
                state = _MirrorState(key, known.next, now)
                state.on_spool_full = known.on_spool_full
                state.has_ended = known.has_ended
                state.needs = max(state.needs, self._oldest())
                self._mirrors[key] = state
                self._has_begun = True
            self._end = memory.end
        self._whole_from = self._oldest()
        """Losses of frames from this number on were noted."""
        self._lapses: list[tuple[int, int]] = []
        if store is None and self._end is None:
            self.end(
                has_died=True, why="its ring is gone: frames after these are not known"
            )

    # ---- mirrors

    def want(self, key: MirrorKey, want: Want, now: float) -> OutletLink:
        """Begin a link to a mirror; its first message is the `Offer`.

        An older link of the mirror ends. Raises `LoggerError` if the mirror cannot be
        remembered on the disk: refuse it, and it will try again.
        """
        state = self._mirrors.get(key)
        is_same = want.stream_id == self.stream_id and want.next is not None
        needs = None
        if is_same and want.next is not None:
            start = want.next
            needs = start if want.acked is None else min(start, want.acked)
        elif state is not None:
            start = state.needs  # its ring was lost
        else:
            start = self._oldest() if self.store is None else self._first
        acked = start if needs is None else needs
        made = state or _MirrorState(key, acked, now)
        is_news = state is None or state.on_spool_full != want.on_spool_full
        made.on_spool_full = want.on_spool_full
        self._mirrors[key] = made
        if is_news:
            try:
                self._remember()
            except BaseException:
                if state is None:
                    del self._mirrors[key]
                raise
        if made.link is not None:
            self.close(made.link, now)
        made.needs = start if needs is None else max(made.needs, needs)
        made.has_ended = is_same and want.has_ended
        self._has_begun = True
        made.progress_at = now
        made.links += 1
        made.link = OutletLink(self, key, start, acked, want.credit)
        made.link.push(self.offer(start))
        return made.link

    def offer(self, first: int) -> Offer:
        """Return the offer of the stream from a frame on."""
        return Offer(
            self.stream, self.stream_id, self.labels, first, self.slots,
            self.slot_bytes, self.is_ended,
        )  # fmt: skip

    def ack(self, link: OutletLink, ack: Ack, now: float) -> None:
        """Take what a mirror has; see `OutletLink.ack`."""
        state = self._state_of(link)
        if state is None:
            return
        if not link.acked <= ack.next <= link.sent or ack.granted < link.granted:
            raise BadMessage(
                f"{link.key.host}: acknowledged {ack.next} after {link.acked}, of "
                f"{link.sent} sent; granted {ack.granted} after {link.granted} bytes"
            )
        if ack.has_ended and not (link.has_sent_end and ack.next == link.sent):
            raise BadMessage(f"{link.key.host}: ended at {ack.next} before the stream")
        if ack.next > link.acked or ack.has_ended:
            state.progress_at = now
        link.acked, link.granted = ack.next, ack.granted
        state.needs = max(state.needs, ack.next)
        state.has_ended = state.has_ended or ack.has_ended
        state.pass_losses(ack.next)

    def close(self, link: OutletLink, now: float) -> None:
        """End a link; see `OutletLink.close`."""
        state = self._state_of(link)
        link.is_current = False
        if state is not None:
            state.link = None

    def forget(self, key: MirrorKey, now: float) -> None:
        """A mirror was closed for good: nothing is kept for it any more."""
        state = self._mirrors.pop(key, None)
        if state is not None and state.link is not None:
            state.link.is_current = False
        self._remember()
        self.tick(now)

    def adopt(self, earlier: StreamOutlet) -> None:
        """Begin with the mirrors of an earlier stream of the name.

        Nothing is released before they have it, also while they have no link. After a
        `LoggerError` they are adopted; the disk is tried again, see `is_noted`.
        """
        for key, known in earlier._mirrors.items():
            if key not in self._mirrors:
                state = _MirrorState(key, self._oldest(), known.progress_at)
                state.on_spool_full = known.on_spool_full
                self._mirrors[key] = state
                self._has_begun = True
        self._remember()

    def finish(self, key: MirrorKey) -> None:
        """A mirror says that it has the stream to its end."""
        if key in self._mirrors:
            self._mirrors[key].has_ended = True

    def knows(self, key: MirrorKey) -> bool:
        """Whether the mirror exists and has not received the whole stream."""
        return key in self._mirrors and not self._mirrors[key].has_ended

    def _state_of(self, link: OutletLink) -> _MirrorState | None:
        state = self._mirrors.get(link.key)
        return state if state is not None and state.link is link else None

    # ---- the stream

    def tick(self, now: float, *, may_write: bool = True) -> None:
        """Hold new frames; release, spool and forget others, as far as allowed.

        Without `may_write` nothing is spooled: another thread does, which may wait.
        """
        if self.is_lossless:
            for state in self._mirrors.values():
                if state.needs >= self.next:
                    state.progress_at = now  # patience begins with the next frame
            self._take(self.slots)
            oldest = self._oldest()
            for state in self._mirrors.values():
                if state.link is None:
                    state.needs = max(state.needs, oldest)
            if may_write:
                self._trim()
            self._release()
            if may_write:
                self._spill(now)
        pause = REMEMBER_S if self.is_noted else RETRY_S
        if may_write and now - self._remember_at >= pause and self._mirrors:
            self._remember_at = now
            try:
                self._remember()
            except (LoggerError, OSError) as error:
                self._events.append(f"the mirrors could not be noted: {error}")

    def next_wake(self, now: float) -> float:
        """Return when `tick` has something to do, without a frame or an ack, s."""
        store = self.store
        if store is None or not self._has_readers():
            return now + REMEMBER_S
        if not store.held and not self.is_ended:
            return now + REMEMBER_S
        if self.is_ended or 4 * store.held >= 3 * self.slots:
            return now + FULL_S / 2
        return now + PATIENCE_S

    def _take(self, most: int) -> None:
        """Hold frames that the ring has, up to its end."""
        while self.store is not None and not self._is_drained:
            _, status = self.store.take(most)
            if status == LAPPED:
                first = self._after
                count = self.store.accept()
                if self.has_holes and self.is_lossless:
                    self._lapses.append((first, first + count))
                continue
            if status == DAMAGED:
                self._damaged()
            elif status == ENDED:
                self._is_drained = True
                if self._end is None:
                    self.end()
            return

    def _damaged(self) -> None:
        """Go on without a ring whose words are damaged: what it had is told as lost."""
        self.end(has_died=True, why="the memory of its ring is damaged")
        self._events.append(f"the ring of {self.stream!r} is damaged: it is not read")
        self._lapses.append((self._first, self.next))
        self.store = None

    def end(self, *, has_died: bool = False, why: str = "") -> None:
        """Note how the stream ended; it is told after the last frame of its ring."""
        known = self._end.next if self._end is not None else 0
        self._end = StreamEnd(max(known, self.next), has_died, why)
        try:
            self._remember()
        except (LoggerError, OSError) as error:
            self._events.append(f"the end of {self.stream!r} was not noted: {error}")

    def detach(self) -> None:
        """Forget the ring, which has ended: `is_ring_needed` was false."""
        self.store = None

    def account(self, refused: int, gaps: int, stalled_ns: int) -> None:
        """Note what the stream's own words count; links tell their mirrors."""
        self._account = FarAccount(refused, gaps, stalled_ns, 0)

    @property
    def _first(self) -> int:
        """Number of the oldest frame that is held in the ring."""
        return (self.store.first or 0) if self.store is not None else 0

    @property
    def _after(self) -> int:
        """Number after the newest frame that is held in the ring."""
        return (self.store.next or 0) if self.store is not None else 0

    def _oldest(self) -> int:
        """Return the number of the oldest frame that is still here."""
        if self.spool is not None and self.spool.first < self.spool.next:
            return self.spool.first
        if self.store is not None:
            return self._first
        return self.next

    def _least_needed(self) -> int:
        """Return the number before which no mirror needs a frame."""
        needs = [m.needs for m in self._mirrors.values() if not m.has_ended]
        return min(needs, default=self.next)

    def _release(self) -> None:
        """Give back slots whose frames every mirror has, or a file."""
        if self.store is None or not self._has_begun:
            return
        until = self._least_needed()
        if self.spool is not None and self.spool.first < self.spool.next:
            # Not more, before it is trimmed: what follows it is in the ring, always.
            until = self.spool.next
        if until > self._first:
            self.store.release(until)

    def _trim(self) -> None:
        if self.spool is not None:
            until = min(self._least_needed(), self.spool.next)
            if until > self.spool.first:
                self.spool.trim(until)
            if 5 * self.spool.nbytes < 3 * self.spool.limit:
                self._is_warned = self._is_full_told = False

    def _spill(self, now: float) -> None:
        """Write the oldest held frames to the spool, if they cannot wait."""
        store, spool = self.store, self.spool
        if store is None or spool is None or not store.held or not self._has_readers():
            self.problem, self._full_since = "", None
            return
        until = self._spill_until(store, now)
        if until <= self._first:
            if self._full_since is None:
                self.problem = ""
            return
        if self._append(store, spool, until, now) or (
            self._lose(spool, until) and self._append(store, spool, until, now)
        ):
            self.problem = ""
        self._release()
        if not self._is_warned and 5 * spool.nbytes >= 4 * spool.limit:
            self._is_warned = True
            self._events.append(
                f"the spool of {self.stream!r} has {spool.nbytes} of {spool.limit} "
                "bytes: when it is full, its producer waits, or frames are lost"
            )

    def _has_readers(self) -> bool:
        return any(not m.has_ended for m in self._mirrors.values())

    def _spill_until(self, store: FrameStore, now: float) -> int:
        """Return the number before which frames go to the spool now."""
        held = store.held
        is_newer = not self.is_paced and self._first >= self._full_until
        if 4 * held < 3 * self.slots:
            self._full_since = None
        elif self._full_since is None or is_newer:
            self._full_since, self._full_until = now, self._after
        is_stuck = any(
            m.link is None or m.needs < self._first or now - m.progress_at >= PATIENCE_S
            for m in self._mirrors.values()
            if not m.has_ended and m.needs <= self._first
        )
        full_s = 0.0 if self._full_since is None else now - self._full_since
        if self.is_paced and full_s >= MOSTLY_S:
            self._wary_until = now + WARY_S
        is_full = now < self._wary_until or full_s >= FULL_S
        if self.is_ended and is_stuck:
            until = self._after  # its ring goes with its program
        elif self._full_since is not None and (is_stuck or is_full):
            until = self._after - self.slots // 2
        else:
            return self._first
        most = max(1, BATCH_BYTES * held // max(store.held_bytes, 1))
        return min(max(until, self._first + 1), self._first + most)

    def _append(
        self, store: FrameStore, spool: FrameSpool, until: int, now: float
    ) -> bool:
        """Write frames to the spool; return whether that succeeded."""
        if now < self._retry_at:
            return False
        try:
            spool.append(store, until)
        except SpoolFull as error:
            problem = f"the spool of {self.stream!r} is full: {error}"
            if self._is_full_told:  # once: it is full again after each frame
                self.problem = problem
            self._complain(problem)
            self._is_full_told = True
            return False
        except (LoggerError, OSError) as error:
            self._retry_at = now + RETRY_S
            self._complain(f"the spool of {self.stream!r} cannot be written: {error}")
            return False
        return True

    def _lose(self, spool: FrameSpool, until: int) -> bool:
        """Drop the oldest frames, if every mirror that needs them allows it."""
        is_spooled = spool.first < spool.next
        if is_spooled:
            until = spool.oldest_until
        losing = [
            m for m in self._mirrors.values() if not m.has_ended and m.needs < until
        ]
        if any(m.on_spool_full != "lose" for m in losing):
            return False
        self._whole_from = max(self._whole_from, until)
        for state in losing:
            state.needs = until
        if is_spooled:
            spool.trim(until)
        return True

    def _complain(self, problem: str) -> None:
        if not self.problem:
            self._events.append(problem)
        self.problem = problem

    def _remember(self) -> None:
        self.is_noted = self.spool is None
        if self.spool is not None:
            self.spool.remember(
                SpoolMemory(
                    self.stream,
                    self.stream_id,
                    self.labels,
                    {
                        key: KnownMirror(m.needs, m.on_spool_full, m.has_ended)
                        for key, m in self._mirrors.items()
                    },
                    self._end,
                    self.slots,
                    self.slot_bytes,
                )
            )
            self.is_noted = True

    # ---- sending

    def fill(self, link: OutletLink, buffer: memoryview, now: float) -> int:
        """Write what a link is to send now; see `OutletLink.fill`."""
        state = self._state_of(link)
        if state is None:
            return 0
        self._push_account(link, state, now)
        at = 0
        while True:
            while link.queue and at + len(link.queue[0]) <= len(buffer):
                data = link.queue.pop(0)
                buffer[at : at + len(data)] = data
                at += len(data)
            if link.queue:
                return at
            end = self._fill_frames(link, state, buffer, at)
            if end == at and not link.queue:
                return at
            at = end

    def _fill_frames(
        self, link: OutletLink, state: _MirrorState, buffer: memoryview, at: int
    ) -> int:
        """Copy frames from one place; or queue what is to be said before others."""
        if not self.is_lossless and link.sent_bytes < link.granted:
            most = min(len(buffer) - at, link.granted - link.sent_bytes)
            self._take(max(1, min(most // (HEAD_BYTES + self.slot_bytes), 64)))
        store = self.store
        found = self._place(link.sent)
        if found is None:
            if self._end is not None and self.is_ended and not link.has_sent_end:
                link.has_sent_end = True
                link.push(replace(self._end, next=max(self._end.next, link.sent)))
            return at
        is_held, first = found
        if first > link.sent:
            self._lost(link, state, first)
            return at
        if link.sent_bytes >= link.granted:
            return at
        least = HEAD_BYTES + self.slot_bytes
        most = max(link.granted - link.sent_bytes, least)
        room = buffer[: min(len(buffer), at + most)]
        if is_held and store is not None:
            end, after, status = store.copy(link.sent, room, at)
            if status == LAPPED and end == at:
                after += store.missing(link.sent)
            elif status == DAMAGED:
                self._damaged()
                return at
        else:
            assert self.spool is not None
            end, after = self.spool.read(link.sent, room, at)
        if end == at:
            if after > link.sent:
                self._lost(link, state, after)
            elif at == 0:
                raise DataOverflow(
                    f"frame {link.sent} of {self.stream!r} does not fit a buffer of "
                    f"{len(buffer)} bytes: give one of {self.buffer_bytes}"
                )
            return at
        state.frames += after - link.sent
        state.nbytes += end - at
        link.sent_bytes += end - at
        link.sent = after
        if not self.is_lossless and self.store is not None:
            state.needs = after
            self.store.release(after)
        return end

    def _place(self, sequence: int) -> tuple[bool, int] | None:
        """Return whether the ring has the next frame from a number on, and its number.

        None: there is none yet.
        """
        if sequence >= self.next:
            return None
        store, spool = self.store, self.spool
        if store is not None and self._first <= sequence < self._after:
            return True, sequence
        later = [self.next]
        if spool is not None and sequence < spool.next and spool.first < spool.next:
            if spool.first <= sequence:
                return False, sequence
            later.append(spool.first)
        if store is not None and store.held and sequence < self._first:
            later.append(self._first)
        return False, min(later)

    def _lost(self, link: OutletLink, state: _MirrorState, until: int) -> None:
        """Tell that the frames before a number will not follow."""
        if self._is_hole(state, link.sent, until):
            why = "these numbers had no frame"
            link.push(FramesLost(link.sent, until - link.sent, why, is_skipped=True))
            link.sent = until
            return
        if not self.is_lossless:
            why = "overwritten before they were sent"
        elif state.on_spool_full == "lose":
            why = "the spool at the stream's host was full"
        else:
            why = "not at the stream's host any more"
        state.count_loss(link.sent, until)
        link.push(FramesLost(link.sent, until - link.sent, why))
        link.sent = until
        if not self.is_lossless and self.store is not None:
            # Also of frames that were overwritten while they were held.
            state.needs = until
            self.store.release(until)

    def _is_hole(self, state: _MirrorState, first: int, end: int) -> bool:
        """Whether numbers never had a frame; False if it is not known.

        What an agent before has dropped is not known. It has dropped nothing that a
        mirror needs for which the producer waits.
        """
        return (
            self.has_holes
            and self.is_lossless
            and (first >= self._whole_from or state.on_spool_full == "wait")
            and not any(a < end and first < b for a, b in self._lapses)
        )

    def _push_account(self, link: OutletLink, state: _MirrorState, now: float) -> None:
        """Tell the mirror of losses, waits and backlog, at intervals."""
        if now - link.account_at < ACCOUNT_S or link.has_sent_end:
            return
        link.account_at = now
        known = self._account
        account = FarAccount(
            known.refused, known.gaps, known.stalled_ns, self.next, self._behind(state)
        )
        if account != link.account:
            link.account = account
            link.push(account)

    def _behind(self, state: _MirrorState) -> int:
        """Return bytes of the spool that a mirror has not acknowledged, nearly."""
        spool = self.spool
        if spool is None or state.has_ended or state.needs >= spool.next:
            return 0
        share = spool.next - max(state.needs, spool.first)
        return spool.nbytes * share // max(spool.next - spool.first, 1)

    # ---- what is

    @property
    def next(self) -> int:
        """Number after the newest frame that is here, or was."""
        found = self._end.next if self._end is not None else 0
        if self.store is not None:
            found = max(found, self._after)
        return found if self.spool is None else max(found, self.spool.next)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a buffer for `OutletLink.fill`."""
        return max(1 << 20, self.slot_bytes + (1 << 16))

    @property
    def is_ended(self) -> bool:
        """Whether the stream has ended, and its last frame is held or was sent."""
        return self._end is not None and (self.store is None or self._is_drained)

    @property
    def is_needed(self) -> bool:
        """Whether a mirror needs frames, now or later; else nothing may be held."""
        return self._has_readers()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, and every mirror has all of it: drop both."""
        return self.is_ended and not self._has_readers()

    @property
    def is_ring_needed(self) -> bool:
        """Whether frames are in the ring alone, or follow; else see `detach`."""
        return self.store is not None and (not self.is_ended or self.store.held > 0)

    @property
    def mirrors(self) -> tuple[MirrorKey, ...]:
        """The mirrors, linked or not."""
        return tuple(self._mirrors)

    def state(
        self, key: MirrorKey, now: float
    ) -> Literal["waiting", "flowing", "spooling", "resuming", "ended"]:
        """Return how the stream goes to a mirror.

        'waiting': without a link; 'spooling': its frames go to the spool; 'resuming':
        frames of the spool are sent.
        """
        state = self._mirrors[key]
        spool = self.spool
        if state.has_ended:
            return "ended"
        is_spooled = spool is not None and state.needs < spool.next
        if state.link is None:
            return "spooling" if is_spooled else "waiting"
        if spool is not None and state.link.sent < spool.next and is_spooled:
            is_stuck = now - state.progress_at >= PATIENCE_S
            return "spooling" if is_stuck else "resuming"
        return "flowing"

    def statistics(self, key: MirrorKey, now: float) -> OutletStatistics:
        """Return the totals of a mirror, since this outlet was made."""
        state = self._mirrors[key]
        lost = state.lost + sum(end - first for first, end in state.told)
        return OutletStatistics(
            self.state(key, now), state.link is not None, state.links, state.frames,
            state.nbytes, lost, max(self.next - state.needs, 0), self._behind(state),
        )  # fmt: skip

    def events(self) -> list[str]:
        """Return what is to be told to the user, since the last call."""
        events, self._events = self._events, []
        return events


@dataclass(frozen=True)
class OutletStatistics:
    """Totals of one mirror at the stream's host."""

    state: str
    is_linked: bool
    links: int
    """Links so far."""
    frames: int
    """Frames sent, repeats after a break included."""
    nbytes: int
    """Bytes of them."""
    lost: int
    """Frames told as lost, each once."""
    behind: int
    """Frames that the mirror has not acknowledged."""
    spooled_bytes: int
    """Bytes of the spool that it has not acknowledged, nearly."""


def choose_outlet(
    outlets: Sequence[StreamOutlet], key: MirrorKey, want: Want
) -> StreamOutlet | None:
    """Return the outlet that serves a mirror: the oldest one that it needs frames of.

    Parameters
    ----------
    outlets : sequence of StreamOutlet
        Of one name: those that have ended and are still needed, oldest first, and the
        one of the stream that exists now.
    key : MirrorKey
        The mirror.
    want : Want
        What it asks for. If it has a stream to its end, that outlet is told.

    Returns
    -------
    StreamOutlet or None
        None: no stream has frames for it: send `Absent`, and choose again when one of
        the name appears.
    """
    for k, outlet in enumerate(outlets):
        if outlet.stream_id == want.stream_id:
            for earlier in outlets[:k]:
                earlier.finish(key)  # it may have said so to an agent that was killed
            if not want.has_ended:
                return outlet
            outlet.finish(key)
    for outlet in outlets:
        is_new = key not in outlet.mirrors and outlet.store is not None
        has_it = want.has_ended and outlet.stream_id == want.stream_id
        if outlet.knows(key) or (is_new and not has_it):
            return outlet
    return None
