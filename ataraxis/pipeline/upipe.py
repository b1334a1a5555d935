"""The names that programs of uPipe use in a worker, and with a pipe.

``types`` of `ataraxis.pipeline` is this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike, NDArray

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline import worker_io
from ataraxis.pipeline.outbox import Outbox
from ataraxis.pipeline.worker_io import WorkerIO

__all__ = ["APIProcSettings", "DType", "EdgeQueue", "Over", "ReadyResult", "SinkQueue"]


@dataclass(frozen=True)
class EdgeQueue:
    """A queue of a worker, in its ``in_qs`` or ``out_qs``; the counters are live."""

    name: str
    count: Callable[[], tuple[int, int]]
    """Returns how many frames were received from it, and how many wait in it."""

    @property
    def exe_counter(self) -> int:
        """How many frames all workers of the processor received from it."""
        return self.count()[0]

    @property
    def alloc_counter(self) -> int:
        """How many frames were put into it."""
        return sum(self.count())

    @property
    def pending_counter(self) -> int:
        """How many frames wait in it."""
        return self.count()[1]


class SinkQueue:
    """The results of a pipe for which no caller waits.

    Parameters
    ----------
    results : deque
        Those that were not taken yet.
    """

    def __init__(self, results: deque[Any]) -> None:
        self._results = results

    async def get(self) -> Any:
        """Return the oldest result, or None if none waits."""
        return self._results.popleft() if self._results else None

    @property
    def pending_counter(self) -> int:
        """How many results wait."""
        return len(self._results)


class ReadyResult:
    """An awaitable that is done: awaiting it is optional."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


Over = ReadyResult
"""Its old name."""


@dataclass(frozen=True)
class APIProcSettings:
    """The settings object of uPipe, as `Processor(settings=...)` takes it."""

    priority: int = 1
    """Ignored."""
    autoscale: int = 1
    """Number of worker processes."""
    input_buffer_size: int = 4_096_000
    """Bytes of the input queue."""
    host: str | None = None
    """The host of the engine that runs it."""


# ---- the methods of a worker: connect, emit and get, awaited

# `WorkerMethods.open` returns the `WorkerIO`, which has them without asyncio.


class WorkerMethods:
    """The methods of `Processor` and `Worker` for use in a worker."""

    _name: str
    _io: WorkerIO | None = None

    def open(self) -> WorkerIO:
        """Connect, without asyncio; return the `WorkerIO` of this worker.

        Raises
        ------
        NotConnectedError
            This process is not a worker of a processor of that name.
        """
        io = worker_io.current()
        if io is None:
            raise NotConnectedError(
                f"processor {self._name!r}: this process is not a worker of a pipe; "
                "call connect() in the function that Pipe.start() runs"
            )
        if io.name != self._name:
            raise NotConnectedError(
                f"this process is a worker of processor {io.name!r}, not of "
                f"{self._name!r}"
            )
        self._io = io
        # These hide the methods below, which are slower and do the same.
        self.__dict__.update(io.awaited)
        io.report_ready()
        return io

    async def connect(self) -> None:
        """Connect this worker to the pipe. Raises as `open`."""
        self.open()

    @property
    def connected(self) -> bool:
        """Whether `connect` was called."""
        return self._io is not None

    def _connected(self) -> WorkerIO:
        if self._io is None:
            raise NotConnectedError(
                f"processor {self._name!r} is not connected: first await connect(), in "
                "the function that its worker runs"
            )
        return self._io

    async def emit(self, value: Any, d_type: DType | int | None = None) -> bool:
        """Send a value to every child, or to none.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`; of a `DataFrame`, its value is sent. Copied.
        d_type : DType, optional
            How to encode it, if not by its type.

        Returns
        -------
        bool
            False: there was no room within 0.5 s, not counting the time until all
            workers take part; try again.

        Raises
        ------
        TypeError, ValueError
            A frame cannot carry the value, or not as `d_type`.
        EndOfStream
            All children have finished, and the value is discarded. If it is not caught,
            this worker ends in good order.
        """
        return bool(await self._connected().awaited["emit"](value, d_type))

    async def emit_sync(
        self,
        value: Any,
        d_type: DType | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send a value to every child, waiting for room up to `timeout`, s.

        None waits without a limit. Otherwise as `emit`.
        """
        send = self._connected().awaited["emit_sync"]
        return bool(await send(value, d_type, timeout))

    async def get(self) -> Any:
        """Return the next value, or None if none waits.

        The next `get` acknowledges it, or the end of the worker in good order; if the
        worker dies before, another one gets the value. Raises as `get_sync`.
        """
        return await self._connected().awaited["get"]()

    async def get_sync(self, timeout: float | None = 5) -> Any:
        """Return the next value; acknowledged as by `get`.

        Raises
        ------
        TimeoutError
            None came within `timeout`, s.
        EndOfInput
            The parents have finished and the queue is empty. It is an `EndOfStream`,
            and, as in uPipe, a `TimeoutError`: the code after ``except TimeoutError:
            break`` runs. If it is not caught, this worker ends in good order; a further
            call ends it, too.

        Notes
        -----
        A corrupt frame goes to the dead letters, and is counted; the next one follows.
        """
        return await self._connected().awaited["get_sync"](timeout)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array for a result, which is sent without a copy.

        See `WorkerIO.empty`.
        """
        return self._connected().empty(shape, dtype)

    # ---- counters of uPipe

    _more_processed = 0

    @property
    def processed_counter(self) -> int:
        """How many values this worker has emitted; the program may add to it."""
        return self._connected().emitted + self._more_processed

    @processed_counter.setter
    def processed_counter(self, value: int) -> None:
        self._more_processed = value - self._connected().emitted

    @property
    def received_counter(self) -> int:
        """How many values this worker has received."""
        return self._connected().received

    @property
    def in_qs(self) -> list[EdgeQueue]:
        """The input queue, one for all parents."""
        io = self._connected()
        queue = io.queue
        if queue is None:
            return []
        return [EdgeQueue(io.name, lambda: (io.received_by_all, queue.qsize()))]

    @property
    def out_qs(self) -> list[EdgeQueue]:
        """The input queues of the children; for the last processor, the pipe's sink."""
        io = self._connected()

        def queue_of(outbox: Outbox) -> EdgeQueue:
            def count() -> tuple[int, int]:
                waiting = outbox.waiting
                return max(io.emitted_to(outbox) - waiting, 0), waiting

            return EdgeQueue(outbox.target.name or "pipe-sink", count)

        return [queue_of(outbox) for outbox in io.outboxes]

    def _get_next_q_to_emit(self) -> EdgeQueue | None:
        """Return the first output queue, as examples of uPipe need it."""
        return next(iter(self.out_qs), None)


# ---- `Worker`: in later releases of uPipe, a processor inside its process


class Worker(WorkerMethods):
    """A handle on this process, as a worker of a processor.

    Parameters
    ----------
    name : str, optional
        Name of the processor; found if not given.
    **ignored
        ``entry``, ``func``, ``settings``, ``config`` of the declaration.

    Examples
    --------
    >>> async def forward():
    ...     me = Worker("forward")
    ...     await me.join()
    ...     while True:
    ...         await me.emit_sync(await me.get_sync(timeout=None))
    >>> from ataraxis.pipeline import Processor
    >>> Processor("forward", func=forward).kind
    'dialect'
    """

    def __init__(self, name: str | None = None, **ignored: Any) -> None:
        io = worker_io.current()
        self._name = name or (io.name if io is not None else "")

    async def join(self) -> None:
        """Connect this worker to the pipe, as `Processor.connect`."""
        self.open()

    @property
    def name(self) -> str:
        """The processor's name."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """The ``config=`` of the declaration."""
        return dict(self._connected().config)

    @property
    def instance_id(self) -> int:
        """Which of the processor's workers this is, from 0."""
        return self._connected().worker
