"""The models of a stream's ring and wake-up: no schedule breaks them, mutants do.

`tests/models/ring.pml` (lossless, lossy, mixed, durable) and `tests/models/wake.pml`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "models"
SECONDS, STRESS_SECONDS = 60, 900

SIZES = {
    "mixed": "ring M=3",
    "mixed-kill": "ring M=2 KILLS=1",
    "mixed-from-oldest": "ring M=3 OLDEST=1",
    "lossless-two": "ring WATCHERS=0 GATERS=2 M=3",
    "lossless-kills": "ring WATCHERS=0 M=3 KILLS=2",
    "lossless-ahead": "ring WATCHERS=0 M=4 OLDEST=1 AHEAD=2",
    "lossy-two": "ring GATERS=0 WATCHERS=2 M=3 KILLS=1",
    "shared": "ring PRODUCERS=2 M=1 WATCHERS=0",
    "durable": "ring DURABLE KILLS=1 M=3 WATCHERS=0",
    "durable-from-oldest": "ring DURABLE KILLS=1 M=4 WATCHERS=0 OLDEST=1",
    "wake": "wake SLEEPERS=2",
    "wake-three": "wake SLEEPERS=3",
    "wake-signallers": "wake SLEEPERS=2 SIGNALLERS=2 EVENTS=1",
    "wake-kill": "wake EVENTS=3 KILLS=1",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "mixed-kill": "ring M=3 KILLS=1",
    "mixed-two": "ring GATERS=2 M=3",
    "shared-kill": "ring PRODUCERS=2 M=1 WATCHERS=0 KILLS=1",
    "shared-mixed": "ring PRODUCERS=2 M=1",
}
# Mutant to the size that shows it.
MUTANTS = {
    "JOIN_ONCE": "ring M=3",
    "NOT_ANNOUNCED": "ring WATCHERS=0 M=4 OLDEST=1 AHEAD=2",
    "PROMISED_EARLY": "ring DURABLE KILLS=1 M=3 WATCHERS=0",
    "NO_PIN_CHECK": "ring M=4",
    "NO_PIN_RECHECK": "ring M=4",
    "NO_COPY_CHECK": "ring M=4",
    "READY_EARLY": "ring M=3",
    "CURSOR_EARLY": "ring M=3",
    "LEAVE_EARLY": "ring M=3",
    "NO_CLEAN_WORD": "ring KILLS=1 M=2",
    "NO_CLEAN_CURSOR": "ring KILLS=1 M=3",
    "PIN_ALL": "ring FREEZE M=3 WATCHERS=2 GATERS=0",
    "LOOK_FIRST": "wake SLEEPERS=2",
    "CLEAR_LATE": "wake SLEEPERS=2",
    "NO_COUNT": "wake SLEEPERS=2",
    "WAKE_ONE": "wake SLEEPERS=2",
    "NO_BIT": "wake SLEEPERS=2",
    "NO_SECOND_LOOK": "wake SLEEPERS=2",
}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(command: list[str], where: Path, seconds: float) -> str:
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=seconds
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{output}"
    return output


def check(where: Path, what: str, seconds: float = SECONDS) -> tuple[int, str]:
    """Explore a model; how many errors, and what Spin says."""
    tool("spin"), tool("gcc")
    model, *defines = what.split()
    flags = [f"-D{define}" for define in defines]
    run(["spin", "-a", *flags, str(MODELS / f"{model}.pml")], where, SECONDS)
    build = ["gcc", "-O1", "-w", "-DSAFETY", "-DVECTORSZ=512", "-o", "pan", "pan.c"]
    run(build, where, SECONDS)
    report = run(["./pan", "-m200000", "-w22"], where, seconds)
    found = re.search(r"errors: (\d+)", report)
    assert found, f"Spin did not finish:\n{report}"
    assert "max search depth too small" not in report
    return int(found[1]), report


@pytest.mark.parametrize("size", SIZES)
def test_ring_model_has_no_error(size: str, tmp_path: Path) -> None:
    errors, report = check(tmp_path, SIZES[size])
    assert errors == 0, report


@pytest.mark.parametrize("mutant", MUTANTS)
def test_ring_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    errors, report = check(tmp_path, f"{MUTANTS[mutant]} MUTANT_{mutant}")
    assert errors > 0, report


def test_every_mutant_is_run() -> None:
    text = "".join((MODELS / f"{m}.pml").read_text() for m in ("ring", "wake"))
    assert set(re.findall(r"MUTANT_([A-Z_]+)", text)) == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_ring_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    if float(os.environ.get("ATARAXIS_STRESS", "0")) < 1:
        pytest.skip("minutes and gigabytes: set ATARAXIS_STRESS=1")
    errors, report = check(tmp_path, LARGER_SIZES[size], STRESS_SECONDS)
    assert errors == 0, report


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_memory_orders(compiler: str, tmp_path: Path) -> None:
    """Each fence of the ring (J, P, E) has a test, and mutants without it."""
    program = tmp_path / "ring_litmus"
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror"]
    source = str(MODELS / "ring_litmus.cpp")
    run([tool(compiler), *flags, "-o", str(program), source], tmp_path, SECONDS)
    report = run([str(program)], tmp_path, SECONDS)
    print(report)
    assert "UNEXPECTED" not in report
    lines = report.splitlines()
    assert sum(line.endswith("OK") for line in lines) == 8
    assert sum(line.endswith("VIOLATION") for line in lines) == 24
    kernels = MODELS.parents[1] / "ataraxis" / "_kernels"
    sources = [p.read_text() for p in kernels.glob("*.p[yx][xd]")]
    letters = {c for text in sources for c in re.findall(r"# Fence ([A-Z])[:.]", text)}
    assert letters
    for letter in letters:
        mutants = [k for k in lines if f"mutant {letter}: " in k]
        assert len(mutants) > 2, f"fence {letter}: mutants of each side"
