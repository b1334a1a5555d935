"""Links of 20 simulated hosts, with every fault: no frame is lost, none comes twice."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_lab import Broken, Lab

from ataraxis.link.inlet import StreamInlet
from ataraxis.link.outlet import FrameSpool, FrameStore, OutletLink, StreamOutlet

FAULTS = st.tuples(
    st.floats(0, 0.6), st.sampled_from(Lab.FAULTS), st.integers(0, 1000)
)  # fmt: skip
# Seeds and faults. All but the first broke earlier versions: killed between the release
# of the ring and the trim of the disk; or before a full disk could note the mirrors.
SEEDS = [(5, 30), (2006, 60), (5008, 50)]


def run_lab(seed: int, faults: int, **classes: Any) -> Lab:
    """Let a seed draw the laboratory and its faults."""
    lab, chance = Lab(seed, **classes), random.Random(seed)
    for _ in range(faults):
        lab.run(chance.uniform(0, 0.6))
        lab.fault(chance.choice(Lab.FAULTS), chance.randrange(1000))
    lab.finish()
    return lab


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), faults=st.lists(FAULTS, min_size=5, max_size=25))
def test_no_schedule_of_faults_loses_a_frame(
    seed: int, faults: list[tuple[float, str, int]]
) -> None:
    lab = Lab(seed)
    for pause, fault, k in faults:
        lab.run(pause)
        lab.fault(fault, k)
    lab.finish()


@pytest.mark.parametrize(("seed", "faults"), SEEDS)
def test_kept_seeds(seed: int, faults: int) -> None:
    lab = run_lab(seed, faults)
    assert len(lab.hosts) == 20
    assert sum(ring.next for m in lab.mirrors for ring in m.rings) > 1000


@pytest.mark.stress
def test_many_seeds() -> None:
    scale = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
    for seed in range(1000, 1000 + max(4, round(400 * scale))):
        try:
            run_lab(seed, 60)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.stress
def test_a_hundred_hosts_for_ten_minutes() -> None:
    """100 hosts, 10 mirrors each, a fault in 0.6 s; a tenth of it takes a minute."""
    scale = min(float(os.environ.get("ATARAXIS_STRESS", "0.02")), 1.0)
    lab = Lab(100, hosts=100, mirrors=1000, rate_hz=0.2, is_calm=True)
    chance = random.Random(100)
    for _ in range(max(20, round(1000 * scale))):
        lab.run(0.6)
        lab.fault(chance.choice(Lab.FAULTS), chance.randrange(1000))
    lab.finish(120)
    assert len(lab.mirrors) > 950
    assert sum(ring.next for m in lab.mirrors for ring in m.rings) > 4000


# ---- it can fail: machines with one mistake


class ReleasesFirst(StreamOutlet):
    """Gives slots back before their frames are in a file."""

    def _append(
        self, store: FrameStore, spool: FrameSpool, until: int, now: float
    ) -> bool:
        store.release(until)
        return super()._append(store, spool, until, now)


class Forgetful(StreamOutlet):
    """Does not know the mirrors that a killed agent had."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._mirrors.clear()


class CountsSent(StreamOutlet):
    """Takes what was sent for what arrived."""

    def fill(self, link: OutletLink, buffer: memoryview, now: float) -> int:
        size = super().fill(link, buffer, now)
        if (state := self._state_of(link)) is not None:
            state.needs = max(state.needs, link.sent)
        return size


class TakesLossesForHoles(StreamOutlet):
    """Tells lost frames of a shared stream as numbers that never had one."""

    def _is_hole(self, state: Any, first: int, end: int) -> bool:
        return self.has_holes


class AcknowledgesFirst(StreamInlet):
    """Acknowledges a frame that is on its way into the ring."""

    @property
    def _safe(self) -> int:
        return super()._safe + (self.behind > 0)


class ForgetsHoles(StreamInlet):
    """Does not pass over numbers that never had a frame."""

    def _take_lost(self, lost: Any, now: float) -> None:
        if not lost.is_skipped:
            super()._take_lost(lost, now)


class IgnoresLosses(StreamInlet):
    """Does not pass over frames that were told as lost."""

    def _take_lost(self, lost: Any, now: float) -> None:
        pass


MUTANTS: list[dict[str, type[Any]]] = [
    {"outlet_class": ReleasesFirst},
    {"outlet_class": Forgetful},
    {"outlet_class": CountsSent},
    {"outlet_class": TakesLossesForHoles},
    {"inlet_class": AcknowledgesFirst},
    {"inlet_class": ForgetsHoles},
    {"inlet_class": IgnoresLosses},
]


def breaks(seed: int, mutant: dict[str, type[Any]]) -> bool:
    try:
        run_lab(seed, 30, **mutant)
    except Broken:
        return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=repr)
def test_a_mistake_is_found(mutant: dict[str, type[Any]]) -> None:
    assert any(breaks(seed, mutant) for seed in range(4))
