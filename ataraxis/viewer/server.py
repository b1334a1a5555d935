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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ataraxis.errors import AtaraxisError, BadMessage, EndOfStream
from ataraxis.log.optional import need
from ataraxis.session.events import EVENT, EVENTS
from ataraxis.shm.context import ContextLike
from ataraxis.shm.process import SIGNALS
from ataraxis.stream import Consumer
from ataraxis.viewer.door import Door
from ataraxis.viewer.page import MOST_BYTES, Page
from ataraxis.viewer.tap import LABEL, Tap
from ataraxis.viewer.watch import StreamWatch

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

ADDRESS = "127.0.0.1"
MOST_PAGES = 8
WATCH_S = 0.5
_SHARE = 0.03
_EVENTS = 256
_NICE = 5
_TEXT = 200
_TOO_MANY, _BAD_MESSAGE = 1013, 1003

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
        self.pages: dict[Page, asyncio.Queue[bytes]] = {}
        self._watch = StreamWatch(options.context, options.names)
        self._words: dict[str, Any] = {}
        self._taps: dict[str, Tap] = {}
        self._problems: dict[str, str] = {}
        self._retry_s: dict[str, float] = {}
        self._events = EventTap(options.context)
        self._has_pages = asyncio.Event()

    @property
    def url(self) -> str:
        """The link that opens the page."""
        root = self.options.root_path.rstrip("/")
        return f"http://{ADDRESS}:{self.port}{root}/?token={self.options.token}"

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
            self._look()
            on_ready(self)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._look_on())
                    tasks.create_task(self._pump())
            finally:
                self._close_taps(set())

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
        page, queue = Page(self._watch), asyncio.Queue[bytes]()
        self.pages[page] = queue
        self._has_pages.set()
        sender = asyncio.create_task(_send_on(socket, queue))
        try:
            async for message in socket:
                page.hear(message)
        except BadMessage as error:
            await socket.close(_BAD_MESSAGE, str(error)[:120])
        except ConnectionClosed:
            pass
        finally:
            del self.pages[page]
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await sender

    # ---- the watch

    async def _look_on(self) -> None:
        while True:
            began = time.perf_counter()
            self._look()
            took = time.perf_counter() - began
            await asyncio.sleep(max(WATCH_S, took / _SHARE))

    def _look(self) -> None:
        try:
            words = self._watch.look()
        except (AtaraxisError, OSError) as error:
            verdict = {"tone": "bad", "text": f"cannot be read: {error}"}
            words = {**self._words, "verdict": verdict}
        self._words = {**words, "pages": len(self.pages)}

    # ---- the pump: the only place that opens, reads and closes taps

    async def _pump(self) -> None:
        period = 1 / self.options.fps
        while True:
            if not self.pages:
                self._close_taps(set())
                self._has_pages.clear()
                await self._has_pages.wait()
            began = time.perf_counter()
            self._read()
            await asyncio.sleep(max(period - (time.perf_counter() - began), 0.001))

    def _read(self) -> None:
        """Take what has come, and offer it to the pages; nothing is awaited."""
        wanted = {p.stream for page in self.pages for p in page.panels.values()}
        self._close_taps(wanted)
        for name in wanted:
            tap = self._taps.get(name)
            current = self._watch.ids.get(name)
            if tap is not None and current not in (None, tap.stream_id):
                self._drop(name)
                tap = None
            if tap is None and current is not None:
                self._open(name)
        for name, tap in list(self._taps.items()):
            if not tap.is_open:
                continue
            try:
                if not tap.drain():
                    tap.close()
            except Exception as error:  # of one stream: the others go on
                self._fail(name, error)
        self._events.drain(self._watch.ids.get(EVENTS))
        events = self._events.found
        for page, queue in self.pages.items():
            data = page.next_bundle(self._taps, self._problems, self._words, events)
            if data is not None:
                queue.put_nowait(data)

    def _open(self, name: str) -> None:
        if time.monotonic() < self._retry_s.get(name, 0.0):
            return
        try:
            self._taps[name] = Tap(name, self.options.context, self.options.history_s)
            self._problems.pop(name, None)
        except (AtaraxisError, OSError, ValueError) as error:
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        self._problems[name] = f"{type(error).__name__}: {error}"[:_TEXT]
        self._retry_s[name] = time.monotonic() + WATCH_S
        self._drop(name)

    def _drop(self, name: str) -> None:
        tap = self._taps.pop(name, None)
        if tap is not None:
            tap.close()

    def _close_taps(self, wanted: set[str]) -> None:
        for name in self._taps.keys() - wanted:
            self._drop(name)
        for name in self._problems.keys() - wanted:
            del self._problems[name]
        if not self.pages:
            self._events.close()


_ASKED = ("Host", "Origin")


async def _send_on(socket: ServerConnection, queue: asyncio.Queue[bytes]) -> None:
    """Send the bundles of one page; the pump waits for no page."""
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.send(await queue.get())


class EventTap:
    """The newest events of a session, read with their stamps.

    Parameters
    ----------
    context : Context, str, Path or None
        Context of the stream "events".
    """

    def __init__(self, context: ContextLike) -> None:
        self._context = context
        self._reader: Consumer | None = None
        self._stream_id = ""
        self._count = 0
        self.found: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_EVENTS)
        """Number and description of each."""

    def drain(self, stream_id: str | None) -> None:
        """Take what has come; follow the stream of this identity."""
        if stream_id is None or stream_id != self._stream_id:
            self.close()
        if stream_id is None:
            return
        try:
            if self._reader is None:
                self._join()
            self._take()
        except EndOfStream:
            pass
        except (AtaraxisError, OSError, ValueError):
            self.close()

    def _join(self) -> None:
        self._reader = Consumer(
            EVENTS, policy="lossy", start="latest", label=LABEL, context=self._context
        )
        self._stream_id = self._reader.stream_id
        if self._reader.labels.dtype != EVENT:
            raise ValueError("not a stream of events")

    def _take(self) -> None:
        """Take what has come, copied in the kernel: a frame is held for no time."""
        assert self._reader is not None
        while True:
            try:
                block = self._reader.read_block(_EVENTS, timeout=0)
            except TimeoutError:
                return
            for row, time_ns in zip(block.data, block.time_ns.tolist(), strict=True):
                self._count += 1
                event = {
                    "time_ns": time_ns,
                    "name": str(row["event"]),
                    "data": str(row["data"])[:_TEXT],
                }
                self.found.append((self._count, event))
            if not len(block):
                return

    def close(self) -> None:
        """Leave the stream."""
        reader, self._reader = self._reader, None
        self._stream_id = ""
        if reader is not None:
            reader.close()


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
