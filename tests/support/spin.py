"""Spin, for the tests of models: explore one, in one of its sizes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from places import TESTS

MODELS = TESTS / "models"
# Deadlines for a hung program, beside others that keep the machine busy.
BUILD_SECONDS = 300
RUN_SECONDS = 600
STRESS_SECONDS = 900
# Bytes of a state, steps of a schedule, log2 of the table of states: all are plenty.
BUILD = ["-O1", "-w", "-DSAFETY", "-DVECTORSZ=512"]
EXPLORE = ["-m200000", "-w22"]


def tool(name: str) -> str:
    """Find a program, or skip the test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(command: list[str], where: Path, seconds: float) -> str:
    """Run a program that must succeed; return its output."""
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=seconds
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{output}"
    return output


def check(where: Path, what: str, seconds: float = RUN_SECONDS) -> tuple[int, str]:
    """Explore a model in `where`; return the number of errors, and Spin's report.

    `what` is the model's name and what to define: "ring M=3 KILLS=1".
    """
    spin, gcc = tool("spin"), tool("gcc")
    model, *defines = what.split()
    flags = [f"-D{define}" for define in defines]
    run([spin, "-a", *flags, str(MODELS / f"{model}.pml")], where, BUILD_SECONDS)
    run([gcc, *BUILD, "-o", "pan", "pan.c"], where, BUILD_SECONDS)
    report = run(["./pan", *EXPLORE], where, seconds)
    found = re.search(r"errors: (\d+)", report)
    assert found, f"Spin did not finish:\n{report}"
    assert "max search depth too small" not in report
    for line in report.splitlines():
        if "errors:" in line or "states, stored" in line or "pan:1" in line:
            print(line.strip())
    return int(found[1]), report


def holds(where: Path, what: str, seconds: float = RUN_SECONDS) -> None:
    """Check that no schedule breaks a model."""
    errors, report = check(where, what, seconds)
    assert errors == 0, report


def breaks(where: Path, what: str, mutant: str) -> None:
    """Check that a model with one mistake breaks."""
    errors, report = check(where, f"{what} MUTANT_{mutant}")
    assert errors > 0, report


def explore_orders(where: Path, program: str, compiler: str) -> list[str]:
    """Build and run a program of litmus tests; return its lines."""
    compiler = tool(compiler)
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror"]
    source, made = str(MODELS / f"{program}.cpp"), str(where / program)
    run([compiler, *flags, "-o", made, source], where, BUILD_SECONDS)
    report = run([made], where, RUN_SECONDS)
    print(report)
    return report.splitlines()


def mutants(*models: str) -> set[str]:
    """Return the names of all mutants of models."""
    text = "".join((MODELS / f"{model}.pml").read_text() for model in models)
    return set(re.findall(r"MUTANT_([A-Z_]+)", text))


def skip_unless_nightly() -> None:
    """Skip sizes that take minutes and gigabytes, except in the nightly run."""
    if float(os.environ.get("ATARAXIS_STRESS", "0")) < 1:
        pytest.skip("minutes and gigabytes: set ATARAXIS_STRESS=1")
