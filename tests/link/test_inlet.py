"""A mirror at its own host: what is asked for, published, acknowledged, refused."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_lab import FRAME_BYTES, frame_of

from ataraxis._kernels.journal_write import FULL, OK, TORN
from ataraxis.errors import BadMessage
from ataraxis.link.inlet import ACK_S, CONTROL, GAP, StreamInlet
from ataraxis.link.messages import (
    Absent,
    Ack,
    Beat,
    FarAccount,
    FramesLost,
    Offer,
    StreamEnd,
    encode,
)  # fmt: skip

OFFER = Offer("camera", "id", "{}", 0, 16, 16)


class Mirrored:
    """A ring that checks nothing but order, and its host."""

    fault = "its checksum is wrong"

    def __init__(self) -> None:
        self.next = self.repeated = 0
        self.room = 10**6
        self.lost: list[tuple[int, int]] = []
        self.told: Any = None
        self.did: list[Any] = []

    def write(self, buffer: Any, start: int, stop: int) -> tuple[int, int]:
        while stop - start >= FRAME_BYTES:
            if buffer[start + 48] == 0:
                return start, CONTROL
            number = int.from_bytes(buffer[start + 16 : start + 24], "little")
            if bytes(buffer[start : start + FRAME_BYTES]) != frame_of("id", number):
                return start, TORN
            if number > self.next:
                return start, GAP
            if number < self.next:
                self.repeated += 1
            elif not self.room:
                return start, FULL
            else:
                self.next, self.room = self.next + 1, self.room - 1
            start += FRAME_BYTES
        return start, OK

    def lose(self, first: int, count: int) -> None:
        self.lost.append((first, count))
        self.next = first + count

    def account(self, *numbers: int) -> None:
        self.told = numbers

    def begin(self, offer: Offer) -> Mirrored:
        self.did.append(offer.stream_id)
        self.next = offer.first
        return self

    def end(self, end: StreamEnd) -> None:
        self.did.append(end)


def flowing(**more: Any) -> tuple[StreamInlet, Mirrored]:
    ring = Mirrored()
    inlet = StreamInlet(ring, "camera", "m", **more)
    inlet.want(0.0)
    inlet.take(OFFER, 0.0)
    return inlet, ring


def data(*numbers: int) -> bytes:
    return b"".join(frame_of("id", n) for n in numbers)


def publish(inlet: StreamInlet, *numbers: int, now: float = 0.0) -> int:
    sent = data(*numbers)
    at, _ = inlet.publish(sent, 0, len(sent), now)
    return at // FRAME_BYTES


def test_frames_are_published_and_acknowledged() -> None:
    inlet, ring = flowing()
    assert inlet.state == "flowing"
    assert publish(inlet, 0, 1, 2) == 3
    assert inlet.ack_due(0.001) is None
    assert inlet.next_wake(0.001) == pytest.approx(ACK_S)
    ack = inlet.ack_due(ACK_S)
    assert ack == Ack(3, inlet._window + 3 * FRAME_BYTES)
    assert inlet.ack_due(1.0) is None
    assert inlet.statistics().frames == ring.next == 3


def test_many_frames_and_many_bytes_are_acknowledged_at_once() -> None:
    inlet, _ = flowing()
    publish(inlet, *range(64))
    assert inlet.ack_due(0.0) is not None
    inlet, _ = flowing(channel_window=1000)
    inlet._bytes_since = 1 << 16
    publish(inlet, 0)
    assert inlet.ack_due(0.0) is not None


def test_large_frames_are_acknowledged_together_while_more_arrive() -> None:
    inlet, _ = flowing()
    publish(inlet, 0)
    inlet._bytes_since = inlet._window // 3 - 1
    assert inlet.ack_due(0.001) is None
    assert inlet.is_ack_held
    publish(inlet, 1)
    assert inlet._bytes_since >= inlet._window // 3
    ack = inlet.ack_due(0.002)
    assert ack is not None
    assert ack.next == 2
    assert not inlet.is_ack_held


def test_a_large_frame_is_acknowledged_at_once_if_no_other_follows() -> None:
    inlet, _ = flowing()
    publish(inlet, 0)
    inlet._bytes_since = 1 << 17
    assert inlet.ack_due(0.0) is None
    assert inlet.is_ack_held
    ack = inlet.ack_due(0.0, is_calm=True)
    assert ack is not None
    assert ack.next == 1
    assert not inlet.is_ack_held


def test_small_frames_wait_for_their_acknowledgement_also_if_calm() -> None:
    inlet, _ = flowing()
    publish(inlet, 0)
    assert inlet.ack_due(0.0, is_calm=True) is None
    assert not inlet.is_ack_held
    assert inlet.ack_due(ACK_S) is not None


def test_what_did_not_fit_the_ring_is_not_acknowledged() -> None:
    inlet, ring = flowing()
    ring.room = 2
    assert publish(inlet, 0, 1, 2) == 2
    ack = inlet.ack_due(1.0)
    assert ack is not None
    assert (ack.next, ack.granted) == (2, inlet._window + 2 * FRAME_BYTES)


def test_a_window_holds_two_frames() -> None:
    ring = Mirrored()
    inlet = StreamInlet(ring, "camera", "m", channel_window=100)
    assert inlet.want(0.0).credit == 100
    inlet.take(Offer("camera", "id", "{}", 0, 4, 5000), 0.0)
    ack = inlet.ack_due(1.0)
    assert ack is not None
    assert ack.granted > 10_000


def test_a_repeated_frame_is_dropped_and_counted() -> None:
    inlet, ring = flowing()
    publish(inlet, 0, 1)
    publish(inlet, 0, 1, 2)
    assert (ring.next, inlet.statistics().repeated) == (3, 2)


@pytest.mark.parametrize("number", [2, 10**6])
def test_a_hole_closes_the_link_and_is_asked_for(number: int) -> None:
    inlet, ring = flowing()
    publish(inlet, 0)
    with pytest.raises(BadMessage, match="missing"):
        publish(inlet, number)
    inlet.lost_link(1.0)
    assert inlet.state == "disconnected"
    want = inlet.want(2.0)
    assert (want.stream_id, want.next, want.acked) == ("id", 1, 1)
    assert ring.next == 1


def test_a_damaged_frame_closes_the_link() -> None:
    inlet, _ = flowing()
    bad = bytearray(data(0))
    bad[-1] ^= 1
    with pytest.raises(BadMessage, match="checksum"):
        inlet.publish(bad, 0, len(bad), 0.0)


def test_frames_before_an_offer_are_left_to_the_messages() -> None:
    inlet = StreamInlet(Mirrored(), "camera", "m")
    inlet.want(0.0)
    assert inlet.publish(data(0), 0, FRAME_BYTES, 0.0) == (0, CONTROL)


def test_a_message_ends_what_is_published() -> None:
    inlet, _ = flowing()
    mixed = data(0, 1) + encode(Beat(1)) + data(2)
    assert inlet.publish(mixed, 0, len(mixed), 0.0) == (2 * FRAME_BYTES, CONTROL)


# ---- what is lost


def test_a_loss_is_passed_over_and_counted_once() -> None:
    inlet, ring = flowing()
    publish(inlet, 0)
    inlet.take(FramesLost(1, 4, "full"), 0.0)
    assert (ring.next, ring.lost, inlet.lost) == (5, [(1, 4)], 4)
    inlet.take(FramesLost(1, 4, "full"), 0.0)
    inlet.take(FramesLost(3, 5, "full"), 0.0)
    assert (ring.next, inlet.lost) == (8, 7)
    publish(inlet, 8)
    ack = inlet.ack_due(1.0)
    assert ack is not None
    assert ack.next == 9


def test_a_loss_after_a_hole_closes_the_link() -> None:
    inlet, _ = flowing()
    with pytest.raises(BadMessage, match="was not sent"):
        inlet.take(FramesLost(1, 4), 0.0)


# ---- begin, end, and what follows


def test_the_end_is_told_once_all_is_here() -> None:
    inlet, ring = flowing()
    publish(inlet, 0)
    with pytest.raises(BadMessage, match="ends at 5"):
        inlet.take(StreamEnd(5), 0.0)
    inlet.take(StreamEnd(1), 0.0)
    assert ring.did == ["id", StreamEnd(1)]
    ack = inlet.ack_due(0.0)
    assert ack is not None
    assert (ack.next, ack.has_ended, inlet.state) == (1, True, "ended")
    want = inlet.want(0.0)
    assert (want.stream_id, want.has_ended) == ("id", True)
    inlet.take(Absent("camera", "not started"), 0.0)
    assert inlet.reason == "not started"
    inlet.take(Offer("camera", "new", "{}", 0, 16, 16), 0.0)
    assert ring.did[2:] == ["new"]
    assert inlet.state == "flowing"


def test_a_stream_that_was_replaced_meanwhile_ends_before_the_next() -> None:
    inlet, ring = flowing()
    publish(inlet, 0)
    inlet.lost_link(0.0)
    inlet.want(1.0)
    inlet.take(Offer("camera", "new", "{}", 3, 16, 16), 1.0)
    assert ring.did[1].next == 1
    assert ring.did[1].has_died
    assert "did not arrive" in ring.did[1].why
    assert (ring.did[2], ring.next, inlet.stream_id) == ("new", 3, "new")


def test_a_killed_agent_goes_on_with_its_ring() -> None:
    ring = Mirrored()
    ring.next = 7
    inlet = StreamInlet(ring, "camera", "m")
    inlet.resume(ring, "id")
    want = inlet.want(0.0)
    assert (want.stream_id, want.next, want.has_ended) == ("id", 7, False)
    inlet.take(Offer("camera", "id", "{}", 7, 16, 16), 0.0)
    assert publish(inlet, 6, 7) == 2
    assert (ring.next, ring.did) == (8, [])


@pytest.mark.parametrize(
    "message",
    [
        Offer("camera", "id", "{}", 0, 16, 16), FramesLost(0, 1), StreamEnd(0),
        FarAccount(0, 0, 0, 0),
    ],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_messages_without_a_want_or_an_offer_close_the_link(message: Any) -> None:
    inlet = StreamInlet(Mirrored(), "camera", "m")
    with pytest.raises(BadMessage):
        inlet.take(message, 0.0)


def test_an_offer_from_elsewhere_closes_the_link() -> None:
    inlet, _ = flowing()
    with pytest.raises(BadMessage):
        inlet.take(OFFER, 0.0)
    publish(inlet, 0)
    inlet.lost_link(0.0)
    inlet.want(0.0)
    with pytest.raises(BadMessage, match="1 was asked for"):
        inlet.take(OFFER, 0.0)


def test_other_messages_are_left_to_others() -> None:
    inlet, _ = flowing()
    assert not inlet.take(Beat(1), 0.0)


# ---- what is recorded, and accounts


def test_only_what_is_recorded_is_acknowledged() -> None:
    inlet, ring = flowing(is_recorded=True)
    publish(inlet, 0, 1, 2)
    ack = inlet.ack_due(1.0)
    assert ack is not None
    assert (ack.next, ack.granted - inlet._window) == (0, 3 * FRAME_BYTES)
    inlet.recorded(2)
    assert inlet.ack_due(2.0) is None
    ack = inlet.ack_due(2.1)
    assert ack is not None
    assert ack.next == 2
    inlet.take(StreamEnd(3), 2.5)
    ack = inlet.ack_due(3.0)
    assert ack is None or not ack.has_ended
    inlet.recorded(3)
    ack = inlet.ack_due(3.0)
    assert ack is not None
    assert ack.has_ended
    assert ring.next == 3


def test_a_recorded_mirror_asks_for_both_numbers() -> None:
    inlet, _ = flowing(is_recorded=True)
    publish(inlet, 0, 1, 2)
    inlet.recorded(1)
    inlet.lost_link(0.0)
    want = inlet.want(1.0)
    assert (want.next, want.acked) == (3, 1)


def test_accounts_reach_the_ring_and_the_state() -> None:
    inlet, ring = flowing()
    inlet.take(FarAccount(1, 2, 3, 10, 500), 0.0)
    assert (ring.told, inlet.state, inlet.behind) == ((1, 2, 3), "spooling", 10)
    inlet.take(FarAccount(1, 2, 3, 10), 0.0)
    assert inlet.state == "flowing"
    assert inlet.statistics().behind == 10


def test_nothing_waits_in_a_spool_after_the_end() -> None:
    inlet, _ = flowing()
    inlet.take(FarAccount(0, 0, 0, 1, 500), 0.0)
    publish(inlet, 0)
    assert inlet.statistics().spooled_bytes == 500
    inlet.take(StreamEnd(1), 0.0)
    assert inlet.statistics().spooled_bytes == 0


def test_a_refused_mirror_is_lost() -> None:
    inlet, _ = flowing()
    inlet.fail("another lab")
    inlet.lost_link(0.0)
    assert (inlet.state, inlet.reason) == ("lost", "another lab")
