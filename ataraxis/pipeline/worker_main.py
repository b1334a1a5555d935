"""The main program of a worker process: start, work, say how it went, leave."""

from __future__ import annotations

import inspect
import os
import reprlib
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream
from ataraxis.labels import is_data_array
from ataraxis.pipeline.arrays import (
    relabelled,
    takes_overlap,
    trimmed,
    wants_plain,
)
from ataraxis.pipeline.board import (
    BEGAN_NS,
    BUSY_NS,
    ERRORS,
    LANE,
    PID,
    RUNNING,
    STATE,
    StatusBoard,
    clear,
)
from ataraxis.pipeline.inbox import Job, job_in
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.worker_io import WorkerIO
from ataraxis.shm.context import Context
from ataraxis.shm.process import signal_at_end_of

if TYPE_CHECKING:
    import asyncio

# ---- `Work`: what a worker does with a function: values in, what it returns out


class Work:
    """A function at work: made in the worker, after it was loaded.

    Parameters
    ----------
    function : callable or class
        As for `Processor`.
    spec : WorkerSpec
        What the worker was told.
    io : WorkerIO
        Its way in and out.
    """

    def __init__(self, function: Any, spec: WorkerSpec, io: WorkerIO) -> None:
        self._spec, self._io = spec, io
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
            self._io.say_ready()
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
        io = self._io
        words = io.board.words
        for value in self._through(self._call()):
            io.emit(value, None, None)
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
        """Work off the input queue: plain values at once, anything else as a job."""
        io, spec = self._io, self._spec
        is_plain = not (
            spec.max_batch > 1 or spec.fills or self._takes_overlap or self._loop
        )
        if is_plain:
            io.serve_quickly()
        call, next_value, emit_result = self._call, io.next_value, io.emit_result
        while True:
            if is_plain and io.is_served_quickly():
                while (value := next_value()) is not NotImplemented:
                    try:
                        made = call(value)
                    except BaseException as error:
                        self._end_value(value, error=error)
                    else:
                        if not emit_result(made):
                            self._end_value(value, made)
            self._serve_jobs()

    def _end_value(
        self, value: Any, made: Any = None, error: BaseException | None = None
    ) -> None:
        """Finish a plain value that takes more than a look: its result or its error."""
        job = job_in(self._io.message(value))

        def results() -> list[list[Any]]:
            if error is not None:
                raise error
            return [self._results_of(job, value, made)]

        self._serve_jobs([job], results)

    def _serve_jobs(
        self,
        jobs: list[Job] | None = None,
        results: Callable[[], list[list[Any]]] | None = None,
    ) -> None:
        """Handle the next jobs, or those given: with what came of them, if known."""
        jobs = jobs or self._gather()
        try:
            self._handle(jobs, results or (lambda: self._results(jobs)))
        except BaseException:
            for job in jobs:
                job.give_back()
            raise

    def _gather(self) -> list[Job]:
        """Take a job, or as many as one call takes."""
        io, spec = self._io, self._spec
        jobs = [io.take(None)]
        if spec.max_batch == 1 or jobs[0].attempt > 1:
            return jobs
        deadline = time.monotonic() + spec.max_wait
        while len(jobs) < spec.max_batch:
            try:
                jobs.append(io.take(max(0.0, deadline - time.monotonic())))
            except (TimeoutError, EndOfStream):
                break  # the end is said again by the next look
            except BaseException:
                for job in jobs:
                    job.give_back()
                raise
        return jobs

    def _handle(
        self, jobs: list[Job], results_of_all: Callable[[], list[list[Any]]]
    ) -> None:
        io, spec = self._io, self._spec
        if jobs[0].attempt > 1:
            lane, sequence = jobs[0].lane, jobs[0].sequence
            if io.board.is_poison(spec.index, lane, sequence):
                why = f"it has killed {spec.attempts} workers of {spec.processor!r}"
                self._bury(jobs, why)
                return
        words, row = io.board.words, io.board.of_worker(spec.row)
        try:
            results = results_of_all()
        except Exception as error:
            words[row + ERRORS] += 1
            if spec.on_error != "skip":
                io.failed_with = self._described(jobs)
                raise
            self._bury(jobs, f"{type(error).__name__}: {error}")
            return
        words[row + BUSY_NS] += now_ns() - words[row + BEGAN_NS]
        words[row + BEGAN_NS] = words[row + LANE] = 0  # waiting for room is no hanging
        for job, found in zip(jobs, results, strict=True):
            self._send(job, found)
            io.done(job)

    def _send(self, job: Job, found: list[Any]) -> None:
        try:
            self._io.send_results(job, found)
        except (TypeError, ValueError) as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in found}))
            error.add_note(f"processor {self._spec.processor!r} returned: {kinds}")
            raise

    @staticmethod
    def _described(jobs: list[Job]) -> str:
        """Say which value it was; of a batch, which values."""
        number = f"number {jobs[0].sequence}"
        if len(jobs) > 1:
            return f"values {number} to {jobs[-1].sequence}"
        values = jobs[0].values
        if len(values) != 1:
            return f"value {number}, in {len(values)} parts"
        return f"value {number}: {described(values[0])}"

    def _bury(self, jobs: list[Job], why: str) -> None:
        for job in jobs:
            self._io.dead_letter(job, why)
            self._io.send_results(job, [], is_skipped=True)
            self._io.done(job)

    def _results(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function: what came of each job."""
        if self._spec.max_batch > 1:
            return self._batch(jobs)
        return [[r for value in job.values for r in self._one(job, value)]
                for job in jobs]  # fmt: skip

    def _one(self, job: Job, value: Any) -> list[Any]:
        like = value
        if self._is_plain and is_data_array(value):
            value = value.values
        more = {"overlap": job.overlap} if self._takes_overlap else {}
        return self._results_of(job, like, self._call(value, **more))

    def _results_of(self, job: Job, like: Any, made: Any) -> list[Any]:
        """Return the results in what a call of the function with `like` returned."""
        if inspect.isawaitable(made):
            made = self._await(made)
        if inspect.isgenerator(made) or hasattr(made, "__anext__"):
            found = list(self._through(made))
        else:
            found = [] if made is None else [made]
        if is_data_array(like):
            found = [relabelled(result, like) for result in found]
        if job.overlap and not self._takes_overlap:
            found = [trimmed(result, job.overlap, len(like)) for result in found]
        return found

    def _batch(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function with the values of several jobs, and share the results."""
        values = [value for job in jobs for value in job.values]
        if not values:
            return [[] for _ in jobs]
        given = [v.values if self._is_plain and is_data_array(v) else v for v in values]
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


# ---- the worker main

FAILED = 70
"""Exit code after an exception, which was told before."""


def main(
    given: int | str, told: int | str, parent: int | str, program: int = -1
) -> None:
    """Be a worker: read what to do from `given`, tell the program through `told`.

    `parent` is the process that has started this one; if that is not the program
    itself, `program` is a pidfd of it. Numbers, as text on a command line.
    """
    given, told, parent = int(given), int(told), int(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(given, "rb") as file:
        spec = WorkerSpec.from_bytes(file.read())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        board = StatusBoard.attach(spec.run, spec.context)
        board.words[board.of_worker(spec.row) + PID] = os.getpid()
        _end_with(parent, spec, program)
        io = WorkerIO(spec, board, told)
    except OSError:
        # Whoever was quicker has taken names away already.
        if os.getppid() != parent:
            _orphaned(spec, program)
        raise
    try:
        _work(spec, io)
        with suppress(EndOfStream):  # nobody is left who would have the answer
            io.acknowledge()
    except BaseException as error:
        _leave(io, error)
    _flush()
    # Before the last frame is acknowledged: whoever is killed in between has ended.
    io.tell("done", ended=io.has_ended)
    io.close(is_done=True)
    _flush()


def _work(spec: WorkerSpec, io: WorkerIO) -> None:
    """Run the function to its end; what ends it in good order ends here."""
    try:
        function = spec.code.load()
        if spec.code.kind in ("map", "source"):
            Work(function, spec, io).run()
            return
        # One that gets and emits itself may never connect.
        io.say_ready()
        made: Any = function()
        if inspect.iscoroutine(made):
            import asyncio

            asyncio.run(made)
    except EndOfStream:
        pass
    except SystemExit as error:
        if error.code not in (None, 0):
            raise


def _leave(io: WorkerIO, error: BaseException) -> None:
    """Say what went wrong, and end without a word of the interpreter's own."""
    if isinstance(error, SystemExit):
        io.tell("exit", text=f"sys.exit({error.code!r})")
    else:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        io.tell(
            "error",
            type=type(error).__name__,
            text=str(error),
            notes=notes,
            value=io.failed_with or io.number_in_hand,
            place=_place_of(error),
            traceback=_told(error),
        )
    with suppress(Exception):
        io.close(is_done=False)
    _flush()
    os._exit(FAILED)


def _steps_of(error: BaseException) -> TracebackType | None:
    """Return a traceback without the frames of this library above the user's."""
    steps = error.__traceback__
    while steps is not None and steps.tb_next is not None:
        if not _is_ours(steps):
            break
        steps = steps.tb_next
    return steps


def _is_ours(step: TracebackType) -> bool:
    name = str(step.tb_frame.f_globals.get("__name__", ""))
    return name.startswith("ataraxis.pipeline.")


def _told(error: BaseException) -> str:
    """Write a traceback, as the user's function has it."""
    return "".join(traceback.format_exception(type(error), error, _steps_of(error)))


def _place_of(error: BaseException) -> str:
    """Return where in the user's file it was raised: file, line and function."""
    first = _steps_of(error)
    if first is None or _is_ours(first):
        return ""
    steps = traceback.extract_tb(first)
    mine = [step for step in steps if step.filename == steps[0].filename]
    return f"{mine[-1].filename}:{mine[-1].lineno} in {mine[-1].name}"


def described(value: Any) -> str:
    """Say what a value is, in a line."""
    if isinstance(getattr(value, "shape", None), tuple):
        kind = type(value).__name__
        return f"{kind} of {getattr(value, 'dtype', '?')}, shape {value.shape}"
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception as error:
        return f"{type(value).__name__}, whose repr raises {type(error).__name__}"


def _end_with(parent: int, spec: WorkerSpec, program: int) -> None:
    """End with the process that started this one, and take the run's names along."""
    signal.signal(signal.SIGHUP, lambda *_: _orphaned(spec, program))
    signal_at_end_of(parent, signal.SIGHUP)


def _orphaned(spec: WorkerSpec, program: int) -> NoReturn:
    """End without a parent; if that was a fork server alone, the run goes on."""
    if program < 0 or select.select([program], [], [], 0)[0]:
        _clear(spec)
    os._exit(FAILED)


def _clear(spec: WorkerSpec) -> NoReturn:
    """Take away every name of a run whose program is gone; each worker does."""
    clear(spec.run, Context.of(spec.context))
    os._exit(FAILED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
