"""Agents beside the workers of dask, which outlive it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deadline import wait_until
from places import PATH, TESTS

pytest.importorskip("cryptography", reason="certificates need cryptography")
pytest.importorskip("distributed", reason="distributed is not installed")


@pytest.mark.slow
def test_a_pipe_on_the_workers_of_dask_outlives_them(context: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(TESTS / "programs" / "workers_dask.py")],
        env={
            "PATH": "/usr/bin:/bin", "PYTHONPATH": PATH, "HOME": str(context),
            "ATARAXIS_CONTEXT": str(context), "PYTHONSAFEPATH": "1",
        },
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exact"], found
    assert found["where"] == ["dask-0", "dask-1"]
    assert found["restarts"] == 0
    # They were told, although dask is dead.
    agents = [Path(f"/proc/{pid}") for pid in found["agents"]]  # some may be gone
    assert len(agents) == 2
    wait_until(lambda: not any(a.exists() for a in agents), 30, "the agents' end")
    assert found["hosts"] == [
        ["client", []], ["dask-0", ["fast"]], ["dask-1", ["fast"]]
    ]  # fmt: skip
