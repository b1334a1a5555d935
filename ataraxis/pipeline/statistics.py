"""What a run's words say, as xarray: rates, latencies, depths, restarts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.pipeline import board as words_of
from ataraxis.pipeline.board import HEAD, PROCESSOR, STATES, WORKER, StatusBoard
from ataraxis.shm.context import Context, ContextLike

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_COUNTS = {
    "received": (words_of.RECEIVED, "values it has taken"),
    "emitted": (words_of.EMITTED, "frames it has emitted"),
    "errors": (words_of.ERRORS, "exceptions of its function"),
    "repeated": (words_of.REPEATED, "values that came again and were dropped"),
    "dropped": (words_of.DROPPED, "frames that on_full= has dropped"),
    "corrupt": (words_of.CORRUPT, "frames whose bytes had changed"),
    "restarts": (words_of.RESTARTS, "times its process was started anew"),
    "dead_letters": (words_of.LETTERS, "values in the dead letters"),
    "pid": (words_of.PID, "its process"),
}


def workers_of(about: dict[str, Any]) -> list[str]:
    """Name each worker, in the order of the rows; the last is the pipe's end."""
    names = [
        f"{p['name']}.{k}" if p["workers"] > 1 else p["name"]
        for p in about["processors"]
        for k in range(p["workers"])
    ]
    return [*names, "(end)"]


def rows_of(about: dict[str, Any], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """View the words of the workers, shape (workers + 1, words of one)."""
    start = HEAD + PROCESSOR * (len(about["processors"]) + 1)
    count = len(workers_of(about))
    rows = words[start : start + count * WORKER]
    return rows.reshape(count, WORKER)


def dataset(about: dict[str, Any], words: NDArray[np.int64]) -> xr.Dataset:
    """Return the statistics of a run.

    Parameters
    ----------
    about : dict
        As on the board.
    words : ndarray of int64
        Of the board, or a copy.

    Returns
    -------
    xarray.Dataset
        Of each ``worker``: counts, ``busy`` (the share of the time that its function
        ran), ``rate`` (values a second since the start) and ``latency``, a histogram
        over ``age``: how old values were, since they entered the pipe, when it took
        them, bins by powers of two, s. Of each ``edge``: frames ``sent``. Of each
        ``processor``: its ``state``.
    """
    import xarray as xr

    rows = rows_of(about, words)
    names = workers_of(about)
    said: dict[str, Any] = {
        key: ("worker", rows[:, at].copy(), {"long_name": text})
        for key, (at, text) in _COUNTS.items()
    }
    seconds = max(now_ns() - int(words[words_of.STARTED]), 1) * 1e-9
    said["rate"] = ("worker", rows[:, words_of.RECEIVED] / seconds, {"units": "1/s"})
    said["busy"] = ("worker", rows[:, words_of.BUSY_NS] * 1e-9 / seconds)
    bins = rows[:, words_of.BINS : words_of.BINS + words_of.N_BINS]
    said["latency"] = (("worker", "age"), bins.copy(), {"long_name": "values"})
    edges, sent = _edges(about, rows)
    said["sent"] = ("edge", sent)
    states = [
        STATES[int(words[HEAD + PROCESSOR * k])]
        for k in range(len(about["processors"]))
    ]
    said["state"] = ("processor", states)
    coords = {
        "worker": names,
        "age": ("age", 2.0 ** np.arange(words_of.N_BINS) * 1e-9, {"units": "s"}),
        "edge": edges,
        "processor": [p["name"] for p in about["processors"]],
    }
    attrs = {"pipe": about["pipe"], "seconds": seconds}
    return xr.Dataset(said, coords, attrs)


def _edges(
    about: dict[str, Any], rows: NDArray[np.int64]
) -> tuple[list[str], list[int]]:
    names, sent, row = [], [], 0
    for p in about["processors"]:
        mine = rows[row : row + p["workers"]]
        for k, child in enumerate(p["children"] or ["(end)"]):
            names.append(f"{p['name']} -> {child}")
            sent.append(int(mine[:, words_of.EDGES + min(k, 15)].sum()))
        row += p["workers"]
    return names, sent


# ---- what runs in a context: every pipe, its workers, their counts


@dataclass(frozen=True)
class RunStatistics:
    """A worker of a pipe that runs."""

    run: str
    """The run: the pipe's name, and a part of its own."""
    worker: str
    """The processor, and which of its workers."""
    pid: int
    """Its process; 0: none now."""
    received: int
    """Values it has taken."""
    emitted: int
    """Frames it has emitted."""
    restarts: int
    """Times its process was started anew."""
    dropped: int
    """Frames that on_full= has dropped."""
    dead_letters: int
    """Values in the dead letters."""
    last_ns: int
    """When it was done with a value last, monotonic ns; 0: never."""


def list_runs(context: ContextLike = None) -> list[RunStatistics]:
    """Read the boards of a context; the pipes do not notice.

    Examples
    --------
    >>> list_runs()
    []
    """
    where = Context.of(context)
    names = set(where.names())
    found: list[RunStatistics] = []
    for name in sorted(names):
        if f"{name}.credit" in names:
            with suppress(SegmentNotFound, LayoutError):
                found += _workers(StatusBoard.attach(name, where))
    return found


def _workers(board: StatusBoard) -> list[RunStatistics]:
    run = board.segment.name
    names = workers_of(board.about)
    rows = rows_of(board.about, board.array).copy()
    board.close()
    return [_seen(run, *pair) for pair in zip(names, rows, strict=True)]


def _seen(run: str, worker: str, row: Any) -> RunStatistics:
    at = (
        words_of.PID,
        words_of.RECEIVED,
        words_of.EMITTED,
        words_of.RESTARTS,
        words_of.DROPPED,
        words_of.LETTERS,
        words_of.LAST_NS,
    )
    return RunStatistics(run, worker, *(int(row[k]) for k in at))
