"""Producers with a page open and without one, and what page and widget cost.

64 channels x 30 kHz and 640 x 480 x 60 pictures/s are sent in turns, with a page in
Chromium (software drawing) that shows both, and with none. Then, each by itself: 1,024
channels; the start; a server without a page; a page that is stuck; a viewer that is
stopped and killed; the widget in JupyterLab (`--lab`: this alone). Needs chromium,
playwright; the widget also jupyterlab and anywidget. 59 frames/s are taken for 60, and
28 updates/s of the widget for 30.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import view_lab
import view_rows
from measure import Aim, Result, report
from view_rows import Row, megabytes, served, used_s

from ataraxis import Producer

WITH, WITHOUT = "with a page", "without a page"
BLOCKS_HZ, PICTURES_HZ = 100.0, 60.0
CHANNELS = {"probe": 64, "wide": 1024}


# ---- producers, each a process


def send(what: str, seconds: float) -> None:
    """Send in real time; print what happened."""
    rng = np.random.default_rng(0)
    if what in CHANNELS:
        hz, shape = BLOCKS_HZ, (300, CHANNELS[what])
        stream = Producer(
            what, shape=shape, dtype="i2", dims=("time", "channel"),
            attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=64,
        )  # fmt: skip
        values = rng.normal(0, 30, (40, *shape)).astype("i2")
    else:
        hz = PICTURES_HZ
        stream = Producer(what, shape=(480, 640), dtype="u1", dims=("y", "x"))
        values = rng.integers(60, 90, (8, 480, 640)).astype("u1")
    print("ready", flush=True)
    time.sleep(1.0)
    took, late = [], []
    began = time.monotonic()
    for k in range(int(seconds * hz)):
        due = began + k / hz
        time.sleep(max(due - time.monotonic(), 0))
        late.append(time.monotonic() - due)
        at = time.perf_counter_ns()
        stream.send(values[k % len(values)])
        took.append(time.perf_counter_ns() - at)
    passed = time.monotonic() - began
    found = stream.statistics()
    print(
        json.dumps(
            {
                "rate": 100 * len(took) / hz / max(passed, seconds),
                "send": statistics.median(took) / 1e3,
                "late": float(np.percentile(late, 99)) * 1e3,
                "harm": found.refused + found.skipped + found.stalled_s,
                "lost": found.refused + found.skipped,
            }
        ),
        flush=True,
    )
    stream.unlink()


def turn(
    seconds: float,
    look: Callable[[], object],
    streams: tuple[str, ...] = ("probe", "camera"),
) -> dict[str, dict[str, float]]:
    """Let the producers send; `look` is called once they have begun."""
    running = {
        what: subprocess.Popen(
            [sys.executable, __file__, "--send", what, "--seconds", str(seconds)],
            stdout=subprocess.PIPE, text=True,
        )
        for what in streams
    }  # fmt: skip
    for process in running.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    look()
    found = {}
    for what, process in running.items():
        found[what] = json.loads(process.communicate()[0].splitlines()[-1])
    return found


# ---- the page


class Bench:
    """Turns with a page and without one."""

    def __init__(self, browser: Any, url: str, pid: int, seconds: float) -> None:
        self.browser, self.url, self.pid = browser, url, pid
        self.seconds = seconds
        self.found: dict[tuple[str, str], list[float]] = {}
        self.strange: list[str] = []

    def add(self, case: str, peer: str, value: float) -> None:
        self.found.setdefault((case, peer), []).append(value)

    def turn(self, peer: str) -> None:
        page = self.browser.new_page(viewport={"width": 1600, "height": 1000})
        own = self.url.split("/")[2]
        page.on("request", lambda r: self.strange.extend([r.url] * (own not in r.url)))
        page.on("console", lambda message: self.strange.append(message.text))
        page.on("pageerror", lambda error: self.strange.append(str(error)))

        def look() -> None:
            if peer == WITH:
                page.goto(self.url)
            cpu, began = used_s(self.pid), time.monotonic()
            page.wait_for_timeout(2000)
            first = page.evaluate("globalThis.viewCounts ? {...viewCounts} : null")
            at = time.monotonic()
            page.wait_for_timeout(max(self.seconds - 3, 1) * 1000)
            last = page.evaluate("globalThis.viewCounts ? {...viewCounts} : null")
            passed = time.monotonic() - at
            share = 100 * (used_s(self.pid) - cpu) / (time.monotonic() - began)
            self.add("server", "no page, % of a core" if last is None else
                     "a page, % of a core", share)  # fmt: skip
            if last is None:
                return
            for case, key in (
                ("frames/s", "frames"), ("updates/s", "bundles"),
                ("pictures/s", "pictures"), ("columns/s", "columns"),
                ("bytes/s", "bytes"),
            ):  # fmt: skip
                self.add(case, "page", (last[key] - first[key]) / passed)
            updates = max(last["bundles"] - first["bundles"], 1)
            traces = (last["tracesMs"] - first["tracesMs"]) / updates
            self.add("traces, ms an update", "page", traces)
            self.add("memory, MB", "server", megabytes(self.pid))
            self.add("columns missing", "page", last["gaps"])

        try:
            for what, values in turn(self.seconds, look).items():
                for key, name in _NAMES.items():
                    self.add(f"{what}: {name}", peer, values[key])
        finally:
            page.close()

    def wide(self) -> list[Row]:
        """A page of 1,024 channels."""
        page = self.browser.new_page(viewport={"width": 1600, "height": 1000})
        found: list[dict[str, float]] = []

        def look() -> None:
            page.goto(self.url)
            page.wait_for_timeout(2500)
            began = time.monotonic()
            found.append(page.evaluate("({...viewCounts})"))
            page.wait_for_timeout(max(self.seconds - 4, 1) * 1000)
            found.append(page.evaluate("({...viewCounts})"))
            found[0]["seconds"] = time.monotonic() - began

        try:
            turn(self.seconds, look, ("wide",))
        finally:
            page.close()
        first, last = found
        frames = (last["frames"] - first["frames"]) / first["seconds"]
        return [
            Row("1,024 channels: frames/s", "", frames, 59, 15, False),
            Row("1,024 channels: columns missing", "", last["gaps"], 0, 0),
        ]

    def rows(self) -> list[Row]:
        """Return the figures of the turns."""

        def middle(case: str, peer: str = "page") -> float:
            return statistics.median(self.found[case, peer])

        harm = sum(
            sum(values) for (case, peer), values in self.found.items()
            if peer == WITH and case.endswith(_NAMES["harm"])
        )  # fmt: skip
        due = [
            statistics.median(self.found[f"{what}: {_NAMES['rate']}", WITH])
            for what in ("probe", "camera")
        ]
        cpu = middle("server", "a page, % of a core")
        missing = sum(self.found["columns missing", "page"])
        return [
            Row("a page open: rate", "% of due", min(due), 100, 99.9, False),
            Row("a page open: refused + skipped + stalled s", "", harm, 0, 0),
            Row("page: frames/s", "", middle("frames/s"), 59, 25, False),
            Row("page: columns missing", "", missing, 0, 0),
            Row("page: traces", "ms an update", middle("traces, ms an update"), 0.3, 1),
            Row("server with a page", "% of a core", cpu, 12, 35),
            Row("server: memory", "MB", middle("memory, MB", "server"), 100, 300),
            Row("page: bytes", "MB/s", middle("bytes/s") / 1e6, 1.7, 4),
            Row("requests to elsewhere, console messages", "", len(self.strange), 0, 0),
        ]

    def results(self) -> list[Result]:
        return [
            Result(case, peer, _UNITS.get(case.rpartition(": ")[2], ""),
                   statistics.median(v), min(v), max(v), len(v))
            for (case, peer), v in self.found.items()
        ]  # fmt: skip


_NAMES = {
    "rate": "rate, % of due", "send": "send, median", "late": "late, 99 %",
    "harm": "refused + skipped + stalled s",
}  # fmt: skip
_UNITS = {"send, median": "us", "late, 99 %": "ms", "rate, % of due": "%"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="short turns")
    parser.add_argument("--send", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=12.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=5, help="of each kind")
    parser.add_argument("--lab", action="store_true", help="the widget alone")
    options = parser.parse_args()
    if options.send:
        send(options.send, options.seconds)
        return 0
    from playwright.sync_api import sync_playwright

    seconds, turns = (5.0, 2) if options.quick else (options.seconds, options.turns)
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = tempfile.mkdtemp(dir=shm)
    folder = tempfile.mkdtemp()
    os.environ["ATARAXIS_CONTEXT"] = place
    rows: list[Row] = []
    notes = [f"load {os.getloadavg()[0]:.1f} when it began"]
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--disable-gpu"],
            )
            if not options.lab:
                with served() as (url, pid):
                    bench = Bench(browser, url, pid, seconds)
                    for _ in range(turns):
                        for peer in (WITH, WITHOUT):
                            bench.turn(peer)
                    rows += bench.rows() + bench.wide()
                rows += view_rows.begin() + view_rows.idle(seconds)
                rows += view_rows.stuck(8.0, turn) + view_rows.stopped(turn, folder)
            if lacks := view_lab.missing():
                notes.append(f"no widget: {lacks}")
            else:
                rows += view_lab.measure(browser, seconds, turn)
            browser.close()
    finally:
        shutil.rmtree(place)
        shutil.rmtree(folder)
    print("; ".join(notes))
    missed = view_rows.show(rows)
    if options.lab:
        return missed
    aims = [
        Aim(f"{what}: {_NAMES['send']}", WITH, WITHOUT, 1.0, 1.1)
        for what in ("probe", "camera")
    ] + [
        Aim(f"{what}: {_NAMES['rate']}", WITH, WITHOUT, 1.0, 0.999, False)
        for what in ("probe", "camera")
    ]
    return report(bench.results(), aims, options.json, notes) + missed


if __name__ == "__main__":
    sys.exit(main())
