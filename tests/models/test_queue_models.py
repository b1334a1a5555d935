"""The model of a work queue: no schedule breaks it, mutants do.

`tests/models/queue.pml`: claims, leases, acknowledgements, clean-up, what is kept. Its
wake-up is every ring's: `tests/models/wake.pml`, in test_ring_models.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "one-frame": "queue FRAMES=1",
    "laps": "queue FRAMES=3",
    "two-putters": "queue FRAMES=2 PUTTERS=2 GETTERS=1",
    "kept": "queue FRAMES=2 WITH_KEPT",
    "kept-kill": "queue FRAMES=1 KILLS=1 WITH_KEPT",
    "kills": "queue FRAMES=1 KILLS=2",
    "packed-kill": "queue FRAMES=1 PACK=2 KILLS=1",
    "given-back-kill": "queue FRAMES=1 BACK=1 KILLS=1",
    "lease-over": "queue FRAMES=1 EXPIRE=1",
    "growing": "queue FRAMES=2 PACK=2 GROW=1",
    "growing-kill": "queue FRAMES=1 PACK=2 GROW=1 KILLS=1",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "laps-kill": "queue FRAMES=2 KILLS=1",
    "two-putters-kill": "queue FRAMES=1 PUTTERS=2 KILLS=1",
    "given-back": "queue FRAMES=2 BACK=2",
    "lease-over-laps": "queue FRAMES=2 EXPIRE=1",
    "growing-kept-kill": "queue FRAMES=1 PACK=2 GROW=1 KILLS=1 WITH_KEPT",
    "growing-laps-kill": "queue FRAMES=2 PACK=2 GROW=1 KILLS=1 GETTERS=1",
    "growing-putters": "queue FRAMES=1 PACK=2 GROW=1 PUTTERS=2 GETTERS=1",
    "kept-kills": "queue FRAMES=1 KILLS=2 WITH_KEPT",
}
# Mutant to the size that shows it.
MUTANTS = {
    "BLIND_CLAIM": "queue FRAMES=1 PUTTERS=2 GETTERS=1",
    "BLIND_LEASE": "queue FRAMES=2",
    "BLIND_ACK": "queue FRAMES=1 EXPIRE=1",
    "READY_EARLY": "queue FRAMES=2",
    "SKIP_WRITING": "queue FRAMES=2",
    "NO_CLEAN_WRITING": "queue FRAMES=1 KILLS=1",
    "NO_CLEAN_LEASED": "queue FRAMES=1 KILLS=1",
    "NO_HINT_CLEAN": "queue FRAMES=1 KILLS=1",
    "NO_HINT_BACK": "queue FRAMES=1 BACK=1",
    "NO_HINT_AGAIN": "queue FRAMES=2 BACK=2",
    "HINT_AFTER_LOOK": "queue FRAMES=2 BACK=2",
    "MARK_LATE": "queue FRAMES=1 PACK=2 KILLS=1",
    "BLIND_GROW": "queue FRAMES=1 PACK=2 GROW=1",
    "GROW_COUNT_EARLY": "queue FRAMES=1 PACK=2 GROW=1 KILLS=1",
    "NO_CLEAN_GROWING": "queue FRAMES=1 PACK=2 GROW=1 KILLS=1",
    "CLEAN_GROWING_FREE": "queue FRAMES=1 PACK=2 GROW=1 KILLS=1",
    "KEPT_NO_MARK": "queue FRAMES=2 WITH_KEPT",
    "KEPT_PLAIN": "queue FRAMES=2 WITH_KEPT",
}


@pytest.mark.parametrize("size", SIZES)
def test_queue_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_queue_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("queue") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_queue_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)
