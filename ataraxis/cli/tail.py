"""Show a stream as lines, for people on ssh: the commands tail and hz."""

from __future__ import annotations

import click

from ataraxis.cli.options import as_json_too, in_context, say, showing_errors


@click.command(short_help="Print the frames of a stream as they come.")
@click.argument("stream")
@in_context
@as_json_too
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many lines.")
@click.option(
    "--most", type=click.FloatRange(0), default=10.0, show_default=True,
    help="Most lines a second; 0: every frame.",
)  # fmt: skip
def tail(
    stream: str, context: str | None, as_json: bool, count: int | None, most: float
) -> None:
    """Print the frames of STREAM: time, number, range, mean, and their course.

    No producer waits for it. It ends with the stream, or with Ctrl-C.
    """
    from ataraxis.shm.process import Ending
    from ataraxis.viewer.terminal import StreamLines

    with showing_errors(), Ending() as ending:
        lines = StreamLines(stream, context)
        try:
            for number, line in enumerate(lines.lines(most, ending.first.is_set), 1):
                say(line.as_json() if as_json else str(line))
                if number == count:
                    break
        finally:
            lines.close()


@click.command(short_help="Measure the rate of a stream.")
@click.argument("stream")
@in_context
@as_json_too
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many lines.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True,
    help="Time over which it is measured, s.",
)  # fmt: skip
def hz(
    stream: str, context: str | None, as_json: bool, count: int | None, interval: float
) -> None:
    """Print the rate of STREAM, and the times between its frames by their stamps.

    The bars are the rates so far. No producer waits for it. It ends with the stream, or
    with Ctrl-C.
    """
    from ataraxis.shm.process import Ending
    from ataraxis.viewer.terminal import RateMeter, spark

    rates: list[float] = []
    shown = 0
    with showing_errors(), Ending() as ending:
        meter = RateMeter(stream, context)
        try:
            while not ending.first.is_set() and not meter.is_over:
                line = meter.measure(interval, ending.first.is_set)
                rates = [*rates[-31:], line.hz]
                say(line.as_json() if as_json else f"{line}  {spark(rates, 32)}")
                shown += 1
                if shown == count:
                    break
        finally:
            meter.close()
