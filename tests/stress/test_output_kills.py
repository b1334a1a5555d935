"""The watchdog of an output: whatever is killed, and when, the output is made safe."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import programs
import pytest
from deadline import wait_until
from output_rig import Device, records
from places import PATH

from ataraxis import Session
from ataraxis.session import Output, finish_sessions
from ataraxis.shm.process import ProcessIdentity
from ataraxis.shm.thread import Latch, Thread

WITHIN_MS = 250.0
"""Declared; a machine that is shared may leave a process alone for a while."""

CONTROLLER = """
import sys
from ataraxis.session import Output
kind = sys.argv[1]
sys.stdin.readline()
valve = Output("valve", controller=True, beats=kind == "beats")
print("armed", flush=True)
while True:
    valve.send("open", wait=kind == "waits")
    valve.send("close")
    if kind == "beats":
        valve.beat()
"""
KINDS = ("plain", "waits", "beats")

SESSION = """
import sys, time
from pathlib import Path
from output_rig import Device
from ataraxis import Session
from ataraxis.session import Output
place = Path(sys.argv[1])
session = Session("s", directory=place)
run = session.start(Device(place / "device.txt").rig(within_ms=float(sys.argv[2])))
print(*run.programs.values(), flush=True)
with Output("valve") as valve:
    while True:
        valve.send("open")
        time.sleep(0.001)
"""


@contextmanager
def controllers(count: int) -> Iterator[Iterator[programs.Program]]:
    """Yield controllers that wait for a line; one more than is used has started."""
    with ExitStack() as stack:
        made: list[programs.Program] = []

        def more() -> Iterator[programs.Program]:
            for number in range(count + 1):
                kind = KINDS[number % 3]
                made.append(stack.enter_context(programs.Program(CONTROLLER, kind)))
                if number:
                    yield made.pop(0)

        yield more()


def test_a_controller_killed_at_any_moment_leaves_the_output_safe(
    figure: Callable[..., float], arena: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    device, rng, times = Device(tmp_path / "device.txt"), random.Random(7), []
    killed: list[int] = []
    kills, ordered, is_over = int(figure(200, 4)), set(), Latch()

    def other() -> None:
        """Order beside the controllers: none of these orders is lost."""
        with Output("valve") as valve:
            while not is_over.wait(0.02):
                ordered.add(valve.send("close").order)

    beside = Thread(other, "other")
    with Session("s", directory=tmp_path) as session:
        session.start(device.rig(within_ms=WITHIN_MS))
        with controllers(kills) as made:
            for number, controller in enumerate(made):
                stdin, stdout = controller.process.stdin, controller.process.stdout
                assert stdin is not None
                assert stdout is not None
                stdin.write("\n")
                stdin.flush()
                assert stdout.readline() == "armed\n"
                time.sleep(rng.uniform(0, 0.05))
                before = time.monotonic_ns()
                os.kill(controller.pid, signal.SIGKILL)
                wait_until(lambda when=before: safe_since(device, when), 30)
                safe = safe_since(device, before)
                times.append((safe - before) / 1e6)
                killed.append(before)
                # Nothing that it had ordered comes behind.
                rest = [line for at, line in device.lines() if at > safe]
                assert "V1" not in rest, rest
                if number == 0:
                    beside.start()
        is_over.set()
        assert beside.join(30)
    assert len(times) == kills
    assert max(times) <= WITHIN_MS, sorted(times)[-5:]
    found = records(session.directory)
    trips = [r for r in found if r.cause == "watchdog"]
    assert len(trips) == kills
    assert all("died" in r.reason or "no beat" in r.reason for r in trips)
    assert all(r.sent_ns for r in trips)
    logged = [r.order for r in found if r.order in ordered]
    assert sorted(logged) == sorted(ordered)
    assert session.verdict is not None
    assert session.verdict.is_trusted, session.verdict
    written = [
        ((trip.sent_ns or 0) - before) / 1e6
        for trip, before in zip(trips, killed, strict=True)
    ]
    sys.stdout.write(
        f"{kills} kills: the device has the safe command after {spread(times)}, it is "
        f"written after {spread(written)}\n"
    )


def spread(times_ms: list[float]) -> str:
    """Return median, nine tenths, and worst."""
    ordered = sorted(times_ms)
    median, most = ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]
    return f"{median:.1f} ms (90 %: {most:.1f} ms, worst: {ordered[-1]:.1f} ms)"


def safe_since(device: Device, when: int) -> int:
    """Return when the device got the safe command first after a time; 0: not yet."""
    found = 0
    for at, line in reversed(device.lines()):
        if at <= when:
            break
        found = at if line == "V0" else found
    return found


def test_a_session_killed_at_any_moment_leaves_the_output_safe(
    figure: Callable[..., float], arena: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    monkeypatch.setenv("PYTHONPATH", PATH)
    rng, times = random.Random(8), []
    for number in range(int(figure(40, 1))):
        place = tmp_path / str(number)
        place.mkdir()
        device = Device(place / "device.txt")
        with programs.Program(SESSION, place, WITHIN_MS) as program:
            assert program.process.stdout is not None
            pid = int(program.process.stdout.readline())
            identity = ProcessIdentity.of(pid)
            time.sleep(rng.uniform(0, 0.1))
            before = time.monotonic_ns()
            program.process.kill()
            wait_until(lambda d=device, when=before: safe_since(d, when), 30)
            times.append((safe_since(device, before) - before) / 1e6)
            wait_until(lambda one=identity: not one.is_alive(), 30)
            assert device.commands()[-1] == "V0"
        (finished,) = finish_sessions(place)
        assert finished.problem == ""
        last = records(place / "s")[-1]
        assert (last.cause, last.command) in (("watchdog", "safe"), ("order", "open"))
        assert "watchdog" in [r.cause for r in records(place / "s")]
    assert max(times) <= WITHIN_MS, sorted(times)[-5:]


def test_an_output_process_killed_at_any_moment_starts_again_safely(
    figure: Callable[..., float], arena: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    device, rng, ordered = Device(tmp_path / "device.txt"), random.Random(9), set()
    kills = int(figure(40, 2))
    doubted = pytest.warns(RuntimeWarning, match=f"started again, {kills} times")
    with doubted, Session("s", directory=tmp_path) as session:
        run = session.start(device.rig(within_ms=WITHIN_MS))
        with Output("valve", controller=True) as valve:
            for _ in range(kills):
                end = time.monotonic() + rng.uniform(0, 0.1)
                while time.monotonic() < end:
                    ordered.add(valve.send("open").order)
                pid, count = run.programs["valve"], len(device.lines())
                before = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda old=pid: run.programs["valve"] != old, 30)
                wait_until(lambda when=before: safe_since(device, when), 30)
                assert len(device.lines()) > count
                assert valve.send("close", wait=True, timeout=30).sent_ns
            assert valve.is_armed
    logged = {r.order for r in records(session.directory)}
    assert ordered <= logged, len(ordered - logged)
