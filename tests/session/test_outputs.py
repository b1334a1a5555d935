"""Outputs of a rig: commands are sent and logged, and a watchdog makes them safe."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from commands import Command
from deadline import wait_until
from output_rig import Device, records

from ataraxis import Producer, Session
from ataraxis.errors import ConfigError, OutputError
from ataraxis.session import Output, Rig, SessionFolder, check, finish_sessions
from ataraxis.session.rig import RigOutput, RigSource, RigViewer
from ataraxis.shm.process import ProcessIdentity


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device.txt")


DIED = "died and was started again, 1 times"


def causes(session: Session) -> list[tuple[str, str]]:
    return [(r.cause, r.command) for r in records(session.directory)]


# ---- the keys of rig.yaml


def test_an_output_is_part_of_rig_yaml(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(
        "outputs:\n  valve:\n    uri: serial:///dev/ttyUSB0?baud=9600\n"
        '    safe: "V0\\n"\n    within_ms: 20\n    commands: {open: "V1\\n"}\n'
    )
    rig = Rig.from_yaml(path)
    assert rig.problems() == []
    assert rig.outputs["valve"].commands == {"open": "V1\n"}
    path.write_text("outputs:\n  valve: {safe: x, comands: {open: y}}\n")
    with pytest.raises(ConfigError, match="did you mean 'commands'"):
        Rig.from_yaml(path)


@pytest.mark.parametrize(
    ("output", "meant"),
    [
        (RigOutput("V0\n"), "a uri or a command"),
        (RigOutput("V0\n", "serial:///dev/x", ["x"]), "a uri or a command"),
        (RigOutput("V0\n", "usb:///dev/x"), "expected serial:///dev/ttyUSB0"),
        (RigOutput("V0\n", "serial:///dev/x?bauds=1"), "did you mean 'baud'"),
        (RigOutput("V0\n", "serial:///dev/x?baud=fast"), "must be a number"),
        (RigOutput("", command=["x"]), "safe: it is empty"),
        (RigOutput("V0", command=["x"]), "a program reads lines"),
        (RigOutput("V0\n", command=["x"], commands={"safe": "V0\n"}), "commands.safe"),
        (RigOutput("V0\n", command=["x"], commands={"a" * 33: "\n"}), "32 characters"),
        (RigOutput("\u20ac\n", command=["x"]), "one byte"),
        (RigOutput("V0\n", command=["x"], within_ms=0), "within_ms: must be more"),
    ],
)
def test_what_contradicts_itself_is_refused(output: RigOutput, meant: str) -> None:
    (problem,) = Rig(outputs={"valve": output}).problems()
    assert problem.startswith("outputs.valve: ")
    assert meant in problem


def test_an_output_is_not_also_a_source() -> None:
    rig = Rig(
        {"valve": RigSource("sim", "ramp")},
        outputs={"valve": RigOutput("V0\n", command=["x"])},
    )
    assert "another stream" in rig.problems()[0]


# ---- commands


def test_commands_are_sent_in_order_and_logged(device: Device, tmp_path: Path) -> None:
    device.mode = "replies"
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(reply="ok V?", within_ms=2000))
        assert device.commands() == ["V0"], "it is made safe first"
        with Output("valve") as valve:
            opened = valve.send("open", wait=True)
            valve.send("close")
            closed = valve.send("close", wait=True)
            with pytest.raises(ValueError, match="did you mean 'open'"):
                valve.send("opne")
    assert session.verdict is not None
    assert session.verdict.is_trusted, session.verdict
    assert device.commands() == ["V0", "V1", "V2", "V2", "V0"]
    found = records(session.directory)
    assert [r.cause for r in found] == ["start", "order", "order", "order", "end"]
    assert found[1] == opened
    assert found[3] == closed
    for (arrived, _), record in zip(device.lines(), found, strict=True):
        assert record.ordered_ns <= record.sent_ns <= arrived <= record.replied_ns
        assert record.reason == ""
    assert (opened.pid, opened.reply) == (os.getpid(), "ok V1")


def test_the_log_opens_in_xarray_beside_the_streams(
    device: Device, tmp_path: Path
) -> None:
    import xarray as xr

    from ataraxis import around

    rig = device.rig(within_ms=2000)
    rig.sources["probe"] = RigSource("sim", "ramp", samples=50)
    with Session("s", directory=tmp_path) as session:
        session.start(rig)
        wait_until(lambda: session.statistics()["probe"].frames > 5, 30)
        session.event("go")
        with Output("valve") as valve:
            valve.send("open", wait=True)
    with xr.open_datatree(session.directory, engine="ataraxis") as tree:
        node = tree["valve"].to_dataset()
        assert node["command"].values.tolist() == ["safe", "open", "safe"]
        assert (node["sent_ns"] >= node["ordered_ns"]).all()
        assert [*around(tree, "go", before=0.1, after=0.1).children] == ["probe"]


def test_a_reply_that_is_not_the_declared_one_is_an_error(
    device: Device, tmp_path: Path
) -> None:
    device.mode = "refuses"
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(reply="ok"))
        with Output("valve") as valve, pytest.raises(OutputError, match="ERR 3"):
            valve.send("open", wait=True)
    assert "'ERR 3', 'ok' was expected" in records(session.directory)[1].reason


def test_a_device_that_does_not_answer_stops_the_rig_before_it_starts(
    device: Device, tmp_path: Path
) -> None:
    session = Session("s", directory=tmp_path)
    with pytest.raises(OutputError, match=r"'valve'.*no reply within 50 ms"):
        session.start(device.rig(reply="ok", timeout_ms=50))
    session.close()
    session = Session("t", directory=tmp_path)
    valve = RigOutput("V0\n", command=["no_such_program"])
    with pytest.raises(OutputError, match="cannot open program 'no_such_program'"):
        session.start(Rig(outputs={"valve": valve}))
    session.close()


def test_without_a_rig_an_output_is_not_found(context: Path) -> None:
    with pytest.raises(FileNotFoundError, match="valve"):
        Output("valve")


def test_orders_at_the_end_of_a_rig_are_logged_and_not_sent(
    device: Device, tmp_path: Path
) -> None:
    with Session("s", directory=tmp_path) as session:
        run = session.start(device.rig())
        with Output("valve") as valve:
            (output,) = run._outputs
            output.request_safe()
            wait_until(lambda: device.commands() == ["V0", "V0"])
            late = valve.send("open", wait=True)
            assert late.sent_ns is None
            assert late.reason == "the rig is ending"
            run.stop()
            with pytest.raises(OutputError, match="ended with its rig"):
                valve.send("open")
    assert device.commands() == ["V0", "V0"]


def test_a_serial_port_is_an_output(tmp_path: Path) -> None:
    pytest.importorskip("serial")
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    got = b""

    def reads(expected: bytes) -> bool:
        nonlocal got
        try:
            got += os.read(master, 100)
        except BlockingIOError:
            pass
        return got == expected

    valve = RigOutput(
        "V0\r", f"serial://{os.ttyname(slave)}?baud=9600", commands={"open": "V\xff\r"}
    )
    session = Session("s", directory=tmp_path)
    session.start(Rig(outputs={"valve": valve}))
    output = Output("valve")
    output.send("open", wait=True)
    wait_until(lambda: reads(b"V0\rV\xff\r"))
    os.close(master)  # unplugged
    os.close(slave)

    def is_refused() -> bool:
        try:
            output.send("open", wait=True)
        except OutputError as error:
            return "serial port" in str(error)
        return False

    wait_until(is_refused)
    output.close()
    verdict = session.close()
    assert not verdict.is_trusted
    assert any("lost its device" in note for note in verdict.notes)


def test_a_device_that_comes_back_is_made_safe_first(
    device: Device, tmp_path: Path
) -> None:
    doubted = pytest.warns(RuntimeWarning, match="lost its device: program .* is gone")
    with doubted, Session("s", directory=tmp_path) as session:
        run = session.start(device.rig(within_ms=2000))
        with Output("valve") as valve:
            valve.send("open", wait=True)
            wait_until(lambda: device.commands() == ["V0", "V1"], 30)
            (output,) = run._outputs
            assert output._device is not None
            os.kill(output._device[0], signal.SIGKILL)
            wait_until(lambda: device.commands() == ["V0", "V1", "V0"], 30)
            valve.send("close", wait=True)
    assert device.commands() == ["V0", "V1", "V0", "V2", "V0"]


def test_while_the_log_cannot_be_written_the_output_is_made_safe(
    device: Device, tmp_path: Path
) -> None:
    from ataraxis import Consumer

    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=2000))
        full = Consumer("valve", policy="lossless")  # and does not read
        ordered = []
        with programs.Program(CONTROLLER, "hangs") as controller:
            assert controller.process.stdout is not None
            controller.process.stdout.readline()
            with Output("valve") as valve:
                held = pytest.raises(OutputError, match="takes no orders")
                with held:
                    for _ in range(3000):
                        ordered.append(valve.send("open", timeout=2).order)
                count = device.commands().count("V0")
                controller.process.kill()
                wait_until(lambda: device.commands().count("V0") > count)
        full.close()
    logged = [r.order for r in records(session.directory) if r.order in {*ordered}]
    assert len(ordered) > 1024
    assert sorted(logged) == sorted(ordered)
    assert ("watchdog", "safe") in causes(session)


def test_check_tries_the_outputs_of_a_rig(device: Device, tmp_path: Path) -> None:
    found = check(device.rig(within_ms=2000), 0.2, directory=tmp_path)
    assert found.is_ready, found
    assert device.commands() == ["V0", "V0"]
    pytest.importorskip("serial")
    missing = RigOutput("V0\n", "serial:///dev/no_such_port")
    found = check(Rig(outputs={"valve": missing}), 0.2, directory=tmp_path)
    assert not found.is_ready
    assert "no_such_port" in found.problems[0]
    assert "connect the device" in found.problems[0]


# ---- the watchdog

CONTROLLER = """
import sys, time
from ataraxis.session import Output
valve = Output("valve", controller=True, beats="beats" in sys.argv)
print("armed", flush=True)
if "hangs" in sys.argv:
    time.sleep(600)
while True:
    valve.send("open")
    if "beats" in sys.argv:
        valve.beat()
    time.sleep(0.001)
"""


def test_when_the_controller_dies_the_output_is_made_safe(
    device: Device, tmp_path: Path
) -> None:
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=2000))
        with programs.Program(CONTROLLER) as controller:
            assert controller.process.stdout is not None
            assert controller.process.stdout.readline() == "armed\n"
            wait_until(lambda: device.commands().count("V1") > 5)
            held = pytest.raises(OutputError, match=f"process {controller.pid} ")
            with Output("valve") as other, held:
                other.arm()
            controller.process.kill()
            killed = time.monotonic_ns()
            wait_until(lambda: device.commands()[-1] == "V0")
            safe, _ = device.lines()[-1]
            assert safe - killed < 2e9
        with Output("valve", controller=True) as other:
            other.send("close", wait=True)
    trips = [r for r in records(session.directory) if r.cause == "watchdog"]
    (trip,) = trips
    assert trip.pid == controller.pid
    assert "died" in trip.reason
    assert device.commands()[-3:] == ["V2", "V0", "V0"]  # released, then the end


def test_a_controller_that_gives_no_beat_is_revoked(
    device: Device, tmp_path: Path
) -> None:
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=1500))
        with Output("valve", controller=True, beats=True) as valve:
            for _ in range(80):
                valve.beat()
                time.sleep(0.02)
            valve.send("open", wait=True)
            wait_until(lambda: device.commands() == ["V0", "V1", "V0"])
            with pytest.raises(OutputError, match="gave no beat for"):
                valve.send("open")
            assert not valve.is_armed
            valve.arm()
            valve.send("open", wait=True)
    assert [c for c, _ in causes(session)] == [
        "start", "arm", "order", "watchdog", "arm", "order", "release", "end"
    ]  # fmt: skip


def test_a_controller_that_went_on_after_a_stop_cannot_order(
    device: Device, tmp_path: Path
) -> None:
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=1500))
        with programs.Program(CONTROLLER, "beats") as controller:
            assert controller.process.stdout is not None
            controller.process.stdout.readline()
            wait_until(lambda: device.commands().count("V1") > 5)
            os.kill(controller.pid, signal.SIGSTOP)
            wait_until(lambda: device.commands()[-1] == "V0")
            os.kill(controller.pid, signal.SIGCONT)
            controller.process.wait(60)
            assert "gave no beat" in controller.process.stderr.read()
            assert device.commands()[-1] == "V0"
    assert session.verdict.is_trusted, session.verdict


SESSION = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from output_rig import Device
from ataraxis import Session
session = Session("s", directory=sys.argv[2])
run = session.start(Device(Path(sys.argv[2]) / "device.txt").rig(within_ms=2000))
print(*run.programs.values(), flush=True)
time.sleep(600)
"""


def test_when_the_session_dies_the_output_is_made_safe(
    device: Device, tmp_path: Path, context: Path
) -> None:
    support = Path(__file__).parents[1] / "support"
    with programs.Program(SESSION, support, tmp_path) as program:
        assert program.process.stdout is not None
        pid = int(program.process.stdout.readline())
        identity = ProcessIdentity.of(pid)
        with Output("valve") as valve:
            valve.send("open", wait=True)
            program.process.kill()
            wait_until(lambda: device.commands() == ["V0", "V1", "V0"])
            wait_until(lambda: not identity.is_alive())
            with pytest.raises(OutputError):
                valve.send("open")
    assert [p.name for p in context.iterdir() if "orders" in p.name] == []
    (finished,) = finish_sessions(tmp_path)
    assert finished.problem == ""
    found = records(tmp_path / "s")
    assert [r.cause for r in found][-2:] == ["order", "watchdog"]
    assert "session died" in found[-1].reason
    assert SessionFolder(tmp_path / "s").verdict() is not None


def test_when_the_outputs_process_dies_it_starts_again_safely(
    device: Device, tmp_path: Path
) -> None:
    doubted = pytest.warns(RuntimeWarning, match=DIED)
    with doubted, Session("s", directory=tmp_path) as session:
        run = session.start(device.rig(within_ms=2000))
        with Output("valve", controller=True) as valve:
            valve.send("open", wait=True)
            os.kill(run.programs["valve"], signal.SIGKILL)
            stale = valve.send("open")
            wait_until(lambda: device.commands() == ["V0", "V1", "V0"], 30)
            wait_until(lambda: valve.send("close", wait=True).sent_ns, 30)
            assert valve.is_armed
    found = records(session.directory)
    (refused,) = [r for r in found if r.order == stale.order]
    assert refused.sent_ns is None
    assert "before the output was made safe" in refused.reason
    assert device.commands() == ["V0", "V1", "V0", "V2", "V0", "V0"]


def test_sigterm_to_the_outputs_process_makes_it_safe(
    device: Device, tmp_path: Path
) -> None:
    doubted = pytest.warns(RuntimeWarning, match=DIED)
    with doubted, Session("s", directory=tmp_path) as session:
        run = session.start(device.rig(within_ms=2000))
        first = run.programs["valve"]
        with Output("valve") as valve:
            valve.send("open", wait=True)
            os.kill(first, signal.SIGTERM)
            wait_until(lambda: device.commands()[:3] == ["V0", "V1", "V0"], 30)
            wait_until(lambda: run.programs["valve"] != first, 30)
            wait_until(lambda: len(device.commands()) == 4, 30)
    assert ("end", "safe") in causes(session)[:4]


def test_orders_of_programs_that_are_not_ours_do_no_harm(
    device: Device, tmp_path: Path
) -> None:
    from ataraxis import MemQ

    with Session("s", directory=tmp_path) as session:
        session.start(device.rig())
        with MemQ.attach("valve.orders") as queue, Output("valve") as valve:
            bad: list[Any] = [3, "open", {"kind": "order"}, np.arange(3)]
            bad.append(dict.fromkeys(("kind", "command", "program"), "order"))
            queue.put_many(bad)
            assert valve.send("open", wait=True).sent_ns
            assert valve.send("safe", wait=True).sent_ns
    assert device.commands() == ["V0", "V1", "V0", "V0"]


def test_ctrl_c_makes_the_outputs_of_a_rig_safe(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    rig, begun = device.rig(within_ms=2000), tmp_path / "begun"
    rig.viewers["last"] = RigViewer(["sh", "-c", f"touch {begun}; exec sleep 1000"])
    rig.to_yaml(path)
    with Command("run", str(path), "--name", "s", "-o", str(tmp_path)) as command:
        command.expect("it heeds signals")
        wait_until(begun.exists, 60)
        with Output("valve") as valve:
            valve.send("open", wait=True)
            command.process.send_signal(signal.SIGINT)
            code, said = command.end()
    assert code == 0, said
    assert device.commands() == ["V0", "V1", "V0"]
    assert records(tmp_path / "s")[-1].cause == "end"


def test_a_forked_copy_orders_and_does_not_control(
    device: Device, tmp_path: Path
) -> None:
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=2000))
        programs.run(
            """
            import os
            from ataraxis.session import Output
            with Output("valve", controller=True) as valve:
                pid = os.fork()
                if not pid:
                    assert valve.send("close", wait=True).pid == os.getpid()
                    assert not valve.is_armed
                    valve.close()
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                assert valve.is_armed
                valve.send("open", wait=True)
            """
        )
    assert device.commands() == ["V0", "V2", "V1", "V0", "V0"]


def test_a_resumed_session_goes_on_with_its_outputs(
    device: Device, tmp_path: Path
) -> None:
    support = Path(__file__).parents[1] / "support"
    with programs.Program(SESSION, support, tmp_path) as program:
        assert program.process.stdout is not None
        program.process.stdout.readline()
        with Output("valve") as valve:
            valve.send("open", wait=True)
            program.process.kill()
            program.process.wait(60)
    with Session("s", directory=tmp_path, resume=True) as session:
        session.start(device.rig(within_ms=2000))
        with Output("valve") as valve:
            valve.send("close", wait=True)
    found = [c for c, _ in causes(session)]
    assert found == ["start", "order", "watchdog", "start", "order", "end"]
    assert device.commands() == ["V0", "V1", "V0", "V0", "V2", "V0"]


def test_the_name_of_a_live_stream_is_refused(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.session.output_run.OTHERS_S", 0.1)
    with Producer("valve", shape=(), dtype="f8"):
        session = Session("s", directory=tmp_path)
        with pytest.raises(OutputError, match="another program uses"):
            session.start(device.rig())
        session.close()
        with pytest.raises(OutputError, match="is a stream, not an output"):
            Output("valve")
