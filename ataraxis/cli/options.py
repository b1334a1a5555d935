"""Options and messages that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

in_context = click.option(
    "--context", help="Directory of segments; the user's default."
)
as_json_too = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _set_mode(context: Any, parameter: Any, mode: str | None) -> None:
    """Pass the mode of recordings to all processes that are started."""
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
    help="Permission bits of the files, such as 0640; 0600 by default.",
)  # fmt: skip


@contextmanager
def showing_errors(*errors: type[Exception]) -> Iterator[None]:
    """Show system errors, those of ataraxis, and others given, as a line."""
    from ataraxis.errors import AtaraxisError

    shown: tuple[type[Exception], ...] = (OSError, AtaraxisError, *errors)
    try:
        yield
    except BrokenPipeError:
        raise
    except shown as error:
        raise click.ClickException(str(error)) from error


def say(text: str, *, is_error: bool = False) -> None:
    """Print a line; go on if the terminal was closed."""
    with suppress(OSError):
        click.echo(text, err=is_error)


def still(why: object) -> str:
    """Return the message of a command that cannot end yet."""
    return (
        f"{why}. Not over yet: frames that are not on the disk stay in shared memory, "
        "and their producers wait. Free space, and the command ends; or send the "
        "signal again, and they go on without it"
    )


# ---- progress bars, on standard error


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows progress: ``show(name, total, done_now)``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    from ataraxis.screen import plain

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, total: int, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(escape(plain(name)), total=total)
            bar.advance(tasks[name], done)

        yield show
