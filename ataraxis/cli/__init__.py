"""The command line: ``ataraxis COMMAND``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from ataraxis.cli import datamux, hosts, latency, log, report, session, tail, view
from ataraxis.cli.options import as_json_too, in_context, showing_errors


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ataraxis")
def main() -> None:
    """Share, stream, record, replay and process arrays."""


@main.command(short_help="Record a rig, and kill its recorder without a loss.")
@click.option(
    "--seconds", type=click.FloatRange(0.5, 3600), default=10.0, show_default=True,
    help="How long to record.",
)  # fmt: skip
@click.option(
    "--real", type=click.Path(path_type=Path),
    help="Play and record this recording: WFDB, XDF, NWB, npz, a session.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Keep the session and the plot in this directory.",
)  # fmt: skip
@click.option("--arrays", is_flag=True, help="Show shared arrays instead, in 3 s.")
def demo(seconds: float, real: Path | None, output: Path | None, arrays: bool) -> None:
    """Record a rig, kill its recorder, and show that nothing is missing.

    Records the load of this machine, a probe of 64 channels at 30 kHz and a camera of
    640x480 at 120 frames per second, both simulated. The exit code is 0 if every sample
    was recorded.
    """
    from ataraxis.demo.arrays import show as show_arrays
    from ataraxis.demo.report import run

    sys.exit(show_arrays() if arrays else run(seconds, real, output))


@main.command(name="ls")
@in_context
@as_json_too
@click.argument("host", required=False, metavar="[HOST:]")
def list_segments(context: str | None, as_json: bool, host: str | None) -> None:
    """List the segments of a context, or the streams of another HOST; only reads."""
    from ataraxis import screen
    from ataraxis.shm.context import Context
    from ataraxis.stream.inspector import inspect

    if host is not None:
        if not host.endswith(":") or host == ":":
            raise click.BadParameter(f"{host!r} is not HOST:, as in 'ataraxis ls acq:'")
        return hosts.list_host(host[:-1], context, as_json)
    with showing_errors():
        place = Context.of(context)
        rows = inspect(place)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
    elif rows:
        screen.console().print(screen.segments(rows))
    else:
        click.echo(f"nothing is shared in {place.path}")
    return None


@main.command()
@in_context
@as_json_too
@click.option("--once", is_flag=True, help="Print one reading and end, as --json does.")
@click.option(
    "--interval",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Time over which rates are measured, s.",
)
def top(context: str | None, as_json: bool, once: bool, interval: float) -> None:
    """Watch the streams, pipes, hosts and mirrors of a context; only reads."""
    from rich.live import Live

    from ataraxis import screen

    with showing_errors():
        watch = screen.Watch(context, interval)
    out = screen.console()
    try:
        time.sleep(interval)
        if as_json:
            click.echo(json.dumps(watch.as_dict()))
        elif once or not out.is_terminal:
            out.print(watch.look())
            while not once:
                time.sleep(interval)
                out.print(watch.look())
        else:
            with Live(console=out, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(watch.look(), refresh=True)
                    time.sleep(interval)
    except KeyboardInterrupt:
        pass
    finally:
        watch.close()


@main.command(short_help="Remove segments that are not in use.")
@in_context
@as_json_too
@click.option("--dry-run", is_flag=True, help="Report only; remove nothing.")
def gc(context: str | None, as_json: bool, dry_run: bool) -> None:
    """Remove segments that no process is attached to; never live or kept ones."""
    from ataraxis import screen
    from ataraxis.shm.gc import collect

    with showing_errors():
        found = collect(context, is_dry=dry_run)
    if as_json:
        click.echo(json.dumps([left.as_dict() for left in found]))
    else:
        screen.console().print(screen.leftovers(found, dry_run))


@main.command(short_help="Check whether ataraxis can work on this machine.")
@in_context
@as_json_too
@click.argument("host", required=False)
def doctor(context: str | None, as_json: bool, host: str | None) -> None:
    """Check this machine; the exit code is 1 if ataraxis cannot work here.

    With HOST, check the way to another host: reach, certificates, clock, rate, disk of
    the spool, and the mirrored streams.
    """
    from ataraxis import screen
    from ataraxis.shm.doctor import examine

    if host is not None:
        hosts.examine_host(host.removesuffix(":"), context, as_json)
    found = examine(context)
    if as_json:
        click.echo(json.dumps([check.as_dict() for check in found]))
    else:
        screen.console().print(screen.checks(found))
    sys.exit(any(check.verdict == "fail" for check in found))


for _command in (
    log.record, log.recover, log.verify, log.export, datamux.proxy, datamux.serve,
    datamux.mirror, session.run, session.check, session.fit, session.replay,
    latency.latency, datamux.info, hosts.hosts, hosts.agent, view.view, report.report,
    tail.tail, tail.hz, report.plot,
):  # fmt: skip
    main.add_command(_command)


@main.command(short_help="List the kinds of live sources.")
@as_json_too
def sources(as_json: bool) -> None:
    """List the kinds of live sources, and what to install for missing ones."""
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
