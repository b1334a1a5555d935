"""Hosts, mirrors and edges in the watch: what the agent tells, and never waits for."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import workers_pipe as w
from agent_processes import agent_processes
from agents import Lab, lab
from deadline import wait_until
from view_rig import ViewProcess, probe_block, repeating

from ataraxis import Consumer, Pipe, Processor, Producer
from ataraxis.cluster import Cluster, Mirror, door
from ataraxis.cluster.door import AgentDoor, AgentLock
from ataraxis.shm.context import Context
from ataraxis.testing.carriers import FakeCarrier
from ataraxis.viewer.pump import Pump
from ataraxis.viewer.watch import AGENT_SOCKET, HostWatch, StreamWatch, verdict_of

WAIT_S = 30.0


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab("acq", "gpu", modules=["workers_pipe"]) as made:
        yield made


@contextlib.contextmanager
def watching(context: Path) -> Iterator[StreamWatch]:
    watch = StreamWatch(context)
    try:
        yield watch
    finally:
        watch.close()


class Looks:
    """Looks at a context until what is seen of hosts is as expected."""

    def __init__(self, watch: StreamWatch) -> None:
        self._watch = watch
        self.words: dict[str, Any] = {}

    def until(self, condition: Any, what: str) -> dict[str, Any]:
        def is_so() -> bool:
            self.words = self._watch.look()
            return bool(condition(self.words["hosts"]))

        wait_until(is_so, WAIT_S, what)
        found: dict[str, Any] = self.words["hosts"]
        return found


def test_hosts_and_mirrors_are_seen(rig: Lab) -> None:
    there, here = rig.contexts["acq"], rig.contexts["gpu"]
    camera = Producer("camera", shape=(4,), dtype="i8", buffer_count=16, context=there)
    with watching(here) as watch, Mirror("camera", host="acq", context=here):
        looks = Looks(watch)
        reader = Consumer("camera", policy="lossless", context=here)
        camera.send(np.arange(4), timeout=WAIT_S)
        found = looks.until(
            lambda h: h.get("hosts") and h["hosts"][1]["offset_ns"] is not None
            and h["mirrors"][0]["frames"], "a frame, and the clock",
        )  # fmt: skip
        me, other = found["hosts"]
        assert (found["state"], found["problem"], found["silent_s"]) == (
            "answers",
            "",
            0,
        )
        assert (me["name"], me["state"]) == ("gpu", "here")
        assert (other["name"], other["state"]) == ("acq", "connected")
        assert 0 < other["round_trip_ns"] < 10**10
        assert abs(other["offset_ns"]) <= other["bound_ns"]
        counts = [
            other[k] for k in ("mirrors", "behind_frames", "spooled_bytes", "lost")
        ]
        assert counts == [1, 0, 0, 0]
        (mirror,) = found["mirrors"]
        assert (mirror["name"], mirror["host"]) == ("camera", "acq")
        assert (mirror["lost"], mirror["repeated"]) == (0, 0)
        assert looks.words["verdict"]["text"] == "live, not recorded"
        json.dumps(looks.words)
        rig.network.cut("acq", "gpu")
        looks.until(
            lambda h: not h["mirrors"][0]["is_connected"], "the mirror to be cut"
        )
        assert looks.words["verdict"] == {
            "tone": "warn", "text": "acq does not answer; frames are kept there",
        }  # fmt: skip
        rig.network.heal("acq", "gpu")
        looks.until(lambda h: h["mirrors"][0]["is_connected"], "the mirror to be back")
        assert looks.words["verdict"]["text"] == "live, not recorded"
        reader.close()
    camera.unlink()


def test_edges_of_a_pipe_are_seen(rig: Lab) -> None:
    here, found = rig.contexts["acq"], []
    pipe = Pipe("p", context=here)
    pipe.add(Processor("near", func=w.double)).add(
        Processor("far", func=w.takes_a_while, host="gpu", workers=2)
    )
    with (
        Cluster(rig.hosts("acq"), context=here,
                carrier=FakeCarrier(rig.network, "acq")) as engine,
        watching(here) as watch,
        pipe.run(range(10**6), found, engine=engine) as run,
    ):  # fmt: skip
        looks = Looks(watch)
        seen = looks.until(
            lambda h: any(e["settled_hz"] and e["leased"] for e in h.get("edges", ())),
            "values settled per second",
        )
        (shown,) = looks.words["pipes"]
        assert shown["home"] == "acq"
        assert [step["hosts"] for step in shown["steps"]] == [["acq"], ["gpu"]]
        into, back = (
            next(e for e in seen["edges"] if e["name"].endswith(end))
            for end in (".edge.in.far", ".edge.end")
        )
        assert (into["run"], into["source"], into["to"]) == (run.name, "acq", "gpu")
        assert into["waiting"] is not None
        assert into["is_connected"]
        assert (back["source"], back["to"], back["waiting"]) == ("gpu", "acq", None)
        assert run.statistics().host.values.tolist() == ["acq", "gpu", "gpu", "acq"]
        with watching(rig.contexts["gpu"]) as other:
            (shown,) = other.look()["pipes"]
            assert [step["hosts"] for step in shown["steps"]] == [["acq"], ["gpu"]]
        run.terminate()


def test_a_pipe_on_one_host_names_none() -> None:
    pipe = Pipe("p")
    pipe.add(Processor("a", func=w.double))
    with pipe.run() as run:
        assert run.call(2) == 4
        (shown,) = StreamWatch(None).look()["pipes"]
        assert (shown["home"], shown["steps"][0]["hosts"]) == ("", [])
        assert run.statistics().host.values.tolist() == ["localhost"] * 2
        run.stop()


@pytest.mark.parametrize(
    ("mirror", "tone", "text"),
    [
        ({}, "good", "recording · nothing missing"),
        ({"lost": 3}, "bad", "3 frames lost · probe"),
        ({"lost": 3, "policy": "latest"}, "good", "recording · nothing missing"),
        ({"lost": 3, "name": "other"}, "good", "recording · nothing missing"),
        ({"is_connected": False}, "warn", "acq does not answer; frames are kept there"),
        ({"is_connected": False, "state": "ended"}, "good",
         "recording · nothing missing"),
    ],
)  # fmt: skip
def test_the_verdict_of_a_mirror(mirror: dict[str, Any], tone: str, text: str) -> None:
    recorder = {"label": "session-1", "is_durable": True, "away_s": None, "lost": 0}
    stream = {"name": "probe", "problem": "", "lost": 0, "is_stalled": False,
              "is_ended": False, "readers": [recorder]}  # fmt: skip
    whole = {"name": "probe", "host": "acq", "policy": "lossless", "lost": 0,
             "is_connected": True, "state": "flowing", **mirror}  # fmt: skip
    assert verdict_of([stream], [whole]) == {"tone": tone, "text": text}


# ---- an agent that is not there, or is not well


def test_without_an_agent_nothing_of_hosts_is_imported() -> None:
    report = programs.run("""
        import sys
        from ataraxis.viewer.pump import Pump
        pump = Pump(None)
        pump.look(1)
        assert pump.watch.look()["hosts"] == {}
        rooms = ("ataraxis.cluster", "ataraxis.link", "zenoh", "cryptography")
        print([name for name in sys.modules if name.startswith(rooms)])
        """)
    assert report.strip() == "[]"
    assert AGENT_SOCKET == door.SOCKET


@pytest.mark.parametrize(
    "answer",
    [3, [], {"hosts": [3]}, {"hosts": []}, {"hosts": [{"name": "a"}]}, "x" * (5 << 20)],
    ids=["number", "list", "host", "none", "part", "long"],
)
def test_an_agent_that_answers_nonsense_is_named(answer: Any, context: Path) -> None:
    place = Context.of(context)
    lock = AgentLock(place)
    served = AgentDoor(place, lambda asked, visit: answer)
    with watching(context) as watch:
        found = Looks(watch).until(
            lambda h: h.get("state") == "refused", "the answer to be refused"
        )
        assert found["problem"]
        assert found["hosts"] == []
    served.close()
    lock.release()


@pytest.mark.slow
def test_an_agent_that_is_killed_is_missed_and_its_successor_seen(
    context: Path,
) -> None:
    with agent_processes(context, others=()) as agents, watching(context) as watch:
        looks = Looks(watch)
        looks.until(lambda h: h["state"] == "answers", "the agent")
        agents.kill("gpu")
        found = looks.until(lambda h: h.get("state") == "ended", "its end")
        assert "no agent runs" in found["problem"]
        agents.start("gpu")
        looks.until(lambda h: h.get("state") == "answers", "the next agent")
    assert StreamWatch(context).look()["hosts"] == {}


@pytest.mark.slow
def test_a_hung_agent_delays_no_trace(context: Path) -> None:
    """Columns go on, and no look waits for the agent."""
    probe = Producer(
        "probe", shape=(300, 4), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 30_000}, buffer_count=128,
    )  # fmt: skip
    blocks = [probe_block(k, 4) for k in range(30)]
    with (
        agent_processes(context, others=()) as agents,
        repeating(lambda k: probe.send(blocks[k % 30]), 0.01),
        ViewProcess() as view,
        view.page() as page,
    ):
        page.show(1, "probe", seconds=2, columns=1000)
        page.take_until(lambda: page.state.get("hosts", {}).get("state") == "answers")
        agents.send("gpu", signal.SIGSTOP)
        page.take_until(lambda: page.state["hosts"]["state"] == "silent", WAIT_S)
        assert "has not answered for" in page.state["hosts"]["problem"]
        assert page.state["hosts"]["hosts"][0]["name"] == "gpu", "what it told last"
        before = sum(len(part["low"]) for part in page.of(1))
        sent = page.state["streams"][0]["sent"]
        page.take_until(
            lambda: (
                sum(len(part["low"]) for part in page.of(1)) > before + 1500
                and page.state["streams"][0]["sent"] > sent + 100
            )
        )
        assert page.state["hosts"]["state"] == "silent"
        times = []
        with watching(context) as watch:
            for _ in range(9):
                began = time.monotonic()
                watch.look()
                times.append(time.monotonic() - began)
        assert sorted(times)[4] < 1, "a look waits for the agent"
        agents.send("gpu", signal.SIGCONT)
        page.take_until(lambda: page.state["hosts"]["state"] == "answers", WAIT_S)
        assert view.stop() == 0
    probe.unlink()


def test_the_agent_is_asked_for_a_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def look(watch: HostWatch) -> dict[str, Any]:
        asked.append(None)
        return {}

    monkeypatch.setattr(HostWatch, "look", look)
    pump = Pump(None)
    pump.look(0)
    assert asked == []
    pump.look(1)
    assert asked == [None]
    pump.end()


@pytest.mark.slow
def test_a_viewer_without_a_page_leaves_the_agent(context: Path) -> None:
    asked: list[str] = []

    def answer(what: dict[str, Any], visit: Any) -> dict[str, Any]:
        asked.append(what["do"])
        host = {"name": "gpu", "state": "here"}
        return {"hosts": [host], "mirrors": [], "edges": []}

    place = Context.of(context)
    lock = AgentLock(place)
    served = AgentDoor(place, answer)
    with ViewProcess() as view:
        with view.page() as page:
            page.take_until(
                lambda: page.state.get("hosts", {}).get("state") == "answers"
            )
            page.take_until(lambda: len(asked) >= 2)
        assert set(asked) == {"statistics"}

        def is_left() -> bool:
            return not served._lines

        wait_until(is_left, WAIT_S, "the viewer to leave the agent")
        assert view.stop() == 0
    served.close()
    lock.release()
