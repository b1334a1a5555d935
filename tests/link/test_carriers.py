"""Every carrier keeps the contract: fake, tls and zenoh."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from programs import Program

from ataraxis.errors import HostUnavailable
from ataraxis.link.carrier import Carrier, Channel, ChannelClosed
from ataraxis.link.hosts import Hosts, split_address
from ataraxis.link.tls_carrier import TlsCarrier
from ataraxis.link.zenoh_carrier import ZenohCarrier
from ataraxis.testing.carriers import (
    WAIT_S,
    CarrierContract,
    FakeCarrier,
    FakeNetwork,
    pattern,
)


class TestFake(CarrierContract):
    @contextmanager
    def make(self, *hosts: str) -> Iterator[list[FakeCarrier]]:
        network = FakeNetwork()
        carriers = [FakeCarrier(network, host) for host in hosts]
        carriers[0].listen("acq:0")
        yield carriers
        for carrier in carriers:
            carrier.close()


class _OverTls(CarrierContract):
    kind: type[TlsCarrier] | type[ZenohCarrier]
    name: Literal["tls", "zenoh"]

    @contextmanager
    def make(self, *hosts: str) -> Iterator[list[TlsCarrier | ZenohCarrier]]:
        with tempfile.TemporaryDirectory() as folder:
            made = Hosts.create(folder, "rig", dict.fromkeys(hosts, "127.0.0.1"))
            carriers = [self.kind(made[host]) for host in hosts]
            try:
                carriers[0].listen("127.0.0.1:0")
                yield carriers
            finally:
                for carrier in carriers:
                    carrier.close()

    def test_a_dial_waits_for_no_other_host(self) -> None:
        """One host is silent; another one is dialled meanwhile."""
        with (
            self.make("acq", "gpu", "behaviour") as (acq, gpu, _),
            socket.create_server(("127.0.0.1", 0)) as silent,
        ):
            place = f"127.0.0.1:{silent.getsockname()[1]}"
            errors: list[Exception] = []

            def dial() -> None:
                call = lambda: gpu.dial(place, "behaviour", "x", 3.0)  # noqa: E731
                errors.append(self.raised(call, HostUnavailable))

            thread = threading.Thread(target=dial)
            thread.start()
            time.sleep(0.2)
            self.opened(acq, gpu)
            assert thread.is_alive()
            thread.join(WAIT_S)
            assert len(errors) == 1

    def test_a_host_that_is_killed(self, tmp_path: Path) -> None:
        """Both directions end at once, and a dial states that nothing is there."""
        with self.reading(tmp_path) as (dialler, channel, program, address):
            channel.send(bytes(1000), WAIT_S)
            program.process.kill()
            begin = time.monotonic()
            assert self.closed(channel)
            assert time.monotonic() - begin < 5
            self.raised(lambda: channel.send(b"x", WAIT_S), ChannelClosed)
            program.process.wait()
            self.raised(lambda: dialler.dial(address, "acq", "x", 5), HostUnavailable)

    def test_a_host_that_is_stopped(self, tmp_path: Path) -> None:
        """No call waits for long, and afterwards a dial works again."""
        with self.reading(tmp_path) as (dialler, channel, program, address):
            os.kill(program.pid, signal.SIGSTOP)
            begin = time.monotonic()

            def fill() -> None:
                while True:
                    channel.send(bytes(1 << 20), 4 * WAIT_S)

            self.raised(fill, ChannelClosed)
            assert time.monotonic() - begin < WAIT_S
            assert self.closed(channel)
            self.raised(lambda: dialler.dial(address, "acq", "x", 0.5), HostUnavailable)
            os.kill(program.pid, signal.SIGCONT)
            dialler.dial(address, "acq", "x", WAIT_S).close()

    @contextmanager
    def reading(self, folder: Path) -> Iterator[tuple[Carrier, Channel, Program, str]]:
        """Give a carrier, and its channel to a program that reads it."""
        hosts = dict.fromkeys(("acq", "gpu"), "127.0.0.1")
        made = Hosts.create(folder / "rig", "rig", hosts, carrier=self.name)
        code = """
            import sys
            from ataraxis.link.carrier import ChannelClosed, carrier_of
            from ataraxis.link.hosts import Hosts
            carrier = carrier_of(Hosts.load(sys.argv[1]))
            carrier.listen("127.0.0.1:0")
            print(carrier.address, flush=True)
            channel, buffer = carrier.accept(60), memoryview(bytearray(1 << 20))
            try:
                while True:
                    channel.receive_into(buffer, 60)
            except ChannelClosed:
                sys.stdin.read()
            """
        dialler = self.kind(made["gpu"])
        with Program(code, folder / "rig" / "acq") as program:
            assert program.process.stdout is not None
            address = program.process.stdout.readline().strip()
            try:
                channel = dialler.dial(address, "acq", "mirror", WAIT_S)
                yield dialler, channel, program, address
            finally:
                if program.process.poll() is None:
                    os.kill(program.pid, signal.SIGCONT)
                dialler.close()


class TestTls(_OverTls):
    kind = TlsCarrier
    name = "tls"

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("cryptography", reason="certificates need cryptography")


class TestZenoh(_OverTls):
    kind = ZenohCarrier
    name = "zenoh"

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("cryptography", reason="certificates need cryptography")
        pytest.importorskip("zenoh", reason="the carrier zenoh needs eclipse-zenoh")


class TestFaults:
    """What the fake's network can do to a channel."""

    @contextmanager
    def lab(self) -> Iterator[tuple[FakeNetwork, FakeCarrier, FakeCarrier]]:
        network = FakeNetwork()
        acq, gpu = FakeCarrier(network, "acq"), FakeCarrier(network, "gpu")
        acq.listen("acq:7411")
        yield network, acq, gpu

    def test_a_cut_loses_what_is_on_its_way(self) -> None:
        with self.lab() as (network, acq, gpu):
            one = gpu.dial("acq:7411", "acq", "control", WAIT_S)
            other = acq.accept(WAIT_S)
            assert other is not None
            one.send(pattern(0, 100), WAIT_S)
            network.cut("gpu", "acq", drop_tail=40)
            assert CarrierContract().read(other, 60) == pattern(0, 60)
            assert "cut" in CarrierContract().closed(other)
            with pytest.raises(ChannelClosed):
                one.send(b"x", WAIT_S)
            with pytest.raises(HostUnavailable):
                gpu.dial("acq:7411", "acq", "control", WAIT_S)
            network.heal("acq", "gpu")
            gpu.dial("acq:7411", "acq", "control", WAIT_S)

    def test_a_stall_keeps_it(self) -> None:
        with self.lab() as (network, acq, gpu):
            one = gpu.dial("acq:7411", "acq", "control", WAIT_S)
            other = acq.accept(WAIT_S)
            assert other is not None
            network.stall("gpu", "acq")
            one.send(b"late", WAIT_S)
            scratch = memoryview(bytearray(9))
            assert other.receive_into(scratch, 0.01) == 0
            other.send(b"one way", WAIT_S)
            assert one.receive_into(scratch, WAIT_S) == 7
            with pytest.raises(HostUnavailable, match="did not answer"):
                gpu.dial("acq:7411", "acq", "control", 0.01)
            network.heal("gpu", "acq")
            assert other.receive_into(scratch, WAIT_S) == 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a", 7411)),
        ("a:0", ("a", 0)),
        ("[::1]", ("::1", 7411)),
        ("[fe80::1]:65535", ("fe80::1", 65535)),
    ],
)
def test_an_address(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:-1", "a:65536", "::1", "[::1", "[x]:1", "[::1]x", "a b:1"],
)
def test_what_is_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        split_address(text)
