"""Commands of live sources and of the remote API: proxy, serve and mirror."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from ataraxis.cli.options import in_context, say, still, told, with_mode
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.server import serve
from ataraxis.session.stream_recorder import unsaved_text
from ataraxis.shm.process import Ending

__all__ = ["mirror", "proxy", "serve"]

_LOOK_S, _HURRY_S = 0.05, 5.0


@click.command(short_help="Pass STREAM of the live NODE into shared memory.")
@in_context
@with_mode
@click.argument("node")
@click.argument("stream")
@click.option("--name", help="Of the stream in shared memory; STREAM, if not given.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Record it there, too: a journal, and what is known of its clock.",
)  # fmt: skip
@click.option(
    "--attr", "attrs", multiple=True, metavar="KEY=VALUE",
    help="What the kind of source takes; may be given again.",
)  # fmt: skip
@click.option("--samples", type=click.IntRange(1), help="Samples a frame; one.")
@click.option("--buffer-seconds", type=float, help="How much the ring holds, s.")
@click.option(
    "--patience", type=float, help="How long to wait for a source that went, s; no end."
)
@click.option(
    "--durability", type=click.Choice(["os", "disk"]), default="os", show_default=True,
    help="What recorded frames survive: every process, or also the loss of power.",
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

    Ctrl-C, SIGTERM or SIGHUP: what came until then is recorded, with -o. While the disk
    refuses, that goes on; a second signal ends it, and the frames that are not on the
    disk are named.

    `ataraxis sources` lists the kinds; a node's streams are what
    ataraxis.datamux.API().list_live_streams(NODE) says.
    """
    from ataraxis.datamux import API

    options: dict[str, Any] = {"context": context, "buffer_seconds": buffer_seconds}
    said = dict(attr.partition("=")[::2] for attr in attrs)
    unsaved: dict[str, range] = {}
    try:
        with Ending(is_last=True) as ending, API() as api:
            if output is None:
                ack, close = _shared(
                    api, node, stream, said, name, patience, samples, options
                )
            else:
                ack = api.record_live_stream(
                    node, stream, said, output, name, samples=samples,
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
                        break  # the source's own code does not come back
            end = ack.task.end or End("stopped", None)
            found = ack.task.statistics()
            close()
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    say(f"{name or stream}: {found.samples} samples, {found.lost} lost")
    for made, frames in unsaved.items():
        say(f"{made}: {unsaved_text(frames)}: let go by {ending.name}", is_error=True)
    for reason in found.reconnects:
        say(f"  opened again: {reason}")
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
    """Begin to pass a stream on into shared memory alone."""
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


# ---- Commands of the remote API: serve and mirror

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(short_help="Make STREAM of the server at URL one of ours.")
@in_context
@click.argument("url")
@click.argument("stream")
@click.option("--as", "name", help="What to call it here; STREAM by default.")
@click.option("--node", default="shared", show_default=True, help="Of the server.")
@click.option(
    "--policy", type=click.Choice(["lossless", "lossy", "latest"]),
    help="How the server reads a shared stream. [default: lossless]",
)  # fmt: skip
@click.option("-c", "--codec", default="frame", show_default=True)
@click.option("--token-file", type=_FILE, help="Holds the server's token (mode 0600).")
@click.option("--certificate", type=_FILE, help="Of the server, or its authority, PEM.")
@click.option(
    "--patience", default=30.0, show_default=True,
    help="How long to try to come back when the connection breaks, s.",
)  # fmt: skip
def mirror(
    context: str | None,
    url: str,
    stream: str,
    name: str | None,
    node: str,
    policy: str | None,
    codec: str,
    token_file: Path | None,
    certificate: Path | None,
    patience: float,
) -> None:
    """Make STREAM of the server at URL (ws://host:port) a stream of this machine.

    It is in shared memory then, for consumers, `ataraxis record` and everything else,
    until it ends or Ctrl-C. The exit code is 1 if it was lost.
    """
    from ataraxis.datamux.remote.access import token_from
    from ataraxis.datamux.remote.mirror import Mirror
    from ataraxis.errors import AtaraxisError

    with told():
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
