"""R8: a worker behind two edges against one on this host, 1 KB values, in values/s.

    python benchmarks/bench_edge.py [--json OUT] [--quick] [--carrier tls]

The program puts values, a worker process maps each, the program takes the results, in
order of their coming, and counts each one. `local`: two queues of one context. `edge`:
the worker is in the context of a second agent; values go there by one edge, results
come home by another, over loopback with mutual TLS 1.3. Both take turns. Four processes
share the machine's cores with the edges, two without.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_link import cpu_s, free_port
from measure import Aim, Result, interleaved, report

HERE = Path(__file__).resolve().parent
CASE, SIZE, SLOTS = "map of 1 KB values", 1000, 4096


class Peer:
    """A process of `edge_peer`."""

    def __init__(self, stack: contextlib.ExitStack, role: str, **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "edge_peer.py"), role,
             json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(self._close)

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[3]} ended")  # type: ignore[index]
        return line

    def ask(self) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.hear())

    def _close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def mapped(first: Any, last: Any, count: int) -> float:
    """Put values and take their results; return values per second."""
    from ataraxis.pipeline.frames import HEAD_LANE

    value = bytes(SIZE)

    def put() -> None:
        for k in range(count):
            first.post(value, -1, (HEAD_LANE, k, 0), 0, 1, None)

    began = time.monotonic()
    thread = threading.Thread(target=put)
    thread.start()
    seen: set[int] = set()
    while len(seen) < count:
        message = last.hold(20)
        if message is None:
            raise RuntimeError(f"{len(seen)} of {count} results came")
        if message.sequence in seen:
            raise RuntimeError(f"result {message.sequence} came twice")
        seen.add(message.sequence)
        message.acknowledge()
    seconds = time.monotonic() - began
    thread.join()
    return count / seconds


def made_queue(stack: contextlib.ExitStack, name: str, context: str) -> Any:
    from ataraxis import MemQ

    queue = MemQ(name, SLOTS, 1024, context=context)
    stack.callback(queue.unlink)
    return queue


def edges(stack: contextlib.ExitStack, carrier: str) -> tuple[Any, Any, list[Peer]]:
    """Start two agents, a worker, and two edges; return the ends here."""
    from ataraxis.cluster import Hosts

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("home", "far")}
    made = Hosts.create(folder / "rig", "rig", addresses, carrier=carrier)
    contexts = {}
    for name in made:
        (place / name).mkdir(mode=0o700)
        contexts[name] = str(place / name)
    first = made_queue(stack, "r.edge.p", contexts["home"])
    last = made_queue(stack, "r.end", contexts["home"])
    made_queue(stack, "r.in.p", contexts["far"])
    made_queue(stack, "r.edge.end", contexts["far"])
    plans = [
        {"run": "r", "name": "r.edge.p", "source": "home", "to": "far",
         "inbox": "r.in.p", "path": ["r.edge.end"]},
        {"run": "r", "name": "r.edge.end", "source": "far", "to": "home",
         "inbox": "r.end", "is_home": True},
    ]  # fmt: skip
    agents = []
    for name, hosts in made.items():
        hosts.spool.directory = str(folder / f"spool-{name}")
        hosts.to_yaml(hosts.path)
        agents.append(
            Peer(
                stack, "agent", hosts=str(hosts.path), context=contexts[name],
                plans=plans,
            )
        )  # fmt: skip
    worker = Peer(
        stack, "worker", context=contexts["far"], inbox="r.in.p", out="r.edge.end"
    )
    for peer in (*agents, worker):
        assert peer.hear() == "ready\n"
    return first, last, agents


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--carrier", choices=("tls", "zenoh"), default="tls")
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    count = options.count or (5_000 if options.quick else 50_000)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        near, end = (made_queue(stack, name, place) for name in ("in", "end"))
        local = Peer(stack, "worker", context=place, inbox="in", out="end")
        assert local.hear() == "ready\n"
        first, last, agents = edges(stack, options.carrier)
        used: list[float] = []

        def over_edges() -> float:
            before = sum(cpu_s(peer.process.pid) for peer in agents)
            rate = mapped(first, last, count)
            after = sum(cpu_s(peer.process.pid) for peer in agents)
            used.append((after - before) / count * 1e6)
            return rate

        runs: dict[str, Callable[[], float]] = {
            "edge": over_edges, "local": lambda: mapped(near, end, count)
        }  # fmt: skip
        results = interleaved(CASE, "values/s", runs, 3 if options.quick else 5)
        cpu = sorted(used[1:])
        results.append(
            Result("CPU of both agents", "edge", "us/value", cpu[len(cpu) // 2],
                   cpu[0], cpu[-1], len(cpu))
        )  # fmt: skip
        for peer in agents:
            for row in peer.ask():
                if row["repeated"] or row["taken_back"]:
                    raise RuntimeError(f"values came twice: {row}")
    aim = Aim(CASE, "edge", "local", 0.5, 0.25, smaller_is_better=False)
    return report(results, [aim], options.json)


if __name__ == "__main__":
    sys.exit(main())
