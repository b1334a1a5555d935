"""The frame buffer compared with memcpy, and with shared memory and zlib.crc32.

    python benchmarks/bench_framebuffer.py [--json OUT] [--quick]

Run it on a quiet machine. What is compared:

- 1 MiB: `write` and `read_into` with one plain memcpy between existing memory
  (np.copyto); `read`, which allocates bytes, with ``bytes(memoryview)``.
- 4 KiB: with a call of a Python function that has the same arguments, copies those
  4 KiB through a memoryview and checks nothing ("Python call"); and, a harder target,
  with one that does nothing at all ("empty call"). `write` and `read_into` must stay
  below 3 of those. `read` allocates a bytes object, and making one of 4 KiB by slicing
  costs two empty calls: its floor of 4 is this benchmark's own.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from bench_arrays import timed
from measure import Aim, Result, interleaved, report

from ataraxis import FrameBufferClient, FrameBufferServer

OURS, COPY, CRC, CALL, EMPTY = (
    "ataraxis", "memcpy", "SharedMemory+crc32", "Python call", "empty call",
)  # fmt: skip
SMALL, LARGE = 4096, 1 << 20


class Checked:
    """The hand-written way: shared memory and zlib's CRC-32, copy, then verify."""

    def __init__(self, size: int) -> None:
        self.memory = SharedMemory(create=True, size=size)

    def write(self, offset: int, data: bytes) -> int:
        self.memory.buf[offset : offset + len(data)] = data
        return zlib.crc32(data)

    def read(self, offset: int, size: int, checksum: int) -> bytes:
        copy = bytes(self.memory.buf[offset : offset + size])
        if zlib.crc32(copy) != checksum:
            raise TimeoutError
        return copy

    def close(self) -> None:
        self.memory.close()
        self.memory.unlink()


def copies(client: FrameBufferClient, checked: Checked, calls: int) -> list[Result]:
    data = os.urandom(LARGE)
    source, ring = np.frombuffer(data, "u1"), np.empty(LARGE, "u1")
    out = np.empty(LARGE, "u1")
    mine, crc = client.write(0, data), checked.write(0, data)
    names = {
        "c": client, "d": data, "s": source, "r": ring, "o": out, "m": mine, "x": crc,
        "k": checked, "copy": np.copyto, "n": LARGE, "v": memoryview(ring),
    }  # fmt: skip
    cases = {
        "write 1 MiB": ("c.write(0, d)", "copy(r, s)", "k.write(0, d)"),
        "read 1 MiB into": ("c.read_into(0, n, m, o)", "copy(o, r)", None),
        "read 1 MiB new": ("c.read(0, n, m)", "bytes(v)", "k.read(0, n, x)"),
    }
    results = []
    for case, (ours, plain, hand) in cases.items():
        peers = {OURS: timed(ours, calls, **names), COPY: timed(plain, calls, **names)}
        if hand:
            peers[CRC] = timed(hand, calls, **names)
        results += interleaved(case, "ns", peers)
    return results


def small(client: FrameBufferClient, checked: Checked, calls: int) -> list[Result]:
    data = os.urandom(SMALL)
    ring = memoryview(bytearray(1 << 16))

    def write(offset: int, data: bytes) -> None:
        ring[offset : offset + SMALL] = data

    def read(offset: int, size: int, checksum: bytes) -> bytes:
        return bytes(ring[offset : offset + size])

    def read_into(offset: int, size: int, checksum: bytes, out: bytearray) -> None:
        out[:] = ring[offset : offset + size]

    def nothing(*arguments: object) -> None:
        pass

    mine, crc = client.write(0, data), checked.write(0, data)
    names = {
        "c": client, "d": data, "m": mine, "x": crc, "k": checked, "n": SMALL,
        "w": write, "r": read, "i": read_into, "e": nothing, "o": bytearray(SMALL),
    }  # fmt: skip
    cases = {
        "write 4 KiB": ("c.write(0, d)", "w(0, d)", "e(0, d)", "k.write(0, d)"),
        "read 4 KiB": (
            "c.read(0, n, m)",
            "r(0, n, m)",
            "e(0, n, m)",
            "k.read(0, n, x)",
        ),
        "read 4 KiB into": (
            "c.read_into(0, n, m, o)",
            "i(0, n, m, o)",
            "e(0, n, m, o)",
            None,
        ),
    }
    results = []
    for case, (ours, call, empty, hand) in cases.items():
        peers = {OURS: ours, CALL: call, EMPTY: empty}
        if hand:
            peers[CRC] = hand
        turns = {who: timed(what, calls, **names) for who, what in peers.items()}
        results += interleaved(case, "ns", turns)
    return results


def others(client: FrameBufferClient, calls: int) -> list[Result]:
    image = np.zeros((1080, 1440), "u1")
    names = {"c": client, "i": image, "t": client.put(image)}
    results = []
    for case, what in {
        "allocate": "c.allocate(64)",
        "put 1.6 MB image": "c.put(i)",
    }.items():
        results += interleaved(case, "ns", {OURS: timed(what, calls, **names)})
    names["t"] = client.put(image)
    get = {OURS: timed("c.get(t)", calls, **names)}
    return results + interleaved("get 1.6 MB image", "ns", get)


FOURS = ("write 4 KiB", "read 4 KiB", "read 4 KiB into")
# A rate of 0.6x memcpy's is 1 / 0.6 of its time.
AIMS = [
    *(
        Aim(case, OURS, COPY, round(1 / 0.6, 2), 1 / 0.4)
        for case in ("write 1 MiB", "read 1 MiB into", "read 1 MiB new")
    ),
    *(Aim(case, OURS, CALL, 3, 3) for case in FOURS),
    *(Aim(case, OURS, EMPTY, 3, 4 if case == "read 4 KiB" else 3) for case in FOURS),
    *(
        Aim(case, OURS, CRC, 1, 1)
        for case in ("write 1 MiB", "read 1 MiB new", "write 4 KiB", "read 4 KiB")
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    options = parser.parse_args()
    calls = 20_000 if options.quick else 200_000
    checked = Checked(1 << 22)
    with FrameBufferServer("bench", 1 << 24), FrameBufferClient("bench") as client:
        results = small(client, checked, calls)
        results += copies(client, checked, calls // 100)
        results += others(client, calls // 200)
    checked.close()
    return report(results, AIMS, options.json)


if __name__ == "__main__":
    sys.exit(main())
