"""A task: a thread that reads blocks from a feed and puts them into a sink.

Whatever happens, the sink gets an end that says why, and then the thread is over.
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
"""What the id of a task begins with."""


def gen_randseq(length: int = 16) -> str:
    """Return random letters, of the system's entropy: no seed repeats them.

    Examples
    --------
    >>> len(gen_randseq()), gen_randseq() == gen_randseq()
    (16, False)
    """
    return "".join(secrets.choice(string.ascii_letters) for _ in range(length))


def identity(x: T) -> T:
    """Return what was given."""
    return x


class Feed(Protocol):
    """Where a task's blocks come from: a replay, a simulation, a live source."""

    timeline: Timeline | None

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Give blocks, each when it is due, until the end or until it is over."""

    def wake(self) -> None:
        """Make a wait look whether it is over."""

    def lateness(self) -> LatenessStatistics:
        """Return how late blocks were."""

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return samples lost, and why it was opened again, each time."""


class Task:
    """A stream that runs: from its start until it ended or was stopped.

    Parameters
    ----------
    randseq : str
        Its id.
    feed : Feed
        Where blocks come from.
    sink : Sink
        Where they go.
    deliver : {'record', 'block', 'xarray'}
        As what.
    transform : callable
        Applied to each item, or block, before it is put.
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
            raise ValueError(f"deliver={deliver!r}: one of {', '.join(DELIVERIES)}")
        if not callable(transform):
            raise TypeError(f"transform={transform!r} is not callable")
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
        """The end that was delivered; None while it runs."""
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
        except Exception as failure:  # whatever it is, the reader learns of it
            reason, error = "failed", failure
        finally:
            error, reason = self._closed(blocks, error, reason)
        if is_over() and error is None:
            reason = "stopped"
        self._finish(END_OF_STREAM if reason == "completed" else End(reason, error))

    def _closed(
        self, blocks: Any, error: Exception | None, reason: Reason
    ) -> tuple[Exception | None, Reason]:
        """Close the feed; an error of that counts if there was none before."""
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
        except Exception as failure:  # of a user's callable: nobody else can be told
            _log.exception("task %s: its sink refused the end", self.randseq)
            if end.error is None:
                end = End("failed", failure)
        with self._lock:
            self.end = end
            callbacks, self._callbacks = self._callbacks, []
        self._is_done.set()
        for callback in callbacks:
            callback(end)

    # ---- for those who have it

    @property
    def is_done(self) -> bool:
        """Whether its end was delivered."""
        return self._is_done.is_set()

    @property
    def source(self) -> Any:
        """The live source behind it, to send commands to; None of others."""
        return getattr(self._feed, "source", None)

    @property
    def sink(self) -> Sink:
        """Where it puts what it reads, as it sees it."""
        return self._sink

    @property
    def timeline(self) -> Timeline | None:
        """The clock of a replay or simulation that is paced; None of others."""
        return self._feed.timeline

    def stop(self, timeout: float | None = 5.0) -> bool:
        """Stop it and wait until its end was delivered; whether that is so.

        What waits to be delivered is given up. From inside the task (a sink that is a
        function) it does not wait.
        """
        self._is_over.set()
        self._feed.wake()
        self._sink.wake()
        self._thread.join(timeout)
        return self._is_done.is_set()

    def wait(self, timeout: float | None = None) -> End:
        """Wait until its end was delivered; that end.

        Raises
        ------
        TimeoutError
            It still runs after `timeout`, s.
        """
        if not self._is_done.wait(timeout):
            raise TimeoutError(f"task {self.randseq} still runs after {timeout} s")
        self._thread.join()
        assert self.end is not None
        return self.end

    def call_when_done(self, callback: Callable[[End], object]) -> None:
        """Call with the end, from the task's thread, or now if it is done."""
        with self._lock:
            if self.end is None:
                self._callbacks.append(callback)
                return
        callback(self.end)

    def pause(self) -> None:
        """Let a paced task stand still."""
        self._paced("pause").pause()

    def resume(self) -> None:
        """Let a paced task go on from where it stands."""
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
        """Return what it has done so far."""
        lost, reconnects = self._feed.losses()
        return TaskStatistics(
            blocks=self._blocks,
            samples=self._samples,
            delivered=self._sink.delivered,
            dropped=self._sink.dropped,
            lost=lost,
            reconnects=reconnects,
            lateness=self._feed.lateness(),
        )

    def __repr__(self) -> str:
        return f"<Task {self.randseq}: {'runs' if self.end is None else self.end}>"


# ---- what calls of the API return: at once, and also to ``await``


class Listing(list[T]):
    """A list that may be awaited, which gives the list."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__(items)

    def __await__(self) -> Generator[None, None, Self]:
        return self
        yield


@dataclass
class StreamAck:
    """That a request was taken; may be awaited, which gives itself.

    Examples
    --------
    >>> StreamAck(True, "d_abc").randseq
    'd_abc'
    """

    status: bool
    """Whether it was done."""
    randseq: str | None = None
    """Id of the task it is about."""
    task: Task | None = field(default=None, repr=False, compare=False)
    """The task: ``pause``, ``resume``, ``seek``, ``statistics``."""

    def __await__(self) -> Generator[None, None, StreamAck]:
        return self
        yield

    @property
    def reason(self) -> Reason | None:
        """Why the stream ended; None while it runs."""
        end = self._task().end
        return None if end is None else end.reason

    @property
    def error(self) -> Exception | None:
        """The error that ended it, if one did."""
        end = self._task().end
        return None if end is None else end.error

    def wait(self, timeout: float | None = None) -> End:
        """Wait until the end was delivered, s; that end. Blocks the thread.

        Raises
        ------
        TimeoutError
            It still runs after `timeout`, s.
        """
        return self._task().wait(timeout)

    async def done(self) -> End:
        """Wait until the end was delivered; that end."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[End] = loop.create_future()

        def tell(end: End) -> None:
            if not future.done():
                future.set_result(end)

        def told(end: End) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, end)

        self._task().call_when_done(told)
        return await future

    def _task(self) -> Task:
        if self.task is None:
            raise ValueError(f"this answer is about no task of this process: {self}")
        return self.task
