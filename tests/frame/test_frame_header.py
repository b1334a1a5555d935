"""The kernels' header of a frame (frame.h) is that of `ataraxis.frame`."""

from __future__ import annotations

import re

from places import ROOT

from ataraxis.frame import HEADER_BYTES, MAGIC, DType, Flag, Frame

TEXT = (ROOT / "ataraxis" / "_kernels" / "include" / "frame.h").read_text()
NUMBERS = {
    name: int(value) for name, value in re.findall(r"\b(AX_\w+)(?: =)? (\d+)\b", TEXT)
}


def test_magic_and_size():
    assert f'#define AX_FRAME_MAGIC "{MAGIC.decode()}"' in TEXT
    assert f"sizeof(ax_frame) == {HEADER_BYTES}" in TEXT
    assert NUMBERS["AX_FRAME_PAD"] == HEADER_BYTES


def test_flags():
    ours = {flag.name: flag.value for flag in Flag}
    theirs = {
        name.removeprefix("AX_FLAG_"): value
        for name, value in NUMBERS.items()
        if name.startswith("AX_FLAG_")
    }
    assert theirs == ours


def test_codes():
    for name, value in NUMBERS.items():
        if name.startswith("AX_DTYPE_"):
            assert DType[name.removeprefix("AX_DTYPE_")] == value


def test_fields_lie_where_python_writes_them():
    """Each field of the struct, after the other as C lays them out."""
    body = re.search(r"typedef struct \{([^}]*)\} ax_frame;", TEXT)
    assert body
    sizes = {"char": 1, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4}
    at, offsets = 0, {}
    for kind, field, count in re.findall(r"(\w+) (\w+)(?:\[(\d)\])?;", body[1]):
        size = sizes.get(kind, 8)
        assert at % size == 0, f"{field}: padding before it"
        offsets[field] = at
        at += size * int(count or 1)
    assert at == HEADER_BYTES
    values = {"sequence": 7, "time_ns": 11, "source": 13, "length": 8, "ndim": 0}
    frame = Frame.from_value(1.5, source=13, sequence=7, time_ns=11).to_bytes()
    for field, value in values.items():
        assert frame[offsets[field]] == value, field
    assert frame[offsets["dtype"]] == DType.F64


EXTENSIONS = ("AX_EXTENTS_BYTES", "AX_STAMP_BYTES", "AX_ORIGIN_BYTES")


def test_extensions():
    assert [NUMBERS[name] for name in EXTENSIONS] == [64, 16, 24]
