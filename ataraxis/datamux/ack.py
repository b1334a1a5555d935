"""What calls of the API return: at once, and also to ``await``."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from ataraxis.datamux.end import End, Reason
from ataraxis.datamux.task import Task

T = TypeVar("T")


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
