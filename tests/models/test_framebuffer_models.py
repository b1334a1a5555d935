"""The model of the frame buffer's ring: no schedule breaks it, mutants do.

`tests/models/framebuffer.pml`: allocation, put, get, view, ages, killed writers; the
memory orders of `tests/models/framebuffer_litmus.cpp`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "copies": "framebuffer TURNS=2",
    "copies-small": "framebuffer TURNS=2 CAP=2",
    "copies-one": "framebuffer WRITERS=1 TURNS=4 KILLS=1",
    "views": "framebuffer VIEWS=1 TURNS=2 CAP=2",
    "views-one": "framebuffer VIEWS=1 WRITERS=1 TURNS=4 KILLS=1",
    "ages": "framebuffer AGES=1 TURNS=2 CAP=2",
    "ages-one": "framebuffer AGES=2 WRITERS=1 TURNS=4 KILLS=1",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "copies-kill": "framebuffer TURNS=2 KILLS=1",
    "views-three-bytes": "framebuffer VIEWS=1 TURNS=2",
    "ages-kill": "framebuffer AGES=1 TURNS=2 CAP=2 KILLS=1",
    "ages-three-bytes": "framebuffer AGES=1 TURNS=2",
}
# Mutant to the size that shows it.
MUTANTS = {
    "PLAIN_HEAD": "framebuffer TURNS=2 CAP=2",
    "TAIL_NOT_COUNTED": "framebuffer TURNS=2",
    "HOLDS_LONGER": "framebuffer TURNS=2 CAP=2",
    "CERTIFY_RING": "framebuffer TURNS=2 CAP=2",
    "CHECK_FIRST": "framebuffer TURNS=2 CAP=2",
    "NO_CHECK": "framebuffer TURNS=2 CAP=2",
    "NO_SECOND_CHECK": "framebuffer VIEWS=1 TURNS=2 CAP=2",
    "NO_TURN": "framebuffer VIEWS=1 TURNS=2 CAP=2",
    "NO_LAP": "framebuffer AGES=1 TURNS=2 CAP=2",
    "NO_RECHECK": "framebuffer AGES=1 TURNS=2 CAP=2",
}


@pytest.mark.parametrize("size", SIZES)
def test_framebuffer_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_framebuffer_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("framebuffer") == set(MUTANTS)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_memory_orders(compiler: str, tmp_path: Path) -> None:
    lines = spin.explore_orders(tmp_path, "framebuffer_litmus", compiler)
    outcomes = [line.split()[-1] for line in lines]
    assert outcomes.count("OK") == 4
    assert outcomes.count("VIOLATION") == 5
    assert "UNEXPECTED" not in outcomes


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_framebuffer_model_has_no_error_in_larger_sizes(
    size: str, tmp_path: Path
) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)
