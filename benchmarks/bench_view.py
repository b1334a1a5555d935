"""Producers with a page open and without one, and what the page costs.

64 channels x 30 kHz and 640 x 480 x 60 pictures/s are sent in turns, with a page in
Chromium (software drawing) that shows both, and with none. Needs chromium, playwright.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measure import Aim, Result, report

from ataraxis import Producer

WITH, WITHOUT = "with a page", "without a page"
BLOCKS_HZ, PICTURES_HZ = 100.0, 60.0


# ---- producers, each a process


def send(what: str, seconds: float) -> None:
    """Send in real time; print what happened."""
    rng = np.random.default_rng(0)
    if what == "probe":
        hz = BLOCKS_HZ
        stream = Producer(
            what, shape=(300, 64), dtype="i2", dims=("time", "channel"),
            attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=64,
        )  # fmt: skip
        values = rng.normal(0, 30, (40, 300, 64)).astype("i2")
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
            }
        ),
        flush=True,
    )
    stream.unlink()


def turn(seconds: float, look: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Let both producers send; `look` is called once they have begun."""
    running = {
        what: subprocess.Popen(
            [sys.executable, __file__, "--send", what, "--seconds", str(seconds)],
            stdout=subprocess.PIPE, text=True,
        )
        for what in ("probe", "camera")
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
        process.terminate()
        process.wait()


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


class Bench:
    """Turns with a page and without one."""

    def __init__(self, browser: Any, url: str, pid: int, seconds: float) -> None:
        self.browser, self.url, self.pid = browser, url, pid
        self.seconds = seconds
        self.found: dict[tuple[str, str], list[float]] = {}

    def add(self, case: str, peer: str, value: float) -> None:
        self.found.setdefault((case, peer), []).append(value)

    def turn(self, peer: str) -> None:
        page = self.browser.new_page(viewport={"width": 1600, "height": 1000})

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
            ):  # fmt: skip
                self.add(case, "page", (last[key] - first[key]) / passed)
            updates = max(last["bundles"] - first["bundles"], 1)
            traces = (last["tracesMs"] - first["tracesMs"]) / updates
            self.add("traces, ms an update", "page", traces)
            self.add("memory, MB", "server", megabytes(self.pid))
            self.add("columns missing", "page", last["gaps"])

        try:
            for what, values in turn(self.seconds, look).items():
                for key, value in values.items():
                    self.add(f"{what}: {_NAMES[key]}", peer, value)
        finally:
            page.close()

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
    options = parser.parse_args()
    if options.send:
        send(options.send, options.seconds)
        return 0
    from playwright.sync_api import sync_playwright

    seconds, turns = (5.0, 2) if options.quick else (options.seconds, options.turns)
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = tempfile.mkdtemp(dir=shm)
    os.environ["ATARAXIS_CONTEXT"] = place
    try:
        with served() as (url, pid), sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--disable-gpu"],
            )
            bench = Bench(browser, url, pid, seconds)
            for _ in range(turns):
                for peer in (WITH, WITHOUT):
                    bench.turn(peer)
            browser.close()
    finally:
        shutil.rmtree(place)
    aims = [
        Aim(f"{what}: {_NAMES['send']}", WITH, WITHOUT, 1.0, 1.1)
        for what in ("probe", "camera")
    ] + [
        Aim(f"{what}: {_NAMES['rate']}", WITH, WITHOUT, 1.0, 0.999, False)
        for what in ("probe", "camera")
    ]
    harm = {
        peer: sum(sum(v) for (case, p), v in bench.found.items()
                  if p == peer and case.endswith(_NAMES["harm"]))
        for peer in (WITH, WITHOUT)
    }  # fmt: skip
    notes = [f"refused + skipped + stalled s, all turns: {harm}"]
    return report(bench.results(), aims, options.json, notes) + (harm[WITH] > 0)


if __name__ == "__main__":
    sys.exit(main())
