"""`WorkerIO`: how a worker receives and emits values; plain functions use it too."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ataraxis._kernels.queue_handle import FrameLease
from ataraxis._kernels.worker import WorkerHandle
from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, EndOfInput, EndOfStream
from ataraxis.frame import DType, Frame
from ataraxis.pipeline.board import (
    BEGAN_NS,
    BINS,
    BUSY_NS,
    CORRUPT,
    DROPPED,
    EDGES,
    EMITTED,
    LANE,
    LAST_NS,
    LETTERS,
    N_BINS,
    N_EDGES,
    RECEIVED,
    REPEATED,
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
    is_call,
    kind_of,
    lane_of,
    part_of,
)
from ataraxis.pipeline.inbox import Inbox, Job
from ataraxis.pipeline.outbox import Outbox, send_to_all
from ataraxis.pipeline.reorder import Resequencer
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.stream import MemQ

# ---- waiting, awaited: for room or for a value, without holding up the event loop

EMIT_WAIT_S = 0.5
# How many results of one value wait for the next `get`.
MOST_RESULTS = 1024
# How long the only task of a loop may sleep in the kernel itself, at a time and at all.
_SLICE_S, _SHORT_S = 0.01, 0.1
# How long a thread sleeps for a task.
_LONG_S = 0.25


async def wait_async(attempt: Callable[[float], bool], deadline: float | None) -> bool:
    """Try until it works, or the deadline, monotonic s.

    The only task of a loop sleeps in the kernel itself, in short slices. Beside other
    tasks, and where nothing happens for long, a thread does.
    """
    # Here, since a worker whose function is plain starts sooner without it.
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


# ---- the port

_current: WorkerIO | None = None


def current() -> WorkerIO | None:
    """Return the port of this process, if it is a worker."""
    return _current


class WorkerIO(WorkerHandle):
    """What a worker gets from and emits into; made by ``Processor(name).open()``.

    The plain forms of what `Processor` has for ``await``: `get`, `emit`.
    """

    def __init__(self, spec: WorkerSpec, board: StatusBoard, told: int) -> None:
        global _current
        self._spec = spec
        self.name = spec.processor
        self.worker = spec.worker
        self.config = spec.config
        self.board = board
        self._words = board.words
        self._row = board.of_worker(spec.row)
        self._told = told
        self._lock = threading.Lock()
        self._is_ready = False
        where = spec.context
        credit = f"{spec.run}.credit"
        self.outboxes = [Outbox(t, board, credit, where) for t in spec.targets]
        self._inner = [o for o in self.outboxes if not o.target.is_end]
        self._credit: SharedMemoryArray | None = None
        if spec.resequences:
            self._credit = SharedMemoryArray.attach(credit, context=where)
        self.queue: MemQ | None = None
        self.inbox: Inbox | None = None
        self._line: Resequencer[Job] = Resequencer(
            board.words, lambda lane: board.place_of(spec.index, lane)
        )
        if spec.inbox:
            self.queue = MemQ.attach(
                spec.inbox, context=where, allow_pickle=spec.allow_pickle
            )
            self.inbox = Inbox(
                self.queue, spec.ordered_parents, self._line, self._repeated,
                self._corrupt, spec.allow_pickle,
            )  # fmt: skip
        # What this worker emits of its own accord has a lane of its own.
        self._lane = lane_of(spec.index + 1, spec.worker + 4096 * (spec.generation + 1))
        self._values = deque()
        self._results = []
        self._ends = 0
        # Where everything but what somebody at the head waits for goes.
        wanted = self.outboxes if spec.has_taker else self._inner
        self._only = wanted[0] if len(wanted) == 1 and wanted[0].is_plain else None
        self._connect()
        self.letters = DeadLetterStore(
            spec.letters, spec.run, spec.processor, spec.worker
        )
        _current = self

    def _connect(self) -> None:
        """Give the kernel what it does by itself."""
        only, row = self._only, self._row
        index = 0 if only is None else self.outboxes.index(only)
        child = self._spec.index if only is None else only.target.index
        words = {
            "state": STATE, "finished": self.board.of_processor(child),
            "emitted": row + EMITTED, "edge": row + EDGES + min(index, N_EDGES - 1),
            "received": row + RECEIVED, "bins": row + BINS, "last_bin": N_BINS - 1,
            "lane": row + LANE, "began": row + BEGAN_NS, "last": row + LAST_NS,
            "source": self._spec.index, "busy": row + BUSY_NS,
        }  # fmt: skip
        is_ordered = bool(self._spec.ordered_parents)
        # What a caller waits for is kept until all of it is known.
        is_direct = only is not None and self._call is None
        self._plug(
            self._words,
            words,
            None if is_ordered else self.queue,
            only.direct if is_direct and only is not None else None,
        )

    failed_with = ""
    """Which value the function raised an exception at, in words."""

    @property
    def number_in_hand(self) -> str:
        """Which value was got and is not acknowledged, in words; '' if none is."""
        words, row = self._words, self._row
        return f"value number {words[row + SEQUENCE]}" if words[row + LANE] else ""

    # ---- counting

    @property
    def emitted(self) -> int:
        """How many values this worker has emitted."""
        return self._words[self._row + EMITTED]

    @property
    def received(self) -> int:
        """How many values this worker has got."""
        return self._words[self._row + RECEIVED]

    @property
    def received_by_all(self) -> int:
        """How many values all workers of the processor have got."""
        first = self._spec.row - self.worker
        count = self.board.about["processors"][self._spec.index]["workers"]
        rows = (self.board.of_worker(first + k) for k in range(count))
        return sum(self._words[row + RECEIVED] for row in rows)

    def emitted_to(self, outbox: Outbox) -> int:
        """How many values this worker has emitted into an outbox."""
        at = min(self.outboxes.index(outbox), N_EDGES - 1)
        return self._words[self._row + EDGES + at]

    # ---- telling the program

    def tell(self, kind: str, **said: Any) -> None:
        """Send the program a message, a line of JSON."""
        line = json.dumps({"kind": kind, **said}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._told, line) :]

    def say_ready(self) -> None:
        """Say, once, that this worker takes part."""
        if not self._is_ready:
            self._is_ready = True
            self.tell("ready")

    # ---- in

    def _get(self, timeout: float | None) -> Any:
        """Do what `get` does where that takes more than a look."""
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
        self._is_quick = self._call is None and self.is_served_quickly()
        return self._values.popleft()

    def _end_of_input(self, text: str) -> BaseException:
        """Return what a worker is told that asks for more at the end of its input.

        At first what ``except TimeoutError: break`` catches; then what a loop that goes
        on after a time-out does not catch; then what ends any loop, in good order.
        """
        self._is_quick = False
        self._ends += 1
        if self._ends == 1:
            return EndOfInput(text)
        return EndOfStream(text) if self._ends == 2 else SystemExit(0)

    def _accept(self, lease: FrameLease | None) -> None:
        """Look into a frame that does not read quickly."""
        assert self.inbox is not None
        self._is_quick = False
        self.inbox.accept(lease)

    def get_many(self, limit: int = 1024, timeout: float | None = 5) -> list[Any]:
        """Return up to `limit` values that are there, waiting only for the first.

        All but the last are acknowledged at once.
        """
        values = [self.get(timeout)]
        try:
            while len(values) < limit:
                values.append(self.get(0))
        except (TimeoutError, EndOfStream):
            pass
        return values

    def serve_quickly(self) -> None:
        """Prepare `next_value` and `emit_result`, which pass the inbox by."""
        index = self._spec.index
        self._serve_with(lambda lane: lane_of(lane, index), self._spec.tells_gaps)

    def is_served_quickly(self) -> bool:
        """Tell whether the next frame may pass the inbox by, and have it do so."""
        self._is_quick = (
            self.queue is not None
            and self.inbox is not None
            and self.inbox.is_empty
            and not self.queue.has_partial
            and not self._spec.ordered_parents
        )
        return self._is_quick

    def take(self, timeout: float | None) -> Job:
        """Return the next job; `EndOfStream` when no more will come."""
        if self.inbox is None:
            raise EndOfStream(
                f"processor {self.name!r} has no parents: nothing will ever come"
            )
        job = self.inbox.next(timeout)
        if job is None:
            raise EndOfStream(
                f"processor {self.name!r}: those before it have finished, and nothing "
                "is left"
            )
        self._begin(job)
        return job

    def _begin(self, job: Job) -> None:
        words, row = self._words, self._row
        now = now_ns()
        words[row + LANE], words[row + SEQUENCE] = job.lane, job.sequence
        words[row + BEGAN_NS] = now
        words[row + RECEIVED] += 1
        wait = max(now - job.time_ns, 1)
        words[row + BINS + min(wait.bit_length() - 1, N_BINS - 1)] += 1

    def acknowledge(self) -> None:
        """Say that what `get` returned last is done with."""
        self._ack_deferred()
        if self._call is not None:
            self._answer()
        job, self._job = self._job, None
        if job is not None:
            self.done(job)

    def done(self, job: Job) -> None:
        """Say that a job is done with: its results are where they belong."""
        words, row = self._words, self._row
        if job.source in self._spec.ordered_parents:
            self._line.passed(job)
            if self._credit is not None and job.sequence & 15 == 15:
                self._credit.add(0, 1)
        job.acknowledge()
        words[row + BEGAN_NS] = words[row + LANE] = 0
        words[row + LAST_NS] = now_ns()

    def _repeated(self, job: Job) -> None:
        self._words[self._row + REPEATED] += 1

    def _corrupt(self, error: CorruptFrame, job: Job | None) -> None:
        self._words[self._row + CORRUPT] += 1
        self.dead_letter(job, f"CorruptFrame: {error}", error.data)
        self.tell("corrupt", text=str(error))

    def dead_letter(self, job: Job | None, why: str, data: bytes | None = None) -> None:
        """Put a job into the dead letters."""
        self._words[self._row + LETTERS] += 1
        path = self.letters.write(job, why, data)
        self.tell(
            "dead letter",
            text=why,
            path=path,
            lane=job.lane if job else 0,
            sequence=job.sequence if job else -1,
        )

    # ---- awaited, where one look was not enough

    @property
    def awaited(self) -> dict[str, Callable[..., Any]]:
        """What `Processor` has for ``await``, by name: one look each, if that does."""
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
        deadline = None if timeout is None else time.monotonic() + timeout
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
                    f"processor {self.name!r}: nothing came within {timeout} s"
                )

    # ---- leaving

    @property
    def has_ended(self) -> bool:
        """Whether the last frame has come."""
        return self.inbox is not None and self.inbox.last is not None

    def close(self, *, is_done: bool) -> None:
        """Leave the queues; what was got last is acknowledged, or goes back."""
        global _current
        _current = None
        self._unplug(is_done)
        if is_done:
            last = self.inbox.last if self.inbox is not None else None
            if last is not None:
                last.acknowledge()
        elif self._job is not None:
            self._job.give_back()
        self.letters.close()
        for outbox in self.outboxes:
            outbox.close()
        if self.queue is not None:
            self.queue.close()
        if self._credit is not None:
            self._credit.disconnect()

    # ---- what a worker does with a value that goes on; the kernel does the usual

    _spec: WorkerSpec
    _words: memoryview[int]
    _row: int
    board: StatusBoard
    name: str
    outboxes: list[Outbox]
    _inner: list[Outbox]
    _only: Outbox | None
    _call: Job | None = None
    """What a caller waits for, between the `get` that returned it and the next one."""
    _results: list[Any]

    def _emit(
        self, value: Any, dtype: DType | int | None, timeout: float | None
    ) -> bool:
        """Do what `emit` does where that takes more than a look."""
        if self._words[STATE] > RUNNING and not self._has_got:
            raise EndOfStream(f"the pipe of processor {self.name!r} is being stopped")
        if self._call is not None:
            self._add_result(value, dtype)
            return True
        words, began = self._words, self._row + BEGAN_NS
        words[began] = 0  # waiting for room is no hanging
        now = now_ns()
        sent = self.send(value, dtype, self._lane, self._sequence, PLAIN, now, timeout)
        self._sequence += sent
        if self._job is not None:
            words[began] = now
        return sent

    def _add_result(self, value: Any, dtype: DType | int | None) -> None:
        """Keep what came of a value that a caller waits for: a copy, checked.

        Whether more comes of it is known at the next `get`; a caller has all of it, as
        of a generator. A function that never gets again has answered when it has
        emitted more than a frame holds.
        """
        pickles = any(outbox.target.allow_pickle for outbox in self.outboxes)
        frame = Frame.from_value(value, dtype, allow_pickle=pickles).to_bytes()
        self._results.append(Frame.from_buffer(frame, allow_pickle=pickles).value)
        if len(self._results) >= MOST_RESULTS:
            self._answer()

    def _answer(self) -> None:
        """Send on what came of the value that a caller waits for."""
        job, self._call = self._call, None
        results, self._results = self._results, []
        self._connect()
        self._is_quick = False  # the next `get` says whether it is
        if job is not None:
            self.send_results(job, results)

    def send(
        self,
        value: Any,
        dtype: DType | int | None,
        lane: int,
        sequence: int,
        kind: int,
        time_ns: int,
        timeout: float | None,
    ) -> bool:
        """Put a value into every outbox, all or nothing; False: no room in time."""
        words, row = self._words, self._row
        outbox = self._only
        if outbox is not None and (not is_call(lane) or len(self.outboxes) == 1):
            if kind == GAP and not self._spec.tells_gaps and not is_call(lane):
                return True
            if not outbox.in_window(lane, sequence, timeout) or not outbox.send(
                value, dtype, lane, sequence, kind, self._spec.index, time_ns, timeout
            ):
                return False
            words[row + EMITTED] += 1
            words[row + EDGES + min(self.outboxes.index(outbox), N_EDGES - 1)] += 1
            if outbox.is_finished and not outbox.target.is_end:
                self._nobody_left()
            if outbox.dropped:
                self._count_drops()
            return True
        return self._send_all(value, dtype, lane, sequence, kind, time_ns, timeout)

    def _send_all(
        self, value: Any, dtype: Any, lane: int, sequence: int, kind: int, time_ns: int,
        timeout: float | None,
    ) -> bool:  # fmt: skip
        spec, words, row = self._spec, self._words, self._row
        is_wanted = spec.has_taker or is_call(lane) or bool(words[TAKEN])
        outboxes = [o for o in self.outboxes if is_wanted or not o.target.is_end]
        if kind_of(kind) == GAP and not spec.tells_gaps:
            outboxes = outboxes if is_call(lane) else []

        def count(outbox: Outbox) -> None:
            at = self.outboxes.index(outbox)
            words[row + EDGES + min(at, N_EDGES - 1)] += 1

        is_put = send_to_all(
            outboxes, value, dtype, lane, sequence, kind, spec.index, time_ns, timeout,
            count,
        )  # fmt: skip
        if not is_put:
            return False
        words[row + EMITTED] += 1
        self._count_drops()
        if self._inner and all(o.is_finished for o in self._inner):
            self._nobody_left()
        return True

    def _count_drops(self) -> None:
        self._words[self._row + DROPPED] = sum(o.dropped for o in self.outboxes)

    def _nobody_left(self) -> None:
        raise EndOfStream(
            f"processor {self.name!r}: those behind it have finished; nobody will have "
            "what it emits"
        )

    def send_results(
        self, job: Job, results: list[Any], *, is_skipped: bool = False
    ) -> None:
        """Send what a job came to, as one frame; or that it was skipped."""
        lane = lane_of(job.lane, self._spec.index)
        if self._spec.fills:
            self._fill(job, lane)
        is_skipped = is_skipped or job.kind == SKIPPED
        is_told = self._spec.tells_gaps or is_skipped or is_call(lane)
        if not results and not is_told:
            return
        if is_skipped and not results:
            value, kind = None, SKIPPED
        elif job.kind == GROUP:
            value, kind = tuple(results), GROUP
        elif len(results) == 1:
            value, kind = results[0], PLAIN
        elif results:
            value, kind = tuple(results), BUNDLE
        else:
            value, kind = None, GAP
        if self.outboxes:
            part = part_of(kind, *job.part)
            self.send(value, None, lane, job.sequence, part, job.time_ns, None)

    def _fill(self, job: Job, lane: int) -> None:
        """Tell those behind of the values that were dropped before this one."""
        words = self._words
        place = self.board.place_of(self._spec.index, job.lane)
        while words[place] < job.sequence:
            self.send(None, None, lane, words[place], GAP, job.time_ns, None)
            words[place] += 1
        words[place] = max(words[place], job.sequence + 1)

    # ---- awaited, where one look was not enough

    async def _emit_later(self, value: Any, dtype: Any) -> bool:
        # While others are still being started, there is nobody who could make room.
        is_starting = True
        while is_starting:
            is_starting = self._words[STATE] == STARTING
            deadline = time.monotonic() + EMIT_WAIT_S
            if await wait_async(lambda wait: self._emit(value, dtype, wait), deadline):
                return True
        return False

    async def _emit_sync_later(
        self, value: Any, dtype: Any, timeout: float | None
    ) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        return await wait_async(lambda wait: self._emit(value, dtype, wait), deadline)
