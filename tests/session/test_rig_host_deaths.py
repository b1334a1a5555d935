"""Agents, as processes over TLS, that are killed while a rig records their stream."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from deadline import wait_until
from link_rig import Lab, need

from ataraxis import LogArchive, Session
from ataraxis.session import Rig
from ataraxis.session.rig import RigRecorder, RigSource

pytestmark = pytest.mark.slow
WAIT_S = 90.0


@pytest.mark.parametrize("killed", ["acq", "gpu"])
def test_an_agent_that_is_killed_in_mid_session_loses_nothing(
    tmp_path: Path, killed: str
) -> None:
    need("tls", namespaces=False)
    disk = tmp_path / "disk-of-acq"
    disk.mkdir()
    with Lab(("acq", "gpu"), "tls", namespaces=False) as lab:
        lab["acq"].configure(
            may={"gpu": ["read", "run"]},
            modules=["far_camera", "ataraxis.datamux.sources.sim"],
            sessions=str(disk),
        )
        agents = {name: lab[name].start_agent() for name in ("acq", "gpu")}
        setup = Rig(
            {
                "camera": RigSource(command=["python", "-m", "far_camera"], host="acq"),
                "probe": RigSource(
                    "sim", "ramp", samples=50, host="acq", mirror="none"
                ),
            },
            [RigRecorder(["probe"], host="acq"), RigRecorder(["camera"])],
        )
        with Session("s", directory=tmp_path, context=lab["gpu"].context) as s:
            run = s.start(setup)
            seen = s.statistics

            def more(count: int) -> None:
                before = seen()["camera"].frames
                wait_until(
                    lambda: seen()["camera"].frames >= before + count, WAIT_S,
                    f"{count} frames: {json.dumps(run.elsewhere)}",
                )  # fmt: skip

            more(50)
            wait_until(lambda: all(pid for _, pid in run.elsewhere.values()), WAIT_S)
            before = run.elsewhere
            for _ in range(2):
                agents[killed].kill()
                agents[killed].close()
                agents[killed] = lab[killed].start_agent()
                more(50)
            for _, pid in before.values():
                os.kill(pid, 0)  # nothing there was stopped
            run.stop()
            assert run.elsewhere == before
        assert s.verdict is not None
        assert s.verdict.is_trusted, f"{s.verdict}"
        numbers = LogArchive(s.directory).read("camera").data[:, 0].tolist()
        assert numbers == list(range(len(numbers)))
        assert s.verdict["camera"].device_lost == 0
        probe = LogArchive(Path(s.verdict["probe"].path)).read("probe")
        assert probe.sequence.tolist() == list(range(len(probe)))
        assert s.verdict["probe"].received == len(probe)
        for name, agent in agents.items():
            assert agent.terminate() == 0, (name, agent.said())
