"""Measure how long an event takes: the command latency."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ataraxis.cli.options import as_json_too, say, showing_errors
from ataraxis.shm.process import Ending

if TYPE_CHECKING:
    from rich.table import Table

    from ataraxis.latency.bench import LatencyPath, LatencyResult
    from ataraxis.latency.load import LoadReport

INTERRUPTED = 130
_WARM_UP = 1000
_PATHS = ("ring", "pipe", "serial", "lsl")


def _cpus(context: Any, parameter: Any, text: str | None) -> tuple[int, int] | None:
    """Parse two CPUs that this process may use."""
    if text is None:
        return None
    usable = sorted(os.sched_getaffinity(0))
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected two CPUs, such as {usable[0]},{usable[-1]}, got {text!r}"
        ) from None
    for cpu in (first, second):
        if cpu not in usable:
            raise click.BadParameter(
                f"CPU {cpu} is not available: this process may use "
                f"{', '.join(map(str, usable))}"
            )
    return first, second


@click.command(short_help="Measure how long an event takes, under load.")
@as_json_too
@click.option(
    "--events", type=click.IntRange(1), default=10_000, show_default=True,
    help="Events of each measurement.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True),
    help="Events a second; by default each is sent when the one before it has arrived.",
)  # fmt: skip
@click.option(
    "--only", type=click.Choice(_PATHS), multiple=True,
    help="Measure only this; may be repeated.",
)  # fmt: skip
@click.option(
    "--serial", "port", metavar="PORT",
    help="Port with a loop-back plug; by default a pseudo-terminal takes its place.",
)  # fmt: skip
@click.option(
    "--baud", type=click.IntRange(1), default=115200, show_default=True,
    help="Speed of the port, bit/s.",
)  # fmt: skip
@click.option("--lsl", is_flag=True, help="Also measure a loop through LSL.")
@click.option(
    "--load/--no-load", default=True, show_default=True,
    help="Record a session to the disk and read all statistics meanwhile.",
)  # fmt: skip
@click.option(
    "--pin", callback=_cpus, metavar="CPU,CPU",
    help="Measure only pinned to these; by default unpinned, and pinned to the first "
    "two.",
)  # fmt: skip
@click.option("--no-pin", is_flag=True, help="Measure only unpinned.")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
    help="Draw the tails of the latencies.",
)  # fmt: skip
def latency(
    as_json: bool,
    events: int,
    rate: float | None,
    only: tuple[LatencyPath, ...],
    port: str | None,
    baud: int,
    lsl: bool,
    load: bool,
    pin: tuple[int, int] | None,
    no_pin: bool,
    picture: Path | None,
) -> None:
    """Measure how long an event takes, while a session records to the disk.

    ring: from a process that sends to one that receives, one way. pipe: to a plain
    function in a worker of a pipe, and back. serial and lsl: the result also goes to a
    device, and comes back from it.

    Every event is counted. The exit code is 1 if one was lost or a process died, and
    130 after Ctrl-C, which prints what was measured until then.
    """
    from ataraxis.latency import picture as pictures
    from ataraxis.latency.bench import LatencyBench

    if pin is not None and no_pin:
        raise click.UsageError("give --pin or --no-pin, not both")
    with showing_errors(ModuleNotFoundError, ValueError):
        paths, notes = _chosen(only, port, lsl)
        if picture is not None:
            pictures.check(picture)
    machine = _machine()
    results: list[LatencyResult] = []
    with showing_errors(), Ending(is_last=True) as ending:
        with LatencyBench(load=load, until=ending.first) as bench:
            for path in paths:
                for cpus in _pinnings(pin, no_pin):
                    if ending.first.is_set():
                        break
                    where = "" if cpus is None else f", CPUs {cpus[0]} and {cpus[1]}"
                    say(f"{pictures.TITLES[path]}{where} ...", is_error=True)
                    results.append(
                        bench.measure(
                            path, events, rate_hz=rate, cpus=cpus, port=port, baud=baud,
                            warm_up=_WARM_UP,
                        )
                    )  # fmt: skip
        if picture is not None:
            pictures.draw(results, picture)
        is_interrupted = ending.first.is_set()
    if is_interrupted:
        notes.append(f"ended by {ending.name}: these are the events until then")
    if as_json:
        found = {
            "machine": machine, "events": events, "rate_hz": rate, "warm_up": _WARM_UP,
            "load": None if bench.load is None else vars(bench.load),
            "results": [result.as_dict() for result in results], "notes": notes,
        }  # fmt: skip
        click.echo(json.dumps(found))
    else:
        _show(machine, results, bench.load, notes, rate, picture)
    is_good = all(result.is_whole for result in results) and not (
        bench.load and bench.load.problem
    )
    sys.exit(INTERRUPTED if is_interrupted else not is_good)


def _chosen(
    only: Sequence[LatencyPath], port: str | None, lsl: bool
) -> tuple[list[LatencyPath], list[str]]:
    """Return what is measured, and notes on what is not."""
    from ataraxis.log.optional import need

    paths: list[LatencyPath] = list(dict.fromkeys(only)) or ["ring", "pipe", "serial"]
    if lsl and "lsl" not in paths:
        paths.append("lsl")
    if port is not None and "serial" not in paths:
        raise ValueError("--serial is given, and --only leaves serial out")
    if port is not None and not os.path.exists(port):
        raise ValueError(
            f"serial port {port!r} does not exist; give the port of a loop-back plug, "
            "or leave --serial out: a pseudo-terminal takes its place"
        )
    if "lsl" in paths:
        need("pylsl", "lsl", "the LSL loop")
    notes = []
    if "serial" in paths:
        try:
            need("serial", "serial", "the serial loop")
        except ModuleNotFoundError as error:
            if port is not None or "serial" in only:
                raise
            paths.remove("serial")
            notes.append(f"serial was not measured: {error}")
    return paths, notes


def _pinnings(
    pin: tuple[int, int] | None, no_pin: bool
) -> list[tuple[int, int] | None]:
    """Return how the processes are pinned, measurement by measurement."""
    if pin is not None:
        return [pin]
    first_two = sorted(os.sched_getaffinity(0))[:2]
    if no_pin or len(first_two) < 2:
        return [None]
    return [None, (first_two[0], first_two[1])]


# ---- what is shown


def _machine() -> dict[str, Any]:
    """Describe the machine, and how busy it is now."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _show(
    machine: dict[str, Any],
    results: Sequence[LatencyResult],
    load: LoadReport | None,
    notes: Sequence[str],
    rate: float | None,
    picture: Path | None,
) -> None:
    """Print the table, and what belongs to it."""
    from ataraxis import screen
    from ataraxis.latency.picture import TITLES

    if results:
        screen.console().print(_table(results))
    pace = "back to back" if rate is None else f"{rate:g} a second"
    click.echo(
        f"events {pace}, after {_WARM_UP:,} that are not counted; {machine['system']}, "
        f"{machine['cpus']} CPUs, Python {machine['python']}, load average before: "
        f"{machine['load_average']:.1f}"
    )
    if rate is not None:
        late = max((result.late_ns for result in results), default=0)
        click.echo(f"the sender was at most {late * 1e-3:,.1f} us late")
    if load is None:
        click.echo("no load")
    else:
        click.echo(
            f"load: a session recorded {load.recorded:,} of {load.sent:,} frames to "
            f"the disk, in {screen.plain(load.directory)}; all statistics were read "
            f"{load.looks:,} times"
        )
    for result in results:
        where = TITLES[result.path]
        if result.problem:
            notes = [*notes, f"{where}: {result.problem}"]
        if result.restarts:
            notes = [*notes, f"{where}: its worker died and was started again, "
                     f"{result.restarts} times"]  # fmt: skip
        if result.lost:
            notes = [*notes, f"{where}: {result.lost:,} of {result.sent:,} events LOST"]
    if load is not None and load.problem:
        notes = [*notes, f"load: {load.problem}"]
    if picture is not None:
        notes = [*notes, f"picture: {picture}"]
    for note in notes:
        click.echo(screen.plain(note))


def _table(results: Sequence[LatencyResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ataraxis.latency.bench import PERCENTILES
    from ataraxis.latency.picture import TITLES

    table = Table("event", "CPUs")
    percents = [*PERCENTILES.values(), 100.0]
    heads = [*(f"{key.replace('_', '.')}, us" for key in PERCENTILES), "max, us"]
    for head in ("events", "lost", *heads):
        table.add_column(head, justify="right")
    for result in results:
        found = (result.percentile(percent) for percent in percents)
        table.add_row(
            TITLES[result.path],
            "all" if result.cpus is None else f"{result.cpus[0]},{result.cpus[1]}",
            f"{len(result.latency_ns):,}",
            Text(f"{result.lost:,}", "red" if result.lost else ""),
            *("-" if ns is None else f"{ns * 1e-3:,.1f}" for ns in found),
        )
    return table
