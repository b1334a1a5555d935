"""What several commands take, and how they tell what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

in_context = click.option(
    "--context", help="Directory of segments; your own by default."
)
as_json_too = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def told() -> Iterator[None]:
    """Tell what is wrong with a context in a line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error
