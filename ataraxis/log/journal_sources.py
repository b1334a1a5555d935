"""Where the entries of a source are in a journal, and what wall time they have."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.log.journal_index import SEVERAL, listed
from ataraxis.log.journal_input import InputFile

NOT_A_TIME = np.iinfo(np.int64).min


def extents(file: InputFile, source: int) -> NDArray[np.int64]:
    """Return the entries of a source in a file as ranges of their numbers, (k, 2).

    A run of one source is not looked into; one of several is, at its headers.
    """
    runs, starts = file.data_runs, file.starts
    is_own = runs["source"] == source
    at = np.flatnonzero(is_own)
    found = [np.stack([starts[at], starts[at + 1]], 1)]
    for k in np.flatnonzero(runs["source"] == SEVERAL).tolist():
        table = listed(file.data, runs[k], file.seed)
        good = (table["source"] == source) & (table["state"] == journal_scan.GOOD)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]])))
        found.append(edges.reshape(-1, 2) + starts[k])
    ranges = np.concatenate(found)
    return joined(ranges[np.argsort(ranges[:, 0], kind="stable")])


def joined(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join ranges that follow each other without a hole."""
    if len(ranges) < 2:
        return ranges
    is_first = np.concatenate([[True], ranges[1:, 0] != ranges[:-1, 1]])
    is_last = np.concatenate([is_first[1:], [True]])
    return np.stack([ranges[is_first, 0], ranges[is_last, 1]], 1)


def shifts(files: Iterable[InputFile]) -> list[int | None]:
    """Say of each file what added to its times makes wall times: by one anchor.

    All files of a session have that of its first one, so that times within a session
    differ as their stamps do. A file whose first page is lost has that of its first
    minute, or of the file before.
    """
    sessions: dict[str, int] = {}
    found: list[int | None] = []
    for file in files:
        header = file.header
        anchors = ([header.anchor] if header else []) + file.notes.anchors
        shift = found[-1] if found else None
        if anchors:
            shift = anchors[0].wall_ns - anchors[0].monotonic_ns
        if header is not None and shift is not None:
            shift = sessions.setdefault(header.session, shift)
        found.append(shift)
    known = [shift for shift in found if shift is not None]
    first = known[0] if known else None
    return [first if shift is None else shift for shift in found]
