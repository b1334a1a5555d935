"""The listening sockets of a server, which limit unauthenticated connections.

A connection is counted as soon as the kernel accepts it, before TLS and HTTP. It waits
as a bare socket until its first data is complete: a request, or the first record of
TLS. Then it is handed to asyncio, and counted until it has shown a token. If there are
too many connections, the oldest of the address with the most is closed for a new one:
silent connections cannot block others, and descriptors remain for admitted clients.

asyncio polls one descriptor and calls `accept`. Here it is that of an epoll.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ataraxis.config.limits import Limits

BACKLOG = 4096
_AT_ONCE = 256
_FIRST_BYTES = 2**14
_TLS_HANDSHAKE = 0x16
_KEPT = 64  # descriptors reserved for the rest of the process


class _Waiting(NamedTuple):
    """A connection that has not shown a token."""

    connection: socket.socket
    address: str
    since: float


class _Line:
    """Connections in order of arrival, in all and per address."""

    def __init__(self) -> None:
        self.waiting: dict[int, _Waiting] = {}
        self._numbers: dict[str, dict[int, None]] = {}

    def add(self, number: int, waiting: _Waiting) -> None:
        """Append a connection."""
        self.waiting[number] = waiting
        self._numbers.setdefault(waiting.address, {})[number] = None

    def pop(self, number: int) -> _Waiting:
        """Remove a connection."""
        waiting = self.waiting.pop(number)
        numbers = self._numbers[waiting.address]
        del numbers[number]
        if not numbers:
            del self._numbers[waiting.address]
        return waiting

    def first(self) -> int:
        """Return the oldest."""
        return next(iter(self.waiting))

    def giving_way(self, address: str, most: int, share: int) -> int | None:
        """Return the connection to close for a new one of an address, if any."""
        numbers = self._numbers.get(address, {})
        if len(numbers) < share:
            if len(self.waiting) < most:
                return None
            numbers = max(self._numbers.values(), key=len)
        return next(iter(numbers))


class Gate:
    """Several listening sockets as one, for ``loop.create_server(sock=)``.

    The listeners are bound sockets of one kind, and closed with the gate.
    """

    type = socket.SOCK_STREAM

    def __init__(self, listeners: Sequence[socket.socket], limits: Limits) -> None:
        self._listeners = {made.fileno(): made for made in listeners}
        self._limits = limits
        self.family = listeners[0].family
        self._silent, self._shaking = _Line(), _Line()
        self._ready: collections.deque[tuple[socket.socket, Any]] = collections.deque()
        self._addresses: dict[int, Any] = {}
        self._most = _room_for_silent(limits)
        self._epoll = select.epoll()
        for number in self._listeners:
            self._epoll.register(number, select.EPOLLIN)
        self.turned_away = 0
        """Connections closed for others, or after their time limit."""

    # ---- what asyncio needs of a listening socket

    def fileno(self) -> int:
        """Return a descriptor that is readable when `accept` has a connection."""
        return self._epoll.fileno()

    def getsockname(self) -> Any:
        """Return the address of the first listener."""
        return next(iter(self._listeners.values())).getsockname()

    def setblocking(self, flag: bool) -> None:
        """Make the listeners nonblocking, always."""
        for made in self._listeners.values():
            made.setblocking(False)

    def listen(self, backlog: int = BACKLOG) -> None:
        """Listen on every address."""
        for made in self._listeners.values():
            made.listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection that has sent data, or raise `BlockingIOError`."""
        if not self._ready:
            self._look()
        while self._ready:
            connection, address = self._ready.popleft()
            if connection.fileno() >= 0:
                return connection, address
        raise BlockingIOError

    def close(self) -> None:
        """Close the listeners, and every waiting connection."""
        for made in self._listeners.values():
            made.close()
        for number, waiting in [*self._silent.waiting.items()]:
            self._silent.pop(number)
            waiting.connection.close()
        while self._ready:
            self._ready.popleft()[0].close()
        if not self._epoll.closed:
            self._epoll.close()

    # ---- waiting connections

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of connections that are silent, and that have not shown a token."""
        return len(self._silent.waiting), len(self._shaking.waiting)

    def let_in(self, descriptor: int) -> None:
        """Stop counting a connection that has shown a token."""
        if descriptor in self._shaking.waiting:
            self._shaking.pop(descriptor)

    def sweep(self) -> None:
        """Close connections that have waited for too long."""
        if self._epoll.closed:
            return
        now = time.monotonic()
        while self._silent.waiting:
            number = self._silent.first()
            if now - self._silent.waiting[number].since < self._limits.handshake_s:
                break
            self._drop(number)
        # TLS and HTTP have their own time limits: this is the last resort.
        for number, waiting in [*self._shaking.waiting.items()]:
            if waiting.connection.fileno() != number:
                self._shaking.pop(number)
            elif now - waiting.since > 3 * self._limits.handshake_s:
                self._cut(number)

    def _look(self) -> None:
        for number, _ in self._epoll.poll(0, _AT_ONCE):
            if number in self._listeners:
                self._take(self._listeners[number])
            elif number in self._silent.waiting:
                self._hand_over(number)

    def _take(self, listener: socket.socket) -> None:
        """Accept connections, which wait until they send data."""
        for _ in range(_AT_ONCE):
            try:
                connection, address = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._silent.waiting:
                    self._drop(self._silent.first())
                    continue
                return
            connection.setblocking(False)
            where = _where(address)
            self._make_room(self._silent, where, self._most, self._drop)
            number = connection.fileno()
            self._silent.add(number, _Waiting(connection, where, time.monotonic()))
            self._addresses[number] = address
            self._epoll.register(number, select.EPOLLIN | select.EPOLLET)

    def _hand_over(self, number: int) -> bool:
        """Hand over a connection with complete first data, or close one that left."""
        connection = self._silent.waiting[number].connection
        try:
            data = connection.recv(_FIRST_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data and not _is_whole(data):
            return False
        waiting = self._silent.pop(number)
        address = self._addresses.pop(number)
        self._epoll.unregister(number)
        if not data:
            connection.close()
            return True
        for other, shaking in [*self._shaking.waiting.items()]:
            if shaking.connection.fileno() != other:
                self._shaking.pop(other)
        most = self._limits.handshakes
        self._make_room(self._shaking, waiting.address, most, self._cut)
        self._shaking.add(number, waiting._replace(since=time.monotonic()))
        self._ready.append((connection, address))
        return True

    def _make_room(
        self, line: _Line, address: str, most: int, give_way: Callable[[int], object]
    ) -> None:
        """Close an old connection for one of an address, if there are too many."""
        share = max(1, int(most * self._limits.address_share))
        loser = line.giving_way(address, most, share)
        if loser is not None:
            give_way(loser)

    def _drop(self, number: int) -> None:
        """Close a silent connection; hand over one that has just sent data."""
        if self._hand_over(number):
            return
        waiting = self._silent.pop(number)
        self._addresses.pop(number, None)
        self._epoll.unregister(number)
        waiting.connection.close()
        self.turned_away += 1

    def _cut(self, number: int) -> None:
        """Shut down a connection of asyncio, which then closes it."""
        waiting = self._shaking.pop(number)
        self.turned_away += 1
        with contextlib.suppress(OSError):
            waiting.connection.shutdown(socket.SHUT_RDWR)


def _is_whole(data: bytes) -> bool:
    """Whether it is an HTTP request, a record of TLS, or too much of neither."""
    if len(data) >= _FIRST_BYTES:
        return True
    if data[0] == _TLS_HANDSHAKE:
        return len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[3:5], "big")
    return b"\r\n\r\n" in data


def _where(address: Any) -> str:
    """Return the address to count: a host, or a network of IPv6."""
    if not isinstance(address, tuple):
        return "here"
    host = str(address[0])
    if len(address) == 4:  # IPv6: one host may have 2**64 addresses
        with contextlib.suppress(OSError):
            return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8].hex()
    return host


def _room_for_silent(limits: Limits) -> int:
    """Return how many may wait, so that descriptors remain for clients."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return limits.silent
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        used = 32
    files = min(limits.all_files, most // 4)
    left = most - used - _KEPT - files - limits.clients - limits.handshakes
    return max(8, min(limits.silent, left))


# ---- bound sockets

UNIX = "unix:"
"""Prefix of the host of a Unix socket, before its path."""


def bound(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to every address of a host, or raise `OSError`."""
    infos = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            try:
                listener = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this kernel lacks
            made.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if made[0] is not listener and not port:
                address = (address[0], made[0].getsockname()[1], *address[2:])
            try:
                listener.bind(address)
            except OSError as error:
                what = (error.strerror or "").lower()
                text = f"{host} port {int(address[1])}: {what}"
                raise OSError(error.errno, text) from None
        if not made:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be used")
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


def bound_unix(path: str) -> socket.socket:
    """Return a socket bound to a path, mode 0600; a dead socket there is replaced.

    Raises `OSError` if the path is in use, or too long.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            made.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(path):
                raise OSError(error.errno, f"{path}: {error.strerror}") from None
            os.unlink(path)
            made.bind(path)
        os.chmod(path, 0o600)
    except BaseException:
        made.close()
        raise
    return made


def _is_dead(path: str) -> bool:
    """Whether a path is a socket of this user without a server."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        try:
            tried.connect(path)
        except ConnectionRefusedError:
            return os.lstat(path).st_uid == os.geteuid()
        except OSError:
            pass
    return False
