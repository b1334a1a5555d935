"""Bundles: golden ones are what is made, and Python and JavaScript read the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from ataraxis.viewer import bundle

GOLDEN = ROOT / "tests" / "golden" / "view"
STATIC = ROOT / "ataraxis" / "viewer" / "static"


def example(dtype: str) -> bytes:
    """A bundle of every kind of part."""
    low = np.arange(-6, 6).reshape(4, 3) if dtype[0] != "u" else np.arange(12)
    low = low.reshape(4, 3).astype(dtype)
    pixels = bytes(range(6))
    parts = [
        bundle.state({"verdict": {"tone": "good", "text": "läuft ✓"}}),
        bundle.columns(7, 2**40, low, low + 1, 123_456_789_012, 2e6, is_fresh=True),
        bundle.columns(8, 5, low[:0], low[:0], 0, 1.5, are_lost=False),
        bundle.picture(
            2, 99, 10**18, (2, 3, 1), bundle.RAW, pixels, (0.5, 255.0), (20, 30)
        ),
        bundle.bins(3, 3.0, 0.1, np.arange(5, dtype=np.uint32)),
    ]
    return bundle.encode(parts, 10**17 + 3, 12)


def as_json(decoded: dict) -> dict:
    return {
        key: value.ravel().tolist() if isinstance(value, np.ndarray)
        else list(value) if isinstance(value, bytes)
        else value
        for key, value in decoded.items()
    }  # fmt: skip


@pytest.mark.parametrize("dtype", bundle.DTYPES[1:])
def test_a_golden_bundle_is_still_what_is_made(dtype: str) -> None:
    assert (GOLDEN / f"{dtype}.bin").read_bytes() == example(dtype)


@pytest.mark.parametrize("dtype", bundle.DTYPES[1:])
def test_python_reads_a_golden_bundle(dtype: str) -> None:
    head, parts = bundle.decode((GOLDEN / f"{dtype}.bin").read_bytes())
    assert head == {"now_ns": 10**17 + 3, "tick": 12}
    state, columns, empty, picture, bins = parts
    assert state["state"]["verdict"]["text"] == "läuft ✓"
    assert (columns["panel"], columns["flags"]) == (7, bundle.LOST | bundle.FRESH)
    assert columns["first"] == 2**40
    assert np.array_equal(columns["high"], columns["low"] + 1)
    assert columns["low"].dtype == np.dtype(dtype)
    assert empty["low"].shape == (0, 3)
    assert (picture["width"], picture["height"], picture["low"]) == (3, 2, 0.5)
    assert picture["data"] == bytes(range(6))
    assert bins["counts"].tolist() == [0, 1, 2, 3, 4]


def test_payloads_begin_on_8_bytes() -> None:
    data = example("i2")
    assert len(data) % 8 == 0
    at = bundle.HEAD.size
    for _ in range(5):
        assert at % 8 == 0
        size = bundle.PART.unpack_from(data, at)[3]
        at += bundle.PART.size + size + -size % 8
    assert at == len(data)


@pytest.mark.parametrize(
    "damage",
    [b"", b"AXV1", b"AXV2" + bytes(20), b"AXV1\x02\0" + bytes(18), "cut"],
    ids=["empty", "short", "magic", "version", "cut"],
)
def test_what_is_not_a_bundle_is_refused(damage: bytes | str) -> None:
    data = example("i2")[:-40] if isinstance(damage, str) else damage
    with pytest.raises(ValueError, match=r"not a bundle|are not|cut off"):
        bundle.decode(data)


NODE = """
import {decode} from "STATIC/bundle.js";
import {readFileSync} from "node:fs";
const plain = (key, value) => typeof value === "bigint" ? Number(value)
  : ArrayBuffer.isView(value) ? [...value] : value;
for (const path of process.argv.slice(1)) {
  const file = readFileSync(path);
  const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
  console.log(JSON.stringify(decode(buffer), plain));
}
"""


def test_javascript_reads_the_same(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's test reads bundles in Chromium")
    paths = [str(GOLDEN / f"{dtype}.bin") for dtype in bundle.DTYPES[1:]]
    code = NODE.replace("STATIC", STATIC.as_uri())
    done = subprocess.run(
        [node, "--input-type=module", "-e", code, "--", *paths],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        head, parts = bundle.decode(Path(path).read_bytes())
        found = json.loads(line)
        assert (found["nowNs"], found["tick"]) == (float(head["now_ns"]), 12)
        names = {
            "time_ns": "timeNs", "ns_a_column": "nsAColumn",
            "whole_width": "wholeWidth", "whole_height": "wholeHeight",
        }  # fmt: skip
        for mine, theirs in zip(parts, found["parts"], strict=True):
            for key, value in as_json(mine).items():
                if key != "_":
                    assert theirs[names.get(key, key)] == value, (path, key)
