"""The main module of the program that the frozen tests build; also runs unfrozen.

``program WHAT DIRECTORY``: does something with processes, kills some of them, and
prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from ataraxis import DataLogger, LogArchive, Pipe, Processor, Producer, Session
from ataraxis.pipeline import Restart, Worker


def double(value: int) -> int:
    return 2 * value


class Halve:
    def process(self, value: int) -> float:
        return value / 2


async def forward() -> None:
    me = Worker()
    await me.join()
    while True:
        await me.emit_sync(await me.get_sync(timeout=None))


def children() -> dict[int, str]:
    """Our processes, and what each was started as."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            found[int(pid)] = command.replace("\0", " ")
    return found


def kill(what: str) -> int:
    """Kill our processes of a kind; how many."""
    pids = [pid for pid, command in children().items() if what in command]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def wait_until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def pipe(directory: Path, engine: str) -> dict[str, object]:
    restart = Restart(limit=None, backoff_s=0.01)
    made = Pipe("frozen", dead_letters=directory / "letters")
    made.add(Processor("double", func=double, restart=restart)).add(
        Processor("halve", func=Halve, restart=restart)
    )
    found: list[float] = []
    with made.run(sink=found, engine=engine) as run:
        run.wait_until_ready(120)
        for k in range(300):
            if k in (100, 200):
                pid = run.workers["double", 0]
                os.kill(pid, signal.SIGKILL)
                wait_until(
                    lambda pid=pid: run.workers["double", 0] not in (None, pid),
                    "another worker",
                )
            run.emit(k, timeout=None)
        called = run.call(21, timeout=120)
        run.stop(120)
    restarts = int(run.statistics().restarts.sum())
    dialect = Pipe("dialect")
    dialect.add(Processor("forward", func=forward))
    own = list(dialect.map(range(5), engine=engine))
    return {"found": found, "call": called, "restarts": restarts, "dialect": own}


def log(directory: Path) -> dict[str, object]:
    logger = DataLogger(directory, "rig", layout="journal")
    logger.start()
    for k in range(200):
        logger.log(1, np.arange(3) + k)
        if k == 100:
            wait_until(lambda: logger.statistics().written > 50, "a writer")
            killed = kill("ataraxis.log.writer")
    logger.stop(timeout=120)
    with LogArchive(logger.output_directory) as archive:
        values = [int(entry.value[0]) for entry in archive]
    return {"values": values, "killed": killed}


def session(directory: Path) -> dict[str, object]:
    producer = Producer(
        "camera", shape=(4, 6), dtype="u1", buffer_count=16, attrs={"rate_hz": 100}
    )
    with Session("frozen", directory=directory) as made:
        made.record("camera", process=True)
        producer.wait_for_subscribers(1, 120)
        for k in range(200):
            producer.send(np.full((4, 6), k, "u1"), timeout=120)
            if k == 100:
                killed = kill("ataraxis.session.recorder")
        made.event("done", k=1)
    producer.close()
    verdict = made.verdict["camera"]
    return {
        "expected": verdict.expected,
        "received": verdict.received,
        "missing": verdict.missing,
        "killed": killed,
    }


def main() -> None:
    what, where = sys.argv[1], Path(sys.argv[2])
    kinds = {
        "pipe": lambda: pipe(where, "spawn"),
        "forkserver": lambda: pipe(where, "forkserver"),
        "log": lambda: log(where),
        "session": lambda: session(where),
    }
    found = kinds[what]()
    # The fork server's own, and Python's, may still be about to end.
    found["starts"] = len(Path(where, "starts").read_text().splitlines())
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    with Path(sys.argv[2], "starts").open("a") as file:
        file.write("started\n")
    main()
