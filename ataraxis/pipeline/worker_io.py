"""`WorkerIO`: how a worker receives and emits values; plain functions use it too."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ataraxis._kernels.worker import WorkerHandle
from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, EndOfInput, EndOfStream
from ataraxis.frame import DType, Frame
from ataraxis.pipeline.board import (
    BEGAN_NS,
    BINS,
    BUSY_NS,
    DEAD_LETTERS,
    DROPPED,
    EDGES,
    EMITTED,
    LANE,
    LAST_NS,
    N_BINS,
    N_EDGES,
    RECEIVED,
    RUNNING,
    SEQUENCE,
    STARTING,
    STATE,
    TAKEN,
    StatusBoard,
)
from ataraxis.pipeline.dead_letters import DeadLetterStore
from ataraxis.pipeline.frames import (
    BUNDLE,
    GAP,
    GROUP,
    PLAIN,
    SKIPPED,
    Stamp,
    is_call,
    lane_of,
    part_of,
)
from ataraxis.pipeline.inbox import AnyLease, Inbox, Job
from ataraxis.pipeline.outbox import Outbox, put_into_all
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.stream import MemQ

# ---- awaited waiting for room or for a value, without blocking the event loop

EMIT_WAIT_S = 0.5
# How many results of one value are kept until the next `get`.
MOST_RESULTS = 1024
# How long the only task of a loop sleeps in the kernel at a time, and in total.
_SLICE_S, _SHORT_S = 0.01, 0.1
# How long a thread sleeps for a task.
_LONG_S = 0.25


async def wait_async(attempt: Callable[[float], bool], deadline: float | None) -> bool:
    """Try until `attempt` succeeds, or the deadline, monotonic s, has passed.

    The only task of a loop sleeps in the kernel itself, in short slices. Beside other
    tasks, and after 0.1 s, a thread sleeps instead.
    """
    # Not imported above: a worker with a plain function starts faster without it.
    import asyncio

    loop = asyncio.get_running_loop()
    began = time.monotonic()
    is_alone = len(asyncio.all_tasks(loop)) == 1
    while True:
        now = time.monotonic()
        is_short = is_alone and now - began < _SHORT_S
        left = _SLICE_S if is_short else _LONG_S
        if deadline is not None:
            left = min(left, deadline - now)
            if left <= 0:
                return False
        if is_short:
            done = attempt(left)
            await asyncio.sleep(0)
            is_alone = len(asyncio.all_tasks(loop)) == 1
        else:
            done = await loop.run_in_executor(None, attempt, left)
        if done:
            return True


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


# ---- the worker's end of its queues

_current: WorkerIO | None = None


def current() -> WorkerIO | None:
    """Return the `WorkerIO` of this process, if it is a worker."""
    return _current


class WorkerIO(WorkerHandle):
    """The input and output of a worker; ``Processor(name).open()`` returns it.

    `get` and `emit` are what `Processor` has for ``await``, without asyncio.
    """

    def __init__(self, spec: WorkerSpec, board: StatusBoard, messages: int) -> None:
        global _current
        self._spec = spec
        self.name = spec.processor
        self.worker = spec.worker
        self.config = spec.config
        self.board = board
        self._words = board.words
        self._row = board.of_worker(spec.row)
        self._messages = messages
        self._lock = threading.Lock()
        self._is_ready = False
        self.failed_with = ""
        """The value with which the function raised an exception, in words."""
        context, credit = spec.context, f"{spec.run}.credit"
        self.outboxes = [Outbox(t, board, credit, context) for t in spec.targets]
        # The last processor has one outbox, to the pipe's end.
        self._is_last = any(outbox.target.is_end for outbox in self.outboxes)
        self.queue: MemQ | None = None
        self.inbox: Inbox | None = None
        if spec.inbox:
            self.queue = MemQ.attach(
                spec.inbox, context=context, allow_pickle=spec.allow_pickle
            )
            if spec.gpu is not None:
                self.queue.pin_arena()
            self.inbox = Inbox(
                self.queue, board, spec.index, spec.row, spec.ordered_parents, credit,
                context, self._corrupt, spec.allow_pickle, spec.is_resumed,
                spec.is_counted,
            )  # fmt: skip
        # The lane of values that a function emits itself.
        self._lane = lane_of(spec.index + 1, spec.worker + 4096 * (spec.generation + 1))
        self._values = deque()
        # A value whose caller waits, between its `get` and the next, and its results.
        self._call: Job | None = None
        self._results: list[Any] = []
        self._ends = 0
        self._connect()
        self._dead_letters = DeadLetterStore(
            spec.dead_letters, spec.run, spec.processor, spec.worker
        )
        _current = self

    def _connect(self) -> None:
        """Give the kernel the words and queues that it uses without Python."""
        spec, row = self._spec, self._row
        # The results of a value that a caller waits for are kept until all are known.
        is_direct = (
            len(self.outboxes) == 1
            and self._call is None
            and (spec.has_sink or not self._is_last)
        )
        child = self.outboxes[0].target.index if is_direct else spec.index
        words = {
            "state": STATE, "finished": self.board.of_processor(child),
            "emitted": row + EMITTED, "edge": row + EDGES, "received": row + RECEIVED,
            "bins": row + BINS, "last_bin": N_BINS - 1, "lane": row + LANE,
            "began": row + BEGAN_NS, "last": row + LAST_NS, "source": spec.index,
            "busy": row + BUSY_NS,
        }  # fmt: skip
        self._direct = self.outboxes[0].direct if is_direct else None
        self._plug(
            self._words,
            words,
            None if spec.ordered_parents else self.queue,
            self._direct,
            lambda lane: lane_of(lane, spec.index),
            spec.tells_gaps,
        )

    @property
    def number_in_hand(self) -> str:
        """The number of the leased value, in words; '' if none is leased."""
        words, row = self._words, self._row
        return f"value number {words[row + SEQUENCE]}" if words[row + LANE] else ""

    # ---- counters

    @property
    def emitted(self) -> int:
        """How many values this worker has emitted."""
        return self._words[self._row + EMITTED]

    @property
    def received(self) -> int:
        """How many values this worker has received."""
        return self._words[self._row + RECEIVED]

    @property
    def received_by_all(self) -> int:
        """How many values all workers of the processor have received."""
        first = self._spec.row - self.worker
        count = self.board.about["processors"][self._spec.index]["workers"]
        rows = (self.board.of_worker(first + k) for k in range(count))
        return sum(self._words[row + RECEIVED] for row in rows)

    def emitted_to(self, outbox: Outbox) -> int:
        """Return how many values this worker has emitted into an outbox."""
        return self._words[self._edge(outbox)]

    def _edge(self, outbox: Outbox) -> int:
        return self._row + EDGES + min(self.outboxes.index(outbox), N_EDGES - 1)

    # ---- messages to the program

    def report(self, kind: str, **fields: Any) -> None:
        """Send the program a message, a line of JSON."""
        line = json.dumps({"kind": kind, **fields}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._messages, line) :]

    def report_ready(self) -> None:
        """Report, once, that this worker takes part."""
        if not self._is_ready:
            self._is_ready = True
            self.report("ready")

    # ---- in

    def _get(self, timeout: float | None) -> Any:
        """Do what `get` does where the kernel alone cannot."""
        self._has_got = True
        self._ack_deferred()
        while not self._values:
            self.acknowledge()
            try:
                job = self.take(timeout)
            except EndOfStream as error:
                raise self._end_of_input(str(error)) from None
            self._job = job
            if is_call(job.lane):
                self._call = job
                self._connect()
            self._values.extend(job.values)
        self._is_quick = self._call is None and self._can_skip_inbox()
        return self._values.popleft()

    def _end_of_input(self, text: str) -> BaseException:
        """Return what `get` raises at the end of the input.

        First what ``except TimeoutError: break`` catches; then what a loop that
        continues after a timeout does not catch; then what ends any loop, in good
        order.
        """
        self._is_quick = False
        self._ends += 1
        if self._ends == 1:
            return EndOfInput(text)
        return EndOfStream(text) if self._ends == 2 else SystemExit(0)

    def _accept(self, lease: AnyLease | None) -> None:
        """Take a frame that the kernel has leased and does not handle itself."""
        assert self.inbox is not None
        self._is_quick = False
        if lease is not None:
            self.inbox.accept(lease)

    def get_many(self, limit: int = 1024, timeout: float | None = 5) -> list[Any]:
        """Return up to `limit` values that are there; wait only for the first.

        All but the last are acknowledged at once.
        """
        values = [self.get(timeout)]
        try:
            while len(values) < limit:
                values.append(self.get(0))
        except (TimeoutError, EndOfStream):
            pass
        return values

    def serve_quickly(self) -> bool:
        """Let `next_value` lease the next frame, if it may; return whether it may."""
        self._is_quick = self._can_skip_inbox()
        return self._is_quick

    def _can_skip_inbox(self) -> bool:
        """Return whether no frame has to be taken before the queue's next one."""
        return (
            self.queue is not None
            and self.inbox is not None
            and self.inbox.is_empty
            and not self.queue.has_partial
            and not self._spec.ordered_parents
        )

    def take(self, timeout: float | None) -> Job:
        """Return the next job; `EndOfStream` at the end of the input."""
        if self.inbox is None:
            raise EndOfStream(f"processor {self.name!r} has no parents and no input")
        job = self.inbox.next(timeout)
        if job is None:
            raise EndOfStream(
                f"the parents of processor {self.name!r} have finished, and its input "
                "queue is empty"
            )
        words, row = self._words, self._row
        words[row + LANE], words[row + SEQUENCE] = job.lane, job.sequence
        words[row + BEGAN_NS] = now_ns()
        return job

    def acknowledge(self) -> None:
        """Acknowledge the last value that `get` returned."""
        self._ack_deferred()
        if self._call is not None:
            self._answer()
        job, self._job = self._job, None
        if job is not None:
            self.done(job)

    def done(self, job: Job) -> None:
        """Acknowledge a job whose results were sent."""
        assert self.inbox is not None
        self.inbox.finish(job)
        words, row = self._words, self._row
        words[row + BEGAN_NS] = words[row + LANE] = 0

    def _corrupt(self, error: CorruptFrame, job: Job | None) -> None:
        self.dead_letter(job, f"CorruptFrame: {error}", error.data)
        self.report("corrupt", text=str(error))

    def dead_letter(self, job: Job | None, why: str, data: bytes | None = None) -> None:
        """Store a job, or the bytes of a frame, as a dead letter."""
        self._words[self._row + DEAD_LETTERS] += 1
        path = self._dead_letters.write(job, why, data)
        self.report("dead letter", text=why, path=path)

    # ---- out

    def _emit(
        self, value: Any, dtype: DType | int | None, timeout: float | None
    ) -> bool:
        """Do what `emit` does where the kernel alone cannot."""
        if self._words[STATE] > RUNNING and not self._has_got:
            raise EndOfStream(f"the pipe of processor {self.name!r} is stopping")
        if self._call is not None:
            self._add_result(value, dtype)
            return True
        words, began = self._words, self._row + BEGAN_NS
        words[began] = 0  # the wait for room does not count for hang_timeout=
        now = now_ns()
        stamp = Stamp(self._lane, self._sequence, PLAIN, self._spec.index, now)
        is_sent = self._send(value, dtype, stamp, timeout)
        self._sequence += is_sent
        if self._job is not None:
            words[began] = now
        return is_sent

    def _add_result(self, value: Any, dtype: DType | int | None) -> None:
        """Keep a result of a value that a caller waits for: a copy, checked.

        The next `get` shows that it was the last one; a caller receives all of them, as
        from a generator. A function that emits without a further `get` answers after
        `MOST_RESULTS`.
        """
        pickles = any(outbox.target.allow_pickle for outbox in self.outboxes)
        frame = Frame.from_value(value, dtype, allow_pickle=pickles).to_bytes()
        self._results.append(Frame.from_buffer(frame, allow_pickle=pickles).value)
        if len(self._results) >= MOST_RESULTS:
            self._answer()

    def _answer(self) -> None:
        """Send the results of the value that a caller waits for."""
        job, self._call = self._call, None
        results, self._results = self._results, []
        self._connect()
        self._is_quick = False  # until the next `get` has checked it
        if job is not None:
            self.send_results(job, results)

    def _send(
        self,
        value: Any,
        dtype: DType | int | None,
        stamp: Stamp,
        timeout: float | None,
    ) -> bool:
        """Put a value into every outbox, or into none; False: no room in time."""
        words, outboxes = self._words, self.outboxes
        if self._is_last and not (
            self._spec.has_sink or words[TAKEN] or is_call(stamp.lane)
        ):
            outboxes = []
        if not put_into_all(outboxes, value, dtype, stamp, timeout, self._count_edge):
            return False
        row = self._row
        words[row + EMITTED] += 1
        words[row + DROPPED] = sum(outbox.dropped for outbox in outboxes)
        if not self._is_last and all(outbox.is_finished for outbox in outboxes):
            raise EndOfStream(
                f"every processor after {self.name!r} has finished; value discarded"
            )
        return True

    def _count_edge(self, outbox: Outbox) -> None:
        self._words[self._edge(outbox)] += 1

    def send_results(
        self, job: Job, results: list[Any], *, is_skipped: bool = False
    ) -> None:
        """Send the results of a job as one frame; or that it was skipped."""
        lane = lane_of(job.lane, self._spec.index)
        if self._spec.fills_gaps:
            self._fill_gaps(job, lane)
        is_skipped = is_skipped or job.kind == SKIPPED
        value: Any = None
        if job.kind == GROUP and results:
            value, kind = tuple(results), GROUP
        elif len(results) == 1:
            value, kind = results[0], PLAIN
        elif results:
            value, kind = tuple(results), BUNDLE
        elif is_skipped:
            kind = SKIPPED
        elif self._spec.tells_gaps or is_call(lane):
            kind = GAP
        else:
            return
        part = part_of(kind, *job.part)
        stamp = Stamp(lane, job.sequence, part, self._spec.index, job.time_ns)
        self._send(value, None, stamp, None)

    def _fill_gaps(self, job: Job, lane: int) -> None:
        """Send gaps for the values that were dropped before this one."""
        words = self._words
        word = self.board.sequence_word(self._spec.index, job.lane)
        while words[word] < job.sequence:
            stamp = Stamp(lane, words[word], GAP, self._spec.index, job.time_ns)
            self._send(None, None, stamp, None)
            words[word] += 1
        words[word] = max(words[word], job.sequence + 1)

    # ---- awaited, where one attempt was not enough

    @property
    def awaited(self) -> dict[str, Callable[..., Any]]:
        """The methods of `Processor` for ``await``, by name."""
        return {
            "emit": self._emitting, "emit_sync": self._emitting_sync,
            "get": self._getting, "get_sync": self._getting_sync,
        }  # fmt: skip

    async def _get_later(self) -> Any:
        try:
            return self._get(0)
        except EndOfStream:
            raise
        except TimeoutError:
            return None

    async def _get_sync_later(self, timeout: float | None) -> Any:
        deadline = _deadline(timeout)
        while True:
            try:
                return self._get(0)
            except EndOfStream:
                raise
            except TimeoutError:
                pass
            assert self.queue is not None
            if not await wait_async(self.queue.wait, deadline):
                raise TimeoutError(
                    f"processor {self.name!r} got no value within {timeout} s"
                )

    async def _emit_later(self, value: Any, dtype: Any) -> bool:
        # While other workers are starting, they cannot make room.
        is_starting = True
        while is_starting:
            is_starting = self._words[STATE] == STARTING
            if await self._emit_sync_later(value, dtype, EMIT_WAIT_S):
                return True
        return False

    async def _emit_sync_later(
        self, value: Any, dtype: Any, timeout: float | None
    ) -> bool:
        return await wait_async(
            lambda wait: self._emit(value, dtype, wait), _deadline(timeout)
        )

    # ---- a result where it will lie

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array for a result, not initialized.

        If it is emitted or returned, it is sent without a copy, and is read-only from
        then on. A small one, one of another kind than plain numbers, and one for
        several children are ordinary arrays: they are copied when they are sent.

        Parameters
        ----------
        shape, dtype
            As for `numpy.empty`.

        Examples
        --------
        >>> from ataraxis.pipeline import Processor
        >>> class Double:
        ...     def setup(self):
        ...         self.me = Processor("double").open()
        ...
        ...     def process(self, image):
        ...         result = self.me.empty(image.shape, image.dtype)
        ...         result[:] = 2 * image
        ...         return result
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        kind = np.dtype(dtype)
        queue = self._direct
        made = None if queue is None else queue.empty_message(shape, kind)
        return np.empty(shape, kind) if made is None else made

    # ---- leaving

    @property
    def has_ended(self) -> bool:
        """Whether the last frame has arrived."""
        return self.inbox is not None and self.inbox.last is not None

    def close(self, *, is_done: bool) -> None:
        """Close the queues; the leased value is acknowledged, or given back."""
        global _current
        _current = None
        self._unplug(is_done)
        if not is_done and self._job is not None:
            self._job.give_back()
        self._dead_letters.close()
        for outbox in self.outboxes:
            outbox.close()
        if self.inbox is not None:
            if is_done and self.inbox.last is not None:
                self.inbox.last.acknowledge()
            self.inbox.close()
