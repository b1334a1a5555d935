"""The models of a stream's ring and wake-up: no schedule breaks them, mutants do.

`tests/models/ring.pml` (lossless, lossy, mixed, durable, resumed) and
`tests/models/wake.pml`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "mixed": "ring M=3",
    "mixed-kill": "ring M=2 KILLS=1",
    "mixed-from-oldest": "ring M=3 OLDEST=1",
    "lossless-two": "ring WATCHERS=0 GATERS=2 M=3",
    "lossless-kills": "ring WATCHERS=0 M=3 KILLS=2",
    "lossless-ahead": "ring WATCHERS=0 M=4 OLDEST=1 AHEAD=2",
    "lossy-two": "ring GATERS=0 WATCHERS=2 M=3 KILLS=1",
    "runs": "ring RUN=2 AHEAD=2 M=4",
    "runs-three": "ring RUN=3 AHEAD=3 N=3 M=4 WATCHERS=0 GATERS=2",
    "runs-kill": "ring RUN=2 AHEAD=2 N=3 UNPINNED=2 M=3 KILLS=1",
    "shared": "ring PRODUCERS=2 M=1 WATCHERS=0",
    "durable": "ring DURABLE KILLS=1 M=3 WATCHERS=0",
    "durable-from-oldest": "ring DURABLE KILLS=1 M=4 WATCHERS=0 OLDEST=1",
    "resume": "ring RESUME KILLS=1 M=3 WATCHERS=0",
    "resume-runs": "ring RESUME RUN=2 AHEAD=2 KILLS=1 M=3 WATCHERS=0",
    "resume-kills": "ring RESUME KILLS=2 M=2 WATCHERS=0",
    "wake": "wake SLEEPERS=2",
    "wake-three": "wake SLEEPERS=3",
    "wake-signallers": "wake SLEEPERS=2 SIGNALLERS=2 EVENTS=1",
    "wake-kill": "wake EVENTS=3 KILLS=1",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "mixed-kill": "ring M=3 KILLS=1",
    "mixed-two": "ring GATERS=2 M=3",
    "resume-mixed": "ring RESUME KILLS=1 M=2",
    "resume-two": "ring RESUME KILLS=1 M=2 GATERS=2 WATCHERS=0 OLDEST=1",
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
    "RUN_PAST_LIMIT": "ring RUN=2 AHEAD=2 M=4",
    "DEATH_ENDS": "ring RESUME KILLS=1 M=3 WATCHERS=0",
    "COUNT_WORD": "ring RESUME KILLS=1 M=3 WATCHERS=0",
    "RESUME_UNCLEANED": "ring RESUME KILLS=1 M=3 WATCHERS=0",
    "PIN_ALL": "ring FREEZE M=3 WATCHERS=2 GATERS=0",
    "LOOK_FIRST": "wake SLEEPERS=2",
    "CLEAR_LATE": "wake SLEEPERS=2",
    "NO_COUNT": "wake SLEEPERS=2",
    "WAKE_ONE": "wake SLEEPERS=2",
    "NO_BIT": "wake SLEEPERS=2",
    "NO_SECOND_LOOK": "wake SLEEPERS=2",
}


@pytest.mark.parametrize("size", SIZES)
def test_ring_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_ring_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("ring", "wake") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_ring_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_memory_orders(compiler: str, tmp_path: Path) -> None:
    """Each fence of the ring (J, P, E) has a test, and mutants without it."""
    lines = spin.explore_orders(tmp_path, "ring_litmus", compiler)
    outcomes = [line.split()[-1] for line in lines]
    assert set(outcomes) == {"OK", "VIOLATION"}
    assert outcomes.count("OK") == 12
    assert outcomes.count("VIOLATION") == 26
    kernels = spin.MODELS.parents[1] / "ataraxis" / "_kernels"
    sources = [p.read_text() for p in kernels.glob("*.p[yx][xd]")]
    letters = {c for text in sources for c in re.findall(r"# Fence ([A-Z])[:.]", text)}
    assert letters
    for letter in letters:
        mutants = [k for k in lines if f"mutant {letter}: " in k]
        assert len(mutants) > 2, f"fence {letter}: mutants of each side"
