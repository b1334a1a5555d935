"""The session: one directory, everything in it, and a verdict that is true."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import workers_session
import xarray as xr
from click.testing import CliRunner
from deadline import wait_until
from places import ROOT

from ataraxis import Consumer, LogArchive, Producer, Session, YamlConfig, around, replay
from ataraxis.cli import main
from ataraxis.clock import Anchor, now_ns
from ataraxis.errors import NotConnectedError, SegmentExists, StreamUnavailable
from ataraxis.labels import Labels
from ataraxis.log.journal.page import files_of
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.session import EventStream, SessionFolder, SessionLoss, finish_sessions
from ataraxis.session.verdict import WAITED_S, StreamVerdict, judge
from ataraxis.shm.context import Context
from ataraxis.stream.announcement import Announcement

doubted = pytest.mark.filterwarnings("ignore:session .* not to be trusted")

spawn = multiprocessing.get_context("spawn")


@dataclass
class Task(YamlConfig):
    trials: int = 3
    reward_ul: float = 2.5


def fill(*producers: Producer, frames: int = 50, first: int = 0) -> None:
    for k in range(first, first + frames):
        for producer in producers:
            labels = producer.labels
            producer.send(
                np.full(labels.shape, k, labels.dtype), device_time=k, device_sequence=k
            )


@pytest.fixture
def camera():
    with Producer(
        "camera", shape=(6, 8), dtype="u1", dims=("y", "x"), buffer_count=256,
        attrs={"rate_hz": 100},
    ) as producer:  # fmt: skip
        yield producer
        producer.unlink()


@pytest.fixture
def probe():
    with Producer(
        "probe", shape=(10, 4), dtype="i2", dims=("time", "channel"), buffer_count=256,
        coords={"channel": [*"abcd"]},
        attrs={"sample_rate_hz": 1000, "units": "uV", "stamp_of": "sample"},
    ) as producer:  # fmt: skip
        yield producer
        producer.unlink()


# ---- recording


def test_a_session_is_one_directory_with_everything_in_it(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    with Session(
        "m42_day3", directory=tmp_path, subject="m42", config=Task(trials=7)
    ) as s:
        s.record("camera", "probe")
        s.event("stim_on", trial=3, depth=np.float32(0.5), site=np.array([1, 2]))
        s.note("the mouse sneezed")
        fill(camera, probe)
    assert s.verdict is not None
    assert s.verdict.is_trusted
    found = {v.name: (v.expected, v.received, v.missing) for v in s.verdict.streams}
    assert found == {"camera": (50, 50, 0), "probe": (50, 50, 0), "events": (1, 1, 0)}
    folder = SessionFolder(tmp_path / "m42_day3")
    assert folder.verdict() == s.verdict
    assert Task.from_yaml(folder.path / "config.yaml") == Task(trials=7)
    about = folder.record()
    assert (about.name, about.subject) == ("m42_day3", "m42")
    assert about.provenance.packages["numpy"] == np.__version__
    assert about.clock.boot_id == s.verdict.clock.boot_id
    text = folder.log_path.read_text()
    for line in ("begun", "recording 'camera'", "sneezed", "ended: trusted"):
        assert line in text
    assert not folder.is_live


def test_the_commit_of_the_experiment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ROOT
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    monkeypatch.chdir(root)
    with Session("s", directory=tmp_path):
        pass
    assert len(SessionFolder(tmp_path / "s").record().provenance.git_commit) == 40


def test_a_stream_that_comes_later_is_recorded_from_its_first_frame(
    tmp_path: Path,
) -> None:
    with Session("s", directory=tmp_path) as s:
        s.record("late")
        assert not s.statistics()["late"].is_recording
        with Producer("late", shape=(), dtype="i8", buffer_count=256) as late:
            fill(late, frames=3)
            wait_until(lambda: s.statistics()["late"].frames == 3)
        wait_until(lambda: not s.statistics()["late"].is_recording)
        with Producer("late", shape=(), dtype="i8", buffer_count=256) as late:
            fill(late, frames=4)
            wait_until(lambda: s.statistics()["late"].frames == 7)
    assert s.verdict is not None
    assert s.verdict["late"].received == 7
    assert s.verdict["late"].notes == ["was made again 1 times"]
    assert s.verdict.is_trusted


@doubted
def test_a_stream_that_never_came_is_not_trusted(tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as s:
        s.record("missing")
        with pytest.raises((StreamUnavailable, TimeoutError)):
            s.record("nobody_either", timeout=0.01)
    assert s.verdict is not None
    assert not s.verdict.is_trusted
    assert s.verdict["missing"].notes == ["never existed"]
    assert [v.name for v in s.verdict.streams] == ["events", "missing"]


def misspelt(directory: Path) -> None:
    with Session("bad", directory=directory) as s:
        s.event("on")
        s.record("kamera")


def test_verify_knows_what_the_verdict_doubts(tmp_path: Path) -> None:
    with Session("good", directory=tmp_path) as s:
        s.event("on")
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "good")]).exit_code == 0
    with pytest.warns(RuntimeWarning, match="(?s)not to be trusted.*kamera"):
        misspelt(tmp_path)
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "bad")])
    assert done.exit_code == 1
    assert "kamera" in done.output
    assert "never existed" in done.output


@pytest.mark.filterwarnings("ignore:stream .* was announced:RuntimeWarning")
@pytest.mark.parametrize("process", [False, True])
def test_what_an_earlier_run_left_is_no_frame_of_this_one(
    tmp_path: Path, process: bool
) -> None:
    with Producer("left", 64, 8) as old:
        for k in range(5):
            old.send(b"old %d" % k)
    with Session("s", directory=tmp_path) as s:
        if not process:
            with pytest.raises(StreamUnavailable, match="had ended before"):
                s.record("left", timeout=0.05)
        s.record("left", process=process)
        with Producer("left", 64, 8) as new:
            wait_until(lambda: s.statistics()["left"].is_recording, 60)
            new.send(b"new")
        wait_until(lambda: not s.statistics()["left"].is_recording, 60)
    assert s.verdict is not None
    assert s.verdict.is_trusted
    assert [f.value for f in LogArchive(s.directory, "left")] == [b"new"]


@doubted
def test_losses_are_told_at_once_and_in_the_verdict(tmp_path: Path) -> None:
    hasty = Producer("hasty", 64, 4, on_full="drop_newest", sync=True)
    slow = Consumer("hasty")
    losses: list[SessionLoss] = []
    with Session("s", directory=tmp_path) as s:
        s.on_loss(losses.append)
        s.on_loss(lambda loss: 1 / 0)  # the recording goes on
        s.record("hasty")
        sent = sum(hasty.send(b"x") for _ in range(10))
        for _ in range(sent):
            slow.receive().release()
        wait_until(lambda: sum(loss.count for loss in losses) == 10 - sent)
        hasty.send(b"y")
    assert {loss.stream for loss in losses} == {"hasty"}
    assert s.verdict is not None
    verdict = s.verdict["hasty"]
    assert (verdict.expected, verdict.received) == (11, sent + 1)
    assert not s.verdict.is_trusted
    assert "NOT TRUSTED" in str(s.verdict)
    assert "ZeroDivisionError" in (s.directory / "session.log").read_text()
    slow.close()
    hasty.unlink()


def test_every_verdict_sees_damage(tmp_path: Path, camera: Producer) -> None:
    session = Session("s", directory=tmp_path)
    session.record("camera")
    fill(camera)
    wait_until(lambda: session.statistics()["camera"].frames == 50)
    (path,) = files_of(session.directory, "camera")["camera"]
    data = bytearray(path.read_bytes())
    at = data.index(bytes([33]) * 48)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff")
    verdict = session.close()
    assert (verdict["camera"].missing, verdict["camera"].damaged) == (1, 1)
    assert not verdict.is_trusted
    assert verdict["events"].is_trusted


def test_an_error_of_the_experiment_is_in_the_verdict(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Session("s", directory=tmp_path) as s:
        raise ZeroDivisionError("no trials")
    assert s.verdict is not None
    assert s.verdict.notes == ["ended by ZeroDivisionError: no trials"]
    assert not s.verdict.is_trusted


def test_nothing_is_overwritten_and_one_session_has_a_context(
    tmp_path: Path, context: Path
) -> None:
    with Session("s", directory=tmp_path) as s:
        with pytest.raises(SegmentExists, match="another one is recorded"):
            Session("other", directory=tmp_path)
        assert not (tmp_path / "other").exists()
        elsewhere = Context.create(tmp_path / "context")
        with Session("other", directory=tmp_path, context=elsewhere):
            pass
    with pytest.raises(FileExistsError, match="resume=True"):
        Session("s", directory=tmp_path)
    with pytest.raises(FileExistsError, match="finished"):
        Session("s", directory=tmp_path, resume=True)
    with pytest.raises(NotConnectedError, match="has ended"):
        s.event("late")


def test_events_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as s:
        for name, data, error in (
            ("", {}, ValueError),
            ("x" * 65, {}, ValueError),
            ("x", {"text": "y" * 500}, ValueError),
            ("x", {"what": object()}, TypeError),
        ):
            with pytest.raises(error):
                s.event(name, **data)
        other = EventStream()  # of another process, as it were
        attrs = other.producer.labels.attrs
        assert (attrs["session"], attrs["directory"]) == ("s", str(tmp_path / "s"))
        assert 0 < now_ns() - attrs["begun_ns"] < 10**12
        other.send("théâtre", note="ß")
        other.close()
    block = LogArchive(tmp_path / "s").read("events")
    assert block.data["event"].tolist() == ["théâtre"]
    assert json.loads(str(block.data["data"][0])) == {"note": "ß"}


# ---- deaths


def killed(
    tmp_path: Path,
    camera: Producer,
    probe: Producer,
    frames: int,
    target: object = workers_session.record,
) -> Path:
    """A session whose process was killed; what was sent after stays in the rings."""
    ready = spawn.Event()
    process = spawn.Process(
        target=target, args=(["camera", "probe"], "s", tmp_path, ready)
    )
    process.start()
    assert ready.wait(60)
    fill(camera, probe, frames=frames)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    fill(camera, probe, frames=30, first=frames)
    return tmp_path / "s"


def test_a_killed_session_is_finished_by_recover(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    path = killed(tmp_path, camera, probe, 40)
    assert SessionFolder(path).verdict() is None
    done = CliRunner().invoke(main, ["recover", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "finished now; trusted" in done.output
    verdict = SessionFolder(path).verdict()
    assert verdict is not None
    assert verdict.is_trusted
    for name in ("camera", "probe"):
        assert (verdict[name].expected, verdict[name].received) == (70, 70)
        block = LogArchive(path).read(name)
        assert block.data.reshape(70, -1)[:, 0].tolist() == list(range(70))
    assert verdict["events"].missing == 0
    assert finish_sessions(tmp_path) == []
    assert camera.statistics().detached == ()


def test_a_killed_session_goes_on_where_it_was(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    path = killed(tmp_path, camera, probe, 40)
    with Session("s", directory=tmp_path, resume=True) as s:
        s.record("camera", "probe")
        fill(camera, probe, frames=10, first=70)
    assert s.verdict is not None
    assert s.verdict.is_trusted
    assert LogArchive(path).read("camera").sequence.tolist() == list(range(80))


@doubted
def test_a_stream_that_is_not_resumed_is_not_trusted(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    killed(tmp_path, camera, probe, 40)
    with Session("s", directory=tmp_path, resume=True) as s:
        s.record("camera")
    assert s.verdict is not None
    assert s.verdict["camera"].is_trusted
    assert not s.verdict.is_trusted
    assert "resumed" in s.verdict["probe"].notes[0]


def test_a_session_whose_rings_are_gone_is_not_trusted(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    path = killed(tmp_path, camera, probe, 40)
    camera.unlink()
    (done,) = finish_sessions(path)
    assert not done.verdict.is_trusted
    assert not done.verdict["camera"].is_trusted
    assert done.verdict["probe"].is_trusted
    assert "ring was removed" in done.verdict["camera"].notes[0]


def test_a_live_session_is_left_alone(tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as s:
        assert SessionFolder(s.directory).is_live
        assert finish_sessions(tmp_path) == []
        with pytest.raises(SegmentExists):
            Session("s", directory=tmp_path, resume=True)


def test_a_stream_that_had_ended_is_not_missed_by_recovery(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    ready = spawn.Event()
    process = spawn.Process(
        target=workers_session.record, args=(["camera", "late"], "s", tmp_path, ready)
    )
    process.start()
    assert ready.wait(60)
    fill(camera, frames=5)
    with Producer("late", shape=(), dtype="i8", buffer_count=64) as late:
        wait_until(lambda: late.statistics().readers, 60)
        fill(late, frames=5)
    folder = SessionFolder(tmp_path / "s")
    wait_until(lambda: folder.record().ended == ["late"], 60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (done,) = finish_sessions(tmp_path)
    assert done.verdict.is_trusted, str(done.verdict)
    assert done.verdict["late"].received == 5


# ---- a recorder that is a process of its own


def test_a_recorder_of_its_own_is_killed_and_misses_nothing(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    with Session("s", directory=tmp_path) as s:
        s.record("camera", "probe", process=True)
        s.record("camera")  # known already
        assert s.streams == ["events", "camera", "probe"]
        for k in range(3):
            wait_until(lambda: s.statistics()["probe"].is_recording, 60)
            wait_until(lambda: s.statistics()["camera"].is_recording, 60)
            pid = s.recorders["recorder"]
            fill(camera, probe, frames=40, first=60 * k)
            os.kill(pid, signal.SIGKILL)
            fill(camera, probe, frames=20, first=60 * k + 40)
            wait_until(lambda pid=pid: s.recorders["recorder"] != pid, 60)
    assert s.verdict is not None
    assert s.verdict.is_trusted, str(s.verdict)
    for name in ("camera", "probe"):
        found = s.verdict[name]
        assert (found.expected, found.received) == (180, 180)
        assert found.notes == ["its recorder died and was started again, 3 times"]
        block = LogArchive(tmp_path / "s").read(name)
        assert block.data.reshape(180, -1)[:, 0].tolist() == [
            k % 256 for k in range(180)
        ]


def test_one_that_is_killed_while_it_ends_is_started_again(
    tmp_path: Path, camera: Producer
) -> None:
    s = Session("s", directory=tmp_path)
    s.record("camera", "late", process=True)
    wait_until(lambda: s.statistics()["camera"].is_recording, 60)
    with Producer("late", shape=(), dtype="i8", buffer_count=64) as late:
        wait_until(lambda: s.statistics()["late"].is_recording, 60)
        fill(late, frames=5)
    wait_until(lambda: not s.statistics()["late"].is_recording, 60)
    fill(camera, frames=70)
    os.kill(s.recorders["recorder"], signal.SIGKILL)
    verdict = s.close()
    assert verdict.is_trusted, str(verdict)
    assert verdict["camera"].received == 70
    assert verdict["late"].received == 5  # it ended before, and need not be found again


def test_what_ended_while_the_recorder_was_away_is_recorded(
    tmp_path: Path, camera: Producer
) -> None:
    s = Session("s", directory=tmp_path)
    s.record("camera", process=True)
    wait_until(lambda: s.statistics()["camera"].is_recording, 60)
    fill(camera, frames=10)
    os.kill(s.recorders["recorder"], signal.SIGKILL)
    fill(camera, frames=60, first=10)
    camera.end()
    verdict = s.close()  # the one that is started again has no time to look around
    assert verdict.is_trusted, str(verdict)
    assert verdict["camera"].received == 70
    assert camera.statistics().detached == ()


@doubted
def test_losses_are_told_by_a_process_too(tmp_path: Path) -> None:
    hasty = Producer("hasty", 64, 4, on_full="drop_newest", sync=True)
    slow = Consumer("hasty")
    losses: list[SessionLoss] = []
    with Session("s", directory=tmp_path, on_loss=losses.append) as s:
        s.record("hasty", "missing", process=True)
        wait_until(lambda: s.statistics()["hasty"].is_recording, 60)
        sent = sum(hasty.send(b"x") for _ in range(10))
        for _ in range(sent):
            slow.receive().release()
        wait_until(lambda: sum(loss.count for loss in losses) == 10 - sent, 60)
    assert s.verdict is not None
    assert s.verdict["hasty"].missing == 10 - sent
    assert "never existed" in s.verdict["missing"].notes
    assert not s.verdict.is_trusted
    slow.close()
    hasty.unlink()


def test_a_session_that_is_killed_takes_its_recorder_along_and_is_recovered(
    tmp_path: Path, camera: Producer, probe: Producer
) -> None:
    path = killed(tmp_path, camera, probe, 40, workers_session.record_apart)
    (done,) = finish_sessions(path)
    assert done.verdict.is_trusted, str(done.verdict)
    for name in ("camera", "probe"):
        assert done.verdict[name].received == 70
    assert camera.statistics().detached == ()


def test_what_a_dying_recorder_announced_is_removed_once_it_is_dead(
    tmp_path: Path, camera: Producer, probe: Producer, context: Path
) -> None:
    """It waits for a stream that is not there, and dies some time after its session."""
    path = killed(tmp_path, camera, probe, 40)
    late = Announcement("camera", SessionFolder(path).record().recorder)
    death = threading.Timer(0.3, lambda: os.close(late._descriptor))
    death.start()
    try:
        (done,) = finish_sessions(path)
    finally:
        death.join()
        late._descriptor = -1
    assert done.verdict.is_trusted, str(done.verdict)
    assert not list(context.glob(".await-*"))


# ---- afterwards


@pytest.fixture
def recorded(tmp_path: Path, camera: Producer, probe: Producer) -> Path:
    """Two seconds: camera at 100 Hz, probe in blocks of 10 at 1 kHz, two events."""
    labels = probe.labels
    with Session("m42_day3", directory=tmp_path) as s:
        s.record("camera", "probe")
        start = 10**9
        for k in range(200):
            camera.send(np.full((6, 8), k, "u1"), time_ns=start + k * 10**7)
            rows = np.arange(10 * k, 10 * k + 10, dtype="i2")[:, None]
            probe.send(
                np.broadcast_to(rows, labels.shape).astype("i2"),
                time_ns=start + k * 10**7,
            )
        s.event("stim_on", time_ns=start + 5 * 10**8, trial=3)
        s.event("reward", time_ns=start + 6 * 10**8)
        s.event("stim_on", time_ns=start + 19 * 10**8, trial=4)
    return s.directory


def test_a_session_opens_in_xarray_and_is_cut_into_trials(recorded: Path) -> None:
    with xr.open_datatree(recorded, engine="ataraxis") as tree:
        assert sorted(tree.children) == ["camera", "events", "probe"]
        trials = around(tree, "stim_on", before=0.1, after=0.2)
        assert sorted(trials.children) == ["camera", "probe"]
        probe = trials["probe"]["probe"]
        assert probe.dims == ("trial", "time", "channel")
        assert probe.sizes == {"trial": 2, "time": 300, "channel": 4}
        assert probe.trial.values.tolist() == [3, 4]
        assert probe.attrs["units"] == "uV"
        first = probe.sel(trial=3, channel="a").values
        assert first.tolist() == list(range(400, 700))
        there = trials["probe"]["is_there"].sel(trial=4)
        assert there.values.sum() == 200
        assert probe.sel(trial=4, channel="b").values[:200].tolist() == list(
            range(1800, 2000)
        )
        assert (probe.sel(trial=4).values[200:] == -(2**15)).all()
        assert probe.attrs["missing_value"] == -(2**15)
        camera = trials["camera"]["camera"]
        assert camera.dims == ("trial", "time", "y", "x")
        assert camera.dtype == np.uint8
        assert camera.sel(trial=3, y=0, x=0).values.tolist() == list(range(40, 70))
        with pytest.raises(KeyError, match="reward"):
            around(tree, "stim_off", 1, 1)
        with pytest.raises(KeyError, match="camera"):
            around(tree, "stim_on", 1, 1, streams="kamera")
        with pytest.raises(ValueError, match="seconds"):
            around(tree, "stim_on", -1, 1)


def test_a_session_is_replayed_under_its_own_names(
    recorded: Path, tmp_path: Path, context: Path
) -> None:
    elsewhere = Context.create(tmp_path / "again")
    options = {"context": elsewhere, "sync": True, "buffer_count": 512}
    with replay(recorded, speed=8, **options) as again:
        assert sorted(again.streams) == ["camera", "events", "probe"]
        readers = {
            n: Consumer(n, context=elsewhere, policy="lossless") for n in again.streams
        }
        seen = {
            name: [(f.time_ns, f.array.tobytes()) for f in reader]
            for name, reader in readers.items()
        }
        assert readers["probe"].labels.dims == ("time", "channel")
    for name, frames in seen.items():
        block = LogArchive(recorded).read(name)
        assert [t for t, _ in frames] == block.time.tolist()
        assert [data for _, data in frames] == [row.tobytes() for row in block.data]
    assert again.sent() == {"camera": 200, "events": 3, "probe": 200}
    for lateness in again.lateness().values():
        assert lateness.count > 0
    for reader in readers.values():
        reader.close()
    assert elsewhere.names() == []


def test_part_of_a_session_is_replayed(recorded: Path, tmp_path: Path) -> None:
    elsewhere = Context.create(tmp_path / "again")
    with replay(
        recorded, speed=1000, context=elsewhere, streams=["camera"], start=0.5, stop=1.0
    ) as again:
        assert again.wait(20)
        assert again.sent() == {"camera": 50}
    with pytest.raises(KeyError, match="probe"):
        replay(recorded, streams=["prob"], context=elsewhere)
    assert elsewhere.names() == []


def test_a_replay_keeps_to_the_clock_and_can_be_paused(
    recorded: Path, tmp_path: Path
) -> None:
    elsewhere = Context.create(tmp_path / "again")
    with replay(recorded, speed=0.001, context=elsewhere) as again:
        wait_until(lambda: again.sent()["camera"] == 1)
        again.pause()
        again.timeline.speed = 1e6
        assert not again.is_over
        again.resume()
        assert again.wait(20)
        assert again.sent()["camera"] == 200
    slow = replay(recorded, speed=0.001, context=elsewhere)
    slow.close()
    assert sum(slow.sent().values()) < 50
    assert elsewhere.names() == []


def test_a_replay_waits_for_its_readers(recorded: Path, tmp_path: Path) -> None:
    elsewhere = Context.create(tmp_path / "again")
    with (
        pytest.raises(TimeoutError, match="0 of 1 readers"),
        replay(recorded, context=elsewhere, readers=1, timeout=0.01),
    ):
        pass
    assert elsewhere.names() == []
    with replay(
        recorded, context=elsewhere, streams=["camera"], speed=1e6, sync=True, readers=1
    ) as again:
        assert again.sent()["camera"] == 0
        with Consumer("camera", context=elsewhere) as reader:
            assert sum(1 for _ in reader) == 200  # from the first one on
    stopped = replay(recorded, context=elsewhere, readers=1, timeout=None)
    stopped.close()
    assert elsewhere.names() == []


def test_around_says_what_it_takes(tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as s:
        s.event("stim_on")
    with xr.open_datatree(tmp_path / "s", engine="ataraxis") as tree:
        with pytest.raises(TypeError, match="not one stream of it"):
            around(tree["events"].to_dataset(), "stim_on", 0.1, 0.1)
        with pytest.raises(TypeError, match="name of an event"):
            around(tree, [0.1, 0.2], 0.1, 0.1)
        with pytest.raises(ValueError, match="must be seconds"):
            around(tree, "stim_on", -0.1, 0.1)


def test_what_had_ended_before_is_called_so(tmp_path: Path, context: Path) -> None:
    with Producer("early", shape=(), dtype="i8", buffer_count=8) as early:
        reader = Consumer("early")
        early.send(1)
        early.close()
        with pytest.warns(RuntimeWarning, match="had ended before"):  # noqa: SIM117
            with Session("s", directory=tmp_path) as s:
                s.record("early")
        assert reader.receive(timeout=5).array == 1
        reader.close()
    assert "had ended before" in s.verdict["early"].notes[0]


def test_a_source_that_waited_is_told(tmp_path: Path) -> None:
    with Producer("held", shape=(), dtype="i8", buffer_count=8) as held:
        reader = Consumer("held", policy="lossless")
        with Session("s", directory=tmp_path) as s:
            s.record("held", timeout=20)
            sender = threading.Thread(target=lambda: [held.send(k) for k in range(20)])
            sender.start()
            wait_until(lambda: held.statistics().stalled_s > 0.3, 20, "a stall")
            reader.close()
            sender.join()
    assert any("waited" in note for note in s.verdict["held"].notes)
    assert s.verdict.is_trusted


@pytest.mark.parametrize(
    ("waited_s", "is_noted"), [(0.0, False), (WAITED_S, False), (0.25, True)]
)
def test_a_wait_is_noted_above_a_tenth_of_a_second(
    tmp_path: Path, waited_s: float, is_noted: bool
) -> None:
    tracked = [StreamVerdict("cam", waited_s=waited_s)]
    verdict = judge(tmp_path, Anchor.take(), tracked=tracked)
    assert any("waited" in note for note in verdict["cam"].notes) == is_noted
    assert verdict.is_trusted


@pytest.mark.parametrize(("again", "is_trusted"), [(0, True), (2, False)])
def test_frames_that_are_recorded_twice_are_doubted(
    tmp_path: Path, again: int, is_trusted: bool
) -> None:
    for first in (0, 10 - again):
        with JournalWriter(tmp_path, "cam") as journal:
            journal.describe(0, "cam", stream="c")
            for k in range(first, first + 10):
                journal.log(0, np.int16(k), time_ns=k * 10**7, sequence=k)
    found = judge(tmp_path, Anchor.take())["cam"]
    assert (found.received, found.missing) == (20 - again, 0)
    assert found.is_trusted == is_trusted
    assert any("2 of its frames are recorded twice" in n for n in found.notes) == (
        not is_trusted
    )


@pytest.mark.parametrize(
    ("period_us", "is_trusted"),
    [(10_000, True), (10_400, True), (9600, True), (10_600, False), (9400, False)],
)
def test_a_device_off_its_declared_rate_is_doubted(
    tmp_path: Path, period_us: int, is_trusted: bool
) -> None:
    """By its own clock; 5 % are allowed."""
    labels = Labels("i2", (), attrs={"rate_hz": 100, "device_time_units": "us"})
    k = np.arange(50)
    with JournalWriter(tmp_path, "cam") as journal:
        journal.describe(0, "cam", labels, stream="c")
        journal.log_block(
            0, k.astype("i2"), time_ns=k * 10**7,
            device_time=k * period_us, device_sequence=k,
        )  # fmt: skip
    stream = judge(tmp_path, Anchor.take())["cam"]
    assert stream.is_trusted == is_trusted, stream
    assert any("100 are declared" in note for note in stream.notes) != is_trusted
