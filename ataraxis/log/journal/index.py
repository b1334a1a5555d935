"""The index of a journal's file: runs of frames, believed where it can be, rebuilt."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.log.journal.page import PAGE, RUN_BYTES

RUN = np.dtype(
    [
        ("offset", "<u8"), ("bytes", "<u8"), ("count", "<u4"), ("stride", "<u4"),
        ("time_min", "<i8"), ("time_max", "<i8"), ("sequence", "<u8"),
        ("source", "<u4"), ("kind", "<u2"), ("reserved", "<u2"), ("reserved2", "<u4"),
        ("crc", "<u4"),
    ]
)  # fmt: skip
ENTRY = np.dtype(
    [
        ("offset", "<u8"), ("bytes", "<u8"), ("time_ns", "<i8"), ("sequence", "<u8"),
        ("source", "<u4"), ("labels", "<u4"), ("dtype", "u1"), ("ndim", "u1"),
        ("flags", "<u2"), ("state", "<u4"),
    ]
)  # fmt: skip
SEVERAL = 2**32 - 1
_CHUNK = 4096
Runs = NDArray[Any]
Entries = NDArray[Any]


def believed(index: bytes | memoryview, seed: int, size: int) -> Runs:
    """Take the runs of an index that fit their file: whole, without a hole between.

    Parameters
    ----------
    index : bytes-like
        The index file, its first page included; whatever is in it.
    seed : int
        Of the data file.
    size : int
        Bytes of the data file.

    Returns
    -------
    ndarray of RUN
        A view of `index`, up to the first run that cannot be believed.
    """
    body = memoryview(index)[PAGE:]
    body = body[: len(body) // RUN_BYTES * RUN_BYTES]
    if not len(body):
        return np.empty(0, RUN)
    return np.frombuffer(body, RUN)[: journal_scan.good_runs(body, seed, PAGE, size)]


def scanned(data: Any, start: int, stop: int, seed: int) -> Runs:
    """Make the runs of what lies between two bytes of a file.

    Returns
    -------
    ndarray of RUN
        A copy; gaps are runs of kind DAMAGE.
    """
    found, room = [], np.empty(_CHUNK, RUN)
    while start < stop:
        count, start = journal_scan.list_runs(data, start, stop, seed, room.view("u1"))
        found.append(room[:count].copy())
    return np.concatenate(found) if found else np.empty(0, RUN)


def listed(data: Any, run: Any, seed: int, out: Entries | None = None) -> Entries:
    """List the entries of a run: as many as it has, damaged ones included.

    Parameters
    ----------
    data : bytes-like
        The data file.
    run : one of RUN
        Of that file.
    seed : int
        Of that file.
    out : ndarray of ENTRY, optional
        Filled and returned; of as many as the run has.

    Returns
    -------
    ndarray of ENTRY
        Where a header is damaged its `state` is LOST, and `offset` and `bytes` those of
        the gap; frames of several sizes that are lost together have one gap together.
    """
    start, stride, count = int(run["offset"]), int(run["stride"]), int(run["count"])
    stop = min(start + int(run["bytes"]), len(data))
    table = np.empty(count, ENTRY) if out is None else out
    n, at = journal_scan.list_entries(
        data, start, stop, seed, stride, table.view("u1"), False
    )
    if n == count and at >= stop:
        return table
    # Damage has made more of them, or fewer: all that is found, then brought to fit.
    found = [table[:n].copy()]
    while at < stop:
        room = np.empty(_CHUNK, ENTRY)
        n, at = journal_scan.list_entries(
            data, at, stop, seed, stride, room.view("u1"), False
        )
        found.append(room[:n])
    table[:] = _fitted(np.concatenate(found), run)
    return table


def part_of(run: Any, first: int, last: int) -> Any:
    """Take a part of a run whose frames are of one size."""
    part = run.copy()
    part["offset"] += first * int(run["stride"])
    part["count"] = last - first
    part["bytes"] = (last - first) * int(run["stride"])
    return part


def _fitted(table: Entries, run: Any) -> Entries:
    """Give a damaged run as many entries as it had."""
    count = int(run["count"])
    lost = np.flatnonzero(table["state"] != journal_scan.GOOD)
    if len(table) > count:
        # Padding after the last frame that is whole looks like one more gap.
        spare = lost[len(lost) - (len(table) - count) :]
        return np.delete(table, spare)[:count]
    if not len(lost):
        gap = np.zeros(1, ENTRY)
        gap["offset"], gap["state"] = run["offset"] + run["bytes"], journal_scan.LOST
        return np.concatenate([table, np.repeat(gap, count - len(table))])
    # The widest gap had most frames in it.
    widest = lost[np.argmax(table["bytes"][lost])]
    repeats = np.ones(len(table), int)
    repeats[widest] += count - len(table)
    return np.repeat(table, repeats)
