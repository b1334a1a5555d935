"""The main program of a worker process: start, work, report the end, leave."""

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
    relabel,
    takes_overlap,
    trim_overlap,
    wants_numpy,
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
from ataraxis.pipeline.inbox import Job, job_of_message
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.worker_io import WorkerIO
from ataraxis.shm.context import Context
from ataraxis.shm.process import signal_at_end_of

if TYPE_CHECKING:
    import asyncio

# ---- `Work`: calls a function with values, and sends its results


class Work:
    """A function at work in its worker.

    Parameters
    ----------
    function : callable or class
        As for `Processor`.
    spec : WorkerSpec
        The worker's settings.
    io : WorkerIO
        Its input and output.
    """

    def __init__(self, function: Any, spec: WorkerSpec, io: WorkerIO) -> None:
        self._spec, self._io = spec, io
        self._wants_numpy = wants_numpy(function)
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
        """Work until the input ends; ``setup()`` before, ``teardown()`` after."""
        try:
            self._do("setup")
            self._io.report_ready()
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
        for value in self._iterate(self._call()):
            io.emit(value, None, None)
            if words[STATE] > RUNNING:
                raise EndOfStream("the pipe is stopping")

    def _iterate(self, made: Any) -> Iterator[Any]:
        """Iterate over a generator, also an asynchronous one."""
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
        """Process the input queue: plain values directly, all others as jobs."""
        io, spec = self._io, self._spec
        is_plain = not (
            spec.max_batch > 1 or spec.fills_gaps or self._takes_overlap or self._loop
        )
        while True:
            if is_plain and io.serve_quickly():
                io.serve(self._call, self._end_value)
            self._serve_jobs()

    def _end_value(self, value: Any, made: Any, error: BaseException | None) -> None:
        """Handle a result of a plain value that the kernel cannot send, or an error."""
        job = job_of_message(self._io.message(value))

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
        """Handle the next jobs, or those given, with their results if known."""
        jobs = jobs or self._gather()
        try:
            self._handle(jobs, results or (lambda: self._results(jobs)))
        except BaseException:
            for job in jobs:
                job.give_back()
            raise

    def _gather(self) -> list[Job]:
        """Take one job, or up to `max_batch` jobs."""
        io, spec = self._io, self._spec
        jobs = [io.take(None)]
        if spec.max_batch == 1 or jobs[0].attempt > 1:
            return jobs
        deadline = time.monotonic() + spec.max_wait
        while len(jobs) < spec.max_batch:
            try:
                jobs.append(io.take(max(0.0, deadline - time.monotonic())))
            except (TimeoutError, EndOfStream):
                break  # the next `take` raises the end again
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
                self._dead_letter(jobs, why)
                return
        words, row = io.board.words, io.board.of_worker(spec.row)
        try:
            results = results_of_all()
        except Exception as error:
            words[row + ERRORS] += 1
            if spec.on_error != "skip":
                io.failed_with = self._described(jobs)
                raise
            self._dead_letter(jobs, f"{type(error).__name__}: {error}")
            return
        if words[row + BEGAN_NS]:  # 0: an emit of the function's own waited
            words[row + BUSY_NS] += now_ns() - words[row + BEGAN_NS]
        # The wait for room does not count for hang_timeout=.
        words[row + BEGAN_NS] = words[row + LANE] = 0
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
        """Return in words which value it is; for a batch, which values."""
        number = f"number {jobs[0].sequence}"
        if len(jobs) > 1:
            return f"values {number} to {jobs[-1].sequence}"
        values = jobs[0].values
        if len(values) != 1:
            return f"value {number}, in {len(values)} parts"
        return f"value {number}: {_described(values[0])}"

    def _dead_letter(self, jobs: list[Job], why: str) -> None:
        for job in jobs:
            self._io.dead_letter(job, why)
            self._io.send_results(job, [], is_skipped=True)
            self._io.done(job)

    def _results(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function; return the results of each job."""
        if self._spec.max_batch > 1:
            return self._batch(jobs)
        return [[r for value in job.values for r in self._one(job, value)]
                for job in jobs]  # fmt: skip

    def _one(self, job: Job, value: Any) -> list[Any]:
        more = {"overlap": job.overlap} if self._takes_overlap else {}
        return self._results_of(job, value, self._call(self._given(value), **more))

    def _given(self, value: Any) -> Any:
        """Return what the function receives: without labels, if it asks for that."""
        return value.values if self._wants_numpy and is_data_array(value) else value

    def _results_of(self, job: Job, like: Any, made: Any) -> list[Any]:
        """Return the results in `made`, which a call with `like` has returned."""
        if inspect.isawaitable(made):
            made = self._await(made)
        if inspect.isgenerator(made) or hasattr(made, "__anext__"):
            found = list(self._iterate(made))
        else:
            found = [] if made is None else [made]
        if is_data_array(like):
            found = [relabel(result, like) for result in found]
        if job.overlap and not self._takes_overlap:
            found = [trim_overlap(result, job.overlap, len(like)) for result in found]
        return found

    def _batch(self, jobs: list[Job]) -> list[list[Any]]:
        """Call the function with the values of several jobs; return their results."""
        values = [value for job in jobs for value in job.values]
        if not values:
            return [[] for _ in jobs]
        made = self._call([self._given(value) for value in values])
        if inspect.isawaitable(made):
            made = self._await(made)
        made = [None] * len(values) if made is None else list(made)
        if len(made) != len(values):
            raise ValueError(
                f"processor {self._spec.processor!r} must return one result for each "
                f"value of a batch, or None; got {len(made)} for {len(values)} values"
            )
        found = iter(zip(values, made, strict=True))
        shares = []
        for job in jobs:
            pairs = [next(found) for _ in job.values]
            shares.append([relabel(m, v) for v, m in pairs if m is not None])
        return shares


def _new_loop() -> asyncio.AbstractEventLoop:
    import asyncio

    return asyncio.new_event_loop()


# ---- the main program

FAILED = 70
"""Exit code after an exception, which was reported before."""


def main(
    spec_file: int | str, messages: int | str, parent: int | str, program: int = -1
) -> None:
    """Run a worker.

    Parameters
    ----------
    spec_file, messages : int or str
        Descriptors: the `WorkerSpec` is read from the one, messages to the program are
        written to the other. On a command line, numbers are text.
    parent : int or str
        The process that has started this one.
    program : int
        A pidfd of the program, if that is not the parent.
    """
    messages, parent = int(messages), int(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(int(spec_file), "rb") as file:
        spec = WorkerSpec.from_bytes(file.read())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        board = StatusBoard.attach(spec.run, spec.context)
        board.words[board.of_worker(spec.row) + PID] = os.getpid()
        _end_with(parent, spec, program)
        io = WorkerIO(spec, board, messages)
    except OSError:
        # Another worker may have removed the names already.
        if os.getppid() != parent:
            _orphaned(spec, program)
        raise
    try:
        _work(spec, io)
        with suppress(EndOfStream):  # no reader is left for the answer
            io.acknowledge()
    except BaseException as error:
        _leave(io, error)
    _flush()
    # Before the last frame is acknowledged: a worker killed in between has ended.
    io.report("done", ended=io.has_ended)
    io.close(is_done=True)
    _flush()


def _work(spec: WorkerSpec, io: WorkerIO) -> None:
    """Run the function to its end; catch what ends it in good order."""
    try:
        if spec.is_foreign:
            for _, code in spec.codes():
                code.load(is_own=True)
        function = spec.code.load()
        if spec.code.kind in ("map", "source"):
            Work(function, spec, io).run()
            return
        # A function that gets and emits itself may never connect.
        io.report_ready()
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
    """Report an error, and end without a traceback of the interpreter."""
    if isinstance(error, SystemExit):
        io.report("exit", text=f"sys.exit({error.code!r})")
    else:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        steps = _steps_of(error)
        io.report(
            "error",
            type=type(error).__name__,
            text=str(error),
            notes=notes,
            value=io.failed_with or io.number_in_hand,
            place=_place_of(steps),
            traceback="".join(traceback.format_exception(type(error), error, steps)),
        )
    with suppress(Exception):
        io.close(is_done=False)
    _flush()
    os._exit(FAILED)


def _steps_of(error: BaseException) -> TracebackType | None:
    """Return a traceback that begins in the user's code, not in this library."""
    steps = error.__traceback__
    while steps is not None and steps.tb_next is not None and _is_internal(steps):
        steps = steps.tb_next
    return steps


def _is_internal(step: TracebackType) -> bool:
    name = str(step.tb_frame.f_globals.get("__name__", ""))
    return name.startswith(("ataraxis.pipeline.", "ataraxis._kernels."))


def _place_of(first: TracebackType | None) -> str:
    """Return where in the user's file it was raised: file, line and function."""
    if first is None or _is_internal(first):
        return ""
    steps = traceback.extract_tb(first)
    last = [step for step in steps if step.filename == steps[0].filename][-1]
    return f"{last.filename}:{last.lineno} in {last.name}"


def _described(value: Any) -> str:
    """Return a description of a value, in one line."""
    if isinstance(getattr(value, "shape", None), tuple):
        kind = type(value).__name__
        return f"{kind} of {getattr(value, 'dtype', '?')}, shape {value.shape}"
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception as error:
        return f"{type(value).__name__}, whose repr raises {type(error).__name__}"


def _end_with(parent: int, spec: WorkerSpec, program: int) -> None:
    """Make this process end when its parent has ended."""
    signal.signal(signal.SIGHUP, lambda *_: _orphaned(spec, program))
    signal_at_end_of(parent, signal.SIGHUP)


def _orphaned(spec: WorkerSpec, program: int) -> NoReturn:
    """End without a parent; remove the run's names if the program has ended.

    It has not if the parent was a fork server: then the run continues.
    """
    if program < 0 or select.select([program], [], [], 0)[0]:
        clear(spec.run, Context.of(spec.context))
    os._exit(FAILED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
