"""What a remote call returns inside an event loop: an answer that is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """Await it; or use it as what it will be, which waits, and holds up the loop.

    Parameters
    ----------
    future : concurrent.futures.Future
        Of the answer.

    Examples
    --------
    >>> future = Future()
    >>> future.set_result([1, 2])
    >>> len(Answer(future)), Answer(future)[1]
    (2, 2)
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        # Shielded: who stops waiting does not take the answer from others.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the answer, s; it, or the error that it is.

        Raises
        ------
        TimeoutError
            It is not here after `timeout`, s.
        """
        return self._future.result(timeout)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._future.result(), name)

    def __iter__(self) -> Iterator[Any]:
        found: Any = self._future.result()
        return iter(found)

    def __len__(self) -> int:
        found: Any = self._future.result()
        return len(found)

    def __getitem__(self, key: Any) -> Any:
        found: Any = self._future.result()
        return found[key]

    def __eq__(self, other: object) -> bool:
        return bool(self._future.result() == other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._future.result())

    def __repr__(self) -> str:
        return repr(self._future.result())


def answered(future: Future[T]) -> Any:
    """Return the answer; inside an event loop at once, as one that is on its way."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return future.result()
    return Answer(future)
