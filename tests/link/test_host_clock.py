"""The clock of another host: a bound that always holds, jumps, the published stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ataraxis import Consumer
from ataraxis.clock import now_ns
from ataraxis.errors import StreamUnavailable
from ataraxis.link.clocks import ROWS, ClockPublisher, HostClock

S = 10**9
START = 777 * S


class Lab:
    """Two clocks and a link between them, in simulated time."""

    def __init__(self, seed: int, offset: int = 0, drift: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.t, self.drift = START, drift
        # Remote time is offset + local time, grown since `_since`.
        self._offset, self._since = offset, START
        self.asymmetry = 0.5
        self.load = 0.0
        self.jumped = 0

    def offset(self, t: int) -> float:
        return self._offset + self.drift * (t - self._since)

    def jump(self, by: int) -> None:
        self._offset = round(self.offset(self.t)) + by
        self._since = self.t

    def trip(self) -> tuple[int, int, int, int]:
        delay = self.random.uniform(30e3, 45e3) + self.random.expovariate(1 / 20e3)
        if self.random.random() < self.load:
            delay += self.random.expovariate(1 / 3e6)
        there = round(delay * self.asymmetry)
        t0 = self.t
        t1 = t0 + there
        t2 = t1 + self.random.randrange(1000, 30_000)
        t3 = t2 + round(delay) - there
        self.t = t3
        return (
            t0, t1 + round(self.offset(t1)), t2 + round(self.offset(t2)), t3
        )  # fmt: skip

    def second(self, clock: HostClock, trips: int = 8) -> None:
        began = self.t
        for _ in range(trips):
            clock.add(*self.trip())
            self.t += 200_000
        self.t = max(began + S + self.random.randrange(50_000_000), self.t)


def error_and_bound(lab: Lab, clock: HostClock, at: int) -> tuple[float, int]:
    found = clock.offset(at)
    assert found is not None
    return abs(found.to_remote_ns(at) - at - lab.offset(at)), found.bound_at(at)


CASES: dict[str, Callable[[Lab], None]] = {
    "plain": lambda lab: None,
    "all the delay there": lambda lab: setattr(lab, "asymmetry", 1.0),
    "all the delay back": lambda lab: setattr(lab, "asymmetry", 0.0),
    "loaded": lambda lab: setattr(lab, "load", 0.9),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("drift", [0.0, 20e-6, -20e-6, 100e-6, -100e-6])
def test_the_bound_holds_for_every_estimate(case: str, drift: float) -> None:
    """20 cases of 500 estimates, 10,000 in all, 5000 s apart."""
    lab = Lab(int(drift * 1e7) + 7, 5000 * S, drift)
    CASES[case](lab)
    clock, bounds = HostClock("acq"), []
    for _ in range(500):
        lab.second(clock)
        at = lab.t - lab.random.randrange(S)
        error, bound = error_and_bound(lab, clock, at)
        assert error <= bound
        bounds.append(bound)
    assert not clock.events
    # The least round trip is 30 us, most are up to 60: half of these, and a line.
    least = sorted(bounds[20:])[len(bounds) // 2]
    assert least < (200_000 if case == "loaded" else 60_000)


@pytest.mark.parametrize("drift", [0.0, 100e-6, -100e-6])
@pytest.mark.parametrize(
    "by", [3 * S, -3 * S, 2_000_000, -2_000_000, 3600 * S, -5777 * S]
)
def test_a_jump_begins_a_new_line_and_is_told(by: int, drift: float) -> None:
    """A host was suspended, or restarted: the next round trip shows it."""
    lab = Lab(5, 5000 * S, drift)
    clock = HostClock("acq")
    for k in range(300):
        if k % 100 == 50:
            lab.jump(by)
        lab.second(clock)
        error, bound = error_and_bound(lab, clock, lab.t)
        assert error <= bound
    assert len(clock.events) == 3
    for event in clock.events:
        assert abs(event.jump_ns - by) <= event.bound_ns
        assert event.host == "acq"
        assert "jumped by" in str(event)


def test_the_bound_holds_through_a_cut_of_the_link() -> None:
    lab = Lab(11, -17 * S, 43e-6)
    clock = HostClock("acq")
    for k in range(400):
        if k % 100 == 60:
            for _ in range(300):  # the cable is out for five minutes
                lab.t += S
                error, bound = error_and_bound(lab, clock, lab.t)
                assert error <= bound
        lab.second(clock)
        error, bound = error_and_bound(lab, clock, lab.t)
        assert error <= bound
    assert not clock.events


def test_single_trips_count_as_well_as_bursts() -> None:
    """Beats of a silent link come one by one."""
    lab = Lab(3, 5 * S, 20e-6)
    clock = HostClock("acq")
    for _ in range(100):
        lab.second(clock, trips=1)
        error, bound = error_and_bound(lab, clock, lab.t)
        assert error <= bound


def test_impossible_trips_are_left_out() -> None:
    clock = HostClock("acq")
    assert clock.offset(0) is None
    for trip in [(10, 5, 6, 9), (10, 6, 5, 20), (10, 100, 200, 20)]:
        assert clock.add(*trip) is None
    assert clock.offset(100) is None


def test_a_clock_costs_little() -> None:
    """Seconds of the processor for 1000 s of a link; printed by -s, not asserted."""
    lab, clock = Lab(1), HostClock("acq")
    spent = 0.0
    for _ in range(200):
        trips = [lab.trip() for _ in range(8)]
        lab.t += S
        began = time.process_time()
        for trip in trips:
            clock.add(*trip)
        clock.offset(lab.t)
        spent += time.process_time() - began
    print(f"{spent / 200 * 1e6:.0f} us of the processor a second")


# ---- the published stream


def clock_at(host: str, offset: int) -> HostClock:
    clock, now = HostClock(host), now_ns()
    clock.add(now, now + offset + 500, now + offset + 501, now + 1001)
    return clock


def test_estimates_are_an_ordinary_stream(tmp_path: Path) -> None:
    clock, publisher = clock_at("acq", 5 * S), ClockPublisher(tmp_path, "acq")
    assert publisher.publish(None, now_ns()) is False
    now = now_ns()
    assert publisher.publish(clock.offset(now), now, "boot-1")
    reader = Consumer("clock.acq", context=tmp_path)
    with reader.receive() as frame:
        assert frame.time_ns == now
        local, offset, bound, drift = frame.array.tolist()
    assert local == now
    assert drift == 0
    names = reader.labels.coords["field"].values.tolist()
    assert names == ["local_ns", "offset_ns", "bound_ns", "drift_ppb"]
    assert abs(offset - 5 * S) <= bound
    assert reader.labels.attrs["boot_id"] == "boot-1"
    assert reader.labels.attrs["host"] == "acq"
    publisher.close()
    publisher.close()
    assert reader.receive() is None
    reader.close()
    with pytest.raises(StreamUnavailable):
        Consumer("clock.acq", context=tmp_path)
    assert not list(tmp_path.glob("clock*"))


def test_no_reader_holds_it_up(tmp_path: Path) -> None:
    clock, publisher = clock_at("acq", 0), ClockPublisher(tmp_path, "acq")
    publisher.publish(clock.offset(0), 0)
    reader = Consumer("clock.acq", context=tmp_path, policy="lossless")
    results = [publisher.publish(clock.offset(k), k) for k in range(2 * ROWS)]
    assert results[0]
    assert not results[-1]
    assert "holds the whole ring" in publisher.error
    reader.close()
    assert publisher.publish(clock.offset(0), 0)
    assert not publisher.error
    publisher.close()


def test_another_boot_is_another_stream(tmp_path: Path) -> None:
    clock, publisher = clock_at("acq", 0), ClockPublisher(tmp_path, "acq")
    publisher.publish(clock.offset(1), 1, "boot-1")
    first = Consumer("clock.acq", context=tmp_path)
    publisher.publish(clock.offset(2), 2, "boot-2")
    second = Consumer("clock.acq", context=tmp_path)
    assert first.stream_id != second.stream_id
    assert second.labels.attrs["boot_id"] == "boot-2"
    assert first.receive() is not None
    assert first.receive() is None
    first.close()
    second.close()
    publisher.close()


def test_the_stream_of_a_dead_publisher_is_replaced(tmp_path: Path) -> None:
    clock = clock_at("acq", 0)
    dead = ClockPublisher(tmp_path, "acq")
    dead.publish(clock.offset(1), 1)
    blocked = ClockPublisher(tmp_path, "acq")
    assert not blocked.publish(clock.offset(1), 1)  # a live one has the name
    assert "producer" in blocked.error
    producer = dead._producer
    assert producer is not None
    producer.close()  # ended, but not removed
    assert blocked.publish(clock.offset(2), 2)
    assert not blocked.error
    blocked.close()
