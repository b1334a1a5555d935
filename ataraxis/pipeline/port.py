"""`Port`: the way in and out of a worker; also what a plain function uses itself."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, EndOfStream
from ataraxis.frame import DType
from ataraxis.pipeline.board import (
    BEGAN_NS,
    BINS,
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
    STATE,
    Board,
)
from ataraxis.pipeline.intake import Intake, Job
from ataraxis.pipeline.letters import Letters
from ataraxis.pipeline.outlet import Outlet
from ataraxis.pipeline.resequencer import Resequencer
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.stamp import (
    BUNDLE,
    GAP,
    PLAIN,
    is_call,
    kind_of,
    lane_of,
    part_of,
    write,
)
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.stream import MemQ

EMIT_WAIT_S = 0.5
_current: Port | None = None


def current() -> Port | None:
    """Return the port of this process, if it is a worker."""
    return _current


class Port:
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
        self._only = len(self._inner) == 1 and self._inner[0].is_plain
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
        self._sequence = 0
        self._job: Job | None = None
        self._values: deque[Any] = deque()
        self._has_got = False
        self.letters = Letters(spec.letters, spec.processor, spec.worker)
        _current = self

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

    def get(self, timeout: float | None = 5) -> Any:
        """Return the next value, waiting up to `timeout`, s; None: for ever.

        Acknowledged by the next `get`. Raises `TimeoutError` and `EndOfStream` as
        ``await get_sync()`` does.
        """
        self._has_got = True
        while not self._values:
            self.acknowledge()
            job = self.take(timeout)
            self._job = job
            self._values.extend(job.values)
        return self._values.popleft()

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

    # ---- out

    def emit(
        self,
        value: Any,
        dtype: DType | int | None = None,
        timeout: float | None = EMIT_WAIT_S,
    ) -> bool:
        """Hand a value to every child, or to none: False if there was no room in time.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`. Copied.
        dtype : DType, optional
            How to send it, if not as itself.
        timeout : float or None
            Longest wait, s; None waits without end.

        Raises
        ------
        EndOfStream
            The children have finished, or the pipe is being stopped.
        """
        if self._words[STATE] > RUNNING and not self._has_got:
            raise EndOfStream(f"the pipe of processor {self.name!r} is being stopped")
        words, began = self._words, self._row + BEGAN_NS
        words[began] = 0  # waiting for room is no hanging
        now = now_ns()
        sent = self.send(value, dtype, self._lane, self._sequence, PLAIN, now, timeout)
        self._sequence += sent
        if self._job is not None:
            words[began] = now
        return sent

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
        """Put a value into every outlet, all or nothing; False: no room in time."""
        spec, words, row = self._spec, self._words, self._row
        if self._only and not spec.has_taker:
            outlet = self._inner[0]
            frame = write(value, dtype, lane, sequence, kind, 0, spec.index, time_ns,
                          outlet.target.allow_pickle)  # fmt: skip
            if outlet.target.window:
                outlet.wait_for_turn(lane, sequence)
            if not outlet.put(frame, timeout):
                return False
            words[row + EMITTED] += 1
            words[row + EDGES] += 1
            if outlet.is_finished:
                self._nobody_left()
            if outlet.dropped:
                self._count_drops()
            return True
        return self._send_all(value, dtype, lane, sequence, kind, time_ns, timeout)

    def _send_all(
        self, value: Any, dtype: Any, lane: int, sequence: int, kind: int, time_ns: int,
        timeout: float | None,
    ) -> bool:  # fmt: skip
        spec, words, row = self._spec, self._words, self._row
        is_wanted = spec.has_taker or is_call(lane)
        outlets = [o for o in self.outlets if is_wanted or not o.target.is_end]
        if kind_of(kind) == GAP and not spec.tells_gaps:
            outlets = outlets if is_call(lane) else []
        if len(outlets) > 1 and timeout is not None:
            # Whoever may have to be waited for comes first; then there is no return.
            outlets.sort(key=lambda o: not o.is_full)
            if timeout == 0 and outlets[0].is_full and not outlets[0].is_finished:
                return False
        frames: dict[bool, bytes] = {}
        for outlet in outlets:
            target = outlet.target
            if target.window:
                outlet.wait_for_turn(lane, sequence)
            if outlet.is_plain:
                frame = frames.get(target.allow_pickle)
                if frame is None:
                    frame = frames[target.allow_pickle] = write(
                        value, dtype, lane, sequence, kind, 0, spec.index, time_ns,
                        target.allow_pickle,
                    )  # fmt: skip
                is_put = outlet.put(frame, timeout)
            else:
                is_put = outlet.put_value(
                    value, dtype, lane, sequence, kind, spec.index, time_ns, timeout
                )
            if not is_put:
                return False
            timeout = None
            at = self.outlets.index(outlet)
            words[row + EDGES + min(at, N_EDGES - 1)] += 1
        words[row + EMITTED] += 1
        self._count_drops()
        if self._inner and all(o.is_finished for o in self._inner):
            self._nobody_left()
        return True

    def _count_drops(self) -> None:
        self._words[self._row + DROPPED] = sum(o.dropped for o in self.outlets)

    def _nobody_left(self) -> None:
        raise EndOfStream(
            f"processor {self.name!r}: those behind it have finished; nobody will have "
            "what it emits"
        )

    def send_results(self, job: Job, results: list[Any]) -> None:
        """Send what a job came to, as one frame."""
        lane = lane_of(job.lane, self._spec.index)
        if len(results) == 1:
            value, kind = results[0], PLAIN
        elif results:
            value, kind = tuple(results), BUNDLE
        elif self._spec.tells_gaps or is_call(lane):
            value, kind = None, GAP
        else:
            return
        if self.outlets:
            part = part_of(kind, *job.part)
            self.send(value, None, lane, job.sequence, part, job.time_ns, None)

    # ---- leaving

    @property
    def has_ended(self) -> bool:
        """Whether the last frame has come."""
        return self.intake is not None and self.intake.last is not None

    def close(self, *, is_done: bool) -> None:
        """Leave the queues; what was got last is acknowledged, or goes back."""
        global _current
        _current = None
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
