"""The model of a mirror's link: no break, kill or full disk loses a frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "break-and-kills": "link",
    "one-slot": "link SLOTS=1",
    "breaks": "link BREAKS=3 KILLS_A=0 KILLS_B=0",
    "kills-of-the-outlet": "link BREAKS=0 KILLS_A=2 KILLS_B=0",
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "more-kills": "link BREAKS=1 KILLS_A=2 KILLS_B=2",
    "more-frames": "link FRAMES=5 SLOTS=3",
}
# Mutant to the size that shows it.
MUTANTS = {
    "ACK_FIRST": "link BREAKS=0 KILLS_A=0",
    "COUNT_FIRST": "link BREAKS=0 KILLS_B=0",
    "FORGET_MIRRORS": "link BREAKS=0 KILLS_B=0",
    "PUBLISH_HOLES": "link MUTANT_RESUME_AT_SENT BREAKS=1 KILLS_A=0 KILLS_B=0",
    "RELEASE_FIRST": "link BREAKS=0 KILLS_B=0",
    "RELEASE_WHEN_SENT": "link KILLS_A=0 KILLS_B=0",
    "RESUME_AT_SENT": "link KILLS_A=0 KILLS_B=0",
    "TRIM_WHEN_SENT": "link KILLS_A=0 KILLS_B=0",
}


@pytest.mark.parametrize("size", SIZES)
def test_link_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_link_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


def test_every_mutant_is_run() -> None:
    assert spin.mutants("link") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_link_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)
