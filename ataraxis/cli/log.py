"""Commands of the log: record, recover, verify, export."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
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
from ataraxis.session.stream_recorder import unsaved_text
from ataraxis.shm.process import Ending

_LOOK_S = 0.1
_SLICE_S = 0.5
_name = click.option("--name", help="Only this journal of the directory.")


@click.command()
@in_context
@with_mode
@click.argument("streams", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option(
    "--durability",
    type=click.Choice(["os", "disk"]),
    default="os",
    show_default=True,
    help="Frames survive the end of every process (os), or a loss of power (disk).",
)
@click.option("--timeout", type=float, help="How long to wait for the streams, s.")
@click.option("--name", default="recorder", show_default=True, help="Recorder's name.")
@click.option(
    "--follow",
    is_flag=True,
    help="Go on with the next stream of a name, when its program is started again.",
)
def record(
    context: str | None,
    streams: tuple[str, ...],
    output: Path,
    durability: str,
    timeout: float | None,
    name: str,
    follow: bool,
) -> None:
    """Record STREAMS to a directory until they end, or until Ctrl-C.

    HOST:STREAM is a stream of another host of the lab: it is mirrored first, and its
    first frame here is recorded. With --follow, the end of a stream is not the end:
    each stream of the name is a part of its own in the journal, until Ctrl-C.

    After Ctrl-C, SIGTERM or SIGHUP, what was sent until then is recorded. While the
    disk refuses writes, producers wait; a second signal releases them, and the frames
    that are not on the disk are named. The exit code is 1 if a frame is missing.
    """
    from ataraxis.log.disk_watch import caution_of
    from ataraxis.log.modes import make_folder
    from ataraxis.log.recorder import Recorder

    def warn(what: object) -> None:
        say(str(what), is_error=True)

    with (
        showing_errors(ValueError),
        Ending(is_last=True) as ending,
        ExitStack() as mirrors,
    ):
        here = _mirrored(streams, context, timeout, ending, mirrors)
        if not _wait_for(here, context, timeout, ending):
            raise click.ClickException(
                f"ended by {ending.name} before all streams existed; nothing was "
                "recorded"
            )
        make_folder(output)
        if caution := caution_of(output):
            warn(caution)
        recorder = Recorder(
            here, output, context=context, durability=durability,  # type: ignore[arg-type]
            name=name, on_loss=warn, on_error=warn, on_low_disk=warn, follow=follow,
        )  # fmt: skip
        while recorder.is_recording and not ending.first.wait(_LOOK_S):
            pass
        unsaved = recorder.finish(ending.second, lambda error: warn(still(error)))
    is_whole = not unsaved
    for stream, found in recorder.statistics().items():
        old = "; it had ended before: these frames were left in its ring"
        say(
            f"{stream}: {found.frames} frames recorded, {found.lost} lost"
            + (old if found.had_ended else "")
        )
        is_whole = is_whole and (not found.lost or found.is_clock)
    for stream, frames in unsaved.items():
        warn(f"{stream}: {unsaved_text(frames)}: released by {ending.name}")
    sys.exit(not is_whole)


def _mirrored(
    streams: tuple[str, ...],
    context: str | None,
    timeout: float | None,
    ending: Ending,
    mirrors: ExitStack,
) -> tuple[str, ...]:
    """Mirror each HOST:STREAM, and return the names of all streams here."""
    from ataraxis.cli.hosts import wait_for_mirror
    from ataraxis.shm.context import Context

    known = Context.of(context).names()
    here = []
    for stream in streams:
        if ":" not in stream or stream in known:
            here.append(stream)
            continue
        host, _, stream = stream.partition(":")
        mirror = wait_for_mirror(
            stream, host, None, context, ending.first.is_set, timeout
        )
        if mirror is None:
            break
        mirrors.enter_context(mirror)
        here.append(mirror.name)
    return tuple(here)


def _wait_for(
    streams: tuple[str, ...], context: str | None, timeout: float | None, ending: Ending
) -> bool:
    """Wait until all streams exist; False: a signal came first."""
    from ataraxis.stream import wait_for_stream

    end = None if timeout is None else time.monotonic() + timeout
    for stream in streams:
        while not ending.first.is_set():
            left = _SLICE_S if end is None else max(end - time.monotonic(), 0)
            try:
                wait_for_stream(stream, min(left, _SLICE_S), context=context)
                break
            except TimeoutError:
                if left < _SLICE_S:
                    raise
    return not ending.first.is_set()


@click.command(short_help="Finish logs and sessions whose programs were killed.")
@in_context
@_name
@as_json_too
@click.option("--dry-run", is_flag=True, help="Report only; write nothing.")
@click.argument("path", type=click.Path(path_type=Path))
def recover(
    context: str | None, path: Path, name: str | None, as_json: bool, dry_run: bool
) -> None:
    """Finish the logs at PATH: write the entries that killed loggers had accepted.

    Sessions whose process was killed are finished and judged. Then every byte of the
    journals is read, their indexes are repaired, and damaged or cut entries are
    reported. Entries are never changed or deleted.
    """
    from ataraxis.log import recover_log
    from ataraxis.log.recovery import recover as look
    from ataraxis.session.recovery import finish_sessions

    with showing_errors():
        saved = [] if dry_run else recover_log(path, context=context)
        finished = [] if dry_run else finish_sessions(path, context=context)
        try:
            reports = look(path, name, is_dry=dry_run)
        except FileNotFoundError:
            if not saved and not finished:
                raise
            reports = []
    if as_json:
        logs = [
            {"log": s.name, "entries": s.entries, "problem": s.problem} for s in saved
        ]
        logs += [one.as_dict() for one in finished]
        click.echo(json.dumps(logs + [report.as_dict() for report in reports]))
        return
    for one in finished:
        click.echo(f"session {one.path}: finished now; {one.verdict}")
    for s in saved:
        more = f": {s.problem}" if s.problem else ""
        click.echo(f"log {s.name}: {s.entries} entries written now{more}")
    for report in reports:
        index = ", index rebuilt" if report.is_indexed_anew else ""
        live = ", still being written" if report.is_live else ""
        click.echo(f"{report.path}: {report.entries} entries whole{index}{live}")
        for problem in report.problems:
            click.echo(f"  {problem.nbytes} bytes at {problem.offset}: {problem.what}")


@click.command(short_help="Count the entries of a log, and the missing ones.")
@_name
@as_json_too
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path, name: str | None, as_json: bool) -> None:
    """Count the entries of the log at PATH; exit code 1 if any is missing.

    For a session also show what its verdict doubts: a stream that never existed has no
    journal.
    """
    from ataraxis.log.verification import verify as look

    with showing_errors():
        report = look(path, name)
        is_doubted, verdict = _verdict(path)
    if as_json:
        found = [source.as_dict() for source in report.sources]
        problems = [str(problem) for problem in report.problems]
        doubts = verdict if is_doubted else []
        result = {"sources": found, "problems": problems, "doubts": doubts}
        click.echo(json.dumps(result))
    else:
        for source in report.sources:
            called = f" {source.name}" if source.name else ""
            where = f"{source.journal}, source {source.source}{called}"
            click.echo(
                f"{source.journal if source.name == source.journal else where}: "
                f"{source.expected} expected, {source.received} received, "
                f"{source.missing} missing, {source.damaged} of them damaged"
            )
        for problem in report.problems:
            click.echo(str(problem))
        for line in verdict:
            click.echo(line)
    sys.exit(is_doubted or not report.is_complete)


def _verdict(path: Path) -> tuple[bool, list[str]]:
    """Return whether a session is doubted, and its verdict in lines; none of a log."""
    from ataraxis.session import SessionFolder

    try:
        verdict = SessionFolder(path).verdict()
    except FileNotFoundError:
        return False, []
    if verdict is None:
        return True, [
            "it has no verdict yet: it is being recorded, or was killed; then "
            f"'ataraxis recover {path}' finishes it"
        ]
    text = verdict.headline if verdict.is_trusted else str(verdict)
    lines = [f"its verdict: {line.strip()}" for line in text.splitlines()]
    return not verdict.is_trusted, lines


@click.command()
@_name
@click.option("--format", "kind", help="npz, nwb, zarr or xdf; by default of OUTPUT.")
@click.option("--source", "sources", multiple=True, help="Only this stream or source.")
@click.option("--onset-us", type=int, help="Onset of an npy log, UTC microseconds.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT when complete.")
@click.option("--skip-damaged", is_flag=True, help="Leave damaged entries out.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def export(
    path: Path,
    output: Path,
    name: str | None,
    kind: str | None,
    sources: tuple[str, ...],
    onset_us: int | None,
    overwrite: bool,
    skip_damaged: bool,
) -> None:
    """Write the log at PATH to OUTPUT, a file of another format.

    Every sample and every stamp is kept. OUTPUT is complete, or is not made.
    """
    from ataraxis.cli.options import counting
    from ataraxis.errors import CorruptFrame
    from ataraxis.log import export_log

    numbers = [int(one) if one.isdigit() else one for one in sources]
    with showing_errors(), counting() as progress:
        try:
            made = export_log(
                path, output, format=kind, sources=numbers or None, name=name,
                onset_us=onset_us, overwrite=overwrite, skip_damaged=skip_damaged,
                progress=progress,
            )  # fmt: skip
        except CorruptFrame as error:
            more = "; or leave damaged entries out: --skip-damaged"
            raise click.ClickException(f"{error}{more}") from error
        except (ValueError, KeyError, ModuleNotFoundError) as error:
            raise click.ClickException(str(error.args[0])) from error
    click.echo(f"{made}: written")
