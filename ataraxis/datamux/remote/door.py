"""The door of a server: who is let in, and how many at a time."""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable
from typing import Any

from ataraxis.datamux.remote.access import Access
from ataraxis.datamux.remote.limits import Limits

PROTOCOL = "ataraxis.1."
"""What the name of a codec follows in ``Sec-WebSocket-Protocol``."""
PATHS = ("/", "/ws")


class Door:
    """Lets connections in, or says why not."""

    def __init__(
        self,
        module: Any,
        codecs: tuple[str, ...],
        access: Access,
        limits: Limits,
        serve: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._codecs = codecs
        self._access = access
        self._limits = limits
        self._serve = serve
        self._waiting: set[Any] = set()
        self._open = 0
        door = self

        class Counted(module.ServerConnection):  # type: ignore[misc]
            """A connection that is counted until it has said who it is."""

            def connection_made(self, transport: Any) -> None:
                """Let it wait, unless too many do."""
                super().connection_made(transport)
                if len(door._waiting) >= limits.handshakes:
                    transport.abort()
                else:
                    door._waiting.add(self)

            def connection_lost(self, error: Exception | None) -> None:
                """Forget it."""
                door._waiting.discard(self)
                super().connection_lost(error)

        self.connection = Counted

    def refuse(self, socket: Any, request: Any) -> Any:
        """Return the answer to a request that is refused; None if it is not."""
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        path = request.path.partition("?")[0]
        refusal = self._access.refusal(headers)
        offered = headers.get("sec-websocket-protocol", "")
        if path not in PATHS:
            refusal = 404, f"nothing is at {path[:80]!r}: connect to /ws"
        elif refusal is None and not self._chosen(offered.split(",")):
            spoken = ", ".join(self._codecs)
            refusal = 400, f"this server speaks {spoken}, not {offered[:80]!r}"
        elif refusal is None and self._open >= self._limits.clients:
            refusal = 503, f"{self._open} clients are here already: come again later"
        if refusal is None:
            return None
        return socket.respond(http.HTTPStatus(refusal[0]), refusal[1] + "\n")

    def _chosen(self, offered: list[str]) -> str | None:
        spoken = {PROTOCOL + codec for codec in self._codecs}
        return next((n for n in map(str.strip, offered) if n in spoken), None)

    def choose(self, socket: Any, offered: list[str]) -> str | None:
        """Return the subprotocol."""
        return self._chosen(offered)

    async def serve(self, socket: Any) -> None:
        """Serve a connection that was let in."""
        self._waiting.discard(socket)
        self._open += 1
        try:
            await self._serve(socket)
        finally:
            self._open -= 1
