"""`Pipe`: processors joined into a graph; a value until it is started."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Self

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline.engine import Engine
from ataraxis.pipeline.graph import Graph, read_json
from ataraxis.pipeline.local import Start
from ataraxis.pipeline.processors import Processor
from ataraxis.pipeline.run import Run
from ataraxis.pipeline.worker_io import emitted
from ataraxis.shm.context import ContextLike, checked_name


class Pipe:
    """A graph of processors.

    Parameters
    ----------
    name : str
        Any number of pipes may have it, and run at once.
    context : Context, str, Path or None
        The directory that its queues live in, while it runs.
    letters : str or Path, optional
        Directory of dead letters: values that killed their workers, or that nobody
        could read. One of the system's temporary directory, if not given; made when
        there is a first one.

    Notes
    -----
    Nothing is started, and no file touched, before `start` or `run`.

    Examples
    --------
    >>> def double(value):
    ...     return 2 * value
    >>> pipe = Pipe("doubled")
    >>> last = pipe.add(Processor("a", func=double)).add(Processor("b", func=double))
    >>> with pipe.run() as run:
    ...     run.call(1), run.call(2)
    ...     run.stop()
    (4, 8)
    """

    def __init__(
        self, name: str, *, context: ContextLike = None, letters: Any = None
    ) -> None:
        self._name = checked_name(name)
        self._context, self._letters = context, letters
        self._roots: list[Processor] = []
        self._run: Run | None = None

    # ---- the graph

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def add(self, processor: Processor) -> Processor:
        """Add a first processor; returns it, so that the next one is added to it."""
        if not isinstance(processor, Processor):
            raise TypeError(f"add({processor!r}): a Processor")
        if processor not in self._roots:
            self._roots.append(processor)
        return processor

    def graph(self) -> Graph:
        """Return the graph as it is now, checked.

        Raises
        ------
        ValueError
            It cannot run: says why, all of it.
        """
        return Graph.of(self._name, self._roots)

    def to_json(self) -> str:
        """Write the graph as JSON; functions of a notebook go as cloudpickle."""
        return self.graph().to_json()

    @classmethod
    def from_json(
        cls, text: str, *, allow_pickle: bool = False, context: ContextLike = None
    ) -> Pipe:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            It is no pipe, or a function in it is a pickle (`allow_pickle` false).
        """
        name, roots = read_json(text, allow_pickle=allow_pickle)
        pipe = cls(name, context=context)
        for root in roots:
            pipe.add(root)
        return pipe

    # ---- plain

    def run(
        self,
        source: Any = None,
        sink: Any = None,
        *,
        engine: Engine | Start | None = None,
    ) -> Run:
        """Start it: every worker is being started when this returns.

        Parameters
        ----------
        source : iterable, Consumer or datamux Source, optional
            What the first processors have; then the pipe ends when it has ended.
            Without it they have what `Run.emit` and `Run.call` put in, until
            `Run.stop`.
        sink : callable, list, queue, Producer, JournalWriter, DataLogger or DataArray
            Has every result of the last processors, each once. A `xarray.DataArray` is
            filled along its first dimension.
        engine : Engine, 'spawn' or 'forkserver', optional
            Where and how workers are started; here, each a new interpreter, if not
            given. See `Local`.

        Raises
        ------
        ValueError
            The graph cannot run; nothing was started.
        RuntimeError
            It runs already.
        """
        if self._run is not None and self._run.state == "running":
            raise RuntimeError(f"pipe {self._name!r} runs already: wait for its end")
        self._run = Run(
            self.graph(),
            source,
            sink,
            engine=engine,
            context=self._context,
            letters=self._letters,
        )
        return self._run

    def map(self, source: Iterable[Any]) -> Iterator[Any]:
        """Feed the pipe, and go through what comes out, as it comes.

        Examples
        --------
        >>> pipe = Pipe("doc_map")
        >>> _ = pipe.add(Processor("absolute", func=abs))
        >>> list(pipe.map([-1, -2]))
        [1, 2]
        """
        results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        run = self.run(source, lambda value: results.put((True, value)))
        run.when_over(lambda: results.put((False, None)))
        try:
            while (found := results.get())[0]:
                yield found[1]
        except BaseException:
            run.terminate()
            raise
        run.wait()

    # ---- awaited

    async def start(
        self,
        source: Any = None,
        sink: Any = None,
        *,
        engine: Engine | Start | None = None,
    ) -> Run:
        """Start it, and wait until every worker takes part. See `run`.

        Raises
        ------
        PipeError
            A worker could not be started.
        """
        run = self.run(source, sink, engine=engine)
        await run.ready()
        return run

    async def load(self) -> Self:
        """Check the graph; there is no server to load it into."""
        self.graph()
        return self

    @property
    def execution(self) -> Run:
        """The run that was started last."""
        if self._run is None:
            raise NotConnectedError(
                f"pipe {self._name!r} was not started: await start(), or run()"
            )
        return self._run

    async def wait_for_completion(self) -> None:
        """Wait until the pipe has completed.

        Raises
        ------
        PipeError
            It failed: a group of `ProcessorError`, with the tracebacks of the workers.
        """
        await self.execution.completion()

    async def emit(self, value: Any, d_type: DType | int | None = None) -> bool:
        """Put a value into the first processors; False: no room within 0.5 s."""
        return await emitted(self.execution.emit, value, d_type)

    async def emit_sync(
        self, value: Any, d_type: DType | int | None = None, timeout_ms: float = -1
    ) -> Any:
        """Put a value in, and return what the last processor made of it.

        Raises
        ------
        TimeoutError
            Nothing came within `timeout_ms`; -1: wait for ever.
        PipeError
            The pipe failed meanwhile.
        """
        run = self.execution
        timeout = None if timeout_ms < 0 else timeout_ms * 1e-3
        loop = asyncio.get_running_loop()
        try:
            future = run.submit(value, d_type, 0)
        except TimeoutError:
            future = await loop.run_in_executor(
                None, run.submit, value, d_type, timeout
            )
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout)

    async def stop(self) -> None:
        """Let it run dry, and wait for its end. Raises as `wait_for_completion`."""
        self.execution.stop(wait=False)
        await self.execution.completion()

    def terminate(self) -> None:
        """End every worker now, if it runs; what is inside is lost."""
        if self._run is not None:
            self._run.terminate()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._run is not None and self._run.state == "running"

    @property
    def completed(self) -> bool:
        """Whether it has completed; never true of one that failed."""
        return self._run is not None and self._run.state == "completed"

    def __repr__(self) -> str:
        state = "not started" if self._run is None else self._run.state
        return f"<Pipe {self._name!r}, {state}>"

    def _repr_svg_(self) -> str:
        """Draw the graph, for a notebook."""
        from ataraxis.pipeline.graph import svg

        return svg(self.graph())
