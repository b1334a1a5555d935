"""Commands of the remote API: serve and mirror."""

from __future__ import annotations

from pathlib import Path

import click

from ataraxis.cli.options import in_context, told
from ataraxis.datamux.remote.server import serve

__all__ = ["mirror", "serve"]
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
