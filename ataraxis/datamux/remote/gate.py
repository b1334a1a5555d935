"""The listening sockets of a server, with their own idea of whom to accept first.

A connection is counted from the moment the kernel has it, before TLS and before HTTP.
It waits, as nothing but a socket, until its first words are here, whole: a request, or
the first record of TLS. Then it is handed to asyncio, and is counted on until it has
shown a token. Where there are too many, the oldest of the address that has most gives
way to the new one: connections that say nothing, or a little and no more, keep no one
out, and there are always descriptors for those inside.

asyncio polls one descriptor and calls `accept`. Here it is one of epoll, which can be
polled as what it polls can.
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
_KEPT = 64  # descriptors for what else a process opens


class _Waiting(NamedTuple):
    """A connection that has not shown a token."""

    connection: socket.socket
    address: str
    since: float


class _Line:
    """Connections in the order in which they came, also those of each address."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._numbers: dict[str, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def __getitem__(self, number: int) -> _Waiting:
        return self._waiting[number]

    def add(self, number: int, waiting: _Waiting) -> None:
        """Let one wait, behind the others."""
        self._waiting[number] = waiting
        self._numbers.setdefault(waiting.address, {})[number] = None

    def pop(self, number: int) -> _Waiting:
        """Take one out."""
        waiting = self._waiting.pop(number)
        numbers = self._numbers[waiting.address]
        del numbers[number]
        if not numbers:
            del self._numbers[waiting.address]
        return waiting

    def items(self) -> list[tuple[int, _Waiting]]:
        """Return all, the oldest first."""
        return [*self._waiting.items()]

    def first(self) -> int:
        """Return the oldest."""
        return next(iter(self._waiting))

    def giving_way(self, address: str, most: int, share: int) -> int | None:
        """Return who gives way to one of an address more; None: there is room."""
        numbers = self._numbers.get(address, {})
        if len(numbers) < share:
            if len(self._waiting) < most:
                return None
            numbers = max(self._numbers.values(), key=len)
        return next(iter(numbers))


class Gate:
    """Several listening sockets as one, for ``loop.create_server(sock=)``.

    Parameters
    ----------
    listeners : sequence of socket
        Bound, of one kind; closed with the gate.
    limits : Limits
        How many may wait, and how long.
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
        """Connections that gave way, or said nothing in time."""

    # ---- what asyncio asks of a listening socket

    def fileno(self) -> int:
        """Return what is readable when there is something to accept."""
        return self._epoll.fileno()

    def getsockname(self) -> Any:
        """Return the address of the first listener."""
        return next(iter(self._listeners.values())).getsockname()

    def setblocking(self, flag: bool) -> None:
        """Never block."""
        for made in self._listeners.values():
            made.setblocking(False)

    def listen(self, backlog: int = BACKLOG) -> None:
        """Listen on every address."""
        for made in self._listeners.values():
            made.listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection that has said something.

        Raises
        ------
        BlockingIOError
            None has.
        """
        if not self._ready:
            self._look()
        while self._ready:
            connection, address = self._ready.popleft()
            if connection.fileno() >= 0:
                return connection, address
        raise BlockingIOError

    def close(self) -> None:
        """Close the listeners, and every connection that waits."""
        for made in self._listeners.values():
            made.close()
        for number, waiting in self._silent.items():
            self._silent.pop(number)
            waiting.connection.close()
        while self._ready:
            self._ready.popleft()[0].close()
        if not self._epoll.closed:
            self._epoll.close()

    # ---- who waits

    @property
    def counts(self) -> tuple[int, int]:
        """How many have said nothing, and how many have not shown a token."""
        return len(self._silent), len(self._shaking)

    def let_in(self, descriptor: int) -> None:
        """Count a connection no more: it has shown a token."""
        if descriptor in self._shaking:
            self._shaking.pop(descriptor)

    def sweep(self) -> None:
        """Turn away those who have waited for too long."""
        if self._epoll.closed:
            return
        now = time.monotonic()
        while self._silent:
            number = self._silent.first()
            if now - self._silent[number].since < self._limits.handshake_s:
                break
            self._drop(number)
        # TLS and HTTP have a time limit each, of their own: this is the last resort.
        for number, waiting in self._shaking.items():
            if waiting.connection.fileno() != number:
                self._shaking.pop(number)
            elif now - waiting.since > 3 * self._limits.handshake_s:
                self._cut(number)

    def _look(self) -> None:
        for number, _ in self._epoll.poll(0, _AT_ONCE):
            if number in self._listeners:
                self._take(self._listeners[number])
            elif number in self._silent:
                self._speaks(number)

    def _take(self, listener: socket.socket) -> None:
        """Take connections from the kernel; they wait until they speak."""
        for _ in range(_AT_ONCE):
            try:
                connection, address = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._silent:
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

    def _speaks(self, number: int) -> bool:
        """Hand over a connection whose first words are here, or close one that left."""
        connection = self._silent[number].connection
        try:
            said = connection.recv(_FIRST_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        if said and not _is_whole(said):
            return False
        waiting = self._silent.pop(number)
        address = self._addresses.pop(number)
        self._epoll.unregister(number)
        if not said:
            connection.close()
            return True
        for other, shaking in self._shaking.items():
            if shaking.connection.fileno() != other:
                self._shaking.pop(other)
        most = self._limits.handshakes
        self._make_room(self._shaking, waiting.address, most, self._cut)
        self._shaking.add(number, waiting._replace(since=time.monotonic()))
        self._ready.append((connection, address))
        return True

    def _make_room(
        self,
        line: _Line,
        address: str,
        most: int,
        give_way: Callable[[int], object],
    ) -> None:
        """Let an old one give way to one of an address, where there are too many."""
        share = max(1, int(most * self._limits.address_share))
        loser = line.giving_way(address, most, share)
        if loser is not None:
            give_way(loser)

    def _drop(self, number: int) -> None:
        """Close a connection that has said nothing; hand over one that just has."""
        if self._speaks(number):
            return
        waiting = self._silent.pop(number)
        self._addresses.pop(number, None)
        self._epoll.unregister(number)
        waiting.connection.close()
        self.turned_away += 1

    def _cut(self, number: int) -> None:
        """End a connection that asyncio has: it sees the end, and closes it."""
        waiting = self._shaking.pop(number)
        self.turned_away += 1
        with contextlib.suppress(OSError):
            waiting.connection.shutdown(socket.SHUT_RDWR)


def _is_whole(said: bytes) -> bool:
    """Tell whether it is an HTTP request, a record of TLS, or too much of neither."""
    if len(said) >= _FIRST_BYTES:
        return True
    if said[0] == _TLS_HANDSHAKE:
        return len(said) >= 5 and len(said) >= 5 + int.from_bytes(said[3:5], "big")
    return b"\r\n\r\n" in said


def _where(address: Any) -> str:
    """Return what counts as one address: a host, or a network of IPv6."""
    if not isinstance(address, tuple):
        return "here"
    host = str(address[0])
    if len(address) == 4:  # IPv6: one customer has 2**64 addresses
        with contextlib.suppress(OSError):
            return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8].hex()
    return host


def _room_for_silent(limits: Limits) -> int:
    """How many may wait, so that descriptors are left for those inside."""
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
"""What the host of a Unix socket begins with; its path follows."""


def bound(host: str, port: int) -> list[socket.socket]:
    """Return sockets that are bound to every address of a host.

    Raises
    ------
    OSError
        An address is in use, or not of this machine.
    """
    infos = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            try:
                listener = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this kernel does not have
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
                told = f"{host} port {int(address[1])}: {what}"
                raise OSError(error.errno, told) from None
        if not made:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be used")
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


def bound_unix(path: str) -> socket.socket:
    """Return a socket that is bound to a path, mode 0600, in place of a dead one.

    Raises
    ------
    OSError
        Something is there, or the path is too long.
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
    """Tell whether a path is a socket of this user that no server listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        try:
            tried.connect(path)
        except ConnectionRefusedError:
            return os.lstat(path).st_uid == os.geteuid()
        except OSError:
            pass
    return False
