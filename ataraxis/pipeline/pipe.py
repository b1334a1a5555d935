"""`Pipe`: a graph of processors, and its results."""

from __future__ import annotations

import asyncio
import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Self

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline.dead_letters import DeadLetters
from ataraxis.pipeline.engine import Engine, Start
from ataraxis.pipeline.graph import Graph, read_json
from ataraxis.pipeline.processors import Processor
from ataraxis.pipeline.run import Run
from ataraxis.pipeline.upipe import ReadyResult, SinkQueue
from ataraxis.shm.context import ContextLike, checked_name

_log = logging.getLogger("ataraxis.pipeline")
_NONE, _END = object(), object()


class Pipe:
    """A graph of processors.

    Parameters
    ----------
    name : str
        Several pipes with one name may run at once.
    context : Context, str, Path or None
        The directory of its queues while it runs.
    dead_letters : str or Path, optional
        Directory of dead letters: values that could not be processed. If not given, one
        in the system's temporary directory. Created with the first of them.

    Notes
    -----
    Before `start`, `run` or `map`, no process is started and no file created.

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
        self,
        name: str,
        *,
        context: ContextLike = None,
        dead_letters: Any = None,
        letters: Any = None,
    ) -> None:
        if letters is not None and dead_letters is not None:
            raise TypeError("give dead_letters= or letters=, its old name, not both")
        self._name = checked_name(name)
        self._context = context
        self._dead_letters = letters if dead_letters is None else dead_letters
        self._roots: list[Processor] = []
        self._run: Run | None = None
        self._is_parallel = False

    # ---- the graph

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def add(self, processor: Processor) -> Processor:
        """Add a first processor; return it, to add the next one to it.

        A chain is ``pipe.add(a).add(b)``. ``pipe.add(a); pipe.add(b)`` makes two first
        processors, as in uPipe, where a pipe may begin with two producers. If both take
        values, and one is also the last, each value has two results and `run` warns;
        `connect_to` confirms that it is intended.
        """
        if not isinstance(processor, Processor):
            raise TypeError(f"add() needs a Processor, got {processor!r}")
        if processor not in self._roots:
            self._roots.append(processor)
        return processor

    def connect_to(self, *processors: Processor) -> Self:
        """Add several first processors, which get every value; return this pipe."""
        for processor in processors:
            self.add(processor)
        self._is_parallel = True
        return self

    def graph(self) -> Graph:
        """Return the graph as it is now.

        Raises
        ------
        ValueError
            It cannot run; the message lists all reasons.
        """
        return Graph.of(self._name, self._roots)

    def to_json(self) -> str:
        """Return the graph as JSON, with functions of a notebook as cloudpickle."""
        return self.graph().to_json()

    @classmethod
    def from_json(
        cls, text: str, *, allow_pickle: bool = False, context: ContextLike = None
    ) -> Pipe:
        """Return the pipe of which `to_json` has returned `text`.

        Raises
        ------
        ValueError
            `text` is not the JSON of a pipe, or a function in it is a pickle
            (`allow_pickle` false).
        """
        name, roots = read_json(text, allow_pickle=allow_pickle)
        return cls(name, context=context).connect_to(*roots)

    # ---- without asyncio

    def run(
        self,
        source: Any = None,
        sink: Any = None,
        *,
        engine: Engine | Start | None = None,
    ) -> Run:
        """Start it, and return without waiting for the workers.

        Parameters
        ----------
        source : iterable, Consumer or datamux Source, optional
            Gives the values for the first processors; the pipe ends when it ends.
            Without it, `Run.emit` and `Run.call` put values in, until `Run.stop`.
        sink : callable, list, queue, Producer, JournalWriter, DataLogger or DataArray
            Receives every result of the last processors, each once. A
            `xarray.DataArray` is filled along its first dimension.
        engine : Engine, 'spawn' or 'forkserver', optional
            Where and how workers are started. If not given, on this machine, each as a
            new interpreter. See `Local`.

        Raises
        ------
        ValueError
            The graph cannot run; nothing was started.
        RuntimeError
            The pipe runs already.
        """
        if self.running:
            raise RuntimeError(f"pipe {self._name!r} runs already: wait for its end")
        return self._start(source, sink, engine)

    def _start(
        self,
        source: Any,
        sink: Any,
        engine: Any = None,
        on_skip: Any = None,
        depth: int = 3,
    ) -> Run:
        # `depth`: the distance to the call of the user, for warnings.
        graph = self.graph()
        if not self._is_parallel and (heads := graph.parallel_heads()):
            names = ", ".join(map(repr, heads))
            warnings.warn(
                f"pipe {self._name!r}: {names} are all first processors, so each value "
                "has one result from each. For a chain, write pipe.add(a).add(b); if "
                "this is intended, pipe.connect_to(a, b)",
                stacklevel=depth,
            )
        self._run = Run(
            graph,
            source,
            sink,
            engine=engine,
            context=self._context,
            dead_letters=self._dead_letters,
            on_skip=on_skip,
        )
        return self._run

    def map(
        self,
        source: Iterable[Any],
        *,
        placeholder: Any = _NONE,
        engine: Engine | Start | None = None,
    ) -> Results:
        """Put every value of a source in, and return an iterator over the results.

        Parameters
        ----------
        source, engine
            As for `run`.
        placeholder : object, optional
            The result for a value that went to the dead letters; in its place, if the
            pipe keeps the order. If not given, such a value has no result: the
            iterator's ``skipped`` counts them, and the program's log reports them at
            the end.

        Returns
        -------
        Results
            The iterator. It raises `PipeError` if the pipe fails.

        Examples
        --------
        >>> pipe = Pipe("doc_map")
        >>> _ = pipe.add(Processor("absolute", func=abs, on_error="skip"))
        >>> list(pipe.map([-1, -2]))
        [1, 2]
        >>> results = pipe.map([-1, "two", -3], placeholder="skipped")
        >>> list(results), results.skipped, [x.value for x in results.dead_letters]
        ([1, 'skipped', 3], 1, ['two'])
        """
        start = functools.partial(self._start, source, engine=engine, depth=4)
        return Results(self, start, placeholder)

    # ---- awaited

    async def start(
        self,
        source: Any = None,
        sink: Any = None,
        *,
        engine: Engine | Start | None = None,
    ) -> Run:
        """Start it as `run` does, and wait until every worker takes part.

        Raises
        ------
        PipeError
            A worker could not be started.
        """
        run = self.run(source, sink, engine=engine)
        await run.ready()
        return run

    async def load(self) -> Self:
        """Check the graph; for programs of uPipe, which load it into a server."""
        self.graph()
        return self

    @property
    def execution(self) -> Run:
        """The latest run."""
        if self._run is None:
            raise NotConnectedError(
                f"pipe {self._name!r} was not started: call run(), or await start()"
            )
        return self._run

    async def wait_for_completion(self) -> None:
        """Wait until the pipe has completed. Raises as `Run.wait`."""
        await self.execution.completion()

    async def emit(self, value: Any, d_type: DType | int | None = None) -> bool:
        """Put a value in; False: no room within 0.5 s. Raises as `Run.emit`."""
        return await self.execution.emit_async(value, d_type)

    async def emit_sync(
        self, value: Any, d_type: DType | int | None = None, timeout_ms: float = -1
    ) -> Any:
        """Put a value in, and return its result, as `Run.call` does.

        -1 as `timeout_ms` waits without a limit. If the call is cancelled or times out,
        the answer is dropped, and counted in ``execution.late_answers``.
        """
        timeout = None if timeout_ms < 0 else timeout_ms * 1e-3
        run = self.execution
        try:
            async with asyncio.timeout(timeout):
                future = await run.submit_async(value, d_type)
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if error.args:  # raised by the pipe
                raise
            raise TimeoutError(
                f"pipe {self._name!r} did not answer within {timeout_ms:g} ms"
            ) from None

    async def stop(self) -> None:
        """Stop it as `Run.stop` does, and wait for its end. Raises as `Run.wait`."""
        self.execution.stop(wait=False)
        await self.execution.completion()

    def terminate(self) -> ReadyResult:
        """End every worker now, if it runs; values in the pipe are lost.

        It has ended when this returns; ``await pipe.terminate()`` is the same.
        """
        if self._run is not None:
            self._run.terminate()
        return ReadyResult()

    @property
    def sink_q(self) -> SinkQueue:
        """The results for which no caller waits, from now on, also with a sink.

        For programs of uPipe.
        """
        return SinkQueue(self.execution.kept)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._run is not None and self._run.state == "running"

    @property
    def pending_termination(self) -> bool:
        """Whether it is stopping, or has ended."""
        return self._run is not None and self._run.is_stopping

    @property
    def completed(self) -> bool:
        """Whether it has completed; False if it failed."""
        return self._run is not None and self._run.state == "completed"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("pipe", self)

    def __repr__(self) -> str:
        state = "not started" if self._run is None else self._run.state
        return f"<Pipe {self._name!r}, {self._shape()}, {state}>"

    def _shape(self) -> str:
        """Return the graph in one line, also one that cannot run."""
        if not self._roots:
            return "empty: add(Processor(...))"
        names, last = [], self._roots
        while len(last) == 1 and last[0].name not in names:
            names.append(last[0].name)
            last = list(last[0].children)
        if not last:
            return " -> ".join(names)
        first = ", ".join(root.name for root in self._roots)
        below = {id(p) for root in self._roots for p in root.all_child_procs()}
        count = len(below | {id(root) for root in self._roots})
        return f"{count} processors from {first} on"

    def _repr_svg_(self) -> str | None:
        """Return a drawing of the graph, for a notebook; None if it cannot run."""
        from ataraxis.pipeline.graph import svg

        try:
            return svg(self.graph())
        except (ValueError, ImportError):
            return None


class Results:
    """An iterator over the results of a pipe, from `Pipe.map`.

    The first ``next`` starts the pipe. If the iterator is closed or dropped before its
    end, the pipe is terminated.
    """

    def __init__(self, pipe: Pipe, start: Callable[..., Run], placeholder: Any) -> None:
        self._pipe, self._start, self._placeholder = pipe, start, placeholder
        self._run: Run | None = None
        self._values = self._go()

    @property
    def run(self) -> Run:
        """The run; the first ``next`` starts it."""
        if self._run is None:
            raise NotConnectedError(
                f"pipe {self._pipe.name!r} was not started: the first next() starts it"
            )
        return self._run

    @property
    def skipped(self) -> int:
        """How many values went to the dead letters so far."""
        return 0 if self._run is None else self._run.skipped

    @property
    def dead_letters(self) -> DeadLetters:
        """The values that were not processed, each with the reason."""
        return self.run.dead_letters

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        return next(self._values)

    def close(self) -> None:
        """Terminate the pipe, unless it has ended."""
        self._values.close()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        if self._run is None:
            return f"<Results of pipe {self._pipe.name!r}, not started>"
        return f"<Results of {self._run!r}>"

    def _go(self) -> Iterator[Any]:
        results: SimpleQueue[Any] = SimpleQueue()
        on_skip = None
        if self._placeholder is not _NONE:

            def on_skip() -> None:
                results.put(self._placeholder)

        run = self._run = self._start(results.put, on_skip=on_skip)
        run.when_over(lambda: results.put(_END))
        try:
            while (result := results.get()) is not _END:
                yield result
        except BaseException:
            run.terminate()
            raise
        run.wait()
        if run.skipped and on_skip is None:
            _log.warning(
                "pipe %r: %d of %d values were skipped; they are in %s, and in "
                "dead_letters of the iterator; placeholder= gives a result in their "
                "place",
                self._pipe.name,
                run.skipped,
                run.progress[0],
                run.letters,
            )
