"""A rig: its YAML file, run as a session, tried before it counts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from deadline import wait_until
from places import PATH

from ataraxis import LogArchive, Session
from ataraxis.cli import main
from ataraxis.errors import AtaraxisError, ConfigError
from ataraxis.session import Rig, SessionFolder
from ataraxis.session.rig import RigPipe, RigRecorder, RigSource, RigStep, RigViewer

PROBE = RigSource("sim", "ramp", samples=50)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_rig_is_a_yaml_file(tmp_path: Path) -> None:
    rig = Rig(
        {"probe": PROBE},
        [RigRecorder(["probe", "pose"], "disk")],
        {"peaks": RigPipe("probe", [RigStep("peak", "workers_session:peak", 2)])},
        {"table": RigViewer(["ataraxis", "top"])},
    )
    rig.to_yaml(tmp_path / "rig.yaml")
    assert Rig.from_yaml(tmp_path / "rig.yaml") == rig
    assert rig.recorded == {"probe": "disk", "pose": "disk"}
    assert rig.problems() == []


def test_a_rig_that_contradicts_itself_starts_nothing(tmp_path: Path) -> None:
    rig = Rig(
        {"a/b": PROBE},
        pipes={"p": RigPipe("probe", []), "q": RigPipe("x", [RigStep("s", "peak")])},
        viewers={"v": RigViewer([])},
    )
    with Session("s", directory=tmp_path) as session:
        with pytest.raises(ConfigError) as caught:
            session.start(rig)
        for word in ("slash", "no steps", "module:function", "command is empty"):
            assert word in str(caught.value)
        wrong = Rig({}, pipes={"p": RigPipe("x", [RigStep("s", "json:nonsense")])})
        with pytest.raises(ConfigError, match="nonsense"):
            session.start(wrong)
        assert session.streams == ["events"]


def test_a_source_that_is_not_there_ends_the_rig(tmp_path: Path) -> None:
    rig = Rig({"probe": PROBE, "none": RigSource("sim", "no_such_stream")})
    session = Session("s", directory=tmp_path)
    with pytest.raises(AtaraxisError, match="no_such_stream"):
        session.start(rig)
    assert not session.close().is_trusted


def test_a_rig_is_run_recorded_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PATH)
    rig = Rig(
        {"probe": PROBE, "camera": RigSource("sim", "camera")},
        pipes={
            "peaks": RigPipe(
                "probe", [RigStep("peak", "workers_session:peak")], event="peak"
            )
        },
        viewers={"look": RigViewer(["sleep", "1000"])},
    )
    with Session("s", directory=tmp_path) as session:
        run = session.start(rig)
        assert [*run.programs] == ["probe", "camera", "look"]
        viewer, recorder = run.programs["look"], session.recorders["recorder"]
        os.kill(recorder, signal.SIGKILL)  # misses nothing
        os.kill(viewer, signal.SIGKILL)  # no other process is affected

        def is_again() -> bool:
            assert run.look()
            counts = session.statistics()
            was_started = recorder != session.recorders["recorder"]
            return (
                was_started
                and run.programs["look"] != viewer
                and all(
                    counts[name].frames > 5 for name in ("probe", "camera", "events")
                )
            )

        wait_until(is_again, 60)
        run.wait(0.1)
    assert session.verdict is not None
    assert session.verdict.is_trusted, str(session.verdict)
    archive = LogArchive(session.directory)
    probe = archive.read("probe")
    # The ramp counts: 0, 1, 2, ... at its 1000 Hz; not one sample is missing.
    assert probe.data.shape[1:] == (50, 4)
    assert probe.sequence.tolist() == list(range(len(probe)))
    assert probe.device is not None
    assert probe.device[:, 1].tolist() == [50 * k for k in range(len(probe))]
    events = archive.read("events")
    assert set(events.data["event"].tolist()) == {"peak"}
    assert len(events) == len(probe)
    assert Rig.from_yaml(session.directory / "rig.yaml") == rig


def test_run_and_check_from_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    Rig({"probe": PROBE}).to_yaml(path)
    before = names(tmp_path)
    tried = CliRunner().invoke(
        main,
        ["check", str(path), "--soak", "2", "-o", str(tmp_path), "--json"],
    )
    found = json.loads(tried.output)
    (stream,) = found["streams"]
    assert stream["declared_hz"] == 20, found
    assert stream["missing"] == 0
    assert found["disk_s"] > 0
    assert tried.exit_code == (not found["is_ready"])
    assert names(tmp_path) == before
    done = CliRunner().invoke(
        main,
        f"run {path} --name s -o {tmp_path} --duration 0.5 --subject m42".split(),
    )
    assert done.exit_code == 0, done.output
    assert "trusted" in done.output
    assert SessionFolder(tmp_path / "s").record().subject == "m42"
    missing = CliRunner().invoke(main, ["run", str(tmp_path / "none.yaml")])
    assert missing.exit_code == 1
    again = CliRunner().invoke(
        main,
        ["replay", str(tmp_path / "s"), "--speed", "1000", "--stream", "probe"],
    )
    assert again.exit_code == 0, again.output
    assert again.output.startswith("probe: ")
