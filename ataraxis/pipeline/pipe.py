"""`Pipe`: processors joined into a graph; a value until it is started."""

from __future__ import annotations

import asyncio
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
_NONE = object()


class Pipe:
    """A graph of processors.

    Parameters
    ----------
    name : str
        Any number of pipes may have it, and run at once.
    context : Context, str, Path or None
        The directory that its queues live in, while it runs.
    dead_letters : str or Path, optional
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
        self,
        name: str,
        *,
        context: ContextLike = None,
        dead_letters: Any = None,
        letters: Any = None,
    ) -> None:
        if letters is not None and dead_letters is not None:
            raise TypeError("dead_letters= was given, and letters=, its old name, too")
        self._name = checked_name(name)
        self._context = context
        self._dead_letters = letters if dead_letters is None else dead_letters
        self._roots: list[Processor] = []
        self._run: Run | None = None
        self._is_parallel = False

    # ---- the graph

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def add(self, processor: Processor) -> Processor:
        """Add a first processor; returns it, so that the next one is added to it.

        A chain is ``pipe.add(a).add(b)``. ``pipe.add(a); pipe.add(b)`` makes two first
        processors, as in uPipe, where two producers begin a pipe like this. If both are
        functions of a value, and one is also the last, each value has two results: then
        `run` warns. Say `connect_to` if you mean it.
        """
        if not isinstance(processor, Processor):
            raise TypeError(f"add({processor!r}): a Processor")
        if processor not in self._roots:
            self._roots.append(processor)
        return processor

    def connect_to(self, *processors: Processor) -> Self:
        """Add several first processors, each of which has every value; this pipe."""
        for processor in processors:
            self.add(processor)
        self._is_parallel = True
        return self

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
        return pipe.connect_to(*roots)

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
        return self._start(source, sink, engine)

    def _start(
        self,
        source: Any,
        sink: Any,
        engine: Any = None,
        on_skip: Any = None,
        depth: int = 3,
    ) -> Run:
        # `depth`: how many calls above this one the user's own is, for warnings.
        graph = self.graph()
        if not self._is_parallel and (heads := graph.parallel_heads()):
            names = ", ".join(map(repr, heads))
            warnings.warn(
                f"pipe {self._name!r}: {names} are all first processors, and each "
                "value has a result of each. For a chain: pipe.add(a).add(b). If you "
                "mean it: pipe.connect_to(a, b)",
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
        """Feed the pipe, and go through what comes out, as it comes.

        Parameters
        ----------
        source : iterable, Consumer or datamux Source
            As for `run`.
        placeholder : object, optional
            What comes in place of a value that went to the dead letters, where the
            pipe has an order in its place. If not given, nothing comes: the iterator's
            ``skipped`` is how many there were, and the log of the program says so at
            the end.
        engine : Engine, 'spawn' or 'forkserver', optional
            As for `run`.

        Returns
        -------
        Results
            An iterator; its ``dead_letters`` are the values, each with the reason.

        Raises
        ------
        PipeError
            By the iterator: the pipe failed.

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
        return Results(self, self._start, source, placeholder, engine)

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
        return await self.execution.emit_async(value, d_type)

    async def emit_sync(
        self, value: Any, d_type: DType | int | None = None, timeout_ms: float = -1
    ) -> Any:
        """Put a value in, and return what the last processor made of it.

        A list, if it made several; None, if nothing. A caller that gives up, by
        `timeout_ms` or by being cancelled, harms nobody: what comes of its value is
        dropped, and counted in ``execution.late_answers``.

        Raises
        ------
        TimeoutError
            Nothing came within `timeout_ms`; -1: wait for ever.
        PipeError
            The pipe failed, meanwhile or before.
        ProcessorError
            The value went to the dead letters.
        """
        timeout = None if timeout_ms < 0 else timeout_ms * 1e-3
        run = self.execution
        try:
            async with asyncio.timeout(timeout):
                future = await run.submit_async(value, d_type)
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if error.args:  # of the pipe's own
                raise
            raise TimeoutError(
                f"pipe {self._name!r} did not answer within {timeout_ms:g} ms"
            ) from None

    async def stop(self) -> None:
        """Let it run dry, and wait for its end. Raises as `wait_for_completion`."""
        self.execution.stop(wait=False)
        await self.execution.completion()

    def terminate(self) -> ReadyResult:
        """End every worker now, if it runs; what is inside is lost.

        It has ended when this returns: ``await pipe.terminate()`` is the same.
        """
        if self._run is not None:
            self._run.terminate()
        return ReadyResult()

    @property
    def sink_q(self) -> SinkQueue:
        """What comes out and has no caller who waits for it, from now on.

        For programs of uPipe; with a sink, both have it.
        """
        return SinkQueue(self.execution.kept)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._run is not None and self._run.state == "running"

    @property
    def pending_termination(self) -> bool:
        """Whether it was told to stop, or has ended."""
        return self._run is not None and self._run.is_stopping

    @property
    def completed(self) -> bool:
        """Whether it has completed; never true of one that failed."""
        return self._run is not None and self._run.state == "completed"

    def __repr__(self) -> str:
        state = "not started" if self._run is None else self._run.state
        return f"<Pipe {self._name!r}, {self._shape()}, {state}>"

    def _shape(self) -> str:
        """Say what is in it, in a line; whatever is wrong with it."""
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
        """Draw the graph, for a notebook; nothing, as long as it cannot run."""
        from ataraxis.pipeline.graph import svg

        try:
            return svg(self.graph())
        except (ValueError, ImportError):
            return None


class Results:
    """What comes out of a pipe, as it comes; made by `Pipe.map`.

    The pipe is started by the first look, and terminated if this is closed, or dropped,
    before its end.
    """

    def __init__(
        self,
        pipe: Pipe,
        start: Callable[..., Run],
        source: Any,
        placeholder: Any,
        engine: Any,
    ) -> None:
        self._start = start
        self._pipe, self._source, self._placeholder = pipe, source, placeholder
        self._engine = engine
        self._run: Run | None = None
        self._values = self._go()

    def _go(self) -> Iterator[Any]:
        results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        on_skip = None
        if self._placeholder is not _NONE:

            def on_skip() -> None:
                results.put((True, self._placeholder))

        run = self._run = self._start(
            self._source,
            lambda value: results.put((True, value)),
            self._engine,
            on_skip,
            4,
        )
        run.when_over(lambda: results.put((False, None)))
        try:
            while (found := results.get())[0]:
                yield found[1]
        except BaseException:
            run.terminate()
            raise
        run.wait()
        if run.skipped and on_skip is None:
            _log.warning(
                "pipe %r: %d of %d values were skipped; they are in %s, and in "
                "dead_letters of what map() returned; placeholder= puts something in "
                "their place",
                self._pipe.name,
                run.skipped,
                run.progress[0],
                run.letters,
            )

    @property
    def run(self) -> Run:
        """The run; there is one from the first look on."""
        if self._run is None:
            raise NotConnectedError(
                f"pipe {self._pipe.name!r}: map() starts it with the first result that "
                "is asked for"
            )
        return self._run

    @property
    def skipped(self) -> int:
        """How many values went to the dead letters, so far."""
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
