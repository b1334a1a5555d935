"""Every carrier keeps the contract: fake, tls and zenoh."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ataraxis.errors import HostUnavailable
from ataraxis.link.carrier import ChannelClosed
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


class TestTls(_OverTls):
    kind = TlsCarrier


class TestZenoh(_OverTls):
    kind = ZenohCarrier

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
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
