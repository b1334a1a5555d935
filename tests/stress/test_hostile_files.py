"""Hostile files, 5,000 of each format at full figures: damaged real ones, and grammars.

Each is read in a child process. None crashes it, none makes it open a file outside,
none takes 2 s of processor time or more memory than 20 times the file and 64 MB, and
what is raised is one of our errors.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

BATCH = 500


@pytest.mark.parametrize("kind", hostile.FORMATS)
def test_no_file_takes_more_than_its_size_allows(tmp_path, context, figure, kind):
    module = hostile.NEEDS.get(kind)
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    count, wrong, done_lines = int(figure(5000, 40)), [], []
    for seed, begin in enumerate(range(0, count, BATCH)):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        done = subprocess.run(
            [
                sys.executable, "-P", str(Path(hostile.__file__)), kind, str(seed),
                str(min(BATCH, count - begin)), str(folder),
            ],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        if done.returncode or not lines or not lines[-1].startswith("done"):
            wrong.append(f"seed {seed} crashed: {done.returncode} {done.stderr[-300:]}")
        wrong += [
            f"seed {seed}: {line}" for line in lines if not line.startswith("done")
        ]
        done_lines += [line for line in lines if line.startswith("done")]
    print(kind, count, done_lines)
    assert wrong == []
