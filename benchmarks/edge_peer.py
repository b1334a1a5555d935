"""Processes of `bench_edge`: ``edge_peer.py agent|worker {JSON}``.

Each ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from typing import Any


def agent(hosts: str, context: str, plans: list[dict[str, Any]]) -> None:
    """Run an agent with edges."""
    from ataraxis.cluster.agent import Agent
    from ataraxis.cluster.edges import EdgePlan

    with Agent(hosts, context=context) as made:
        for plan in plans:
            made.edges.connect(EdgePlan.from_dict(plan))
        print("ready", flush=True)
        for line in sys.stdin:
            del line
            print(json.dumps(made.edges.statistics()), flush=True)


def worker(context: str, inbox: str, out: str) -> None:
    """Map values of one queue to another, as a worker of a pipe does."""
    from ataraxis import MemQ
    from ataraxis.pipeline.frames import lane_of

    queue, target = (MemQ.attach(name, context=context) for name in (inbox, out))
    is_over = threading.Event()

    def work() -> None:
        lanes: dict[int, int] = {}
        while not is_over.is_set():
            message: Any = queue.hold(0.25)
            if message is None:
                continue
            lane = lanes.setdefault(message.lane, lane_of(message.lane, 0))
            origin = lane, message.sequence, 0
            while not target.post(message.value, -1, origin, 0, message.time_ns, 0.25):
                if is_over.is_set():
                    return
            message.acknowledge()

    thread = threading.Thread(target=work)
    thread.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        pass
    is_over.set()
    thread.join()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        {"agent": agent, "worker": worker}[sys.argv[1]](**json.loads(sys.argv[2]))
