"""Server: one process and one loop for all pages: HTTP, sockets, taps, the watch.

It writes nothing into shared memory but the slots of lossy readers, so that it may be
stopped or killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ataraxis.errors import BadMessage
from ataraxis.log.optional import need
from ataraxis.shm.process import SIGNALS
from ataraxis.viewer.door import Door
from ataraxis.viewer.page import MOST_BYTES, Page
from ataraxis.viewer.pump import WATCH_S, Pump
from ataraxis.viewer.recorded_page import RecordedPage, RecordedPump

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

ADDRESS = "127.0.0.1"
MOST_PAGES = 8
_SHARE = 0.03
_NICE = 5
_TOO_MANY, _BAD_MESSAGE, _INTERNAL = 1013, 1003, 1011

_log = logging.getLogger("ataraxis.viewer")
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class ViewOptions:
    """What is shown, and to whom."""

    names: tuple[str, ...] = ()
    """Streams; all of the context by default."""
    context: str | None = None
    port: int = 0
    fps: float = 60.0
    history_s: float = 60.0
    allow_hosts: tuple[str, ...] = ()
    root_path: str = ""
    token: str = field(default="", repr=False)
    recording: str = ""
    """Directory of a session that has ended, or another log, instead of streams."""


class ViewServer:
    """Serves pages until `run` is cancelled.

    Parameters
    ----------
    options : ViewOptions
        What is shown, and to whom.
    """

    def __init__(self, options: ViewOptions) -> None:
        self.options = options
        self.port = 0
        self.pages: dict[Any, asyncio.Queue[bytes | None]] = {}
        self._pump: Pump | RecordedPump = (
            RecordedPump(options.recording) if options.recording
            else Pump(options.context, options.names, options.history_s)
        )  # fmt: skip
        self._has_pages = asyncio.Event()

    @property
    def url(self) -> str:
        """The link that opens the page."""
        root = self.options.root_path.rstrip("/")
        page = "recording.html" if self.options.recording else ""
        return f"http://{ADDRESS}:{self.port}{root}/{page}?token={self.options.token}"

    async def run(self, on_ready: Callable[[ViewServer], object]) -> None:
        """Serve; call `on_ready` once pages can be opened."""
        from websockets.asyncio.server import serve

        async with serve(
            self._serve_page, ADDRESS, self.options.port, process_request=self._answer,
            compression=None, max_size=MOST_BYTES, server_header=None, logger=_log,
            open_timeout=10, close_timeout=1,
        ) as server:  # fmt: skip
            self.port = server.sockets[0].getsockname()[1]
            options = self.options
            self._door = Door(
                self.port, options.token, options.allow_hosts, options.root_path
            )
            self._pump.look(0)
            on_ready(self)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._look_on())
                    tasks.create_task(self._pump_on())
            finally:
                self._pump.end()

    # ---- requests and sockets

    def _answer(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        from websockets.datastructures import Headers
        from websockets.http11 import Response

        method = getattr(request, "method", "GET")
        given = {key: ", ".join(request.headers.get_all(key)) for key in _ASKED}
        headers = {key: value for key, value in given.items() if value}
        answer = self._door.answer(method, request.path, headers)
        if answer.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        about = Headers({**answer.headers, "Connection": "close"})
        return Response(answer.status, answer.status.phrase, about, answer.body)

    async def _serve_page(self, socket: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        if len(self.pages) >= MOST_PAGES:
            await socket.close(_TOO_MANY, f"{MOST_PAGES} pages are open: close one")
            return
        page: Page | RecordedPage = self._pump.new_page()
        queue = asyncio.Queue[bytes | None]()
        self.pages[page] = queue
        self._has_pages.set()
        sender = asyncio.create_task(_send_on(socket, queue))
        try:
            async for message in socket:
                page.hear(message)
        except BadMessage as error:
            reason = str(error).encode()[:120].decode(errors="ignore")
            await socket.close(_BAD_MESSAGE, reason)
        except ConnectionClosed:
            pass
        finally:
            del self.pages[page]
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await sender

    # ---- the watch and the pump

    async def _look_on(self) -> None:
        while True:
            began = time.thread_time()
            self._pump.look(len(self.pages))
            used = time.thread_time() - began
            await asyncio.sleep(max(WATCH_S, used / _SHARE))

    async def _pump_on(self) -> None:
        period = 1 / self.options.fps
        while True:
            if not self.pages:
                self._pump.step(())
                self._has_pages.clear()
                await self._has_pages.wait()
            began = time.perf_counter()
            for page, data in self._pump.step([*self.pages]):
                self.pages[page].put_nowait(data)
            await asyncio.sleep(max(period - (time.perf_counter() - began), 0.001))


_ASKED = ("Host", "Origin")


async def _send_on(
    socket: ServerConnection, queue: asyncio.Queue[bytes | None]
) -> None:
    """Send the bundles of one page; the pump waits for no page."""
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        while (data := await queue.get()) is not None:
            await socket.send(data)
        await socket.close(_INTERNAL, "a bundle could not be made: see the log")


# ---- a process that serves


def serve_until_told(
    options: ViewOptions, on_ready: Callable[[ViewServer], object], *, with_input: bool
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; `with_input` also until its input ends.

    Raises `ModuleNotFoundError` without the extra, `OSError` if the port is taken.
    """
    need("websockets.asyncio.server", "view", "ataraxis view")
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    asyncio.run(_serve(options, on_ready, with_input))


async def _serve(
    options: ViewOptions, on_ready: Callable[[ViewServer], object], with_input: bool
) -> None:
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, is_over.set)
    if with_input:
        loop.add_reader(sys.stdin.fileno(), is_over.set)
    serving = asyncio.create_task(ViewServer(options).run(on_ready))
    ended = asyncio.create_task(is_over.wait())
    try:
        await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
