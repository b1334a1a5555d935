"""A cable of packets between two network namespaces that delays, drops and throttles.

Kernels without netem (`CONFIG_NET_SCH_NETEM`) cannot do that with a veth. So each end
is a TUN device, and a process copies packets from one to the other. `Wire` starts it,
and tells it what to do from now on; the process is this file as a script.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
QUEUE_BYTES = 2**20
"""What waits in front of the bandwidth, per direction; the rest is dropped."""


class Wire:
    """A running wire between devices of two namespaces; `close` removes both.

    The namespaces' devices have addresses and are up when this returns. `loss` is the
    share of packets that are dropped, each direction for itself; `mbit` 0 is without a
    limit.
    """

    def __init__(
        self,
        ends: list[tuple[str, str]],
        *,
        device: str = "wire",
        mtu: int = 9000,
        **state: float,
    ) -> None:
        names = [namespace for namespace, _ in ends]
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, device, *names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self._answer()
            for namespace, address in ends:
                for what in (
                    f"addr add {address}/24 dev {device}",
                    f"link set {device} mtu {mtu} txqueuelen 2000 up",
                ):
                    command = ["ip", "-n", namespace, *what.split()]
                    subprocess.run(command, check=True, capture_output=True, timeout=30)
            self.set(**state)
        except BaseException:
            self.close()
            raise

    def set(self, **state: float) -> dict[str, int]:
        """Change `delay_ms`, `jitter_ms`, `loss`, `mbit`, `cut`.

        `cut` is 1 if nothing passes, 2 if nothing from the first end does, 3 if nothing
        from the second one does.

        Returns packets `passed` and `dropped` so far.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(state) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the wire has ended")
        answer: dict[str, int] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Copying:
    """The process: two TUN descriptors, packets that wait for their time."""

    def __init__(self, tuns: list[int]) -> None:
        self._tuns = tuns
        self._state = {"delay_ms": 0.0, "jitter_ms": 0.0, "loss": 0.0, "mbit": 0.0}
        self._state["cut"] = 0.0
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._free_at = [0.0, 0.0]
        self._newest = [0.0, 0.0]
        self._count = 0
        self._passed = self._dropped = 0
        self._chance = random.Random(20261130)

    def run(self) -> None:
        commands = b""
        while True:
            pause = None
            if self._waiting:
                pause = max(0.0, self._waiting[0][0] - time.monotonic())
            ready, _, _ = select.select([0, *self._tuns], [], [], pause)
            for direction, tun in enumerate(self._tuns):
                if tun in ready:
                    self._read(direction, tun)
            self._deliver()
            if 0 in ready:
                found = os.read(0, 65536)
                if not found:
                    return
                commands += found
                *lines, commands = commands.split(b"\n")
                for line in lines:
                    self._state.update(json.loads(line))
                    counted = {"passed": self._passed, "dropped": self._dropped}
                    os.write(1, json.dumps(counted).encode() + b"\n")

    def _read(self, direction: int, tun: int) -> None:
        state = self._state
        for _ in range(64):
            try:
                packet = os.read(tun, 65536)
            except BlockingIOError:
                return
            except OSError:  # the device is down
                return
            if (
                state["cut"] in (1, 2 + direction)
                or self._chance.random() < state["loss"]
            ):
                self._dropped += 1
                continue
            now = time.monotonic()
            if not any(state.values()) and not self._waiting:
                self._write(direction, packet)
                continue
            at = now
            if state["mbit"]:
                rate = state["mbit"] * 125_000
                at = max(now, self._free_at[direction])
                if (at - now) * rate > QUEUE_BYTES:
                    self._dropped += 1
                    continue
                at += len(packet) / rate
                self._free_at[direction] = at
            at += 1e-3 * state["delay_ms"]
            if state["jitter_ms"]:
                at += 1e-3 * self._chance.uniform(0, state["jitter_ms"])
            at = self._newest[direction] = max(at, self._newest[direction])  # in order
            self._count += 1
            heapq.heappush(self._waiting, (at, self._count, direction, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, direction, packet = heapq.heappop(self._waiting)
            self._write(direction, packet)

    def _write(self, direction: int, packet: bytes) -> None:
        try:
            os.write(self._tuns[1 - direction], packet)
            self._passed += 1
        except OSError:  # full, or down: as a switch would
            self._dropped += 1


def _tun_in(namespace: str, device: str) -> int:
    """Return a descriptor of a new TUN device in a namespace, which this enters."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(tun, TUNSETIFF, request)
    return tun


def _main(device: str, *namespaces: str) -> None:
    tuns = [_tun_in(name, device) for name in namespaces]
    os.write(1, b"{}\n")
    with contextlib.suppress(KeyboardInterrupt):
        _Copying(tuns).run()


if __name__ == "__main__":
    _main(*sys.argv[1:])
