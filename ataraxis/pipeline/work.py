"""`Work`: what a worker does with a function: values in, what it returns out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream
from ataraxis.pipeline.arrays import (
    is_labelled,
    relabelled,
    takes_overlap,
    trimmed,
    wants_plain,
)
from ataraxis.pipeline.board import BEGAN_NS, BUSY_NS, ERRORS, LANE, RUNNING, STATE
from ataraxis.pipeline.intake import Job
from ataraxis.pipeline.port import Port
from ataraxis.pipeline.spec import WorkerSpec

if TYPE_CHECKING:
    import asyncio


class Work:
    """A function at work: made in the worker, after it was loaded.

    Parameters
    ----------
    function : callable or class
        As for `Processor`.
    spec : WorkerSpec
        What the worker was told.
    port : Port
        Its way in and out.
    """

    def __init__(self, function: Any, spec: WorkerSpec, port: Port) -> None:
        self._spec, self._port = spec, port
        self._is_plain = wants_plain(function)
        self._takes_overlap = takes_overlap(function)
        self._stage = function
        if inspect.isclass(function) and hasattr(function, "process"):
            self._stage = function()
        self._call = getattr(self._stage, "process", self._stage)
        self._loop: asyncio.AbstractEventLoop | None = None
        target = self._call
        if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
            self._loop = _new_loop()

    # ---- the life of a worker

    def run(self) -> None:
        """Work until no more comes; ``setup()`` before, ``teardown()`` after."""
        try:
            self._do("setup")
            self._port.say_ready()
            try:
                if self._spec.code.kind == "source":
                    self._pour()
                else:
                    self._serve()
            finally:
                self._do("teardown")
        finally:
            if self._loop is not None:
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.close()

    def _do(self, name: str) -> None:
        method = getattr(self._stage, name, None)
        if method is not None and self._stage is not self._call:
            result = method()
            if inspect.isawaitable(result):
                self._await(result)

    def _await(self, awaitable: Any) -> Any:
        if self._loop is None:
            self._loop = _new_loop()
        return self._loop.run_until_complete(awaitable)

    # ---- a source

    def _pour(self) -> None:
        port = self._port
        words = port.board.words
        for value in self._through(self._call()):
            port.emit(value, None, None)
            if words[STATE] > RUNNING:
                raise EndOfStream("the pipe is being stopped")

    def _through(self, made: Any) -> Iterator[Any]:
        """Go through a generator, also an asynchronous one."""
        if not hasattr(made, "__anext__"):
            yield from made
            return
        while True:
            try:
                yield self._await(made.__anext__())
            except StopAsyncIteration:
                return

    # ---- a function of a value

    def _serve(self) -> None:
        while True:
            jobs = self._gather()
            try:
                self._handle(jobs)
            except BaseException:
                for job in jobs:
                    job.give_back()
                raise

    def _gather(self) -> list[Job]:
        """Take a job, or as many as one call takes."""
        port, spec = self._port, self._spec
        jobs = [port.take(None)]
        if spec.max_batch == 1 or jobs[0].attempt > 1:
            return jobs
        deadline = time.monotonic() + spec.max_wait
        while len(jobs) < spec.max_batch:
            try:
                jobs.append(port.take(max(0.0, deadline - time.monotonic())))
            except (TimeoutError, EndOfStream):
                break  # the end is said again by the next look
            except BaseException:
                for job in jobs:
                    job.give_back()
                raise
        return jobs

    def _handle(self, jobs: list[Job]) -> None:
        port, spec = self._port, self._spec
        if jobs[0].attempt > 1:
            lane, sequence = jobs[0].lane, jobs[0].sequence
            if port.board.is_poison(spec.index, lane, sequence):
                why = f"it has killed {spec.attempts} workers of {spec.processor!r}"
                self._bury(jobs, why)
                return
        words, row = port.board.words, port.board.of_worker(spec.row)
        try:
            results = self._results(jobs)
        except Exception as error:
            words[row + ERRORS] += 1
            if spec.on_error != "skip":
                raise
            self._bury(jobs, f"{type(error).__name__}: {error}")
            return
        words[row + BUSY_NS] += now_ns() - words[row + BEGAN_NS]
        words[row + BEGAN_NS] = words[row + LANE] = 0  # waiting for room is no hanging
        for job, found in zip(jobs, results, strict=True):
            self._send(job, found)
            port.done(job)

    def _send(self, job: Job, found: list[Any]) -> None:
        try:
            self._port.send_results(job, found)
        except (TypeError, ValueError) as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in found}))
            error.add_note(f"processor {self._spec.processor!r} returned: {kinds}")
            raise

    def _bury(self, jobs: list[Job], why: str) -> None:
        for job in jobs:
            self._port.bury(job, why)
            self._port.send_results(job, [])
            self._port.done(job)

    def _results(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function: what came of each job."""
        if self._spec.max_batch > 1:
            return self._batch(jobs)
        return [[r for value in job.values for r in self._one(job, value)]
                for job in jobs]  # fmt: skip

    def _one(self, job: Job, value: Any) -> list[Any]:
        like = value
        if self._is_plain and is_labelled(value):
            value = value.values
        more = {"overlap": job.overlap} if self._takes_overlap else {}
        made = self._call(value, **more)
        if inspect.isawaitable(made):
            made = self._await(made)
        if inspect.isgenerator(made) or hasattr(made, "__anext__"):
            found = list(self._through(made))
        else:
            found = [] if made is None else [made]
        if is_labelled(like):
            found = [relabelled(result, like) for result in found]
        if job.overlap and not self._takes_overlap:
            found = [trimmed(result, job.overlap, len(like)) for result in found]
        return found

    def _batch(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function with the values of several jobs, and share the results."""
        values = [value for job in jobs for value in job.values]
        if not values:
            return [[] for _ in jobs]
        given = [v.values if self._is_plain and is_labelled(v) else v for v in values]
        made = self._call(given)
        if inspect.isawaitable(made):
            made = self._await(made)
        made = [None] * len(values) if made is None else list(made)
        if len(made) != len(values):
            raise ValueError(
                f"processor {self._spec.processor!r} takes batches: it had "
                f"{len(values)} values and returned {len(made)}; one for each, or None"
            )
        found = iter(zip(values, made, strict=True))
        shares = []
        for job in jobs:
            pairs = [next(found) for _ in job.values]
            shares.append([relabelled(m, v) for v, m in pairs if m is not None])
        return shares


def _new_loop() -> asyncio.AbstractEventLoop:
    import asyncio

    return asyncio.new_event_loop()
