"""One end of a transfer that `bench_link` measures: told what to do line by line.

``link_peer.py ROLE {JSON}``. Each command is a line of JSON, and so is each answer.
Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBER = struct.Struct("<Qq")
SMALL = 4096
Command = dict[str, Any]


def answer(**found: Any) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def served(run: Callable[[Command], Command]) -> None:
    """Answer commands until the input ends."""
    answer(ready=True)
    for line in sys.stdin:
        before = time.process_time()
        found = run(json.loads(line))
        answer(**found, cpu_s=time.process_time() - before)


class Times:
    """When frames came: the first, the last, and how late each was if it is paced."""

    def __init__(self, count: int, is_paced: bool) -> None:
        self.count, self._is_paced = count, is_paced
        self.got, self.first, self.last = 0, 0, 0
        self.late: list[int] = []
        self.is_timed = False
        self._at: list[int] = []

    def take(self, head: Any) -> bool:
        """Take the first 16 bytes of a frame; whether it was the last one."""
        number, sent = NUMBER.unpack_from(head)
        if number != self.got:
            raise RuntimeError(f"frame {number} came, not {self.got}")
        if not self.got:
            self.first = time.monotonic_ns()
        self.got += 1
        if self._is_paced:
            self.late.append(time.monotonic_ns() - sent)
            if self.is_timed:
                self._at.append(time.monotonic_ns())
        if self.got == self.count:
            self.last = time.monotonic_ns()
            return True
        return False

    def as_dict(self) -> Command:
        found = {
            "seconds": (self.last - self.first) * 1e-9,
            "late_ms": float(np.median(self.late)) / 1e6 if self.late else 0.0,
        }
        if self.is_timed:
            at, late = np.array(self._at) * 1e-9, np.array(self.late) * 1e-9
            pause = int(np.diff(at).argmax())  # the longest is that of the cut
            found["flows_s"] = float(at[pause + 1])
            found["caught_up_s"] = float(at[late > 0.1].max(initial=at[pause + 1]))
        return found


def paced(command: Command, send: Callable[[memoryview], Any]) -> Command:
    """Send `count` frames of `size` bytes at `hz`, or as fast as they go."""
    data = bytearray(command["size"])
    view = memoryview(data)
    hz, began = command.get("hz", 0), time.monotonic()
    for k in range(command["count"]):
        if hz and (pause := began + k / hz - time.monotonic()) > 0:
            time.sleep(pause)
        NUMBER.pack_into(data, 0, k, time.monotonic_ns() if hz else 0)
        send(view)
    return {}


# ---- ataraxis: a ring here, a ring there


def ring_send(context: str, sizes: list[int], slots: list[int]) -> None:
    from ataraxis import Producer

    producers = {
        size: Producer(f"f{size}", size, count, context=context)
        for size, count in zip(sizes, slots, strict=True)
    }
    for size in sizes:
        producers[size].wait_for_subscribers(1, timeout=60)

    def run(command: Command) -> Command:
        producer = producers[command["size"]]
        if command["size"] <= SMALL:  # as zenoh's put, which takes bytes only
            return paced(command, lambda view: producer.send(bytes(view), timeout=60))
        return paced(command, lambda view: producer.send(view, timeout=60))

    served(run)
    for producer in producers.values():
        producer.unlink()


def ring_read(context: str, sizes: list[int]) -> None:
    from ataraxis import Consumer

    consumers = {
        size: Consumer(f"f{size}", policy="lossless", context=context, timeout=60)
        for size in sizes
    }

    def run(command: Command) -> Command:
        times = Times(command["count"], bool(command.get("hz")))
        times.is_timed = command.get("caught_up", False)
        for frame in consumers[command["size"]]:
            is_over = times.take(frame)
            frame.release()
            if is_over:
                break
        return times.as_dict()

    served(run)
    for consumer in consumers.values():
        consumer.close()


# ---- sockets with TLS 1.3, each end with a certificate


def _context(role: int, certificate: str, key: str, authority: str) -> ssl.SSLContext:
    made = ssl.SSLContext(role)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(certificate, key)
    made.load_verify_locations(authority)
    return made


def tls_read(port: int, files: list[str]) -> None:
    settings = _context(ssl.PROTOCOL_TLS_SERVER, *files)
    with socket.create_server(("127.0.0.1", port)) as listener:
        answer(listening=True)
        plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with settings.wrap_socket(plain, server_side=True) as line:

        def run(command: Command) -> Command:
            size = command["size"]
            buffer = memoryview(bytearray(size))
            times = Times(command["count"], bool(command.get("hz")))
            is_echo, is_over = command.get("echo", False), False
            while not is_over:
                at = 0
                while at < size:
                    if not (n := line.recv_into(buffer[at:])):
                        raise RuntimeError("the sender has gone")
                    at += n
                is_over = times.take(buffer)
                if is_echo:
                    line.sendall(buffer)
            return times.as_dict()

        served(run)


def tls_send(port: int, files: list[str]) -> None:
    settings = _context(ssl.PROTOCOL_TLS_CLIENT, *files)
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with settings.wrap_socket(plain) as line:

        def run(command: Command) -> Command:
            if not command.get("echo"):
                return paced(command, line.sendall)
            back = memoryview(bytearray(command["size"]))
            trips: list[int] = []

            def send(view: memoryview) -> None:
                before = time.monotonic_ns()
                line.sendall(view)
                at = 0
                while at < len(back):
                    at += line.recv_into(back[at:])
                trips.append(time.monotonic_ns() - before)

            return {**paced(command, send), "half_ms": float(np.median(trips)) / 2e6}

        served(run)


# ---- zenoh: put and a callback, with TLS


def _session(port: int, files: list[str], is_listener: bool) -> Any:
    import zenoh

    certificate, key, authority = files
    config = zenoh.Config()
    place = json.dumps([f"tls/127.0.0.1:{port}"])
    settings = {
        "mode": '"peer"',
        "scouting/multicast/enabled": "false",
        "scouting/gossip/enabled": "false",
        "transport/shared_memory/enabled": "false",
        "transport/link/tls": json.dumps(
            {
                "root_ca_certificate": authority, "enable_mtls": True,
                "listen_certificate": certificate, "listen_private_key": key,
                "connect_certificate": certificate, "connect_private_key": key,
                "verify_name_on_connect": False,
            }
        ),
        "listen/endpoints": place if is_listener else "[]",
        "connect/endpoints": "[]" if is_listener else place,
    }  # fmt: skip
    for name, value in settings.items():
        config.insert_json5(name, value)
    return zenoh.open(config)


def zenoh_read(port: int, files: list[str]) -> None:
    import zenoh

    state: dict[str, Any] = {}
    over = threading.Event()
    with _session(port, files, True) as session:
        back = session.declare_publisher(
            "bench/back", congestion_control=zenoh.CongestionControl.BLOCK
        )

        def take(sample: Any) -> None:
            data = sample.payload.to_bytes()
            if state["times"].take(data):
                over.set()
            if state["is_echo"]:
                back.put(data)

        subscriber = session.declare_subscriber("bench/data", take)
        answer(listening=True)

        def run(command: Command) -> Command:
            times: Times = state["times"]
            if not over.wait(60):
                raise RuntimeError(f"{times.got} of {times.count} frames came")
            return times.as_dict()

        answer(ready=True)
        for line in sys.stdin:
            command = json.loads(line)
            over.clear()
            state["times"] = Times(command["count"], bool(command.get("hz")))
            state["is_echo"] = command.get("echo", False)
            before = time.process_time()
            found = run(command)
            answer(**found, cpu_s=time.process_time() - before)
        subscriber.undeclare()


def zenoh_send(port: int, files: list[str]) -> None:
    import zenoh

    came = threading.Event()
    with _session(port, files, False) as session:
        publisher = session.declare_publisher(
            "bench/data", congestion_control=zenoh.CongestionControl.BLOCK
        )
        subscriber = session.declare_subscriber("bench/back", lambda _: came.set())
        deadline = time.monotonic() + 30
        while not publisher.matching_status.matching:
            if time.monotonic() > deadline:
                raise RuntimeError("the other session was not found within 30 s")
            time.sleep(0.01)

        def run(command: Command) -> Command:
            if not command.get("echo"):
                return paced(command, lambda view: publisher.put(bytes(view)))
            trips: list[int] = []

            def send(view: memoryview) -> None:
                came.clear()
                before = time.monotonic_ns()
                publisher.put(bytes(view))
                if not came.wait(20):
                    raise RuntimeError("no answer within 20 s")
                trips.append(time.monotonic_ns() - before)

            return {**paced(command, send), "half_ms": float(np.median(trips)) / 2e6}

        served(run)
        subscriber.undeclare()


ROLES: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (ring_send, ring_read, tls_send, tls_read, zenoh_send, zenoh_read)
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](**json.loads(sys.argv[2]))
