"""QueueContract: what every work queue does, as tests over yours."""

from __future__ import annotations

import queue as standard
import threading
from collections.abc import Callable
from typing import Any


class QueueContract:
    """Laws of a bounded queue with `multiprocessing.Queue`'s methods.

    Subclass it in a test module and give `make`; pytest runs the tests it inherits.

    Examples
    --------
    >>> from ataraxis import MemQ
    >>> from ataraxis.testing.queues import QueueContract
    >>> class TestMemQ(QueueContract):
    ...     def make(self, size):
    ...         return MemQ(buffer_count=size)
    >>> TestMemQ().test_what_is_put_first_comes_first()
    """

    def make(self, size: int) -> Any:
        """Return a new queue that holds `size` values; the test closes it."""
        raise NotImplementedError

    def test_what_is_put_first_comes_first(self) -> None:
        """One putter's values come in order, each once."""
        queue = self.make(8)
        for turn in range(3):
            for k in range(8):
                queue.put((turn, k), timeout=10)
            got = [queue.get(timeout=10) for _ in range(8)]
            assert got == [(turn, k) for k in range(8)]
        queue.close()

    def test_it_is_bounded(self) -> None:
        """A put without room is refused, and the values in the queue stay."""
        queue = self.make(2)
        queue.put("a")
        queue.put("b")
        ways: tuple[Callable[[], Any], ...] = (
            lambda: queue.put_nowait("c"),
            lambda: queue.put("c", False),
            lambda: queue.put("c", timeout=0.01),
        )
        for refused in ways:
            try:
                refused()
            except standard.Full:
                continue
            raise AssertionError("a put into a full queue returned")
        assert [queue.get(timeout=10), queue.get(timeout=10)] == ["a", "b"]
        queue.close()

    def test_an_empty_one_is_empty(self) -> None:
        """A get from an empty queue is refused, or times out."""
        queue = self.make(2)
        ways: tuple[Callable[[], Any], ...] = (
            queue.get_nowait,
            lambda: queue.get(False),
            lambda: queue.get(timeout=0.01),
        )
        for refused in ways:
            try:
                refused()
            except standard.Empty:
                continue
            raise AssertionError("a get from an empty queue returned")
        assert queue.empty()
        queue.close()

    def test_each_value_goes_to_one_getter(self) -> None:
        """Three threads put, three get: nothing is lost or delivered twice."""
        queue = self.make(4)
        got: list[Any] = []

        def put(first: int) -> None:
            for k in range(first, first + 100):
                queue.put(k, timeout=30)

        def get() -> None:
            while (value := queue.get(timeout=30)) is not None:
                got.append(value)

        putters = [threading.Thread(target=put, args=(100 * k,)) for k in range(3)]
        getters = [threading.Thread(target=get) for _ in range(3)]
        for thread in putters + getters:
            thread.start()
        for thread in putters:
            thread.join(60)
        for _ in getters:
            queue.put(None, timeout=30)
        for thread in getters:
            thread.join(60)
        assert sorted(got) == list(range(300))
        queue.close()
