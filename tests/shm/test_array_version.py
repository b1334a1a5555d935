"""The version counts writes and nothing else: waits depend on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ataraxis import SharedMemoryArray

READS: dict[str, Callable[[SharedMemoryArray], Any]] = {
    "element": lambda a: a[0, 0],
    "row": lambda a: a[1],
    "column": lambda a: a[:, 1],
    "index array": lambda a: a[[0, 2]],
    "mask": lambda a: a[np.ones(a.shape, bool)],
    "whole": lambda a: a[...],
    "snapshot": lambda a: a.snapshot(),
    "sel": lambda a: a.sel(axis="x"),
    "read_data": lambda a: a.read_data((1, 3)),
    "iteration": list,
    "exchange refused": lambda a: a.compare_exchange((0, 0), 5, 6),
}
WRITES: dict[str, Callable[[SharedMemoryArray], Any]] = {
    "element": lambda a: a.__setitem__((0, 0), 1),
    "row": lambda a: a.__setitem__(1, 1),
    "whole": lambda a: a.__setitem__(..., np.ones(a.shape)),
    "add": lambda a: a.add((0, 0), 1),
    "add left to numpy": lambda a: a.add(0, 1.0),
    "update": lambda a: a.update(lambda old: old + 1),
    "exchange": lambda a: a.compare_exchange((0, 0), 0, 1),
    "unlocked": lambda a: a.write_data(0, 1, with_lock=False),
}


@pytest.fixture
def pose(tmp_path: Path):
    tmp_path.chmod(0o700)
    with SharedMemoryArray.create_array(
        "pose",
        np.zeros((4, 3)),
        dims=("mouse", "axis"),
        coords={"axis": [*"xyz"]},
        context=tmp_path,
    ) as array:
        yield array


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_is_no_change(pose, read):
    pose[0, 0] = 3.0
    seen = pose.version
    read(pose)
    assert pose.version == seen
    with pytest.raises(TimeoutError, match=f"version still {seen}"):
        pose.wait_for_change(timeout=0, since=seen)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_one_change(pose, write):
    write(pose)
    assert pose.version == 1
    assert pose.wait_for_change(timeout=0, since=0) == 1


def test_an_update_that_raises_is_no_change(pose):
    with pytest.raises(ZeroDivisionError):
        pose.update(lambda old: 1 / 0)
    assert pose.version == 0
    assert not pose.lock.is_held


def test_what_a_function_writes_itself_is_kept(pose):
    def busy(old):
        pose[3, 0] = 5.0
        with pose.array() as view:
            view[3, 1] = 6.0
        return old + 1

    pose.update(busy, index=0)
    assert pose[3].tolist() == [5.0, 6.0, 0.0]
    assert pose[0].tolist() == [1.0, 1.0, 1.0]
    assert not pose.lock.is_held
    assert not pose.statistics().is_torn


def test_a_refused_index_names_the_array_and_the_way_to_labels(pose):
    with pytest.raises(IndexError, match=r"array 'pose'\['x'\].*sel\(axis=.x.\)"):
        pose["x"]
    with pytest.raises(IndexError, match=r"array 'pose'\[9\].*size 4"):
        pose[9] = 1.0


def test_a_lock_is_no_change_until_something_is_written_under_it(pose):
    with pose.lock:
        pose[0, 0]
        pose[1]
    assert pose.version == 0
    with pose.lock:
        pose[0, 0] = 1.0
        pose[1] = 1.0
        assert pose.version == 0
    assert pose.version == 1


def test_readers_see_all_writes_under_one_lock_or_none(pose):
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.append(pose[...]))
    with pose.lock:
        pose[0, 0] = 1.0
        reader.start()
        reader.join(0.1)
        assert reader.is_alive()
        pose[3, 2] = 1.0
    reader.join(10)
    assert seen[0].sum() == 2.0
