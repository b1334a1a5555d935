"""`ZenohCarrier`: channels over eclipse-zenoh, many of them in one TLS connection.

zenoh carries puts and is trusted with nothing: each put has a number, so that a missing
one ends its channel, and bytes on their way are bounded by grants of the receiver.
Certificates prove hosts: zenoh's access control lets a peer put under its name only.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link.carrier import (
    NAME_BYTES,
    ChannelClosed,
    OnRefused,
    checked_channel_name,
)
from ataraxis.link.certificates import host_of
from ataraxis.link.hosts import joined_address, split_address
from ataraxis.link.tls_carrier import connected, contexts

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ataraxis.link.hosts import Hosts

LEASE_S = 3.0
"""Silence after which zenoh ends a connection, s."""
STUCK_S = 2.0
"""Longest time of a put, s; its connection is then given up."""
WINDOW = 4 << 20
_IN_FLIGHT = 8 << 20  # bytes of a channel that its receiver has not taken
_GRANT = 1 << 20  # bytes taken between two grants
_PUT = 256 << 10  # bytes of a put; smaller data are joined while zenoh is busy
_PIECES = 1_000_000  # puts of a channel that its receiver has not taken
_UNSENT = 2 << 20  # bytes of a channel that wait for their put
_WAITING = 64  # channels that `accept` has not returned
_OPENED = 1000  # channels of a connection
_REMEMBERED = 10_000  # channels that have ended, of a connection
_LINES = 16  # connections of a host
_UNDONE = 1000  # messages of other hosts that wait to be handled
_AGAIN_S = 0.25  # between two requests for a channel
_ASLEEP_S = 0.25  # between two looks whether a put is stuck
_FLUSH_S = 0.5  # for what was sent just before a close
_REASON_BYTES = 1000
_ROOT = "ax"
_LOGGED = "off,zenoh_link_tls::unicast=warn"  # why a client was refused, to stdout

_HEAD = struct.Struct("<BQ")  # kind, number of the put or bytes taken
_URGENT, _NORMAL = "u", "n"  # how the identity of a channel begins
_DATA, _OPEN, _ACCEPT, _REFUSE, _CLOSE, _TAKEN = range(6)

_log = logging.getLogger("ataraxis.link")
_log.addHandler(logging.NullHandler())

_CLOSED_HERE = "this side has closed it"
_CLOSED_THERE = "the other side has closed it"
_LOST = "the connection was lost"
_NEEDED = (
    "carrier: zenoh needs eclipse-zenoh: pip install 'ataraxis[cluster]', or write "
    "carrier: tls in hosts.yaml of every host"
)


class ZenohCarrier:
    """Channels as puts of zenoh, over TLS between exactly two hosts; as `Carrier`.

    One zenoh session listens, and one dials each host, so that a host that is stuck can
    be dropped alone. Nothing is discovered or routed: scouting, gossip, shared memory
    and the administration space are off.

    Parameters
    ----------
    hosts : Hosts
        The lab, with this host's certificate, key and authority.

    Raises
    ------
    AccessDenied
        A file is missing, not valid, or readable by others; the certificate has
        expired, is revoked, or is of another host.
    ImportError
        eclipse-zenoh is not installed.
    """

    def __init__(self, hosts: Hosts) -> None:
        try:
            import zenoh  # noqa: F401
        except ImportError as error:
            raise ImportError(_NEEDED) from error
        self.address = ""
        self.on_refused: OnRefused | None = None
        self._hosts = hosts
        self._client = contexts(hosts)[1]
        self._changed = threading.Condition()
        # By address and host: who dials waits for no other host.
        self._dialling: dict[tuple[str, str], threading.Lock] = {}
        self._lines: dict[tuple[str, str], _ZenohLink] = {}
        self._arrived: deque[ZenohChannel] = deque()
        self._listening: Any = None
        self._declared: list[Any] = []
        self._callers: dict[tuple[str, str], _ZenohLink] = {}  # by host and session
        self._revoked: set[str] = set()  # while it listens
        self._is_closed = False
        # Threads of zenoh only put in here: they must not run Python for long.
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(
            target=self._run, name="ataraxis zenoh work", daemon=True
        )
        self._worker.start()

    # ---- listening

    def listen(self, address: str) -> None:
        """Accept other hosts on one address; as `Carrier.listen`."""
        if self._listening is not None:
            raise ValueError(f"the carrier listens on {self.address} already")
        import zenoh

        zenoh.init_log_from_env_or(_LOGGED)
        address = _free(address)
        try:
            self._listening = zenoh.open(config_of(self._hosts, listen=address))
        except zenoh.ZError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        self.address = address
        hosts = self._hosts
        direct = zenoh.handlers.Callback
        for host in hosts.hosts:
            if host == hosts.me:
                continue

            def take(sample: Any, host: str = host) -> None:
                self._take_caller(host, sample)

            key = _key(hosts.lab, hosts.me, host, "**")
            self._declared.append(
                self._listening.declare_subscriber(key, direct(take, indirect=False))
            )
        info = self._listening.info
        self._declared += [
            info.declare_link_events_listener(
                direct(self._note_link, indirect=False), history=True
            ),
            info.declare_transport_events_listener(
                direct(self._note_caller, indirect=False)
            ),
        ]

    def accept(self, timeout: float) -> ZenohChannel | None:
        """Return the next channel; as `Carrier.accept`."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._is_closed, timeout)
            return self._arrived.popleft() if self._arrived else None

    def _take_caller(self, host: str, sample: Any) -> None:
        """Take a put of a host that has dialled; in a thread of zenoh."""
        session, channel = str(sample.key_expr).rsplit("/", 2)[1:]
        line = self._callers.get((host, session))
        if line is not None and line.take(channel, sample):
            return
        head = sample.attachment
        if head is None or len(head) != _HEAD.size or self._work.qsize() > _UNDONE:
            return
        kind = _HEAD.unpack(head.to_bytes())[0]
        if kind == _OPEN:
            name = sample.payload.to_bytes()[: NAME_BYTES + 1]
            self._work.put(lambda: self._open(host, session, channel, name))
        elif kind in (_DATA, _TAKEN):
            self._work.put(lambda: self._disown(host, session, channel))

    def _open(self, host: str, session: str, identity: str, name: bytes) -> None:
        """Make the channel that a host asks for, or refuse it."""
        reason, text = "", ""
        try:
            text = name.decode()
        except UnicodeDecodeError as error:
            reason = f"the channel's name is not UTF-8: {error}"
        if host in self._revoked:
            reason = f"the certificate of host {host!r} is revoked"
        elif not 0 < len(name) <= NAME_BYTES:
            reason = f"it did not name a channel of 1 to {NAME_BYTES} bytes"
        with self._changed:
            line = self._caller(host, session)
            if line is None:
                reason = f"it has {_LINES} connections already"
            else:
                if line.was_opened(identity):  # asked twice
                    line.accept_again(identity)
                    return
                if self._is_closed:
                    reason = "its agent is stopping"
                elif len(self._arrived) >= _WAITING:
                    reason = f"{_WAITING} channels wait there already"
                elif line.count() >= _OPENED:
                    reason = f"it has {_OPENED} channels already"
                is_urgent = identity.startswith(_URGENT)
                channel = line.open(identity, text, is_urgent=is_urgent)
                if reason:
                    channel.end(reason, _REFUSE)
                else:
                    channel.announce(_ACCEPT)
                    self._arrived.append(channel)
                    self._changed.notify()
        if reason:
            self._refuse(host, reason)

    def _caller(self, host: str, session: str) -> _ZenohLink | None:
        """Return the connection of a host; None: it has too many."""
        key = host, session
        line = self._callers.get(key)
        if line is None or line.is_broken:
            if sum(each[0] == host for each in self._callers) >= _LINES:
                return None
            line = _ZenohLink(self._listening, self._hosts, host, session)
            self._callers[key] = line
        return line

    def _disown(self, host: str, session: str, identity: str) -> None:
        """Tell a host that a channel it uses is not there, as after a restart."""
        with suppress(Exception):
            self._listening.put(
                _key(self._hosts.lab, host, self._hosts.me, f"{session}/{identity}"),
                b"it is not known there: its agent was restarted",
                attachment=_HEAD.pack(_CLOSE, 0),
            )

    def _note_link(self, event: Any) -> None:
        """Look who has connected; in a thread of zenoh."""
        if not str(event.kind).endswith("PUT"):
            return
        address = str(event.link.dst).removeprefix("tls/")
        name = event.link.auth_identifier
        self._work.put(lambda: self._check_link(address, name))

    def _check_link(self, address: str, name: str | None) -> None:
        host = host_of(name or "")
        if host not in self._hosts.hosts:
            reason = f"its certificate is of host {host!r}, which hosts.yaml lacks"
        elif name != self._hosts.name_of(host):
            reason = f"the certificate {name!r} of host {host!r} is revoked"
        elif host in self._revoked:
            reason = (
                f"the certificate of host {host!r} is newer than this agent: restart "
                "this agent to let it in"
            )
        else:
            return
        self._refuse(address, reason)

    def _refuse(self, address: str, reason: str) -> None:
        _log.warning("%s was refused: %s", address, reason)
        if self.on_refused is not None:
            self.on_refused(address, reason)

    def _note_caller(self, event: Any) -> None:
        """End the channels of a host whose connection has ended; of zenoh's thread."""
        if str(event.kind).endswith("DELETE"):
            session = str(event.transport.zid)
            self._work.put(lambda: self._forget_caller(session))

    def _forget_caller(self, session: str) -> None:
        with self._changed:
            keys = [key for key in self._callers if key[1] == session]
            lines = [self._callers.pop(key) for key in keys]
        for line in lines:
            line.lose(_LOST)

    # ---- dialling

    def dial(
        self,
        address: str,
        host: str,
        name: str,
        timeout: float,
        priority: bool = False,
    ) -> ZenohChannel:
        """Open a channel; as `Carrier.dial`."""
        data = checked_channel_name(name)
        deadline = time.monotonic() + timeout
        line = self._line(address, host, deadline)
        identity = (_URGENT if priority else _NORMAL) + secrets.token_hex(8)
        channel = line.open(identity, name, is_urgent=priority)
        try:
            channel.ask(data, deadline)
        except ChannelClosed as error:
            text = f"host {host!r} at {address}: {channel.reason}"
            if channel.was_refused:
                raise AccessDenied(text) from error
            raise HostUnavailable(text) from error
        except TimeoutError as error:
            channel.close()
            raise HostUnavailable(
                f"host {host!r} at {address} did not answer over zenoh within "
                f"{timeout:.3g} s: its hosts.yaml may lack host {self._hosts.me!r} or "
                "have its certificate revoked; its log states why"
            ) from error
        except BaseException:
            channel.close()
            raise
        return channel

    def _line(self, address: str, host: str, deadline: float) -> _ZenohLink:
        """Return the connection to a host; make it if there is none that works."""
        key = address, host
        with self._changed:
            if self._is_closed:
                raise HostUnavailable(f"host {host!r}: the carrier was closed")
            dialling = self._dialling.setdefault(key, threading.Lock())
        if not dialling.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise HostUnavailable(f"host {host!r} at {address}: it is being dialled")
        try:
            line = self._lines.get(key)
            if line is not None and not line.is_broken:
                return line
            if line is not None:
                self._drop(line, _LOST)
            line = self._connect(address, host, deadline)
            with self._changed:
                if not self._is_closed:
                    self._lines[key] = line
                    return line
            self._drop(line, _CLOSED_HERE)
            raise HostUnavailable(f"host {host!r}: the carrier was closed")
        finally:
            dialling.release()

    def _connect(self, address: str, host: str, deadline: float) -> _ZenohLink:
        import zenoh

        # zenoh's errors do not say why: shake hands first.
        connected(self._client, self._hosts, address, host, deadline).close()
        left = max(deadline - time.monotonic(), 0.1)
        try:
            session = zenoh.open(config_of(self._hosts, connect=address, timeout=left))
        except zenoh.ZError as error:
            raise HostUnavailable(
                f"host {host!r} at {address}: TLS works, zenoh does not: {error}; "
                "write carrier: zenoh in its hosts.yaml, too"
            ) from error
        names = [link.auth_identifier for link in session.info.links()]
        if names != [self._hosts.name_of(host)]:
            _close_later(session)
            raise AccessDenied(
                f"host {host!r} at {address}: its certificate has the name {names}, "
                f"{self._hosts.name_of(host)!r} is valid"
            )
        zid = str(session.zid())
        line = _ZenohLink(session, self._hosts, host, zid)
        direct = zenoh.handlers.Callback

        def take(sample: Any) -> None:
            line.take(str(sample.key_expr).rsplit("/", 1)[1], sample)

        def note(event: Any) -> None:
            if str(event.kind).endswith("DELETE"):
                line.is_broken = True
                self._work.put(lambda: self._drop(line, _LOST))

        key = _key(self._hosts.lab, self._hosts.me, host, f"{zid}/*")
        line.declared = [
            session.declare_subscriber(key, direct(take, indirect=False)),
            session.info.declare_transport_events_listener(
                direct(note, indirect=False)
            ),
        ]
        return line

    def _drop(self, line: _ZenohLink, reason: str) -> None:
        """End a connection that was dialled; zenoh would connect it again."""
        line.lose(reason)
        _close_later(line.session)

    # ---- the end

    def drop(self, host: str) -> None:
        """End every channel of a host; as `Carrier.drop`.

        zenoh's access control is that of the session that listens: it lets the host in
        again, with a certificate of another name, after the next `listen`.
        """
        reason = f"the certificate of host {host!r} is revoked"
        with self._changed:
            if self._listening is not None:
                self._revoked.add(host)
            self._arrived = deque(one for one in self._arrived if one.peer != host)
            dialled = [key for key in self._lines if key[1] == host]
            lines = [self._lines.pop(key) for key in dialled]
            callers = [line for key, line in self._callers.items() if key[0] == host]
        for line in callers:
            line.end(reason)
        for line in lines:
            self._drop(line, reason)

    def close(self) -> None:
        """Stop listening and close every channel."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._arrived.clear()
            self._changed.notify_all()
            dialled, callers = list(self._lines.values()), list(self._callers.values())
            self._lines, self._callers = {}, {}
        lines = dialled + callers
        for line in lines:
            line.close()
        deadline = time.monotonic() + _FLUSH_S
        for line in lines:
            line.join(max(deadline - time.monotonic(), 0))
        sessions = [line.session for line in dialled]
        if self._listening is not None:
            sessions.append(self._listening)
        closers = [_close_later(session) for session in sessions]
        for closer in closers:
            closer.join(STUCK_S)
        self._work.put(None)
        if threading.current_thread() is not self._worker:
            self._worker.join(STUCK_S)

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            try:
                job()
            except Exception:  # of on_refused, or of zenoh at its end
                _log.exception("a message of zenoh was not handled")


class _ZenohLink:
    """A connection of zenoh to one host, and the channels in it."""

    def __init__(self, session: Any, hosts: Hosts, peer: str, zid: str) -> None:
        self.session, self.peer = session, peer
        self.declared: list[Any] = []
        self.is_broken = False
        self._prefix = _key(hosts.lab, peer, hosts.me, zid)
        self._channels: dict[str, ZenohChannel] = {}
        self._opened: set[str] = set()
        self._puts = {urgent: _Puts(self, urgent) for urgent in (False, True)}

    def open(self, identity: str, name: str, *, is_urgent: bool) -> ZenohChannel:
        """Make this side's end of a channel."""
        key = f"{self._prefix}/{identity}"
        made = ZenohChannel(self, self._puts[is_urgent], identity, name, key)
        if len(self._opened) > _REMEMBERED:
            self._opened.clear()
        self._opened.add(identity)
        self._channels[identity] = made
        return made

    def was_opened(self, identity: str) -> bool:
        return identity in self._opened

    def accept_again(self, identity: str) -> None:
        """Answer a repeated request; not if the channel has ended since."""
        channel = self._channels.get(identity)
        if channel is not None:
            channel.announce(_ACCEPT)

    def count(self) -> int:
        return len(self._channels)

    def forget(self, identity: str) -> None:
        self._channels.pop(identity, None)

    def take(self, identity: str, sample: Any) -> bool:
        """Give a put to its channel; in a thread of zenoh."""
        channel = self._channels.get(identity)
        if channel is None:
            return False
        head = sample.attachment
        if head is not None and len(head) == _HEAD.size:
            kind, number = _HEAD.unpack(head.to_bytes())
            channel.take(kind, number, sample.payload)
        return True

    def lose(self, reason: str) -> None:
        """End every channel; nothing more is put."""
        self.is_broken = True
        for channel in list(self._channels.values()):
            channel.end(reason, None)
        for puts in self._puts.values():
            puts.stop()

    def end(self, reason: str) -> None:
        """End every channel, and tell the other side why."""
        for channel in list(self._channels.values()):
            channel.end(reason, _CLOSE)

    def close(self) -> None:
        """Close every channel, and stop after what waits for its put."""
        for channel in list(self._channels.values()):
            channel.close()
        for puts in self._puts.values():
            puts.stop()

    def join(self, timeout: float) -> None:
        for puts in self._puts.values():
            puts.join(timeout)


class _Puts:
    """A thread that puts what the channels of a connection have to send, in turn."""

    def __init__(self, line: _ZenohLink, is_urgent: bool) -> None:
        self._line, self._is_urgent = line, is_urgent
        self._changed = threading.Condition(threading.Lock())
        self._ready: deque[ZenohChannel] = deque()
        self._is_stopped = False
        self._began = 0.0
        self._thread: threading.Thread | None = None

    def add(self, channel: ZenohChannel) -> None:
        """Serve a channel that has something to put."""
        with self._changed:
            if self._is_stopped:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="ataraxis zenoh puts", daemon=True
                )
                self._thread.start()
            self._ready.append(channel)
            self._changed.notify()

    def stop(self) -> None:
        """End the thread once nothing is ready."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def is_stuck(self) -> bool:
        """Whether zenoh has not taken a put for too long."""
        began = self._began
        return bool(began) and time.monotonic() - began > STUCK_S

    def _run(self) -> None:
        import zenoh

        options = {
            "congestion_control": zenoh.CongestionControl.BLOCK,
            "express": True,
            "priority": zenoh.Priority.INTERACTIVE_HIGH
            if self._is_urgent
            else zenoh.Priority.DATA,
        }
        while True:
            with self._changed:
                while not self._ready:
                    if self._is_stopped:
                        return
                    self._changed.wait()
                channel = self._ready.popleft()
            message = channel.next_put()
            if message is None:
                continue
            payload, head = message
            self._began = time.monotonic()
            try:
                self._line.session.put(channel.key, payload, attachment=head, **options)
            except Exception as error:  # whatever it is, the connection is at its end
                self._line.is_broken = True
                channel.end(f"zenoh: {error}", None)
            finally:
                self._began = 0.0
            with self._changed:
                self._ready.append(channel)


class ZenohChannel:
    """A channel in a connection of zenoh; as `Channel`."""

    window: int | None = WINDOW

    def __init__(
        self, line: _ZenohLink, puts: _Puts, identity: str, name: str, key: str
    ) -> None:
        self.peer, self.name, self.key = line.peer, name, key
        self.reason = ""
        self.was_refused = False
        self._line, self._puts, self._identity = line, puts, identity
        self._changed = threading.Condition(threading.Lock())
        # Out: pieces that wait for their put; the last one may grow.
        self._pieces: deque[bytearray] = deque()
        self._unsent = 0
        self._notes: deque[tuple[int, bytes]] = deque()
        self._is_ready = False
        self._number = 0
        self._sent, self._taken_there = 0, 0
        # In: what has arrived.
        self._arrived: deque[bytes] = deque()
        self._start = 0  # bytes of the first piece that were received
        self._waiting = 0
        self._expected = 0
        self._taken, self._told, self._granted = 0, 0, 0
        self._is_accepted = False
        self._is_ended = False  # the other side's end has arrived, or is known
        self._is_closed = False

    # ---- this side's threads

    def send(self, data: Buffer, timeout: float) -> None:
        """Send all bytes; as `Channel.send`."""
        view = memoryview(data).cast("B")
        deadline = time.monotonic() + timeout
        at, size = 0, view.nbytes
        while at < size:
            with self._changed:
                count = self._room(min(size - at, _PUT), deadline, timeout)
                if count:
                    self._append(view[at : at + count])
                is_added = self._has_work()
            if is_added:
                self._puts.add(self)
            if not count:
                self._line.lose(f"zenoh did not send for {STUCK_S:g} s")
            at += count

    def _room(self, wanted: int, deadline: float, timeout: float) -> int:
        """Wait for room; return how many bytes may be added now; 0: zenoh is stuck."""
        least = min(wanted, _PUT // 4)
        while True:
            self._check()
            granted = self._taken_there + _IN_FLIGHT - self._sent
            room = min(granted, _UNSENT - self._unsent)
            if room >= least:
                return min(room, wanted)
            left = deadline - time.monotonic()
            if self._puts.is_stuck():
                return 0
            if left <= 0:
                self._end("a send timed out", _CLOSE)
                raise TimeoutError(f"{self}: not sent within {timeout:g} s")
            self._changed.wait(min(left, _ASLEEP_S))

    def _append(self, part: memoryview) -> None:
        """Append data to the last piece that waits for its put, or as a new one."""
        last = self._pieces[-1] if self._pieces else None
        if last is not None and len(last) + len(part) <= _PUT:
            last += part
        else:
            self._pieces.append(bytearray(part))
        self._sent += len(part)
        self._unsent += len(part)

    def _has_work(self) -> bool:
        """Note that there is something to put; whether its thread must be told."""
        was_ready, self._is_ready = self._is_ready, True
        return not was_ready

    def receive_into(self, buffer: memoryview, timeout: float) -> int:
        """Receive what has arrived; as `Channel.receive_into`."""
        buffer = buffer.cast("B")
        size, at = buffer.nbytes, 0
        is_told = False
        with self._changed:
            if self._is_closed:
                self._check()
            if not self._arrived:
                self._wait_for_data(time.monotonic() + timeout)
        # Only this thread removes, and threads of zenoh only append.
        while at < size and self._arrived:
            piece = self._arrived[0]
            count = min(size - at, len(piece) - self._start)
            buffer[at : at + count] = memoryview(piece)[
                self._start : self._start + count
            ]
            at += count
            self._start += count
            if self._start == len(piece):
                self._start = 0
                self._arrived.popleft()
        with self._changed:
            self._waiting -= at
            self._taken += at
            if self._taken - self._told >= _GRANT:
                self._told = self._taken
                is_told = self._has_work()
        if is_told:
            self._puts.add(self)
        return at

    def _wait_for_data(self, deadline: float) -> None:
        while not self._arrived:
            self._check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)
        if self._is_closed:
            self._check()

    def ask(self, name: bytes, deadline: float) -> None:
        """Ask the other side for this channel, until it accepts or refuses."""
        while True:
            self.announce(_OPEN, name)
            with self._changed:
                left = deadline - time.monotonic()
                self._changed.wait_for(
                    lambda: self._is_accepted or self.reason, min(left, _AGAIN_S)
                )
                self._check()
                if self._is_accepted:
                    return
            if left <= 0:
                raise TimeoutError

    def announce(self, kind: int, payload: bytes = b"") -> None:
        """Put a message that is not data."""
        with self._changed:
            self._notes.append((kind, payload))
            is_added = self._has_work()
        if is_added:
            self._puts.add(self)

    def close(self) -> None:
        """End the channel; as `Channel.close`."""
        with self._changed:
            self._is_closed = True
        self.end(_CLOSED_HERE, _CLOSE)

    def end(self, reason: str, kind: int | None) -> None:
        """End the channel, and tell the other side by a message, if any."""
        with self._changed:
            self._end(reason, kind)

    def _end(self, reason: str, kind: int | None) -> None:
        if not self.reason:
            self.reason = reason
            if kind is None:
                self._pieces.clear()
                self._notes.clear()
            elif not self._is_ended:
                text = "" if kind == _CLOSE and reason == _CLOSED_HERE else reason
                self._notes.append((kind, text.encode()[:_REASON_BYTES]))
                if self._has_work():
                    self._puts.add(self)
            self._is_ended = True
        if kind is None or not self._has_unsent():
            self._line.forget(self._identity)
        self._changed.notify_all()

    def _has_unsent(self) -> bool:
        return bool(self._pieces or self._notes)

    def _check(self) -> None:
        if self.reason:
            raise ChannelClosed(f"{self}: {self.reason}")

    # ---- the thread of puts

    def next_put(self) -> tuple[bytes | bytearray, bytes] | None:
        """Return the next payload and its head; None: nothing to put."""
        with self._changed:
            if self._granted != self._told:
                self._granted = self._told
                return b"", _HEAD.pack(_TAKEN, self._told)
            if self._notes and self._notes[0][0] in (_OPEN, _ACCEPT):
                kind, payload = self._notes.popleft()
                return payload, _HEAD.pack(kind, 0)
            if self._pieces:
                piece = self._pieces.popleft()
                before, self._unsent = self._unsent, self._unsent - len(piece)
                head = _HEAD.pack(_DATA, self._number)
                self._number += 1
                if self._unsent <= _UNSENT // 2 < before:  # wake a sender once
                    self._changed.notify_all()
                return piece, head
            if self._notes:
                kind, payload = self._notes.popleft()
                return payload, _HEAD.pack(kind, self._number)
            self._is_ready = False
            if self.reason:
                self._line.forget(self._identity)
            return None

    # ---- threads of zenoh

    def take(self, kind: int, number: int, payload: Any) -> None:
        """Take a put of the other side."""
        if kind == _DATA:
            data = payload.to_bytes()
            with self._changed:
                if self.reason:
                    return
                if number != self._expected:
                    self._end(
                        f"a message is missing: number {number} arrived, "
                        f"{self._expected} was expected",
                        _CLOSE,
                    )
                elif (
                    self._waiting + len(data) > 2 * _IN_FLIGHT
                    or len(self._arrived) > _PIECES
                ):
                    self._end("the other side sent more than was granted", _CLOSE)
                else:
                    self._expected += 1
                    if data:
                        self._waiting += len(data)
                        self._arrived.append(data)
                        self._changed.notify_all()
        elif kind == _TAKEN:
            with self._changed:
                self._taken_there = max(self._taken_there, min(number, self._sent))
                self._changed.notify_all()
        elif kind == _ACCEPT:
            with self._changed:
                self._is_accepted = True
                self._changed.notify_all()
        elif kind in (_CLOSE, _REFUSE):
            text = payload.to_bytes()[:_REASON_BYTES].decode(errors="replace")
            with self._changed:
                self.was_refused = self.was_refused or kind == _REFUSE
                self._is_ended = True
                if kind == _CLOSE and number > self._expected:
                    text = "a message is missing before its end"
                self._end(text or _CLOSED_THERE, None)

    def __str__(self) -> str:
        return f"channel {self.name!r} to {self.peer}"


def _key(lab: str, to: str, sender: str, rest: str) -> str:
    """Return a key of what ``sender`` puts for ``to``; its certificate proves it."""
    return f"{_ROOT}/{lab}/{to}/from/{sender}/{rest}"


def _close_later(session: Any) -> threading.Thread:
    """Close a session in a thread: zenoh may take long when the other side is stuck."""

    def close() -> None:
        with suppress(Exception):
            session.close()

    thread = threading.Thread(target=close, name="ataraxis zenoh close", daemon=True)
    thread.start()
    return thread


def _free(address: str) -> str:
    """Replace port 0 by a free one: zenoh does not tell which it took."""
    host, port = split_address(address)
    if port:
        return joined_address(host, port)
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, 0, type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(where)
        return joined_address(host, probe.getsockname()[1])


def config_of(
    hosts: Hosts, *, listen: str = "", connect: str = "", timeout: float = 5.0
) -> Any:
    """Return the configuration of a zenoh session of this host.

    Parameters
    ----------
    hosts : Hosts
        The lab.
    listen, connect : str, optional
        The one address where it listens, or that it dials.
    timeout : float, optional
        Longest wait for a connection, s.
    """
    import zenoh

    tls = {
        "root_ca_certificate": os.fspath(hosts.authority_path),
        "enable_mtls": True,
        "verify_name_on_connect": False,  # the name is not the address: see access
        "close_link_on_expiration": True,
    }
    for side in ("listen", "connect"):
        tls[f"{side}_certificate"] = os.fspath(hosts.certificate_path)
        tls[f"{side}_private_key"] = os.fspath(hosts.key_path)
    settings: dict[str, Any] = {
        "mode": "peer",
        "listen/endpoints": [f"tls/{listen}"] if listen else [],
        "listen/exit_on_failure": True,
        "connect/endpoints": [f"tls/{connect}"] if connect else [],
        "connect/timeout_ms": max(int(timeout * 1000), 1),
        "connect/exit_on_failure": True,
        "scouting/delay": 0,
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "adminspace/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/unicast/open_timeout": 5000,
        "transport/unicast/accept_timeout": 5000,
        "transport/link/protocols": ["tls"],
        "transport/link/tx/lease": int(LEASE_S * 1000),
        "transport/link/rx/max_message_size": 4 * _PUT,
        "transport/link/tls": tls,
        "access_control": _access(hosts),
    }
    config = zenoh.Config()
    for name, value in settings.items():
        config.insert_json5(name, json.dumps(value))
    return config


def _access(hosts: Hosts) -> dict[str, Any]:
    """Return who may do what: each host put to this one under its own name only."""
    rules: list[dict[str, Any]] = []
    subjects, policies = [], []
    for host in hosts.hosts:
        if host == hosts.me:
            continue
        theirs = _key(hosts.lab, hosts.me, host, "**")
        ours = _key(hosts.lab, host, hosts.me, "**")
        names = []
        for message, flow, key in (
            ("put", "ingress", theirs),
            ("put", "egress", ours),
            ("declare_subscriber", "ingress", ours),
            ("declare_subscriber", "egress", theirs),
        ):
            names.append(f"{message} {flow} {host}")
            rules.append(
                {
                    "id": names[-1],
                    "permission": "allow",
                    "messages": [message],
                    "flows": [flow],
                    "key_exprs": [key],
                }
            )
        subjects.append({"id": host, "cert_common_names": [hosts.name_of(host)]})
        policies.append({"rules": names, "subjects": [host]})
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }
