"""A task: a thread that reads blocks from a feed and puts them into a sink.

In every case the sink receives an end with its reason, and then the thread ends.
"""

from __future__ import annotations

import logging
import secrets
import string
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar

from ataraxis.datamux.block import Block, LabelledBlock
from ataraxis.datamux.end import END_OF_STREAM, End, Reason
from ataraxis.datamux.sinks.sink import Sink
from ataraxis.datamux.statistics import LatenessStatistics, TaskStatistics
from ataraxis.datamux.timeline import Timeline
from ataraxis.errors import SourceLost
from ataraxis.shm.thread import Latch, Thread

Deliver = Literal["record", "block", "xarray"]
DELIVERIES = ("record", "block", "xarray")
_log = logging.getLogger("ataraxis.datamux")
_log.addHandler(logging.NullHandler())
T = TypeVar("T")
prefix = "d_"
"""Prefix of the id of a task."""


def gen_randseq(length: int = 16) -> str:
    """Return random letters from the system's entropy; a seed does not repeat them."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(length))


def identity(x: T) -> T:
    """Return the argument."""
    return x


class Feed(Protocol):
    """The blocks of a task: a replay, a simulation, a live source."""

    timeline: Timeline | None

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Yield blocks, each when it is due, until the end or until it is over."""

    def wake(self) -> None:
        """Make a wait check whether it is over."""

    def lateness(self) -> LatenessStatistics:
        """Return how late blocks were."""

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return the number of lost samples, and the reason of each reopening."""


class Task:
    """A stream that runs, from its start until it ends or is stopped.

    It reads blocks from a feed, converts them to items, as `deliver` and `transform`
    demand, and puts these into a sink. `randseq` is its id.
    """

    def __init__(
        self,
        randseq: str,
        feed: Feed,
        sink: Sink,
        deliver: Deliver = "record",
        transform: Callable[[Any], Any] = identity,
    ) -> None:
        if deliver not in DELIVERIES:
            raise ValueError(
                f"deliver must be one of {', '.join(DELIVERIES)}, got {deliver!r}"
            )
        if not callable(transform):
            raise TypeError(f"transform must be callable, got {transform!r}")
        self.randseq = randseq
        self._feed = feed
        self._sink = sink
        self._deliver = deliver
        self._transform = transform
        self._is_over = Latch()
        self._is_done = Latch()
        self._callbacks: list[Callable[[End], object]] = []
        self._lock = threading.Lock()
        self._blocks = self._samples = 0
        self.end: End | None = None
        """The end that was delivered; None while the task runs."""
        self._thread = Thread(self._run, f"ataraxis-{randseq}")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # ---- in the thread

    def _run(self) -> None:
        reason: Reason = "completed"
        error: Exception | None = None
        is_over = self._is_over.is_set
        blocks = self._feed.blocks(is_over)
        try:
            for block in blocks:
                self._blocks += 1
                self._samples += len(block)
                self._sink.put(self._items(block), is_over)
                if is_over():
                    break
        except SourceLost as lost:
            reason, error = "lost", lost
        except Exception as failure:  # any error reaches the reader as the end
            reason, error = "failed", failure
        finally:
            error, reason = self._closed(blocks, error, reason)
        if is_over() and error is None:
            reason = "stopped"
        self._finish(END_OF_STREAM if reason == "completed" else End(reason, error))

    def _closed(
        self, blocks: Any, error: Exception | None, reason: Reason
    ) -> tuple[Exception | None, Reason]:
        """Close the feed; return its error, unless an earlier one exists."""
        try:
            blocks.close()
        except Exception as failure:  # of a plug-in's close()
            if error is None:
                return failure, "failed"
        return error, reason

    def _items(self, block: Block) -> list[Any]:
        items: list[Any]
        if self._sink.takes_blocks or self._deliver == "block":
            items = [block]
        elif self._deliver == "xarray":
            items = [LabelledBlock(block.to_xarray())]
        else:
            items = block.records()
        if self._transform is identity:
            return items
        return [self._transform(item) for item in items]

    def _finish(self, end: End) -> None:
        try:
            end = self._sink.finish(end, self._is_over.is_set)
        except Exception as failure:  # of a user's callable: only the log can report it
            _log.exception("task %s: its sink refused the end", self.randseq)
            if end.error is None:
                end = End("failed", failure)
        with self._lock:
            self.end = end
            callbacks, self._callbacks = self._callbacks, []
        self._is_done.set()
        for callback in callbacks:
            callback(end)

    # ---- from any thread

    @property
    def is_done(self) -> bool:
        """Whether the end was delivered."""
        return self._is_done.is_set()

    @property
    def source(self) -> Any:
        """The live source, to which commands can be sent; None for other tasks."""
        return getattr(self._feed, "source", None)

    @property
    def sink(self) -> Sink:
        """The sink, as `sink_of` made it."""
        return self._sink

    @property
    def timeline(self) -> Timeline | None:
        """The clock of a paced replay or simulation; None for other tasks."""
        return self._feed.timeline

    def stop(self, timeout: float | None = 5.0) -> bool:
        """Stop the task and wait until its end was delivered; return whether it was.

        Items that wait to be delivered are dropped. A call from inside the task (from a
        function as sink) does not wait.
        """
        self._is_over.set()
        self._feed.wake()
        self._sink.wake()
        self._thread.join(timeout)
        return self._is_done.is_set()

    def wait(self, timeout: float | None = None) -> End:
        """Wait until the end was delivered, and return it.

        Raises
        ------
        TimeoutError
            The task still runs after `timeout` s.
        """
        if not self._is_done.wait(timeout):
            raise TimeoutError(f"task {self.randseq} still runs after {timeout} s")
        self._thread.join()
        assert self.end is not None
        return self.end

    def call_when_done(self, callback: Callable[[End], object]) -> None:
        """Call with the end, from the task's thread, or now if the task is done."""
        with self._lock:
            if self.end is None:
                self._callbacks.append(callback)
                return
        callback(self.end)

    def pause(self) -> None:
        """Pause a paced task."""
        self._paced("pause").pause()

    def resume(self) -> None:
        """Resume a paced task where it was paused."""
        self._paced("resume").resume()

    def seek(self, at_s: float) -> None:
        """Go to `at_s` seconds after the recording's first sample."""
        seek = getattr(self._feed, "seek", None)
        if seek is None:
            raise TypeError(f"task {self.randseq}: only a replay can seek")
        seek(at_s)

    def _paced(self, verb: str) -> Timeline:
        if self._feed.timeline is None:
            raise TypeError(
                f"task {self.randseq} is not paced (a live source, or "
                f"rate_limit=False): it cannot {verb}"
            )
        return self._feed.timeline

    def statistics(self) -> TaskStatistics:
        """Return counts and lateness so far."""
        lost, reconnects = self._feed.losses()
        return TaskStatistics(
            self._blocks, self._samples, self._sink.delivered, self._sink.dropped,
            lost, reconnects, self._feed.lateness(),
        )  # fmt: skip

    @property
    def away(self) -> str:
        """Why its live source has gone away; empty while it is there."""
        return str(getattr(self._feed, "away", ""))

    def __repr__(self) -> str:
        return f"<Task {self.randseq}: {'runs' if self.end is None else self.end}>"


# ---- return values of the API's calls: available at once, and awaitable


class Listing(list[T]):
    """A list; awaiting it returns the list."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__(items)

    def __await__(self) -> Generator[None, None, Self]:
        return self
        yield


@dataclass
class StreamAck:
    """The acknowledgement of a request; awaiting it returns itself."""

    status: bool
    """Whether the request was fulfilled."""
    randseq: str | None = None
    """Id of the task."""
    task: Task | None = field(default=None, repr=False, compare=False)
    """The task: ``pause``, ``resume``, ``seek``, ``statistics``."""

    def __await__(self) -> Generator[None, None, StreamAck]:
        return self
        yield

    @property
    def reason(self) -> Reason | None:
        """The reason why the stream ended; None while it runs."""
        end = self._task().end
        return None if end is None else end.reason

    @property
    def error(self) -> Exception | None:
        """The error that ended it, if one did."""
        end = self._task().end
        return None if end is None else end.error

    def wait(self, timeout: float | None = None) -> End:
        """Wait until the end was delivered, at most `timeout` s, and return it.

        Raises
        ------
        TimeoutError
            The task still runs after `timeout` s.
        """
        return self._task().wait(timeout)

    async def done(self) -> End:
        """Wait until the end was delivered, and return it."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[End] = loop.create_future()

        def finish(end: End) -> None:
            if not future.done():
                future.set_result(end)

        def call_soon(end: End) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, end)

        self._task().call_when_done(call_soon)
        return await future

    def _task(self) -> Task:
        if self.task is None:
            raise ValueError(f"{self} has no task in this process")
        return self.task
