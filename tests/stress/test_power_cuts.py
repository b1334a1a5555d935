"""Power cuts: everything reported as on the disk is there, the rest is named.

All writes and syncs of a recording are noted, and 1,000 points of it replayed at full
figures: what was not synced is there or not, in any order, whole or torn.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from places import TESTS

from ataraxis.log.journal.input import InputFile
from ataraxis.log.recovery import recover
from ataraxis.log.verification import verify

STRESS = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
SHIM = TESTS / "shims" / "record.c"
SECTOR = 512
_HEAD = struct.Struct("<4Q")
PROGRAM = """
import os, sys
import numpy as np
from ataraxis import Producer, Recorder
from ataraxis.log import JournalWriter

path, kind, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = np.random.default_rng(seed)
mark = os.open(path + "/mark", os.O_WRONLY | os.O_CREAT, 0o600)

def reported(n):
    os.pwrite(mark, int(n).to_bytes(8, "little"), 0)

if kind == "journal":
    with JournalWriter(path, "cam", durability="disk", sync_s=60, file_bytes=16384,
                       buffer_bytes=4096) as journal:
        k = 0
        for _ in range(60):
            for _ in range(int(chance.integers(1, 20))):
                journal.log(0, np.full(int(chance.integers(1, 60)), k, "i8"))
                k += 1
            if chance.random() < 0.6:
                reported(journal.sync())
    reported(k)
else:
    with Producer("cam", shape=(4,), dtype="i8", buffer_count=16) as producer:
        with Recorder("cam", path, durability="disk", file_bytes=16384) as recorder:
            for k in range(400):
                producer.send(np.full(4, k, "i8"))
                # Unreleased frames may be lost, released ones must not be.
                (reader,) = producer.statistics().readers
                reported(k + 1 - reader.lag)
"""


class Op(NamedTuple):
    kind: str
    path: Path
    at: int
    data: bytes


def noted(log: Path) -> list[Op]:
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        kind, size, offset, n = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path = Path(data[at : at + size].decode())
        at += size
        found.append(Op(chr(kind), path, offset, data[at : at + n]))
        at += n
    return found


@pytest.mark.parametrize("kind", ["journal", "stream"])
def test_what_was_reported_durable_survives_the_loss_of_power(
    tmp_path: Path, kind: str
) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("noting writes needs gcc")
    shim, log, folder = tmp_path / "record.so", tmp_path / "ops", tmp_path / "log"
    folder.mkdir()
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(SHIM), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    env = {
        **os.environ, "LD_PRELOAD": str(shim), "RECORD_LOG": str(log),
        "RECORD_PATH": str(folder),
    }  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, str(folder), kind, "1"]
    subprocess.run(command, check=True, timeout=120, env=env)
    ops = noted(log)
    assert sum(op.kind == "S" for op in ops) > 20
    chance = np.random.default_rng(7)
    cuts = max(20, round(500 * STRESS))
    for number in range(cuts):
        point = int(chance.integers(1, len(ops) + 1))
        _cut(ops[:point], tmp_path / f"cut{number}", chance)
        shutil.rmtree(tmp_path / f"cut{number}")


def _cut(ops: list[Op], place: Path, chance: np.random.Generator) -> None:
    """Make a state that the disk may have after these, and check it."""
    place.mkdir()
    reported = 0
    last_sync: dict[Path, int] = {}
    named = -1
    for k, op in enumerate(ops):
        if op.path.name == "mark":
            reported = int.from_bytes(op.data, "little")
        elif op.kind == "S":
            last_sync[op.path] = k
        elif op.kind == "D":
            named = k
    first: dict[Path, int] = {}
    for k, op in enumerate(ops):
        if op.kind == "W" and op.path.name != "mark":
            first.setdefault(op.path, k)
    content: dict[Path, bytearray] = {}
    loose: list[Op] = []
    for path, begun in first.items():
        # An unsynced name may be missing, with all of its file.
        if begun < named or chance.random() < 0.7:
            content[path] = bytearray()
    for k, op in enumerate(ops):
        if op.kind == "W" and op.path in content:
            if k < last_sync.get(op.path, -1):
                _put(content[op.path], op.at, op.data)
            else:
                loose.append(op)
    for index in chance.permutation(len(loose)):
        op = loose[int(index)]
        fate = chance.random()
        if fate < 0.4:
            continue
        data = op.data
        if fate < 0.7:  # torn, at a sector
            start = int(chance.integers(0, len(data) // SECTOR + 1)) * SECTOR
            stop = start + int(chance.integers(0, len(data) // SECTOR + 2)) * SECTOR
            _put(content[op.path], op.at + start, data[start:stop])
        else:
            _put(content[op.path], op.at, data)
    for path, data in content.items():
        (place / path.name).write_bytes(data)
    if not any(path.suffix == ".axj" for path in content):
        assert reported == 0
        return
    recover(place)
    there = set()
    for path in sorted(place.glob("*.axj")):
        try:
            file = InputFile(path)
        except Exception:
            continue  # never synced: named below
        for number in range(len(file)):
            try:
                frame = file.frame(file.entries(number, number + 1)[0])
            except Exception:
                continue
            assert set(frame.array.tolist()) == {frame.sequence}
            there.add(frame.sequence)
        file.close()
    assert set(range(reported)) <= there, (reported, len(there))
    report = verify(place)
    found = sum(source.received for source in report.sources)
    assert found == len(there)
    # A hole is reported as missing, or as a problem of a file.
    if there and len(there) <= max(there):
        assert not report.is_complete


def _put(data: bytearray, at: int, piece: bytes) -> None:
    if not piece:
        return
    if len(data) < at:
        data.extend(bytes(at - len(data)))
    data[at : at + len(piece)] = piece
