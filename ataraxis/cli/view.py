"""Show what runs on a page in a browser: the command view."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ataraxis.cli.options import as_json_too, in_context, say, showing_errors

if TYPE_CHECKING:
    from ataraxis.viewer.server import ViewServer


@click.command(short_help="Show what runs on a page in a browser.")
@click.argument("names", nargs=-1)
@in_context
@as_json_too
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0,
    help="Port on 127.0.0.1; a free one by default.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", hidden=True)
@click.option("--open/--no-open", "opens", default=True, help="Open a browser.")
@click.option(
    "--seconds", type=click.FloatRange(0.01, 3600), default=2.0, show_default=True,
    help="Width of the traces.",
)  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(1, 240), default=60.0, show_default=True,
    help="Most updates a second.",
)  # fmt: skip
@click.option(
    "--history", type=click.FloatRange(1, 3600), default=60.0, show_default=True,
    help="How long columns are kept, s.",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path),
    help="File with the token, that only its owner can read; or "
    "$ATARAXIS_VIEW_TOKEN; a new one by default.",
)  # fmt: skip
@click.option(
    "--root-path", default="", help="Path in front, of a proxy: /user/me/proxy/8787."
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME",
    help="Further name that pages may be asked by.",
)  # fmt: skip
def view(
    names: tuple[str, ...],
    context: str | None,
    as_json: bool,
    port: int,
    host: str,
    opens: bool,
    seconds: float,
    fps: float,
    history: float,
    token_file: Path | None,
    root_path: str,
    allow_host: tuple[str, ...],
) -> None:
    """Show streams, readers and pipes while they run; no producer waits for it.

    NAMES are streams, all of the context by default, or one directory of a session:
    its streams while it is recorded, else the recording, from hours to single samples.
    Prints the link of the page. It ends with Ctrl-C.
    """
    from ataraxis.viewer.door import VARIABLE, token_of
    from ataraxis.viewer.server import ViewOptions, serve_until_told
    from ataraxis.viewer.view import open_in_browser, recording_of, streams_of

    if host not in ("127.0.0.1", "localhost"):
        raise click.ClickException(
            "the page is served on 127.0.0.1 only. On the machine where you look: "
            f"ssh -L {port or 8787}:127.0.0.1:{port or 8787} you@rig"
        )
    with showing_errors(ValueError, ImportError):
        recording = recording_of(names)
        streams, place = ((), "") if recording else streams_of(names, context)
        options = ViewOptions(
            streams, place, port, fps, history, allow_host, root_path,
            token_of(token_file), recording,
        )  # fmt: skip
        os.environ.pop(VARIABLE, None)
        pages: list[Path] = []

        def tell(server: ViewServer) -> None:
            link = server.url if recording else f"{server.url}#seconds={seconds:g}"
            if as_json:
                say(json.dumps({"url": link, "port": server.port, "pid": os.getpid()}))
                return
            say(link)
            say(
                "from another machine: "
                f"ssh -L {server.port}:127.0.0.1:{server.port} you@rig"
            )
            if opens and os.environ.get("DISPLAY", os.environ.get("WAYLAND_DISPLAY")):
                pages.append(open_in_browser(link))

        try:
            serve_until_told(options, tell, with_input=False)
        finally:
            for page in pages:
                shutil.rmtree(page.parent, ignore_errors=True)
