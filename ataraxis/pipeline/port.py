"""`Port`: the way in and out of a worker; also what a plain function uses itself."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ataraxis._kernels.queue_handle import Grip
from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, EndOfStream
from ataraxis.pipeline.board import (
    BEGAN_NS,
    BINS,
    CORRUPT,
    EDGES,
    EMITTED,
    LANE,
    LAST_NS,
    LETTERS,
    N_BINS,
    N_EDGES,
    RECEIVED,
    REPEATED,
    SEQUENCE,
    STATE,
    Board,
)
from ataraxis.pipeline.emitting import Emitting
from ataraxis.pipeline.intake import Intake, Job
from ataraxis.pipeline.letters import Letters
from ataraxis.pipeline.outlet import Outlet
from ataraxis.pipeline.patience import patiently
from ataraxis.pipeline.resequencer import Resequencer
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.stamp import (
    lane_of,
)
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.stream import MemQ

_current: Port | None = None


def current() -> Port | None:
    """Return the port of this process, if it is a worker."""
    return _current


class Port(Emitting):
    """What a worker gets from and emits into; made by ``Processor(name).open()``.

    The plain forms of what `Processor` has for ``await``: `get`, `emit`.
    """

    def __init__(self, spec: WorkerSpec, board: Board, told: int) -> None:
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
        self.outlets = [Outlet(t, board, credit, where) for t in spec.targets]
        self._inner = [o for o in self.outlets if not o.target.is_end]
        self._credit: SharedMemoryArray | None = None
        if spec.resequences:
            self._credit = SharedMemoryArray.attach(credit, context=where)
        self.inbox: MemQ | None = None
        self.intake: Intake | None = None
        self._line: Resequencer[Job] = Resequencer(
            board.words, lambda lane: board.place_of(spec.index, lane)
        )
        if spec.inbox:
            self.inbox = MemQ.attach(
                spec.inbox, context=where, allow_pickle=spec.allow_pickle
            )
            self.intake = Intake(
                self.inbox, spec.ordered_parents, self._line, self._repeated,
                self._corrupt, spec.allow_pickle,
            )  # fmt: skip
        # What this worker emits of its own accord has a lane of its own.
        self._lane = lane_of(spec.index + 1, spec.worker + 4096 * (spec.generation + 1))
        self._values = deque()
        # Where everything but what somebody at the head waits for goes.
        wanted = self.outlets if spec.has_taker else self._inner
        self._only = wanted[0] if len(wanted) == 1 and wanted[0].is_plain else None
        self._connect()
        self.letters = Letters(spec.letters, spec.processor, spec.worker)
        _current = self

    def _connect(self) -> None:
        """Give the kernel what it does by itself."""
        only, row = self._only, self._row
        index = 0 if only is None else self.outlets.index(only)
        child = self._spec.index if only is None else only.target.index
        words = {
            "state": STATE, "finished": self.board.of_processor(child),
            "emitted": row + EMITTED, "edge": row + EDGES + min(index, N_EDGES - 1),
            "received": row + RECEIVED, "bins": row + BINS, "last_bin": N_BINS - 1,
            "lane": row + LANE, "began": row + BEGAN_NS, "last": row + LAST_NS,
            "source": self._spec.index,
        }  # fmt: skip
        is_ordered = bool(self._spec.ordered_parents)
        self._plug(
            self._words,
            words,
            None if is_ordered else self.inbox,
            only.direct if only is not None else None,
        )

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
        self._pay()
        while not self._values:
            self.acknowledge()
            job = self.take(timeout)
            self._job = job
            self._values.extend(job.values)
        assert self.intake is not None
        self._is_quick = self.intake.is_empty and not self._spec.ordered_parents
        return self._values.popleft()

    def _accept(self, grip: Grip) -> None:
        """Look into a slot that does not read quickly."""
        assert self.intake is not None
        self._is_quick = False
        self.intake.accept(grip)

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

    def take(self, timeout: float | None) -> Job:
        """Return the next job; `EndOfStream` when no more will come."""
        if self.intake is None:
            raise EndOfStream(
                f"processor {self.name!r} has no parents: nothing will ever come"
            )
        job = self.intake.next(timeout)
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
        self._pay()
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
        self.bury(job, f"CorruptFrame: {error}", error.data)
        self.tell("corrupt", text=str(error))

    def bury(self, job: Job | None, why: str, data: bytes | None = None) -> None:
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
        except TimeoutError:
            return None

    async def _get_sync_later(self, timeout: float | None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._get(0)
            except TimeoutError:
                pass
            assert self.inbox is not None
            if not await patiently(self.inbox.wait, deadline):
                raise TimeoutError(
                    f"processor {self.name!r}: nothing came within {timeout} s"
                )

    # ---- leaving

    @property
    def has_ended(self) -> bool:
        """Whether the last frame has come."""
        return self.intake is not None and self.intake.last is not None

    def close(self, *, is_done: bool) -> None:
        """Leave the queues; what was got last is acknowledged, or goes back."""
        global _current
        _current = None
        self._unplug(is_done)
        if is_done:
            last = self.intake.last if self.intake is not None else None
            if last is not None:
                last.acknowledge()
        elif self._job is not None:
            self._job.give_back()
        self.letters.close()
        for outlet in self.outlets:
            outlet.close()
        if self.inbox is not None:
            self.inbox.close()
        if self._credit is not None:
            self._credit.disconnect()
