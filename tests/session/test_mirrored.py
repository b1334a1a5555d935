"""A session that recorded a mirror of a stream of another host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ataraxis import Producer, Session
from ataraxis._kernels.link import BufferToRing
from ataraxis.clock import Offset, now_ns
from ataraxis.link.clocks import ClockPublisher
from ataraxis.session.trials import around
from ataraxis.session.verdict import Verdict

xr = pytest.importorskip("xarray")
S = 10**9
AHEAD = 5000 * S
ATTRS = {"clock": "acq/boot-1", "sample_rate_hz": 100}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "context"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(made))
    return made


def wait_for(is_true: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def publish(publisher: ClockPublisher, local: int) -> None:
    known = Offset(AHEAD, 25_000, local, "acq", 0.0, 3e-6, S)
    assert publisher.publish(known, local, "boot-1")


def session(directory: Path, *, has_clock: bool, process: bool = False) -> Verdict:
    """Record a mirror of 100 Hz, a local stream of the same moments, and events."""
    camera = Producer("camera", shape=(), dtype="i8", attrs=ATTRS)
    licks = Producer("licks", shape=(), dtype="i8", attrs={"sample_rate_hz": 100})
    publisher = ClockPublisher(None, "acq", "gpu")
    begun = now_ns()
    with Session("s", directory=directory) as s:
        s.record("camera", "licks", process=process)
        if has_clock:
            publish(publisher, begun)
            wait_for(lambda: list((directory / "s").glob("clock.acq.*.axi")))
        for k in range(400):
            local = begun + k * S // 100
            camera.send(np.int64(k), time_ns=local + AHEAD)
            licks.send(np.int64(k), time_ns=local)
            if has_clock and k % 100 == 0:
                publish(publisher, local)
        for k in (100, 200):
            s.event("stim_on", time_ns=begun + k * S // 100)
        wait_for(
            lambda: all(s.statistics()[n].frames == 400 for n in ("camera", "licks"))
        )
    camera.unlink()
    licks.unlink()
    publisher.close()
    assert s.verdict is not None
    return s.verdict


@pytest.mark.parametrize("process", [False, True])
def test_the_verdict_names_the_mirror_and_its_clock(
    tmp_path: Path, context: Path, process: bool
) -> None:
    verdict = session(tmp_path, has_clock=True, process=process)
    assert verdict.is_trusted, str(verdict)
    assert {stream.name for stream in verdict.streams} == {"camera", "licks", "events"}
    (note,) = [n for n in verdict["camera"].notes if "mirror" in n]
    assert "host 'acq'" in note
    assert "5000.000000 s ahead" in note
    assert "+-" in note
    assert not [n for n in verdict["licks"].notes if "mirror" in n]


def test_losses_and_waits_of_the_other_host_are_judged(
    tmp_path: Path, context: Path
) -> None:
    """They come through the words of the ring, and the stamps of its device."""
    camera = Producer(
        "camera", shape=(), dtype="i8", first_sequence=5000,
        attrs={"clock": "acq/boot-1", "device_counter": "frames"}, resume=True,
    )  # fmt: skip
    inflow = BufferToRing(camera)
    s = Session("s", directory=tmp_path)
    s.record("camera")
    # What happened there before the mirror does not count here.
    inflow.account(100, 5, 9_000_000_000)
    for k in range(20):
        if k == 10:
            wait_for(lambda: s.statistics()["camera"].frames == 10)
            inflow.account(107, 8, 11_500_000_000)
        counter = k if k < 15 else k + 3
        camera.send(np.int64(k), device_time=k, device_sequence=counter)
    wait_for(lambda: s.statistics()["camera"].lost == 7)
    wait_for(lambda: s.statistics()["camera"].frames == 20)
    s.close()
    camera.unlink()
    assert s.verdict is not None
    found = s.verdict["camera"]
    assert (found.received, found.missing) == (20, 7)
    assert found.device_lost == 3
    assert found.late == 5000
    assert not found.is_trusted
    assert found.waited_s == pytest.approx(2.5)
    assert any("given up by the producer" in note for note in found.notes)
    assert any("waited 2.5 s" in note for note in found.notes)


def test_a_session_that_waited_for_a_mirror_misses_nothing_before_it(
    tmp_path: Path, context: Path
) -> None:
    """A mirror begins in the midst of its stream: what was before is late."""
    with Session("s", directory=tmp_path) as s:
        s.record("camera")
        camera = Producer(
            "camera", shape=(), dtype="i8", first_sequence=5000, attrs=ATTRS,
            resume=True,
        )  # fmt: skip
        camera.send(np.int64(1))
        wait_for(lambda: s.statistics()["camera"].frames == 1)
        camera.unlink()
    assert s.verdict is not None
    assert s.verdict["camera"].missing == 0
    assert s.verdict["camera"].late == 5000
    assert s.verdict["camera"].is_trusted, str(s.verdict)


def test_events_and_frames_of_two_clocks_are_related(
    tmp_path: Path, context: Path
) -> None:
    """`around` puts the events on the clock of the mirror."""
    session(tmp_path, has_clock=True)
    with xr.open_datatree(tmp_path / "s", engine="ataraxis") as tree:
        assert "clock.acq" in tree.children
        trials = around(tree, "stim_on", before=0.1, after=0.1)
        assert set(trials.children) == {"camera", "licks"}
        expected = [[*range(k - 10, k + 10)] for k in (100, 200)]
        assert trials["camera"]["camera"].values.tolist() == expected
        assert trials["licks"]["licks"].values.tolist() == expected
        assert trials["camera"].attrs["clock"] == "acq/boot-1"
        assert 0 < trials["camera"].attrs["clock_bound_ns"] < 10**6
        assert "clock" not in trials["licks"].attrs
        # Times of two clocks are of two kinds: alignment finds nothing in common.
        assert tree["camera"]["time"].dtype == "m8[ns]"
        assert tree["licks"]["time"].dtype == "M8[ns]"


def test_without_the_clock_nothing_is_mixed(tmp_path: Path, context: Path) -> None:
    verdict = session(tmp_path, has_clock=False)
    assert verdict.is_trusted, str(verdict)
    (note,) = [n for n in verdict["camera"].notes if "mirror" in n]
    assert "cannot be related to the clock here" in note
    with xr.open_datatree(tmp_path / "s", engine="ataraxis") as tree:
        with pytest.raises(ValueError, match=r"'clock\.acq' was not recorded"):
            around(tree, "stim_on", before=0.1, after=0.1)
        trials = around(tree, "stim_on", before=0.1, after=0.1, streams="licks")
        assert trials["licks"]["licks"].shape == (2, 20)
