"""Bytes, words, names and paths on the pages agree with the code."""

from __future__ import annotations

import dataclasses
import itertools
import pkgutil
import re
from pathlib import Path

import pytest
from places import ROOT
from variants import crash_points, queue_points

from ataraxis.labels import Labels
from ataraxis.shm import header
from ataraxis.shm.header import Geometry, Kind, SegmentHeader

DOCS = ROOT / "docs"
KERNELS = ROOT / "ataraxis" / "_kernels"
MEMORY = (DOCS / "explanation" / "memory.md").read_text()
LAYOUT = (KERNELS / "include" / "layout.h").read_text()
PLATFORM = (KERNELS / "include" / "platform.h").read_text()
SIZES = {
    "ax_u32": 4,
    "ax_u64": 8,
    "uint32_t": 4,
    "int32_t": 4,
    "uint64_t": 8,
    "int64_t": 8,
    "char": 1,
}
STRUCTS = ["ax_live", "ax_participant", "ax_guard", "ax_message"]
Field = tuple[int, int, str]


def table(marker: str) -> list[list[str]]:
    """Return the rows of the table after an HTML comment, without its head."""
    _, found, rest = MEMORY.partition(f"<!-- {marker}")
    assert found, marker
    lines = rest[rest.index("\n") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def fields_of_table(marker: str) -> list[Field]:
    return [(int(r[0], 16), int(r[1]), r[2]) for r in table(f"layout: {marker}")]


def fields_of_drawing(name: str) -> list[Field]:
    """Return the cells 'field (size)' of a drawing, counted from the row's offset."""
    fields = []
    for line in drawing(name):
        at, _, cells = line.partition("|")
        offset = int(at, 16)
        for field, size in re.findall(r"(\w+) \((\d+)\)", cells):
            fields.append((offset, int(size), field))
            offset += int(size)
    return fields


def drawing(name: str) -> list[str]:
    _, found, rest = MEMORY.partition(f"<!-- drawing: {name} -->\n```text\n")
    assert found, name
    return rest.partition("\n```")[0].splitlines()


def fields_of_struct(name: str) -> list[Field]:
    """Return the layout of a struct of layout.h, as a C compiler computes it."""
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {name};", LAYOUT)
    assert body, name
    text = re.sub(r"/\*.*?\*/|_Alignas\(\d+\)", "", body[1], flags=re.DOTALL)
    fields, offset = [], 0
    for declared in text.split(";"):
        if not declared.strip():
            continue
        kind, field, count = re.fullmatch(
            r"(\w+) (\w+)(?:\[(\w+)\])?", declared.strip()
        ).groups()
        size = SIZES[kind]
        offset = -(-offset // size) * size
        length = size * (constant(count) if count else 1)
        fields.append((offset, length, field))
        offset += length
    return fields


def constant(name: str) -> int:
    value = re.search(rf"#define {name} (\w+)", LAYOUT + PLATFORM)[1]
    return int(value.rstrip("u"), 0)


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_table_drawing_and_asserts_agree(name):
    fields = fields_of_struct(name)
    assert fields_of_table(name) == fields
    assert fields_of_drawing(name) == fields
    offsets = {field: offset for offset, _, field in fields}
    asserted = re.findall(rf"offsetof\({name}, (\w+)\) == (\d+)", LAYOUT)
    assert asserted
    assert all(offsets[field] == int(offset) for field, offset in asserted)


def test_places_of_the_structs():
    assert "ax_live at 0x800 " in MEMORY
    assert constant("AX_LIVE_OFFSET") == header.LIVE == 0x800
    assert "ax_participant at 0x1000 " in MEMORY
    assert constant("AX_PAGE") == header.PAGE == 0x1000
    assert sum(size for _, size, _ in fields_of_struct("ax_participant")) == 64
    assert header.PARTICIPANT_BYTES == 64
    assert "sizeof(ax_guard) == 128" in LAYOUT


def test_header_table_and_drawing_are_what_is_packed():
    fields = fields_of_table("header")
    assert fields_of_drawing("header") == fields
    geometry = Geometry(3, 256, 77, 1000)
    made = SegmentHeader.new(Kind.QUEUE, geometry, b"{}")
    made = dataclasses.replace(made, created_ns=2**61 + 5, uid=1234)
    page = made.pack()
    offsets = dict(
        zip(
            ("participants_at", "control_at", "labels_at", "payload_at"),
            geometry.offsets,
            strict=True,
        )
    )
    expected: dict[str, int | bytes] = {
        "magic": header.MAGIC,
        "endian": 0x01020304,
        "major": header.MAJOR,
        "minor": header.MINOR,
        "kind": Kind.QUEUE,
        "layout_id": header.layout_id(Kind.QUEUE),
        "total": geometry.total,
        "incompatible": 0,
        "compatible": 0,
        "uuid": made.uuid,
        "created_ns": made.created_ns,
        "uid": made.uid,
        "page": header.PAGE,
        "boot_id": made.boot_id,
        "participants": geometry.participants,
        "control_bytes": geometry.control_bytes,
        "labels_bytes": geometry.labels_bytes,
        "payload_bytes": geometry.payload_bytes,
        **offsets,
        "labels_crc": made.labels_crc,
        "crc": header.zlib.crc32(page[:0x3FC]),
    }
    assert [name for _, _, name in fields] == list(expected)
    for offset, size, name in fields:
        value = expected[name]
        if not isinstance(value, bytes):
            value = int(value).to_bytes(size, "little")
        assert page[offset : offset + size] == value, name
    covered = {b for at, size, _ in fields for b in range(at, at + size)}
    assert not any(byte for at, byte in enumerate(page) if at not in covered)


def test_file_drawing_is_the_readmes_array():
    labels = Labels("f8", (4, 3), ("mouse", "axis"), {"axis": list("xyz")})
    g = Geometry(128, 128, len(labels.to_json()), labels.nbytes)
    starts = [0, header.LIVE, header.PAGE, g.control, g.labels, g.payload, g.total]
    lines = drawing("file")
    assert [int(line.split("|")[0], 16) for line in lines] == starts
    sizes = [int(s, 16) for s in re.findall(r"\((0x\w+) bytes\)", "\n".join(lines))]
    assert sizes == [b - a for a, b in itertools.pairwise(starts)]


def test_bits_of_the_lock():
    rows = table("bits: lock")
    assert len(rows) == 3
    for bits, name, _ in rows:
        assert constant(name) == int(bits, 16)


def test_bytes_that_are_locked():
    rows = table("bytes: locks")
    assert [row[:2] for row in rows] == [
        ["2^62 + slot", "AX_BYTES"],
        ["2^62 + 2^20", "AX_RECLAIM_BYTE"],
    ]
    assert "#define AX_BYTES ((off_t)1 << 62)" in PLATFORM
    assert "#define AX_RECLAIM_BYTE (1 << 20)" in PLATFORM


@pytest.mark.parametrize(
    ("table", "named"),
    [("kill table", crash_points), ("kill table of a work queue", queue_points)],
)
def test_every_crash_point_is_in_the_kill_table(table, named):
    page = (DOCS / "explanation" / "concurrency.md").read_text()
    _, found, rest = page.partition(f"<!-- {table} -->\n")
    assert found
    rows = rest.split("\n\n")[0].splitlines()[2:]
    points = [n for row in rows for n in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(points) == sorted(named())


def test_times_and_counts_are_the_codes():
    page = (DOCS / "explanation" / "concurrency.md").read_text()
    sources = "".join(p.read_text() for p in KERNELS.glob("*.pyx"))
    found = re.findall(r"(\d+) (ms|attempts) \(`(\w+)`\)", page)
    assert {name for _, _, name in found} == {
        "PROBE_NS", "SLICE_NS", "IDLE_NS", "LOOKS",
    }  # fmt: skip
    for number, unit, name in found:
        value = int(re.search(rf"^    {name} = (\d+)", sources, re.MULTILINE)[1])
        assert value == int(number) * (1_000_000 if unit == "ms" else 1), name
    assert "SPINS = " in sources


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
# A path of the checkout, in text, in a block or in a comment.
PATH = re.compile(
    r"(?<![\w./-])(?:ataraxis|tests|notebooks|benchmarks|docs|\.ci)/[\w./-]+"
)
MADE = {"docs/_build", "ataraxis/_kernels/NAME.pyx"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_files_that_exist(page: Path):
    text = page.read_text()
    named = {name.rstrip(".") for name in PATH.findall(text)} - MADE
    if page.parent.name == "decisions":  # written once; tests have moved since
        named = {name for name in named if not name.startswith("tests/")}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", text):
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST spell them."""
    heads = re.findall(r"^#{1,6} (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=str)
def test_reference_pages_name_objects_that_exist(page: Path):
    """As Sphinx would look them up."""
    module = "ataraxis"
    for kind, name in re.findall(
        r"^\.\. (\w+):: (\S+)$", page.read_text(), re.MULTILINE
    ):
        if kind == "currentmodule":
            module = name
        elif kind.startswith("auto"):
            full = name if name.startswith("ataraxis.") else f"{module}.{name}"
            assert pkgutil.resolve_name(full), full


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("000[12456]*.md")))
def test_decisions_are_short_and_whole(page: Path):
    lines = page.read_text().splitlines()
    assert len(lines) <= 40
    heads = [line for line in lines if line.startswith("## ")]
    assert heads == ["## Context", "## Decision", "## Consequences"]
