"""Agents, readers and recorders that are killed: every frame arrives, once, in order.

Rows F3 and F4 of the plan: at random, and at every crash point of the link's kernels
and modules, in network namespaces, over both carriers.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from link_rig import CARRIERS, Filming, Lab, assert_all, need, tell
from places import ROOT
from variants import POINT, journal_points, stream_points

from ataraxis.log.archive import LogArchive

VICTIMS = {"outlet": ("acq",), "inlet": ("gpu",), "both": ("acq", "gpu")}


def link_points() -> list[str]:
    """Return the crash points of the link: its kernels, modules and drivers."""
    places = [ROOT / "ataraxis" / "_kernels" / "link.pyx"]
    for folder in ("link", "cluster"):
        places += (ROOT / "ataraxis" / folder).glob("*.py")
    found: set[str] = set()
    for path in places:
        if path.exists():
            found |= set(POINT.findall(path.read_text(encoding="utf-8")))
    return sorted(found)


def points_of(side: str) -> list[str]:
    """Return the points that the agent of a side may pass: of its spool and ring, too.

    `inflow_absent` is where frames that are lost are passed over.
    """
    if side == "acq":
        return [p for p in link_points() if "inflow" not in p] + sorted(
            journal_points()
        )
    resuming = [p for p in stream_points() if p.startswith("resume_")]
    return [p for p in link_points() if "outflow" not in p] + sorted(resuming)


NOT_ALWAYS = {"inflow_absent", "journal_rolling", "resume_counting"}
"""Points that a run of some seconds need not pass."""


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


@pytest.mark.parametrize("victim", VICTIMS)
def test_agents_killed(carrier: str, victim: str, figure: Callable[..., float]) -> None:
    """F3, F4: SIGKILL at random, 20 times; sometimes again before it is at work."""
    chance = random.Random(f"{carrier} {victim}")
    flows_s = []
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        for _ in range(int(figure(20, 3))):
            time.sleep(chance.uniform(0.0, 1.5))
            for name in VICTIMS[victim]:
                filming.agents[name].kill()
            time.sleep(chance.choice([0.0, 0.0, 0.3, 1.0]))
            for name in VICTIMS[victim]:
                filming.restart(name)
            if chance.random() < 0.7:
                flows_s.append(filming.flows(1))
        filming.flows(120)
        found = filming.finish()
        status = filming.camera.status()
        tell(
            f"F3 F4 {carrier}, {victim} killed", frames=found.received,
            median_flows_s=float(np.median(flows_s or [0.0])),
            longest_flows_s=max(flows_s, default=0.0), worst_send_s=status["worst_s"],
        )  # fmt: skip
        filming.leave()


def test_readers_killed(carrier: str, figure: Callable[..., float]) -> None:
    """F3: a durable reader goes on where it was; what it has not read gates."""
    chance = random.Random(f"{carrier} reader")
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        kills = int(figure(20, 3))
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 1.0))
            filming.reader.kill()
            time.sleep(chance.choice([0.0, 0.5, 2.0]))
            filming.start_reader()
            filming.flows(10)
        found = filming.finish()
        tell(f"F3 {carrier}, reader killed", frames=found.received, kills=kills)
        filming.leave()


def test_recorders_killed(
    carrier: str, figure: Callable[..., float], tmp_path: Path
) -> None:
    """F3: what is on the disk there is what the camera sent."""
    chance = random.Random(f"{carrier} recorder")
    with Lab(carrier=carrier) as lab:
        gpu = lab["gpu"]
        filming = Filming(lab)
        folder = str(tmp_path / "recording")
        recorder = gpu.start("recorder", stream="camera", directory=folder)
        recorder.until(60, ready=True)
        first = filming.rows
        for _ in range(int(figure(20, 3))):
            time.sleep(chance.uniform(0.0, 1.5))
            recorder.kill()
            if chance.random() < 0.3:
                filming.agents["gpu"].kill()
                filming.restart("gpu")
            recorder = gpu.start("recorder", stream="camera", directory=folder)
            recorder.until(60, ready=True)
            filming.flows(10)
        found = filming.finish()
        recorder.until(60, ended=True)
        with LogArchive(folder) as archive:
            data = archive.read("camera")
            numbers = np.ascontiguousarray(data.data[:, :8]).view("<i8").reshape(-1)
        tell(f"F3 {carrier}, recorder killed", recorded=len(numbers))
        assert int(numbers[0]) <= first + 64
        assert (np.diff(numbers) == 1).all()
        assert int(numbers[-1]) == found.received - 1
        filming.leave()


def test_cable_out_and_both_killed(carrier: str, figure: Callable[..., float]) -> None:
    """The spool of a dead agent is found by the next one, and the far end is away."""
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        for _ in range(int(figure(10, 1))):
            lab.cable_out()
            time.sleep(4.0)  # frames are on the spool
            for name in ("acq", "gpu"):
                filming.agents[name].kill()
            filming.restart("acq")
            time.sleep(1.0)
            lab.cable_in()
            filming.restart("gpu")
            filming.flows(480)
        found = filming.finish()
        tell(f"F1 F3 {carrier}, cable out and both killed", frames=found.received)
        filming.leave()


def test_the_readers_host_restarts(carrier: str, figure: Callable[..., float]) -> None:
    """Its memory is gone; with acknowledge="recorded" the other host still has all."""
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab, acknowledge="recorded", reader={"hold_s": 0.004})
        for _ in range(int(figure(10, 2))):
            filming.flows(200)
            filming.agents["gpu"].kill()
            filming.reader.kill()
            for path in lab["gpu"].context.iterdir():
                path.unlink()
            filming.restart("gpu")
            filming.reader = lab["gpu"].start("reader", stream="camera", skips=True)
        filming.flows(200)
        found = filming.finish()
        tell(f"{carrier}, the reader's host restarts", frames=found.received)
        filming.leave()


def test_the_cameras_host_restarts(carrier: str, figure: Callable[..., float]) -> None:
    """What was on its disk arrives without a hole; then the next stream of the name."""
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        lab.cable_out()
        time.sleep(figure(8.0, 5.0))
        filming.agents["acq"].kill()
        filming.camera.kill()
        sent = int(filming.camera.status()["sent"])
        for path in lab["acq"].context.iterdir():
            path.unlink()
        before = filming.rows
        lab.cable_in()
        filming.restart("acq")
        found = filming.reader.until(60, ended=True)
        assert filming.reader.rows_path is not None
        had = assert_all(filming.reader.rows_path, int(found["newest"]) + 1, carrier)
        tell(
            f"{carrier}, the camera's host restarts", sent=sent, received=had.received,
            from_the_spool=had.received - before,
        )  # fmt: skip
        assert had.received > before
        # A ring of 32 frames is gone, and what the camera's program had not told.
        assert sent - had.received <= 64
        again = lab["acq"].start("camera", "again", stream="camera", count=200)
        reader = lab["gpu"].start("reader", "reader again", stream="camera")
        reader.until(60, ended=True)
        assert reader.rows_path is not None
        assert_all(reader.rows_path, 200, carrier)
        again.terminate()


@pytest.mark.parametrize("side", ["acq", "gpu"])
def test_agents_die_at_every_crash_point(
    carrier: str, side: str, package: Path, figure: Callable[..., float]
) -> None:
    """F3: every point that this side's agent passes, with a cut where it needs one."""
    points = points_of(side)
    random.Random(f"{carrier} {side}").shuffle(points)
    points = points[: max(4, int(figure(len(points), 4)))]
    reached: list[str] = []
    with Lab(carrier=carrier, package=package) as lab:
        filming = Filming(lab)
        for point in points:
            for _ in range(3):  # a busy machine may not pass it in time
                filming.agents[side].terminate()
                filming.restart(side, crash_at=point, ready=False)
                agent = filming.agents[side]
                if not _dies(agent, 3.0):
                    lab.cable_out()
                    _dies(agent, 4.5)
                    lab.cable_in()
                if _dies(agent, 3.0):
                    reached.append(point)
                    filming.restart(side)
                    break
                if point in NOT_ALWAYS:
                    break
            filming.flows(60)
        found = filming.finish()
        tell(
            f"F3 {carrier}, {side} dies at crash points", frames=found.received,
            reached=len(reached), tried=len(points),
            not_reached=sorted(set(points) - set(reached)),
        )  # fmt: skip
        assert not set(points) - set(reached) - NOT_ALWAYS
        filming.leave()


def _dies(agent, seconds: float) -> bool:
    """Wait for its death, so long; whether it died at a crash point."""
    end = time.monotonic() + seconds
    while agent.is_running and time.monotonic() < end:
        time.sleep(0.05)
    if agent.is_running:
        return False
    code = agent.process.wait()
    assert code == -9, f"it ended with {code}: {agent.said()}"
    return True


def test_every_point_is_named_once() -> None:
    """The names of the link's points are its own."""
    points = link_points()
    assert len(set(points)) == len(points)
    assert all(re.fullmatch(r"[a-z_]+", point) for point in points)
