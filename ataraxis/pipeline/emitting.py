"""The emitting half of a worker's port: to every child, or to none."""

from __future__ import annotations

import time
from typing import Any

from ataraxis._kernels.worker import PortKernel
from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream
from ataraxis.frame import DType
from ataraxis.pipeline.board import (
    BEGAN_NS,
    DROPPED,
    EDGES,
    EMITTED,
    N_EDGES,
    RUNNING,
    STARTING,
    STATE,
    Board,
)
from ataraxis.pipeline.intake import Job
from ataraxis.pipeline.outlet import Outlet, send_to_all
from ataraxis.pipeline.patience import EMIT_WAIT_S, patiently
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.stamp import (
    BUNDLE,
    GAP,
    GROUP,
    PLAIN,
    is_call,
    kind_of,
    lane_of,
    part_of,
)


class Emitting(PortKernel):
    """What a worker does with a value that goes on; the kernel does the usual."""

    _spec: WorkerSpec
    _words: memoryview[int]
    _row: int
    board: Board
    name: str
    outlets: list[Outlet]
    _inner: list[Outlet]
    _only: Outlet | None

    def _emit(
        self, value: Any, dtype: DType | int | None, timeout: float | None
    ) -> bool:
        """Do what `emit` does where that takes more than a look."""
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
        words, row = self._words, self._row
        outlet = self._only
        if outlet is not None and (not is_call(lane) or len(self.outlets) == 1):
            if kind == GAP and not self._spec.tells_gaps and not is_call(lane):
                return True
            if not outlet.is_near(lane, sequence, timeout) or not outlet.send(
                value, dtype, lane, sequence, kind, self._spec.index, time_ns, timeout
            ):
                return False
            words[row + EMITTED] += 1
            words[row + EDGES + min(self.outlets.index(outlet), N_EDGES - 1)] += 1
            if outlet.is_finished and not outlet.target.is_end:
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

        def count(outlet: Outlet) -> None:
            at = self.outlets.index(outlet)
            words[row + EDGES + min(at, N_EDGES - 1)] += 1

        is_put = send_to_all(
            outlets, value, dtype, lane, sequence, kind, spec.index, time_ns, timeout,
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
        self._words[self._row + DROPPED] = sum(o.dropped for o in self.outlets)

    def _nobody_left(self) -> None:
        raise EndOfStream(
            f"processor {self.name!r}: those behind it have finished; nobody will have "
            "what it emits"
        )

    def send_results(self, job: Job, results: list[Any]) -> None:
        """Send what a job came to, as one frame."""
        lane = lane_of(job.lane, self._spec.index)
        if self._spec.fills:
            self._fill(job, lane)
        if not results and not self._spec.tells_gaps and not is_call(lane):
            return
        if job.kind == GROUP:
            value, kind = tuple(results), GROUP
        elif len(results) == 1:
            value, kind = results[0], PLAIN
        elif results:
            value, kind = tuple(results), BUNDLE
        else:
            value, kind = None, GAP
        if self.outlets:
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
            if await patiently(lambda wait: self._emit(value, dtype, wait), deadline):
                return True
        return False

    async def _emit_sync_later(
        self, value: Any, dtype: Any, timeout: float | None
    ) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        return await patiently(lambda wait: self._emit(value, dtype, wait), deadline)
