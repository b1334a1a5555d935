"""The server of a remote API: a listener and its clients, in a thread."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import click

from ataraxis.config.limits import FILES, Limits, table
from ataraxis.datamux.api import API
from ataraxis.datamux.price import Ledger
from ataraxis.datamux.remote.access import Access, is_loopback, token_from, unix_path
from ataraxis.datamux.remote.codec import CODECS, Message, codec_of
from ataraxis.datamux.remote.connection import (
    ClientConnection,
    ServerLimits,
    Transform,
    Transforms,
)
from ataraxis.datamux.remote.gate import UNIX
from ataraxis.datamux.remote.loop_thread import LoopThread
from ataraxis.datamux.remote.outbound import Total
from ataraxis.datamux.remote.transport import (
    GOING_AWAY,
    Connection,
    ConnectionLost,
    Listener,
    refuse,
    transport_of,
)
from ataraxis.errors import AtaraxisError, BadMessage, NotConnectedError, RemoteError
from ataraxis.shm.process import Ending
from ataraxis.shm.thread import Thread

VERSION = 1
_THREADS = 6
_SWITCH_S = 0.0005
_LOOK_S = 0.05


class Server:
    """Serves an `API` to `RemoteAPI` of other processes and machines.

    Parameters
    ----------
    api : API, optional
        The API to serve; by default one with this user's settings.
    host, port
        Address to listen on; other machines are served only with TLS and a token. Port
        0 is a free one. The host ``unix:/a/path`` is a Unix socket, for this user and
        root; ``unix:`` one in this user's context.
    rpc_name : str
        The transport: 'websocket'.
    codecs : str or iterable of str
        Some of 'frame', 'json' and 'msgpack'; by default all.
    token, certificate, key, origins, names
        As `Access` takes them. Without a token, a server of this machine generates one,
        in a file of mode 0600 of this user's context while it runs, where `RemoteAPI`
        of the same user finds it.
    is_open : bool
        Require no token: every user and program of this machine may connect.
    limits : Limits, optional
        Limits of clients.
    transforms : mapping of str to callable, optional
        Functions of a block that clients may request by name.

    Raises
    ------
    AccessDenied
        It would serve other machines without TLS and a token.
    SourceNotFound, ModuleNotFoundError
        A transport or codec is unknown, or its package is not installed.

    Examples
    --------
    >>> from ataraxis.datamux import RemoteAPI, Server
    >>> with Server() as server:
    ...     with RemoteAPI("websocket", "frame") as api:
    ...         api.connect("127.0.0.1", server.port)
    ...         "sim" in [node.id for node in api.list_live_nodes()]
    True
    """

    def __init__(
        self,
        api: API | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        rpc_name: str = "websocket",
        codecs: str | Iterable[str] = CODECS,
        *,
        token: str | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        origins: Iterable[str] = (),
        names: Iterable[str] = (),
        limits: Limits | None = None,
        transforms: Mapping[str, Transform] | None = None,
        is_open: bool = False,
    ) -> None:
        # Clients can open files of its two folders only.
        self._api = (API() if api is None else api).confined()
        self.host = host
        is_unix = host.startswith(UNIX)
        is_own = token is None and not is_open and not is_unix and is_loopback(host)
        self.token = secrets.token_urlsafe(32) if is_own else token
        """Token that clients must show; None: none."""
        self._asked_port = port
        chosen = (codecs,) if isinstance(codecs, str) else tuple(codecs)
        self._codecs = {name: codec_of(name) for name in chosen}
        self._transport = transport_of(rpc_name)
        self._access = Access(host, self.token, certificate, key, origins, names)
        self._access.is_own = is_own
        self.limits = limits or Limits()
        self._transforms = Transforms(transforms)
        self._sessions: dict[str, ClientConnection] = {}
        self._thread: LoopThread | None = None
        self._server_limits: ServerLimits | None = None
        self._listener: Listener | None = None
        self._drops: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Port on which it listens."""
        if self._listener is None:
            raise NotConnectedError("the server is not started: call start()")
        return self._listener.port

    @property
    def is_secure(self) -> bool:
        """Whether it uses TLS."""
        return self._access.tls is not None

    def start(self) -> Self:
        """Start listening.

        Raises
        ------
        OSError
            The address is in use, or is not of this machine.
        """
        if self._thread is not None:
            return self
        pool = ThreadPoolExecutor(_THREADS, "ataraxis-serve")
        self._server_limits = ServerLimits(
            self._api, self.limits, self._transforms, pool,
            Ledger(self.limits), Total(self.limits.all_ring_bytes),
        )  # fmt: skip
        self._thread = LoopThread("ataraxis-server")
        try:
            self._listener = self._thread.run(self._listen()).result()
        except BaseException:
            self.close()
            raise
        return self

    async def _listen(self) -> Listener:
        return await self._transport.listen(
            self.host, self._asked_port, tuple(self._codecs), self._access,
            self.limits, self._serve,
        )  # fmt: skip

    def close(self) -> None:
        """Disconnect every client, stop their streams, and end; may be called again."""
        self._access.withdraw()
        # Reset at the end only: after an interrupt it is called again.
        if self._thread is not None:
            try:
                with suppress(NotConnectedError):  # closed by an earlier call
                    self._thread.run(self._end()).result(30)
            finally:
                self._thread.close()
        if self._server_limits is not None:
            self._server_limits.pool.shutdown(wait=True, cancel_futures=True)
        self._thread = self._server_limits = None

    async def _end(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close(GOING_AWAY, "the server is shutting down")
        await asyncio.gather(*map(self._drop, [*self._sessions.values()]))
        await asyncio.gather(*self._drops)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- in the loop

    async def _serve(self, connection: Connection) -> None:
        codec = self._codecs[connection.codec]
        try:
            async with asyncio.timeout(self.limits.handshake_s):
                hello = codec.decode(await connection.receive())
            session = await self._session(connection, hello)
            is_resumed = session.key == hello.get("session")
            welcome = self._welcome(is_resumed)
            has_left = await session.serve(
                connection, welcome, hello.get("streams", []) if is_resumed else []
            )
        except ConnectionLost:
            return
        except (BadMessage, RemoteError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                error = RemoteError("no hello in time")
            await refuse(connection, codec, error)
            return
        if session.is_attached or session.key not in self._sessions:
            return  # its client resumed on another connection
        if has_left or session.streams.is_empty:
            await self._drop(session)
        else:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(
                self.limits.resume_s, self._expire, session
            )

    def _welcome(self, is_resumed: bool) -> Message:
        limits = self.limits
        return {
            "op": "welcome", "version": VERSION, "is_resumed": is_resumed,
            "heartbeat_s": limits.heartbeat_s, "resume_s": limits.resume_s,
            "transforms": self._transforms.names(),
        }  # fmt: skip

    async def _session(
        self, connection: Connection, hello: Message
    ) -> ClientConnection:
        """Return the session of a resuming client, or a new one."""
        if hello["op"] != "hello":
            raise BadMessage(f"op {hello['op'][:40]!r}: expected hello first")
        if hello.get("version") != VERSION:
            raise RemoteError(
                f"the server has version {VERSION} of the protocol, the client "
                f"{str(hello.get('version'))[:20]}: install the same ataraxis"
            )
        key = hello.get("session")
        found = self._sessions.get(key) if isinstance(key, str) else None
        if found is not None and found.codec.name == connection.codec:
            return found
        if len(self._sessions) >= self.limits.clients:
            away = [s for s in self._sessions.values() if not s.is_attached]
            if not away:
                raise RemoteError(
                    f"{len(self._sessions)} clients are connected, the limit: try later"
                )
            await self._drop(away[0])
        assert self._server_limits is not None
        made = ClientConnection(self._server_limits, self._codecs[connection.codec])
        self._sessions[made.key] = made
        return made

    def _expire(self, session: ClientConnection) -> None:
        if not session.is_attached:
            task = asyncio.get_running_loop().create_task(self._drop(session))
            self._drops.add(task)
            task.add_done_callback(self._drops.discard)

    async def _drop(self, session: ClientConnection) -> None:
        if self._sessions.pop(session.key, None) is not None:
            await session.drop()

    def statistics(self) -> dict[str, Any]:
        """Return the numbers of clients and streams, and bytes kept for them."""
        sessions = [*self._sessions.values()]
        return {
            "clients": len(sessions),
            "attached": sum(s.is_attached for s in sessions),
            "streams": sum(len(s.streams.outlets()) for s in sessions),
            "kept_bytes": sum(s.streams.kept_bytes for s in sessions),
        }


# ---- the command ``serve``

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "-H", "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
)
@click.option(
    "-p", "--port", default=8765, show_default=True, help="Port; 0: a free one."
)
@click.option("-r", "--rpc", default="websocket", show_default=True, help="Transport.")
@click.option(
    "-c", "--codec", "codecs", multiple=True,
    help="frame, json or msgpack; may be repeated. [default: all]",
)  # fmt: skip
@click.option("--data_dir", "--data-dir", help="Folder of recordings.")
@click.option("--meta_dir", "--meta-dir", help="Folder of descriptions.")
@click.option(
    "--token-file", type=_FILE,
    help="Contains the token that clients must show (mode 0600); made if missing.",
)  # fmt: skip
@click.option(
    "--certificate", type=_FILE, help="Certificate of this server, PEM, for TLS."
)
@click.option("--key", type=_FILE, help="Key of the certificate, PEM.")
@click.option("--origin", "origins", multiple=True, help="A web page that may connect.")
@click.option("--name", "names", multiple=True, help="Another name of this server.")
@click.option("--clients", type=click.IntRange(1), help="Limit of clients.")
@click.option(
    "--unix", "socket_path", is_flag=False, flag_value="", metavar="[PATH]",
    help="Listen on a Unix socket, for this user only, without a token; by default in "
    "this user's context. Clients connect to 'unix:PATH', or to 'unix:'.",
)  # fmt: skip
@click.option(
    "--open", "is_open", is_flag=True,
    help="Require no token: every user of this machine may connect.",
)  # fmt: skip
@click.option(
    "--limits", "shows_limits", is_flag=True,
    help="Print the limits of a client and of all clients, and exit.",
)  # fmt: skip
def serve(
    host: str, port: int, rpc: str, codecs: tuple[str, ...], data_dir: str | None,
    meta_dir: str | None, token_file: Path | None, certificate: Path | None,
    key: Path | None, origins: tuple[str, ...], names: tuple[str, ...],
    clients: int | None, socket_path: str | None, is_open: bool, shows_limits: bool,
) -> None:  # fmt: skip
    """Serve collections and live sources of this machine to RemoteAPI.

    Clients must show a token. On this machine RemoteAPI of the same user finds it.
    Other machines (-H other than 127.0.0.1) need --certificate and --token-file. Ends
    at Ctrl-C, SIGTERM or SIGHUP: clients are disconnected, and their streams end. A
    second signal ends at once.
    """
    limits = Limits() if clients is None else Limits(clients=clients)
    if shows_limits:
        click.echo(_limits_text(limits))
        return
    if socket_path is not None:
        host = f"{UNIX}{socket_path}"
    if is_open and not is_loopback(host):
        raise click.ClickException(f"--open is for this machine only, not for {host}")
    # Streams are threads, and must not delay the thread that serves clients.
    sys.setswitchinterval(_SWITCH_S)
    try:
        token = _environments_token()
        if token_file is not None:
            token = token_from(token_file, is_made=True)
        server = Server(
            API(data_dir, meta_dir), host, port, rpc, codecs or CODECS,
            token=token, certificate=certificate, key=key, origins=origins,
            names=names, limits=limits, is_open=is_open,
        )  # fmt: skip
        with Ending(is_last=True) as ending, server:
            click.echo(_greeting(server, token_file))
            ending.first.wait()
            end = Thread(server.close, "ataraxis-serve-end")
            end.start()
            while not end.join(_LOOK_S):
                if ending.second.is_set():
                    # As if it had been killed.
                    os._exit(1)
    except (AtaraxisError, OSError, ModuleNotFoundError) as error:
        where = host if host.startswith(UNIX) else f"{host}:{port}"
        raise click.ClickException(f"cannot serve on {where}: {error}") from error


def _environments_token() -> str | None:
    """Return the token of ``$ATARAXIS_TOKEN``, without its host."""
    value = os.environ.get("ATARAXIS_TOKEN") or ""
    return value.rpartition("=")[2] if value else None


def _limits_text(limits: Limits) -> str:
    rows = [("LIMITS OF A SERVER", "", ""), *table(limits)]
    rows += [("", "", ""), ("LIMITS OF A FILE", "", ""), *table(FILES)]
    return "\n".join(
        f"{name:<20} {value:>14}  {about}".rstrip() for name, value, about in rows
    )


def _greeting(server: Any, token_file: Path | None) -> str:
    if server.host.startswith(UNIX):
        return f"serving on {UNIX}{unix_path(server.host)}"
    place = f"[{server.host}]" if ":" in server.host else server.host
    scheme = "wss" if server.is_secure else "ws"
    shown = f", token in {token_file}" if token_file else ""
    return f"serving on {scheme}://{place}:{server.port}{shown}"
