"""What formats.md says of bytes is what is written; others can read it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from places import ROOT

from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.log.journal.input import RUN
from ataraxis.log.journal.page import PAGE, FileHeader

PAGE_OF_DOCS = (ROOT / "docs" / "explanation" / "formats.md").read_text()
READER = ROOT / "docs" / "reference" / "read_journal.py"


def table(marker: str) -> list[list[str]]:
    _, found, rest = PAGE_OF_DOCS.partition(f"<!-- journal: {marker} -->\n")
    assert found, marker
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    with JournalWriter(tmp_path, "mouse", about={"rig": 3}) as writer:
        writer.describe(3, "pose", Labels("f8", (2,), ("axis",), {"axis": ["x", "y"]}))
        ticks = np.arange(4, dtype="u8")
        writer.log_block(
            3, np.arange(8.0).reshape(4, 2), time_ns=50, step_ns=10, device_time=ticks
        )
        writer.log_block(70_000, np.zeros(2, [("t", ">i4"), ("xy", "f4", (2,))]))
        writer.log(1, "text", device_time=-5, device_sequence=6)
        writer.log(1, b"bytes")
        writer.log(2, np.zeros((1, 2, 1, 2, 1), "i2"))
        writer.gap(1, 2, 5, "why not")
    return tmp_path / "mouse.000000.axj"


def test_the_page_is_as_drawn(journal: Path) -> None:
    page = journal.read_bytes()[:PAGE]
    header = FileHeader.unpack(page)
    fields = {row[2]: (int(row[0]), int(row[1])) for row in table("page")}
    cells = {name: page[at : at + size] for name, (at, size) in fields.items()}
    numbers = {name: int.from_bytes(cell, "little") for name, cell in cells.items()}
    assert cells["magic"] == b"AXJRNAL1"
    assert (numbers["version"], numbers["data"], numbers["run"]) == (
        1,
        PAGE,
        RUN.itemsize,
    )
    assert cells["uuid"] == header.uuid
    assert numbers["number"] == header.number
    text = cells["JSON"][: numbers["text"]].decode()
    assert all(f'"{name}":' in text for name in ("name", "session", "anchor", "about"))
    assert not any(cells["JSON"][numbers["text"] :])
    assert sum(size for _, size in fields.values()) == PAGE - 16


def test_the_run_is_as_drawn() -> None:
    drawn = [(int(row[0]), int(row[1]), row[2]) for row in table("run")]
    fields = [
        (offset, dtype.itemsize, name)
        for name, (dtype, offset) in (RUN.fields or {}).items()
    ]
    assert drawn == sorted(fields)
    struct = (ROOT / "ataraxis" / "_kernels" / "include" / "journal.h").read_text()
    body = struct[: struct.index("} ax_run;")].rpartition("typedef struct {")[2]
    body = re.sub(r"/\*.*?\*/", "", body)
    names = [
        n.strip()
        for line in re.findall(r"_t ([\w, ]+);", body)
        for n in line.split(",")
    ]
    assert names == [name for _, _, name in drawn]


def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_journal", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_hundred_lines_of_numpy_read_it(journal: Path) -> None:
    entries, gaps, records = reader().read(journal)
    assert gaps == []
    told = {record["record"] for record in records}
    assert told == {row[0].strip("`") for row in table("records")} - {"anchor"}
    assert [e.source for e in entries] == [3, 3, 3, 3, 70_000, 70_000, 1, 1, 2]
    pose = np.stack([e.value for e in entries[:4]])
    assert pose.tolist() == np.arange(8.0).reshape(4, 2).tolist()
    assert [e.time_ns for e in entries[:4]] == [50, 60, 70, 80]
    assert [e.device for e in entries[:4]] == [(k, 0) for k in range(4)]
    assert entries[4].value.dtype == np.dtype([("t", ">i4"), ("xy", "f4", (2,))])
    assert (entries[6].value, entries[6].device) == ("text", (-5, 6))
    assert entries[7].value == b"bytes"
    assert entries[8].value.shape == (1, 2, 1, 2, 1)


def test_it_reads_what_damage_has_left(journal: Path) -> None:
    data = bytearray(journal.read_bytes())
    whole = reader().read(journal)[0]
    at = data.index(whole[1].value.tobytes())
    data[at] ^= 1
    journal.write_bytes(data[: data.index(b"bytes") + 2])
    entries, gaps, _ = reader().read(journal)
    assert [e.sequence for e in entries] == [0, 2, 3, 0, 1, 0]
    assert len(gaps) == 2


def test_it_stands_alone(journal: Path) -> None:
    text = READER.read_text()
    assert "ataraxis" not in re.sub(
        r'""".*?"""|#.*|\'ataraxis recover\'', "", text, flags=re.S
    )
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= 105
    done = subprocess.run(
        [sys.executable, "-I", READER, journal], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3 0 50 (0, 0) (2,)"
