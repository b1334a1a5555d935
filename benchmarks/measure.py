"""Repeat, interleave and summarise: used by every benchmark.

Peers take turns within one run, so that ratios compare like with like on a machine
whose speed drifts. A result is the median of at least 5, with min and max.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    case: str
    peer: str
    unit: str
    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Aim:
    """The target of a case, compared with a peer or with the best of several."""

    case: str
    ours: str
    peer: str | tuple[str, ...]
    aim: float
    floor: float
    smaller_is_better: bool = True

    def rival(self, results: Iterable[Result]) -> Result | None:
        """Return the best measured peer of the case; None if there is none."""
        names = (self.peer,) if isinstance(self.peer, str) else self.peer
        measured = [r for r in results if r.case == self.case and r.peer in names]
        best = min if self.smaller_is_better else max
        return best(measured, key=lambda r: r.median) if measured else None

    def judge(self, ours: Result, peer: Result) -> tuple[float, str]:
        ratio = ours.median / peer.median
        met = (lambda bound: ratio <= bound) if self.smaller_is_better else (
            lambda bound: ratio >= bound
        )  # fmt: skip
        return ratio, "aim" if met(self.aim) else "floor" if met(
            self.floor
        ) else "MISSED"


@dataclass(frozen=True)
class Verdict:
    """A case compared with its best peer."""

    case: str
    ours: str
    peer: str
    ratio: float
    aim: float
    floor: float
    smaller_is_better: bool
    verdict: str


def verdicts(results: list[Result], aims: list[Aim]) -> list[Verdict]:
    """Judge each aim; aims whose case or peers were not measured are left out."""
    found = {(r.case, r.peer): r for r in results}
    judged = []
    for aim in aims:
        ours, rival = found.get((aim.case, aim.ours)), aim.rival(results)
        if ours is not None and rival is not None:
            ratio, verdict = aim.judge(ours, rival)
            bounds = aim.aim, aim.floor, aim.smaller_is_better
            judged.append(
                Verdict(aim.case, aim.ours, rival.peer, ratio, *bounds, verdict)
            )
    return judged


def per_call_ns(statement: Callable[[int], None], calls: int) -> float:
    """Return the time of one call; `statement` runs its body `calls` times."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter_ns()
        statement(calls)
        return (time.perf_counter_ns() - begin) / calls
    finally:
        if enabled:
            gc.enable()


def interleaved(
    case: str,
    unit: str,
    peers: dict[str, Callable[[], float]],
    repetitions: int = 9,
) -> list[Result]:
    """Run the peers in turn, `repetitions` times, after one warm-up each."""
    samples: dict[str, list[float]] = {peer: [] for peer in peers}
    for run in peers.values():
        run()
    for _ in range(repetitions):
        for peer, run in peers.items():
            samples[peer].append(run())
    return [
        Result(case, peer, unit, statistics.median(s), min(s), max(s), len(s))
        for peer, s in samples.items()
    ]


def report(
    results: list[Result],
    aims: list[Aim],
    path: str | None,
    notes: Sequence[str] = (),
) -> int:
    """Print the tables; return how many floors were missed, as the exit code.

    An aim counts as missed if its case was measured, but not for ataraxis.
    """
    print(f"\n{machine()}, median (min..max)\n")
    print("| case | peer | median | min..max | unit | n |")
    print("|---|---|---|---|---|---|")
    for r in results:
        spread = f"{r.low:,.4g}..{r.high:,.4g}"
        print(
            f"| {r.case} | {r.peer} | {r.median:,.4g} | {spread} | {r.unit} | {r.n} |"
        )
    print("\n| case | ours : peer | ratio | target | floor | verdict |")
    print("|---|---|---|---|---|---|")
    judged = verdicts(results, aims)
    for v in judged:
        bounds = f"{v.aim:.3g}x | {v.floor:.3g}x"
        print(
            f"| {v.case} | {v.ours} : {v.peer} | {v.ratio:.3g}x | {bounds} "
            f"| {'met' if v.verdict == 'aim' else v.verdict} |"
        )
    missed = sum(v.verdict == "MISSED" for v in judged)
    open_aims: list[dict[str, str]] = []
    for aim in aims:
        peers = (aim.peer,) if isinstance(aim.peer, str) else aim.peer
        if any(
            (v.case, v.ours) == (aim.case, aim.ours) and v.peer in peers for v in judged
        ):
            continue
        names = aim.peer if isinstance(aim.peer, str) else "best peer"
        fields = {"case": aim.case, "ours": aim.ours, "peer": names}
        was_tried = any(r.case == aim.case for r in results)
        if was_tried and all((r.case, r.peer) != (aim.case, aim.ours) for r in results):
            missed += 1
            open_aims.append({**fields, "verdict": "MISSED"})
            print(f"| {aim.case} | {aim.ours} : {names} | void | | | MISSED |")
        else:
            open_aims.append({**fields, "verdict": "not measured"})
            print(f"| {aim.case} | {names} | not measured | | | |")
    for note in notes:
        print(f"\n{note}", end="")
    print()
    if path:
        content = {
            "machine": machine(),
            "results": [asdict(r) for r in results],
            "verdicts": [asdict(v) for v in judged],
            "open": open_aims,
            "notes": list(notes),
        }
        Path(path).write_text(json.dumps(content, indent=1))
    return missed


def machine() -> str:
    """Describe the machine, and its load."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {sys.version.split()[0]}, load average {load:.1f}"
    )
