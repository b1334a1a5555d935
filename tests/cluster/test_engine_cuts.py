"""Cluster on hosts with cables: leases, wipes, and what is exact through them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from deadline import wait_until
from link_rig import CARRIERS, Lab, Program, need, tell

from ataraxis.shm.process import ProcessIdentity

pytest.importorskip("cryptography", reason="certificates need cryptography")

pytestmark = pytest.mark.slow
SCALE = float(os.environ.get("ATARAXIS_STRESS", "0.1"))
FAR = {"func": "takes_a_while", "host": "gpu"}


@pytest.fixture(params=CARRIERS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two hosts in namespaces."""
    need(request.param)
    with Lab(carrier=request.param) as made:
        made.let_run("acq", "gpu")
        yield made


def started(lab: Lab, count: int, *stages: dict[str, Any], **options: Any) -> Program:
    """Run a pipe from host acq; return once some results are there."""
    program = lab["acq"].start(
        "pipe", context=str(lab["acq"].context), count=count, stages=list(stages),
        **options,
    )  # fmt: skip
    program.until(60, ready=True, received=50)
    return program


def exact(program: Program, count: int, timeout: float = 120) -> dict[str, Any]:
    found = program.until(timeout, ended=True)
    assert (found["received"], found["missing"], found["repeated"]) == (count, 0, 0)
    return found


def test_a_pipe_over_two_hosts_is_exact(lab: Lab) -> None:
    program = started(lab, 3000, {"func": "same", "host": "gpu"}, {"func": "same"})
    found = exact(program, 3000)
    assert found["disordered"] == 0


def test_a_cut_shorter_than_the_lease_ends_no_worker(lab: Lab) -> None:
    program = started(lab, 4000, FAR, lease_s=60.0)
    pid = program.status()["pids"]["takes_a_while0.0"]
    worker = ProcessIdentity.of(pid)
    with lab.cable_is_out(max(45 * SCALE, 6.0), "gpu"):
        pass
    assert worker.is_alive()
    found = exact(program, 4000)
    assert not any(event.startswith("restarted") for event in found["events"])


def test_a_cut_longer_than_the_lease_ends_the_workers_at_it(lab: Lab) -> None:
    program = started(lab, 4000, FAR, lease_s=5.0)
    worker = ProcessIdentity.of(program.status()["pids"]["takes_a_while0.0"])
    lab.cable_out("gpu")
    began = time.monotonic()
    wait_until(lambda: not worker.is_alive(), 20, "the worker to be ended")
    took = time.monotonic() - began
    tell("F7", ended_after_s=took, lease_s=5)
    lab.cable_in("gpu")
    found = exact(program, 4000)
    assert any(event.startswith("restarted") for event in found["events"])
    assert 4.0 <= took <= 7.0


def test_what_one_of_two_hosts_hands_on_within_it_is_not_lost_with_it(lab: Lab) -> None:
    """The second stage takes values that are made beside it, and on the other host."""
    far = {"func": "takes_a_while", "tag": "fast", "workers": 2, "ordered": True}
    own = {"func": "same", "host": "gpu", "ordered": True}
    program = started(lab, 3000, far, own, lease_s=3.0)
    pids, where = (program.status()[k] for k in ("pids", "where"))
    here, there = sorted(("takes_a_while0.0", "takes_a_while0.1"), key=where.get)
    assert (where[here], where[there]) == ("acq", "gpu")
    worker = ProcessIdentity.of(pids["same1.0"])
    # What is made on gpu waits there, in order, for the value of this one.
    os.kill(pids[here], signal.SIGSTOP)
    try:
        time.sleep(0.5)
        with lab.cable_is_out(6.0, "gpu"):
            wait_until(lambda: not worker.is_alive(), 20, "the worker to be ended")
    finally:
        os.kill(pids[here], signal.SIGCONT)
    found = exact(program, 3000)
    assert found["disordered"] == 0


def test_a_host_that_is_wiped_twice_loses_nothing(lab: Lab) -> None:
    program = started(lab, 4000, FAR, {"func": "same"}, lease_s=5.0)
    for count in (200, 1500):
        program.until(60, received=count)
        agent = lab["gpu"].programs[-1]
        agent.kill()
        lab["gpu"].start_agent()
    found = exact(program, 4000)
    tell("F6", missing=found["missing"], repeated=found["repeated"])
