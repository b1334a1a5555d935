"""The server of a remote API: sessions behind a listener, in a thread of their own."""

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
from ataraxis.datamux.remote.access import (
    Access,
    is_loopback,
    token_from,
    unix_path,
)
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
    """Lets `RemoteAPI` of other processes and machines use an `API`.

    Parameters
    ----------
    api : API, optional
        Whose collections and sources; one of the settings of this user, if not given.
    host, port
        Where to listen: this machine alone, unless there are TLS and a token; a free
        port, if it is 0. The host ``unix:/a/path`` is a Unix socket, for this user and
        root; ``unix:`` one in this user's context.
    rpc_name : str
        The transport: 'websocket'.
    codecs : str or iterable of str
        Which of 'frame', 'json' and 'msgpack' it speaks; all, if not given.
    token, certificate, key, origins, names
        As `Access` takes them. Without a token, a server of this machine alone makes
        one, in a file of mode 0600 of this user's context as long as it runs, where
        `RemoteAPI` of the same user finds it.
    is_open : bool
        Ask for no token: every user and every program of this machine may connect.
    limits : Limits, optional
        What clients may take.
    transforms : mapping of str to callable, optional
        Functions of a block that clients may ask for by name.

    Raises
    ------
    AccessDenied
        It would listen beyond this machine without TLS and a token.
    SourceNotFound, ModuleNotFoundError
        There is no such transport or codec, or what it needs is not installed.

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
        # Clients reach the two folders, and nothing else of the file system.
        self._api = (API() if api is None else api).confined()
        self.host = host
        is_unix = host.startswith(UNIX)
        is_own = token is None and not is_open and not is_unix and is_loopback(host)
        self.token = secrets.token_urlsafe(32) if is_own else token
        """What clients must show; None: nothing."""
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
        """Where it listens."""
        if self._listener is None:
            raise NotConnectedError("the server is not started: start() it")
        return self._listener.port

    @property
    def is_secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._access.tls is not None

    def start(self) -> Self:
        """Listen.

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
        """Tell every client, stop what runs for them, and end. Twice is fine."""
        self._access.withdraw()
        # Forgotten at the end alone: after an interrupt it is called again.
        if self._thread is not None:
            try:
                with suppress(NotConnectedError):  # closed, by a call before
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
        """End it."""
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
                error = RemoteError("no hello came in time")
            await refuse(connection, codec, error)
            return
        if session.is_attached or session.key not in self._sessions:
            return  # its client came back on another connection
        if has_left or session.streams.is_empty:
            await self._drop(session)
        else:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(
                self.limits.resume_s, self._expire, session
            )

    def _welcome(self, is_resumed: bool) -> Message:
        return {
            "op": "welcome",
            "version": VERSION,
            "is_resumed": is_resumed,
            "heartbeat_s": self.limits.heartbeat_s,
            "resume_s": self.limits.resume_s,
            "transforms": self._transforms.names(),
        }

    async def _session(
        self, connection: Connection, hello: Message
    ) -> ClientConnection:
        """Return the session of a client that comes back, or a new one."""
        if hello["op"] != "hello":
            raise BadMessage(f"op {hello['op'][:40]!r}: expected hello first")
        if hello.get("version") != VERSION:
            raise RemoteError(
                f"this server speaks version {VERSION} of the protocol, the client "
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
                    f"{len(self._sessions)} clients are here already: come again later"
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
        """Return how many clients and streams there are, and bytes kept for them."""
        sessions = [*self._sessions.values()]
        return {
            "clients": len(sessions),
            "attached": sum(s.is_attached for s in sessions),
            "streams": sum(len(s.streams.outlets()) for s in sessions),
            "kept_bytes": sum(s.streams.kept_bytes for s in sessions),
        }


# ---- the command ``serve``: an API for others, until it is told to end

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
@click.option(
    "--unix", "socket_path", is_flag=False, flag_value="", metavar="[PATH]",
    help="A Unix socket instead, for this user alone, without a token; in this user's "
    "context if no PATH is given. Clients connect to 'unix:PATH', or to 'unix:'.",
)  # fmt: skip
@click.option(
    "--open", "is_open", is_flag=True,
    help="On this machine: ask for no token. Every user of the machine may connect.",
)  # fmt: skip
@click.option(
    "--limits", "shows_limits", is_flag=True,
    help="Print what a client, and all of them, may take; and end.",
)  # fmt: skip
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
    socket_path: str | None,
    is_open: bool,
    shows_limits: bool,
) -> None:
    """Serve collections and live sources of this machine to RemoteAPI.

    Clients must show a token. On this machine RemoteAPI of the same user finds it
    unasked. Beyond this machine (-H other than 127.0.0.1) only with --certificate and
    --token-file. Ends at Ctrl-C, SIGTERM or SIGHUP: clients are told, and what runs for
    them ends. A second signal does not wait for that.
    """
    limits = Limits() if clients is None else Limits(clients=clients)
    if shows_limits:
        click.echo(_limits_text(limits))
        return
    if socket_path is not None:
        host = f"{UNIX}{socket_path}"
    if is_open and not is_loopback(host):
        raise click.ClickException(f"--open is for this machine alone, not for {host}")
    # Streams are threads, and the one that serves must not wait for all of them.
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
                    # What it read and sent ends with it, as if it had been killed.
                    os._exit(1)
    except (AtaraxisError, OSError, ModuleNotFoundError) as error:
        where = host if host.startswith(UNIX) else f"{host}:{port}"
        raise click.ClickException(f"cannot serve on {where}: {error}") from error


def _environments_token() -> str | None:
    """Return the token of ``$ATARAXIS_TOKEN``, with or without a host before it."""
    value = os.environ.get("ATARAXIS_TOKEN") or ""
    return value.rpartition("=")[2] if value else None


def _limits_text(limits: Limits) -> str:
    """Return the table of limits: of clients, and of files."""
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
