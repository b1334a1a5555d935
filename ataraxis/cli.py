"""The command line: ``ataraxis COMMAND``. Says what to do; the rooms do it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ataraxis")
def main() -> None:
    """Share, stream, record, replay and process arrays."""


@main.command()
def demo() -> None:
    """Show what exists, between real processes, in a few seconds."""
    from ataraxis.demo import run

    sys.exit(run())


_context = click.option("--context", help="Directory of segments; your own by default.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def _told() -> Iterator[None]:
    """Tell what is wrong with a context in a line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error


@main.command(name="ls")
@_context
@_json
def list_segments(context: str | None, as_json: bool) -> None:
    """List the segments of a context; reads only, disturbs nobody."""
    from ataraxis import screen
    from ataraxis.stream.inspector import inspect

    with _told():
        rows = inspect(context)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
    else:
        screen.console().print(screen.segments(rows))


@main.command()
@_context
@_json
@click.option(
    "--once", is_flag=True, help="Print one reading and stop, as does --json."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Time over which rates are taken, s.",
)
def top(context: str | None, as_json: bool, once: bool, interval: float) -> None:
    """Watch the streams of a context: rates, lags, losses; disturbs nobody."""
    from rich.live import Live

    from ataraxis import screen
    from ataraxis.stream.meter import Meter

    with _told():
        meter = Meter(context)
        meter.read()
    out = screen.console()
    try:
        time.sleep(interval)
        if as_json:
            click.echo(json.dumps(meter.read().as_dict()))
        elif once or not out.is_terminal:
            out.print(screen.top(meter.read()))
            while not once:
                time.sleep(interval)
                out.print(screen.top(meter.read()))
        else:
            with Live(console=out, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(screen.top(meter.read()), refresh=True)
                    time.sleep(interval)
    except KeyboardInterrupt:
        pass


@main.command()
@_context
@_json
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def gc(context: str | None, as_json: bool, dry_run: bool) -> None:
    """Remove segments that nobody takes part in; never live or kept ones."""
    from ataraxis import screen
    from ataraxis.shm.collection import collect

    with _told():
        found = collect(context, is_dry=dry_run)
    if as_json:
        click.echo(json.dumps([left.as_dict() for left in found]))
    else:
        screen.console().print(screen.leftovers(found, dry_run))


@main.command()
@_context
@_json
def doctor(context: str | None, as_json: bool) -> None:
    """Check this machine; the exit code is 1 if ataraxis cannot work here."""
    from ataraxis import screen
    from ataraxis.shm.doctor import examine

    found = examine(context)
    if as_json:
        click.echo(json.dumps([check.as_dict() for check in found]))
    else:
        screen.console().print(screen.checks(found))
    sys.exit(any(check.verdict == "fail" for check in found))


_name = click.option("--name", help="Only this journal of the directory.")


@main.command()
@_context
@click.argument("streams", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option(
    "--durability",
    type=click.Choice(["os", "disk"]),
    default="os",
    show_default=True,
    help="What recorded frames survive: every process, or also the loss of power.",
)
@click.option("--timeout", type=float, help="How long to wait for the streams, s.")
@click.option("--name", default="recorder", show_default=True, help="Of this recorder.")
def record(
    context: str | None,
    streams: tuple[str, ...],
    output: Path,
    durability: str,
    timeout: float | None,
    name: str,
) -> None:
    """Record STREAMS to a directory until they end, or until Ctrl-C."""
    from ataraxis.errors import AtaraxisError
    from ataraxis.log.recorder import Recorder

    def tell(what: object) -> None:
        click.echo(str(what), err=True)

    with _told():
        try:
            recorder = Recorder(
                streams, output, context=context, durability=durability,  # type: ignore[arg-type]
                timeout=timeout, name=name, on_loss=tell, on_error=tell,
                on_low_disk=tell,
            )  # fmt: skip
            try:
                recorder.wait()
            except KeyboardInterrupt:
                pass
            finally:
                recorder.stop()
        except AtaraxisError as error:
            raise click.ClickException(str(error)) from error
    for stream, found in recorder.statistics().items():
        click.echo(f"{stream}: {found.frames} frames recorded, {found.lost} lost")


@main.command()
@_context
@_name
@_json
@click.option("--dry-run", is_flag=True, help="Only look.")
@click.argument("path", type=click.Path(path_type=Path))
def recover(
    context: str | None, path: Path, name: str | None, as_json: bool, dry_run: bool
) -> None:
    """Finish the logs at PATH: what killed loggers had accepted is written.

    Then looks at every byte of the journals there, mends their indexes, and says what
    is damaged or cut. What was written is never changed, nothing is deleted.
    """
    from ataraxis.log import recover_log
    from ataraxis.log.recovery import recover as look

    with _told():
        saved = [] if dry_run else recover_log(path, context=context)
        try:
            reports = look(path, name, is_dry=dry_run)
        except FileNotFoundError:
            if not saved:
                raise
            reports = []
    if as_json:
        logs = [
            {"log": s.name, "entries": s.entries, "problem": s.problem} for s in saved
        ]
        click.echo(json.dumps(logs + [report.as_dict() for report in reports]))
        return
    for s in saved:
        more = f": {s.problem}" if s.problem else ""
        click.echo(f"log {s.name}: {s.entries} entries written now{more}")
    for report in reports:
        index = ", index written anew" if report.is_indexed_anew else ""
        live = ", still being written" if report.is_live else ""
        click.echo(f"{report.path}: {report.entries} entries whole{index}{live}")
        for problem in report.problems:
            click.echo(f"  {problem.nbytes} bytes at {problem.offset}: {problem.what}")


@main.command()
@_name
@_json
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path, name: str | None, as_json: bool) -> None:
    """Count the entries of the journals at PATH; exit code 1 if any is missing."""
    from ataraxis.log.verification import verify as look

    with _told():
        report = look(path, name)
    if as_json:
        found = [source.as_dict() for source in report.sources]
        problems = [str(problem) for problem in report.problems]
        click.echo(json.dumps({"sources": found, "problems": problems}))
    else:
        for source in report.sources:
            called = f" {source.name}" if source.name else ""
            click.echo(
                f"{source.journal}, source {source.source}{called}: "
                f"{source.expected} expected, {source.received} received, "
                f"{source.missing} missing, {source.damaged} of them damaged"
            )
        for problem in report.problems:
            click.echo(str(problem))
    sys.exit(not report.is_complete)


@main.command()
@_json
def sources(as_json: bool) -> None:
    """List the kinds of live sources, and what to install for those missing."""
    from ataraxis import screen
    from ataraxis.datamux.registry import kinds

    found = [*kinds().values()]
    if as_json:
        click.echo(json.dumps([kind.as_dict() for kind in found]))
    else:
        screen.console().print(screen.sources(found))


@main.group()
def context() -> None:
    """Make directories of segments."""


@context.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--group", help="Share it with this group (mode 2770).")
def create(path: Path, group: str | None) -> None:
    """Make the context PATH; mode 0700, or 2770 with --group."""
    from ataraxis.shm.context import Context

    try:
        made = Context.create(path, group=group)
    except (OSError, LookupError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{made.path} (use it with context= or ATARAXIS_CONTEXT={made.path})")
