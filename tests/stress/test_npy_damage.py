"""Damaged archives and npy directories: intact entries are read, others are named.

A member of an archive is intact if its local header, its name and its data are: the
directory behind the members is only an index.
"""

from __future__ import annotations

import random
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ataraxis import LogArchive, assemble_log_archives, compress_npy_logs
from ataraxis.errors import CorruptFrame
from ataraxis.log.npy.directory import EntryDirectory
from ataraxis.log.npy.entries import EntryKey
from ataraxis.log.selection import Problem
from ataraxis.log.verification import verify

Key = tuple[int, int]
Entries = dict[Key, bytes]
SOURCE = 7


def entries_of(chance: random.Random, sizes: list[int]) -> Entries:
    """Entries with close stamps: a bit flip may turn one into another."""
    stamps = sorted(chance.sample(range(100_000_000, 100_000_200), 40))
    return {(SOURCE, s): chance.randbytes(chance.choice(sizes)) for s in stamps}


def fill(directory: Path, entries: Entries) -> None:
    directory.mkdir()
    with EntryDirectory(directory) as writer:
        for (source, stamp), payload in entries.items():
            writer.write(source, stamp, payload)


def stem(key: Key) -> str:
    return EntryKey(key[1], key[0]).stem


# ---- reading, one by one and in bulk


@dataclass
class Found:
    """The entries of a log, read one by one."""

    numbers: dict[Key, int]
    texts: list[str]
    problems: list[Problem]


def read_all(path: Path, entries: Entries) -> Found:
    """Read a log in each way; no wrong entry may be returned."""
    found = Found({}, [], [])
    with LogArchive(path) as log:
        for number in range(len(log)):
            try:
                frame = log[number]
            except CorruptFrame as error:
                found.texts.append(str(error))
                continue
            key = frame.source, frame.device_time
            assert key not in found.numbers
            assert bytes(frame.payload) == entries[key]
            found.numbers[key] = number
        found.problems = log.problems
        count = len(log)
    in_bulk(path, entries, found.numbers)
    report = verify(path)
    assert sum(source.received for source in report.sources) == len(found.numbers)
    assert sum(source.expected for source in report.sources) == count
    assert len(found.numbers) == len(entries) or not report.is_complete
    return found


def in_bulk(path: Path, entries: Entries, numbers: dict[Key, int]) -> None:
    """Read a newly opened log in blocks."""
    alike: dict[int, list[Key]] = {}
    for key in numbers:
        alike.setdefault(len(entries[key]), []).append(key)
    for keys in alike.values():
        with LogArchive(path) as log:
            block = log.read(numbers=np.array([numbers[key] for key in keys]))
            assert [row.tobytes() for row in block.data] == [entries[k] for k in keys]
            assert block.time.tolist() == [stamp for _, stamp in keys]
            assert block.source.tolist() == [source for source, _ in keys]
            assert block.device is not None
            assert block.device[:, 0].tolist() == [stamp for _, stamp in keys]
    with LogArchive(path) as log, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            block = log.read()
        except (CorruptFrame, ValueError):
            assert len(alike) != 1 or len(numbers) < len(log)
        else:
            # The bytes of a member with a damaged header may be intact.
            assert len(block) == len(log)
            keys = zip(block.source.tolist(), block.time.tolist(), strict=True)
            assert [row.tobytes() for row in block.data] == [entries[k] for k in keys]
        # A warning about further entries requires damage.
        assert log.problems or not warned


# ---- archives


@dataclass
class Archive:
    """An intact archive."""

    data: bytes
    members: dict[Key, range]
    """Position of each member."""
    rows: dict[Key, range]
    """Position of its record in the directory."""


def look_at(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive:
        infos, at = archive.infolist(), archive.start_dir
    members, rows = {}, {}
    ends = [*(info.header_offset for info in infos[1:]), at]
    for info, end in zip(infos, ends, strict=True):
        source, stamp = info.filename.removesuffix(".npy").split("_")
        key = int(source), int(stamp)
        members[key] = range(info.header_offset, end)
        rows[key] = range(at, at + 46 + len(info.filename) + len(info.extra))
        at = rows[key].stop
    return Archive(path.read_bytes(), members, rows)


def make(directory: Path, entries: Entries, how: str) -> Path:
    """Make an archive like ours, or like one of ataraxis-data-structures."""
    path = directory / f"{SOURCE}_log.npz"
    if how in ("savez", "savez_compressed"):
        directory.mkdir()
        arrays = {
            stem((source, stamp)): np.frombuffer(
                bytes([source]) + stamp.to_bytes(8, "little") + payload, np.uint8
            )
            for (source, stamp), payload in entries.items()
        }
        getattr(np, how)(path, **arrays)
        return path
    fill(directory, entries)
    if how == "deflated":
        compress_npy_logs(directory, remove_sources=True)
    else:
        assemble_log_archives(directory)
    return path


def places(chance: random.Random, archive: Archive, count: int) -> list[int]:
    """Choose bits to flip: anywhere, in headers, in the directory, or all in one."""
    size = len(archive.data)
    where: list[Iterable[int]] = [
        range(size),
        [at for member in archive.members.values() for at in member[:58]],
        range(min(row.start for row in archive.rows.values()), size),
        chance.choice([*archive.members.values(), *archive.rows.values()]),
    ]
    among = list(chance.choice(where))
    return [8 * chance.choice(among) + chance.randrange(8) for _ in range(count)]


@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        ("stored", [0, 1, 63, 64, 65, 200, 1000]),
        ("stored", [61]),  # members of 256 bytes: a flip makes one place another's
        ("deflated", [0, 1, 63, 64, 65, 200, 1000]),
        ("savez", [64, 65]),
        ("savez_compressed", [64, 65]),
    ],
)
def test_an_archive_damaged(
    tmp_path: Path, figure: Callable[..., float], how: str, sizes: list[int]
) -> None:
    chance = random.Random(f"{how} {sizes}")
    entries = entries_of(chance, sizes)
    path = make(tmp_path / "log", entries, how)
    archive = look_at(path)
    assert archive.members.keys() == entries.keys()
    for _ in range(int(figure(10_000, 200))):
        hurt = bytearray(archive.data)
        bits = places(chance, archive, chance.choice([0, 1, 1, 8]))
        for bit in bits:
            hurt[bit >> 3] ^= 1 << (bit & 7)
        size = len(hurt)
        end = chance.choice([size, size, size, chance.randrange(size), 0])
        path.write_bytes(hurt[:end])
        # A bit that was flipped twice is unchanged.
        hits = {at for at in {b >> 3 for b in bits} if hurt[at] != archive.data[at]}
        found = read_all(chance.choice([path, path.parent]), entries)
        check(archive, hits, end, found)


def check(archive: Archive, hits: set[int], end: int, found: Found) -> None:
    """Every intact entry was read, every other one that was not is named."""

    def is_hit(place: range) -> bool:
        return any(at in place for at in hits)

    if end == len(archive.data) and not hits:
        assert not found.problems
    for key, member in archive.members.items():
        if key in found.numbers:
            continue
        assert is_hit(member) or member.stop > end, f"{key} is intact"
        assert found.problems
        if is_hit(member) and is_hit(archive.rows[key]):
            continue  # What is left may not say what it was.
        texts = [*found.texts, *(str(problem) for problem in found.problems)]
        # Entries behind the end of a cut file are unknown.
        near = [(p.offset, p.offset + max(p.nbytes, 1)) for p in found.problems]
        first, last = min(member.start, end), min(member.stop, end + 1)
        assert any(stem(key) in text for text in texts) or any(
            start < last and first < stop for start, stop in near
        ), f"{key} is not named"


# ---- directories


def test_a_directory_damaged(tmp_path: Path, figure: Callable[..., float]) -> None:
    """Flips in headers and prefixes only: npy files have no checksum of the rest.

    For the same reason a file is cut or flipped, not both: a shape that a flip made
    that of what is left cannot be told from another that was always so.
    """
    chance = random.Random(9)
    entries = entries_of(chance, [0, 1, 63, 64, 65, 200, 1000])
    fill(tmp_path / "log", entries)
    paths = {key: tmp_path / "log" / f"{stem(key)}.npy" for key in entries}
    for _ in range(int(figure(10_000, 200))):
        hurt: dict[Key, bytes] = {}
        for key in chance.sample(sorted(entries), chance.choice([0, 1, 5])):
            whole = paths[key].read_bytes()
            data = bytearray(whole)
            if chance.random() < 0.5:
                for _ in range(chance.choice([0, 1, 8])):
                    data[chance.randrange(137)] ^= 1 << chance.randrange(8)
            else:
                data = data[: chance.choice([chance.randrange(len(data)), 0])]
            if data != whole:
                hurt[key] = whole
                paths[key].write_bytes(data)
        found = read_all(tmp_path / "log", entries)
        missing = entries.keys() - found.numbers.keys()
        assert missing <= hurt.keys()
        for key in missing:
            assert any(stem(key) in text for text in found.texts)
            assert any(p.path == paths[key] for p in found.problems)
        for key, whole in hurt.items():
            paths[key].write_bytes(whole)
