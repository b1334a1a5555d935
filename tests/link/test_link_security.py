"""Who is refused by a carrier, with which reason, and what it listens on."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until

from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link import tls_carrier
from ataraxis.link.carrier import Carrier, Channel, carrier_of
from ataraxis.link.certificates import Authority
from ataraxis.link.hosts import Hosts, split_address
from ataraxis.link.zenoh_carrier import config_of
from ataraxis.testing.carriers import CarrierContract

pytest.importorskip("cryptography", reason="certificates need cryptography")

WAIT_S = 20.0
LAB = dict.fromkeys(("acq", "gpu", "behaviour"), "127.0.0.1")


@pytest.fixture(params=["tls", "zenoh"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "zenoh":
        pytest.importorskip("zenoh", reason="the carrier zenoh needs eclipse-zenoh")
    return str(request.param)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    Hosts.create(tmp_path / "rig", "rig", LAB)
    return tmp_path / "rig"


def hosts(lab: Path, me: str, kind: str) -> Hosts:
    made = Hosts.load(lab / me)
    made.carrier = kind  # type: ignore[assignment]
    return made


class Refusals:
    """What a listening carrier has said of clients, by `on_refused` and on its log."""

    def __init__(self, carrier: Carrier, capfd: pytest.CaptureFixture[str]) -> None:
        self.carrier, self.capfd = carrier, capfd
        self.told: list[str] = []
        carrier.on_refused = lambda address, reason: self.told.append(reason)
        self.log = ""

    def wait_for(self, *words: str) -> None:
        """Wait until one reason has all these words."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            self.log += self.capfd.readouterr().out
            for reason in [*self.told, *self.log.splitlines()]:
                if all(word in reason for word in words):
                    return
            time.sleep(0.02)
        raise AssertionError(f"no reason with {words}: {self.told} {self.log}")


@pytest.fixture
def acq(
    lab: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> Iterator[tuple[Carrier, Refusals]]:
    with listening(hosts(lab, "acq", kind), capfd) as made:
        yield made


@contextmanager
def listening(
    of: Hosts, capfd: pytest.CaptureFixture[str]
) -> Iterator[tuple[Carrier, Refusals]]:
    carrier = carrier_of(of)
    try:
        refusals = Refusals(carrier, capfd)
        carrier.listen("127.0.0.1:0")
        yield carrier, refusals
    finally:
        carrier.close()


@contextmanager
def closing(of: Hosts) -> Iterator[Carrier]:
    carrier = carrier_of(of)
    try:
        yield carrier
    finally:
        carrier.close()


def check_still_serves(carrier: Carrier, lab: Path, kind: str) -> None:
    """A host of the lab is served, and nothing came before it."""
    with closing(hosts(lab, "behaviour", kind)) as dialler:
        one = dialler.dial(carrier.address, "acq", "control", WAIT_S)
        other = carrier.accept(WAIT_S)
        assert other is not None
        assert (other.peer, other.name) == ("behaviour", "control")
        one.send(b"x", WAIT_S)
        assert other.receive_into(memoryview(bytearray(9)), WAIT_S) == 1
    assert carrier.accept(0) is None


def client(carrier: Carrier, *pair: Path) -> Callable[[], bytes]:
    """Return a TLS client that checks nothing; it returns what it is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair:
        context.load_cert_chain(*pair)

    def run() -> bytes:
        with (
            socket.create_connection(split_address(carrier.address), WAIT_S) as plain,
            context.wrap_socket(plain) as sock,
        ):
            with suppress(OSError):
                sock.send(b"AXC1\x07\x00control")
            return sock.recv(1000)

    return run


def other_lab(lab: Path) -> Path:
    Hosts.create(lab.parent / "other", "other", LAB)
    return lab.parent / "other"


# ---- S2: clients that are refused


def test_no_certificate(acq: tuple[Carrier, Refusals], lab: Path, kind: str) -> None:
    carrier, refusals = acq
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        client(carrier)()
    refusals.wait_for("certificate")
    check_still_serves(carrier, lab, kind)


def test_a_certificate_of_another_lab(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    carrier, refusals = acq
    folder = other_lab(lab) / "gpu"
    with pytest.raises(ssl.SSLError, match="ALERT"):
        client(carrier, folder / "gpu.pem", folder / "gpu.key")()
    refusals.wait_for("certificate")
    check_still_serves(carrier, lab, kind)


def test_an_expired_certificate(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    carrier, refusals = acq
    Authority(lab / "authority").issue(lab / "old", "gpu", "gpu", days=-1)
    with pytest.raises(ssl.SSLError, match="EXPIRED"):
        client(carrier, lab / "old" / "gpu.pem", lab / "old" / "gpu.key")()
    refusals.wait_for("certificate", "expired")
    check_still_serves(carrier, lab, kind)


def test_a_revoked_certificate(
    lab: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(hosts(lab, "gpu", kind)) as revoked:
        Hosts.load(lab / "acq").revoke("gpu")
        with listening(hosts(lab, "acq", kind), capfd) as (carrier, refusals):
            with pytest.raises((AccessDenied, HostUnavailable), match="revoked"):
                revoked.dial(carrier.address, "acq", "control", 1.0)
            refusals.wait_for("gpu", "revoked")
            check_still_serves(carrier, lab, kind)
            Hosts.load(lab / "acq").add("gpu", "127.0.0.1")
            with closing(hosts(lab, "gpu", kind)) as again:
                again.dial(carrier.address, "acq", "control", WAIT_S)
                found = carrier.accept(WAIT_S)
                assert found is not None
                assert found.peer == "gpu"


def test_a_host_that_is_not_listed(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    carrier, refusals = acq
    with closing(_added(lab, kind)) as stranger:
        with pytest.raises((AccessDenied, HostUnavailable), match="acq"):
            stranger.dial(carrier.address, "acq", "control", 1.0)
        refusals.wait_for("certificate", "stranger")
    check_still_serves(carrier, lab, kind)


def _added(lab: Path, kind: str) -> Hosts:
    """A host that was added after acq has started."""
    Hosts.load(lab / "gpu").add("stranger", "127.0.0.1")
    return hosts(lab, "stranger", kind)


@pytest.mark.parametrize("data", ["http", "garbage"])
def test_what_is_not_tls(
    data: str, acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    carrier, refusals = acq
    sent = b"GET / HTTP/1.1\r\n\r\n" if data == "http" else os.urandom(1 << 20)
    with socket.create_connection(split_address(carrier.address), WAIT_S) as sock:
        with suppress(ConnectionError):
            sock.sendall(sent)
        refusals.wait_for(*(["TLS"] if kind == "tls" else ["corrupt message"]))
    check_still_serves(carrier, lab, kind)


def test_garbage_inside_of_tls(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    """Of a host whose certificate is valid: it does not become a channel."""
    carrier, refusals = acq
    pair = lab / "gpu" / "gpu.pem", lab / "gpu" / "gpu.key"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*pair)
    with (
        socket.create_connection(split_address(carrier.address), WAIT_S) as plain,
        context.wrap_socket(plain) as sock,
    ):
        with suppress(OSError):
            sock.sendall(b"\xff" * (1 << 20))
        if kind == "tls":
            refusals.wait_for("did not name a channel")
    check_still_serves(carrier, lab, kind)


def test_silent_clients_delay_no_other(
    acq: tuple[Carrier, Refusals],
    lab: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are dropped after 5 s, and a host is served meanwhile."""
    carrier, refusals = acq
    monkeypatch.setattr(tls_carrier, "HANDSHAKE_S", 1.5)
    place = split_address(carrier.address)
    silent = [socket.create_connection(place, WAIT_S) for _ in range(20)]
    try:
        begin = time.monotonic()
        check_still_serves(carrier, lab, kind)
        if kind == "tls":
            assert refusals.told == [] or time.monotonic() - begin > 1.4
            refusals.wait_for("did not finish a handshake")
            assert silent[0].recv(9) == b""
    finally:
        for sock in silent:
            sock.close()


def test_pending_handshakes_are_bounded(
    lab: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with listening(hosts(lab, "acq", "tls"), capfd) as (carrier, refusals):
        place = split_address(carrier.address)
        silent = [socket.create_connection(place, WAIT_S) for _ in range(70)]
        try:
            refusals.wait_for("newer clients")
            check_still_serves(carrier, lab, "tls")
        finally:
            for sock in silent:
                sock.close()


# ---- S2: servers that are refused


def test_a_server_of_another_lab(
    lab: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    other = other_lab(lab)
    with (
        listening(hosts(other, "acq", kind), capfd) as (carrier, _),
        closing(hosts(lab, "gpu", kind)) as dialler,
        pytest.raises(AccessDenied, match="certificate"),
    ):
        dialler.dial(carrier.address, "acq", "control", WAIT_S)


def test_a_server_that_is_another_host(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    """The address of hosts.yaml is wrong, or a host took another one's address."""
    with (
        closing(hosts(lab, "gpu", kind)) as dialler,
        pytest.raises(AccessDenied, match="of host 'acq', 'behaviour' was dialled"),
    ):
        dialler.dial(acq[0].address, "behaviour", "control", WAIT_S)


def test_a_server_that_is_revoked(
    acq: tuple[Carrier, Refusals], lab: Path, kind: str
) -> None:
    Hosts.load(lab / "gpu").revoke("acq")
    with (
        closing(hosts(lab, "gpu", kind)) as dialler,
        pytest.raises(AccessDenied, match="revoked"),
    ):
        dialler.dial(acq[0].address, "acq", "control", WAIT_S)


def test_a_server_that_is_another_program(lab: Path, kind: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(hosts(lab, "gpu", kind)) as dialler,
    ):

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(HostUnavailable, match="another program"):
            dialler.dial(address, "acq", "control", WAIT_S)
        thread.join(WAIT_S)


def test_a_server_that_is_silent(lab: Path, kind: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(hosts(lab, "gpu", kind)) as dialler,
    ):
        address = f"127.0.0.1:{server.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(HostUnavailable, match=r"no answer within 0\.3"):
            dialler.dial(address, "acq", "control", 0.3)
        assert time.monotonic() - begin < 5


# ---- a host of the lab that lies


def test_a_host_cannot_put_as_another_one(lab: Path) -> None:
    """With zenoh, keys name the sender; access control checks the certificate."""
    zenoh = pytest.importorskip("zenoh")
    with closing(hosts(lab, "acq", "zenoh")) as carrier:
        carrier.listen("127.0.0.1:0")
        liar = config_of(hosts(lab, "gpu", "zenoh"), connect=carrier.address)
        liar.insert_json5("access_control", '{"enabled": false}')
        session = zenoh.open(liar)
        try:
            for sender, is_taken in (("behaviour", False), ("gpu", True)):
                session.put(
                    f"ax/rig/acq/from/{sender}/{session.zid()}/n1",
                    b"control",
                    attachment=(1).to_bytes(9, "little"),
                    congestion_control=zenoh.CongestionControl.BLOCK,
                )
                found = carrier.accept(WAIT_S if is_taken else 0.3)
                assert (found is not None) == is_taken
                assert found is None or found.peer == "gpu"
        finally:
            session.close()
        check_still_serves(carrier, lab, "zenoh")


@pytest.mark.parametrize(
    ("heads", "size", "words"),
    [
        (
            [(0, 0), (0, 2)],
            10,
            "a message is missing: number 2 arrived, 1 was expected",
        ),
        ([(0, 0), (0, 0)], 10, "a message is missing"),
        ([(4, 7)], 10, "a message is missing before its end"),
        ([(0, n) for n in range(99)], 500_000, "sent more than was granted"),
        ([(9, 0), (255, 2**64 - 1), (2, 0), (4, 0)], 10, "xxxxxxxxxx"),
    ],
)
def test_puts_that_are_wrong(
    heads: list[tuple[int, int]], size: int, words: str, lab: Path
) -> None:
    """A hole, a repeat, or more than fits ends the channel; never is it published."""
    zenoh = pytest.importorskip("zenoh")
    with closing(hosts(lab, "acq", "zenoh")) as carrier:
        carrier.listen("127.0.0.1:0")
        liar = config_of(hosts(lab, "gpu", "zenoh"), connect=carrier.address)
        session = zenoh.open(liar)

        def put(payload: bytes, head: bytes) -> None:
            session.put(
                f"ax/rig/acq/from/gpu/{session.zid()}/n1", payload, attachment=head,
                congestion_control=zenoh.CongestionControl.BLOCK,
            )  # fmt: skip

        try:
            put(b"mirror", (1).to_bytes(9, "little"))
            channel = carrier.accept(WAIT_S)
            assert channel is not None
            for head in (b"", b"x", b"\x00" * 8, b"\x00" * 10):
                put(b"x", head)
            for kind, number in heads:
                put(b"x" * size, bytes([kind]) + number.to_bytes(8, "little"))
            if size > 10:  # else it is taken from the channel meanwhile
                wait_until(lambda: getattr(channel, "reason", ""), WAIT_S)
            text = CarrierContract().closed(channel)
            assert words in text
        finally:
            session.close()
        check_still_serves(carrier, lab, "zenoh")


def test_a_lab_of_one_host(kind: str, tmp_path: Path) -> None:
    made = Hosts.create(tmp_path / "rig", "rig", {"acq": "localhost"})
    with closing(hosts(tmp_path / "rig", "acq", kind)) as carrier:
        carrier.listen("localhost:0")
        assert carrier.accept(0.01) is None
        assert made["acq"].path.exists()


def test_a_certificate_that_expires_soon(
    lab: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    Authority(lab / "authority").issue(lab / "acq", "acq", "acq", days=100)
    with closing(hosts(lab, "acq", kind)):
        assert "expires in 99 days" in caplog.text


# ---- this host's own files


@pytest.mark.parametrize("case", ["expired", "revoked", "other host", "key", "mode"])
def test_own_files_are_checked_before_a_socket_is_opened(
    case: str, lab: Path, kind: str
) -> None:
    authority = Authority(lab / "authority")
    words = {
        "expired": "expired",
        "revoked": "revoked",
        "other host": "'gpu', 'acq' was dialled",
        "key": "its key",
        "mode": "chmod 600",
    }[case]
    if case == "expired":
        authority.issue(lab / "acq", "acq", "acq", days=-1)
    elif case == "revoked":
        Hosts.load(lab / "gpu").revoke("acq")
        (lab / "acq" / "hosts.yaml").write_bytes(
            (lab / "gpu" / "hosts.yaml")
            .read_bytes()
            .replace(b"me: gpu", b"me: acq")
            .replace(b"gpu.pem", b"acq.pem")
            .replace(b"gpu.key", b"acq.key")
        )
    elif case == "other host":
        authority.issue(lab / "acq", "acq", "gpu")
    elif case == "key":
        (lab / "acq" / "acq.key").write_bytes((lab / "gpu" / "gpu.key").read_bytes())
    else:
        (lab / "acq" / "acq.key").chmod(0o644)
    with pytest.raises(AccessDenied, match=words):
        carrier_of(hosts(lab, "acq", kind))


def test_without_a_certificate_nothing_listens(lab: Path, kind: str) -> None:
    made = hosts(lab, "acq", kind)
    made.authority = ""
    with pytest.raises(AccessDenied, match=r"authority.*ataraxis hosts init"):
        carrier_of(made)
    assert listening_sockets() == []


# ---- S1: what listens


def listening_sockets() -> list[tuple[int, int]]:
    """Return address and port, as numbers, of what this process listens on."""
    mine = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            mine.add(os.readlink(link))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            listens = words[3] == "0A" if table.startswith("tcp") else True
            if listens and f"socket:[{words[9]}]" in mine:
                address, port = words[1].split(":")
                found.append((int(address, 16), int(port, 16)))
    return found


def test_exactly_one_socket_listens(lab: Path, kind: str) -> None:
    assert listening_sockets() == []
    with closing(hosts(lab, "acq", kind)) as carrier:
        assert listening_sockets() == []
        carrier.listen("127.0.0.1:0")
        assert carrier.address.startswith("127.0.0.1:")
        loopback = int.from_bytes(socket.inet_aton("127.0.0.1"), "little")
        one = [(loopback, split_address(carrier.address)[1])]
        assert listening_sockets() == one
        with closing(hosts(lab, "gpu", kind)) as dialler:
            channels: list[Channel | None] = []
            for priority in (False, True):
                name = "control"
                channels.append(
                    dialler.dial(carrier.address, "acq", name, WAIT_S, priority)
                )
                channels.append(carrier.accept(WAIT_S))
            assert listening_sockets() == one
            assert None not in channels
    deadline = time.monotonic() + WAIT_S
    while listening_sockets() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert listening_sockets() == []


def test_an_address_in_use(lab: Path, kind: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(hosts(lab, "acq", kind)) as carrier,
    ):
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            carrier.listen(address)


def test_zenoh_leaves_no_files(lab: Path) -> None:
    pytest.importorskip("zenoh")

    def files() -> set[Any]:
        return set(Path("/dev/shm").glob("*.zenoh"))

    before = files()
    with (
        closing(hosts(lab, "acq", "zenoh")) as acq,
        closing(hosts(lab, "gpu", "zenoh")) as gpu,
    ):
        acq.listen("127.0.0.1:0")
        gpu.dial(acq.address, "acq", "control", WAIT_S)
        assert files() <= before
