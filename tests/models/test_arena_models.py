"""The model of a queue's arena: no schedule breaks it, mutants do."""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "one-chunk": "arena FRAMES=2 SLOTS=1 CHUNKS=1",
    "two-chunks": "arena FRAMES=2 SLOTS=1",
    "two-slots": "arena FRAMES=2 GETTERS=1",
    "kill": "arena FRAMES=2 SLOTS=1 CHUNKS=1 KILLS=1",
    "kill-two-chunks": "arena FRAMES=2 SLOTS=1 KILLS=1",
    "kills": "arena FRAMES=1 SLOTS=1 KILLS=2",
    "two-putters-kill": "arena FRAMES=1 PUTTERS=2 GETTERS=1 SLOTS=1 CHUNKS=1 KILLS=1",
    "lease-over": "arena FRAMES=2 SLOTS=1 CHUNKS=1 EXPIRE=1 BUMPS=1",
    "lease-over-kill": "arena FRAMES=1 SLOTS=1 CHUNKS=1 KILLS=1 EXPIRE=1",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "laps-kill": "arena FRAMES=3 SLOTS=1 KILLS=1",
    "two-slots-lease-over": "arena FRAMES=2 EXPIRE=1 BUMPS=1",
    "two-putters-kills": "arena FRAMES=1 PUTTERS=2 GETTERS=1 SLOTS=1 KILLS=2",
}
# Mutant to the size that shows it.
MUTANTS = {
    "NO_PIN_CHECK": "arena FRAMES=2 SLOTS=1 CHUNKS=1",
    "CHECK_THEN_PIN": "arena FRAMES=2 SLOTS=1 CHUNKS=1 EXPIRE=1",
    "NO_CLEAN_FILLING": "arena FRAMES=1 SLOTS=1 KILLS=1",
    "NO_CLEAN_PINS": "arena FRAMES=1 SLOTS=1 KILLS=1",
    "BLIND_RELEASE": "arena FRAMES=2 SLOTS=1 CHUNKS=1",
    "RECLAIM_BY_LAP": "arena FRAMES=2 SLOTS=2 CHUNKS=1 BUMPS=1",
    "GIVE_BEFORE_CLAIM": "arena FRAMES=2 PUTTERS=2 GETTERS=1 SLOTS=1",
    "RELEASE_FIRST": "arena FRAMES=2 SLOTS=1 CHUNKS=1 EXPIRE=1",
}


@pytest.mark.parametrize("size", SIZES)
def test_arena_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_arena_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("arena") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_arena_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)
