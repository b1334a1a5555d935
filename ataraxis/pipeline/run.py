"""`Run`: a pipe that is running, and all that can be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from ataraxis.frame import DType
from ataraxis.pipeline import board as words_of
from ataraxis.pipeline.board import STATES
from ataraxis.pipeline.course import Course
from ataraxis.pipeline.event import Event
from ataraxis.pipeline.patience import EMIT_WAIT_S

if TYPE_CHECKING:
    import xarray as xr


class Run(Course):
    """A pipe that is running. Made by `Pipe.run` and ``await pipe.start()``.

    A context manager: waits for the pipe's end, or terminates it after an exception.

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

    # ---- what it is

    @property
    def name(self) -> str:
        """Its name in the context: that of the pipe, and a part of its own."""
        return self._plan.run

    @property
    def state(self) -> str:
        """'running', 'completed', 'failed' or 'terminated'."""
        return STATES[self._state]

    @property
    def letters(self) -> Any:
        """The directory of dead letters, there once there is one."""
        return self._plan.letters

    @property
    def progress(self) -> tuple[int, int | None]:
        """How many values were fed, and of how many, if that is known."""
        return self._head.fed, self._total

    @property
    def workers(self) -> dict[tuple[str, int], int | None]:
        """The process id of each worker, by processor and number.

        None: it has no process now, since it is being started, or has ended.
        """
        words = self._words()
        return {
            (spec.processor, spec.worker): int(
                words[self._board.of_worker(spec.row) + words_of.PID]
            )
            or None  # to signal 0 would be to signal the program itself
            for spec in self._plan.specs()
        }

    # ---- in

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
            The pipe takes no more.
        """
        return self._head.send(value, dtype, timeout)

    def call(
        self, value: Any, dtype: DType | int | None = None, timeout: float | None = None
    ) -> Any:
        """Put a value in, and return what the last processor made of it.

        A list, if it made several; None, if nothing. With several last processors,
        what comes first.

        Raises
        ------
        TimeoutError
            Nothing came within `timeout`, s.
        PipeError
            The pipe failed meanwhile.
        """
        return self.submit(value, dtype, timeout).result(timeout)

    def submit(
        self, value: Any, dtype: DType | int | None = None, timeout: float | None = None
    ) -> Future[Any]:
        """Put a value in: a future of what the last processor makes of it."""
        future: Future[Any] = Future()
        if not self._head.send(value, dtype, timeout, future=future):
            raise TimeoutError(f"the pipe had no room within {timeout} s")
        return future

    # ---- to the end

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the pipe has completed.

        Raises
        ------
        PipeError
            It failed: a group of `ProcessorError`, with the tracebacks of the workers.
        TimeoutError
            It has not within `timeout`, s; it goes on.
        """
        self._done.result(timeout)
        self._join()

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until every worker takes part. Raises as `wait`."""
        self._ready.result(timeout)

    async def ready(self) -> None:
        """Wait until every worker takes part; awaited."""
        await asyncio.shield(asyncio.wrap_future(self._ready))

    async def completion(self) -> None:
        """Wait until the pipe has completed; awaited. Raises as `wait`."""
        await asyncio.shield(asyncio.wrap_future(self._done))
        self._join()

    def stop(self, timeout: float | None = None, *, wait: bool = True) -> None:
        """Let the pipe run dry: sources end, what is inside comes out, all end.

        Raises as `wait`, unless `wait` is false.
        """
        self._supervisor.do(self._stop)
        if wait:
            self.wait(timeout)

    def terminate(self) -> None:
        """End every worker now, once; what is inside is lost."""

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
            # Nothing, unless something was raised: here, or in the block.
            self.terminate()

    # ---- seeing it

    @property
    def history(self) -> list[Event]:
        """What has happened, the last 10,000 events."""
        with self._gate:
            return list(self._events)

    async def events(self) -> AsyncIterator[Event]:
        """Go through what has happened and happens, until the run has ended.

        Examples
        --------
        ``async for event in run.events(): show(event)``
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        listener = (asyncio.get_running_loop(), queue)
        with self._gate:
            known = list(self._events)
            self._listeners.append(listener)
        try:
            for event in known:
                yield event
                if event.what in STATES:
                    return
            while True:
                event = await queue.get()
                yield event
                if event.what in STATES:
                    return
        finally:
            with self._gate:
                self._listeners.remove(listener)

    def statistics(self) -> xr.Dataset:
        """Return what every worker, processor and edge has done, as xarray.

        See `ataraxis.pipeline.readings.dataset` for what is in it.
        """
        from ataraxis.pipeline.readings import dataset

        return dataset(self._plan.about(), self._words())

    def __repr__(self) -> str:
        return f"<Run {self.name!r}, {self.state}>"

    def _repr_svg_(self) -> str:
        """Draw the graph, for a notebook."""
        from ataraxis.pipeline.drawing import svg

        return svg(self.graph)
