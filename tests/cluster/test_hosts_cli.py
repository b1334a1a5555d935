"""Commands of several hosts, as a user types them."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_pipe as w
from agents import Lab, lab
from click.testing import CliRunner, Result
from deadline import wait_until
from rich.console import Console

from ataraxis import Consumer, LogArchive, Pipe, Processor, Producer, screen
from ataraxis.cli import main
from ataraxis.cluster import Cluster
from ataraxis.cluster.status import mirrors_here
from ataraxis.link.hosts import Hosts
from ataraxis.stream.inspector import Inspector
from ataraxis.testing.carriers import FakeCarrier

pytest.importorskip("cryptography", reason="certificates need cryptography")

WAIT_S = 30.0


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture
def camera(rig: Lab) -> Iterator[Producer]:
    producer = Producer(
        "camera", shape=(4,), dtype="i8", buffer_count=16, context=rig.contexts["acq"],
        attrs={"sample_rate_hz": 100.0},
    )  # fmt: skip
    yield producer
    producer.unlink()


def call(rig: Lab, *arguments: str, code: int = 0) -> str:
    done = invoke("--context", str(rig.contexts["gpu"]), *arguments)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def invoke(option: str, value: str, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [command, option, value, *arguments])


def call_json(rig: Lab, *arguments: str, code: int = 0) -> Any:
    return json.loads(call(rig, *arguments, "--json", code=code))


def command(rig: Lab, *arguments: str) -> subprocess.Popen[str]:
    """Start a command on host gpu."""
    code = "from ataraxis.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "ATARAXIS_CONTEXT": str(rig.contexts["gpu"])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip


def send(producer: Producer, frames: int) -> None:
    for k in range(frames):
        producer.send(np.full(4, k, "i8"), timeout=WAIT_S)


# ---- files


def test_a_lab_is_made_added_to_and_revoked(tmp_path: Path) -> None:
    run = CliRunner().invoke
    place = tmp_path / "rig"
    done = run(main, ["hosts", "init", str(place), "acq=127.0.0.1", "gpu=127.0.0.2:99"])
    assert done.exit_code == 0, done.output
    assert "ataraxis agent --hosts gpu/hosts.yaml" in done.output
    hosts = Hosts.load(place / "gpu")
    assert (hosts.lab, hosts.me) == ("rig", "gpu")
    assert hosts.address_of("gpu") == "127.0.0.2:99"
    assert stat.S_IMODE((place / "gpu" / "gpu.key").stat().st_mode) == 0o600
    done = run(main, ["hosts", "add", str(place), "desk=127.0.0.3"])
    assert done.exit_code == 0, done.output
    assert "desk" in Hosts.load(place / "acq").hosts
    done = run(main, ["hosts", "revoke", str(place), "gpu"])
    assert done.exit_code == 0, done.output
    assert list(Hosts.load(place / "acq").revoked.values()) == ["gpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hosts", "init", "x", "acq"], "is not NAME=ADDRESS"),
        (["hosts", "init", "x", "a b=127.0.0.1"], "letters, digits"),
        (["hosts", "add", ".", "acq=127.0.0.1"], "no hosts.yaml"),
        (["hosts", "revoke", ".", "acq"], "no hosts.yaml"),
        (["agent", "--hosts", "none.yaml"], "does not exist"),
        (["mirror", "camera"], "neither HOST:STREAM"),
        (["mirror", "acq:camera", "camera"], "give HOST:STREAM"),
        (
            ["mirror", "ws://localhost:1", "camera", "--detach"],
            "--detach has no effect",
        ),
        (["mirror", "acq:camera", "--node", "x"], "--node has no effect"),
        (["ls", "acq"], "is not HOST:"),
        (["ls", "acq:"], "no agent runs"),
        (["doctor", "acq"], "no agent runs"),
        (["hosts"], "no agent runs"),
        (["hosts", "forget", "acq"], "no agent runs"),
    ],
)
def test_a_wrong_command_is_explained(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert "Traceback" not in done.output


# ---- what is shown


def test_streams_of_a_host_are_listed(rig: Lab, camera: Producer) -> None:
    send(camera, 3)
    (row,) = call_json(rig, "ls", "acq:")
    assert (row["name"], row["shape"], row["sent"]) == ("camera", [4], 3)
    shown = call(rig, "ls", "acq:")
    assert "camera" in shown
    assert "live" in shown
    camera.unlink()
    assert "has no streams" in call(rig, "ls", "acq:")
    assert "did you mean 'acq'" in call(rig, "ls", "aqc:", code=1)


def test_hosts_and_mirrors_are_shown(rig: Lab, camera: Producer) -> None:
    assert "as 'theirs'; the agent keeps it" in call(
        rig, "mirror", "acq:camera", "--detach", "--as", "theirs"
    )
    wait_until(
        lambda: call_json(rig, "hosts")["hosts"][1]["offset_ns"] is not None, WAIT_S
    )
    shown = call(rig, "hosts")
    for word in (
        "gpu",
        "acq",
        "connected",
        "theirs",
        "acq:camera",
        "flowing",
        "detached",
    ):
        assert word in shown
    assert "theirs" in call(rig, "top", "--once", "--interval", "0.1")
    top = call_json(rig, "top", "--interval", "0.1")
    assert [one["name"] for one in top["mirrors"]] == ["theirs"]
    call(rig, "mirror", "acq:camera", "--as", "theirs", "--end")
    assert mirrors_here(rig.contexts["gpu"]) == []
    assert "is not a mirror" in call(rig, "mirror", "acq:theirs", "--end", code=1)


def test_top_fits_100_columns(rig: Lab, camera: Producer, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    call(rig, "mirror", "acq:camera", "--detach")
    send(camera, 5)
    wait_until(
        lambda: call_json(rig, "hosts")["hosts"][1]["round_trip_ns"] is not None, WAIT_S
    )
    shown = call(rig, "top", "--once", "--interval", "0.1")
    assert max(map(len, shown.splitlines())) <= 100
    rows = [line.split() for line in shown.splitlines()]
    assert any(row[:2] == ["acq", "connected"] for row in rows)
    assert any(row[0] == "camera" and "flowing" in row for row in rows if row)
    assert "…" not in shown, "names are whole"
    found = call_json(rig, "top", "--interval", "0.1")
    assert found["agent"] == "answers"
    assert [host["name"] for host in found["hosts"]] == ["gpu", "acq"]
    (mirror,) = found["mirrors"]
    assert (mirror["state"], mirror["frames"], mirror["lost"]) == ("flowing", 5, 0)
    call(rig, "mirror", "acq:camera", "--end")


def test_edges_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with lab("gpu", "acq", modules=["workers_pipe"]) as rig:
        here, found = rig.contexts["gpu"], list[int]()
        pipe = Pipe("track", context=here)
        pipe.add(Processor("far", func=w.takes_a_while, host="acq"))
        carrier = FakeCarrier(rig.network, "gpu")
        with (
            Cluster(rig.hosts("gpu"), context=here, carrier=carrier) as engine,
            pipe.run(range(10**6), found, engine=engine) as run,
        ):
            wait_until(lambda: len(found) > 50, WAIT_S, "results")
            back, into = call_json(rig, "hosts")["edges"]
            assert (into["source"], into["to"], into["is_connected"]) == (
                "gpu", "acq", True,
            )  # fmt: skip
            assert into["settled"] > 0
            assert (back["source"], back["to"], back["waiting"]) == ("acq", "gpu", None)
            assert engine.statistics()["edges"]
            top = call_json(rig, "top", "--interval", "1")
            assert max(edge["settled_hz"] for edge in top["edges"]) > 0
            workers = {one["worker"]: one["host"] for one in top["pipes"]}
            assert workers == {"far": "acq", "(end)": "gpu"}
            monkeypatch.setenv("COLUMNS", "100")
            shown = call(rig, "top", "--once", "--interval", "0.1")
            assert max(map(len, shown.splitlines())) <= 100
            lines = [line for line in shown.splitlines() if "edge.in.far" in line]
            assert len(lines) == 1
            assert "connected" in lines[0]
            run.terminate()


def test_top_without_an_agent_names_none(context: Path) -> None:
    done = CliRunner().invoke(main, ["top", "--json", "--interval", "0.1"])
    found = json.loads(done.output)
    assert found["agent"] is None
    assert found["hosts"] == found["mirrors"] == found["edges"] == []


def test_top_goes_on_while_the_agent_hangs(context: Path) -> None:
    line = socket.socket(socket.AF_UNIX)
    line.bind(str(context / ".agent"))
    line.listen(1)
    watch = screen.Watch(context, 0.1)
    try:
        wait_until(lambda: watch.as_dict()["agent"] == "silent", WAIT_S)
        out = Console(width=100, record=True, file=io.StringIO())
        out.print(watch.look())
        assert "the agent here has not answered for" in out.export_text()
    finally:
        watch.close()
        line.close()
        (context / ".agent").unlink()


def test_the_doctor_examines_a_host(rig: Lab, camera: Producer) -> None:
    call(rig, "mirror", "acq:camera", "--detach")
    checks = {c["name"]: c for c in call_json(rig, "doctor", "acq")}
    assert checks["reach"]["verdict"] == "ok"
    assert checks["clock"]["verdict"] == "ok"
    assert "MB/s" in checks["rate"]["found"]
    assert "used" in checks["its spool"]["found"]
    ring = checks["ring of camera"]
    assert ring["verdict"] == "warn"
    assert "buffer_seconds=2" in ring["advice"]
    assert checks["mirror camera"]["verdict"] == "ok"
    call(rig, "mirror", "acq:camera", "--end")
    rig.stop("acq")
    checks = {c["name"]: c for c in call_json(rig, "doctor", "acq", code=1)}
    assert checks["reach"]["verdict"] == "fail"
    assert "ataraxis agent" in checks["reach"]["advice"]
    rig.start("acq")


# ---- commands that stay


def test_a_mirror_lasts_until_the_end_of_the_stream(rig: Lab, camera: Producer) -> None:
    started = command(rig, "mirror", "acq:camera")
    with Consumer(
        "camera", policy="lossless", context=rig.contexts["gpu"], timeout=WAIT_S
    ) as reader:
        send(camera, 50)
        camera.end()
        numbers = [int(frame.array[0]) for frame in reader]
    assert numbers == list(range(50))
    out, err = started.communicate(timeout=WAIT_S)
    assert started.returncode == 0, err
    assert "acq:camera has ended: 50 frames, 0 lost" in out
    assert err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mirror_lasts_until_a_signal(
    rig: Lab, camera: Producer, number: signal.Signals
) -> None:
    started = command(rig, "mirror", "acq:camera", "--as", "theirs")
    assert started.stdout is not None
    assert "mirroring acq:camera as 'theirs'" in started.stdout.readline()
    started.send_signal(number)
    out, err = started.communicate(timeout=WAIT_S)
    assert (started.returncode, out, err) == (0, "", "")
    assert mirrors_here(rig.contexts["gpu"]) == []
    assert not (rig.contexts["gpu"] / "theirs").exists()


def test_a_stream_of_a_host_is_recorded_from_its_first_frame(
    rig: Lab, camera: Producer, tmp_path: Path
) -> None:
    """The mirror is first, then the recorder, then frames."""
    started = command(rig, "record", "acq:camera", "-o", str(tmp_path / "log"))
    there = rig.contexts["acq"]
    wait_until(
        lambda: Inspector("camera", there).statistics().readers, WAIT_S, "the mirror"
    )
    sender = threading.Thread(target=send, args=(camera, 200))
    sender.start()
    sender.join(WAIT_S)
    camera.end()
    out, err = started.communicate(timeout=WAIT_S)
    assert (started.returncode, err) == (0, ""), (out, err)
    assert "camera: 200 frames recorded, 0 lost" in out
    found = LogArchive(tmp_path / "log").read("camera").data
    assert found[:, 0].tolist() == list(range(200))
    assert mirrors_here(rig.contexts["gpu"]) == []


def test_an_agent_runs_until_a_signal(tmp_path: Path, context: Path) -> None:
    pytest.importorskip("cryptography")
    Hosts.create(tmp_path / "rig", "rig", {"acq": "127.0.0.1:0"}, carrier="tls")
    started = subprocess.Popen(
        [sys.executable, "-P", "-c", "from ataraxis.cli import main; main()", "agent",
         "--hosts", str(tmp_path / "rig" / "acq" / "hosts.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    assert started.stdout is not None
    assert "agent of host 'acq' listens on 127.0.0.1:" in started.stdout.readline()
    second = CliRunner().invoke(
        main, ["agent", "--hosts", str(tmp_path / "rig" / "acq")]
    )
    assert second.exit_code != 0
    started.terminate()
    assert started.communicate(timeout=WAIT_S) == ("", "")
    assert started.returncode == 0
    assert list(context.iterdir()) == []
