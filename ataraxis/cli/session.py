"""Commands of sessions: run, check, replay."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import click

from ataraxis.cli.options import (
    as_json_too,
    in_context,
    say,
    showing_errors,
    still,
    with_mode,
)
from ataraxis.shm.process import Ending

_LOOK_S = 0.05


@click.command(short_help="Run RIG, a YAML file, as a session.")
@in_context
@with_mode
@click.argument("rig", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the session; by default date and time.")
@click.option(
    "-o", "--output", default=".", type=click.Path(path_type=Path),
    help="Where the session's directory is made; by default the current directory.",
)  # fmt: skip
@click.option("--subject", default="", help="Subject of the recording.")
@click.option("--duration", type=float, help="Duration, s.")
def run(
    context: str | None,
    rig: Path,
    name: str | None,
    output: Path,
    subject: str,
    duration: float | None,
) -> None:
    """Run RIG, a YAML file, as a session, until its sources end or Ctrl-C.

    Ctrl-C, SIGTERM or SIGHUP ends the sources; all that they sent is recorded and
    judged. While the disk refuses writes, that goes on; a second signal ends it, and
    the verdict names the frames that are not on the disk. The exit code is 1 if the
    session is not to be trusted.
    """
    from datetime import datetime

    from ataraxis.session import Rig, Session

    def refused(why: str) -> None:
        say(still(why), is_error=True)

    with showing_errors(), Ending(is_last=True) as ending:
        setup = Rig.from_yaml(rig)
        called = name or f"{datetime.now():%Y-%m-%d_%H%M%S}"
        session = Session(called, directory=output, subject=subject, context=context)
        try:
            say(f"{session.directory}: recording; Ctrl-C ends it")
            session.start(setup, ending.first).wait(duration)
        except BaseException as error:
            session.doubt(f"ended by {type(error).__name__}: {error}")
            raise
        finally:
            verdict = session.close(ending.second, refused)
    say(str(verdict))
    sys.exit(not verdict.is_trusted)


@click.command()
@in_context
@as_json_too
@click.argument("rig", type=click.Path(path_type=Path))
@click.option(
    "--soak", type=click.FloatRange(0.1), default=10.0, show_default=True,
    help="Duration of the test, s.",
)  # fmt: skip
@click.option(
    "-o", "--output", default=".", type=click.Path(path_type=Path),
    help="Where sessions will be recorded; by default the current directory.",
)  # fmt: skip
def check(
    as_json: bool, context: str | None, rig: Path, soak: float, output: Path
) -> None:
    """Test RIG before a recording; the exit code is 1 if it is not ready.

    It runs in a context of its own; with parts on other hosts, in that of the agent.
    Ctrl-C, SIGTERM or SIGHUP ends the test, whose files are removed.
    """
    from rich.table import Table

    from ataraxis import screen
    from ataraxis.session.preflight import check as look

    with showing_errors(), Ending(is_last=True) as ending:
        found = look(
            rig, soak, directory=output, context=context, until=ending.first,
            release=ending.second,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        sys.exit(not found.is_ready)
    table = Table(
        "stream", "frames/s", "declared", "bytes/s", "missing", "longest lag", ""
    )
    for s in found.streams:
        table.add_row(
            screen.plain(s.stream), f"{s.rate_hz:.4g}",
            "-" if s.declared_hz is None else f"{s.declared_hz:.4g}",
            screen.size(s.bytes_hz), str(s.missing),
            screen.duration(s.longest_lag_s), screen.plain(s.problem) or "ok",
        )  # fmt: skip
    screen.console().print(table)
    if math.isinf(found.disk_s):
        click.echo("how long the disk lasts is unknown: nothing was recorded")
    else:
        click.echo(f"the disk lasts {screen.duration(found.disk_s)}")
    for line in (*found.notes, *found.problems):
        click.echo(line)
    click.echo("ready" if found.is_ready else "NOT READY")
    sys.exit(not found.is_ready)


@click.command(short_help="Fit the clocks of SESSION's devices to the host's.")
@as_json_too
@click.option("--stream", "streams", multiple=True, help="Name; may be repeated.")
@click.option(
    "--latency", "latencies", multiple=True, metavar="STREAM=MIN,MAX",
    help="Least and largest fixed delay of a device, ms; may be repeated.",
)  # fmt: skip
@click.option(
    "--pulses", multiple=True, metavar="STREAM=STREAM:LINE",
    help="Line that recorded a pulse for each frame, by name or number; may be "
    "repeated. Else as the rig declares it.",
)  # fmt: skip
@click.argument("session", type=click.Path(path_type=Path))
def fit(
    as_json: bool,
    streams: tuple[str, ...],
    latencies: tuple[str, ...],
    pulses: tuple[str, ...],
    session: Path,
) -> None:
    """Fit the clock of each source of SESSION, a session or a log, to the host's.

    The fits are kept in its folder "fits"; stamps are never changed. A session makes
    them at its end. Frames with recorded pulses have the times of these.
    """
    from rich.table import Table

    from ataraxis import screen
    from ataraxis.session.clocks import fit_session

    with showing_errors():
        found = fit_session(
            session, streams=streams or None,
            latency_ms=dict(_latency(text) for text in latencies),
            pulses=dict(_line(text) for text in pulses),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps([one.as_dict() for one in found]))
        return
    table = Table("stream", "time", "bound", "drift", "segments", "")
    for one in found:
        bound, made = one.bound_us, one.made
        drift = (
            ", ".join(f"{1e6 * rate:+.1f} ppm" for rate in made.fit.rates[:2])
            if (made)
            else "-"
        )
        table.add_row(
            screen.plain(one.name), one.kind,
            "-" if bound is None else screen.duration(bound * 1e-6), drift,
            str(len(made.fit.segments)) if made else "-",
            screen.plain(one.reason or (made.fit.assumption if made else "")),
        )  # fmt: skip
    screen.console().print(table)


def _latency(text: str) -> tuple[str, tuple[float, float]]:
    name, _, given = text.rpartition("=")
    try:
        low, high = map(float, given.split(","))
    except ValueError:
        low, high = 0.0, -1.0
    if not name or not 0 <= low <= high < math.inf:
        raise click.BadParameter(
            f"expected STREAM=MIN,MAX in ms, such as camera=2,5, got {text!r}",
            param_hint="--latency",
        )
    return name, (low, high)


def _line(text: str) -> tuple[str, tuple[str, str | int]]:
    name, _, given = text.partition("=")
    stream, _, line = given.rpartition(":")
    if not name or not stream or not line:
        raise click.BadParameter(
            "expected STREAM=STREAM:LINE, such as camera=daq:trigger for the frames of "
            f"'camera' and line 'trigger' of 'daq', got {text!r}",
            param_hint="--pulses",
        )
    return name, (stream, int(line) if line.isdecimal() else line)


@click.command(short_help="Send the streams of SESSION again.")
@in_context
@click.argument("session", type=click.Path(path_type=Path))
@click.option("--speed", type=float, default=1.0, show_default=True)
@click.option("--stream", "streams", multiple=True, help="Name; may be repeated.")
@click.option(
    "--readers", type=int, default=0, help="Readers of each stream to wait for."
)
def replay(
    context: str | None,
    session: Path,
    speed: float,
    streams: tuple[str, ...],
    readers: int,
) -> None:
    """Send the streams of SESSION again, under their own names, on one clock.

    Ctrl-C, SIGTERM or SIGHUP ends the streams; what was sent can still be read.
    """
    from ataraxis.session.playback import replay as play

    with (
        showing_errors(KeyError, ValueError), Ending(is_last=True) as ending,
        play(
            session, speed=speed, context=context, streams=streams or None,
            readers=readers, timeout=None,
        ) as again,
    ):  # fmt: skip
        while not again.is_over and not ending.first.wait(_LOOK_S):
            pass
        if not again.is_over:
            again.stop()
        sent, late = again.sent(), again.lateness()
    for name, count in sent.items():
        click.echo(
            f"{name}: {count} frames, at most {late[name].max_s * 1e3:.3g} ms late"
        )
