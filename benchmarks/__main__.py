"""Run every benchmark, one after the other, and print one table of every target.

    python benchmarks [--quick] [--only NAME] [--json OUT] [--verbose]

Each runs in a separate process; `--verbose` prints its output. The exit code is 1 if a
floor was missed or a benchmark failed. It needs a quiet machine, for half an hour, or
for ten minutes with `--quick`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine

HERE = Path(__file__).resolve().parent


def benchmarks(only: list[str] | None) -> list[Path]:
    found = sorted(HERE.glob("bench_*.py"))
    if only:
        found = [path for path in found if any(name in path.stem for name in only)]
    return found


def run(path: Path, is_quick: bool, is_verbose: bool) -> dict[str, Any]:
    """Run one benchmark: its ``--json`` output, or the reason why it failed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        command = [sys.executable, str(path), "--json", str(output)]
        began = time.monotonic()
        done = subprocess.run(
            command + ["--quick"] * is_quick, stdout=subprocess.PIPE, text=True,
            stderr=None if is_verbose else subprocess.PIPE, check=False,
        )  # fmt: skip
        if is_verbose:
            print(done.stdout)
        seconds = time.monotonic() - began
        if output.exists():
            return {**json.loads(output.read_text()), "seconds": seconds}
    why = (done.stderr or "").strip().splitlines()[-1:] or [f"code {done.returncode}"]
    return {"error": why[0], "seconds": seconds}


def rows(name: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return table rows: benchmark, case, peers, ratio, target, floor, verdict."""
    if "error" in found:
        return [(name, "", "", "", "", "", f"FAILED: {found['error']}")]
    made = []
    for v in found["verdicts"]:
        sign = "<=" if v["smaller_is_better"] else ">="
        made.append(
            (
                name, v["case"], f"{v['ours']} : {v['peer']}", f"{v['ratio']:.3g}x",
                f"{sign} {v['aim']:.3g}x", f"{sign} {v['floor']:.3g}x",
                {"aim": "met", "floor": "floor"}.get(v["verdict"], v["verdict"]),
            )
        )  # fmt: skip
    for left in found["open"]:
        pair = f"{left['ours']} : {left['peer']}"
        made.append((name, left["case"], pair, "", "", "", left["verdict"]))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="short turns, for a first look"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="only these")
    parser.add_argument("--json", help="also write all results to this file")
    parser.add_argument(
        "--verbose", action="store_true", help="also print the table of each"
    )
    asked = parser.parse_args()
    if not (chosen := benchmarks(asked.only)):
        parser.error(f"--only: {', '.join(p.stem for p in benchmarks(None))}")
    everything, table = {}, []
    for path in chosen:
        print(path.stem, end=" ", file=sys.stderr, flush=True)
        everything[path.stem] = found = run(path, asked.quick, asked.verbose)
        print(f"{found['seconds']:.0f} s", file=sys.stderr)
        table += rows(path.stem.removeprefix("bench_"), found)
    print(f"\n{machine()}\n")
    print("| benchmark | case | ours : peer | ratio | target | floor | verdict |")
    print("|---|---|---|---|---|---|---|")
    for row in table:
        print(f"| {' | '.join(row)} |")
    outcomes = [row[-1].partition(":")[0] for row in table]
    counted = {word: outcomes.count(word) for word in dict.fromkeys(outcomes)}
    print("\n" + ", ".join(f"{n} {word}" for word, n in counted.items()))
    if asked.json:
        Path(asked.json).write_text(json.dumps(everything, indent=1))
    return int("MISSED" in outcomes or "FAILED" in outcomes)


if __name__ == "__main__":
    sys.exit(main())
