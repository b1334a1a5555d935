"""Agents: one in a context, closed by default, what comes back and what is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agents import Lab, lab
from deadline import wait_until

from ataraxis import Consumer, Producer
from ataraxis.cluster import Agent, Mirror
from ataraxis.cluster.agent import STATE
from ataraxis.cluster.door import SOCKET, ask_agent
from ataraxis.cluster.mirror import drop_mirror
from ataraxis.cluster.status import host_states, mirrors_here
from ataraxis.errors import AccessDenied, HostUnavailable, SegmentExists
from ataraxis.link.hosts import StandingMirror
from ataraxis.testing.carriers import FakeCarrier, FakeNetwork

WAIT_S = 30.0


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab() as made:
        yield made


def camera(rig: Lab, name: str = "camera") -> Producer:
    return Producer(
        name, shape=(4,), dtype="i8", buffer_count=16, context=rig.contexts["acq"]
    )


def names_here(rig: Lab) -> list[str]:
    return sorted(one.name for one in mirrors_here(rig.contexts["gpu"]))


def test_a_second_agent_is_told_of_the_first(rig: Lab) -> None:
    with pytest.raises(SegmentExists, match=f"process {os.getpid()}"):
        Agent(
            rig.hosts("acq"), context=rig.contexts["acq"],
            carrier=FakeCarrier(FakeNetwork(), "acq"),
        )  # fmt: skip
    assert ask_agent("mirrors", context=rig.contexts["acq"]) == []


def test_nothing_is_left_of_agents_that_did_nothing(context: Path) -> None:
    with lab() as rig:
        files = [sorted(p.name for p in c.iterdir()) for c in rig.contexts.values()]
        assert files == [[SOCKET, f"{SOCKET}.lock"]] * 2
        threads = threading.active_count()
        rig.close()
        assert threading.active_count() < threads
        assert [list(c.iterdir()) for c in rig.contexts.values()] == [[], []]


def test_without_certificates_nothing_listens(rig: Lab) -> None:
    rig.stop("acq")
    hosts = rig.hosts("acq")
    hosts.carrier = "tls"
    with pytest.raises(AccessDenied, match="certificate"):
        Agent(hosts, context=rig.contexts["acq"])
    assert list(rig.contexts["acq"].iterdir()) == []
    with pytest.raises(FileNotFoundError, match="hosts init"):
        Agent(rig.place / "hosts.yaml", context=rig.contexts["acq"])


def test_a_detached_mirror_returns_with_the_agent(rig: Lab) -> None:
    here = rig.contexts["gpu"]
    with camera(rig) as producer:
        Mirror("camera", "acq", context=here, detached=True).close()
        assert names_here(rig) == ["camera"]
        rig.stop("gpu")
        assert (here / STATE).exists()
        rig.start("gpu")
        assert names_here(rig) == ["camera"]
        with Consumer("camera", policy="lossless", context=here) as reader:
            producer.send(np.full(4, 7, "i8"))
            with reader.receive(timeout=WAIT_S) as frame:
                assert int(frame.array[0]) == 7
        drop_mirror("camera", context=here)
        assert names_here(rig) == []
        assert not (here / STATE).exists()
        producer.unlink()


def test_a_mirror_whose_program_does_not_return_goes(
    rig: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.cluster.agent.GRACE_S", 0.5)
    here = rig.contexts["gpu"]
    with camera(rig) as producer:
        mirror = Mirror("camera", "acq", context=here)
        rig.stop("gpu")
        mirror.close()
        rig.start("gpu")
        assert names_here(rig) == ["camera"]
        wait_until(lambda: names_here(rig) == [], WAIT_S, "the mirror to go")
        wait_until(lambda: not (here / "camera").exists(), WAIT_S, "its stream to go")
        producer.unlink()


def test_a_standing_mirror_is_always_there(rig: Lab) -> None:
    here = rig.contexts["gpu"]
    rig.stop("gpu")
    rig.mirrors["gpu"] = [StandingMirror("camera", "acq", "theirs")]
    rig.start("gpu")
    assert names_here(rig) == ["theirs"]
    with camera(rig) as producer:
        reader = Consumer("theirs", policy="lossless", context=here, timeout=WAIT_S)
        producer.send(np.full(4, 7, "i8"))
        with reader.receive(timeout=WAIT_S) as frame:
            assert int(frame.array[0]) == 7
        producer.unlink()
        assert reader.receive(timeout=WAIT_S) is None
        reader.close()


def test_hosts_and_mirrors_are_shown(rig: Lab) -> None:
    here, there = rig.contexts["gpu"], rig.contexts["acq"]
    with camera(rig) as producer, Mirror("camera", "acq", context=here) as mirror:
        me, other = host_states(here)
        assert (me.name, me.state, other.name) == ("gpu", "here", "acq")
        wait_until(
            lambda: host_states(here)[1].offset_ns is not None, WAIT_S, "a clock"
        )
        other = host_states(here)[1]
        assert (other.state, other.mirrors, other.problem) == ("connected", 1, "")
        # One machine, one clock.
        assert abs(other.offset_ns or 0) <= (other.bound_ns or 0)
        offset = mirror.offset()
        assert offset.host == "acq"
        me, other = host_states(there)
        assert (me.served, other.served) == (1, 1)
        (row,) = rig.agents["acq"].statistics()["streams"]
        assert (row["stream"], row["host"], row["state"]) == (
            "camera",
            "gpu",
            "flowing",
        )
        producer.unlink()


@pytest.mark.slow
def test_the_clock_of_a_mirrored_host_is_a_stream(rig: Lab) -> None:
    here = rig.contexts["gpu"]
    with (
        camera(rig) as producer,
        Mirror("camera", "acq", context=here),
        Consumer("clock.acq", context=here, timeout=WAIT_S) as clock,
    ):
        with clock.receive(timeout=WAIT_S) as row:
            local, offset, bound, _ = row.array.tolist()
            assert abs(offset) <= bound
            assert abs(local - time.monotonic_ns()) < 60e9
        producer.unlink()
    wait_until(lambda: not (here / "clock.acq").exists(), 60, "the clock's end")


def test_the_streams_of_a_host_are_listed(rig: Lab) -> None:
    with camera(rig) as one, camera(rig, "probe") as two:
        rows = ask_agent("streams", context=rig.contexts["gpu"], host="acq")
        assert [row["name"] for row in rows] == ["camera", "probe"]
        assert (rows[0]["shape"], rows[0]["slots"]) == ([4], 16)
        one.unlink(), two.unlink()
    rig.stop("acq")
    rig.may["acq"] = {"gpu": []}
    rig.start("acq")
    with pytest.raises(HostUnavailable.__base__, match="may not read"):
        ask_agent("streams", context=rig.contexts["gpu"], host="acq", timeout=30)


def test_a_host_that_never_returns_is_forgotten(rig: Lab) -> None:
    """`ataraxis hosts forget`: its mirrors hold up nothing."""
    with camera(rig) as producer:
        mirror = Mirror("camera", "acq", context=rig.contexts["gpu"])
        rig.stop("gpu")
        for k in range(100):  # spooled
            producer.send(np.full(4, k, "i8"), timeout=WAIT_S)
        assert rig.agents["acq"].statistics()["streams"]
        ask_agent("forget", context=rig.contexts["acq"], host="gpu")
        assert rig.agents["acq"].statistics()["streams"] == []
        mirror.close()
        producer.unlink()


def test_an_agent_serves_until_it_is_closed(rig: Lab) -> None:
    agent = rig.agents["acq"]
    thread = threading.Thread(target=agent.serve)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    rig.stop("acq")
    thread.join(WAIT_S)
    assert not thread.is_alive()
    agent.close()
