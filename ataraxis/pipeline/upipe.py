"""The names of uPipe: what its programs use in a worker, and see of a pipe.

``types`` of `ataraxis.pipeline` is this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline import worker_io
from ataraxis.pipeline.outbox import Outbox
from ataraxis.pipeline.worker_io import WorkerIO

__all__ = ["APIProcSettings", "DType", "EdgeQueue", "ReadyResult", "SinkQueue"]


@dataclass(frozen=True)
class EdgeQueue:
    """A queue between two processors, as ``in_qs`` and ``out_qs`` of a worker show it.

    Its counters are of the moment when they are asked for.
    """

    name: str
    count: Callable[[], tuple[int, int]]
    """Returns how many frames were got from it, and how many wait in it."""

    @property
    def exe_counter(self) -> int:
        """How many frames were got from it, by all workers of the processor."""
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
    """What comes out of a pipe, and has no caller who waits for it.

    Parameters
    ----------
    results : deque
        What came out and was not taken yet.
    """

    def __init__(self, results: deque[Any]) -> None:
        self._results = results

    async def get(self) -> Any:
        """Return the oldest result, or None if there is none now."""
        return self._results.popleft() if self._results else None

    @property
    def pending_counter(self) -> int:
        """How many results wait."""
        return len(self._results)


class ReadyResult:
    """Something that is done already: it may be awaited, and need not be."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


@dataclass(frozen=True)
class APIProcSettings:
    """The settings object of uPipe, as `Processor(settings=...)` takes it."""

    priority: int = 1
    """Accepted; never had a meaning."""
    autoscale: int = 1
    """How many worker processes: started at once."""
    input_buffer_size: int = 4_096_000
    """Bytes of the input queue."""
    host: str | None = None
    """On which host of the engine."""


# ---- what a worker says and hears: connect, emit, get; awaited, as uPipe has them

# The plain forms are those of the `WorkerIO` that `WorkerMethods.open` returns.


class WorkerMethods:
    """The half of `Processor` and `Worker` that is used inside a worker."""

    _name: str
    _io: WorkerIO | None = None

    def open(self) -> WorkerIO:
        """Connect, without asyncio: the io of this worker.

        Raises
        ------
        NotConnectedError
            This process is no worker of a processor of that name.
        """
        io = worker_io.current()
        if io is None:
            raise NotConnectedError(
                f"processor {self._name!r}: this process is no worker of a pipe; "
                "connect() is for the function that Pipe.start() runs"
            )
        if io.name != self._name:
            raise NotConnectedError(
                f"this is a worker of processor {io.name!r}, not {self._name!r}"
            )
        self._io = io
        # In front of the methods below, which are slower and say the same.
        self.__dict__.update(io.awaited)
        io.say_ready()
        return io

    async def connect(self) -> None:
        """Take part in the pipe, in a worker. Raises as `open`."""
        self.open()

    @property
    def connected(self) -> bool:
        """Whether `connect` was called."""
        return self._io is not None

    def _connected(self) -> WorkerIO:
        if self._io is None:
            raise NotConnectedError(
                f"processor {self._name!r} is not connected: await connect() first, in "
                "the function that its worker runs"
            )
        return self._io

    async def emit(self, value: Any, d_type: DType | int | None = None) -> bool:
        """Hand a value to every child, or to none.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`; or a `DataFrame`, of which the value goes on.
            Copied.
        d_type : DType, optional
            How to send it, if not as itself.

        Returns
        -------
        bool
            False: there was no room within 0.5 s, not counting the time until all
            workers take part; try again.

        Raises
        ------
        TypeError, ValueError
            No frame carries such a value, or not as `d_type`.
        EndOfStream
            The children have finished; nobody will have it. Left alone, it ends this
            worker in good order.
        """
        return bool(await self._connected().awaited["emit"](value, d_type))

    async def emit_sync(
        self,
        value: Any,
        d_type: DType | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Hand a value to every child, however long it takes to have room.

        False only after `timeout`, s. Otherwise as `emit`.
        """
        send = self._connected().awaited["emit_sync"]
        return bool(await send(value, d_type, timeout))

    async def get(self) -> Any:
        """Return the next value, or None if there is none now.

        It is acknowledged by the next `get`, or when the worker ends in good order; if
        the worker dies before, another one has it. Raises as `get_sync`.
        """
        return await self._connected().awaited["get"]()

    async def get_sync(self, timeout: float | None = 5) -> Any:
        """Return the next value; acknowledged as by `get`.

        Raises
        ------
        TimeoutError
            None came within `timeout`, s.
        EndOfInput
            The parents have finished and nothing is left. It is an `EndOfStream`, and
            a `TimeoutError` as in uPipe: what stands behind ``except TimeoutError:
            break`` is done. Left alone, it ends this worker in good order, and so
            does the next call after it.

        Notes
        -----
        A frame whose bytes have changed goes to the dead letters, and is counted; the
        next one comes next.
        """
        return await self._connected().awaited["get_sync"](timeout)

    # ---- counters, as uPipe has them

    _more_processed = 0

    @property
    def processed_counter(self) -> int:
        """How many values this worker has emitted; a program may add to it."""
        return self._connected().emitted + self._more_processed

    @processed_counter.setter
    def processed_counter(self, value: int) -> None:
        self._more_processed = value - self._connected().emitted

    @property
    def received_counter(self) -> int:
        """How many values this worker has got."""
        return self._connected().received

    @property
    def in_qs(self) -> list[EdgeQueue]:
        """The input queue: one, for all parents."""
        io = self._connected()
        queue = io.queue
        if queue is None:
            return []
        return [EdgeQueue(io.name, lambda: (io.received_by_all, queue.qsize()))]

    @property
    def out_qs(self) -> list[EdgeQueue]:
        """The input queues of the children; of the last processor, the pipe's sink."""
        io = self._connected()

        def queue_of(outbox: Outbox) -> EdgeQueue:
            def count() -> tuple[int, int]:
                waiting = outbox.waiting
                return max(io.emitted_to(outbox) - waiting, 0), waiting

            return EdgeQueue(outbox.target.name or "pipe-sink", count)

        return [queue_of(outbox) for outbox in io.outboxes]

    def _get_next_q_to_emit(self) -> EdgeQueue | None:
        """Return the first output queue; examples of uPipe ask for it."""
        return next(iter(self.out_qs), None)


# ---- `Worker`: what later releases of uPipe call a processor inside its process


class Worker(WorkerMethods):
    """The process it is made in, as a worker of a processor.

    Parameters
    ----------
    name : str, optional
        The processor's; found out if not given.
    **ignored
        ``entry``, ``func``, ``settings``, ``config``: of the declaration.

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
        """Take part in the pipe, as `Processor.connect`."""
        self.open()

    @property
    def name(self) -> str:
        """The processor's name."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """What the declaration's ``config=`` says."""
        return dict(self._connected().config)

    @property
    def instance_id(self) -> int:
        """Which of the processor's workers this is, from 0."""
        return self._connected().worker
