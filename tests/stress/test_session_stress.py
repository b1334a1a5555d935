"""Sessions at length: the demo again and again, and a rig for half an hour of kills."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_demo import ran

from ataraxis import Session
from ataraxis.demo.report import compare
from ataraxis.demo.scene import BYTES_S, Scene, simulated
from ataraxis.pipeline.statistics import list_runs
from ataraxis.session.rig import RigViewer
from ataraxis.session.rig_run import RigRun

PART_S = 300.0
"""A session is at most so long: 12 GB."""
KILLS_S = 60.0
GROWTH = 32 << 20


def test_the_demo_again_and_again(
    figure: Callable[..., float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for _ in range(int(figure(20, 1))):
        code, output = ran(tmp_path, "--seconds", 2)
        assert code == 0, output
        assert list(temporary.iterdir()) == []


def soak_s(figure: Callable[..., float]) -> float:
    """Half an hour, or three quarters of a minute at a tenth."""
    is_full = float(os.environ.get("ATARAXIS_STRESS", "0.02")) >= 1
    return 1800.0 if is_full else figure(450, 9)


def test_a_rig_goes_on_after_any_kill(
    figure: Callable[..., float], arena: Path, tmp_path: Path
) -> None:
    left = soak_s(figure)
    part = min(left, PART_S)
    every = min(KILLS_S, part / 4)
    if shutil.disk_usage(tmp_path).free < 1.2 * BYTES_S * part:
        pytest.skip(f"{1.2 * BYTES_S * part:.2g} bytes of disk are needed")
    rng = random.Random(3)
    number = 0
    while left > 0:
        number += 1
        Soak(arena, tmp_path, f"part_{number}", rng).run(min(part, left), every)
        shutil.rmtree(tmp_path / f"part_{number}")
        left -= part


class Soak:
    """One session of a rig, of which a process is killed now and then."""

    def __init__(
        self, context: Path, directory: Path, name: str, rng: random.Random
    ) -> None:
        self.context, self.directory, self.name, self.rng = (
            context, directory, name, rng,
        )  # fmt: skip
        self.scene: Scene = simulated(0, 2.0)
        self.scene.rig.viewers["look"] = RigViewer(["sleep", "100000"])
        self.killed: list[str] = []

    def run(self, seconds: float, every: float) -> None:
        with Session(
            self.name, directory=self.directory, context=self.context
        ) as session:
            rig = session.start(self.scene.rig)
            kinds = itertools.cycle(self.rng.sample(["recorder", "worker", "look"], 3))
            began = time.monotonic()
            due, early = began + every, {}
            while time.monotonic() < began + seconds:
                assert rig.look()
                if time.monotonic() >= due:
                    due += every
                    self.kill(next(kinds), session, rig)
                if not early and time.monotonic() > began + seconds / 3:
                    early = self.memory(rig)
                time.sleep(0.05)
            late = self.memory(rig)
        assert len(self.killed) >= 2, self.killed
        grown = {name: late[name] - early[name] for name in early}
        assert max(grown.values()) < GROWTH, grown
        self.check(session, rig)

    def kill(self, kind: str, session: Session, rig: RigRun) -> None:
        """Kill a process that runs; one that is away just now is spared."""
        pids = {
            "recorder": [*session.recorders.values()],
            "look": [rig.programs["look"]],
            "worker": [seen.pid for seen in list_runs(self.context) if seen.pid],
        }[kind]
        try:
            os.kill(self.rng.choice(pids), signal.SIGKILL)
            self.killed.append(kind)
        except (ProcessLookupError, IndexError):
            self.killed.append(f"no {kind}")

    def memory(self, rig: RigRun) -> dict[str, int]:
        """Memory of their own, bytes, of those that are never killed."""
        pids = {name: rig.programs[name] for name in self.scene.rig.sources}
        found = {}
        for name, pid in {**pids, "session": os.getpid()}.items():
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(li for li in status.splitlines() if li.startswith("RssAnon"))
            found[name] = int(line.split()[1]) * 1024
        return found

    def check(self, session: Session, rig: RigRun) -> None:
        """Every count is what the sources made, and every sample."""
        verdict = session.verdict
        assert verdict is not None
        assert verdict.is_trusted, f"{verdict}\n{self.killed}"
        for name, source in self.scene.rig.sources.items():
            assert verdict[name].missing == 0
            report, size = rig.reports[name], source.samples or 1
            recorded = verdict[name].received * size
            # What it had read at its end, and could not keep, is in its report.
            given_up = report["samples"] - recorded
            assert 0 <= given_up < (report["dropped"] + 1) * size, (name, report)
            truth = self.scene.truth(name)
            if truth is not None:
                compared = compare(session.directory, name, truth)
                assert (compared.samples, compared.wrong) == (recorded, 0)
        results = verdict["events"].received
        assert results == verdict["probe"].received, "a result of each block, once"
