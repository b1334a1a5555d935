"""What several commands take, and how they tell what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

in_context = click.option(
    "--context", help="Directory of segments; your own by default."
)
as_json_too = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _set_mode(context: Any, parameter: Any, mode: str | None) -> None:
    """Hand the mode of recordings on to every process that this one starts."""
    if mode is None:
        return
    from ataraxis.log.modes import VARIABLE, checked_mode

    try:
        checked_mode(mode)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    os.environ[VARIABLE] = mode


with_mode = click.option(
    "--mode", callback=_set_mode, expose_value=False, metavar="OCTAL",
    help="Permission bits of the files, as 0640; 0600, your own alone, by default.",
)  # fmt: skip


@contextmanager
def told() -> Iterator[None]:
    """Tell what is wrong with a context in a line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error


def say(text: str, *, is_error: bool = False) -> None:
    """Print a line, if the terminal is still there: work goes on without one."""
    with suppress(OSError):
        click.echo(text, err=is_error)


def still(why: object) -> str:
    """Say what a command does that was told to end and cannot yet."""
    return (
        f"{why}. Not over yet: what is not on the disk stays in shared memory, and "
        "its producers wait. Make room, and it ends; or send the signal again, and "
        "they go on without it"
    )


# ---- a bar for each thing that is worked on, on the terminal's error channel


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Lend a function that is told of steps: ``told(name, of, done_now)``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    from ataraxis.screen import plain

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def told(name: str, total: int, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(escape(plain(name)), total=total)
            bar.advance(tasks[name], done)

        yield told
