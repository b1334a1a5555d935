"""A stream at its own host: what is released, spooled, lost, and sent to whom."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_lab import FRAME_BYTES, PAYLOAD, Disk, DiskSpool, Ring, Store, frame_of

from ataraxis.errors import BadMessage, DataOverflow, LoggerError
from ataraxis.link.messages import (
    Ack,
    FarAccount,
    FramesLost,
    LinkMessage,
    Offer,
    StreamEnd,
    Want,
    is_data,
    next_message,
)  # fmt: skip
from ataraxis.link.outlet import OutletLink, StreamOutlet, choose_outlet
from ataraxis.link.spool import MirrorKey

SLOTS = 16
GPU, VIEW = MirrorKey("gpu", "camera"), MirrorKey("view", "camera")
MUCH = 1 << 20


class Rig:
    """A ring, a disk, an outlet, and what its mirrors receive."""

    def __init__(self, spool: int | None = 1000, **more: Any) -> None:
        self.ring, self.disk, self.more, self.spool = (
            Ring("id", SLOTS),
            Disk(),
            more,
            spool,
        )
        self.ring.is_gating = True
        self.now = 0.0
        self.outlet = self.make()

    def make(self, *, is_ring_there: bool = True) -> StreamOutlet:
        spool = None
        if self.spool is not None:
            limit = self.spool * FRAME_BYTES
            spool = DiskSpool(self.disk, "id", lambda: None, limit)
        self.outlet = StreamOutlet(
            "camera", "id", "{}",
            Store(self.ring, lambda: None) if is_ring_there else None, spool,
            slots=SLOTS, slot_bytes=PAYLOAD, now=self.now, **self.more,
        )  # fmt: skip
        return self.outlet

    def send(self, count: int, *, each: float = 0.001) -> int:
        """Send frames; return how many were taken without a wait."""
        done = 0
        for _ in range(count):
            self.now += each
            done += self.ring.send()
            self.outlet.tick(self.now)
        return done

    def pause(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.outlet.next_wake(self.now), until)
            self.outlet.tick(self.now)

    def want(self, key: MirrorKey = GPU, **more: Any) -> OutletLink:
        options = {"credit": MUCH, **more}
        return self.outlet.want(key, Want("camera", key.mirror, **options), self.now)

    def again(self, next: int, key: MirrorKey = GPU, **more: Any) -> OutletLink:
        return self.want(key, stream_id="id", next=next, **more)

    def receive(self, link: OutletLink) -> tuple[list[LinkMessage], list[int]]:
        """Return messages and numbers that are sent now."""
        buffer, data = bytearray(4096), b""
        while size := link.fill(buffer, self.now):
            data += buffer[:size]
        messages, numbers, at, view = [], [], 0, memoryview(data)
        while at < len(data):
            if is_data(view, at, len(data)):
                number = int.from_bytes(data[at + 16 : at + 24], "little")
                assert data[at : at + FRAME_BYTES] == frame_of("id", number)
                numbers.append(number)
                at += FRAME_BYTES
            else:
                message, at = next_message(view, at, len(data))
                if message is not None and not isinstance(message, FarAccount):
                    messages.append(message)
        return messages, numbers


def ack(next: int, granted: int = MUCH, **more: bool) -> Ack:
    return Ack(next, granted, **more)


# ---- what is held, and released


def test_frames_are_held_until_they_are_acknowledged() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(5)
    [offer], numbers = rig.receive(link)
    assert offer == Offer("camera", "id", "{}", 0, SLOTS, PAYLOAD)
    assert numbers == [0, 1, 2, 3, 4]
    assert rig.ring.tail == 0
    link.ack(ack(3), rig.now)
    rig.outlet.tick(rig.now)
    assert rig.ring.tail == 3
    assert rig.outlet.state(GPU, rig.now) == "flowing"


def test_frames_wait_for_the_first_mirror() -> None:
    rig = Rig()
    assert rig.send(100) == SLOTS
    assert rig.receive(rig.want())[1] == list(range(SLOTS))


def test_after_the_last_mirror_nothing_is_held() -> None:
    rig = Rig()
    rig.want()
    rig.outlet.forget(GPU, 0.0)
    assert rig.send(100) == 100
    assert not rig.outlet.is_needed


def test_a_thread_that_must_not_wait_writes_nothing() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.ring.head = 14
    rig.ring.frames = {k: frame_of("id", k) for k in range(14)}
    rig.outlet.tick(1.0, may_write=False)
    assert rig.outlet.spool.nbytes == 0  # type: ignore[union-attr]
    rig.outlet.tick(1.0)
    assert rig.outlet.spool.nbytes > 0  # type: ignore[union-attr]


def test_a_producer_that_is_faster_than_its_link_waits() -> None:
    rig = Rig(is_paced=False)
    link = rig.want(credit=FRAME_BYTES)
    for _ in range(100):
        rig.send(3, each=0.01)
        rig.receive(link)
        link.ack(ack(link.sent, link.sent_bytes + FRAME_BYTES), rig.now)
    assert rig.outlet.spool.nbytes == 0  # type: ignore[union-attr]
    rig.pause(0.6)
    assert rig.outlet.spool.nbytes > 0  # type: ignore[union-attr]


def test_the_slowest_mirror_decides() -> None:
    rig = Rig()
    gpu, view = rig.want(), rig.want(VIEW)
    rig.send(8)
    for link in (gpu, view):
        rig.receive(link)
    gpu.ack(ack(8), rig.now)
    view.ack(ack(2), rig.now)
    rig.outlet.tick(rig.now)
    assert rig.ring.tail == 2
    rig.outlet.forget(VIEW, rig.now)
    assert rig.ring.tail == 8
    assert not view.is_current


def test_a_burst_alone_is_not_spooled() -> None:
    rig = Rig()
    link = rig.want()
    rig.pause(10)
    rig.send(14, each=0)
    assert rig.outlet.spool.nbytes == 0  # type: ignore[union-attr]
    assert len(rig.receive(link)[1]) == 14


def test_a_mirror_without_link_costs_disk_not_time() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(4)
    link.close(rig.now)
    assert rig.send(200) == 200
    assert rig.outlet.state(GPU, rig.now) == "spooling"
    link = rig.again(2)
    messages, numbers = rig.receive(link)
    assert numbers == list(range(2, 204))
    assert [type(m) for m in messages] == [Offer]
    link.ack(ack(204), rig.now)
    rig.outlet.tick(rig.now)
    assert (rig.ring.tail, rig.outlet.spool.nbytes) == (204, 0)  # type: ignore[union-attr]
    assert rig.outlet.state(GPU, rig.now) == "flowing"


def test_a_link_that_is_silent_costs_at_most_half_a_second() -> None:
    rig = Rig()
    rig.want()
    assert rig.send(12, each=0) == 12
    rig.pause(0.5)
    assert rig.ring.tail > 0


def test_a_mirror_that_is_slow_all_the_time_gates_no_one() -> None:
    rig = Rig()
    link, waited = rig.want(credit=FRAME_BYTES), 0
    for k in range(300):
        waited += 1 - rig.send(1, each=0.01)
        if k % 3 == 0:
            rig.receive(link)
            link.ack(ack(link.sent, link.sent_bytes + FRAME_BYTES), rig.now)
    assert waited <= 20
    assert rig.outlet.spool.nbytes > 0  # type: ignore[union-attr]


def test_the_fast_mirror_reads_the_ring_while_the_other_reads_the_disk() -> None:
    rig = Rig()
    gpu = rig.want()
    rig.want(VIEW).close(0.0)
    for _ in range(100):
        assert rig.send(1) == 1
        _, numbers = rig.receive(gpu)
        assert len(numbers) == 1
        gpu.ack(ack(gpu.sent), rig.now)
    assert rig.outlet.statistics(VIEW, rig.now).behind == 100
    assert rig.receive(rig.again(0, VIEW))[1] == list(range(100))


# ---- links


def test_what_was_on_its_way_is_sent_again() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(6)
    rig.receive(link)
    link.ack(ack(1), rig.now)
    link.close(rig.now)
    [offer], numbers = rig.receive(rig.again(3))
    assert isinstance(offer, Offer)
    assert (offer.first, numbers) == (3, [3, 4, 5])


def test_a_new_link_replaces_the_old_one() -> None:
    rig = Rig()
    old = rig.want()
    rig.send(3)
    new = rig.again(0)
    assert not old.is_current
    assert old.fill(bytearray(4096), rig.now) == 0
    old.ack(ack(10**6), rig.now)
    old.close(rig.now)
    assert rig.receive(new)[1] == [0, 1, 2]
    assert rig.outlet.statistics(GPU, rig.now).links == 2


def test_a_mirror_that_lost_its_ring_begins_where_it_had_acknowledged() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(6)
    rig.receive(link)
    link.ack(ack(4), rig.now)
    link.close(rig.now)
    [offer], numbers = rig.receive(rig.want())
    assert offer.first == 4  # type: ignore[union-attr]
    assert numbers == [4, 5]


def test_what_is_not_recorded_is_kept() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.send(6)
    link = rig.again(6, acked=2)
    rig.outlet.tick(rig.now)
    assert rig.receive(link)[1] == []
    link.ack(ack(4), rig.now)
    link.close(rig.now)
    assert rig.receive(rig.want())[1] == [4, 5]


def test_credit_bounds_what_is_on_its_way() -> None:
    rig = Rig()
    link = rig.want(credit=3 * FRAME_BYTES)
    rig.send(10)
    first = rig.receive(link)[1]
    assert 3 <= len(first) <= 5
    assert rig.receive(link)[1] == []
    link.ack(ack(0, 6 * FRAME_BYTES), rig.now)
    assert 1 <= len(rig.receive(link)[1]) <= 5


@pytest.mark.parametrize(
    "bad", [ack(1), ack(9), ack(4, 5), ack(4, has_ended=True)], ids=str
)
def test_an_impossible_acknowledgement_closes_the_link(bad: Ack) -> None:
    rig = Rig()
    link = rig.want()
    rig.send(5)
    rig.receive(link)
    link.ack(ack(2), rig.now)
    with pytest.raises(BadMessage):
        link.ack(bad, rig.now)
    rig.outlet.tick(rig.now)
    assert rig.ring.tail == 2


def test_a_buffer_that_is_too_small_is_said() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(1)
    rig.receive(rig.want(VIEW))
    link.fill(bytearray(4096), rig.now)
    link.close(rig.now)
    link = rig.again(0)
    buffer = bytearray(len(link.queue[0]) + 200)
    while link.queue:
        link.fill(buffer, rig.now)
    link.sent = 0
    with pytest.raises(DataOverflow, match="give one of"):
        link.fill(bytearray(10), rig.now)


# ---- kills


def test_a_killed_agent_knows_its_mirrors_and_loses_nothing() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.send(40)
    rig.make()
    assert rig.outlet.mirrors == (GPU,)
    assert rig.send(40) == 40
    assert rig.receive(rig.again(0))[1] == list(range(80))


def test_a_mirror_that_cannot_be_noted_is_not_offered_anything() -> None:
    rig = Rig()
    rig.disk.is_full = True
    with pytest.raises(LoggerError):
        rig.want()
    assert rig.outlet.mirrors == ()
    rig.disk.is_full = False
    rig.want()


# ---- a full spool, a full disk


def test_a_full_spool_makes_the_producer_wait_and_says_so() -> None:
    rig = Rig(spool=40)
    rig.want().close(0.0)
    sent = rig.send(100)
    assert sent < 60
    events = rig.outlet.events()
    assert any("when it is full" in event for event in events)
    assert any("is full" in event for event in events)
    assert rig.outlet.problem
    link = rig.again(0)
    for _ in range(20):
        numbers = rig.receive(link)[1]
        if numbers:
            link.ack(ack(numbers[-1] + 1), rig.now)
        rig.pause(0.1)
    assert link.sent == sent
    assert rig.outlet.problem == ""


def test_a_full_disk_makes_the_producer_wait_and_is_tried_again() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.disk.is_full = True
    assert rig.send(30) == SLOTS
    assert "cannot be written" in rig.outlet.problem
    rig.disk.is_full = False
    rig.pause(1.2)
    assert rig.outlet.problem == ""
    assert rig.send(30) == 30
    assert rig.receive(rig.again(0))[1] == list(range(46))


def test_a_spool_may_lose_the_oldest_and_counts_them_exactly() -> None:
    rig = Rig(spool=40)
    rig.want(on_spool_full="lose").close(0.0)
    assert rig.send(500) == 500
    link = rig.again(0, on_spool_full="lose")
    messages, numbers = rig.receive(link)
    [lost] = [m for m in messages if isinstance(m, FramesLost)]
    assert lost.first == 0
    assert numbers == list(range(lost.count, 500))
    assert "full" in lost.why
    assert rig.outlet.statistics(GPU, rig.now).lost == lost.count


def test_a_loss_that_is_told_twice_counts_once() -> None:
    rig = Rig(spool=40)
    rig.want(on_spool_full="lose").close(0.0)
    rig.send(200)
    first = rig.again(0, on_spool_full="lose")
    rig.receive(first)
    first.close(rig.now)
    rig.send(200)
    link = rig.again(0, on_spool_full="lose")
    messages, numbers = rig.receive(link)
    total = sum(m.count for m in messages if isinstance(m, FramesLost))
    assert total + len(numbers) == 400
    link.ack(ack(400), rig.now)
    assert rig.outlet.statistics(GPU, rig.now).lost == total


def test_one_mirror_that_waits_keeps_what_another_would_lose() -> None:
    rig = Rig(spool=40)
    rig.want(on_spool_full="lose").close(0.0)
    rig.want(VIEW).close(0.0)
    sent = rig.send(200)
    assert sent < 60
    assert rig.receive(rig.again(0, VIEW))[1] == list(range(sent))


# ---- the end


def test_the_end_follows_the_last_frame() -> None:
    rig = Rig()
    link = rig.want()
    rig.send(3)
    rig.ring.is_ended = True
    rig.outlet.tick(rig.now)
    messages, numbers = rig.receive(link)
    assert numbers == [0, 1, 2]
    assert messages[-1] == StreamEnd(3)
    assert not rig.outlet.is_over
    link.ack(ack(3), rig.now)
    assert not rig.outlet.is_over
    link.ack(ack(3, has_ended=True), rig.now)
    assert rig.outlet.is_over
    assert rig.outlet.state(GPU, rig.now) == "ended"
    assert rig.receive(link) == ([], [])


def test_a_stream_that_ended_goes_to_the_disk_with_its_end() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.send(3)
    rig.ring.is_ended = True
    rig.outlet.end(has_died=True, why="killed")
    rig.pause(1.0)
    assert not rig.outlet.is_ring_needed
    rig.make(is_ring_there=False)
    messages, numbers = rig.receive(rig.again(1))
    assert numbers == [1, 2]
    assert messages[-1] == StreamEnd(3, True, "killed")


def test_a_ring_that_is_gone_is_told() -> None:
    rig = Rig()
    rig.want().close(0.0)
    rig.send(40)
    rig.make(is_ring_there=False)
    messages, numbers = rig.receive(rig.again(0))
    end = messages[-1]
    assert isinstance(end, StreamEnd)
    assert (end.has_died, end.next) == (True, len(numbers))


def test_the_next_stream_of_the_name_waits_for_the_mirrors_of_the_last() -> None:
    old, new = Rig(), Rig()
    old.want().close(0.0)
    old.send(3)
    new.outlet.stream_id = "new"
    new.outlet.adopt(old.outlet)
    assert new.send(5) == 5
    assert new.ring.tail == 0
    outlets = [old.outlet, new.outlet]
    asks = Want("camera", "camera", stream_id="id", next=1)
    assert choose_outlet(outlets, GPU, asks) is old.outlet
    asks = Want("camera", "camera")
    assert choose_outlet(outlets, GPU, asks) is old.outlet
    asks = Want("camera", "camera", stream_id="id", next=3, has_ended=True)
    assert choose_outlet(outlets, GPU, asks) is new.outlet
    assert not old.outlet.knows(GPU)
    assert choose_outlet(outlets[:1], GPU, asks) is None
    assert choose_outlet([], GPU, asks) is None


def test_a_mirror_of_the_next_stream_has_the_last_one_to_its_end() -> None:
    old, new = Rig(), Rig()
    old.want().close(0.0)
    new.outlet.stream_id = "new"
    new.outlet.adopt(old.outlet)
    asks = Want("camera", "camera", stream_id="new", next=0)
    assert choose_outlet([old.outlet, new.outlet], GPU, asks) is new.outlet
    assert not old.outlet.knows(GPU)


def test_what_a_full_disk_could_not_note_is_noted_later() -> None:
    old, new = Rig(), Rig()
    old.want().close(0.0)
    new.disk.is_full = True
    with pytest.raises(LoggerError):
        new.outlet.adopt(old.outlet)
    assert not new.outlet.is_noted
    new.disk.is_full = False
    new.pause(1.5)
    assert new.outlet.is_noted
    assert new.make().mirrors == (GPU,)


def test_frames_of_a_damaged_ring_are_lost_and_not_holes() -> None:
    rig = Rig()
    rig.outlet.has_holes = True
    link = rig.want()
    rig.send(4)
    rig.outlet._damaged()
    messages, after = rig.receive(link)
    [lost] = [m for m in messages if isinstance(m, FramesLost)]
    assert not lost.is_skipped
    assert (lost.first, lost.count, after) == (0, 4, [])


# ---- mirrors that may lose


def test_a_lossy_mirror_holds_nothing_and_is_told_what_it_missed() -> None:
    rig = Rig(spool=None, is_lossless=False)
    rig.ring.is_gating = False
    link = rig.want(policy="lossy", credit=3 * FRAME_BYTES)
    rig.send(4)
    numbers = rig.receive(link)[1]
    assert numbers == list(range(len(numbers)))
    assert rig.outlet.store.held == 0  # type: ignore[union-attr]
    kept = rig.outlet.store
    kept.numbers, kept.next = [], 10  # type: ignore[union-attr]
    rig.ring.head, rig.ring.tail = 12, 10
    rig.ring.frames = {k: frame_of("id", k) for k in (10, 11)}
    link.ack(ack(link.sent), rig.now)
    messages, after = rig.receive(link)
    [lost] = [m for m in messages if isinstance(m, FramesLost)]
    assert (lost.first, lost.first + lost.count, after) == (len(numbers), 10, [10, 11])


def test_the_account_of_the_stream_is_told_when_it_changes() -> None:
    rig = Rig()
    link = rig.want()
    rig.outlet.account(1, 2, 3)
    buffer = bytearray(4096)
    size = link.fill(buffer, rig.now)
    offer, at = next_message(memoryview(buffer), 0, size)
    account, _ = next_message(memoryview(buffer), at, size)
    assert isinstance(offer, Offer | FarAccount)
    assert {offer, account} >= {FarAccount(1, 2, 3, 0)}
    assert link.fill(buffer, rig.now + 10) == 0
