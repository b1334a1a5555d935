"""`Run`: a pipe that is running, its values, events and statistics."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream, PipeError, ProcessorError
from ataraxis.frame import DType
from ataraxis.pipeline import board as words_of
from ataraxis.pipeline.board import (
    FINISHED,
    RUNNING,
    STATES,
    TERMINATED,
    StatusBoard,
    reap_dead_runs,
)
from ataraxis.pipeline.collector import GRACE_S, Collector, result_sink_of
from ataraxis.pipeline.dead_letters import DeadLetters
from ataraxis.pipeline.engine import Engine, Local, Start
from ataraxis.pipeline.feeder import Feeder
from ataraxis.pipeline.frames import lane_of, last_frame
from ataraxis.pipeline.graph import Graph
from ataraxis.pipeline.placement import place
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.supervisor import Event, Supervisor, What, WorkerSlot
from ataraxis.pipeline.worker_io import EMIT_WAIT_S
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.thread import Outcome, Thread

if TYPE_CHECKING:
    import xarray as xr

_KEPT_EVENTS = 10_000
_SLICE_S = 0.25
_EXIT_S = 8.0
_IDLE_S = 0.02


def _at_exit(supervisor: Supervisor) -> None:
    """End the workers with the program."""
    supervisor.do(supervisor.finish)
    supervisor.thread.join(_EXIT_S)


class Run:
    """A pipe that is running, from `Pipe.run` or ``await pipe.start()``.

    As a context manager, it waits for the end of the pipe, or terminates it after an
    exception.

    Examples
    --------
    >>> from ataraxis.pipeline import Pipe, Processor
    >>> pipe = Pipe("doc_run")
    >>> _ = pipe.add(Processor("absolute", func=abs))
    >>> found = []
    >>> with pipe.run([-1, 2, -3], found) as run:
    ...     run.wait(timeout=60)
    >>> found, run.state
    ([1, 2, 3], 'completed')
    """

    def __init__(
        self,
        graph: Graph,
        source: Any = None,
        sink: Any = None,
        *,
        engine: Engine | Start | None = None,
        context: ContextLike = None,
        dead_letters: Any = None,
        on_skip: Callable[[], object] | None = None,
    ) -> None:
        name = f"{graph.name}-{uuid.uuid4().hex[:8]}"
        if dead_letters is None:
            dead_letters = Path(tempfile.gettempdir()) / f"ataraxis-letters-{name}"
        self.graph = graph
        result_sink = None if sink is None else result_sink_of(sink)
        self._local: Local | None = None
        if engine is None or isinstance(engine, str):
            engine = self._local = Local(engine or "spawn")
        self._engine: Engine = engine
        hosts = tuple(engine.hosts())
        self._plan = Plan(
            graph,
            name,
            Context.of(context),
            Path(dead_letters).resolve(),
            sink is not None,
            hosts,
            place(graph, hosts),
        )
        self._all_specs = specs = self._plan.specs()
        self._ready: Future[None] = Outcome()
        self._done: Future[None] = Outcome()
        self._finished: set[int] = set()
        # Input queues whose last frames wait until the queues before them are empty.
        self._ending: dict[str, int] = {}
        self._ended: set[str] = set()
        self._put_at_loss: dict[tuple[int, int], int] = {}
        self._listeners: list[tuple[Any, Any]] = []
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._gate = threading.Lock()
        self._threads: list[Thread] = []
        self._state = RUNNING
        self._kept: deque[Any] | None = None
        self._is_stopping = self._is_terminated = False
        self._total = len(source) if hasattr(source, "__len__") else None
        self._open(result_sink, on_skip)
        self._supervisor = Supervisor(
            [WorkerSlot(spec, graph.nodes[spec.index]) for spec in specs],
            engine,
            self._board,
            self._tell,
            self._sweep,
            self._became_ready,
            self._processor_finished,
            self._over,
            self._placed,
            self._put_ends,
        )
        self._ender = weakref.finalize(self, _at_exit, self._supervisor)
        self._collector.thread.start()
        self._supervisor.start()
        if source is not None:
            self._feeder.feed(source, self._after("source", self._close_head))

    def _open(self, result_sink: Any, on_skip: Any) -> None:
        """Create everything that is shared, or nothing."""
        plan = self._plan
        reap_dead_runs(plan.context)
        self._queues = plan.make_queues()
        try:
            self._board = StatusBoard.create(plan.run, plan.about(), plan.context)
            self._credit = SharedMemoryArray.create_array(
                plan.credit, np.zeros(1, np.int64), context=plan.context
            )
            self._board.words[words_of.STARTED] = now_ns()
            for spec in self._all_specs:
                self._note_host(spec)
            self._feeder = Feeder(plan, self._board)
            self._collector = Collector(
                plan,
                self._board,
                result_sink,
                self._feeder.answer,
                self._after("sink", lambda: self._supervisor.finish()),
                on_skip,
            )
            self._engine.prepare(plan, self._board)
        except BaseException:
            self._drop()
            raise
        self._snapshot = self._board.array.copy()

    def _drop(self) -> None:
        """Remove what `_open` has created before it failed."""
        if hasattr(self, "_collector"):
            self._collector.close()
        for queue in self._queues.values():
            queue.unlink()
        if hasattr(self, "_credit"):
            self._credit.disconnect()
            self._credit.destroy()
        if hasattr(self, "_board"):
            self._board.close()
        if self._local is not None:
            self._local.close()

    # ---- attributes

    @property
    def name(self) -> str:
        """Name in the context: the pipe's name and a random part."""
        return self._plan.run

    @property
    def state(self) -> str:
        """'running', 'completed', 'failed' or 'terminated'."""
        return STATES[self._state]

    @property
    def dead_letters(self) -> DeadLetters:
        """The values that were not processed, with the reason; see `on_error`."""
        return DeadLetters(self._plan.dead_letters, self._plan.run)

    @property
    def letters(self) -> Path:
        """The directory of the dead letters; it exists once there is one."""
        return self._plan.dead_letters

    @property
    def progress(self) -> tuple[int, int | None]:
        """How many values were put in, and of how many, if that is known."""
        return self._feeder.fed, self._total

    @property
    def workers(self) -> dict[tuple[str, int], int | None]:
        """The process id of each worker, by processor and number.

        None: it has no process now, since it is starting or has ended.
        """
        words = self._words()
        return {
            (spec.processor, spec.worker): int(
                words[self._board.of_worker(spec.row) + words_of.PID]
            )
            or None  # pid 0 would signal the program itself
            for spec in self._all_specs
        }

    @property
    def where(self) -> dict[tuple[str, int], str]:
        """The host of each worker, by processor and number; 'localhost': this one."""
        return {
            (spec.processor, spec.worker): self._plan.host_of(spec.row)
            for spec in self._all_specs
        }

    @property
    def is_stopping(self) -> bool:
        """Whether it is stopping, or has ended."""
        return self._is_stopping or self._is_terminated or self._state != RUNNING

    @property
    def late_answers(self) -> int:
        """How many results came for callers that had given up, and were dropped."""
        return self._feeder.late

    @property
    def skipped(self) -> int:
        """How many values came out as dead letters instead of results."""
        return self._collector.skipped

    @property
    def kept(self) -> deque[Any]:
        """Results for which no caller waits, from the first use of this on.

        Its length has no limit: take them out.
        """
        if self._kept is None:
            self._kept = deque()
            with self._gate:
                if self._state == RUNNING:
                    self._collector.keep(self._kept)
        return self._kept

    @property
    def history(self) -> list[Event]:
        """The last 10,000 events."""
        with self._gate:
            return list(self._events)

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over past and new events, until the run has ended.

        Examples
        --------
        ``async for event in run.events(): show(event)``
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        listener = (asyncio.get_running_loop(), queue)
        with self._gate:
            for event in self._events:
                queue.put_nowait(event)
            self._listeners.append(listener)
        try:
            while True:
                event = await queue.get()
                yield event
                if event.what in STATES:
                    return
        finally:
            with self._gate:
                self._listeners.remove(listener)

    def statistics(self) -> xr.Dataset:
        """Return the counters of every worker, processor and edge, as xarray.

        See `ataraxis.pipeline.statistics.dataset` for its variables.
        """
        from ataraxis.pipeline.statistics import dataset

        return dataset(self._plan.about(), self._words())

    def _words(self) -> Any:
        with self._gate:
            if self._state == RUNNING:
                self._snapshot = self._board.array.copy()
            return self._snapshot

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("run", self)

    def __repr__(self) -> str:
        notes = [self.state, f"{self._feeder.fed} values in"]
        if self.skipped:
            notes.append(f"{self.skipped} skipped, in {str(self.letters)!r}")
        if self.late_answers:
            notes.append(f"{self.late_answers} late answers dropped")
        return f"<Run {self.name!r}, {', '.join(notes)}>"

    def _repr_svg_(self) -> str:
        """Return a drawing of the graph, for a notebook."""
        from ataraxis.pipeline.graph import svg

        return svg(self.graph)

    # ---- values

    def emit(
        self,
        value: Any,
        dtype: DType | int | None = None,
        timeout: float | None = EMIT_WAIT_S,
    ) -> bool:
        """Put a value into the first processors; False: no room within `timeout`, s.

        Raises
        ------
        EndOfStream
            The pipe is stopping or has ended.
        PipeError
            The pipe has failed.
        """
        return self._feeder.send(value, dtype, timeout)

    def call(
        self, value: Any, dtype: DType | int | None = None, timeout: float | None = None
    ) -> Any:
        """Put a value in, and return its result.

        The result is a list if there are several, and None if there is none. With
        several last processors, the first result counts.

        Raises
        ------
        TimeoutError
            The result did not come within `timeout`, s.
        PipeError
            The pipe has failed.
        ProcessorError
            The value went to the dead letters.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        future = self.submit(value, dtype, timeout)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return future.result(left)
        except TimeoutError:
            # Raised here, or by the pipe? A cancelled future gets no answer.
            if not future.cancel():
                raise
            raise TimeoutError(f"the pipe did not answer within {timeout} s") from None

    def submit(
        self, value: Any, dtype: DType | int | None = None, timeout: float | None = None
    ) -> Future[Any]:
        """Put a value in; return a future of its result. See `call`."""
        future: Future[Any] = Outcome()
        if not self._feeder.send(value, dtype, timeout, future=future):
            raise TimeoutError(f"the pipe had no room within {timeout} s")
        return future

    async def submit_async(
        self, value: Any, dtype: DType | int | None = None, timeout: float | None = None
    ) -> Future[Any]:
        """Put a value in as `submit` does; if cancelled, it has not been put."""
        future: Future[Any] = Outcome()
        if not await self._feeder.send_async(value, dtype, timeout, future):
            raise TimeoutError(f"the pipe had no room within {timeout} s")
        return future

    async def emit_async(
        self,
        value: Any,
        dtype: DType | int | None = None,
        timeout: float | None = EMIT_WAIT_S,
    ) -> bool:
        """Put a value in as `emit` does; if cancelled, it has not been put."""
        return await self._feeder.send_async(value, dtype, timeout)

    # ---- the end

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the pipe has completed.

        Raises
        ------
        PipeError
            It failed: a group of `ProcessorError`, with the tracebacks of the workers.
        TimeoutError
            It has not completed within `timeout`, s; it continues.
        """
        self._done.result(timeout)
        self._join()

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until every worker takes part. Raises as `wait`."""
        self._ready.result(timeout)

    async def ready(self) -> None:
        """Wait until every worker takes part. Raises as `wait`."""
        await asyncio.shield(asyncio.wrap_future(self._ready))

    async def completion(self) -> None:
        """Wait until the pipe has completed. Raises as `wait`."""
        await asyncio.shield(asyncio.wrap_future(self._done))
        self._join()

    def stop(self, timeout: float | None = None, *, wait: bool = True) -> None:
        """Stop the sources, let the pipe process the values in it, and wait.

        With ``wait=False``, return at once. Raises as `wait`.
        """
        self._supervisor.do(self._stop)
        if wait:
            self.wait(timeout)

    def terminate(self) -> None:
        """End every worker now; values in the pipe are lost."""

        def end() -> None:
            self._is_terminated = True
            self._supervisor.finish()

        self._supervisor.do(end)
        self._supervisor.thread.join()
        self._join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Wait for the end; terminate after an exception."""
        try:
            if kind is None:
                self.wait()
        finally:
            # Without an exception, the run has ended, and this does nothing.
            self.terminate()

    def when_over(self, call: Callable[[], object]) -> None:
        """Call a function when the run has ended, in the supervisor's thread."""
        self._done.add_done_callback(lambda _: call())

    # ---- reactions; in the supervisor's thread, unless stated otherwise

    def _sweep(self) -> None:
        """Give back the leases of dead workers."""
        for queue in self._queues.values():
            queue.sweep()

    def _became_ready(self) -> None:
        words = self._board.words
        if words[words_of.STATE] == words_of.STARTING:
            words[words_of.STATE] = RUNNING
        if not self._ready.done():
            self._ready.set_result(None)

    def _processor_finished(self, index: int) -> None:
        self._finished.add(index)
        self._board.words[self._board.of_processor(index)] = FINISHED
        self._pass_end_on()

    def _pass_end_on(self) -> None:
        """Put last frames into the queues of processors whose parents have finished."""
        ended = self._finished | ({-1} if self._feeder.is_closed else set())
        for node in self.graph.nodes:
            if node.index not in self._finished and ended.issuperset(node.parents):
                inboxes = self._plan.inboxes(node)
                for name in inboxes:
                    self._ending.setdefault(name, node.index)
        if len(self._finished) == len(self.graph.nodes):
            self._feeder.close()
            self._ending.setdefault(self._plan.end, -1)
        self._put_ends()

    def _put_ends(self) -> float | None:
        """Put last frames into queues after all that goes there from other hosts.

        Returns within what time to try again, s; None: there is nothing to wait for.
        """
        plan, is_waiting = self._plan, False
        for name, index in self._ending.items():
            readers = Counter(plan.readers_of(name, index))
            left = [h for h in readers if f"{h}:{name}" not in self._ended]
            if left and not all(map(self._is_idle, plan.edges_into(name))):
                is_waiting = True
                continue
            for host in left:
                self._ended.add(f"{host}:{name}")
                self._engine.end(host, name, readers[host])
                if host == plan.home:
                    self._end(name, readers[host])
        return _IDLE_S if is_waiting else None

    def _is_idle(self, queue: tuple[str, str]) -> bool:
        """Return whether a queue whose values go to another host has none left."""
        host, name = queue
        if host != self._plan.home:
            return self._engine.is_idle(host, name)
        with suppress(TimeoutError):
            self._queues[name].join(0)
            return True
        return False

    def _placed(self, spec: WorkerSpec) -> WorkerSpec | None:
        """Return a worker for the host where it can be started now; None: not yet."""
        plan = self._plan
        allowed = plan.candidates(spec.index)
        hosts = [host for host in (spec.host, *allowed) if self._engine.is_up(host)]
        if not hosts or (spec.is_resumed and not self._has_collected(spec)):
            return None
        if spec.is_resumed:
            self._set_lanes_back(spec)
        moved = plan.moved(spec, hosts[0])
        self._note_host(moved)
        if moved.host != spec.host:
            self._engine.connect(plan)
        if moved.is_resumed and spec.inbox:
            # Its queue there may be a new one, without a last frame.
            self._ended.discard(f"{moved.host}:{spec.inbox}")
        return moved

    def _note_host(self, spec: WorkerSpec) -> None:
        """Write where a worker runs on the board."""
        names = [host.name for host in self._plan.hosts]
        host = self._board.of_worker(spec.row) + words_of.HOST
        self._board.words[host] = names.index(self._plan.host_of(spec.row))

    def _has_collected(self, spec: WorkerSpec) -> bool:
        """Return whether all that was at the end when a worker was lost was taken."""
        counts = self._queues[self._plan.end].statistics()
        key = spec.row, spec.generation
        put = self._put_at_loss.setdefault(key, counts.put)
        return counts.acknowledged >= put

    def _set_lanes_back(self, spec: WorkerSpec) -> None:
        """Let a worker that puts values in order begin where its results are missing.

        What it has finished after that was lost with its host, and comes again.
        """
        if not spec.ordered_parents or not self._plan.has_sink:
            return
        board = self._board
        first = board.of_processor(spec.index) + words_of.LANES
        for at in range(first, first + 2 * words_of.MOST_LANES, 2):
            if lane := board.words[at]:
                ends = list(self._ends_of(spec.index, lane))
                missing = [self._collector.first_missing(e, k) for k, e in ends]
                board.words[at + 1] = min(missing, default=0)

    def _ends_of(self, index: int, lane: int) -> Iterator[tuple[int, int]]:
        """Yield each last processor, and the lane of results there, below a lane."""
        node = self.graph.nodes[index]
        lane = lane_of(lane, index)
        if not node.children:
            yield index, lane
        for child in node.children:
            yield from self._ends_of(child, lane)

    def _end(self, name: str, count: int) -> None:
        """Put `count` last frames into a queue: one for each of its readers."""
        queue = self._queues[name]
        frame = last_frame()
        while count and queue.offer(frame, 0):
            count -= 1
        if not count:
            return

        def later() -> None:
            left = count
            with suppress(Exception):  # the end of the run closes the queue
                while left:
                    left -= queue.offer(frame, _SLICE_S)

        thread = Thread(later, "ataraxis-pipe-last")
        self._threads.append(thread)
        thread.start()

    def _after(
        self, name: str, command: Callable[[], None]
    ) -> Callable[[Exception | None], None]:
        """Return a call for the end of the source or sink: do a command, or fail."""

        def on_over(problem: Exception | None) -> None:
            if problem is None:
                self._supervisor.do(command)
                return
            error = _error(f"the {name} of the pipe", problem)
            self._supervisor.do(lambda: self._supervisor.finish(error))

        return on_over

    def _over(self, errors: list[ProcessorError]) -> None:
        """Remove everything, and report how the run went.

        Each step is taken, also if the one before raised: the run ends in any case.
        """
        finished = len(self._finished) == len(self.graph.nodes)
        if not errors and not finished and not self._is_terminated:
            errors = [ProcessorError("the pipe ended before its processors had")]
        failure = self._failure(errors)
        state = words_of.FAILED if failure else FINISHED if finished else TERMINATED
        what: What = "failed" if failure else "completed" if finished else "terminated"

        def conclude() -> None:
            with self._gate:
                self._snapshot = self._board.array.copy()
                self._state = state

        ended = failure or EndOfStream(
            "the pipe was terminated, and the values in it are lost"
            if state == TERMINATED
            else "the pipe has ended"
        )
        steps: list[Callable[[], object]] = [
            lambda: self._feeder.close(ended),
            lambda: self._engine.release(self.name),
            self._collector.close,
            conclude,
            *(queue.unlink for queue in self._queues.values()),
            self._credit.disconnect,
            self._credit.destroy,
            self._board.close,
        ]
        if self._local is not None:
            steps.append(self._local.close)
        steps.append(self._ender.detach)
        for step in steps:
            try:
                step()
            except Exception as error:
                errors = [*errors, _error("its end", error)]
                failure, what = self._failure(errors), "failed"
                self._state = words_of.FAILED
        self._tell(Event(what, now_ns(), text=str(failure or "")))
        for future in (self._ready, self._done):
            if failure is not None and not future.done():
                future.set_exception(failure)
            elif not future.done():
                future.set_result(None)

    def _failure(self, errors: list[ProcessorError]) -> PipeError | None:
        """Return the error of the pipe, whose text is that of the first one."""
        if not errors:
            return None
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        text = f"pipe {self.graph.name!r} failed: {errors[0]}{more}"
        return PipeError(text, errors)

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = self._supervisor.is_stopping = True
        self._tell(Event("stopping", now_ns()))
        self._board.words[words_of.STATE] = FINISHED
        self._close_head()

    def _close_head(self) -> None:
        self._feeder.close()
        self._pass_end_on()

    def _join(self) -> None:
        for thread in (self._supervisor.thread, self._feeder.thread, *self._threads):
            if thread is not None:
                thread.join(GRACE_S)

    def _tell(self, event: Event) -> None:
        with self._gate:
            self._events.append(event)
            listeners = list(self._listeners)
        for loop, queue in listeners:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(queue.put_nowait, event)


def _error(name: str, cause: Exception) -> ProcessorError:
    error = ProcessorError(f"{name} raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
