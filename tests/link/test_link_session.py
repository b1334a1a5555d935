"""One end of a channel: hello, beats, silence, round trips, pauses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ataraxis.errors import BadMessage
from ataraxis.link.messages import Ack, Beat, Hello, Refuse
from ataraxis.link.session import DEAD_S, Backoff, LinkSession

ACQ = Hello("rig", "acq", "boot-a", "agent-a")
GPU = Hello("rig", "gpu", "boot-g", "agent-g")


def pair(now: float = 0.0, **more: bool) -> tuple[LinkSession, LinkSession]:
    a, b = LinkSession(ACQ, "gpu", now, **more), LinkSession(GPU, "acq", now)
    pass_on(a, b, now)
    pass_on(b, a, now)
    return a, b


def pass_on(a: LinkSession, b: LinkSession, now: float, later: float = 0.0) -> int:
    messages = a.due(now)
    for message in messages:
        assert b.take(message, now + later)
    return len(messages)


def test_hello_opens_both_sides() -> None:
    a, b = pair()
    assert a.is_open
    assert b.is_open
    assert (a.hello, b.hello) == (GPU, ACQ)
    assert a.state(0.1) == "open"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lab": "other"}, "lab 'other'"),
        ({"version": 2}, "version 2"),
        ({"host": "gpu2"}, "certificate is of 'gpu'"),
        ({"agent": "agent-a"}, "this very agent"),
    ],
)
def test_a_stranger_is_refused_with_words(changed: dict[str, str], says: str) -> None:
    a, b = LinkSession(ACQ, "gpu", 0.0), LinkSession(GPU, "acq", 0.0)
    a.due(0.0)
    assert a.take(replace(GPU, **changed), 0.0)
    assert says in a.refusal
    assert a.is_dead(0.0)
    assert not a.is_open
    [refuse] = a.due(0.0)
    assert isinstance(refuse, Refuse)
    assert b.take(refuse, 0.0)
    assert says in b.refusal


def test_the_first_message_is_hello_and_only_that() -> None:
    a = LinkSession(ACQ, "gpu", 0.0)
    with pytest.raises(BadMessage, match="begin with 'hello'"):
        a.take(Beat(1), 0.0)
    a, _ = pair()
    with pytest.raises(BadMessage, match="twice"):
        a.take(GPU, 0.0)
    assert not a.take(Ack(1, 2), 0.0)


def test_beats_are_sent_in_silence_and_returned() -> None:
    a, b = pair()
    assert a.due(0.4) == []
    assert a.next_wake(0.4) == pytest.approx(0.5)
    assert pass_on(a, b, 0.5, 0.01) == 1
    assert pass_on(b, a, 0.52, 0.01) == 2  # and a beat of its own
    [trip] = a.round_trips()
    assert trip.received - trip.sent == pytest.approx(30e6)
    assert trip.returned - trip.arrived == pytest.approx(10e6)
    assert a.round_trips() == []


def test_traffic_in_both_directions_needs_no_beats() -> None:
    a, _ = pair()
    for k in range(1, 40):
        a.sent(100, k / 10)
        a.received(100, k / 10)
        assert a.due(k / 10) == []


def test_a_side_that_only_sends_asks_whether_the_other_lives() -> None:
    a, _ = pair()
    beats = 0
    for k in range(1, 40):
        a.sent(100, k / 10)
        beats += len(a.due(k / 10))
    assert beats in (7, 8)
    assert a.state(2.5) == "suspect"
    assert a.is_dead(DEAD_S)
    assert a.next_wake(2.99) <= DEAD_S


def test_a_side_without_hello_is_dead_after_silence() -> None:
    a = LinkSession(ACQ, "gpu", 10.0)
    assert a.state(10.0) == "connecting"
    assert not a.is_dead(12.9)
    assert a.is_dead(13.0)


def test_bursts_of_eight_each_second() -> None:
    a, b = pair(is_timing=True)
    now, trips = 0.0, []
    while now < 3.0:
        pass_on(a, b, now, 0.0001)
        pass_on(b, a, now + 0.0002, 0.0001)
        trips += a.round_trips()
        now = max(a.next_wake(now), now + 0.001)
    assert 24 <= len(trips) <= 33
    assert all(trip.sent <= trip.received for trip in trips)


def test_answers_to_other_questions_count_nothing() -> None:
    a, _ = pair()
    a.due(0.5)
    a.take(Beat(12345, 1, 2), 0.6)
    a.take(Beat(500_000_000, 2, 1), 0.6)
    assert a.round_trips() == []


def test_a_beat_that_was_asked_for_proves_since_when_the_other_side_hears() -> None:
    a, b = pair()
    a.sent(100, 0.1)
    a.received(100, 0.1)
    first, second = a.ask(0.1), a.ask(0.2)
    assert a.due(0.2) == [Beat(first), Beat(second)]
    a.received(100, 0.3)  # that the other side is heard proves nothing
    assert a.proven == 0
    b.take(Beat(first), 0.3)
    pass_on(b, a, 0.3)
    assert a.proven == first
    a.take(Beat(10**18, 1, 2), 0.4)  # was never asked
    assert a.proven == first
    b.take(Beat(second), 0.4)
    pass_on(b, a, 0.4)
    assert a.proven == second


def test_a_flood_of_beats_is_bounded() -> None:
    a, _ = pair()
    for k in range(1, 1000):
        a.take(Beat(k), 0.1)
    assert len(a.due(0.1)) <= 16


def test_pauses_double_up_to_a_second() -> None:
    backoff = Backoff()
    assert [backoff.failed(1.0) for _ in range(7)][4:] == [1.8, 2.0, 2.0]
    backoff.succeeded()
    assert backoff.failed(0.0) == 0.05
