"""`Collector`: the thread of the program that has what comes out of a pipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import (
    CorruptFrame,
    DataOverflow,
    NotConnectedError,
    ProcessorError,
)
from ataraxis.labels import Coordinate, align, fit, is_data_array, unmasked
from ataraxis.pipeline.board import (
    BINS,
    CORRUPT,
    LAST_NS,
    N_BINS,
    RECEIVED,
    REPEATED,
    TAKEN,
    StatusBoard,
)
from ataraxis.pipeline.frames import SKIPPED, is_call, lane_of
from ataraxis.pipeline.inbox import Inbox, Job
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.reorder import DuplicateFilter, Resequencer
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.thread import Thread
from ataraxis.stream import MemQ

# ---- what takes the results at a pipe's end: a callable, a list, a stream, a log,
# xarray

# Called by one thread of the program, with each result once, in order where the pipe
# has one. What waits there holds the pipe up.

ResultSink = Callable[[Any], object]


def result_sink_of(sink: Any) -> ResultSink:
    """Return the function that takes results, for what the user gave.

    Raises
    ------
    TypeError
        It is nothing that takes values.
    """
    if isinstance(sink, list):
        return sink.append
    if is_data_array(sink):
        return _array(sink)
    for kind, make in _KINDS:
        if hasattr(sink, kind):
            return make(sink)
    if callable(sink):
        made: ResultSink = sink
        return made
    raise TypeError(
        f"sink={sink!r}: a callable, a list, a queue with put(), a Producer, a "
        "JournalWriter, a DataLogger or a DataArray of NumPy's memory"
    )


def _stream(producer: Any) -> ResultSink:
    """Send arrays into a stream; labelled ones by the labels that it has."""

    def take(value: Any) -> None:
        producer.send(
            value
            if is_data_array(value)
            else np.ascontiguousarray(unmasked(value, "sink"))
        )

    return take


def _array(sink: Any) -> ResultSink:
    """Write results into a labelled array, one behind the other along its first dim.

    One of as many dimensions is a block of rows, one of a dimension less is a row.
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
            f"sink: a DataArray of {type(rows).__name__} takes no results; one of "
            "NumPy's memory that can be written, of at least one dimension, does"
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
                f"the sink has {len(rows)} rows along {sink.dims[0]!r}, and row "
                f"{at + len(block)} came: make it longer"
            )
        rows[at : at + len(block)] = block
        at += len(block)

    return take


def _log(log: Any) -> ResultSink:
    """Log values as entries of source 0."""
    return lambda value: log.log(0, value)


def _queue(queue: Any) -> ResultSink:
    """Put values into a queue, waiting for room."""
    made: ResultSink = queue.put
    return made


_KINDS: tuple[tuple[str, Callable[[Any], ResultSink]], ...] = (
    ("send", _stream),
    ("log", _log),
    ("put", _queue),
)

# ---- the collector

GRACE_S = 5.0
# Lanes of the parts of a value, beside those of processors.
_PARTS = 1 << 20


class Collector:
    """Hands results over: each once, whatever was killed on the way."""

    def __init__(
        self,
        plan: Plan,
        board: StatusBoard,
        result_sink: ResultSink | None,
        answer: Callable[..., None],
        on_over: Callable[[Exception | None], None],
        on_skip: Callable[[], object] | None = None,
    ) -> None:
        self._queue = MemQ.attach(plan.end, context=plan.context)
        self._credit = SharedMemoryArray.attach(plan.credit, context=plan.context)
        self._words = board.words
        self._index = len(plan.graph.nodes)
        self._row = board.of_worker(len(plan.specs()))
        self._taker, self._answer, self._on_over = result_sink, answer, on_over
        self._on_skip, self._letters = on_skip, plan.letters
        self.skipped = 0
        """How many values came out as dead letters."""
        self._seen = DuplicateFilter()
        self._skipped: set[tuple[int, int]] = set()
        self._groups: dict[tuple[int, int], dict[int, tuple[Any, ...]]] = {}
        self._ordered = plan.graph.ordered_parents(-1)
        self._line: Resequencer[Job] = Resequencer(
            board.words, lambda lane: board.place_of(self._index, lane)
        )
        self._inbox = Inbox(
            self._queue, self._ordered, self._line, self._repeated, self._corrupt
        )
        self.thread = Thread(self._run, "ataraxis-pipe-end")

    def keep(self, results: deque[Any]) -> None:
        """From now on, append results to `results` as well."""
        before = self._taker

        def take(value: Any) -> None:
            if before is not None:
                before(value)
            results.append(value)

        self._taker = take
        self._words[TAKEN] = 1

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def close(self) -> None:
        """End now; what was not handed over is lost.

        A sink that does not return is left to itself after 5 s.
        """
        self._queue.close()
        self.thread.join(GRACE_S)

    def _run(self) -> None:
        problem: Exception | None = None
        try:
            for job in self._inbox:
                self._take(job)
        except NotConnectedError:
            pass
        except Exception as error:
            problem = error
        except BaseException as error:  # sys.exit() in a sink ends no program
            problem = RuntimeError(f"{type(error).__name__}: {error}")
            problem.__cause__ = error
        with suppress(NotConnectedError):
            if self._inbox.last is not None:
                self._inbox.last.acknowledge()
        self._credit.disconnect()
        self._on_over(problem)

    def _take(self, job: Job) -> None:
        words, row = self._words, self._row
        words[row + RECEIVED] += 1
        wait = max(now_ns() - job.time_ns, 1)
        words[row + BINS + min(wait.bit_length() - 1, N_BINS - 1)] += 1
        is_ordered = job.source in self._ordered
        lane = lane_of(job.lane, _PARTS + job.part[0]) if job.count else job.lane
        if not is_ordered and not self._seen.add(lane, job.sequence):
            words[row + REPEATED] += 1
        elif is_call(job.lane):
            self._call(job)
        elif job.kind == SKIPPED:
            self.skipped += 1
            if self._on_skip is not None:
                self._on_skip()
        elif self._taker is not None:
            for value in job.values:
                self._taker(value)
        if is_ordered:
            self._line.passed(job)
            if job.sequence & 15 == 15:
                self._credit.add(0, 1)
        job.acknowledge()
        words[row + LAST_NS] = now_ns()

    def _call(self, job: Job) -> None:
        """Answer who waits, once all that came of his value is here."""
        values = job.values
        if job.count:
            key = job.lane, job.sequence
            groups = self._groups.setdefault(key, {})
            groups[job.part[0]] = values
            if job.kind == SKIPPED:
                self._skipped.add(key)
            if len(groups) < job.count:
                return
            del self._groups[key]
            values = tuple(v for k in sorted(groups) for v in groups[k])
        error, key = None, (job.lane, job.sequence)
        if job.kind == SKIPPED or key in self._skipped:
            self._skipped.discard(key)
            self.skipped += 1
            error = ProcessorError(
                f"the value went to the dead letters: see {self._letters} for why"
            )
        self._answer(job.sequence, values, error)

    def _repeated(self, job: Job) -> None:
        self._words[self._row + REPEATED] += 1

    def _corrupt(self, error: CorruptFrame, job: Job | None) -> None:
        self._words[self._row + CORRUPT] += 1
