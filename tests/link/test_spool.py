"""The spool: real rings, real files; what is written survives, what is not stays."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ataraxis import Consumer, Producer
from ataraxis._kernels.link import BufferToRing, RingToBuffer
from ataraxis.errors import LoggerError, SpoolFull
from ataraxis.frame import Frame
from ataraxis.link.inlet import StreamInlet
from ataraxis.link.messages import (
    Offer,
    StreamEnd,
    is_data,
    next_message,
)  # fmt: skip
from ataraxis.link.outlet import StreamOutlet
from ataraxis.link.spool import (
    MEMORY,
    KnownMirror,
    MirrorKey,
    Spool,
    SpoolMemory,
    directory_name,
    spools_of,
)  # fmt: skip

ID = "0123456789abcdef"
LIMIT = 1 << 24


class Camera:
    """A stream, and its frames as held by an agent."""

    def __init__(self, nbytes: int = 1000, slots: int = 64) -> None:
        self.producer = Producer("camera", nbytes, slots)
        self.consumer = Consumer("camera", durable="agent")
        self.ring = RingToBuffer(self.consumer, 0)
        self.sent = 0

    def send(self, count: int, size: int | None = None) -> None:
        # Bytes: of sizes that the ring's own reader tells from each other.
        for _ in range(count):
            data = np.full(
                self.sent % 90 + 8 if size is None else size, self.sent % 251
            )
            self.producer.send(data.astype("u1"), timeout=5)
            self.sent += 1
        self.ring.take(count)

    def close(self) -> None:
        self.consumer.close()
        self.producer.unlink()
        # Held frames keep the mapping.
        del self.consumer, self.ring


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path, ID, LIMIT)
    yield made
    made.close()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return number and payload of whole frames; check all their checksums."""
    found, at = [], 0
    while at < len(data):
        frame = Frame.from_buffer(data, at)
        assert frame.source == 1
        assert frame.checksum
        found.append((frame.sequence, bytes(frame.payload)))
        at += frame.nbytes
    return found


def read(spool: Spool, sequence: int, size: int = 1 << 20) -> list[tuple[int, bytes]]:
    buffer, found = bytearray(size), []
    while True:
        end, after = spool.read(sequence, buffer, 0)
        if not end:
            return found
        found += frames(bytes(buffer[:end]))
        assert after == found[-1][0] + 1
        sequence = after


def held(camera: Camera, first: int = 0) -> list[tuple[int, bytes]]:
    buffer = bytearray(1 << 20)
    end, _, _ = camera.ring.copy(first, buffer, 0)
    return frames(bytes(buffer[:end]))


@pytest.mark.parametrize("size", [None, 100, 0])
@pytest.mark.parametrize("room", [1 << 20, 500])
def test_frames_come_back_as_the_ring_would_send_them(
    camera: Camera, spool: Spool, size: int | None, room: int
) -> None:
    camera.send(40, size)
    expected = held(camera)
    assert spool.append(camera.ring, 30) == 30
    assert (spool.first, spool.next) == (0, 30)
    assert read(spool, 0, room) == expected[:30]
    assert read(spool, 17, room) == expected[17:30]
    assert spool.append(camera.ring, 40) == 40
    assert read(spool, 0, room) == expected


def test_bytes_are_those_of_the_ring(camera: Camera, spool: Spool) -> None:
    camera.send(20)
    spool.append(camera.ring, 20)
    a, b = bytearray(1 << 16), bytearray(1 << 16)
    end, _, _ = camera.ring.copy(0, a, 5)
    assert spool.read(0, b, 5) == (end, 20)
    assert a == b


def test_a_killed_agent_leaves_its_frames(camera: Camera, tmp_path: Path) -> None:
    first = Spool(tmp_path, ID, LIMIT)
    camera.send(30)
    expected = held(camera)
    first.append(camera.ring, 30)
    camera.ring.release(30)
    # It is not closed: its files are as a kill leaves them.
    again = Spool(tmp_path, ID, LIMIT)
    assert (again.first, again.next) == (0, 30)
    assert read(again, 0) == expected
    camera.send(10)
    again.append(camera.ring, 40)
    assert [n for n, _ in read(again, 25)] == list(range(25, 40))
    first.close()
    again.close()


def test_a_torn_tail_is_cut(camera: Camera, spool: Spool, tmp_path: Path) -> None:
    camera.send(20, 100)
    spool.append(camera.ring, 20)
    spool.close()
    [path] = tmp_path.rglob("*.axj")
    os.truncate(path, path.stat().st_size - 100)
    again = Spool(tmp_path, ID, LIMIT)
    assert again.next == 19
    assert [n for n, _ in read(again, 0)] == list(range(19))
    again.close()


def test_a_damaged_frame_is_passed_over_never_sent(
    camera: Camera, spool: Spool, tmp_path: Path
) -> None:
    camera.send(20, 100)
    spool.append(camera.ring, 20)
    spool.close()
    [path] = tmp_path.rglob("*.axj")
    data = bytearray(path.read_bytes())
    data[data.index(bytes([7]) * 100) + 50] ^= 1
    path.write_bytes(data)
    again = Spool(tmp_path, ID, LIMIT)
    buffer = bytearray(1 << 16)
    end, after = again.read(0, buffer, 0)
    assert [n for n, _ in frames(bytes(buffer[:end]))] == list(range(7))
    assert again.read(7, buffer, 0) == (0, 8)
    end, after = again.read(8, buffer, 0)
    assert after == 20
    again.close()


def test_files_are_removed_when_no_mirror_needs_them(
    camera: Camera, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, ID, 1 << 19)  # parts of 64 KiB
    while camera.sent < 1000:
        camera.send(40, 900)
        spool.append(camera.ring, camera.sent)
        camera.ring.release(camera.sent)
        if spool.nbytes > 300_000:
            spool.trim(camera.sent - 100)
        assert spool.nbytes < 1 << 19
    assert spool.first <= spool.oldest_until <= spool.next == 1000
    assert [n for n, _ in read(spool, spool.first)] == list(range(spool.first, 1000))
    spool.trim(1000)
    assert spool.nbytes == 0
    assert list(tmp_path.rglob("*.ax?")) == []
    camera.send(5)
    spool.append(camera.ring, camera.sent)
    assert (spool.first, spool.next) == (1000, 1005)
    spool.close()


def test_files_are_ordered_by_their_frames(camera: Camera, tmp_path: Path) -> None:
    """A new file takes a number that is free: the least one, after the oldest went."""
    first = Spool(tmp_path, ID, LIMIT)
    for k in range(3):
        camera.send(20)
        first.append(camera.ring, 20 * (k + 1))
        camera.ring.release(20 * (k + 1))
        first.close()  # each time a file is full
        if k == 1:
            first.trim(20)
    names = [path.name for path in first.directory.glob("*.axj")]
    assert sorted(names) == ["spool.000000.axj", "spool.000001.axj"]
    again = Spool(tmp_path, ID, LIMIT)
    assert (again.first, again.next) == (20, 60)
    assert [number for number, _ in read(again, 20)] == [*range(20, 60)]
    again.close()


def test_its_limit_is_kept(camera: Camera, tmp_path: Path) -> None:
    spool = Spool(tmp_path, ID, 20_000)
    camera.send(40, 900)
    with pytest.raises(SpoolFull, match=r"hosts\.yaml"):
        spool.append(camera.ring, 40)
    assert 5 < spool.next < 20
    assert spool.nbytes <= 20_000
    before = spool.next
    with pytest.raises(SpoolFull):
        spool.append(camera.ring, 40)
    assert spool.next == before
    spool.trim(spool.oldest_until)
    with pytest.raises(SpoolFull):
        spool.append(camera.ring, 40)
    assert spool.next > before
    spool.close()


def test_a_full_disk_loses_nothing(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    spool = Spool(tmp_path, ID, LIMIT)
    camera.send(20, 900)
    expected = held(camera)
    spool.append(camera.ring, 5)
    [path] = tmp_path.rglob("*.axj")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4000, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(LoggerError):
                spool.append(camera.ring, 20)
            assert spool.next == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert spool.append(camera.ring, 20) == 20
    assert read(spool, 0) == expected
    spool.close()


def test_frames_of_a_failed_write_are_kept_when_all_is_acknowledged(
    camera: Camera, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.send(20, 100)
    spool.append(camera.ring, 5)
    assert spool._writer is not None
    monkeypatch.setattr(spool._writer, "flush", _raise)
    with pytest.raises(LoggerError):
        spool.append(camera.ring, 20)
    monkeypatch.undo()
    spool.trim(5)  # the mirrors have 5 frames, and the ring counts 20 as written
    camera.send(10, 100)
    assert spool.append(camera.ring, 30) == 30
    assert [n for n, _ in read(spool, 5)] == list(range(5, 30))


def _raise(*_: Any) -> None:
    raise LoggerError(os.strerror(errno.ENOSPC))


# ---- what is remembered


def memory(**more: Any) -> SpoolMemory:
    mirrors = {MirrorKey("gpu/..", "camera"): KnownMirror(7, "lose", False)}
    options = {"stream": "camera", "stream_id": ID, "labels": "{}", **more}
    return SpoolMemory(mirrors=mirrors, slots=4, slot_bytes=9, **options)


def test_mirrors_and_the_end_are_remembered(spool: Spool, tmp_path: Path) -> None:
    assert spool.recall() == SpoolMemory()
    for end in (None, StreamEnd(9, True, "killed")):
        spool.remember(memory(end=end))
        assert spool.recall() == memory(end=end)
    assert spools_of(tmp_path) == [memory(end=StreamEnd(9, True, "killed"))]
    assert spools_of(tmp_path / "nothing") == []
    assert oct((spool.directory / MEMORY).stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"mirrors": [{}]}', b"\xff", b"[" * 10**5]
)
def test_a_damaged_memory_is_an_error_not_an_empty_one(
    spool: Spool, tmp_path: Path, text: bytes
) -> None:
    (spool.directory / MEMORY).write_bytes(text)
    with pytest.raises(LoggerError, match="damaged"):
        spool.recall()
    assert spools_of(tmp_path) == []


def test_a_full_disk_keeps_the_earlier_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.remember(memory())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(LoggerError, match="No space"):
        spool.remember(memory(labels="other"))
    assert spool.recall() == memory()
    assert [p.name for p in spool.directory.iterdir()] == [MEMORY]


@pytest.mark.parametrize("name", ["../up", "/abs", "", "ABC", "x" * 5000, "\ud800"])
def test_an_id_is_never_a_path(name: str, tmp_path: Path) -> None:
    assert directory_name(ID) == ID
    made = directory_name(name)
    assert made.isalnum()
    assert len(made) == 41
    spool = Spool(tmp_path, name, LIMIT)
    assert spool.directory.parent == tmp_path
    spool.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoggerError, match=r"hosts\.yaml"):
        Spool(tmp_path / "file", ID, LIMIT)


# ---- the machines with real rings


class Rings:
    """The mirror's host."""

    def __init__(self) -> None:
        self.producer: Any = None
        self.reader: Any = None
        self.got: list[tuple[int, bytes]] = []
        self.ended: StreamEnd | None = None

    def begin(self, offer: Offer) -> BufferToRing:
        self.producer = Producer(
            "mirror", offer.slot_bytes, offer.slots, resume=True,
            first_sequence=offer.first,
        )  # fmt: skip
        self.reader = Consumer("mirror", policy="lossless")
        return BufferToRing(self.producer, offer.first)

    def read(self) -> None:
        while (frame := self.reader.receive(blocking=False)) is not None:
            with frame:
                self.got.append((frame.sequence, bytes(frame)))

    def end(self, end: StreamEnd) -> None:
        self.ended = end
        self.producer.end()


def pump(link: Any, inlet: StreamInlet, now: float) -> None:
    """Carry everything from the outlet to the inlet, and its acknowledgements back."""
    buffer = bytearray(link.outlet.buffer_bytes)
    while size := link.fill(buffer, now):
        at, view = 0, memoryview(buffer)
        while at < size:
            if is_data(view, at, size):
                at, _ = inlet.publish(view, at, size, now)
                inlet.host.read()  # type: ignore[attr-defined]
                continue
            message, at = next_message(view, at, size)
            assert message is not None
            assert inlet.take(message, now)
        if ack := inlet.ack_due(now + 1):
            link.ack(ack, now)
            link.outlet.tick(now)


def test_a_mirror_of_a_real_ring_through_a_spool(
    camera: Camera, tmp_path: Path
) -> None:
    spool, key = Spool(tmp_path, ID, LIMIT), MirrorKey("gpu", "mirror")
    outlet = StreamOutlet(
        "camera", ID, "{}", camera.ring, spool, slots=64, slot_bytes=1000, now=0.0
    )
    rings = Rings()
    inlet = StreamInlet(rings, "camera", "mirror")
    now = 0.0
    link = outlet.want(key, inlet.want(now), now)
    for k in range(40):
        now += 0.1
        camera.send(20)
        outlet.tick(now)
        if k % 10 == 4:
            link.close(now)
            inlet.lost_link(now)
        if k % 10 == 9:
            link = outlet.want(key, inlet.want(now), now)
        if link.is_current:
            pump(link, inlet, now)
    camera.producer.end()
    outlet.tick(now)
    pump(link, inlet, now)
    rings.read()
    assert [n for n, _ in rings.got] == list(range(800))
    for n, data in rings.got:
        assert data == bytes([n % 251]) * (n % 90 + 8)
    assert rings.ended == StreamEnd(800)
    assert outlet.is_over
    assert (inlet.frames, inlet.lost, inlet.state) == (800, 0, "ended")
    spool.remove()
    rings.reader.close()
    rings.producer.unlink()
