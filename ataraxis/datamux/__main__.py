"""``python -m ataraxis.datamux COMMAND``: the commands that the seed prints."""

from __future__ import annotations

from pathlib import Path

import click

from ataraxis.datamux.remote.server import serve
from ataraxis.datamux.streaminghub.util import Settings, expand


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Proxy, replay and simulate streams."""


@main.command()
@click.option(
    "--data_dir", "--data-dir", default="$HOME/streaminghub", show_default=True,
    help="Contains a folder of recordings per collection.",
)  # fmt: skip
@click.option(
    "--meta_dir", "--meta-dir", default="$HOME/streaminghub", show_default=True,
    help="Contains the descriptions of collections.",
)  # fmt: skip
def init(data_dir: str, meta_dir: str) -> None:
    """Set the folders of data and metadata, in $HOME/.streaminghubrc."""
    try:
        path = Settings(expand(data_dir), expand(meta_dir)).save()
    except OSError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"data in {expand(data_dir)}, metadata in {expand(meta_dir)}: {path}")
    shadow = Path.cwd() / path.name
    if shadow != path and shadow.is_file():
        click.echo(f"note: {shadow} takes precedence in this folder", err=True)


main.add_command(serve)

if __name__ == "__main__":
    main(prog_name="python -m ataraxis.datamux")
