"""Programs built by PyInstaller, as a folder and as a file: pipe, log and session."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from places import TESTS

import ataraxis

MAIN = TESTS / "programs" / "frozen_program.py"
HOUSE = Path(ataraxis.__file__).parent


def installed(to: Path) -> Path:
    """Make an environment with ataraxis as a wheel would install it; its Python.

    PyInstaller does not see a package that is installed in editable mode.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", to], check=True
    )
    variables = {"base": str(to), "platbase": str(to)}
    site = Path(sysconfig.get_path("purelib", vars=variables))
    # As a path alone: its own .pth files are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    house = site / "ataraxis"
    shutil.copytree(HOUSE, house, ignore=shutil.ignore_patterns("*.pyx", "__pycache__"))
    for kernel in (HOUSE / "_kernels").glob("*.pyi"):
        name = f"ataraxis._kernels.{kernel.stem}"
        file = importlib.import_module(name).__file__
        if not (house / "_kernels" / Path(file).name).exists():
            shutil.copy(file, house / "_kernels")
    (about,) = Path(sysconfig.get_path("purelib")).glob("ataraxis-*.dist-info")
    shutil.copytree(about, site / about.name)
    return to / "bin" / "python"


@pytest.fixture(scope="module", params=["onedir", "onefile"])
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    faulthandler.cancel_dump_traceback_later()  # a build takes minutes
    where = tmp_path_factory.mktemp(request.param)
    python = installed(where / "environment")
    subprocess.run(
        [
            python, "-m", "PyInstaller", f"--{request.param}", "--noconfirm",
            "--log-level", "WARN", "--name", "program",
            "--distpath", where / "dist", "--workpath", where / "build",
            "--specpath", where, MAIN,
        ],
        check=True,
        timeout=1200,
        cwd=where,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    built = where / "dist" / "program"
    return built / "program" if request.param == "onedir" else built


def run(program: Path, what: str, directory: Path) -> dict:
    # No Python but its own: no path, and no folder in which ataraxis lies.
    wanted = ("ATARAXIS_CONTEXT", "HOME", "TMPDIR", "LANG")
    done = subprocess.run(
        [program, what, directory],
        env={k: v for k, v in os.environ.items() if k in wanted},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["pipe", "forkserver"])
def test_a_pipe_whose_workers_are_killed(
    program: Path, what: str, tmp_path: Path
) -> None:
    found = run(program, what, tmp_path)
    assert found == {
        "found": [float(k) for k in range(300)],
        "call": 21.0,
        "restarts": 2,
        "dialect": list(range(5)),
        "starts": 1,
    }


def test_a_log_whose_writer_is_killed(program: Path, tmp_path: Path) -> None:
    found = run(program, "log", tmp_path)
    assert found == {"values": list(range(200)), "killed": 1, "starts": 1}


def test_a_session_whose_recorder_is_killed(program: Path, tmp_path: Path) -> None:
    found = run(program, "session", tmp_path)
    assert found == {
        "expected": 200, "received": 200, "missing": 0, "killed": 1, "starts": 1,
    }  # fmt: skip
