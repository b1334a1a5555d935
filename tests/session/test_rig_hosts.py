"""Sources and recorders of a rig on other hosts of the lab."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agents import Lab, lab
from deadline import wait_until
from places import PATH

from ataraxis import Consumer, LogArchive, Producer, Session
from ataraxis.cluster.status import mirrors_here
from ataraxis.errors import ConfigError, HostUnavailable, SourceFailed
from ataraxis.session import Rig, SessionFolder, Verdict, check
from ataraxis.session.rig import RigPipe, RigRecorder, RigSource, RigStep
from ataraxis.session.rig_run import RigRun
from ataraxis.stream.inspector import Inspector

# On a busy machine a recorder joins late; frames are kept for it, and all are counted.
pytestmark = pytest.mark.filterwarnings("ignore:.*was announced and has not joined")
WAIT_S = 60.0
SIM = "ataraxis.datamux.sources.sim"
PROBE = RigSource("sim", "ramp", samples=50, host="acq")
STEP = RigStep("peak", "workers_session:peak")


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("PYTHONPATH", PATH)
    with lab("acq", "gpu", modules=[SIM, "workers_session", "far_camera"]) as made:
        yield made
        # Keepers end as soon as they are forgotten.
        wait_until(lambda: not programs(made), WAIT_S, "programs to be forgotten")


def programs(made: Lab) -> list[dict[str, Any]]:
    return [
        one for agent in made.agents.values() for one in agent.statistics()["programs"]
    ]


@contextlib.contextmanager
def session(
    made: Lab, directory: Path, *, is_doubted: bool = False, **keywords: Any
) -> Iterator[Session]:
    """A session of host gpu."""
    told = pytest.warns(RuntimeWarning, match="not to be trusted")
    with (
        told if is_doubted else contextlib.nullcontext(),
        Session(
            "s", directory=directory, context=made.contexts["gpu"], **keywords
        ) as found,
    ):
        yield found


def verdict_of(found: Session) -> Verdict:
    assert found.verdict is not None
    return found.verdict


def log_of(found: Session) -> str:
    return (found.directory / "session.log").read_text()


def frames(found: Session, name: str, count: int) -> None:
    wait_until(
        lambda: found.statistics()[name].frames >= count, WAIT_S, f"{count} of {name}"
    )


def test_a_source_of_another_host_is_recorded_here_from_its_first_frame_on(
    rig: Lab, tmp_path: Path
) -> None:
    setup = Rig(
        {"probe": PROBE},
        pipes={
            "p": RigPipe("probe", [RigStep("peak", "workers_session:peak")], "peak")
        },
    )
    with session(rig, tmp_path) as s:
        run = s.start(setup)
        host, pid = run.elsewhere["probe"]
        assert host == "acq"
        assert "probe" not in run.programs
        frames(s, "probe", 20)
        run.stop()
    assert verdict_of(s).is_trusted, f"{verdict_of(s)}\n{log_of(s)}"
    probe = LogArchive(s.directory).read("probe")
    assert probe.sequence.tolist() == list(range(len(probe)))
    assert probe.device is not None
    assert probe.device[:, 1].tolist() == [50 * k for k in range(len(probe))]
    # The pipe here has received each frame, too.
    assert len(LogArchive(s.directory).read("events")) == len(probe)
    assert run.reports["probe"]["samples"] // 50 == len(probe)
    assert mirrors_here(rig.contexts["gpu"]) == []
    assert not os.path.exists(f"/proc/{pid}")


def test_a_source_sends_once_the_readers_here_have_joined(
    rig: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, seen = RigRun._start_pipe, []

    def start_late(self: RigRun, *arguments: Any) -> None:
        look = Inspector("probe", rig.contexts["acq"]).statistics
        wait_until(lambda: look().readers, WAIT_S, "the mirror")
        end = time.monotonic() + 1.0
        while not look().sent and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(look().sent)
        start(self, *arguments)

    monkeypatch.setattr(RigRun, "_start_pipe", start_late)
    setup = Rig({"probe": PROBE}, pipes={"p": RigPipe("probe", [STEP], "peak")})
    with session(rig, tmp_path) as s:
        run = s.start(setup)
        frames(s, "probe", 5)
        run.stop()
    assert seen == [0]
    assert (
        len(LogArchive(s.directory).read("events")) == verdict_of(s)["probe"].received
    )


def recorded(found: Session | Path, name: str) -> list[int]:
    """The numbers of a camera, as recorded."""
    place = found if isinstance(found, Path) else found.directory
    return [int(n) for n in LogArchive(place).read(name).data[:, 0]]


CAMERA = RigSource(command=["python", "-m", "far_camera"], host="acq")


@pytest.mark.slow
def test_a_module_of_the_user_runs_there_and_the_next_session_has_its_own_frames(
    rig: Lab, tmp_path: Path
) -> None:
    for k in range(2):
        with Session(f"s{k}", directory=tmp_path, context=rig.contexts["gpu"]) as s:
            run = s.start(Rig({"camera": CAMERA}))
            frames(s, "camera", 30)
            run.stop()
        assert verdict_of(s).is_trusted, f"{verdict_of(s)}\n{log_of(s)}"
        assert verdict_of(s)["camera"].device_lost == 0
        found = recorded(s, "camera")
        assert found == list(range(len(found)))


def test_a_stream_that_is_there_is_mirrored_under_the_name_of_the_rig(
    rig: Lab, tmp_path: Path
) -> None:
    with Producer(
        "licks", shape=(3,), dtype="i8", context=rig.contexts["acq"]
    ) as producer:
        with session(rig, tmp_path) as s:
            s.start(Rig({"theirs": RigSource(stream="licks", host="acq")}))
            for k in range(50):
                producer.send(np.full(3, k, "i8"))
            frames(s, "theirs", 50)
        assert verdict_of(s).is_trusted, str(verdict_of(s))
        assert recorded(s, "theirs") == list(range(50))
        assert mirrors_here(rig.contexts["gpu"]) == []
        producer.send(np.full(3, 50, "i8"))  # it goes on there
        producer.unlink()


def test_the_rig_ends_with_a_stream_that_is_there(rig: Lab, tmp_path: Path) -> None:
    producer = Producer("licks", shape=(3,), dtype="i8", context=rig.contexts["acq"])
    with session(rig, tmp_path) as s:
        run = s.start(Rig({"licks": RigSource(stream="licks", host="acq")}))
        assert run.look()
        for k in range(20):
            producer.send(np.full(3, k, "i8"))
        producer.close()
        run.wait(WAIT_S)
    assert verdict_of(s).is_trusted, str(verdict_of(s))
    assert recorded(s, "licks") == list(range(20))


# ---- what is refused, before and at the start


@pytest.mark.parametrize(
    ("rig_", "said"),
    [
        (Rig({"a": RigSource(stream="x")}), "are missing"),
        (Rig({"a": RigSource("sim", "ramp", mirror="none")}), "another host"),
        (Rig({"a": RigSource(host="acq", stream="x", attrs={"a": 1})}), "attrs"),
        (Rig({"a": RigSource(host="acq", stream="x", mirror="none")}), "nothing"),
        (Rig({"a": RigSource(host="acq", command=["./cam"])}), "python -m MODULE"),
        (Rig({"a": RigSource("b.node.yaml", "x", host="acq")}), "file here"),
        (Rig({"a": RigSource("sim", "ramp", host="acq", away_s=0)}), "86400"),
        (
            Rig({"a": RigSource("sim", "ramp", host="acq", mirror="latest")}),
            "needs every frame",
        ),
        (
            Rig({"a": PROBE}, [RigRecorder(["a"], host="behaviour")]),
            "records its own streams",
        ),
        (
            Rig({"a": PROBE}, [RigRecorder(["a"], host="acq"), RigRecorder(["a"])]),
            "on several hosts",
        ),
        (
            Rig(
                {"a": RigSource(stream="b", host="acq")},
                [RigRecorder(["a"], host="acq")],
            ),
            "name it so",
        ),
    ],
)
def test_a_rig_that_contradicts_itself_says_what(rig_: Rig, said: str) -> None:
    assert any(said in text for text in rig_.problems()), rig_.problems()


def test_places_are_kept_in_the_file(tmp_path: Path) -> None:
    setup = Rig(
        {
            "probe": RigSource("sim", "ramp", host="acq", mirror="none", away_s=5),
            "licks": RigSource(stream="licks", host="box"),
            "local": RigSource("sim", "camera"),
        },
        [RigRecorder(host="acq"), RigRecorder()],
    )
    setup.to_yaml(tmp_path / "rig.yaml")
    assert Rig.from_yaml(tmp_path / "rig.yaml") == setup
    assert setup.problems() == []
    assert setup.hosts == ["acq", "box"]
    assert [names for _, names in setup.recordings()] == [["probe"], ["licks", "local"]]
    assert setup.recorded_here == ["licks", "local"]
    with pytest.raises(ConfigError, match="name the source so"):
        Rig({"a": RigSource(stream="b", host="acq")}).on("acq")
    mine = setup.on("acq")
    assert mine.hosts == ["box"]
    assert mine.recorded_here == ["probe", "licks", "local"]


def refusal(rig: Lab, tmp_path: Path, setup: Rig) -> str:
    """What a session says of a rig that is not started; nothing is left of it."""
    found = Session("s", directory=tmp_path, context=rig.contexts["gpu"])
    with pytest.raises(SourceFailed) as caught:
        found.start(setup)
    found.close()
    assert caught.value.source in setup.sources
    assert mirrors_here(rig.contexts["gpu"]) == []
    return str(caught.value)


def test_a_module_that_is_not_listed_is_refused(rig: Lab, tmp_path: Path) -> None:
    other = RigSource(command=["python", "-m", "http.server"], host="acq")
    said = refusal(rig, tmp_path, Rig({"a": other}))
    assert "'http.server', which is not under 'modules:'" in said
    assert "far_camera" in said  # what it lists


def test_a_driver_that_is_not_listed_is_refused(rig: Lab, tmp_path: Path) -> None:
    setup = Rig({"load": RigSource("telemetry", "load", host="acq")})
    said = refusal(rig, tmp_path, setup)
    assert "'ataraxis.datamux.sources.telemetry', which is not under" in said


@pytest.mark.parametrize(("may", "lacks"), [("read", "run"), ("run", "read")])
def test_a_host_without_a_right_is_refused(
    rig: Lab, tmp_path: Path, may: Any, lacks: str
) -> None:
    rig.stop("acq")
    rig.may["acq"] = {"gpu": [may]}
    rig.start("acq")
    said = refusal(rig, tmp_path, Rig({"probe": PROBE}))
    assert f"host 'gpu' may not {lacks} at 'acq'" in said


@pytest.mark.slow
def test_a_host_that_is_away_is_named(rig: Lab, tmp_path: Path) -> None:
    rig.stop("acq")
    said = refusal(rig, tmp_path, Rig({"probe": PROBE}))
    assert "host 'acq' at acq:7411 was not reached" in said


def test_a_host_that_is_not_listed_is_named(rig: Lab, tmp_path: Path) -> None:
    setup = Rig({"probe": RigSource("sim", "ramp", host="acw")})
    said = refusal(rig, tmp_path, setup)
    assert "'acw' is not in" in said
    assert "did you mean 'acq'" in said


def test_without_an_agent_here_it_is_said_how_to_start_one(
    tmp_path: Path, context: Path
) -> None:
    with Session("s", directory=tmp_path) as s:
        with pytest.raises(HostUnavailable, match="ataraxis agent --hosts"):
            s.start(Rig({"probe": PROBE}))
        with pytest.raises(ConfigError, match="python -m MODULE"):
            s.start(Rig({"a": RigSource(host="acq", command=["./cam"])}))


def test_a_source_that_fails_there_says_why(rig: Lab, tmp_path: Path) -> None:
    setup = Rig({"probe": RigSource("sim", "no_such_stream", host="acq")})
    said = refusal(rig, tmp_path, setup)
    assert "no_such_stream" in said


# ---- recorders of other hosts


@pytest.fixture
def disk(rig: Lab, tmp_path: Path) -> Path:
    """The directory where host acq records for others."""
    made = tmp_path / "disk-of-acq"
    made.mkdir()
    rig.stop("acq")
    rig.sessions["acq"] = str(made)
    rig.start("acq")
    return made


def there(run: Any, name: str) -> int:
    """The process of a source or recorder on the other host."""
    wait_until(lambda: run.elsewhere[name][1], WAIT_S, f"the pid of {name}")
    return int(run.elsewhere[name][1])


def sent(rig: Lab, name: str, more: int) -> None:
    """Wait until a stream of acq has so many more frames."""
    look = Inspector(name, rig.contexts["acq"]).statistics
    first = look().sent
    wait_until(lambda: look().sent >= first + more, WAIT_S, f"{more} of {name}")


def test_a_host_records_its_streams_on_its_own_disk(
    rig: Lab, disk: Path, tmp_path: Path
) -> None:
    setup = Rig(
        {
            "probe": RigSource("sim", "ramp", samples=50, host="acq", mirror="none"),
            "camera": CAMERA,
        },
        [RigRecorder(["probe"], host="acq"), RigRecorder()],
    )
    with session(rig, tmp_path, subject="m42") as s:
        run = s.start(setup)
        assert s.streams == ["events", "camera"]
        frames(s, "camera", 30)
        sent(rig, "probe", 10)
        assert not (rig.contexts["gpu"] / "probe").exists()  # it stays there
        run.stop()
    found = verdict_of(s)
    assert found.is_trusted, f"{found}\n{log_of(s)}"
    place = disk / "s"
    assert (found["probe"].host, found["probe"].path) == ("acq", str(place))
    assert found["probe"].notes[0] == f"recorded on host 'acq', in {place}"
    assert (found["camera"].host, found["camera"].path) == ("", "")
    probe = LogArchive(place).read("probe")
    assert probe.sequence.tolist() == list(range(len(probe)))
    assert found["probe"].expected == found["probe"].received == len(probe) > 10
    assert SessionFolder(s.directory).record().elsewhere == {"probe": f"acq:{place}"}
    assert Verdict.from_yaml(s.directory / "verdict.yaml") == found
    # There it is a session as any other, and says whose part it is.
    part = SessionFolder(place)
    assert part.record().subject == "m42"
    assert part.verdict()["probe"].received == len(probe)
    assert "session: s" in (place / "part.yaml").read_text()


@pytest.mark.slow
def test_a_recorder_that_is_killed_there_misses_nothing(
    rig: Lab, disk: Path, tmp_path: Path
) -> None:
    setup = Rig({"camera": CAMERA}, [RigRecorder(host="acq")])
    with session(rig, tmp_path) as s:
        run = s.start(setup)
        pid = there(run, "recorder of s")
        sent(rig, "camera", 30)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: there(run, "recorder of s") != pid, WAIT_S, "another one")
        sent(rig, "camera", 30)
        run.stop()
    found = verdict_of(s)["camera"]
    assert found.is_trusted, f"{found}\n{log_of(s)}"
    assert any("died and was started again, 1 times" in n for n in found.notes)
    numbers = recorded(disk / "s", "camera")
    assert numbers == list(range(len(numbers)))
    assert found.received == len(numbers) > 50


def test_a_host_that_names_no_directory_records_nothing(
    rig: Lab, tmp_path: Path
) -> None:
    said = refusal(rig, tmp_path, Rig({"camera": CAMERA}, [RigRecorder(host="acq")]))
    assert "'sessions:'" in said


@pytest.mark.slow
def test_a_second_session_of_the_name_overwrites_nothing(
    rig: Lab, disk: Path, tmp_path: Path
) -> None:
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        with session(rig, tmp_path / str(k)) as s:
            run = s.start(Rig({"camera": CAMERA}, [RigRecorder(host="acq")]))
            sent(rig, "camera", 10)
            run.stop()
        assert verdict_of(s).is_trusted, str(verdict_of(s))
    assert verdict_of(s)["camera"].path == str(disk / "s-2")
    assert sorted(p.name for p in disk.iterdir()) == ["s", "s-2"]


# ---- deaths


@pytest.mark.slow
def test_a_program_that_is_killed_there_is_started_again(
    rig: Lab, tmp_path: Path
) -> None:
    with session(rig, tmp_path, is_doubted=True) as s:
        run = s.start(Rig({"camera": CAMERA}))
        pid = there(run, "camera")
        frames(s, "camera", 30)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: there(run, "camera") != pid, WAIT_S, "another one")
        before = s.statistics()["camera"].frames
        frames(s, "camera", before + 30)
        assert run.look()
        run.stop()
    found = verdict_of(s)
    assert not found.is_trusted
    assert any("failed and was started again, 1 times" in n for n in found.notes)
    numbers = recorded(s, "camera")
    # Two runs of the camera, each from its first frame on, and nothing between.
    second = numbers.index(0, 1)
    assert numbers[:second] == list(range(second))
    assert numbers[second:] == list(range(len(numbers) - second))


@pytest.mark.slow
def test_a_program_that_ends_at_once_each_time_is_given_up(
    rig: Lab, tmp_path: Path
) -> None:
    broken = RigSource(command=["python", "-m", "far_camera", "none"], host="acq")
    said = refusal(rig, tmp_path, Rig({"camera": broken}))
    assert "invalid literal for int()" in said


@pytest.mark.slow
def test_a_keeper_that_is_killed_is_replaced(rig: Lab, tmp_path: Path) -> None:
    with session(rig, tmp_path, is_doubted=True) as s:
        run = s.start(Rig({"camera": CAMERA}))
        pid = there(run, "camera")
        frames(s, "camera", 30)
        parent = int(
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        )
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: there(run, "camera") != pid, WAIT_S, "another one")
        before = s.statistics()["camera"].frames
        frames(s, "camera", before + 30)
        run.stop()
    assert any("started again" in note for note in verdict_of(s).notes), log_of(s)
    numbers = recorded(s, "camera")
    second = numbers.index(0, 1)
    assert numbers[:second] == list(range(second))
    assert numbers[second:] == list(range(len(numbers) - second))


@pytest.mark.slow
@pytest.mark.parametrize("host", ["acq", "gpu"])
def test_an_agent_that_is_restarted_stops_nothing(
    rig: Lab, tmp_path: Path, host: str
) -> None:
    with session(rig, tmp_path) as s:
        run = s.start(Rig({"camera": CAMERA}))
        pid = there(run, "camera")
        frames(s, "camera", 30)
        rig.stop(host)
        time.sleep(0.5)
        rig.start(host)
        before = s.statistics()["camera"].frames
        frames(s, "camera", before + 100)
        run.stop()
        assert run.elsewhere["camera"] == ("acq", pid)
    assert verdict_of(s).is_trusted, f"{verdict_of(s)}\n{log_of(s)}"
    numbers = recorded(s, "camera")
    assert numbers == list(range(len(numbers)))


@pytest.mark.slow
def test_a_cut_cable_stops_nothing(rig: Lab, tmp_path: Path) -> None:
    with session(rig, tmp_path) as s:
        run = s.start(Rig({"camera": CAMERA}))
        frames(s, "camera", 30)
        rig.network.cut("acq", "gpu")
        sent(rig, "camera", 300)
        rig.network.heal("acq", "gpu")
        before = s.statistics()["camera"].frames
        frames(s, "camera", before + 100)
        run.stop()
    assert verdict_of(s).is_trusted, f"{verdict_of(s)}\n{log_of(s)}"
    numbers = recorded(s, "camera")
    assert numbers == list(range(len(numbers)))


@pytest.mark.slow
def test_a_source_that_ends_while_the_cable_is_cut_is_here_to_its_last_frame(
    rig: Lab, tmp_path: Path
) -> None:
    command = [*CAMERA.command, "300"]
    with session(rig, tmp_path) as s:
        run = s.start(Rig({"camera": RigSource(command=command, host="acq")}))
        pid = there(run, "camera")
        frames(s, "camera", 10)
        rig.network.cut("acq", "gpu")
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), WAIT_S, "its end")
        rig.network.heal("acq", "gpu")
        run.wait(WAIT_S)
    assert verdict_of(s).is_trusted, f"{verdict_of(s)}\n{log_of(s)}"
    assert recorded(s, "camera") == list(range(300))


@pytest.mark.slow
def test_a_source_that_is_alone_for_too_long_ends(rig: Lab, tmp_path: Path) -> None:
    setup = Rig({"camera": RigSource(command=CAMERA.command, host="acq", away_s=2)})
    with session(rig, tmp_path) as s:
        run = s.start(setup)
        pid = there(run, "camera")
        frames(s, "camera", 30)
        rig.network.cut("acq", "gpu")
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), WAIT_S, "its end")
        rig.network.heal("acq", "gpu")
        run.wait(WAIT_S)
    assert "runs 2 s without it: it ends" in log_of(s)
    numbers = recorded(s, "camera")
    assert numbers == list(range(len(numbers)))
    assert verdict_of(s)["camera"].missing == 0


@pytest.mark.slow
def test_what_is_not_here_at_the_end_is_doubted(
    rig: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.session.far_program.PATIENCE_S", 1.0)
    monkeypatch.setattr("ataraxis.session.far_source.PATIENCE_S", 1.0)
    found = Session("s", directory=tmp_path, context=rig.contexts["gpu"])
    run = found.start(
        Rig({"camera": RigSource(command=CAMERA.command, host="acq", away_s=5)})
    )
    frames(found, "camera", 30)
    rig.network.cut("acq", "gpu")
    sent(rig, "camera", 50)
    run.stop()
    found.close()
    assert not verdict_of(found).is_trusted
    said = str(verdict_of(found))
    assert "are still on host 'acq'" in said
    assert "ataraxis record camera" in said
    assert [one.name for one in mirrors_here(rig.contexts["gpu"])] == ["camera"]
    rig.network.heal("acq", "gpu")
    # They are not lost: what is read now goes on where the session ended.
    last = recorded(found, "camera")[-1]
    numbers: list[int] = []
    with Consumer(
        "camera", policy="lossless", context=rig.contexts["gpu"], timeout=WAIT_S
    ) as reader:
        for frame in reader:
            numbers.append(int(frame.array[0]))
            if numbers[-1] == last + 20:
                break
    assert last + 1 in numbers
    assert numbers == list(range(numbers[0], last + 21))


@pytest.mark.slow
def test_a_rig_whose_process_is_killed_is_recovered_whole(
    rig: Lab, disk: Path, tmp_path: Path
) -> None:
    import subprocess
    import sys

    code = f"""
import time
from ataraxis import Session
from ataraxis.session.rig import Rig, RigRecorder, RigSource
s = Session("s", directory={str(tmp_path)!r}, context={str(rig.contexts["gpu"])!r})
s.start(Rig(
    {{"camera": RigSource(command=["python", "-m", "far_camera"], host="acq"),
      "probe": RigSource("sim", "ramp", samples=50, host="acq", mirror="none")}},
    [RigRecorder(["probe"], host="acq"), RigRecorder()],
))
time.sleep(600)
"""
    from ataraxis.session import finish_sessions

    program = subprocess.Popen([sys.executable, "-P", "-c", code])
    try:
        wait_until(lambda: (rig.contexts["gpu"] / "camera").exists(), WAIT_S, "it")
        sent(rig, "camera", 100)
        sent(rig, "probe", 5)
    finally:
        program.kill()
        program.wait(20)
    wait_until(lambda: not programs(rig), WAIT_S, "the sources to end")
    (found,) = finish_sessions(tmp_path / "s")
    numbers = recorded(tmp_path / "s", "camera")
    assert numbers == list(range(len(numbers)))
    camera = found.verdict["camera"]
    assert camera.expected == camera.received == len(numbers)
    assert camera.is_trusted, str(found.verdict)
    assert found.verdict["probe"].host == "acq"
    assert "its verdict is in acq:" in found.verdict["probe"].notes[0]
    part = SessionFolder(disk / "s").verdict()
    assert part is not None
    assert part["probe"].is_trusted
    assert mirrors_here(rig.contexts["gpu"]) == []
    with Session("t", directory=tmp_path, context=rig.contexts["gpu"]) as t:
        run = t.start(Rig({"camera": CAMERA}))
        frames(t, "camera", 20)
        run.stop()
    assert verdict_of(t).is_trusted, str(verdict_of(t))
    assert recorded(t, "camera")[0] == 0


# ---- the check before


def problems_of(rig: Lab, tmp_path: Path, setup: Rig) -> str:
    found = check(setup, 1.0, directory=tmp_path, context=rig.contexts["gpu"])
    assert not found.is_ready
    return "; ".join([*(s.problem for s in found.streams), *found.problems])


@pytest.mark.slow
def test_a_check_runs_all_of_it_and_leaves_nothing(
    rig: Lab, disk: Path, tmp_path: Path
) -> None:
    setup = Rig(
        {
            "probe": RigSource("sim", "ramp", samples=50, host="acq", mirror="none"),
            "camera": CAMERA,
        },
        [RigRecorder(["probe"], host="acq"), RigRecorder()],
        expected_s=1.0,
    )
    found = check(setup, 4.0, directory=tmp_path, context=rig.contexts["gpu"])
    rows = {row.stream: row for row in found.streams}
    assert rows["probe"].missing == rows["camera"].missing == 0, found
    assert rows["camera"].rate_hz > 0
    assert rows["probe"].declared_hz is None  # it was never here
    assert rows["probe"].rate_hz > 0
    assert any("host 'acq': clock: " in note for note in found.notes), found.notes
    assert not any("host" in each for each in found.problems), found.problems
    assert list(disk.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["disk-of-acq"]
    assert mirrors_here(rig.contexts["gpu"]) == []


def test_a_check_asks_the_other_hosts_before_anything_is_started(
    rig: Lab, tmp_path: Path
) -> None:
    setup = Rig(
        {
            "camera": CAMERA,
            "load": RigSource("telemetry", "load", host="acq"),
            "licks": RigSource(stream="licks", host="acq"),
        },
        [RigRecorder(["camera"], host="acq"), RigRecorder()],
    )
    said = problems_of(rig, tmp_path, setup)
    assert "recorder on host 'acq': " in said
    assert "'sessions:'" in said
    assert "telemetry', which is not under 'modules:'" in said
    assert "has no stream 'licks'" in said
    assert not (rig.contexts["gpu"] / "camera").exists()


def test_a_check_of_a_host_that_is_away_says_so(rig: Lab, tmp_path: Path) -> None:
    rig.stop("acq")
    said = problems_of(rig, tmp_path, Rig({"camera": CAMERA}))
    assert "host 'acq': reach: " in said
    assert "is 'ataraxis agent' running there" in said
