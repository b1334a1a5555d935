"""The model of an edge: a value outlives its hosts, and its lease ends by descent."""

from __future__ import annotations

from pathlib import Path

import pytest
import spin

pytestmark = pytest.mark.model

SIZES = {
    "ends-there": "edge NEXT=0 WIPES=1 KILLS=1 CUTS=1 COPIES=3",
    "there-and-back": "edge NEXT=2 FREEZES=1",
    "there-and-back-wiped": "edge NEXT=2 WIPES=1 KILLS=1 COPIES=3",
    "there-and-back-wiped-twice": "edge NEXT=2 WIPES=2 COPIES=3",
    "to-a-third-host": "edge NEXT=1 WIPES=1 CUTS_C=1",
    "third-host-wiped-and-cut": "edge NEXT=1 WIPES_C=1 CUTS=1",
    "third-host-wiped-and-kill": "edge NEXT=1 WIPES_C=1 KILLS=1 CUTS_C=1",
    "two-hosts": "edge NEXT=1 VALUES=1 HOSTS=2 FREEZES=1 WIPES_C=1",
    "order-without-a-host": "edge NEXT=2 HOSTS=2 WIPES=1 ORDER STAYS_DEAD CREDIT=1",
    "through": "edge THROUGH NEXT=1 WIPES=1 WIPES_C=1",
    "through-at-once": "edge THROUGH AT_ONCE NEXT=1 WIPES=1 WIPES_C=1",
    "through-twice": "edge THROUGH NEXT=1 VALUES=1 WIPES=2 WIPES_C=2",
    "through-order": ("edge THROUGH NEXT=2 HOSTS=2 WIPES=1 ORDER STAYS_DEAD CREDIT=1"),
}
# Up to some minutes and 4 GB each.
LARGER_SIZES = {
    "freeze-and-cut": "edge NEXT=2 FREEZES=1 CUTS=1 COPIES=3",
    "all-faults-of-b": "edge NEXT=2 WIPES=1 CUTS=1 KILLS=1 COPIES=3",
    "three-values": "edge NEXT=2 VALUES=3 CREDIT=2 CUTS=1",
    "through-two-hosts": (
        "edge THROUGH AT_ONCE NEXT=1 HOSTS=2 VALUES=1 FREEZES=1 WIPES=1 WIPES_C=1"
        " COPIES=3"
    ),
    "many-cuts": "edge NEXT=1 VALUES=1 CUTS=2 WIPES_C=2 CUTS_C=1 KILLS=1 COPIES=4",
    "two-hosts-cut": (
        "edge NEXT=1 VALUES=1 HOSTS=2 FREEZES=1 CUTS=1 WIPES_C=1 COPIES=3"
    ),
    "through-cut": "edge THROUGH NEXT=1 WIPES=1 WIPES_C=1 CUTS=1",
}
# Mutant to the size that shows it.
MUTANTS = {
    "BACK_BEFORE_FENCE": "edge NEXT=2 CUTS=1",
    "CREDIT_FOR_ALL": "edge THROUGH NEXT=2 HOSTS=2 WIPES=1 ORDER STAYS_DEAD CREDIT=1",
    "DROP_WHEN_RECEIVED": "edge NEXT=1 WIPES_C=1",
    "DROP_WHEN_SENT": "edge NEXT=1 CUTS_C=1",
    "FENCE_DROPS_OUTPUTS": "edge NEXT=1 CUTS=1 WIPES_C=1",
    "NO_EPOCH_CHECK": "edge NEXT=2 FREEZES=1",
    "NO_FILTER": "edge NEXT=1 VALUES=1 KILLS=1",
    "OLD_WORKERS_STAY": "edge NEXT=2 FREEZES=1",
    "REPEAT_SETTLED": "edge THROUGH NEXT=1 VALUES=1 WIPES=1 WIPES_C=1",
    "SETTLE_AT_ACKNOWLEDGE": "edge NEXT=1 WIPES=1",
    "SETTLE_WHEN_EMPTY": "edge NEXT=2",
}
# What the plan promised and the model refutes: docs/decisions/0040.
LIMITS = {
    "received-and-two-hosts-wiped-in-turn": "edge NEXT=1 VALUES=1 WIPES=1 WIPES_C=1",
    "sink-on-a-host-that-is-wiped": "edge NEXT=0 WIPES=1 ONCE_ON_B",
    "old-epoch-refused-by-a-third-host": "edge NEXT=1 VALUES=1 FREEZES=1 EPOCH_AT_C",
}


@pytest.mark.parametrize("size", SIZES)
def test_edge_model_has_no_error(size: str, tmp_path: Path) -> None:
    spin.holds(tmp_path, SIZES[size])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_edge_model_catches_mutant(mutant: str, tmp_path: Path) -> None:
    spin.breaks(tmp_path, MUTANTS[mutant], mutant)


@pytest.mark.parametrize("limit", LIMITS)
def test_edge_model_shows_limit(limit: str, tmp_path: Path) -> None:
    errors, report = spin.check(tmp_path, LIMITS[limit])
    assert errors > 0, report


def test_every_mutant_is_run() -> None:
    assert spin.mutants("edge") == set(MUTANTS)


@pytest.mark.stress
@pytest.mark.parametrize("size", LARGER_SIZES)
def test_edge_model_has_no_error_in_larger_sizes(size: str, tmp_path: Path) -> None:
    spin.skip_unless_nightly()
    spin.holds(tmp_path, LARGER_SIZES[size], spin.STRESS_SECONDS)
