"""FakeCarrier, whose network breaks on command; CarrierContract: what carriers do."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ataraxis.errors import HostUnavailable
from ataraxis.link.carrier import (
    NAME_BYTES,
    Carrier,
    Channel,
    ChannelClosed,
    OnRefused,
    checked_channel_name,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

WAIT_S = 20.0
PIPE_BYTES = 1 << 20


class FakeNetwork:
    """A network in memory, of `FakeCarrier` of any number of hosts.

    Parameters
    ----------
    pipe_bytes : int, optional
        Most bytes on their way in one direction of a channel; a sender then waits.

    Examples
    --------
    >>> network = FakeNetwork()
    >>> acq, gpu = FakeCarrier(network, "acq"), FakeCarrier(network, "gpu")
    >>> acq.listen("acq:7411")
    >>> channel = gpu.dial("acq:7411", "acq", "control", 1.0)
    >>> network.cut("acq", "gpu")
    >>> channel.send(b"x", 1.0)
    Traceback (most recent call last):
        ...
    ataraxis.link.carrier.ChannelClosed: channel 'control' to acq: the network was cut
    """

    def __init__(self, pipe_bytes: int = PIPE_BYTES) -> None:
        self.changed = threading.Condition()
        self.pipe_bytes = pipe_bytes
        self.carriers: dict[str, FakeCarrier] = {}
        self._channels: list[FakeChannel] = []
        self._cut: set[frozenset[str]] = set()
        self._stalled: set[tuple[str, str]] = set()
        self._ports = 50_000

    def cut(self, one: str, other: str, *, drop_tail: int | None = None) -> None:
        """End every channel of two hosts, and refuse new ones until `heal`.

        Parameters
        ----------
        one, other : str
            Names of the hosts.
        drop_tail : int, optional
            How many of the last bytes on their way are lost in each direction; default:
            all.
        """
        with self.changed:
            pair = frozenset((one, other))
            self._cut.add(pair)
            for channel in self._channels:
                if {channel.peer, channel.me} == pair:
                    channel.drop(drop_tail)
                    channel.end("the network was cut")
            self.changed.notify_all()

    def heal(self, one: str, other: str) -> None:
        """Undo `cut` and `stall` of two hosts; ended channels stay ended."""
        with self.changed:
            self._cut.discard(frozenset((one, other)))
            self._stalled -= {(one, other), (other, one)}
            self.changed.notify_all()

    def stall(self, sender: str, receiver: str) -> None:
        """Keep what one host sends to another on its way, until `heal`.

        Channels do not end, and new ones cannot be dialled, as with a cable that is
        out: only time limits show it.
        """
        with self.changed:
            self._stalled.add((sender, receiver))

    def is_stalled(self, sender: str, receiver: str) -> bool:
        """Whether what one host sends to another does not arrive."""
        return (sender, receiver) in self._stalled

    def is_cut(self, one: str, other: str) -> bool:
        """Whether two hosts cannot reach each other."""
        return frozenset((one, other)) in self._cut

    def bound(self, carrier: FakeCarrier, address: str) -> str:
        """Register where a carrier listens; port 0 is replaced."""
        host, _, port = address.rpartition(":")
        with self.changed:
            if port == "0":
                self._ports += 1
                address = f"{host}:{self._ports}"
            if address in self.carriers:
                raise OSError(98, f"{address} is in use")
            self.carriers[address] = carrier
        return address

    def joined(self, dialler: str, listener: FakeCarrier, name: str) -> FakeChannel:
        """Make the two ends of a channel; return the dialling one."""
        one = FakeChannel(self, dialler, listener.host, name)
        other = FakeChannel(self, listener.host, dialler, name)
        one.far, other.far = other, one
        self._channels = [c for c in self._channels if not c.reason] + [one, other]
        listener.arrived.append(other)
        self.changed.notify_all()
        return one

    def end_channels(self, me: str, peer: str) -> None:
        """End the channels of a carrier to another host."""
        with self.changed:
            for channel in self._channels:
                if (channel.me, channel.peer) == (me, peer):
                    channel.end("the other host was dropped")
            self.changed.notify_all()

    def leave(self, carrier: FakeCarrier) -> None:
        """Unregister a carrier, and end its channels."""
        with self.changed:
            self.carriers = {a: c for a, c in self.carriers.items() if c != carrier}
            for channel in self._channels:
                if channel.me == carrier.host:
                    channel.end("this side has closed it")
            self.changed.notify_all()


class FakeChannel:
    """One end of a channel in memory; as `Channel`."""

    window: int | None = None

    def __init__(self, network: FakeNetwork, me: str, peer: str, name: str) -> None:
        self.me, self.peer, self.name = me, peer, name
        self.far: FakeChannel = self
        self.reason = ""
        self._network = network
        self.pieces: deque[bytes] = deque()
        self.queued = 0

    def send(self, data: Buffer, timeout: float) -> None:
        """Send all bytes; as `Channel.send`."""
        rest = memoryview(data).cast("B")
        deadline = time.monotonic() + timeout
        changed = self._network.changed
        with changed:
            while True:
                self._check()
                room = self._network.pipe_bytes - self.far.queued
                if room > 0 and rest.nbytes:
                    self.far.pieces.append(bytes(rest[:room]))
                    self.far.queued += min(room, rest.nbytes)
                    rest = rest[room:]
                    changed.notify_all()
                if not rest.nbytes:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    self.end("a send timed out")
                    changed.notify_all()
                    raise TimeoutError(f"{self}: not sent within {timeout} s")
                changed.wait(left)

    def receive_into(self, buffer: memoryview, timeout: float) -> int:
        """Receive what has arrived; as `Channel.receive_into`."""
        buffer = buffer.cast("B")
        deadline = time.monotonic() + timeout
        changed = self._network.changed
        with changed:
            while not self._has_arrived():
                self._check()
                left = deadline - time.monotonic()
                if left <= 0:
                    return 0
                changed.wait(left)
            at = 0
            while self.pieces and at < buffer.nbytes:
                piece = self.pieces.popleft()
                taken = piece[: buffer.nbytes - at]
                buffer[at : at + len(taken)] = taken
                at += len(taken)
                if len(taken) < len(piece):
                    self.pieces.appendleft(piece[len(taken) :])
            self.queued -= at
            changed.notify_all()
            return at

    def close(self) -> None:
        """End the channel; as `Channel.close`."""
        with self._network.changed:
            self.end("this side has closed it")
            self._network.changed.notify_all()

    def end(self, reason: str) -> None:
        """Set why it ended, if it has not; the network's lock is held."""
        is_here = reason.startswith("this side")
        self.reason = self.reason or reason
        theirs = "the other side has closed it" if is_here else reason
        self.far.reason = self.far.reason or theirs

    def drop(self, tail: int | None) -> None:
        """Lose the last bytes that have not been received; None: all."""
        kept = 0 if tail is None else max(self.queued - tail, 0)
        data = b"".join(self.pieces)[:kept]
        self.pieces = deque([data] if data else [])
        self.queued = len(data)

    def _has_arrived(self) -> bool:
        return bool(self.pieces) and not self._network.is_stalled(self.peer, self.me)

    def _check(self) -> None:
        if self.reason:
            raise ChannelClosed(f"{self}: {self.reason}")

    def __str__(self) -> str:
        return f"channel {self.name!r} to {self.peer}"


class FakeCarrier:
    """A carrier of a `FakeNetwork`; as `Carrier`. Every host is what it says it is.

    Parameters
    ----------
    network : FakeNetwork
        The network of all hosts of a test.
    host : str
        Name of this host.
    """

    def __init__(self, network: FakeNetwork, host: str) -> None:
        self.address = ""
        self.on_refused: OnRefused | None = None
        self.host = host
        self.arrived: deque[FakeChannel] = deque()
        self._network = network
        self._closed = False

    def listen(self, address: str) -> None:
        """Accept other hosts; as `Carrier.listen`."""
        self.address = self._network.bound(self, address)

    def accept(self, timeout: float) -> FakeChannel | None:
        """Return the next channel; as `Carrier.accept`."""
        changed = self._network.changed
        with changed:
            changed.wait_for(lambda: self.arrived or self._closed, timeout)
            return self.arrived.popleft() if self.arrived else None

    def dial(
        self,
        address: str,
        host: str,
        name: str,
        timeout: float,
        priority: bool = False,
    ) -> FakeChannel:
        """Open a channel; as `Carrier.dial`."""
        checked_channel_name(name)
        network = self._network
        with network.changed:
            there = network.carriers.get(address)
            if there is None or network.is_cut(self.host, host):
                raise HostUnavailable(
                    f"host {host} at {address} refused the connection: start its agent"
                )
            ways = (self.host, host), (host, self.host)

            def is_open() -> bool:
                return not any(network.is_stalled(*way) for way in ways)

            if not network.changed.wait_for(is_open, timeout):
                raise HostUnavailable(
                    f"host {host} at {address} did not answer within {timeout} s: "
                    "check cable and address"
                )
            if there.host != host:
                raise HostUnavailable(f"{address} is host {there.host}, not {host}")
            return network.joined(self.host, there, name)

    def drop(self, host: str) -> None:
        """End every channel of a host; as `Carrier.drop`."""
        self._network.end_channels(self.host, host)

    def close(self) -> None:
        """Stop listening and close every channel."""
        self._closed = True
        self._network.leave(self)


def pattern(start: int, count: int) -> bytes:
    """Return bytes of a stream from a position on, different everywhere."""
    words = range(start // 8, (start + count) // 8 + 1)
    data = b"".join((i * 0x9E3779B97F4A7C15 & (1 << 64) - 1).to_bytes(8) for i in words)
    return data[start % 8 :][:count]


def _send_reused(channel: Channel, size: int) -> None:
    buffer = bytearray(size)
    for i in range(20):
        buffer[:] = pattern(8 * i, size)
        channel.send(buffer, WAIT_S)


class CarrierContract:
    """Laws of a carrier: subclass it in a test module, and give `make`.

    Examples
    --------
    >>> class TestFake(CarrierContract):
    ...     @contextmanager
    ...     def make(self, *hosts):
    ...         network = FakeNetwork()
    ...         carriers = [FakeCarrier(network, host) for host in hosts]
    ...         carriers[0].listen("acq:0")
    ...         yield carriers
    ...         for carrier in carriers:
    ...             carrier.close()
    >>> TestFake().test_bytes_arrive_in_order()
    """

    def make(self, *hosts: str) -> AbstractContextManager[list[Any]]:
        """Return a context manager that gives a carrier of each host.

        The first one listens, and the others can dial it. They are closed at the end.
        """
        raise NotImplementedError

    # ---- what the tests share

    @contextmanager
    def pair(self, name: str = "control") -> Iterator[tuple[Channel, Channel]]:
        """Give the two ends of a channel: the one that dialled first."""
        with self.make("acq", "gpu") as (acq, gpu):
            yield self.opened(acq, gpu, name)

    def opened(
        self, listener: Carrier, dialler: Carrier, name: str = "control"
    ) -> tuple[Channel, Channel]:
        """Return the two ends of a new channel: the one that dialled first."""
        one = dialler.dial(listener.address, "acq", name, WAIT_S)
        other = listener.accept(WAIT_S)
        assert other is not None, "dialled, and not accepted"
        return one, other

    def read(self, channel: Channel, count: int, size: int = 1 << 20) -> bytes:
        """Return so many bytes of a channel."""
        data, at = bytearray(count), 0
        with memoryview(data) as view:
            while at < count:
                with view[at : at + size] as part:
                    got = channel.receive_into(part, WAIT_S)
                assert got > 0, f"{at} of {count} bytes within {WAIT_S} s"
                at += got
        return bytes(data)

    def raised(self, call: Callable[[], object], *errors: type[Exception]) -> Exception:
        """Return the error that a call raises."""
        try:
            call()
        except errors as error:
            return error
        raise AssertionError(f"no {errors} was raised")

    def closed(self, channel: Channel) -> str:
        """Wait until a channel has ended, and return why."""
        scratch = memoryview(bytearray(1 << 16))
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                channel.receive_into(scratch, 0.2)
            except ChannelClosed as error:
                return str(error)
        raise AssertionError(f"the channel has not ended within {WAIT_S} s")

    # ---- the laws

    def test_bytes_arrive_in_order(self) -> None:
        """Large and small ones, whatever the sizes of sends and receives."""
        sizes = [1, 64, 3, 70_000, 64, 64, 5_000_000, 2, 65_536, 65_537, 10_240]
        with self.pair() as (one, other):
            total = sum(sizes)
            data = pattern(0, total)

            def send() -> None:
                at = 0
                for size in sizes:
                    one.send(memoryview(data)[at : at + size], WAIT_S)
                    at += size

            sender = threading.Thread(target=send)
            sender.start()
            assert self.read(other, total, 100_003) == data
            sender.join(WAIT_S)

    def test_small_messages_arrive(self) -> None:
        """A message of 64 bytes is not kept back until there are more."""
        with self.pair() as (one, other):
            for i in range(200):
                one.send(pattern(i * 64, 64), WAIT_S)
                assert self.read(other, 64) == pattern(i * 64, 64)
                other.send(b"ack", WAIT_S)
                assert self.read(one, 3) == b"ack"

    def test_a_buffer_may_be_reused(self) -> None:
        """What was sent does not change with the buffer afterwards."""
        for size in (100, 300_000):
            with self.pair() as (one, other):
                sender = threading.Thread(target=_send_reused, args=(one, size))
                sender.start()
                got = self.read(other, 20 * size)
                sender.join(WAIT_S)
                assert got == b"".join(pattern(8 * i, size) for i in range(20))

    def test_both_directions_at_once(self) -> None:
        """One thread sends while another one receives, at both ends."""
        count, size = 40, 262_144
        data = pattern(0, size)
        with self.pair() as ends:

            def send(channel: Channel) -> None:
                for _ in range(count):
                    channel.send(data, WAIT_S)

            threads = [threading.Thread(target=send, args=(end,)) for end in ends]
            got: dict[int, bytes] = {}

            def receive(i: int) -> None:
                got[i] = self.read(ends[i], count * size)

            threads += [threading.Thread(target=receive, args=(i,)) for i in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * WAIT_S)
            assert {i: part == data * count for i, part in got.items()} == {
                0: True,
                1: True,
            }

    def test_the_names_are_proven_and_carried(self) -> None:
        """Each end knows the other host, and what the channel is for."""
        with self.pair("mirror \N{MICRO SIGN}camera") as (one, other):
            assert (one.peer, other.peer) == ("acq", "gpu")
            assert one.name == other.name == "mirror \N{MICRO SIGN}camera"

    def test_names_are_bounded(self) -> None:
        """A name has 1 to 200 bytes."""
        with self.make("acq", "gpu") as (acq, gpu):
            for name in ("", "x" * (NAME_BYTES + 1), "\N{MICRO SIGN}" * NAME_BYTES):
                self.raised(lambda n=name: self.opened(acq, gpu, n), ValueError)  # type: ignore[misc]
            assert self.opened(acq, gpu, "x" * NAME_BYTES)[1].name == "x" * NAME_BYTES

    def test_a_receive_times_out(self) -> None:
        """It returns 0, and the channel goes on."""
        with self.pair() as (one, other):
            scratch = memoryview(bytearray(10))
            begin = time.monotonic()
            assert other.receive_into(scratch, 0.05) == 0
            assert other.receive_into(scratch, 0) == 0
            assert time.monotonic() - begin >= 0.05
            one.send(b"late", WAIT_S)
            assert other.receive_into(scratch, WAIT_S) == 4

    def test_a_send_times_out(self) -> None:
        """When the other side reads nothing; the channel is then closed."""
        with self.pair() as (one, _):
            data = bytes(1 << 20)

            def fill() -> None:
                for _ in range(256):
                    one.send(data, 0.3)

            self.raised(fill, TimeoutError)
            self.raised(lambda: one.send(b"x", WAIT_S), ChannelClosed)

    def test_an_accept_times_out(self) -> None:
        """It returns None."""
        with self.make("acq", "gpu") as (acq, gpu):
            assert acq.accept(0.05) is None
            self.opened(acq, gpu)

    def test_either_side_may_close(self) -> None:
        """Both sides then get `ChannelClosed`, which states why."""
        for closing in (0, 1):
            with self.pair() as ends:
                ends[closing].close()
                ends[closing].close()
                assert self.closed(ends[1 - closing])
                for end in ends:
                    self.raised(lambda e=end: e.send(b"x", WAIT_S), ChannelClosed)  # type: ignore[misc]
                    assert str(self.closed(end))

    def test_what_was_sent_before_a_close_arrives(self) -> None:
        """On a network that works: a refusal is sent just before the end."""
        with self.pair() as (one, other):
            one.send(b"refused: why", WAIT_S)
            one.close()
            assert self.read(other, 12) == b"refused: why"
            self.closed(other)

    def test_a_close_wakes_waits_of_this_side(self) -> None:
        """A send and a receive that wait in other threads end at once."""
        with self.pair() as (one, _):
            errors: list[Exception] = []

            def receive() -> None:
                wait = 4 * WAIT_S
                call = lambda: one.receive_into(memoryview(bytearray(9)), wait)  # noqa: E731
                errors.append(self.raised(call, ChannelClosed))

            def send() -> None:
                def fill() -> None:
                    while True:
                        one.send(bytes(1 << 20), 4 * WAIT_S)

                errors.append(self.raised(fill, ChannelClosed))

            threads = [threading.Thread(target=t) for t in (receive, send)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            begin = time.monotonic()
            one.close()
            for thread in threads:
                thread.join(WAIT_S)
            assert len(errors) == 2
            assert time.monotonic() - begin < 5

    def test_closing_a_carrier_ends_its_channels(self) -> None:
        """At both ends, and `accept` returns None."""
        for closing in (0, 1):
            with self.make("acq", "gpu") as carriers:
                ends = self.opened(*carriers)
                carriers[closing].close()
                for end in ends:
                    assert self.closed(end)
                assert carriers[closing].accept(0.1) is None

    def test_dropping_a_host_ends_its_channels(self) -> None:
        """At both ends, whichever side drops the other; not those of other hosts."""
        for dropping in (0, 1):
            with self.make("acq", "gpu", "behaviour") as carriers:
                ends = self.opened(carriers[0], carriers[1])
                others = self.opened(carriers[0], carriers[2])
                carriers[dropping].drop(("gpu", "acq")[dropping])
                for end in ends:
                    assert self.closed(end)
                others[0].send(b"still here", WAIT_S)
                assert self.read(others[1], 10) == b"still here"

    def test_a_host_that_is_not_there(self) -> None:
        """The error names it, its address, and what to do."""
        with self.make("acq", "gpu") as (acq, gpu):
            address = acq.address
            acq.close()
            call = lambda: gpu.dial(address, "acq", "control", 3.0)  # noqa: E731
            text = str(self.raised(call, HostUnavailable))
            assert "acq" in text
            assert address in text

    def test_twenty_channels_at_once(self) -> None:
        """They are independent: of hosts, of each other's speed and end."""
        with self.make("acq", "gpu", "behaviour") as (acq, *others):
            ends = []
            for i in range(20):
                name = f"mirror {i}"
                ends.append(self.opened(acq, others[i % 2], name))
                assert ends[-1][1].name == name
                assert ends[-1][1].peer == ("gpu", "behaviour")[i % 2]
            for i, (one, other) in enumerate(ends):
                if i % 5 == 4:
                    other.close()
                else:
                    one.send(pattern(i, 100_000), WAIT_S)
            for i, (one, other) in enumerate(ends):
                if i % 5 == 4:
                    assert self.closed(one)
                else:
                    assert self.read(other, 100_000) == pattern(i, 100_000)

    def test_a_channel_that_is_not_read_stops_no_other(self) -> None:
        """While its sender waits, the next channel of the pair goes on."""
        with self.make("acq", "gpu") as (acq, gpu):
            stuck, _ = self.opened(acq, gpu, "stuck")
            one, other = self.opened(acq, gpu, "moving")

            def fill() -> None:
                with suppress(ChannelClosed, TimeoutError):
                    while True:
                        stuck.send(bytes(1 << 20), WAIT_S)

            sender = threading.Thread(target=fill)
            sender.start()
            time.sleep(0.3)
            for i in range(50):
                one.send(pattern(i, 10_000), WAIT_S)
                assert self.read(other, 10_000) == pattern(i, 10_000)
            stuck.close()
            sender.join(WAIT_S)

    def test_a_dial_again_after_an_end(self) -> None:
        """A new channel does not see what the old one left."""
        with self.make("acq", "gpu") as (acq, gpu):
            for i in range(5):
                one, other = self.opened(acq, gpu)
                one.send(pattern(i, 5_000), WAIT_S)
                assert self.read(other, 1_000) == pattern(i, 5_000)[:1_000]
                (one, other)[i % 2].close()
