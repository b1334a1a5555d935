"""Frames of a camera that have the times of their pulses, which a DAQ recorded."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from ataraxis.cli import main
from ataraxis.clock import Anchor
from ataraxis.labels import Labels
from ataraxis.log.fits import load_fit, save_fit
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.session import Rig, finish_sessions, fit_session
from ataraxis.session.directory import SessionRecord
from ataraxis.session.rig import RigPulses, RigSource
from ataraxis.session.verdict import judge

RATE, SAMPLE = 10_000, 100_000  # of the DAQ: Hz, ns
BLOCK = 200
DRIFT = 40e-6
DAQ_DELAY, CAMERA_DELAY = 3_000_000, 12_000_000
BOTH = {"camera": (8.0, 16.0), "daq": (0.0, 5.0)}

fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Scene:
    """What a DAQ and a camera do in a simulated recording."""

    pulses: int = 900
    period_ns: int = 33_333_333
    dropped: tuple[int, ...] = (17, 18, 300, 700)
    lost: tuple[int, ...] = (50,)
    """Pulses that the DAQ did not see."""
    has_counter: bool = True
    jitter_ns: float = 2e6
    pause: tuple[int, int] = (0, 0)
    """Before which pulse there is a pause, and how long, ns."""
    unseen: int = 0
    """Pulses at the end of which the DAQ recorded none."""

    @property
    def pulses_ns(self) -> np.ndarray:
        times = 10**12 + 200_012_345 + np.arange(self.pulses) * self.period_ns
        times[self.pause[0] :] += self.pause[1]
        return times

    @property
    def frames(self) -> np.ndarray:
        return np.delete(np.arange(self.pulses), self.dropped)

    def record(self, path: Path, *, is_cut: bool = False) -> None:
        """Write it as a session; cut off, its journals are not closed."""
        path.mkdir(parents=True, exist_ok=True)
        source = RigSource("sim", "camera", pulses=RigPulses("daq", "trigger"))
        Rig({"camera": source, "daq": RigSource("sim", "spikes")}).to_yaml(
            path / "rig.yaml"
        )
        rng = np.random.default_rng(3)
        daq = JournalWriter(path, "daq")
        attrs = {"sample_rate_hz": RATE}
        coords = {"channel": ["a", "trigger"]}
        labels = Labels("i2", (BLOCK, 2), ("time", "channel"), coords, attrs)
        daq.describe(0, "daq", labels, stream="d")
        kept = np.delete(self.pulses_ns, self.lost)
        kept = kept[: len(kept) - self.unseen]
        # Sample k is at 10**12 + k intervals, which are longer by the drift.
        every = SAMPLE * (1 + DRIFT)
        first = np.ceil((kept - 10**12) / every).astype(int)
        last = self.pulses_ns[-1] if not self.unseen else kept[-1]
        blocks = int((last - 10**12) / every + 2000) // BLOCK
        data = np.zeros((blocks * BLOCK, 2), "i2")
        data[:, 0] = rng.normal(0, 300, len(data))
        width = max(int(0.3 * self.period_ns / SAMPLE), 1)
        for at in first.tolist():
            data[at : at + width, 1] = 3000
        ends = (np.arange(1, blocks + 1) * BLOCK - 1) * every
        times = 10**12 + ends.astype("i8") + DAQ_DELAY
        times += rng.exponential(1e6, blocks).astype("i8")
        daq.log_block(0, data.reshape(blocks, BLOCK, 2), time_ns=np.sort(times))
        camera = JournalWriter(path, "camera")
        attrs = {"device_counter": "frames"} if self.has_counter else {}
        camera.describe(1, "camera", Labels("u1", (2, 2), attrs=attrs), stream="c")
        frames = self.frames
        arrived = self.pulses_ns[frames] + CAMERA_DELAY
        arrived += rng.exponential(self.jitter_ns, len(frames)).astype("i8")
        more = {}
        if self.has_counter:
            more = {"device_time": frames * 0, "device_sequence": frames + 100}
        camera.log_block(
            1, np.zeros((len(frames), 2, 2), "u1"), time_ns=np.sort(arrived), **more
        )
        if is_cut:
            daq.flush()
            camera.flush()
            os._exit(0)
        daq.close()
        camera.close()

    def errors(self, path: Path) -> np.ndarray:
        """Return by how much frames are later than their pulses, by the DAQ, ns."""
        with xr.open_dataset(path, engine="ataraxis", group="camera") as found:
            assert found.time.attrs["clock"] == "fitted"
            times = found.time.values.astype("i8")
        with xr.open_dataset(path, engine="ataraxis", group="daq") as found:
            daq = found.time.values.astype("i8")
        assert (np.diff(times) > 0).all()
        place = (self.pulses_ns[self.frames] - 10**12) / (SAMPLE * (1 + DRIFT))
        whole = np.minimum(place.astype(int), len(daq) - 1)
        true = daq[whole] + np.rint((place - whole) * SAMPLE * (1 + DRIFT))
        return np.asarray(times - true)


@pytest.mark.parametrize("period_ns", [33_333_333, 10_000_000 * 3])
def test_frames_have_the_times_of_their_pulses(tmp_path: Path, period_ns: int) -> None:
    scene = Scene(period_ns=period_ns)
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms=BOTH)}
    daq, camera = clocks["daq"], clocks["camera"]
    assert (camera.name, camera.kind, camera.reason) == ("camera", "absolute", "")
    made = camera.made
    assert made is not None
    assert (made.fit.kind, made.of) == ("strobes", "device_sequence")
    assert "'trigger' of 'daq'" in made.fit.assumption
    assert camera.as_dict()["from"] == "strobes"
    errors = scene.errors(tmp_path)
    assert abs(errors).max() <= SAMPLE, errors
    # Against the true time: the DAQ's delay of 3 ms is within its 0 to 5.
    numbers = scene.frames + 100
    true = scene.pulses_ns[scene.frames]
    late = made.fit.to_host_ns(numbers) - true
    assert (abs(late) <= made.fit.bound_at(numbers)).all()
    assert daq.made is not None
    assert made.fit.bound_at(numbers).max() <= (
        daq.made.fit.bound_at(daq.made.fit.ticks).max() + 2 * SAMPLE
    )


def test_without_a_delay_of_the_daq_the_times_are_relative(tmp_path: Path) -> None:
    scene = Scene(pulses=200, period_ns=100_000_000, dropped=(5, 90))
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms={"camera": (8, 16)})}
    camera = clocks["camera"]
    assert (camera.kind, camera.reason) == ("fitted", "")
    assert camera.made is not None
    assert camera.made.fit.absolute_bound_at(100) is None
    assert "the device that recorded them is unknown" in str(camera)
    assert abs(scene.errors(tmp_path)).max() <= SAMPLE
    kept = load_fit(tmp_path, "camera")
    assert kept is not None
    assert kept.fit == camera.made.fit


def test_the_sender_s_numbers_are_taken_without_a_counter(tmp_path: Path) -> None:
    scene = Scene(has_counter=False, dropped=())
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms=BOTH)}
    made = clocks["camera"].made
    assert made is not None
    assert (made.fit.kind, made.of) == ("strobes", "sequence")
    assert abs(scene.errors(tmp_path)).max() <= SAMPLE


def test_frames_that_were_not_counted_are_not_given_another_s_pulse(
    tmp_path: Path,
) -> None:
    scene = Scene(has_counter=False, dropped=(300,))
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms=BOTH)}
    if clocks["camera"].made is not None:
        assert abs(scene.errors(tmp_path)).max() <= SAMPLE
    else:
        assert "not fitted to line 'trigger' of 'daq'" in clocks["camera"].reason


def test_pulses_that_arrivals_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    Scene().record(tmp_path)
    found = judge(tmp_path, Anchor.take())["camera"]
    assert found.clock == "arrival"  # as before: it has no clock of its own
    (note,) = [note for note in found.notes if "a period apart" in note]
    assert "not fitted to line 'trigger' of 'daq'" in note
    assert "latency_ms" in note
    clocks = {c.name: c for c in fit_session(tmp_path)}
    assert clocks["camera"].reason == note
    assert load_fit(tmp_path, "camera") is None
    with xr.open_dataset(tmp_path, engine="ataraxis", group="camera") as dataset:
        assert "clock" not in dataset.time.attrs


@pytest.mark.parametrize("pause_ns", [5 * 10**9, 1_234_567_890])
def test_frames_behind_a_pause_without_pulses_are_refused(
    tmp_path: Path, pause_ns: int
) -> None:
    scene = Scene(pause=(890, pause_ns), unseen=10)
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms=BOTH)}
    assert clocks["camera"].made is None
    assert "no pulses" in clocks["camera"].reason


def test_a_pause_begins_a_new_line(tmp_path: Path) -> None:
    scene = Scene(pause=(400, 7 * 10**9 + 1234))
    scene.record(tmp_path)
    clocks = {c.name: c for c in fit_session(tmp_path, latency_ms=BOTH)}
    assert clocks["camera"].made is not None, clocks["camera"].reason
    assert abs(scene.errors(tmp_path)).max() <= SAMPLE


def test_a_line_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    Scene(pulses=30, dropped=(), lost=()).record(tmp_path)
    lines = {"camera": ("daq", "tigger")}
    clocks = {c.name: c for c in fit_session(tmp_path, pulses=lines)}
    assert "no line 'tigger'" in clocks["camera"].reason
    with pytest.raises(KeyError, match="dax"):
        fit_session(tmp_path, pulses={"camera": ("dax", 1)})


@pytest.mark.parametrize("attrs", [{"device_time_units": "us"}, {}])
def test_a_daq_that_sends_samples_one_by_one_has_a_clock_of_its_own(
    tmp_path: Path, attrs: dict[str, str]
) -> None:
    rng = np.random.default_rng(5)
    n, frames = 12_000, np.delete(np.arange(290), [7, 100])
    line = np.zeros((n, 1), "i2")
    for at in range(100, n, 40):
        line[at : at + 9] = 1
    true = 10**12 + np.arange(n) * 10**6
    labels = Labels("i2", (1,), ("channel",), {"channel": ["trigger"]}, attrs)
    with JournalWriter(tmp_path, "log") as journal:
        journal.describe(0, "daq", labels)
        late = rng.exponential(2e5, n).astype("i8") + 10**6
        journal.log_block(
            0, line, time_ns=np.sort(true + late), device_time=np.arange(n) * 1000,
            device_sequence=np.arange(n),
        )  # fmt: skip
        journal.describe(1, "camera", Labels("u1", (2, 2)))
        pulses = true[100 + 40 * frames]
        arrived = pulses + rng.exponential(1e6, len(frames)).astype("i8") + 10**7
        journal.log_block(
            1, np.zeros((len(frames), 2, 2), "u1"), time_ns=np.sort(arrived),
            device_time=frames * 0, device_sequence=frames,
        )  # fmt: skip
    lines = {"camera": ("daq", "trigger")}
    latency = {"camera": (5, 20), "daq": (0, 2)} if attrs else {"camera": (5, 20)}
    clocks = {
        c.name: c for c in fit_session(tmp_path, latency_ms=latency, pulses=lines)
    }
    made = clocks["camera"].made
    if not attrs:
        assert made is None
        assert "has no device times" in clocks["camera"].reason
        return
    assert made is not None, clocks["camera"].reason
    assert made.fit.is_absolute
    late = made.fit.to_host_ns(frames) - pulses
    assert (abs(late) <= made.fit.bound_at(frames)).all()
    assert np.ptp(late) < 200_000


def test_a_fit_is_left_aside_once_the_recording_has_grown(tmp_path: Path) -> None:
    Scene().record(tmp_path)
    fit_session(tmp_path, latency_ms=BOTH)
    kept = load_fit(tmp_path, "camera")
    assert kept is not None
    save_fit(tmp_path, "camera", replace(kept, entries=kept.entries - 1))
    with xr.open_dataset(tmp_path, engine="ataraxis", group="camera") as dataset:
        assert "clock" not in dataset.time.attrs


def test_the_command_takes_a_line(tmp_path: Path) -> None:
    Scene().record(tmp_path)
    (tmp_path / "rig.yaml").unlink()
    given = ["fit", str(tmp_path), "--latency", "camera=8,16", "--latency", "daq=0,5"]
    done = CliRunner().invoke(main, [*given, "--pulses", "camera=daq:1", "--json"])
    assert done.exit_code == 0, done.output
    assert '"strobes"' in done.output
    wrong = CliRunner().invoke(main, [*given, "--pulses", "camera"])
    assert wrong.exit_code == 2
    assert "camera=daq:trigger" in wrong.output


def test_a_killed_session_gets_the_same_fit(tmp_path: Path) -> None:
    scene = Scene(period_ns=110_000_000, pulses=150, dropped=(17, 40), lost=())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    scene.record(whole)
    judge(whole, Anchor.take())
    process = fork.Process(target=scene.record, args=(cut,), kwargs={"is_cut": True})
    process.start()
    process.join()
    about = SessionRecord.take("cut", "", "")
    about.mark("streams", "camera", True)
    about.mark("streams", "daq", True)
    about.to_yaml(cut / "session.yaml")
    (done,) = finish_sessions(cut)
    assert done.verdict["camera"].clock == "fitted", done.verdict
    ours, theirs = load_fit(whole, "camera"), load_fit(cut, "camera")
    assert ours is not None
    assert ours == theirs
    assert abs(scene.errors(cut)).max() <= SAMPLE
