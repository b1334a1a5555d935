"""Spin on the models of tests/models: one way to run it for all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "models"
BUILD_SECONDS = 120


def tool(name: str) -> str:
    """Find a program, or skip the test that needs it."""
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


def check(where: Path, what: str, seconds: float) -> tuple[int, str]:
    """Explore a model, "name DEFINE ...": how many errors, and what Spin says."""
    spin, gcc = tool("spin"), tool("gcc")
    model, *defines = what.split()
    flags = [f"-D{define}" for define in defines]
    run([spin, "-a", *flags, str(MODELS / f"{model}.pml")], where, BUILD_SECONDS)
    build = [gcc, "-O1", "-w", "-DSAFETY", "-DVECTORSZ=512", "-o", "pan", "pan.c"]
    run(build, where, BUILD_SECONDS)
    report = run(["./pan", "-m200000", "-w22"], where, seconds)
    found = re.search(r"errors: (\d+)", report)
    assert found, f"Spin did not finish:\n{report}"
    assert "max search depth too small" not in report
    for line in report.splitlines():
        if "errors:" in line or "states, stored" in line or "pan:1" in line:
            print(line.strip())
    return int(found[1]), report


def mutants(*models: str) -> set[str]:
    """Name the mutants that models have."""
    text = "".join((MODELS / f"{model}.pml").read_text() for model in models)
    return set(re.findall(r"MUTANT_([A-Z_]+)", text))
