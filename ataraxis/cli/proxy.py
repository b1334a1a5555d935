"""Command of live sources: proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ataraxis.cli.options import in_context, with_mode


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

    `ataraxis sources` lists the kinds; a node's streams are what
    ataraxis.datamux.API().list_live_streams(NODE) says.
    """
    from ataraxis.datamux import API

    options: dict[str, Any] = {"context": context, "buffer_seconds": buffer_seconds}
    said = dict(attr.partition("=")[::2] for attr in attrs)
    try:
        with API() as api:
            if output is None:
                ack, close = _shared(
                    api, node, stream, said, name, patience, samples, options
                )
            else:
                ack = api.record_live_stream(
                    node, stream, said, output, name, samples=samples,
                    patience=patience, durability=durability, **options,
                )  # fmt: skip
                close = ack.task.sink.close
            try:
                end = ack.wait()
            except KeyboardInterrupt:
                api.stop()
                end = ack.wait(20)
            found = ack.task.statistics()
            close()
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name or stream}: {found.samples} samples, {found.lost} lost")
    for reason in found.reconnects:
        click.echo(f"  opened again: {reason}")
    if end.error is not None:
        raise click.ClickException(str(end.error))


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
