"""The arena of a queue: chunks for large frames, whose owner is in one word each."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from places import PATH

from ataraxis import MemQ, attach
from ataraxis._kernels import arena as kernel
from ataraxis.errors import CorruptFrame, LayoutError, QueueFull
from ataraxis.shm import gc as shm_gc
from ataraxis.shm.header import Kind, layout_id
from ataraxis.stream import arena as arenas

GRAIN = 8192


@pytest.fixture
def queue(context: Path) -> Iterator[MemQ]:
    with MemQ("q", 8, 256) as made:
        yield made
        made.unlink()


def numbers(k: int, words: int = 20_000) -> NDArray[np.int64]:
    return np.full(words, k)


def arena_of(context: Path) -> Path:
    return next(p for p in context.iterdir() if p.name.startswith("q~"))


# ---- sizes


@pytest.mark.parametrize("nbytes", [1, 24576, 24577, 1 << 20, (1 << 20) + 192, 5 << 20])
def test_a_chunk_holds_its_frame_and_wastes_less_than_half(nbytes: int) -> None:
    size = kernel.chunk_bytes(nbytes)
    assert nbytes <= size <= max(1.5 * nbytes + 2 * GRAIN, 3 * GRAIN)
    assert size % GRAIN == 0


def test_a_power_of_two_and_its_header_fit_the_chunk_of_that_size() -> None:
    for k in range(14, 30):
        assert kernel.chunk_bytes((1 << k) + 192) <= (1 << k) + GRAIN


def test_no_chunk_holds_what_no_memory_does() -> None:
    assert kernel.chunk_bytes(1 << 60) == 0


# ---- values


def test_large_values_lie_in_one_segment(queue: MemQ, context: Path) -> None:
    assert os.listdir(context) == ["q"]
    queue.put_many([numbers(1), b"small", b"x" * 100_000, {"a": numbers(2)}])
    assert len(os.listdir(context)) == 2
    assert queue.arena_bytes > 400_000
    got = queue.get_many()
    assert np.array_equal(got[0], numbers(1))
    assert got[1:3] == [b"small", b"x" * 100_000]
    assert np.array_equal(got[3]["a"], numbers(2))
    del got
    assert queue.arena_bytes == 0
    queue.close()
    assert os.listdir(context) == []


def test_the_chunk_freed_last_is_reused_first(queue: MemQ, context: Path) -> None:
    for k in range(3):
        queue.put(numbers(k))
    leases = [queue.lease() for _ in range(3)]
    places = [address(lease.value) for lease in leases]
    for k in (1, 0, 2):
        leases[k].acknowledge()
        leases[k] = None  # type: ignore[call-overload]
    queue.put(numbers(3))
    queue.put(numbers(4))
    with queue.lease() as third, queue.lease() as fourth:
        assert address(third.value) == places[2]
        assert address(fourth.value) == places[0]


def address(value: Any) -> int:
    return int(value.__array_interface__["data"][0])


def test_a_payload_in_a_chunk_is_aligned(queue: MemQ) -> None:
    for value in (numbers(1), numbers(2).astype("f4").reshape(100, 200)):
        queue.put(value, device_time=3)
        with queue.lease() as lease:
            assert address(lease.value) % 64 == 0
            assert np.array_equal(lease.value, value)


def test_numbers_of_frames_in_chunks_are_unique(queue: MemQ) -> None:
    seen = []
    for _ in range(5):
        queue.put(numbers(1))
        queue.put({"a": numbers(2)})
        queue.put(b"c")
        seen += [queue.get_frame().sequence for _ in range(3)]
    assert seen == sorted(set(seen))


def test_a_frame_that_finds_no_room_takes_no_chunk(queue: MemQ) -> None:
    queue.put(numbers(0))
    for _ in range(7):
        queue.put(b"")
    used = queue.arena_bytes
    with contextlib.suppress(Exception):
        queue.put_nowait(numbers(1))
    with contextlib.suppress(Exception):
        queue.put(numbers(1), timeout=0.02)
    assert queue.arena_bytes == used
    assert queue.qsize() == 8


def test_frames_in_chunks_are_drained(queue: MemQ) -> None:
    from ataraxis.errors import DataOverflow
    from ataraxis.frame import Frame

    queue.put(b"small")
    queue.put(numbers(1))
    queue.put({"a": numbers(2)})
    with pytest.raises(DataOverflow, match="shorter than a slot"):
        queue.drain_into(bytearray(64))
    buffer = bytearray(200_000)
    end, frames = queue.drain_into(buffer, acknowledge=False)
    assert frames == 2
    assert np.array_equal(Frame.from_buffer(buffer, 64 + 64).array, numbers(1))
    assert end == 128 + 160_064
    queue.acknowledge_drained()
    with pytest.raises(DataOverflow, match="drain into a larger one"):
        queue.drain_into(bytearray(1000))
    assert queue.drain_into(buffer)[1] == 1
    assert queue.arena_bytes == 0
    assert queue.empty()


def test_no_free_chunk_is_a_segment_of_its_own(
    queue: MemQ, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arenas, "LEAST_BYTES", 1 << 19)
    monkeypatch.setattr(arenas, "SPARE", -6)
    for k in range(8):
        queue.put(numbers(k), timeout=0.5)
    made = len(os.listdir(context))
    assert made > 3
    assert [int(queue.get()[0]) for _ in range(8)] == list(range(8))
    assert len(os.listdir(context)) == 2
    # Once chunks are free again, no more segments are made.
    queue.put(numbers(9))
    assert len(os.listdir(context)) == 2


def test_without_room_there_is_no_arena(
    queue: MemQ, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arenas, "free_memory", lambda: 1 << 20)
    queue.put(numbers(1))
    (name,) = (n for n in os.listdir(context) if n != "q")
    assert name != arenas.name_of_arena("q", queue._uuid)
    assert np.array_equal(queue.get(), numbers(1))


def test_the_arena_takes_no_more_than_its_share(context: Path) -> None:
    from ataraxis.shm.context import Context

    room = os.statvfs(context)
    free = room.f_bavail * room.f_frsize
    size = arenas.size_of_arena(Context.of(context), 256, 1 << 20)
    assert 0 < size <= min(free // arenas.SHARE, arenas.MOST_BYTES)


def test_a_queue_of_large_values_may_count_as_full_before_its_slots_are(
    queue: MemQ,
) -> None:
    queue.limit_depth(400_000, 2)
    queue.put(numbers(0))
    queue.put(numbers(1))
    with pytest.raises(QueueFull):
        queue.put_nowait(numbers(2))
    assert queue.full()
    with pytest.raises(TimeoutError):
        queue.put(numbers(2), timeout=0.02)
    # Small ones are put as ever, and others have no limit.
    queue.put(b"small")
    assert not queue.full()
    with MemQ.attach("q") as other:
        other.put(numbers(2))
    # A getter that has leased a value makes room.
    leases = [queue.lease() for _ in range(3)]
    queue.put(numbers(3), timeout=20)
    late = threading.Thread(target=lambda: leases.append(queue.lease()))
    late.start()
    queue.put(numbers(4), timeout=20)
    late.join()
    assert [number_of(lease.value) for lease in leases] == [0, 1, -1, 2]
    leases.clear()


def number_of(value: Any) -> int:
    return -1 if isinstance(value, bytes) else int(value[0])


# ---- bytes


def test_golden_bytes_of_a_frame_in_a_chunk(queue: MemQ, context: Path) -> None:
    for k in range(2):
        queue.put(numbers(k), source=3, time_ns=99, device_time=7 + k)
    parts = {"queue": (context / "q").read_bytes()}
    parts["arena"] = arena_of(context).read_bytes()
    starts = {n: struct.unpack_from("<4Q4Q", data, 0x60) for n, data in parts.items()}
    stride = struct.unpack_from("<Q", parts["queue"], starts["queue"][5] + 8)[0]
    words = starts["arena"][5] + 640
    chunks = struct.unpack_from("<Q", parts["arena"], starts["arena"][5])[0]
    found = {}
    for k in range(2):
        ticket = starts["queue"][7] + k * stride
        found[f"ticket {k}"] = parts["queue"][ticket : ticket + 24].hex()
        word = words + 8 * k
        found[f"word {k}"] = parts["arena"][word : word + 8].hex()
        extent = words + -(-8 * chunks // 128) * 128 + 8 * k
        found[f"extent {k}"] = parts["arena"][extent : extent + 8].hex()
        offset = int.from_bytes(bytes.fromhex(found[f"extent {k}"]), "little") >> 32
        chunk = starts["arena"][7] + offset * GRAIN
        found[f"frame {k}"] = parts["arena"][chunk + 112 : chunk + 200].hex()
    golden = Path(__file__).parents[1] / "golden" / "arena.json"
    assert found == json.loads(golden.read_text())


# ---- views


def test_a_view_never_changes(queue: MemQ) -> None:
    views = []
    for k in range(20):
        queue.put(numbers(k))
        with queue.lease() as lease:
            views.append((k, lease.value))
    del lease
    for k, view in views:
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        assert np.array_equal(view, numbers(k))
    used = queue.arena_bytes
    del view, views[::2]
    gc.collect()
    assert queue.arena_bytes == used // 2
    for _ in views:
        queue.put(numbers(99))
        assert np.array_equal(queue.get(), numbers(99))
    for k, view in views:
        assert np.array_equal(view, numbers(k))


def test_a_view_outlives_the_queue(context: Path) -> None:
    queue = MemQ("q", 8, 256)
    queue.put(numbers(7))
    with queue.lease() as lease:
        view = lease.value
    queue.close()
    del lease, queue
    assert os.listdir(context) == []
    assert np.array_equal(view, numbers(7))


def test_a_getter_whose_lease_was_lost_still_pins(context: Path) -> None:
    with MemQ("q", 8, 256, lease_timeout=0.02) as queue, MemQ.attach("q") as other:
        queue.put(numbers(5))
        lease = queue.lease()
        view = lease.value
        assert np.array_equal(other.get(timeout=5), numbers(5))
        for k in range(20):
            other.put(numbers(k + 10))
            other.get(timeout=5)
        assert np.array_equal(view, numbers(5))
        lease.give_back()
        del lease
        assert other.arena_bytes > 0
        del view
        assert other.arena_bytes == 0


def test_threads_share_the_pins_of_a_handle(queue: MemQ) -> None:
    wrong: list[int] = []

    def work(first: int) -> None:
        for k in range(first, first + 200):
            queue.put(numbers(k, 4_000))
            with queue.lease(timeout=20) as lease:
                value = lease.value
            if not (value == value[0]).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k * 1000,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert queue.arena_bytes == 0


# ---- deaths

DIES = """
import os, sys
import numpy as np
from ataraxis import MemQ
queue = MemQ.attach("q", context=sys.argv[1])
if sys.argv[2] == "pinned":
    lease = queue.lease(timeout=5)
    view = lease.value
    lease.acknowledge()
elif sys.argv[2] == "leased":
    lease = queue.lease(timeout=5)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("way", ["pinned", "leased"])
def test_a_chunk_of_a_dead_getter_is_free_again(
    way: str, queue: MemQ, context: Path
) -> None:
    queue.put(numbers(1))
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(context), way],
        env={**os.environ, "PYTHONPATH": PATH},
        timeout=60,
        check=False,
    )
    assert done.returncode == -9
    assert queue.arena_bytes > 0
    queue.sweep()
    if way == "leased":
        assert np.array_equal(queue.get(timeout=5), numbers(1))
    assert queue.arena_bytes == 0


@pytest.mark.parametrize("way", ["given", "listed", "unlisted"])
def test_chunks_on_no_list_are_found_before_a_segment_is_made(
    way: str, queue: MemQ, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As getters leave them that are killed after an acknowledgement, or in a list."""
    import mmap

    monkeypatch.setattr(arenas, "LEAST_BYTES", 1 << 19)
    monkeypatch.setattr(arenas, "SPARE", -6)
    for k in range(8):
        queue.put(numbers(k), timeout=5)
    full = queue.arena_bytes
    assert [int(queue.get()[0]) for _ in range(8)] == list(range(8))
    with open(arena_of(context), "r+b") as file:
        words = mmap.mmap(file.fileno(), 0)
    control = struct.unpack_from("<4Q4Q", words, 0x60)[5]
    chunks = struct.unpack_from("<Q", words, control)[0]
    owners = control + 640
    extents = owners + -(-8 * chunks // 128) * 128
    after = extents + -(-8 * chunks // 128) * 128
    listed = after + -(-4 * chunks // 128) * 128
    words[control + 256 : owners] = bytes(owners - control - 256)  # the lists
    cut = sum(w > 0 for (w,) in struct.iter_unpack("<Q", words[extents:after]))
    for k in range(cut):
        struct.pack_into(
            "<Q", words, owners + 8 * k, k << 2 | 2 if way == "given" else 0
        )
        struct.pack_into("<I", words, listed + 4 * k, way == "listed")
    words.close()
    time.sleep(0.01)  # longer than between two searches
    one = full // cut
    assert queue.arena_bytes == (full if way == "given" else 0)
    for k in range(cut):
        queue.put(numbers(k), timeout=5)
        assert queue.arena_bytes == (k + 1) * one
    assert len(os.listdir(context)) == 2
    assert [int(queue.get()[0]) for _ in range(cut)] == list(range(cut))
    assert queue.arena_bytes == 0


def test_frames_in_chunks_outlive_all_processes(context: Path) -> None:
    queue = MemQ("q", 8, 256)
    queue.put(numbers(3))
    queue.close()
    assert len(os.listdir(context)) == 2
    assert not any(found.is_removed for found in shm_gc.collect())
    with MemQ.attach("q") as queue:
        assert np.array_equal(queue.get(), numbers(3))
    assert os.listdir(context) == []


def test_an_arena_whose_queue_is_gone_is_collected(queue: MemQ, context: Path) -> None:
    queue.put(numbers(3))
    queue.get()
    kept = arena_of(context).read_bytes()
    name = arena_of(context).name
    queue.unlink()
    assert os.listdir(context) == []
    (context / name).write_bytes(kept)
    (context / name).chmod(0o600)
    (found,) = shm_gc.collect()
    assert (found.name, found.kind, found.is_removed) == (name, "arena", True)


# ---- damaged words


def test_an_arena_is_not_a_queue(queue: MemQ, context: Path) -> None:
    queue.put(numbers(1))
    with pytest.raises(LayoutError, match="arena"):
        attach(arena_of(context).name)
    with pytest.raises(LayoutError, match="arena"):
        MemQ.attach(arena_of(context).name)


def test_a_queue_without_an_arena_is_refused(queue: MemQ, context: Path) -> None:
    with open(context / "q", "r+b") as file:
        page = bytearray(file.read(0x400))
        # Revision 1: the queue of the releases before.
        page[20:24] = struct.pack("<I", zlib.crc32(b"QUEUE/1/64"))
        page[0x3FC:] = struct.pack("<I", zlib.crc32(page[:0x3FC]))
        file.seek(0)
        file.write(page)
    with pytest.raises(LayoutError, match="0x14"):
        MemQ.attach("q")
    assert layout_id(Kind.QUEUE) == zlib.crc32(b"QUEUE/2/64")
    assert layout_id(Kind.ARENA) == zlib.crc32(b"ARENA/1/64")


def test_damaged_words_lead_nowhere_else(context: Path) -> None:
    import mmap
    import random

    chance = random.Random(4)
    with MemQ("q", 8, 256) as queue:
        queue.put(numbers(1))
        queue.get()
        with open(arena_of(context), "r+b") as file:
            words = mmap.mmap(file.fileno(), 0)
        control, labels = struct.unpack_from("<4Q4Q", words, 0x60)[5:7]
        chunks = struct.unpack_from("<Q", words, control)[0]
        used = control + 640
        spots = [
            *range(control, control + 640, 8),
            *range(used, used + 64, 8),
            *range(used + 8 * chunks, used + 8 * chunks + 64, 8),
            *range(used + 16 * chunks, used + 16 * chunks + 32, 8),
        ]
        assert max(spots) < labels
        special = [0, 1, 2, 3, 1 << 31, 1 << 32, (1 << 64) - 1, 5 << 2 | 1, 9 << 2 | 2]
        for _ in range(400):
            at = chance.choice(spots)
            new = chance.choice([*special, chance.getrandbits(64)])
            struct.pack_into("<Q", words, at, new)
            for k in range(3):
                queue.put(numbers(k), timeout=5)
            with contextlib.suppress(CorruptFrame):
                for _ in range(3):
                    value = queue.get(timeout=5)
                    assert (value == value[0]).all()
            while not queue.empty():
                with contextlib.suppress(CorruptFrame):
                    queue.get(timeout=5)
            queue.sweep()
            assert queue.arena_bytes >= 0
        words.close()


@pytest.mark.parametrize(
    "ticket",
    [
        (1 << 40, 128, 160_064),
        (0, 1 << 63, 160_064),
        (0, 128, 1 << 63),
        (0, 64, 160_064),
        (0, 128, 160_000),
    ],
)
def test_a_damaged_ticket_is_a_corrupt_frame(
    ticket: tuple[int, int, int], queue: MemQ, context: Path
) -> None:
    queue.put(numbers(1))
    with open(context / "q", "r+b") as file:
        file.seek(struct.unpack_from("<4Q4Q", file.read(4096), 0x60)[7])
        file.write(struct.pack("<3Q", *ticket))
    with pytest.raises(CorruptFrame):
        queue.get(timeout=1)
    queue.put(numbers(2))
    assert np.array_equal(queue.get(timeout=1), numbers(2))


def test_a_ticket_just_past_the_last_chunk_changes_no_other_word(
    queue: MemQ, context: Path
) -> None:
    """Behind the owners are extents; the first is 2 here, as an owner at position 0."""
    queue.put(np.zeros(3500))
    with open(arena_of(context), "rb") as file:
        control = struct.unpack_from("<4Q4Q", file.read(4096), 0x60)[5]
        file.seek(control)
        chunks = struct.unpack("<Q", file.read(8))[0]
    assert queue.arena_bytes == 4 * GRAIN
    with open(context / "q", "r+b") as file:
        file.seek(struct.unpack_from("<4Q4Q", file.read(4096), 0x60)[7])
        file.write(struct.pack("<Q", chunks))
    with pytest.raises(CorruptFrame):
        queue.get(timeout=1)
    assert queue.arena_bytes == 4 * GRAIN
