"""`TlsCarrier`: a TLS 1.3 connection for each channel, by the standard library."""

from __future__ import annotations

import datetime
import logging
import select
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link.carrier import (
    NAME_BYTES,
    ChannelClosed,
    OnRefused,
    checked_channel_name,
)
from ataraxis.link.certificates import CertificateFacts, facts_of
from ataraxis.link.hosts import joined_address, split_address

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ataraxis.link.hosts import Hosts

HANDSHAKE_S = 5.0
"""Longest time from a client's connection to its channel's name, s."""
SILENCE_S = 3
"""Longest time in which sent bytes must be acknowledged by the other kernel, s."""
SOCKET_BYTES = 4 << 20
_PENDING = 64  # clients in a handshake
_WAITING = 64  # channels that `accept` has not returned
_ASK = struct.Struct("<4sH")  # magic, bytes of the name
_ANSWER = struct.Struct("<4s?H")  # magic, accepted, bytes of the reason
_MAGIC = b"AXC1"
_REASON_BYTES = 1000
_HIGH = 6  # SO_PRIORITY that needs no right
_MOST = 1 << 18  # bytes that one receive returns
_SOON_DAYS = 180  # a certificate that expires earlier is logged
_RECORDS = 8  # of 16 KiB that a thread codes in its turn
_SEGMENT = 1 << 15  # bytes of a send from which on records are gathered to segments

_log = logging.getLogger("ataraxis.link")
_log.addHandler(logging.NullHandler())

_CLOSED_HERE = "this side has closed it"
_CLOSED_THERE = "the other side has closed it"
_LOST = "the connection was lost"
_ALERTS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it did not show a certificate",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it needs a certificate of this host",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it found this host's certificate expired",
    "TLSV1_ALERT_UNKNOWN_CA": "this host's certificate is of another authority",
    "TLSV1_ALERT_DECRYPT_ERROR": "this host's certificate is of another authority",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refused this host's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refused this host's certificate",
}
_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_MESSAGE",
    "BAD_RECORD_TYPE",
    "UNSUPPORTED_SSL_VERSION",
    "LENGTH_MISMATCH",
    "BAD_LENGTH",
}


class TlsCarrier:
    """Channels that are TLS connections of their own; as `Carrier`.

    Both ends show a certificate of the lab's authority; its name is the host.

    Parameters
    ----------
    hosts : Hosts
        The lab, with this host's certificate, key and authority.

    Raises
    ------
    AccessDenied
        A file is missing, not valid, or readable by others; the certificate has
        expired, is revoked, or is of another host.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.address = ""
        self.on_refused: OnRefused | None = None
        self._hosts = hosts
        self._server, self._client = contexts(hosts)
        self._changed = threading.Condition()
        self._arrived: deque[TlsChannel] = deque()
        self._channels: set[TlsChannel] = set()
        self._door: _Door | None = None
        self._is_closed = False

    def listen(self, address: str) -> None:
        """Accept other hosts on one address; as `Carrier.listen`."""
        if self._door is not None:
            raise ValueError(f"the carrier listens on {self.address} already")
        listener = _listener(address)
        host, port = listener.getsockname()[:2]
        self.address = joined_address(host, port)
        self._door = _Door(listener, self._server, self)
        self._door.start()

    def accept(self, timeout: float) -> TlsChannel | None:
        """Return the next channel; as `Carrier.accept`."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._is_closed, timeout)
            return self._arrived.popleft() if self._arrived else None

    def dial(
        self,
        address: str,
        host: str,
        name: str,
        timeout: float,
        priority: bool = False,
    ) -> TlsChannel:
        """Open a channel; as `Carrier.dial`."""
        data = checked_channel_name(name)
        deadline = time.monotonic() + timeout
        made = connected(self._client, self._hosts, address, host, deadline)
        try:
            if priority:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _HIGH)
            _ask(made, data, deadline)
        except BaseException as error:
            made.close()
            if isinstance(error, OSError):
                raise _failure(error, address, host, timeout) from error
            raise
        channel = TlsChannel(made, host, name, self._forget)
        with self._changed:
            if self._is_closed:
                channel.close()
                raise HostUnavailable(f"host {host!r}: the carrier was closed")
            self._channels.add(channel)
        return channel

    def drop(self, host: str) -> None:
        """End every channel of a host; as `Carrier.drop`."""
        with self._changed:
            channels = [one for one in self._channels if one.peer == host]
            self._arrived = deque(one for one in self._arrived if one.peer != host)
        for channel in channels:
            channel.close()

    def close(self) -> None:
        """Stop listening and close every channel."""
        with self._changed:
            self._is_closed = True
            self._arrived.clear()
            channels = list(self._channels)
            self._changed.notify_all()
        if self._door is not None:
            self._door.stop()
        for channel in channels:
            channel.close()

    # ---- called by the door

    def admit(self, sock: ssl.SSLSocket, facts: CertificateFacts, name: str) -> str:
        """Give a client's channel to `accept`, or return why not."""
        with self._changed:
            if self._is_closed:
                return "its agent is stopping"
            if len(self._arrived) >= _WAITING:
                return f"{_WAITING} channels wait there already"
            _answer(sock, "")
            channel = TlsChannel(sock, facts.host, name, self._forget)
            self._channels.add(channel)
            self._arrived.append(channel)
            self._changed.notify()
        return ""

    def check(self, sock: ssl.SSLSocket) -> CertificateFacts:
        """Return the facts of a client's certificate; `AccessDenied` if refused."""
        return _checked_peer(self._hosts, sock, None)

    def refused(self, address: str, reason: str) -> None:
        """Log a refused client."""
        _log.warning("%s was refused: %s", address, reason)
        if self.on_refused is not None:
            self.on_refused(address, reason)

    def _forget(self, channel: TlsChannel) -> None:
        with self._changed:
            self._channels.discard(channel)


class TlsChannel:
    """A TLS connection; as `Channel`.

    OpenSSL's state is for one thread at a time: a lock is held while a record is coded,
    never while a thread waits for the socket.
    """

    window: int | None = None

    def __init__(self, sock: ssl.SSLSocket, peer: str, name: str, forget: Any) -> None:
        self.peer, self.name = peer, name
        self._sock = sock
        self._forget = forget
        self._turn = _Turn()
        self._is_sending = self._is_receiving = False
        self._is_closed = False
        self._unsendable = ""
        self._unreceivable = ""
        self._to_send, self._to_receive = select.poll(), select.poll()

    def send(self, data: Buffer, timeout: float) -> None:
        """Send all bytes; as `Channel.send`."""
        rest = memoryview(data).cast("B")
        sock, turn, deadline = self._sock, self._turn, 0.0
        self._is_sending = True
        is_large = rest.nbytes > _SEGMENT
        try:
            if is_large:  # records of 16 KiB travel together, up to a segment
                self._cork(True)
            while rest:
                wait = 0
                with turn:
                    self._check(self._unsendable)
                    try:
                        for _ in range(_RECORDS):
                            rest = rest[sock.send(rest) :]
                            if not rest:
                                return
                    except ssl.SSLWantWriteError:
                        wait = select.POLLOUT
                    except ssl.SSLWantReadError:
                        wait = select.POLLIN
                    except OSError as error:
                        self._unsendable = _ending(error)
                        self._check(self._unsendable)
                if wait:
                    deadline = deadline or time.monotonic() + timeout
                    if not self._is_ready(self._to_send, wait, deadline):
                        self.close()
                        raise TimeoutError(f"{self}: not sent within {timeout:g} s")
        finally:
            if is_large:
                self._cork(False)
            self._is_sending = False
            if self._is_closed:
                self._release()

    def _cork(self, is_on: bool) -> None:
        """Let the kernel keep bytes until a segment is full, or send what it has."""
        with suppress(OSError):  # a socket that is over is told by what follows
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, is_on)

    def receive_into(self, buffer: memoryview, timeout: float) -> int:
        """Receive what has arrived; as `Channel.receive_into`."""
        rest = buffer.cast("B")[:_MOST]
        size = rest.nbytes
        sock, turn, deadline = self._sock, self._turn, 0.0
        self._is_receiving = True
        try:
            while rest:
                wait = 0
                with turn:
                    self._check(self._unreceivable)
                    try:
                        for _ in range(_RECORDS):
                            count = sock.recv_into(rest)
                            rest = rest[count:]
                            if not count:
                                self._unreceivable = _CLOSED_THERE
                            if not count or not rest:
                                break
                    except ssl.SSLWantReadError:
                        wait = select.POLLIN
                    except ssl.SSLWantWriteError:
                        wait = select.POLLOUT
                    except OSError as error:
                        self._unreceivable = _ending(error)
                self._unsendable = self._unsendable or self._unreceivable
                done = size - rest.nbytes
                if done and (wait or self._unreceivable):
                    return done
                if wait:
                    deadline = deadline or time.monotonic() + timeout
                    if not self._is_ready(self._to_receive, wait, deadline):
                        return 0
            return size
        finally:
            self._is_receiving = False
            if self._is_closed:
                self._release()

    def close(self) -> None:
        """End the channel; as `Channel.close`."""
        with self._turn:
            if self._is_closed:
                return
            self._is_closed = True
            with suppress(OSError, ValueError):
                self._sock.unwrap()  # tells the other side, and does not wait for it
            # Not that of SSLSocket, after which it would send plain text.
            with suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        self._release()
        self._forget(self)

    def _release(self) -> None:
        """Close the descriptor once no thread uses it; the last one does it.

        A thread that comes later finds the channel closed before it uses the socket.
        """
        with self._turn:
            if not self._is_sending and not self._is_receiving:
                self._sock.close()

    def _check(self, reason: str) -> None:
        if self._is_closed or reason:
            reason = _CLOSED_HERE if self._is_closed else reason
            raise ChannelClosed(f"{self}: {reason}")

    def _is_ready(self, poll: select.poll, events: int, deadline: float) -> bool:
        left = max(deadline - time.monotonic(), 0.0)
        poll.register(self._sock, events)
        return bool(poll.poll(left * 1000))

    def __str__(self) -> str:
        return f"channel {self.name!r} to {self.peer}"


class _Turn:
    """A lock that threads get in the order in which they asked for it.

    A sender that takes a plain lock again at once starves the receiver.
    """

    def __init__(self) -> None:
        self._queue, self._lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._queue:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# ---- the listening side: one thread, so that no client can delay another one


class _Client:
    """A connection that has not named its channel yet."""

    def __init__(self, sock: ssl.SSLSocket, address: str) -> None:
        self.sock, self.address = sock, address
        self.deadline = time.monotonic() + HANDSHAKE_S
        self.facts: CertificateFacts | None = None
        self._asked = bytearray()

    def step(self, carrier: TlsCarrier) -> str | None:
        """Go on as far as possible; return the channel's name once it is there."""
        if self.facts is None:
            self.sock.do_handshake()
            self.facts = carrier.check(self.sock)
        while True:
            size = _ASK.size
            if len(self._asked) >= size:
                magic, length = _ASK.unpack_from(self._asked)
                if magic != _MAGIC or not 0 < length <= NAME_BYTES:
                    raise AccessDenied(
                        f"it did not name a channel of 1 to {NAME_BYTES} bytes"
                    )
                size += length
                if len(self._asked) == size:
                    return self._name()
            got = self.sock.recv(size - len(self._asked))
            if not got:
                raise AccessDenied("it closed the connection before naming a channel")
            self._asked += got

    def _name(self) -> str:
        try:
            return self._asked[_ASK.size :].decode()
        except UnicodeDecodeError as error:
            raise AccessDenied(f"the channel's name is not UTF-8: {error}") from error


class _Door:
    """Accepts connections, and shakes hands with all clients at once in one thread."""

    def __init__(
        self, listener: socket.socket, context: ssl.SSLContext, carrier: TlsCarrier
    ) -> None:
        self._listener, self._context, self._carrier = listener, context, carrier
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._clients: dict[socket.socket, _Client] = {}
        self._thread = threading.Thread(
            target=self._run, name="ataraxis tls door", daemon=True
        )

    def start(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        with suppress(OSError):
            self._wake.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(HANDSHAKE_S)  # on_refused may wait for the caller

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            for client in list(self._clients.values()):
                self._drop(client)
            for each in (self._selector, self._listener, self._wake, self._woken):
                each.close()

    def _turn(self) -> bool:
        """Serve what is ready; False once the carrier is closed."""
        now = time.monotonic()
        ends = [client.deadline for client in self._clients.values()]
        timeout = max(min(ends) - now, 0) if ends else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._woken:
                return False
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Client) and key.data.sock in self._clients:
                self._step(key.data)
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.deadline <= now:
                what = "a handshake" if client.facts is None else "a channel's name"
                self._refuse(client, f"it did not finish {what} in {HANDSHAKE_S:g} s")
        return True

    def _accept(self) -> None:
        try:
            connection, peer = self._listener.accept()
        except OSError as error:  # the client has gone, or descriptors are short
            _log.warning("a connection was not accepted: %s", error)
            time.sleep(0.1)
            return
        address = joined_address(*peer[:2])
        try:
            connection.setblocking(False)
            tune(connection)
            wrapped = self._context.wrap_socket(
                connection,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except OSError as error:
            connection.close()
            self._carrier.refused(address, _words(error))
            return
        if len(self._clients) >= _PENDING:
            oldest = min(self._clients.values(), key=lambda client: client.deadline)
            self._refuse(oldest, f"{_PENDING} newer clients came before its handshake")
        client = _Client(wrapped, address)
        self._clients[wrapped] = client
        self._selector.register(wrapped, selectors.EVENT_READ, client)
        self._step(client)

    def _step(self, client: _Client) -> None:
        try:
            name = client.step(self._carrier)
        except ssl.SSLWantReadError:
            self._selector.modify(client.sock, selectors.EVENT_READ, client)
        except ssl.SSLWantWriteError:
            self._selector.modify(client.sock, selectors.EVENT_WRITE, client)
        except (OSError, AccessDenied) as error:
            self._refuse(client, _words(error), tell=isinstance(error, AccessDenied))
        else:
            assert name is not None
            assert client.facts is not None
            self._leave(client)
            try:
                reason = self._carrier.admit(client.sock, client.facts, name)
            except OSError as error:
                reason = _words(error)
            if reason:
                self._refuse(client, f"{client.facts.host}: {reason}", tell=True)

    def _refuse(self, client: _Client, reason: str, *, tell: bool = False) -> None:
        if tell:
            with suppress(OSError):
                _answer(client.sock, reason)
        self._drop(client)
        self._carrier.refused(client.address, reason)

    def _leave(self, client: _Client) -> None:
        if self._clients.pop(client.sock, None) is not None:
            self._selector.unregister(client.sock)

    def _drop(self, client: _Client) -> None:
        self._leave(client)
        with suppress(OSError):
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
        client.sock.close()


def _answer(sock: ssl.SSLSocket, reason: str) -> None:
    data = reason.encode()[:_REASON_BYTES]
    sock.send(_ANSWER.pack(_MAGIC, not reason, len(data)) + data)


# ---- the dialling side


def connected(
    context: ssl.SSLContext, hosts: Hosts, address: str, host: str, deadline: float
) -> ssl.SSLSocket:
    """Return a TLS connection to a host that has proven its name.

    Raises `HostUnavailable` and `AccessDenied` as `Carrier.dial`.
    """
    timeout = max(deadline - time.monotonic(), 0.0)
    try:
        plain = _connection(*split_address(address), deadline)
    except OSError as error:
        raise _failure(error, address, host, timeout) from error
    made = None
    try:
        made = context.wrap_socket(
            plain, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        _until(made, made.do_handshake, deadline)
        _checked_peer(hosts, made, host)
    except BaseException as error:
        (made or plain).close()
        if isinstance(error, AccessDenied):
            raise AccessDenied(f"host {host!r} at {address}: {error}") from error
        if isinstance(error, OSError):
            raise _failure(error, address, host, timeout) from error
        raise
    return made


def _connection(host: str, port: int, deadline: float) -> socket.socket:
    """Return a non-blocking TCP connection to the first address that answers."""
    last: OSError | None = None
    for family, kind, protocol, _, where in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            tune(made)
            made.settimeout(max(deadline - time.monotonic(), 0.001))
            made.connect(where)
            made.setblocking(False)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise last or OSError(f"{host} has no address")


def _ask(sock: ssl.SSLSocket, name: bytes, deadline: float) -> None:
    """Name the channel, and wait for its acceptance."""
    asked = _ASK.pack(_MAGIC, len(name)) + name
    with suppress(ssl.SSLEOFError, ConnectionError):  # the alert tells why it closed
        _until(sock, lambda: sock.send(asked), deadline)
    head = _read(sock, _ANSWER.size, deadline)
    magic, is_accepted, length = _ANSWER.unpack(head)
    if magic != _MAGIC or length > _REASON_BYTES:
        raise ConnectionError("what answers there is not an ataraxis agent")
    reason = _read(sock, length, deadline).decode(errors="replace")
    if not is_accepted:
        raise ssl.SSLError(1, f"it refused this host: {reason}")


def _read(sock: ssl.SSLSocket, count: int, deadline: float) -> bytes:
    data = bytearray()
    while left := count - len(data):
        got = _until(sock, lambda left=left: sock.recv(left), deadline)
        if not got:
            raise ConnectionResetError("it closed the connection")
        data += got
    return bytes(data)


def _until(sock: ssl.SSLSocket, call: Any, deadline: float) -> Any:
    """Repeat a call of a non-blocking socket until it is done."""
    poll = select.poll()
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            poll.register(sock, select.POLLIN)
        except ssl.SSLWantWriteError:
            poll.register(sock, select.POLLOUT)
        if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise TimeoutError("it does not answer")


def _failure(
    error: OSError, address: str, host: str, timeout: float
) -> HostUnavailable | AccessDenied:
    where = f"host {host!r} at {address}"
    is_foreign = getattr(error, "reason", None) in _NOT_TLS
    if isinstance(error, ssl.SSLError) and not is_foreign:
        return AccessDenied(f"{where}: {_words(error)}")
    if is_foreign:
        text = "another program answers there: check the address in hosts.yaml"
    elif isinstance(error, TimeoutError):
        text = (
            f"no answer within {timeout:.3g} s: check the cable, the address in "
            "hosts.yaml and the firewall"
        )
    elif isinstance(error, socket.gaierror):
        text = f"{error.strerror}: check the address in hosts.yaml"
    elif isinstance(error, ConnectionRefusedError):
        text = "connection refused: start `ataraxis agent` there"
    else:
        text = f"{error.strerror or error}; tried TLS over TCP"
    return HostUnavailable(f"{where}: {text}")


# ---- what both sides share


def contexts(hosts: Hosts) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a host: as server and as client.

    Raises `AccessDenied` if its files or its certificate are not valid.
    """
    hosts.check_files()
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False  # the name is checked, against hosts.yaml
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(context.load_verify_locations, hosts.authority_path)
        _load(context.load_cert_chain, hosts.certificate_path, hosts.key_path)
        made.append(context)
    server, client = made
    server.num_tickets = 0  # a client that only sends would never read them
    own_certificate(hosts, server, client)
    return server, client


def _load(load: Any, *paths: Path) -> None:
    names = " and ".join(map(str, paths))
    try:
        load(*paths)
    except ssl.SSLError as error:
        raise AccessDenied(
            f"{names}: not a certificate of `ataraxis hosts init` and its key: {error}"
        ) from error


def own_certificate(
    hosts: Hosts, server: ssl.SSLContext, client: ssl.SSLContext
) -> CertificateFacts:
    """Return what this host's certificate states, once another host would accept it.

    The contexts shake hands in memory. Raises `AccessDenied` with the reason.

    Parameters
    ----------
    hosts : Hosts
        The lab.
    server, client : ssl.SSLContext
        Of `contexts`.
    """
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(one, other),
        server.wrap_bio(other, one, server_side=True),
    ]
    try:
        for _ in range(4):
            for end in ends:
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        facts = facts_of(ends[0].getpeercert() or {})
    except ssl.SSLError as error:
        raise AccessDenied(
            f"{hosts.certificate_path}: {_words(error)}; make another one by `ataraxis "
            "hosts add`"
        ) from error
    reason = hosts.refusal(facts, hosts.me)
    if reason:
        raise AccessDenied(f"{hosts.certificate_path}: {reason}")
    left = facts.not_after - datetime.datetime.now(datetime.UTC)
    if left.days < _SOON_DAYS:
        _log.warning(
            "%s expires in %d days: make another one by `ataraxis hosts add`",
            hosts.certificate_path,
            left.days,
        )
    return facts


def _checked_peer(
    hosts: Hosts, sock: ssl.SSLSocket, dialled: str | None
) -> CertificateFacts:
    facts = facts_of(sock.getpeercert() or {})
    reason = hosts.refusal(facts, dialled)
    if reason:
        raise AccessDenied(reason)
    return facts


def tune(sock: socket.socket) -> None:
    """Set what a socket of a channel needs: no delay, an end after silence, buffers."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, SILENCE_S)
    for option, limit in (
        (socket.SO_SNDBUF, "wmem_max"),
        (socket.SO_RCVBUF, "rmem_max"),
    ):
        if _kernel_limit(limit) >= SOCKET_BYTES:  # else the kernel's own are larger
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)


def _kernel_limit(name: str) -> int:
    try:
        return int(Path("/proc/sys/net/core", name).read_text())
    except (OSError, ValueError):
        return 0


def _listener(address: str) -> socket.socket:
    host, port = split_address(address)
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_PENDING)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise OSError(
            error.errno, f"cannot listen on {address}: {error.strerror}"
        ) from error
    return made


def _words(error: Exception) -> str:
    """Return why a handshake failed, in words about the other side."""
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return "it closed the connection"
    if reason in _ALERTS:
        return _ALERTS[reason]
    if reason in _NOT_TLS:
        return "it does not speak TLS"
    if isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    return str(error)


def _ending(error: OSError) -> str:
    """Return why a channel ended."""
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return _LOST
    if isinstance(error, ssl.SSLZeroReturnError):
        return _CLOSED_THERE
    if isinstance(error, TimeoutError):
        return f"the other side did not answer for {SILENCE_S} s"
    return f"{error.strerror or error}"
