"""Cables that are pulled, are slow or lose packets: the reader there has every frame.

Rows F1, F2, F5 and F8 of the plan, in network namespaces, over both carriers. Figures
are printed; deadlines are generous, as the machine may be busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from deadline import wait_until
from link_rig import CARRIERS, Filming, Lab, need, received, tell, worst_send_s

BUSY_S = 5.0
"""No `send` may wait this long: of a machine that runs other tests, too."""


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


@pytest.mark.parametrize("pulled", ["camera", "reader"])
def test_a_cable_that_is_out(
    carrier: str, pulled: str, figure: Callable[..., float]
) -> None:
    """F1, F2, F5: 8 s, 12 MB/s, a ring of 0.27 s; on either side of the switch."""
    cut_s = figure(8.0, 4.5)
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        began = time.time()
        with lab.cable_is_out(cut_s, "acq" if pulled == "camera" else "gpu"):
            time.sleep(3.5)
            state = lab["gpu"].mirror_state()["state"]
        again = time.time()
        filming.flows(int(120 * cut_s))
        found = filming.finish()
        status = filming.camera.status()
        worst = worst_send_s(status, began, again + 5)
        flows_s = found.flows_again_s(again)
        backlog = int(((found.sent_s < again) & (found.at_s >= again)).sum())
        caught_up = found.caught_up_s(again)
        drained_s = max(caught_up - flows_s, 0.01)
        tell(
            f"F1 F2 F5 {carrier}, cable of the {pulled} out for {cut_s:g} s",
            frames=found.received, state=state, worst_send_s=worst,
            flows_again_s=flows_s, backlog=backlog, caught_up_s=caught_up,
            times_the_rate=(backlog + 120 * caught_up) / (120 * drained_s),
        )  # fmt: skip
        assert state in ("disconnected", "connecting", "spooling")
        assert worst < BUSY_S
        assert flows_s < 2 * BUSY_S
        assert lab["gpu"].mirror_state()["lost"] == 0
        filming.leave()


def test_cables_that_are_pulled_again_and_again(
    carrier: str, figure: Callable[..., float]
) -> None:
    """Cuts of 0.1 to 4 s, before what the last one left has drained."""
    chance = np.random.default_rng(25)
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        for _ in range(int(figure(20, 3))):
            with lab.cable_is_out(float(chance.choice([0.1, 0.5, 1.5, 4.0]))):
                pass
            time.sleep(float(chance.uniform(0.1, 2.0)))
        filming.flows(240)
        tell(f"F1 {carrier}, cuts in a row", frames=filming.finish().received)
        filming.leave()


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
def test_packets_are_lost(
    carrier: str, loss: float, figure: Callable[..., float]
) -> None:
    """0, 1 and 5 % of packets, each way."""
    with Lab(carrier=carrier, wire={"loss": loss, "delay_ms": 0.2}) as lab:
        filming = Filming(lab)
        filming.flows(int(figure(3600, 240)), timeout=figure(600, 60))
        found = filming.finish()
        assert lab.wire is not None
        late = (found.at_s - found.sent_s)[60:]
        tell(
            f"packets {100 * loss:g} % lost, {carrier}", frames=found.received,
            p50_ms=1e3 * float(np.median(late)),
            p99_ms=1e3 * float(np.quantile(late, 0.99)), **lab.wire.set(),
        )  # fmt: skip
        filming.leave()


@pytest.mark.parametrize(
    "way", [2, 3], ids=["towards the reader", "towards the camera"]
)
def test_a_cable_that_is_out_in_one_direction(
    carrier: str, way: int, figure: Callable[..., float]
) -> None:
    with Lab(carrier=carrier, wire={"loss": 0.0}) as lab:
        assert lab.wire is not None
        filming = Filming(lab)
        began = time.time()
        lab.wire.set(cut=way)
        time.sleep(figure(8.0, 4.5))
        lab.wire.set(cut=0)
        again = time.time()
        filming.flows(240)
        found = filming.finish()
        tell(
            f"F1 {carrier}, cut in direction {way}", frames=found.received,
            worst_send_s=worst_send_s(filming.camera.status(), began, again + 5),
            flows_again_s=found.flows_again_s(again),
        )  # fmt: skip
        filming.leave()


def test_a_cable_that_is_too_slow(carrier: str, figure: Callable[..., float]) -> None:
    """80 Mbit/s for 96: the spool takes the rest, and the camera does not wait."""
    with Lab(carrier=carrier, wire={"mbit": 80.0, "delay_ms": 0.2}) as lab:
        filming = Filming(lab)
        began = time.time()
        filming.flows(int(figure(2400, 360)), timeout=figure(300, 60))
        over = time.time()
        found = filming.finish()
        worst = worst_send_s(filming.camera.status(), began, over)
        tell(f"80 Mbit/s, {carrier}", frames=found.received, worst_send_s=worst)
        assert worst < BUSY_S
        filming.leave()


def test_a_full_spool_lets_the_producer_wait(carrier: str) -> None:
    """F8: nothing is lost, and the camera and the agent say why it waits."""
    with Lab(carrier=carrier, spool_bytes=30 * 10**6) as lab:
        filming = Filming(lab)
        lab.cable_out()
        wait_until(lambda: filming.camera.status().get("stalls"), 40, "a full spool")
        waited = filming.camera.status()
        said = lab["acq"].run("hosts").stdout + filming.agents["acq"].said()
        lab.cable_in()
        filming.flows(240)
        found = filming.finish()
        tell(
            f"F8 wait, {carrier}",
            frames=found.received,
            stalled_by=waited["stalled_by"],
        )
        assert "agent" in waited["stalled_by"]
        assert "spool" in said, said
        filming.leave()


def test_a_full_spool_loses_and_counts(carrier: str) -> None:
    """F8: the gap there is the gap here; the camera never waits."""
    with Lab(carrier=carrier, spool_bytes=30 * 10**6) as lab:
        filming = Filming(lab, on_spool_full="lose")
        began = time.time()
        with lab.cable_is_out(8.0):
            pass
        filming.flows(240)
        over = time.time()
        sent = filming.end_camera()
        worst = worst_send_s(filming.camera.status(), began, over)
        found = filming.reader.until(60, ended=True)
        there = lab["gpu"].mirror_state()
        assert filming.reader.rows_path is not None
        had = received(filming.reader.rows_path, sent)
        tell(
            f"F8 lose, {carrier}", sent=sent, missing=had.missing, counted_by_reader=
            found["lost"], counted_by_mirror=there["lost"], worst_send_s=worst,
        )  # fmt: skip
        assert had.missing > 0
        assert (had.repeated, had.disordered, found["damaged"]) == (0, 0, 0)
        assert found["lost"] == had.missing == there["lost"]
        assert worst < BUSY_S
        filming.leave()
