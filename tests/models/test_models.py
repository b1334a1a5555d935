"""The models of the lock: no schedule breaks it, and every mutant breaks.

`tests/models/lock.pml` is checked with Spin, the memory orders with the explorer of
`tests/models/lock_litmus.cpp`; docs/explanation/concurrency-models.md describes both
and their limits.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

# What is checked, and how large: each takes seconds.
SIZES = {
    "no-kill-untimed": "UNTIMED",
    "three-untimed": "LOCKERS=3 TURNS=1 UNTIMED",
    "kill-restart": "KILLS=1 RESTARTS=1",
    "kills-giving-up": "KILLS=2 RESTARTS=1 GIVEUPS=1 TURNS=1",
    "kill-reader": "KILLS=1 READS=1 TURNS=1",
    "kill-restart-reader-elements": "KILLS=1 RESTARTS=1 READS=1 TURNS=1 ELEMENTS",
    "change-untimed": "CHANGES=1 TURNS=1 UNTIMED",
    "change-untimed-elements": "CHANGES=1 TURNS=1 UNTIMED ELEMENTS",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "nightly": "NIGHTLY",
    "three-kill": "LOCKERS=3 TURNS=1 KILLS=1",
    "kills-restart-reader": "KILLS=2 RESTARTS=1 READS=1 TURNS=1",
    "kill-reader-elements": "KILLS=1 READS=1 ELEMENTS",
    "kill-reader-twice": "KILLS=1 READS=1",
    "change-untimed-twice": "CHANGES=1 UNTIMED",
}
# Mutant to the size that shows it.
MUTANTS = {
    "STEAL": "KILLS=1 RESTARTS=1 TURNS=1",
    "BYTE_EARLY": "KILLS=1 RESTARTS=1 TURNS=1",
    "NO_VACATE": "KILLS=1 RESTARTS=1 TURNS=1",
    "FREE_FIRST": "KILLS=1 RESTARTS=1",
    "VERSION_FIRST": "KILLS=1 READS=1 TURNS=1",
    "NO_HEALTH": "KILLS=1",
    "STAY_ODD": "KILLS=1",
    "NO_BUMP": "KILLS=1 READS=1 ELEMENTS",
    "DIRTY_LATE": "KILLS=1",
    "NO_SECTION": "READS=1",
    "EVEN_KEPT": "READS=1",
    "COUNT_FIRST": "CHANGES=1 TURNS=1 UNTIMED ELEMENTS",
    "NO_WAKE": "UNTIMED",
    "PLAIN_RELEASE": "UNTIMED",
    "WAITERS_FORGOTTEN": "LOCKERS=3 TURNS=1 UNTIMED",
    "LOOK_FIRST": "CHANGES=1 TURNS=1 UNTIMED",
    "CHANGE_ON_VERSION": "CHANGES=1 TURNS=1 UNTIMED",
}


@pytest.mark.parametrize("size", SIZES)
def test_lock_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, f"lock {SIZES[size]}")


@pytest.mark.parametrize("mutant", MUTANTS)
def test_lock_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, f"lock {MUTANTS[mutant]}", mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("lock") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_lock_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, f"lock {LARGER_SIZES[size]}", spin.STRESS_SECONDS)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_memory_orders(compiler: str, tmp_path: Path) -> None:
    lines = spin.explore_orders(tmp_path, "lock_litmus", compiler)
    outcomes = [line.split()[-1] for line in lines]
    assert outcomes.count("OK") >= 12
    assert outcomes.count("VIOLATION") >= 18
    assert "UNEXPECTED" not in outcomes
