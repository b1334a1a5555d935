"""Streams compared with every installed peer, and with a C ring as the limit.

    python benchmarks/bench_streams.py [--quick] [--only CASE] [--pinned]
                                       [--json OUT] [--plot OUT.png]

Run it on a quiet machine. `pip install ".[bench]"` installs the peers; the C ring
needs `cc`. docs/explanation/speed.md describes what is measured, and how.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from measure import Aim, Result, Verdict, report, verdicts
from stream_peer import OURS, Ataraxis, AtaraxisBlocks, AtaraxisLoan, Peer
from stream_peers import (
    ASLEEP,
    FAN_OUT,
    ONE_TO_ONE,
    PEERS,
    Iceoryx,
    IceoryxEvent,
    MomentumX,
    Pipe,
)
from stream_race import Plan, Void, sample

SIZES = {"8 B": 8, "1 KB": 1024, "64 KB": 65536, "1 MB": 1 << 20, "6.2 MB": 6_220_800}
SLOTS = {"8 B": 1024, "1 KB": 256, "64 KB": 64, "1 MB": 16, "6.2 MB": 8}
RING = "C ring"


@dataclass(frozen=True)
class Case:
    """One plan, run by several peers in turn; each key is a table row."""

    name: str
    plan: Plan
    peers: tuple[type[Peer], ...]
    keys: tuple[tuple[str, str, str], ...]  # sample's key, its case in tables, unit
    ring: str | None = None  # the C ring's mode


def cases(seconds: float) -> list[Case]:
    result = []
    for label, size in SIZES.items():
        plan = Plan(size, SLOTS[label], seconds)
        # A large message is written in place, a small one is copied.
        ours = (Ataraxis, AtaraxisLoan) if size >= 1 << 20 else (Ataraxis,)
        key = (("rate", f"throughput {label}", "1/s"),)
        peers = (*ours, *ONE_TO_ONE)
        result.append(Case(f"throughput {label}", plan, peers, key, "touch"))
        if size <= 1024:
            key = (("rate", f"blocks {label}", "1/s"),)
            plan = replace(plan, kind="blocks")
            result.append(Case(f"blocks {label}", plan, (AtaraxisBlocks,), key, "copy"))
    plan = Plan(8, 1024, max(seconds, 0.2) * 1.5)
    spinning = (MomentumX, Iceoryx)
    for kind, peers in (("spinning", spinning), ("sleeping", tuple(ASLEEP))):
        name = f"latency 8 B {kind}"
        keys = ((p, f"{name} {p}", "us") for p in ("p50", "p99"))
        how = replace(plan, kind="spinning" if kind == "spinning" else "paced")
        ring = "paced" if kind == "spinning" else None
        result.append(Case(name, how, (Ataraxis, *peers), tuple(keys), ring))
    first = Plan(SIZES["6.2 MB"], 8, seconds, kind="first use", rate=200)
    keys = (
        ("first_us", "first use 6.2 MB p99", "us"),
        ("later_us", "later use 6.2 MB p99", "us"),
        ("faults", "first use 6.2 MB page faults", "a send"),
    )
    peers = (Ataraxis, MomentumX, IceoryxEvent)
    result.append(Case("first use 6.2 MB", first, peers, keys))
    wide = Plan(8, 1024, seconds, receivers=3)
    key = (("rate", "1 to 3 8 B", "1/s"),)
    result.append(Case("1 to 3 8 B", wide, (Ataraxis, *FAN_OUT), key))
    for label, kind in (("flat out", "flat out"), ("1000/s", "paced")):
        for n in (1, 3):
            plan = Plan(8, 1024, max(seconds, 0.2), n, kind)
            name = f"producer CPU {label}, {n} consumer{'s' * (n > 1)}"
            key = (("cpu_us", name, "us a send"),)
            result.append(Case(name, plan, (Ataraxis,), key))
    return result


def aims(suffix: str) -> list[Aim]:
    peers = tuple(peer.name for peer in PEERS)
    ours, loan, blocks = Ataraxis.name, AtaraxisLoan.name, AtaraxisBlocks.name
    iceoryx = (Iceoryx.name, IceoryxEvent.name)
    spinning, sleeping = "latency 8 B spinning p50", "latency 8 B sleeping p50"
    more = False
    listed = [
        Aim("throughput 8 B", ours, peers, 8, 3, more),
        Aim("throughput 1 KB", ours, peers, 8, 3, more),
        Aim("blocks 8 B", blocks, RING, 1 / 2, 1 / 4, more),
        Aim("blocks 1 KB", blocks, RING, 1 / 2, 1 / 4, more),
        Aim("throughput 64 KB", ours, peers, 2.5, 1.5, more),
        Aim("throughput 1 MB", loan, iceoryx, 1.0, 0.6, more),
        Aim("throughput 6.2 MB", loan, iceoryx, 1.0, 0.6, more),
        Aim(spinning, ours, Iceoryx.name, 0.3, 0.6),
        Aim(sleeping, ours, Pipe.name, 1.0, 1.3),
        Aim("1 to 3 8 B", ours, peers, 2, 1.2, more),
        # Cases of ataraxis compared with each other: see `compare`.
        Aim("first use : later use, 6.2 MB p99", "first", "later", 1.5, 3.0),
        Aim("producer CPU flat out, 3 : 1", "3 consumers", "1 consumer", 1.5, 1.5),
        Aim("producer CPU 1000/s, 3 : 1", "3 consumers", "1 consumer", 1.5, 1.5),
    ]
    return [replace(aim, case=aim.case + suffix) for aim in listed]


def compare(results: list[Result], suffix: str) -> list[Result]:
    """Compare cases of ataraxis with each other, as if they were peers."""
    ours = {r.case: r for r in results if r.peer == Ataraxis.name}
    case = "first use : later use, 6.2 MB p99"
    pairs = [(case, f"{who} use 6.2 MB p99", who) for who in ("first", "later")]
    for label in ("flat out", "1000/s"):
        for who in ("3 consumers", "1 consumer"):
            case = f"producer CPU {label}, 3 : 1"
            pairs.append((case, f"producer CPU {label}, {who}", who))
    return [
        replace(ours[case + suffix], case=new + suffix, peer=who)
        for new, case, who in pairs
        if case + suffix in ours
    ]


# ---- running


def compiled(folder: str) -> str | None:
    """Compile the C ring; return None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    binary, source = f"{folder}/ring_limit", Path(__file__).with_name("ring_limit.c")
    subprocess.run([compiler, "-O2", "-o", binary, str(source)], check=True)
    return binary


def run_ring(binary: str, case: Case) -> dict[str, float]:
    plan = case.plan
    cpus = [str(cpu) for cpu in plan.cpus or (-1, -1)]
    size, slots, seconds = str(plan.size), str(plan.slots), str(plan.seconds)
    command = [binary, str(case.ring), size, slots, seconds, *cpus]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=plan.deadline
        )
    except subprocess.TimeoutExpired:
        raise Void(f"hung: killed after {plan.deadline:.0f} s") from None
    if done.returncode:
        raise Void(f"exit {done.returncode}")
    values = map(float, done.stdout.split())
    return dict(zip((key for key, *_ in case.keys), values, strict=True))


def take_turns(
    case: Case, there: list[type[Peer]], ring: str | None, repetitions: int
) -> tuple[list[Result], list[str]]:
    """Run the peers in turn, `repetitions` times; void samples do not count.

    A peer with two void samples in a case is dropped from it.
    """
    runs: dict[str, Callable[[], dict[str, float]]] = {
        peer.name: lambda peer=peer: sample(peer, case.plan)
        for peer in case.peers
        if peer in there
    }
    if case.ring and ring:
        runs[RING] = lambda: run_ring(ring, case)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    void: dict[str, list[str]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, run in runs.items():
            if len(void[name]) >= 2:
                continue
            try:
                samples[name].append(run())
            except Void as reason:
                void[name].append(str(reason))
    results = [
        result(row, name, unit, [answer[key] for answer in answers])
        for key, row, unit in case.keys
        for name, answers in samples.items()
        if answers and len(answers) * 2 > repetitions
    ]
    notes = [
        f"* {case.name}, {name}: {len(reasons)} void: {'; '.join(sorted(set(reasons)))}"
        for name, reasons in void.items()
        if reasons
    ]
    return results, notes


def result(case: str, peer: str, unit: str, values: list[float]) -> Result:
    median = statistics.median(values)
    return Result(case, peer, unit, median, min(values), max(values), len(values))


def pinned(case: Case) -> Case:
    keys = tuple((key, row + ", pinned", unit) for key, row, unit in case.keys)
    plan = replace(case.plan, cpus=(0, 1))
    return replace(case, name=case.name + ", pinned", plan=plan, keys=keys)


def plot(judged: list[Verdict], path: str) -> None:
    """Draw each ratio with its target and floor; farther right is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height = 0.9 + 0.42 * len(judged)
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    colours = {"aim": "tab:green", "floor": "tab:orange", "MISSED": "tab:red"}
    for y, v in enumerate(reversed(judged)):
        # For times, the inverse: how many times faster.
        turn = (lambda x: 1 / x) if v.smaller_is_better else (lambda x: x)
        axes.barh(y, turn(v.ratio), color=colours[v.verdict], height=0.6)
        axes.plot([turn(v.aim)] * 2, [y - 0.4, y + 0.4], "k-", lw=2)
        axes.plot([turn(v.floor)] * 2, [y - 0.4, y + 0.4], "k:", lw=2)
    names = [f"{v.case}\n: {v.peer}" for v in reversed(judged)]
    axes.set_yticks(range(len(judged)), names)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", lw=0.8)
    axes.set_xlabel("times better than the peer (solid: target, dotted: floor)")
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument(
        "--plot", metavar="PNG", help="also draw the ratios into this file"
    )
    parser.add_argument("--quick", action="store_true", help="3 short turns; < 90 s")
    parser.add_argument(
        "--only", action="append", metavar="CASE", help="cases whose name contains it"
    )
    parser.add_argument(
        "--pinned", action="store_true", help="also sender on CPU 0, receivers on 1"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and clean up
    seconds, repetitions = (0.1, 3) if options.quick else (0.3, 7)
    chosen = cases(seconds)
    if options.pinned:
        chosen += [pinned(case) for case in chosen]
    names = [case.name for case in chosen]
    if options.only:
        chosen = [c for c in chosen if any(o in c.name for o in options.only)]
        if not chosen:
            parser.error(f"--only: the cases are {', '.join(names)}")
    if options.quick:
        chosen = [replace(c, plan=replace(c.plan, deadline=5)) for c in chosen]
    versions = {peer: peer.version() for peer in (*OURS, *PEERS)}
    there = [peer for peer, version in versions.items() if version is not None]
    notes = [
        f"* {peer.name}: not measured, {peer.package or peer.needs} is not installed"
        for peer in PEERS
        if peer not in there
    ]
    listed = sorted({f"{p.package or p.needs} {v}" for p, v in versions.items() if v})
    notes.insert(0, f"Peers: {', '.join(listed)}.")
    results: list[Result] = []
    temporary = tempfile.TemporaryDirectory
    with (
        temporary(prefix="axbench-", dir="/dev/shm") as Peer.root,
        temporary(prefix="axbench-") as folder,  # /dev/shm may be mounted noexec
    ):
        ring = compiled(folder)
        if ring is None:
            notes.append("* the C ring: not measured, a C compiler is missing")
        for case in chosen:
            print(case.name, end=" ", file=sys.stderr, flush=True)
            found, remarks = take_turns(case, there, ring, repetitions)
            results += found
            notes += remarks
    print(file=sys.stderr)
    listed_aims: list[Aim] = []
    for suffix in ("", ", pinned") if options.pinned else ("",):
        results += compare(results, suffix)
        listed_aims += aims(suffix)
    missed = report(results, listed_aims, options.json, notes)
    if options.plot:
        plot(verdicts(results, listed_aims), options.plot)
    return missed


if __name__ == "__main__":
    sys.exit(main())
