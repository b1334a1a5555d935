"""Draw a session: the command plot."""

from __future__ import annotations

from pathlib import Path

import click

from ataraxis.cli.options import say, showing_errors


@click.command(short_help="Draw SESSION, or its trials, as one SVG file.")
@click.argument("session", type=click.Path(path_type=Path))
@click.option(
    "--around", metavar="EVENT",
    help="Draw the trials around these events: rasters, rates, means.",
)  # fmt: skip
@click.option(
    "--stream", "streams", multiple=True, metavar="NAME",
    help="Stream, or further event; may be repeated. By default some of each kind.",
)  # fmt: skip
@click.option(
    "--before", type=click.FloatRange(0, 3600), default=0.5, show_default=True,
    help="Length of a trial before the event, s.",
)  # fmt: skip
@click.option(
    "--after", type=click.FloatRange(0, 3600), default=1.0, show_default=True,
    help="Length of a trial after the event, s.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The file; by default plot.svg or around-EVENT.svg in SESSION.",
)  # fmt: skip
def plot(
    session: Path,
    around: str | None,
    streams: tuple[str, ...],
    before: float,
    after: float,
    output: Path | None,
) -> None:
    """Draw SESSION as one SVG file: when frames came, and a second of each stream.

    With --around, its trials around an event.
    """
    from ataraxis.viewer.plot import plot as draw

    with showing_errors(KeyError, ValueError):
        path = draw(
            session, output, around=around, streams=streams, before=before, after=after
        )
    say(str(path))
