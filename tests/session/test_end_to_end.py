"""A whole session as a lab would run it, on real recordings.

The ECG of MIT-BIH (replayed) and the EEG of an XDF file with clock resets (passed on as
a live source) go through streams to a pipe and to a session, whose recorder is killed,
and then the session itself. What `ataraxis recover` makes of it is compared with the
files, every sample and every stamp: on disk, in xarray, exported, and replayed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_session
import xarray as xr
from click.testing import CliRunner
from deadline import wait_until
from places import DATA

from ataraxis import API, Consumer, LogArchive, Pipe, Processor, replay
from ataraxis.cli import main
from ataraxis.datamux import Recording, open_recordings, producer_of
from ataraxis.session import SessionFolder
from ataraxis.shm.context import Context

if not DATA.is_dir():
    DATA = Path("/work/shared/data")
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recordings of ../shared/data are not here"
)
spawn = multiprocessing.get_context("spawn")
SAMPLES = {"ecg": 400, "eeg": 5}
"""Samples a frame: whole frames make up the whole recordings."""
SECONDS = 5.0


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    pytest.importorskip("wfdb")
    pytest.importorskip("pyxdf")
    ecg = open_recordings(DATA / "mitdb-100" / "100.hea")["signals"]
    eeg = open_recordings(DATA / "xdf" / "clock_resets.xdf")["BioSemi"]
    assert (len(ecg), len(eeg)) == (650_000, 27_815)
    return {"ecg": ecg, "eeg": eeg}


@pytest.fixture(scope="module")
def originals() -> dict[str, np.ndarray]:
    """The samples as the formats' own readers give them."""
    wfdb, pyxdf = pytest.importorskip("wfdb"), pytest.importorskip("pyxdf")
    streams, _ = pyxdf.load_xdf(str(DATA / "xdf" / "clock_resets.xdf"), verbose=False)
    (eeg,) = [s for s in streams if s["info"]["name"][0] == "BioSemi"]
    ecg = wfdb.rdrecord(str(DATA / "mitdb-100" / "100")).p_signal
    return {"ecg": ecg, "eeg": eeg["time_series"]}


class Lab:
    """Producers of both recordings, and a session in a process of its own."""

    def __init__(self, recordings: dict[str, Recording], directory: Path) -> None:
        self.recordings = recordings
        self.api = API(directory, directory)
        self.producers = {
            name: producer_of(
                found.stream, name, samples=SAMPLES[name], buffer_count=4096,
                sync=True,
            )
            for name, found in recordings.items()
        }  # fmt: skip
        self.pipe, theirs = spawn.Pipe(duplex=False)
        self.session = spawn.Process(
            target=workers_session.record_and_tell,
            args=([*recordings], "lab", directory, theirs),
        )
        self.session.start()
        theirs.close()

    def recorder(self) -> int:
        """Wait for the next word of the session: its recorder's process."""
        assert self.pipe.poll(60)
        return self.pipe.recv()

    def play(self) -> list[Any]:
        """Begin: one recording is replayed, the other comes as if from a device."""
        ecg, eeg = self.recordings["ecg"], self.recordings["eeg"]
        path = str(DATA / "xdf" / "clock_resets.xdf")
        first = self.api.replay(
            ecg, self.producers["ecg"], use_relative_ts=False,
            speed=ecg.duration_s / SECONDS,
        )  # fmt: skip
        second = self.api.proxy_live_stream(
            "recording", "BioSemi", {"path": path, "speed": eeg.duration_s / SECONDS},
            self.producers["eeg"], use_relative_ts=False,
        )  # fmt: skip
        return [first, second]

    def sent(self, share: float) -> bool:
        """Whether so much of both was sent."""
        return all(
            producer.statistics().sent >= share * self.frames(name)
            for name, producer in self.producers.items()
        )

    def frames(self, name: str) -> int:
        return len(self.recordings[name]) // SAMPLES[name]

    def close(self) -> None:
        self.session.kill()
        self.session.join()
        self.pipe.close()
        self.api.stop()
        for producer in self.producers.values():
            producer.unlink()


@pytest.fixture
def lab(recordings: dict[str, Recording], tmp_path: Path):
    made = Lab(recordings, tmp_path)
    yield made
    made.close()


def test_a_session_from_the_source_to_the_replay(
    lab: Lab, originals: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "lab"
    peaks = recorded(lab)
    done = CliRunner().invoke(main, ["recover", str(path)])
    assert done.exit_code == 0, done.output
    # Of that recording a clock was reset: by it there were too few samples a second.
    assert "finished now; NOT TRUSTED" in done.output
    verdict = SessionFolder(path).verdict()
    assert verdict is not None
    for name in lab.recordings:
        found = verdict[name]
        assert (found.expected, found.missing) == (lab.frames(name), 0)
        assert found.is_trusted == (name == "ecg"), found
    assert any("its device made" in note for note in verdict["eeg"].notes)
    checked = CliRunner().invoke(main, ["verify", str(path)])
    assert checked.exit_code == 1, checked.output  # of its verdict
    for name, recording in lab.recordings.items():
        n = lab.frames(name)
        assert f"{name}: {n} expected, {n} received, 0 missing" in checked.output
        is_on_disk(path, name, recording, originals[name])
        is_in_xarray(path, name, originals[name])
    is_exported(path, tmp_path / "lab.npz", originals)
    is_exported_as_xdf(path, tmp_path / "lab.xdf", originals["eeg"])
    is_replayed(path, tmp_path, [*lab.recordings])
    blocks = originals["ecg"].reshape(-1, SAMPLES["ecg"], 2)
    assert peaks == blocks.max((1, 2)).tolist()


def recorded(lab: Lab) -> list[float]:
    """Play it, kill the recorder, kill the session; what the pipe found meanwhile."""
    victim = lab.recorder()
    peaks: list[float] = []
    pipe = Pipe("peaks")
    pipe.add(Processor("peak", func=workers_session.peak, workers=2, ordered=True))
    reader = Consumer("ecg", policy="lossless")
    with pipe.run(reader, peaks) as run:
        run.wait_until_ready(60)
        acks = lab.play()
        wait_until(lambda: lab.sent(0.2), 60)
        os.kill(victim, signal.SIGKILL)
        assert lab.recorder() != victim  # it is started again
        wait_until(lambda: lab.sent(0.7), 60)
        os.kill(lab.session.pid, signal.SIGKILL)
        for ack in acks:
            assert str(ack.wait(60).reason) == "completed"
    reader.close()
    lab.session.join()
    return peaks


def stamps_of(recording: Recording, samples: int) -> np.ndarray:
    """Device time, ns, and counter of each frame's first sample: shape (n, 2)."""
    times = np.rint(recording.t[::samples] * 1e9).astype(np.int64)
    numbers = np.arange(0, len(recording), samples)
    n = len(recording) // samples
    return np.column_stack([times[:n], numbers[:n]])


def is_on_disk(
    path: Path, name: str, recording: Recording, samples: np.ndarray
) -> None:
    with LogArchive(path) as archive:
        block = archive.read(name)
    assert block.sequence.tolist() == list(range(len(block)))
    np.testing.assert_array_equal(block.data.reshape(samples.shape), samples)
    assert block.device is not None
    np.testing.assert_array_equal(block.device, stamps_of(recording, SAMPLES[name]))
    assert (np.diff(block.time) >= 0).all()


def is_in_xarray(path: Path, name: str, samples: np.ndarray) -> None:
    with xr.open_datatree(path, engine="ataraxis") as tree:
        array = tree[name][name]
        assert array.dims == ("time", "channel")
        np.testing.assert_array_equal(array.values, samples)
        assert (np.diff(array.time.values) > np.timedelta64(0)).all()
        last = array.isel(time=-1).values
    np.testing.assert_array_equal(last, samples[-1])


def is_exported(path: Path, output: Path, samples: dict[str, np.ndarray]) -> None:
    done = CliRunner().invoke(main, ["export", str(path), str(output)])
    assert done.exit_code == 0, done.output
    with LogArchive(path) as archive, np.load(output) as exported:
        for name, expected in samples.items():
            block = archive.read(name)
            data = exported[name].reshape(expected.shape)
            np.testing.assert_array_equal(data, expected)
            assert exported[f"{name}.monotonic_ns"].tolist() == block.time.tolist()
            device, counter = block.device.T.tolist()
            assert exported[f"{name}.device_time"].tolist() == device
            assert exported[f"{name}.device_sequence"].tolist() == counter


def is_exported_as_xdf(path: Path, output: Path, samples: np.ndarray) -> None:
    done = CliRunner().invoke(
        main, ["export", str(path), str(output), "--source", "eeg"]
    )
    assert done.exit_code == 0, done.output
    again = open_recordings(output)["eeg"]
    np.testing.assert_array_equal(again.read().array, samples)


def is_replayed(path: Path, tmp_path: Path, streams: list[str]) -> None:
    """Each frame comes back, with its bytes, its time and its device's stamps."""
    elsewhere = Context.create(tmp_path / "again")
    seen: dict[str, list[Any]] = {name: [] for name in streams}

    def read(reader: Consumer) -> None:
        for frame in reader:
            with frame:
                stamps = frame.time_ns, frame.device_time, frame.device_sequence
                seen[reader.name].append((*stamps, frame.array.tobytes()))

    options = {"context": elsewhere, "streams": streams, "sync": True}
    with replay(path, speed=20, buffer_count=8192, **options) as again:
        readers = [Consumer(n, context=elsewhere, policy="lossless") for n in streams]
        threads = [threading.Thread(target=read, args=(r,)) for r in readers]
        for thread in threads:
            thread.start()
        assert again.wait(60)
    for thread in threads:
        thread.join()
    for reader in readers:
        reader.close()
    with LogArchive(path) as archive:
        for name in streams:
            block = archive.read(name)
            rows = (row.tobytes() for row in block.data)
            times, (device, counter) = block.time.tolist(), block.device.T.tolist()
            assert seen[name] == [*zip(times, device, counter, rows, strict=True)]
    assert elsewhere.names() == []
