"""The statistics of runs, from the words of their status boards."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.pipeline import board as words_of
from ataraxis.pipeline.board import (
    HEAD,
    PROCESSOR,
    STATES,
    WORKER,
    StatusBoard,
    board_names,
)
from ataraxis.shm.context import Context, ContextLike

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_COUNTS = {
    "received": (words_of.RECEIVED, "values received"),
    "emitted": (words_of.EMITTED, "frames emitted"),
    "errors": (words_of.ERRORS, "exceptions of the function"),
    "repeated": (words_of.REPEATED, "repeated values dropped"),
    "dropped": (words_of.DROPPED, "frames dropped by on_full="),
    "corrupt": (words_of.CORRUPT, "corrupt frames"),
    "restarts": (words_of.RESTARTS, "restarts of the process"),
    "dead_letters": (words_of.DEAD_LETTERS, "dead letters"),
    "pid": (words_of.PID, "process id"),
}


def workers_of(about: dict[str, Any]) -> list[str]:
    """Return the name of each worker, in the order of the rows; the end is last."""
    names = [
        f"{p['name']}.{k}" if p["workers"] > 1 else p["name"]
        for p in about["processors"]
        for k in range(p["workers"])
    ]
    return [*names, "(end)"]


def rows_of(about: dict[str, Any], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a view of the workers' words, shape (workers + 1, words of a worker)."""
    start = HEAD + PROCESSOR * (len(about["processors"]) + 1)
    count = len(workers_of(about))
    rows = words[start : start + count * WORKER]
    return rows.reshape(count, WORKER)


def hosts_of(about: dict[str, Any], rows: NDArray[np.int64]) -> list[str]:
    """Return the host of each worker; that of the run is the first of `about`."""
    hosts = dict(enumerate(about.get("hosts", ["localhost"])))
    return [hosts.get(k, "?") for k in rows[:, words_of.HOST].tolist()]


def dataset(about: dict[str, Any], words: NDArray[np.int64]) -> xr.Dataset:
    """Return the statistics of a run.

    Parameters
    ----------
    about : dict
        The description of the run.
    words : ndarray of int64
        The words of its board, or a copy.

    Returns
    -------
    xarray.Dataset
        For each ``worker``: its ``host``, counts, ``busy`` (the share of the time in
        which its function ran), ``rate`` (values per second since the start) and
        ``latency``, a histogram over ``age``, the time from the head of the pipe to
        this worker, with bins of powers of two, s. For each ``edge``: frames ``sent``.
        For each ``processor``: its ``state``.
    """
    import xarray as xr

    rows = rows_of(about, words)
    names = workers_of(about)
    variables: dict[str, Any] = {
        key: ("worker", rows[:, at].copy(), {"long_name": text})
        for key, (at, text) in _COUNTS.items()
    }
    seconds = max(now_ns() - int(words[words_of.STARTED]), 1) * 1e-9
    rate = rows[:, words_of.RECEIVED] / seconds
    variables["rate"] = ("worker", rate, {"units": "1/s"})
    variables["busy"] = ("worker", rows[:, words_of.BUSY_NS] * 1e-9 / seconds)
    variables["host"] = ("worker", hosts_of(about, rows))
    bins = rows[:, words_of.BINS : words_of.BINS + words_of.N_BINS]
    variables["latency"] = (("worker", "age"), bins.copy(), {"long_name": "values"})
    edges, sent = _edges(about, rows)
    variables["sent"] = ("edge", sent)
    states = [
        STATES[int(words[HEAD + PROCESSOR * k])]
        for k in range(len(about["processors"]))
    ]
    variables["state"] = ("processor", states)
    coords = {
        "worker": names,
        "age": ("age", 2.0 ** np.arange(words_of.N_BINS) * 1e-9, {"units": "s"}),
        "edge": edges,
        "processor": [p["name"] for p in about["processors"]],
    }
    attrs = {"pipe": about["pipe"], "seconds": seconds}
    return xr.Dataset(variables, coords, attrs)


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


# ---- the workers of all runs in a context


@dataclass(frozen=True)
class RunStatistics:
    """The counters of a worker of a running pipe; see `dataset` for their meaning."""

    run: str
    """Name of the run: the pipe's name and a random part."""
    worker: str
    """The processor, and which of its workers."""
    pid: int
    """Process id; 0: no process now."""
    received: int
    emitted: int
    restarts: int
    dropped: int
    dead_letters: int
    last_ns: int
    """When it finished its last value, monotonic ns; 0: never."""
    host: str = "localhost"
    """Where it runs; 'localhost': here."""


_SHOWN = (
    words_of.PID, words_of.RECEIVED, words_of.EMITTED, words_of.RESTARTS,
    words_of.DROPPED, words_of.DEAD_LETTERS, words_of.LAST_NS,
)  # fmt: skip


def list_runs(context: ContextLike = None) -> list[RunStatistics]:
    """Return the counters of every worker of every run in a context.

    Examples
    --------
    >>> list_runs()
    []
    """
    where = Context.of(context)
    found: list[RunStatistics] = []
    for run in board_names(where):
        with suppress(SegmentNotFound, LayoutError):
            board = StatusBoard.attach(run, where)
            names = workers_of(board.about)
            rows = rows_of(board.about, board.array).copy()
            hosts = hosts_of(board.about, rows)
            board.close()
            for name, row, host in zip(names, rows.tolist(), hosts, strict=True):
                worker = RunStatistics(run, name, *(row[k] for k in _SHOWN))
                found.append(replace(worker, host=host))
    return found
