"""Commands of sources, recordings and the remote API: proxy, serve, mirror, info."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click

from ataraxis.cli.hosts import mirror_host
from ataraxis.cli.options import (
    as_json_too,
    in_context,
    say,
    showing_errors,
    still,
    with_mode,
)
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.server import serve
from ataraxis.session.stream_recorder import unsaved_text
from ataraxis.shm.process import Ending

__all__ = ["info", "mirror", "proxy", "serve"]

_LOOK_S, _HURRY_S = 0.05, 5.0


@click.command(short_help="Pass STREAM of the live NODE into shared memory.")
@in_context
@with_mode
@click.argument("node")
@click.argument("stream")
@click.option("--name", help="Name of the stream in shared memory; by default STREAM.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Also record it in a journal in this directory, with the clock's offsets.",
)  # fmt: skip
@click.option(
    "--attr", "attrs", multiple=True, metavar="KEY=VALUE",
    help="Attribute of the kind of source; may be repeated.",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(1), help="Samples per frame; by default one."
)
@click.option("--buffer-seconds", type=float, help="Length of the ring, s.")
@click.option(
    "--patience",
    type=float,
    help="How long to wait for a source that went away, s; by default forever.",
)
@click.option(
    "--durability", type=click.Choice(["os", "disk"]), default="os", show_default=True,
    help="Recorded frames survive every process (os), or loss of power (disk).",
)  # fmt: skip
def proxy(
    context: str | None,
    node: str,
    stream: str,
    name: str | None,
    output: Path | None,
    attrs: tuple[str, ...],
    samples: int | None,
    buffer_seconds: float | None,
    patience: float | None,
    durability: str,
) -> None:
    """Pass STREAM of the live NODE into shared memory until it ends, or until Ctrl-C.

    With -o, frames up to Ctrl-C, SIGTERM or SIGHUP are recorded. If the disk refuses,
    the command waits; a second signal ends it, and names the frames that are not on
    the disk.

    `ataraxis sources` lists the kinds;
    ataraxis.datamux.API().list_live_streams(NODE) lists the streams of a node.
    """
    from ataraxis.datamux import API

    options: dict[str, Any] = {"context": context, "buffer_seconds": buffer_seconds}
    pairs = dict(attr.partition("=")[::2] for attr in attrs)
    unsaved: dict[str, range] = {}
    try:
        with Ending(is_last=True) as ending, API() as api:
            if output is None:
                ack, close = _shared(
                    api, node, stream, pairs, name, patience, samples, options
                )
            else:
                ack = api.record_live_stream(
                    node, stream, pairs, output, name, samples=samples,
                    patience=patience, durability=durability, **options,
                )  # fmt: skip
                sink = ack.task.sink
                close, unsaved = sink.close, sink.unsaved
                sink.release, sink.on_refusal = ending.second, _refused
            while not ack.task.is_done and not ending.first.wait(_LOOK_S):
                pass
            hurried = None
            while not ack.task.stop(_LOOK_S):
                if ending.second.is_set():
                    hurried = hurried or time.monotonic()
                    if time.monotonic() - hurried > _HURRY_S:
                        break  # the code of the source does not return
            end = ack.task.end or End("stopped", None)
            found = ack.task.statistics()
            close()
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    say(f"{name or stream}: {found.samples} samples, {found.lost} lost")
    for made, frames in unsaved.items():
        say(f"{made}: {unsaved_text(frames)}: dropped by {ending.name}", is_error=True)
    for reason in found.reconnects:
        say(f"  reopened: {reason}")
    if end.error is not None:
        raise click.ClickException(str(end.error))
    if unsaved:
        sys.exit(1)


def _refused(error: Exception) -> None:
    say(still(error), is_error=True)


def _shared(
    api: Any,
    node: str,
    stream: str,
    attrs: dict[str, str],
    name: str | None,
    patience: float | None,
    samples: int | None,
    options: dict[str, Any],
) -> Any:
    """Start passing a stream into shared memory, without a journal."""
    from ataraxis.datamux import producer_of

    source = api.open_source(node, stream, attrs)
    described = source.stream
    source.close()
    producer = producer_of(described, name or stream, samples=samples, **options)
    try:
        ack = api.proxy_live_stream(node, stream, attrs, producer, patience=patience)
        return ack, producer.close
    except BaseException:
        producer.unlink()
        raise


# ---- mirror: of another host of the lab, or of a server of the remote API

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(short_help="Mirror HOST:STREAM, or URL STREAM, here.")
@in_context
@click.argument("source", metavar="HOST:STREAM | URL")
@click.argument("stream", required=False)
@click.option("--as", "name", help="Name here; by default STREAM.")
@click.option(
    "--policy", type=click.Choice(["lossless", "lossy", "latest"]),
    help="How the stream is read there. [default: lossless]",
)  # fmt: skip
@click.option("--detach", is_flag=True, help="HOST: leave the mirror to the agent.")
@click.option("--end", "is_ending", is_flag=True, help="HOST: end a mirror.")
@click.option(
    "--acknowledge", type=click.Choice(["ring", "recorded"]),
    help="HOST: it forgets a frame that is in the ring here, or recorded here.",
)  # fmt: skip
@click.option(
    "--on-spool-full", type=click.Choice(["wait", "lose"]),
    help="HOST: what it does when its disk is full: wait, or lose and count frames.",
)  # fmt: skip
@click.option("--timeout", type=float, help="HOST: how long to wait for STREAM, s.")
@click.option("--node", help="URL: node of the server. [default: shared]")
@click.option("-c", "--codec", help="URL: how frames are coded. [default: frame]")
@click.option("--token-file", type=_FILE, help="URL: contains its token (mode 0600).")
@click.option(
    "--certificate", type=_FILE, help="URL: certificate of it or its authority, PEM."
)
@click.option(
    "--patience", type=float,
    help="URL: how long to try to reconnect after a break, s. [default: 30]",
)  # fmt: skip
def mirror(
    context: str | None,
    source: str,
    stream: str | None,
    name: str | None,
    policy: str | None,
    **options: Any,
) -> None:
    """Mirror a stream of another machine in shared memory here.

    HOST:STREAM: of a host of the lab (see `ataraxis hosts`), by the agent of this
    host. No frame is lost or repeated, whatever breaks. URL STREAM: of the server at
    URL (ws://host:port); frames are lost when the connection breaks for long.

    Consumers, `ataraxis record` and others can read it until it ends or Ctrl-C. The
    exit code is 1 if it was lost.
    """
    of_host = {"detach", "is_ending", "acknowledge", "on_spool_full", "timeout"}
    is_url = "://" in source
    if is_url == (stream is None):
        raise click.UsageError(
            "give HOST:STREAM, as acq:camera, or a URL and a STREAM, as "
            "ws://192.0.2.10:8765 camera"
        )
    given = {key: value for key, value in options.items() if value not in (None, False)}
    if wrong := sorted(k for k in given if (k in of_host) == is_url):
        named = ", ".join("--" + k.removeprefix("is_").replace("_", "-") for k in wrong)
        raise click.UsageError(f"{named} has no effect for {source!r}")
    if policy is not None:
        given["policy"] = policy
    if is_url:
        _mirror_url(context, source, stream or "", name, **given)
        return
    given["detached"] = given.pop("detach", False)
    is_ending, timeout = given.pop("is_ending", False), given.pop("timeout", None)
    mirror_host(source, name, context, is_ending=is_ending, timeout=timeout, **given)


def _mirror_url(
    context: str | None,
    url: str,
    stream: str,
    name: str | None,
    *,
    policy: str | None = None,
    node: str = "shared",
    codec: str = "frame",
    token_file: Path | None = None,
    certificate: Path | None = None,
    patience: float = 30.0,
) -> None:
    from ataraxis.datamux.remote.access import token_from
    from ataraxis.datamux.remote.mirror import Mirror
    from ataraxis.errors import AtaraxisError

    with showing_errors():
        try:
            token = None if token_file is None else token_from(token_file)
            with Mirror(
                url, stream, name, node_id=node, codec_name=codec, token=token,
                attrs={} if policy is None else {"policy": policy},
                tls=None if certificate is None else str(certificate),
                patience=patience, context=context,
            ) as made:  # fmt: skip
                click.echo(f"mirroring {stream!r} of {url} as {name or stream!r}")
                end = made.wait()
        except KeyboardInterrupt:
            return
        except (AtaraxisError, ValueError, ModuleNotFoundError) as error:
            raise click.ClickException(str(error)) from error
    if end.reason != "completed":
        raise click.ClickException(f"{stream!r} ended: {end.reason}: {end.error}")
    click.echo(f"{stream!r} has ended")


@click.command(short_help="Show what the recording PATH holds.")
@as_json_too
@click.argument("path", type=click.Path(path_type=Path))
def info(path: Path, as_json: bool) -> None:
    """Show the streams of PATH: samples, rate, dtype, fields, units, span and gaps.

    PATH is a log or session of ataraxis, or a file or folder of another program that
    `ataraxis.datamux.open_recordings` opens. Values are not read where the format
    allows that. A stream that cannot be read is named below the others.
    """
    from ataraxis import screen
    from ataraxis.datamux.summary import summarize

    with showing_errors(), warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        rows = summarize(path)
    notes = [str(w.message) for w in left_out if w.category is RuntimeWarning]
    if as_json:
        streams = [row.as_dict() for row in rows]
        click.echo(json.dumps({"streams": streams, "left_out": notes}))
        return
    if rows:
        screen.console().print(screen.recordings(rows))
    else:
        click.echo(f"{path} holds no stream")
    for note in notes:
        click.echo(note, err=True)
