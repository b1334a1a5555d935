"""Copies that are hashed while they are made (xxh3_copy.h): the hash of what is stored.

Decision 5 for the one-pass form; test_framebuffer.py has it for the library's.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import xxhash
from deadline import wait_until

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
from ataraxis._kernels.framebuffer import widths

CAPACITY = 4 << 20
# Every way through: short, stripes, whole and broken blocks, beyond what keeps the GIL.
SIZES = [
    *range(1, 1400), 2048, 2049, 4095, 4096, 4097, 5000, 65535, 65536, 65537, 66_000,
    (1 << 20) - 1, 1 << 20, (1 << 20) + 1,
]  # fmt: skip
EVERY = pytest.mark.parametrize("width", [64, 32, 0])
digest = xxhash.xxh3_64_digest


@pytest.fixture
def client(context: object) -> Iterator[FrameBufferClient]:
    with FrameBufferServer("key", CAPACITY), FrameBufferClient("key") as using:
        yield using


def use(client: FrameBufferClient, width: int) -> None:
    if width and width not in widths():
        pytest.skip(f"this machine has no vectors of {width} bytes")
    client._hash_by(digest, width)


def test_the_widest_is_used(client: FrameBufferClient) -> None:
    """What `widths` offers is for vectors of this very machine."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "").split()
    expected = [w for w, flag in ((64, "avx512f"), (32, "avx2")) if flag in flags]
    assert widths() == expected


@EVERY
def test_the_hash_is_xxh3_at_every_size(client: FrameBufferClient, width: int) -> None:
    """Stored, checked and read back; and not a byte beside the chunk is touched."""
    use(client, width)
    ring = client._segment.payload  # type: ignore[union-attr]
    chance = random.Random(width)
    bytes_ = np.frombuffer(chance.randbytes(SIZES[-1] + 64), "u1")
    out = np.empty(SIZES[-1] + 128, "u1")
    for size in SIZES:
        at, shift = chance.randrange(64, 256), chance.randrange(64)
        data = bytes_[shift : shift + size]
        ring[at - 64 : at + size + 64] = 170
        checksum = client.write(at, data)
        assert checksum == digest(data), size
        assert ring[at : at + size].tobytes() == data.tobytes(), size
        beside = [ring[at - 64 : at], ring[at + size : at + size + 64]]
        assert all((side == 170).all() for side in beside), size
        out[: size + 128] = 85
        client.read_into(at, size, checksum, out[64 : 64 + size])
        assert out[64 : 64 + size].tobytes() == data.tobytes(), size
        assert (out[:64] == 85).all(), size
        assert (out[64 + size : size + 128] == 85).all(), size
        assert client.read(at, size, checksum) == data.tobytes(), size
        assert client.write(at, data.tobytes()) == checksum, size


@EVERY
@pytest.mark.parametrize("size", [241, 300, 1024, 1025, 4096, 70_001])
def test_every_byte_counts(client: FrameBufferClient, width: int, size: int) -> None:
    """One bit of any stripe, and of the checksum, is noticed."""
    use(client, width)
    ring = client._segment.payload  # type: ignore[union-attr]
    chance = random.Random(size)
    checksum = client.write(7, chance.randbytes(size))
    step = max(1, size // 500)
    for at in [*range(0, size, step), size - 1]:
        ring[7 + at] ^= 1 << at % 8
        with pytest.raises(FrameBufferTimeout):
            client.read(7, size, checksum)
        ring[7 + at] ^= 1 << at % 8
    for bit in range(64):
        other = (int.from_bytes(checksum, "big") ^ 1 << bit).to_bytes(8, "big")
        with pytest.raises(FrameBufferTimeout):
            client.read_into(7, size, other, bytearray(size))
    for wrong in (b"", checksum[:7], checksum + b"\0", checksum * 2):
        with pytest.raises(FrameBufferTimeout, match="checksum has"):
            client.read(7, size, wrong)
    assert digest(client.read(7, size, checksum)) == checksum


@EVERY
def test_the_verdict_is_of_the_copy(client: FrameBufferClient, width: int) -> None:
    """Decision 5: while another thread changes the chunk, accepted means right.

    The verdict of every read is what the library says of the copy it left, torn or not.
    """
    use(client, width)
    size = 1 << 20
    ring = client._segment.payload  # type: ignore[union-attr]
    first = np.frombuffer(random.Random(1).randbytes(size), "u1")
    second = np.frombuffer(random.Random(2).randbytes(size), "u1")
    checksum, out = client.write(0, first), np.empty(size, "u1")
    seen, stop = {"right": 0, "torn": 0}, threading.Event()

    def change() -> None:
        while not stop.is_set():
            # Without the GIL: numpy lets go of it for copies.
            np.copyto(ring[:size], second)
            np.copyto(ring[:size], first)

    def look() -> bool:
        try:
            client.read_into(0, size, checksum, out)
        except FrameBufferTimeout:
            assert digest(out) != checksum
            mixed = out[0] == first[0], out[-1] == first[-1]
            seen["torn"] += mixed[0] != mixed[1]
        else:
            assert digest(out) == checksum
            seen["right"] += 1
        return min(seen.values()) >= 5

    meddler = threading.Thread(target=change)
    meddler.start()
    try:
        wait_until(look, 60)
    finally:
        stop.set()
        meddler.join()


@EVERY
def test_changing_sources_never_pass(client: FrameBufferClient, width: int) -> None:
    """An array that changes while it is written is an error later, not wrong data."""
    use(client, width)
    size = 1 << 20
    source = np.frombuffer(random.Random(3).randbytes(size), "u1").copy()
    stop, tries = threading.Event(), 0

    def change() -> None:
        while not stop.is_set():
            np.add(source, 1, out=source)

    def exchange() -> bool:
        nonlocal tries
        tries += 1
        checksum = client.write(0, source)
        try:
            assert digest(client.read(0, size, checksum)) == checksum
        except FrameBufferTimeout:
            pass
        return tries >= 50

    meddler = threading.Thread(target=change)
    meddler.start()
    try:
        wait_until(exchange, 60)
    finally:
        stop.set()
        meddler.join()


def test_stopping_while_another_thread_copies(context: object) -> None:
    """A long copy keeps its mapping and its buffers; what follows says not started."""
    size = 1 << 20
    data = random.Random(4).randbytes(size)
    ways: list[Callable[[FrameBufferClient, bytes], object]] = [
        lambda client, checksum: client.write(0, data),
        lambda client, checksum: client.read(0, size, checksum),
        lambda client, checksum: client.read_into(0, size, checksum, bytearray(size)),
    ]
    with FrameBufferServer("key", CAPACITY), FrameBufferClient("key") as other:
        checksum = other.write(0, data)
        for way in ways * 5:
            client, done = FrameBufferClient("key"), threading.Event()
            client.start()

            def copy(
                way: Callable[[FrameBufferClient, bytes], object] = way,
                client: FrameBufferClient = client,
                done: threading.Event = done,
            ) -> None:
                try:
                    while True:
                        way(client, checksum)
                        done.set()
                except RuntimeError:
                    done.set()

            thread = threading.Thread(target=copy)
            thread.start()
            assert done.wait(30)
            client.stop()
            thread.join(30)
            assert not thread.is_alive()
