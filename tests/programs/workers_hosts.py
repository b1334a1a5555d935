"""Programs of tests with many hosts: a station, and dask's scheduler, workers, client.

As a script: ``workers_hosts.py PROGRAM {JSON}``, as those of `workers_link`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from workers_link import HEAD, KINDS, Status, contents, ints, tell_run

# ---- a station: one stream of its own, and mirrors of others


class Watcher:
    """Reads one stream to its end, and counts what it should not have."""

    def __init__(self, stream: str, size: int) -> None:
        self.stream, self._size = stream, size
        self.found: dict[str, Any] = {
            "is_here": False, "received": 0, "next": 0, "wrong": 0, "damaged": 0,
            "lost": 0, "is_ended": False, "error": "",
        }  # fmt: skip
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # told in the status
            self.found["error"] = f"{type(error).__name__}: {error}"

    def _read(self) -> None:
        from ataraxis import Consumer

        found, size = self.found, self._size - HEAD
        pattern = contents(size)
        sums = [zlib.crc32(pattern[k : k + size]) for k in range(KINDS)]
        with Consumer(self.stream, durable="watcher", timeout=240) as consumer:
            found["is_here"] = True
            for frame in consumer:
                data = frame.buffer
                number = int.from_bytes(data[:8], "little")
                found["wrong"] += number != found["next"]
                found["damaged"] += (
                    zlib.crc32(data[HEAD:]) != sums[number % KINDS]
                    or frame.sequence != number
                    or frame.device_sequence != number
                )
                found["next"] = number + 1
                found["received"] += 1
                del data
                frame.release()
            found["lost"] = consumer.dropped_count
        found["is_ended"] = True


def station(
    stream: str, status: str, *, others: list[str], hz: float, size: int, slots: int
) -> None:
    """Read the streams of others to their end; send frames from SIGUSR2 to SIGUSR1.

    The others' streams are here once `is_here` of its status says so.
    """
    import numpy as np

    from ataraxis import Producer

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # by all threads
    go, over = threading.Event(), threading.Event()
    signal.signal(signal.SIGUSR2, lambda *_: go.set())
    signal.signal(signal.SIGUSR1, lambda *_: over.set())
    told = Status(status)
    plain = np.frombuffer(contents(size - HEAD), "u1")
    sums = [zlib.crc32(plain[k : k + size - HEAD]) for k in range(KINDS)]
    frame = np.zeros(size, "u1")
    producer = Producer(
        stream, shape=(size,), dtype="u1", buffer_count=slots, attrs={"rate_hz": hz}
    )
    watchers = [Watcher(other, size) for other in others]

    def tell(**more: Any) -> None:
        watched = {w.stream: dict(w.found) for w in watchers}
        is_here = all(w.found["is_here"] for w in watchers)
        told.set(watched=watched, is_here=is_here, **more)

    tell(now=True, sent=0, ready=True)
    while not go.wait(0.1):
        tell()
    worst, k, began = 0.0, 0, time.monotonic()
    while not over.is_set():
        pause = began + k / hz - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        frame[:HEAD] = np.frombuffer(ints(k, sums[k % KINDS], time.time_ns()), "u1")
        frame[HEAD:] = plain[k % KINDS : k % KINDS + size - HEAD]
        before = time.monotonic()
        producer.send(frame, device_time=k, device_sequence=k, timeout=120)
        worst = max(worst, time.monotonic() - before)
        k += 1
        least = min(w.found["received"] for w in watchers)
        tell(sent=k, worst_s=worst, least=least)
    producer.end()
    tell(now=True, sent=k, worst_s=worst, done=True)
    while any(w.thread.is_alive() for w in watchers):
        time.sleep(0.05)
        tell()
    tell(now=True, ended=True)
    signal.sigwait({signal.SIGTERM})
    producer.close()


# ---- dask, over TLS


def security(keys: str) -> Any:
    """Return dask's certificates from a folder; see `make_keys`."""
    from distributed.security import Security

    names = {
        f"tls_{role}_{what}": f"{keys}/{what}.pem"
        for role in ("scheduler", "worker", "client")
        for what in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=f"{keys}/cert.pem", **names)


def make_keys(keys: Path) -> None:
    """Write a certificate for all parts of dask, and its key."""
    from distributed.security import Security

    made = Security.temporary()
    keys.mkdir(mode=0o700)
    (keys / "cert.pem").write_text(made.tls_client_cert)
    (keys / "key.pem").write_text(made.tls_client_key)


def scheduler(status: str, *, host: str, port: int, keys: str) -> None:
    """Run a scheduler until it is killed."""
    from distributed import Scheduler

    async def run() -> None:
        async with Scheduler(
            host=f"tls://{host}", port=port, security=security(keys), dashboard=False
        ) as made:
            Status(status).set(now=True, ready=True)
            await made.finished()

    asyncio.run(run())


def worker(
    status: str, *, scheduler: str, host: str, keys: str, folder: str, tag: str
) -> None:
    """Run a worker until it is killed."""
    from distributed import Worker

    async def run() -> None:
        async with Worker(
            scheduler, host=f"tls://{host}", security=security(keys), nthreads=1,
            local_directory=folder, resources={tag: 1}, dashboard=False,
        ) as made:  # fmt: skip
            Status(status).set(now=True, ready=True)
            await made.finished()

    asyncio.run(run())


def client(
    status: str, *, scheduler: str, keys: str, context: str, count: int,
    lease_s: float, silence_s: float,
) -> None:  # fmt: skip
    """Run a pipe on the workers of dask; its status is as of `workers_link.pipe`."""
    import workers_pipe
    from distributed import Client

    from ataraxis.cluster import Cluster, dask_start
    from ataraxis.pipeline import Pipe, Processor

    if silence_s:
        dask_start.SILENCE_S, dask_start._MARGIN_S = silence_s, 0.0
    told, found = Status(status), list[int]()
    pipe = Pipe("lab", context=context)
    func, same = workers_pipe.takes_a_while, workers_pipe.same
    pipe.add(Processor("far", func=func, workers=2, tag="fast", ordered=True)).add(
        Processor("own", func=same, host="dask-1", ordered=True)
    )
    with Client(scheduler, security=security(keys), timeout=60) as line:
        line.wait_for_workers(2, timeout=90)
        with Cluster.from_dask(line, context=context, lease_s=lease_s) as cluster:
            agents = sorted(cluster._own_lab.pids.values())
            hosts = {name: h.address for name, h in cluster.lab.hosts.items()}
            told.set(now=True, agents=agents, hosts=hosts)
            run = pipe.run(range(count), found, engine=cluster)
            run.wait_until_ready(60)
            told.set(now=True, ready=True)
            tell_run(told, run, found)
            run.wait(60)
            events = [f"{e.what} {e.processor} {e.text}" for e in run.history]
            told.set(now=True, run_ended=True, events=events)
        told.set(
            now=True, ended=True, received=len(found),
            missing=len(set(range(count)) - set(found)),
            repeated=len(found) - len(set(found)),
            disordered=sum(b < a for a, b in pairwise(found)),
        )  # fmt: skip


def home(status: str, *, hosts: str, context: str) -> None:
    """Keep the agent of dask-0, and run a pipe on it, as `Cluster.from_dask` lets."""
    import workers_pipe

    from ataraxis.cluster import Agent, Cluster
    from ataraxis.pipeline import Pipe, Processor

    with Agent(hosts, context=context) as agent:
        agent.contact("dask-0").keep()
        Status(status).set(now=True, ready=True)
        pipe = Pipe("lab", context=context)
        func = workers_pipe.takes_a_while
        pipe.add(Processor("far", func=func, workers=2, host="dask-0"))
        with Cluster(hosts, context=context, lease_s=1.0) as cluster:
            pipe.run(range(10**6), [], engine=cluster).wait()


PROGRAMS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (station, scheduler, worker, client, home)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))
