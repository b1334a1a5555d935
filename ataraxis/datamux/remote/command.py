"""The command ``serve``: an API for others, until it is told to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("-H", "--host", default="127.0.0.1", show_default=True, help="Where.")
@click.option("-p", "--port", default=8765, show_default=True, help="0: a free one.")
@click.option("-r", "--rpc", default="websocket", show_default=True, help="Transport.")
@click.option(
    "-c", "--codec", "codecs", multiple=True,
    help="frame, json or msgpack; may be repeated. [default: all]",
)  # fmt: skip
@click.option("--data_dir", "--data-dir", help="Holds the recordings.")
@click.option("--meta_dir", "--meta-dir", help="Holds the descriptions.")
@click.option(
    "--token-file", type=_FILE,
    help="Clients must show what is in it (mode 0600); made if it is not there.",
)  # fmt: skip
@click.option("--certificate", type=_FILE, help="Of this server, PEM: TLS.")
@click.option("--key", type=_FILE, help="Of the certificate, PEM.")
@click.option("--origin", "origins", multiple=True, help="A web page that may connect.")
@click.option("--name", "names", multiple=True, help="Another name of this server.")
@click.option("--clients", type=click.IntRange(1), help="Most clients at a time.")
def serve(
    host: str,
    port: int,
    rpc: str,
    codecs: tuple[str, ...],
    data_dir: str | None,
    meta_dir: str | None,
    token_file: Path | None,
    certificate: Path | None,
    key: Path | None,
    origins: tuple[str, ...],
    names: tuple[str, ...],
    clients: int | None,
) -> None:
    """Serve collections and live sources of this machine to RemoteAPI.

    Beyond this machine (-H other than 127.0.0.1) only with --certificate and
    --token-file. Ends at Ctrl-C or SIGTERM.
    """
    from ataraxis.datamux.api import API
    from ataraxis.datamux.remote.access import token_from
    from ataraxis.datamux.remote.codec import CODECS
    from ataraxis.datamux.remote.limits import Limits
    from ataraxis.datamux.remote.server import Server
    from ataraxis.errors import AtaraxisError

    # Waited for, not handled: no thread is interrupted at a bad moment.
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    limits = Limits() if clients is None else Limits(clients=clients)
    try:
        token = os.environ.get("ATARAXIS_TOKEN") or None
        if token_file is not None:
            token = token_from(token_file, is_made=True)
        server = Server(
            API(data_dir, meta_dir), host, port, rpc, codecs or CODECS,
            token=token, certificate=certificate, key=key, origins=origins,
            names=names, limits=limits,
        )  # fmt: skip
        with server:
            click.echo(_greeting(server, token_file))
            signal.sigwait(ends)
    except (AtaraxisError, OSError, ModuleNotFoundError) as error:
        raise click.ClickException(f"cannot serve on {host}:{port}: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _greeting(server: Any, token_file: Path | None) -> str:
    place = f"[{server.host}]" if ":" in server.host else server.host
    scheme = "wss" if server.is_secure else "ws"
    shown = f", token in {token_file}" if token_file else ""
    return f"serving on {scheme}://{place}:{server.port}{shown}"
