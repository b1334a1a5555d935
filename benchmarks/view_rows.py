"""Rows of the view's figures that need no browser: who looks is not noticed.

Used by bench_view.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ataraxis import Producer, Session
from ataraxis.stream.inspector import Inspector
from ataraxis.viewer import bundle


@dataclass(frozen=True)
class Row:
    """One figure, with its aim and its floor."""

    what: str
    unit: str
    value: float
    aim: float
    floor: float
    smaller_is_better: bool = True

    @property
    def verdict(self) -> str:
        for bound, word in ((self.aim, "met"), (self.floor, "floor")):
            is_met = self.value <= bound if self.smaller_is_better else (
                self.value >= bound
            )  # fmt: skip
            if is_met:
                return word
        return "MISSED"


def show(rows: list[Row]) -> int:
    """Print a table; return how many floors were missed."""
    print("\n| figure | measured | unit | aim | floor | verdict |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        sign = "" if row.aim == row.floor else "≤ " if row.smaller_is_better else "≥ "
        print(
            f"| {row.what} | {row.value:,.4g} | {row.unit} | {sign}{row.aim:g} | "
            f"{sign}{row.floor:g} | {row.verdict} |"
        )
    return sum(row.verdict == "MISSED" for row in rows)


# ---- the server, and a page that is a program


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Run ``ataraxis view``; its link and process id."""
    code = "from ataraxis.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", "--no-open", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process.pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        process.wait()


@contextmanager
def page_of(url: str) -> Iterator[Any]:
    """Open the socket of a page."""
    from websockets.sync.client import connect

    parts = urlsplit(url)
    token = parse_qs(parts.query)["token"][0]
    with connect(
        f"ws://{parts.netloc}/socket?token={token}", origin=f"http://{parts.netloc}",
        compression=None, max_size=None,
    ) as line:  # fmt: skip
        yield line


def ask(line: Any, **message: Any) -> None:
    line.send(json.dumps(message))


def take(line: Any) -> list[dict[str, Any]]:
    """Take a bundle, and acknowledge it."""
    head, parts = bundle.decode(line.recv(timeout=20))
    ask(line, op="ack", tick=head["tick"])
    return parts


def used_s(pid: int) -> float:
    """Return the processor time of a process, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """Return the memory of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


# ---- rows


def begin() -> list[Row]:
    """From the start of the command to the first trace; until a new stream is seen."""
    with Producer("first", shape=(30, 64), dtype="i2", dims=("time", "channel"),
                  attrs={"sample_rate_hz": 30_000}) as first:  # fmt: skip
        block = np.zeros((30, 64), "i2")
        began = time.monotonic()
        with served() as (url, _), page_of(url) as line:
            ask(line, op="show", panel=1, kind="traces", stream="first", seconds=0.1,
                columns=100)  # fmt: skip
            while True:
                first.send(block)
                if any(part["kind"] == bundle.COLUMNS for part in take(line)):
                    break
            traced = time.monotonic() - began
            with Producer("second", shape=(3,)) as second:
                began = time.monotonic()
                is_seen = False
                while not is_seen:
                    first.send(block)
                    states = [
                        p["state"] for p in take(line) if p["kind"] == bundle.STATE
                    ]
                    is_seen = any(
                        s["name"] == "second"
                        for state in states for s in state.get("streams", ())
                    )  # fmt: skip
                seen = time.monotonic() - began
                second.unlink()
        first.unlink()
    return [
        Row("start of ataraxis view to the first trace", "s", traced, 1, 3),
        Row("a new stream is seen after", "s", seen, 0.7, 2),
    ]


def idle(seconds: float) -> list[Row]:
    """A server without a page, beside a stream."""
    with Producer("still", shape=(3,)) as still, served() as (_, pid):
        time.sleep(0.5)
        cpu, began = used_s(pid), time.monotonic()
        time.sleep(seconds)
        share = 100 * (used_s(pid) - cpu) / (time.monotonic() - began)
        readers = len(Inspector("still").statistics().readers)
        still.unlink()
    return [
        Row("no page open: server", "% of a core", share, 1, 3),
        Row("no page open: readers on streams", "", readers, 0, 0),
    ]


def stuck(seconds: float, turn: Callable[..., Any]) -> list[Row]:
    """A page that acknowledges nothing."""
    grown = []

    def look() -> None:
        with served() as (url, pid), page_of(url) as line:
            for panel, (stream, kind) in enumerate(
                (("probe", "traces"), ("camera", "picture")), 1
            ):
                ask(line, op="show", panel=panel, kind=kind, stream=stream, seconds=2,
                    columns=1000)  # fmt: skip
            for _ in range(20):
                take(line)
            time.sleep(1)
            before = megabytes(pid)
            time.sleep(seconds)
            grown.append(megabytes(pid) - before)

    harm = sum(values["harm"] for values in turn(seconds + 8, look).values())
    return [
        Row(f"page stuck {seconds:g} s: server memory", "MB more", grown[0], 1, 20),
        Row("page stuck: refused + skipped + stalled s", "", harm, 0, 0),
    ]


def stopped(turn: Callable[..., Any], folder: str) -> list[Row]:
    """A viewer that is stopped for 6 s and then killed, while a session records."""
    verdicts: list[bool] = []

    def look() -> None:
        with (
            Session("looked_at", directory=folder) as session,
            served() as (url, pid),
            page_of(url) as line,
        ):
            session.record("probe", "camera", timeout=10)
            ask(line, op="show", panel=1, kind="traces", stream="probe", seconds=2,
                columns=1000)  # fmt: skip
            for k in range(60):
                session.event("seen", k=k)
                take(line)
            os.kill(pid, signal.SIGSTOP)
            for k in range(60):
                session.event("unseen", k=k)
                time.sleep(0.1)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            for k in range(10):
                session.event("after", k=k)
                time.sleep(0.1)
        assert session.verdict is not None
        verdicts.append(session.verdict.is_trusted)

    found = turn(14, look)
    rate = min(values["rate"] for values in found.values())
    # Not the stalls: here a recorder may be slow.
    lost = sum(values["lost"] for values in found.values())
    return [
        Row("viewer stopped, then killed: rate", "% of due", rate, 100, 99.9, False),
        Row("... refused + skipped", "", lost, 0, 0),
        Row("... session not trusted", "", not verdicts[0], 0, 0),
    ]
