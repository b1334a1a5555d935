"""Two agents on ports of this machine: what a user sees of a mirror, and what not.

Cables, kills and clocks are in ``tests/stress/test_link_*.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from link_rig import CARRIERS, Lab, need

from ataraxis import Consumer, Producer, Recorder
from ataraxis.errors import (
    AccessDenied,
    AtaraxisError,
    HostUnavailable,
    SegmentExists,
)
from ataraxis.log.archive import LogArchive
from ataraxis.log.verification import verify
from ataraxis.stream.inspector import Inspector

pytest.importorskip("cryptography", reason="certificates need cryptography")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=CARRIERS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two hosts whose agents run for all tests of the module."""
    need(request.param, namespaces=False)
    with Lab(carrier=request.param, namespaces=False) as made:
        for host in made.hosts.values():
            host.start_agent()
        yield made


@pytest.fixture
def names(lab: Lab) -> Iterator[None]:
    """Afterwards no stream of the test may be on either host."""
    yield
    for host in lab.hosts.values():

        def left(host=host) -> list[str]:
            found = [f for f in host.files() if not f.startswith((".", "clock."))]
            for name in found:
                with contextlib.suppress(AtaraxisError, OSError):
                    Inspector(name, host.context).statistics()
            return found

        wait_until(
            lambda left=left: not left(), 20, f"nothing on {host.name}: {left()}"
        )


@contextlib.contextmanager
def camera(lab: Lab, name: str = "camera", **options) -> Iterator[Producer]:
    options = {"shape": (4,), "dtype": "i4", "buffer_count": 8, **options}
    producer = Producer(name, context=lab["acq"].context, **options)
    try:
        yield producer
    finally:
        producer.unlink()


def mirror_of(lab: Lab, stream: str = "camera", **options):
    from ataraxis.cluster import Mirror

    return Mirror(stream, "acq", context=lab["gpu"].context, timeout=20, **options)


def reader_of(lab: Lab, name: str = "camera", **options) -> Consumer:
    options = {"policy": "lossless", **options}
    return Consumer(name, context=lab["gpu"].context, timeout=20, **options)


def send(producer: Producer, *numbers: int) -> None:
    for k in numbers:
        producer.send(np.full(4, k, "i4"), timeout=20, device_time=1000 * k)


# ---- the stream there is the stream here


def test_a_mirror_is_the_stream(lab: Lab, names: None) -> None:
    """Labels, numbers, stamps, values and the end are those of the other host."""
    described = {
        "dims": ("channel",), "coords": {"channel": ["a", "b", "c", "d"]},
        "attrs": {"units": "mV", "rate_hz": 100.0},
    }  # fmt: skip
    with camera(lab, **described) as producer:
        original = Consumer("camera", context=lab["acq"].context, policy="lossless")
        with mirror_of(lab) as mirror, reader_of(lab) as reader:
            sender = threading.Thread(target=send, args=(producer, *range(100)))
            sender.start()
            for k in range(100):
                here, there = original.receive(timeout=20), reader.receive(timeout=20)
                assert (there.array == k).all()
                for field in ("sequence", "time_ns", "device_time", "device_sequence"):
                    assert getattr(there, field) == getattr(here, field), field
                here.release()
                there.release()
            sender.join()
            a, b = original.labels, reader.labels
            assert (a.dtype, a.shape, a.dims) == (b.dtype, b.shape, b.dims)
            assert b.coords["channel"][1].tolist() == ["a", "b", "c", "d"]
            assert b.attrs["units"] == "mV"
            assert b.attrs["clock"].startswith("acq/")
            assert reader.clock == b.attrs["clock"]
            producer.end()
            assert reader.receive(timeout=20) is None
            assert reader.is_ended
            assert mirror.wait(20).reason == "completed"
            # Its ring has ended; the agent notes it with its next step.
            wait_until(lambda: mirror.statistics().state == "ended", 20, "its end")
            found = mirror.statistics()
            assert (found.frames, found.lost, found.repeated) == (100, 0, 0)
            assert found.is_connected
        original.close()


@pytest.mark.parametrize("size", [1, 64, 4096, 1_000_000, 6_000_000])
def test_frames_of_any_size(lab: Lab, names: None, size: int) -> None:
    count = 40 if size < 10**6 else 6
    with (
        camera(lab, shape=(size,), dtype="u1", buffer_count=4) as producer,
        mirror_of(lab), reader_of(lab) as reader,
    ):  # fmt: skip

        def film() -> None:
            for k in range(count):
                producer.send(np.full(size, k, "u1"), timeout=20)
            producer.end()

        sender = threading.Thread(target=film)
        sender.start()
        seen = []
        for frame in reader:
            assert (frame.array == frame.array[0]).all()
            seen.append(int(frame.array[0]))
            frame.release()
        sender.join()
    assert seen == [*range(count)]


def test_frames_of_different_lengths(lab: Lab, names: None) -> None:
    """An untyped stream: bytes of 0 to a slot's length."""
    with Producer("text", 5000, 8, context=lab["acq"].context) as producer:
        with mirror_of(lab, "text"), reader_of(lab, "text") as reader:
            sent = [bytes([k % 256]) * (k * 37 % 5001) for k in range(200)]
            sender = threading.Thread(
                target=lambda: [producer.send(x, timeout=20) for x in sent]
            )
            sender.start()
            assert [reader.receive(timeout=20).read() for _ in sent] == sent
            sender.join()
        producer.unlink()


def test_the_first_reader_has_the_first_frame(lab: Lab, names: None) -> None:
    """Frames wait for a reader that gates, on that host's disk if they must."""
    with camera(lab) as producer, mirror_of(lab):
        began = time.monotonic()
        send(producer, *range(200))
        assert time.monotonic() - began < 20
        with reader_of(lab, durable="late") as reader:
            for k in range(200):
                with reader.receive(timeout=20) as frame:
                    assert (frame.array == k).all()


def test_a_mirror_that_is_not_read_holds_up_no_other(lab: Lab, names: None) -> None:
    with (
        camera(lab) as producer,
        mirror_of(lab, name="fast"), mirror_of(lab, name="slow"),
        reader_of(lab, "fast") as fast, reader_of(lab, "slow") as slow,
    ):  # fmt: skip
        sender = threading.Thread(target=send, args=(producer, *range(300)))
        sender.start()
        for reader in (fast, slow):  # `slow` is read after all of `fast`
            for k in range(300):
                with reader.receive(timeout=20) as frame:
                    assert (frame.array == k).all()
        sender.join()


@pytest.mark.parametrize("policy", ["latest", "lossy"])
def test_a_viewer_gates_nothing(lab: Lab, names: None, policy: str) -> None:
    with camera(lab) as producer, mirror_of(lab, policy=policy):
        with reader_of(lab, policy="latest") as viewer:
            seen = -1
            for k in range(2000):
                producer.send(np.full(4, k, "i4"), timeout=1)
                if (frame := viewer.receive(blocking=False)) is not None:
                    assert int(frame.array[0]) > seen
                    seen = int(frame.array[0])
                    frame.release()
            deadline = time.monotonic() + 20
            while seen < 1999 and time.monotonic() < deadline:
                if (frame := viewer.receive(blocking=False)) is not None:
                    seen = int(frame.array[0])
                    frame.release()
            assert seen == 1999
        assert Inspector("camera", lab["acq"].context).statistics().stalled_s == 0


def test_slots_that_a_shared_stream_skips_are_no_losses(
    lab: Lab, names: None, tmp_path
) -> None:
    """Their numbers never had a frame; nothing counts them, here or there."""
    gpu = lab["gpu"]
    with (
        camera(lab, shared=True) as producer,
        mirror_of(lab) as mirror,
        reader_of(lab) as reader,
        Consumer("camera", context=lab["acq"].context, policy="lossy") as viewer,
        Recorder("camera", tmp_path / "log", context=gpu.context) as recorder,
    ):
        held, seen, numbers = [], [], []
        for k in range(100):
            send(producer, k)
            if k < 8:
                held.append(viewer.receive(timeout=20))
            with reader.receive(timeout=20) as frame:
                seen.append(int(frame.array[0]))
                numbers.append(frame.sequence)
        assert seen == [*range(100)]
        assert numbers != seen
        skipped = producer.statistics().skipped
        assert skipped > 20
        assert reader.dropped_count == 0
        found = mirror.statistics()
        assert (found.frames, found.lost, found.repeated) == (100, 0, 0)
        wait_until(lambda: recorder.statistics()["camera"].frames == 100, 20)
        assert recorder.statistics()["camera"].lost == 0
        for frame in held:
            frame.release()
        state = Inspector("camera", gpu.context).statistics()
        assert state.sent == 100
    (report, *_) = verify(tmp_path / "log").sources
    assert (report.expected, report.received, report.missing) == (100, 100, 0)


def test_a_stream_that_is_made_later(lab: Lab, names: None) -> None:
    """A mirror waits for its stream, and a second stream of the name is mirrored."""
    from ataraxis.cluster import Mirror

    gpu = lab["gpu"]
    with pytest.raises(TimeoutError, match="ls acq:"):
        Mirror("later", "acq", context=gpu.context, timeout=1)
    ids = set()
    for part in range(2):
        with (
            camera(lab, "later") as producer, mirror_of(lab, "later"),
            reader_of(lab, "later") as reader,
        ):  # fmt: skip
            ids.add(reader.stream_id)
            send(producer, part)
            with reader.receive(timeout=20) as frame:
                assert (frame.array == part).all()
    assert len(ids) == 2


def test_a_producer_that_is_killed_ends_the_stream_there(lab: Lab, names: None) -> None:
    """All that it had sent is read; then the end."""
    acq = lab["acq"]
    with contextlib.ExitStack() as stack:
        film = acq.start("camera", "dying", stream="dying", count=10**6, size=4000)
        stack.callback(film.close)
        film.until(30, ready=True)
        stack.enter_context(mirror_of(lab, "dying"))
        reader = stack.enter_context(reader_of(lab, "dying"))
        seen = [reader.receive(timeout=20).sequence for _ in range(100)]
        film.kill()
        for frame in reader:
            seen.append(frame.sequence)
            frame.release()
        assert seen == [*range(len(seen))]
        assert len(seen) >= film.status()["sent"]


def test_a_recorder_follows_to_the_next_stream(lab: Lab, names: None, tmp_path) -> None:
    """The program there is restarted: both parts are in one recording."""
    lab["gpu"].context.chmod(0o700)
    with camera(lab, "parts") as producer:
        mirror = mirror_of(lab, "parts")
        recorder = Recorder(
            ["parts"], tmp_path / "log", context=lab["gpu"].context, follow=True
        )
        send(producer, *range(20))
    with camera(lab, "parts") as producer:
        producer.wait_for_subscribers(1, timeout=20)
        send(producer, *range(20, 40))
        wait_until(
            lambda: recorder.statistics()["parts"].frames >= 40, 30, "both parts"
        )
        recorder.stop()
        mirror.close()
    with LogArchive(tmp_path / "log") as archive:
        numbers = archive.read("parts").data[:, 0]
    assert numbers.tolist() == [*range(40)]


# ---- the command line


def test_the_command_line(lab: Lab, names: None, tmp_path) -> None:
    gpu = lab["gpu"]
    with camera(lab, attrs={"rate_hz": 100.0}) as producer:
        assert "camera" in gpu.run("ls", "acq:").stdout
        listed = json.loads(gpu.run("ls", "acq:", "--json").stdout)
        assert [row["name"] for row in listed if row["name"] == "camera"]
        gpu.run("mirror", "acq:camera", "--detach")
        with reader_of(lab) as reader:
            send(producer, *range(10))
            for k in range(10):
                with reader.receive(timeout=20) as frame:
                    assert (frame.array == k).all()
        shown = gpu.run("hosts").stdout
        assert "acq" in shown
        assert "camera" in shown
        found = json.loads(gpu.run("hosts", "--json").stdout)
        by_name = {host["name"]: host for host in found["hosts"]}
        assert by_name["gpu"]["state"] == "here"
        assert by_name["acq"]["state"] == "connected"
        wait_until(
            lambda: lab["gpu"].run("hosts", "--json").stdout.count('"bound_ns": null')
            <= 1, 20, "the offset of acq",
        )  # fmt: skip
        assert [m["frames"] for m in found["mirrors"]] == [10]
        gpu.run("mirror", "acq:camera", "--end")
    checked = gpu.run("doctor", "acq")
    assert "fail" not in checked.stdout.lower(), checked.stdout


def test_record_of_another_host(lab: Lab, names: None, tmp_path) -> None:
    """`ataraxis record HOST:STREAM`: mirrored, with every frame, and its clock."""
    gpu, folder = lab["gpu"], tmp_path / "session"
    with camera(lab) as producer:
        done = threading.Thread(
            target=lambda: gpu.run("record", "acq:camera", "-o", str(folder))
        )
        done.start()
        producer.wait_for_subscribers(1, timeout=30)
        for k in range(50):
            send(producer, k)
            time.sleep(0.05)
        producer.end()
        done.join(60)
        assert not done.is_alive()
    with LogArchive(folder) as archive:
        assert archive.read("camera").data[:, 0].tolist() == [*range(50)]
        assert {"camera", "clock.acq"} <= {s.name for s in archive.sources.values()}


def test_hosts_are_made_by_the_command_line(tmp_path) -> None:
    """`ataraxis hosts init`: folders with keys that only their owner can read."""
    need("tls", namespaces=False)
    command = [sys.executable, "-P", "-c", "from ataraxis.cli import main; main()"]
    made = subprocess.run(
        [*command, "hosts", "init", str(tmp_path / "rig"), "acq=192.0.2.10",
         "gpu=192.0.2.11"], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for host in ("acq", "gpu"):
        folder = tmp_path / "rig" / host
        assert (folder / f"{host}.key").stat().st_mode & 0o777 == 0o600
        assert "192.0.2.10:7411" in (folder / "hosts.yaml").read_text()


# ---- what is refused


def test_errors_say_what_to_do(lab: Lab) -> None:
    from ataraxis.cluster import Agent, Hosts, Mirror

    gpu = lab["gpu"]
    with pytest.raises(HostUnavailable, match="acq"):
        Mirror("camera", "acp", context=gpu.context, timeout=2)
    with (
        pytest.raises(SegmentExists, match="process"),
        Agent(Hosts.load(gpu.hosts_file), context=gpu.context),
    ):
        pass


def test_an_agent_is_needed(context, lab: Lab) -> None:
    from ataraxis.cluster import Mirror

    with pytest.raises(HostUnavailable, match="ataraxis agent"):
        Mirror("camera", "acq", context=context, timeout=1)


def test_exactly_one_socket_listens(lab: Lab) -> None:
    """S1: that of `me`; an agent without hosts.yaml does not start."""
    inodes: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                inodes[fields[9]] = f"{address}:{int(port, 16)}"
    for host in lab.hosts.values():
        pid = host.programs[0].pid
        links = []
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        found = [inodes[x[8:-1]] for x in links if x[8:-1] in inodes]
        port = host.address.partition(":")[2]
        assert found == [f"0100007F:{port}"], found


def test_no_agent_without_hosts(context, tmp_path) -> None:
    """S1: nothing listens, and the message says how to make the file."""
    command = [sys.executable, "-P", "-c", "from ataraxis.cli import main; main()"]
    done = subprocess.run(
        [*command, "agent"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "ATARAXIS_HOSTS": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert "hosts init" in done.stderr
    assert "Traceback" not in done.stderr


def test_strangers_get_nothing(lab: Lab, names: None, tmp_path) -> None:
    """S2, of a whole agent: it goes on serving, and its log has each reason."""
    from ataraxis.cluster import Hosts

    host, port = lab["acq"].address.split(":")
    Hosts.create(
        tmp_path / "other", "rig", {"gpu": "127.0.0.1:1", "acq": "127.0.0.1:2"}
    )

    def connected() -> socket.socket:
        return socket.create_connection((host, int(port)), timeout=10)

    def plain(data: bytes) -> bytes:
        with connected() as line, contextlib.suppress(OSError):
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            return line.recv(100)
        return b""

    def secure(certified: bool) -> bytes:
        settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        settings.check_hostname, settings.verify_mode = False, ssl.CERT_NONE
        if certified:
            folder = tmp_path / "other" / "gpu"
            settings.load_cert_chain(folder / "gpu.pem", folder / "gpu.key")
        with contextlib.suppress(OSError), settings.wrap_socket(connected()) as line:
            line.sendall(b"AXF1" * 100)
            return line.recv(100)
        return b""

    agent = lab["acq"].programs[0]
    assert b"AXF1" not in plain(b"GET / HTTP/1.1\r\n\r\n")
    assert b"AXF1" not in plain(os.urandom(2**20))
    assert secure(False) == b""
    assert secure(True) == b""
    assert agent.is_running
    with camera(lab) as producer, mirror_of(lab), reader_of(lab) as reader:
        send(producer, 7)
        with reader.receive(timeout=20) as frame:
            assert (frame.array == 7).all()
    assert "Traceback" not in agent.said()
    if lab.carrier == "tls":  # zenoh refuses without a word
        assert agent.said().count("refused") >= 4, agent.said()


def test_a_key_that_others_can_read_is_refused(tmp_path) -> None:
    need("tls", namespaces=False)
    from ataraxis.cluster import Agent, Hosts

    made = Hosts.create(tmp_path / "rig", "rig", {"acq": "127.0.0.1:0"})
    (tmp_path / "rig" / "acq" / "acq.key").chmod(0o644)
    with pytest.raises(AccessDenied, match="chmod 600"), Agent(made["acq"]):
        pass


def test_a_revoked_host_gets_nothing() -> None:
    need("tls", namespaces=False)
    from ataraxis.cluster import Hosts, Mirror

    with Lab(carrier="tls", namespaces=False) as lab:
        own = lab["gpu"].hosts_file
        text = own.read_text()
        Hosts.load(lab["acq"].hosts_file).revoke("gpu")
        own.write_text(text)  # as on a machine that was stolen
        for host in lab.hosts.values():
            host.start_agent()
        with camera(lab), pytest.raises(HostUnavailable, match="revoked"):
            Mirror("camera", "acq", context=lab["gpu"].context, timeout=3)
        assert "revoked" in lab["acq"].programs[0].said()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_running_agent_sees_a_revocation(carrier: str) -> None:
    """Its open channels end, and it is refused from then on; no agent was restarted."""
    need(carrier, namespaces=False)
    from ataraxis.cluster import Hosts

    with Lab(carrier=carrier, namespaces=False) as lab:
        agents = {host.name: host.start_agent() for host in lab.hosts.values()}
        with (
            camera(lab) as producer,
            mirror_of(lab) as mirror,
            reader_of(lab) as reader,
        ):
            send(producer, 1)
            assert int(reader.receive(timeout=20).array[0]) == 1
            own = lab["gpu"].hosts_file
            text = own.read_text()
            Hosts.load(lab["acq"].hosts_file).revoke("gpu")
            own.write_text(text)  # as on a machine that was stolen
            wait_until(
                lambda: not mirror.statistics().is_connected
                and "revoked" in mirror.statistics().problem,
                20, "a refusal",
            )  # fmt: skip
            assert "host gpu is revoked" in agents["acq"].said()
            send(producer, 2)
            with pytest.raises(TimeoutError):
                reader.receive(timeout=1.5)
        assert "Traceback" not in agents["acq"].said()


# ---- life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_is_told_to_end_leaves_nothing(number: int) -> None:
    need("tls", namespaces=False)
    with Lab(carrier="tls", namespaces=False) as lab:
        agents = [host.start_agent() for host in lab.hosts.values()]
        with camera(lab) as producer:
            mirror = mirror_of(lab)
            send(producer, 1, 2, 3)
            mirror.close()
            for agent in agents:
                agent.process.send_signal(number)
                assert agent.process.wait(20) == 0, agent.said()
        for host in lab.hosts.values():
            assert host.files() == [], host.name
            assert "Traceback" not in host.programs[0].said()


def test_an_ended_stream_does_not_come_again() -> None:
    """Its program is still there, as a camera's with an open window; agents restart."""
    need("tls", namespaces=False)
    with Lab(carrier="tls", namespaces=False) as lab:
        lab.mirror("camera")
        agents = {host.name: host.start_agent() for host in lab.hosts.values()}
        with camera(lab) as producer:
            with reader_of(lab) as reader:
                send(producer, *range(20))
                producer.end()
                assert [int(frame.array[0]) for frame in reader] == [*range(20)]
            for name in ("gpu", "acq", "gpu"):
                wait_until(
                    lambda: "camera" not in lab["gpu"].files(), 10, "the end of it"
                )
                agents[name].kill()
                agents[name] = lab[name].start_agent()
                deadline = time.monotonic() + 3
                while time.monotonic() < deadline:
                    assert "camera" not in lab["gpu"].files(), f"{name} restarted"
                    time.sleep(0.05)


@pytest.mark.parametrize("what", ["", ".cluster", ".link", ".cli"])
def test_nothing_optional_is_imported(what: str) -> None:
    """X1: neither zenoh nor cryptography nor dask, until an agent needs them."""
    code = (
        f"import sys, ataraxis{what}\n"
        "from ataraxis import Producer, Consumer, Recorder\n"
        "p = Producer('x1', 8, 4); c = Consumer('x1'); p.send(b'a'); c.receive()\n"
        "c.close(); p.unlink()\n"
        "print({m.partition('.')[0] for m in sys.modules} & "
        "{'zenoh', 'cryptography', 'dask', 'distributed'})"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done
