"""A pulse train counted against the frames of a camera that has no counter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ataraxis.clock import Anchor
from ataraxis.labels import Labels
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.session import Rig
from ataraxis.session.rig import RigPulses, RigSource
from ataraxis.session.verdict import judge

RATE, PERIOD = 10_000, 100  # Hz, and samples a pulse


def record(
    path: Path,
    frames: int,
    pulses: int,
    line: str | int,
    *,
    is_block: bool,
    open_: bool,
) -> None:
    """Write a line of pulses, and frames that come 3 ms after theirs."""
    n = PERIOD * (pulses + 1)
    daq = np.zeros((n, 3), "i2")
    for k in range(pulses):
        daq[PERIOD * k + 20 : PERIOD * k + 60, 1] = 3000
    shape = (50, 3) if is_block else (3,)
    dims = ("time", "channel") if is_block else ("channel",)
    coords = {"channel": ["a", "trigger", "b"]}
    attrs = {"sample_rate_hz": RATE}
    labels = Labels("i2", shape, dims, coords, attrs)
    with JournalWriter(path, "daq") as journal:
        journal.describe(0, "daq", labels, stream="d")
        rows = daq.reshape(-1, *shape)
        each = 50 if is_block else 1
        journal.log_block(0, rows, time_ns=0, step_ns=10**9 * each // RATE)
    with JournalWriter(path, "cam") as journal:
        journal.describe(1, "cam", stream="c")
        times = np.arange(frames) * (10**9 * PERIOD // RATE) + 5 * 10**6
        if not open_:
            times[-1] = 10**9 * n // RATE
        journal.log_block(1, np.zeros((frames, 2, 2), "u1"), time_ns=times)
    source = RigSource("sim", "camera", pulses=RigPulses("daq", line))
    Rig({"cam": source}).to_yaml(path / "rig.yaml")


@pytest.mark.parametrize("is_block", [True, False])
@pytest.mark.parametrize("line", ["trigger", 1])
@pytest.mark.parametrize(
    ("frames", "pulses", "open_", "lost", "is_trusted"),
    [
        (40, 40, False, 0, True),
        (40, 43, False, 3, False),
        (40, 41, True, 0, True),  # stopped in mid-exposure
        (40, 44, True, 3, False),
        (42, 40, False, None, False),
    ],
)
def test_pulses_are_counted_against_frames(
    tmp_path: Path, frames: int, pulses: int, open_: bool, lost: int | None,
    is_trusted: bool, line: str | int, is_block: bool,
) -> None:  # fmt: skip
    record(tmp_path, frames, pulses, line, is_block=is_block, open_=open_)
    found = judge(tmp_path, Anchor.take())["cam"]
    assert (found.device_lost, found.is_trusted) == (lost, is_trusted), found
    assert any("mid-exposure" in note for note in found.notes) == open_
    if lost is None:
        assert "2 have no pulse" in found.notes[0]


def test_a_line_that_is_not_there_is_named(tmp_path: Path) -> None:
    record(tmp_path, 10, 10, "tigger", is_block=True, open_=False)
    found = judge(tmp_path, Anchor.take())["cam"]
    assert not found.is_trusted
    assert "no line 'tigger'" in found.notes[0]
    assert "trigger" in found.notes[0]
