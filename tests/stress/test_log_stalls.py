"""A disk that stalls for long: nothing hangs, nothing is lost."""

from __future__ import annotations

import warnings

import pytest
from disks import Disk, through_a_stall


@pytest.mark.parametrize("layout", ["npy", "journal"])
@pytest.mark.parametrize("seconds", [5, 30])
def test_a_long_stall(arena, tmp_path, monkeypatch, figure, seconds, layout) -> None:
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    with warnings.catch_warnings(action="ignore"):
        disk = Disk(tmp_path, monkeypatch)
        through_a_stall(disk, tmp_path, layout, figure(seconds, 1))
