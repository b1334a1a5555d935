"""What a session holds, as a page or a drawing: commands report and plot."""

from __future__ import annotations

from pathlib import Path

import click

from ataraxis.cli.options import say, showing_errors


@click.command(short_help="Write what SESSION holds as one HTML file.")
@click.argument("session", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The file; by default report.html in SESSION.",
)  # fmt: skip
@click.option("--verify", is_flag=True, help="Read and check every byte first.")
@click.option("--open", "opens", is_flag=True, help="Open it in a browser.")
def report(session: Path, output: Path | None, verify: bool, opens: bool) -> None:
    """Write the verdict of SESSION, its timeline, streams, events and log.

    The file contains everything: no script, no request. The exit code is 1 if the
    session is not to be trusted.
    """
    from ataraxis.viewer.report import write_report

    with showing_errors():
        path, good = write_report(session, output, verify=verify)
    say(str(path))
    if opens:
        click.launch(str(path))
    if not good:
        raise SystemExit(1)


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
