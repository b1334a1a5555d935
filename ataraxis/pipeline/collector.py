"""`Collector`: the thread of the program that receives the results of a pipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ataraxis.errors import DataOverflow, NotConnectedError, ProcessorError
from ataraxis.labels import Coordinate, align, fit, is_data_array, unmasked
from ataraxis.pipeline.board import REPEATED, TAKEN, StatusBoard
from ataraxis.pipeline.feeder import failure_of
from ataraxis.pipeline.frames import SKIPPED, is_call, lane_of
from ataraxis.pipeline.inbox import Inbox, Job
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.reorder import DuplicateFilter
from ataraxis.shm.thread import Thread
from ataraxis.stream import MemQ

# ---- sinks: a callable, a list, a stream, a log, a labelled array

ResultSink = Callable[[Any], object]
"""Called by the collector with each result once; the pipe waits while it runs."""


def result_sink_of(sink: Any) -> ResultSink:
    """Return the function that receives results, for a sink that the user gave.

    Raises
    ------
    TypeError
        It is not a sink.
    """
    if isinstance(sink, list):
        return sink.append
    if is_data_array(sink):
        return _array(sink)
    if hasattr(sink, "send"):
        return lambda value: sink.send(
            value
            if is_data_array(value)
            else np.ascontiguousarray(unmasked(value, "sink"))
        )
    if hasattr(sink, "log"):
        return lambda value: sink.log(0, value)
    result_sink: ResultSink = getattr(sink, "put", sink)
    if not callable(result_sink):
        raise TypeError(
            "sink must be a callable, a list, a queue with put(), a Producer, a "
            f"JournalWriter, a DataLogger or a DataArray in NumPy memory, got {sink!r}"
        )
    return result_sink


def _array(sink: Any) -> ResultSink:
    """Write results one after the other along the first dim of a labelled array.

    A result with as many dimensions is a block of rows; with one less, it is a row.
    """
    rows, at = sink.data, 0
    inner = sink.dims[1:]
    coords = {
        dim: Coordinate((dim,), sink[dim].values, {})
        for dim in inner
        if dim in sink.indexes
    }
    if not isinstance(rows, np.ndarray) or not rows.ndim or not rows.flags.writeable:
        raise TypeError(
            "sink must be a writable DataArray in NumPy memory with at least one "
            f"dimension, got one of {type(rows).__name__}, shape {sink.shape}"
        )

    def take(value: Any) -> None:
        nonlocal at
        if is_data_array(value):
            is_block = value.ndim == rows.ndim
            row = next((d for d in value.dims if d not in inner), sink.dims[0])
            dims = (row, *inner) if is_block else inner
            value = align(value, dims, coords, "sink")
        data = fit(value, rows.dtype, None, "sink")
        block = data if data.ndim == rows.ndim else data[np.newaxis]
        if at + len(block) > len(rows):
            raise DataOverflow(
                f"the sink has {len(rows)} rows along {sink.dims[0]!r}, got row "
                f"{at + len(block)}: make it longer"
            )
        rows[at : at + len(block)] = block
        at += len(block)

    return take


# ---- the collector

GRACE_S = 5.0
# Lanes of the parts of a value, in addition to those of processors.
_PARTS = 1 << 20


class Collector:
    """Hands each result over once, also if processes are killed."""

    def __init__(
        self,
        plan: Plan,
        board: StatusBoard,
        result_sink: ResultSink | None,
        answer: Callable[..., None],
        on_over: Callable[[Exception | None], None],
        on_skip: Callable[[], object] | None = None,
    ) -> None:
        row, context = len(plan.specs()), plan.context
        self._queue = MemQ.attach(plan.end, context=context)
        # A sink keeps results for as long as it likes, and may change them.
        self._queue.copy_large()
        self._inbox = Inbox(
            self._queue, board, len(plan.graph.nodes), row,
            plan.graph.ordered_parents(-1), plan.credit, context,
        )  # fmt: skip
        self._board, self._index = board, len(plan.graph.nodes)
        self._ordered = plan.graph.ordered_parents(-1)
        self._words, self._repeated = board.words, board.of_worker(row) + REPEATED
        self._result_sink, self._answer = result_sink, answer
        self._on_over, self._on_skip = on_over, on_skip
        self._dead_letters = plan.dead_letters
        self.skipped = 0
        """How many values arrived as dead letters."""
        self._seen = DuplicateFilter()
        self._skipped: set[tuple[int, int]] = set()
        self._groups: dict[tuple[int, int], dict[int, tuple[Any, ...]]] = {}
        self.thread = Thread(self._run, "ataraxis-pipe-end")

    def first_missing(self, lane: int, source: int) -> int:
        """Return the first number of a lane whose result is not here.

        `source` is the last processor, whose results have the lane.
        """
        if source in self._ordered:
            return self._board.next_sequence(self._index, lane)
        return self._seen.first_missing(lane)

    def keep(self, results: deque[Any]) -> None:
        """From now on, append results to `results` as well."""
        before = self._result_sink

        def take(value: Any) -> None:
            if before is not None:
                before(value)
            results.append(value)

        self._result_sink = take
        self._words[TAKEN] = 1

    def close(self) -> None:
        """Stop now; results that were not handed over are lost.

        A sink that does not return within 5 s is left running.
        """
        self._queue.close()
        self.thread.join(GRACE_S)

    def _run(self) -> None:
        def collect() -> None:
            with suppress(NotConnectedError):
                for job in self._inbox:
                    self._take(job)

        problem = failure_of(collect)
        with suppress(NotConnectedError):
            if self._inbox.last is not None:
                self._inbox.last.acknowledge()
        self._inbox.close()
        self._on_over(problem)

    def _take(self, job: Job) -> None:
        lane = lane_of(job.lane, _PARTS + job.part[0]) if job.count else job.lane
        is_ordered = self._inbox.is_ordered(job)
        if not is_ordered and not self._seen.add(lane, job.sequence):
            self._words[self._repeated] += 1
        elif is_call(job.lane):
            self._call(job)
        elif job.kind == SKIPPED:
            self.skipped += 1
            if self._on_skip is not None:
                self._on_skip()
        elif self._result_sink is not None:
            for value in job.values:
                self._result_sink(value)
        self._inbox.finish(job)

    def _call(self, job: Job) -> None:
        """Answer a caller, once all results of its value are here."""
        values, key = job.values, (job.lane, job.sequence)
        is_skipped = job.kind == SKIPPED
        if job.count:
            groups = self._groups.setdefault(key, {})
            groups[job.part[0]] = values
            if is_skipped:
                self._skipped.add(key)
            if len(groups) < job.count:
                return
            del self._groups[key]
            values = tuple(v for k in sorted(groups) for v in groups[k])
        error = None
        if is_skipped or key in self._skipped:
            self._skipped.discard(key)
            self.skipped += 1
            error = ProcessorError(
                "the value went to the dead letters: the reason is in "
                f"{self._dead_letters}"
            )
        self._answer(job.sequence, values, error)
