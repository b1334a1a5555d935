"""A run of another host, as its agent here keeps it."""

from __future__ import annotations

import time

import pytest
from agents import lab
from deadline import wait_until

from ataraxis.cluster.workers import WORKERS
from ataraxis.link.conversation import Conversation
from ataraxis.link.messages import Ask, Hello
from ataraxis.link.session import LinkSession
from ataraxis.testing.carriers import FakeCarrier

WAIT_S = 30.0


def test_a_run_that_is_never_prepared_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program was killed between its first two messages."""
    monkeypatch.setattr("ataraxis.cluster.workers._UNPREPARED_S", 1.0)
    with lab("acq", "gpu", modules=["workers_pipe"]) as rig:
        channel = FakeCarrier(rig.network, "acq").dial(
            "gpu:7411", "gpu", f"{WORKERS}run", WAIT_S
        )
        me = Hello("rig", "acq", "boot", "program")
        talk = Conversation(channel, LinkSession(me, "gpu", time.monotonic()))
        list(talk.greet(WAIT_S))
        talk.send(Ask(0, "attach", {"epoch": ""}))
        agent = rig.agents["gpu"]
        wait_until(lambda: agent.statistics()["runs"], WAIT_S, "the run to be there")
        talk.close()
        wait_until(lambda: not agent.statistics()["runs"], WAIT_S, "the run to go")
