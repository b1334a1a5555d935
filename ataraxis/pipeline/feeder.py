"""`Head`: the program's own way into a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream, NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline.board import Board
from ataraxis.pipeline.frames import CALL_LANE, HEAD_LANE, PLAIN
from ataraxis.pipeline.outbox import Outlet, send_to_all
from ataraxis.pipeline.plan import Plan
from ataraxis.shm.thread import Thread

# ---- what a pipe is fed with: values one by one, of anything that has some

_ROWS = 1024
_SLICE_S = 0.25
Value = tuple[Any, int | None]


def values_of(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    """Go through a source: each value, and its time, ns, if it has one.

    Parameters
    ----------
    source : iterable, Consumer or datamux Source
        Of a stream, a copy of each frame's array; of a live source, blocks of shape
        (n, *labels.shape) as they come.
    is_over : callable
        Whether the pipe is being stopped.

    Raises
    ------
    TypeError
        It is nothing that has values.
    """
    if hasattr(source, "read_into"):
        return _blocks(source, is_over)
    if hasattr(source, "receive"):
        return _frames(source, is_over)
    if not isinstance(source, Iterable):
        raise TypeError(
            f"source={source!r}: an iterable, a Consumer, or a live source of datamux"
        )
    return ((value, None) for value in source)


def _frames(consumer: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    while not is_over():
        try:
            frame = consumer.receive(timeout=_SLICE_S)
        except TimeoutError:  # a pause of the producer's
            continue
        if frame is None:
            return
        with frame:
            value, time_ns = np.array(frame.array), frame.time_ns
        yield value, time_ns


def _blocks(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    from ataraxis.datamux.source import STAMP

    source.open()
    try:
        labels = source.labels
        stamps = np.zeros(_ROWS, STAMP)
        out = np.zeros((_ROWS, *labels.shape), labels.dtype)
        while not is_over():
            try:
                n = source.read_into(out, stamps, timeout=_SLICE_S)
            except EndOfStream:
                return
            if n:
                yield out[:n].copy(), int(stamps["time_ns"][0])
    finally:
        source.close()


# ---- the feeder

_NOBODY = 2**32 - 1  # source of a value that no processor made


class Head:
    """Puts values into the first processors of a run; any thread may."""

    def __init__(self, plan: Plan, board: Board) -> None:
        self._outlets = [
            Outlet(plan.target(node.index, -1), board, plan.credit, plan.context)
            for node in plan.graph.nodes
            if -1 in node.parents and plan.inboxes(node)
        ]
        self._names = ", ".join(o.target.name for o in self._outlets)
        self._numbers = {HEAD_LANE: 0, CALL_LANE: 0}
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self.is_closed = False
        self.thread: Thread | None = None
        self.fed = 0
        """How many values went in."""

    def send(
        self,
        value: Any,
        dtype: DType | int | None,
        timeout: float | None,
        time_ns: int | None = None,
        future: Future[Any] | None = None,
    ) -> bool:
        """Put a value into every first processor, or none; False: no room in time.

        `future` gets what comes of it. Raises `EndOfStream` once the head is closed or
        nobody is left.
        """
        with self._lock:
            if self.is_closed or not self._outlets:
                raise EndOfStream(
                    "the pipe takes no values: it is being stopped, has ended, or its "
                    "first processors are sources"
                )
            lane = HEAD_LANE if future is None else CALL_LANE
            number = self._numbers[lane]
            if future is not None:
                self._waiting[number] = future
            is_sent = False
            try:
                is_sent = self._put(
                    value, dtype, lane, number, time_ns or now_ns(), timeout
                )
            except NotConnectedError:
                raise EndOfStream("the pipe has ended") from None
            finally:
                if is_sent:
                    self._numbers[lane] += 1
                elif future is not None:
                    del self._waiting[number]
            self.fed += is_sent
            if is_sent and all(o.is_finished for o in self._outlets):
                raise EndOfStream(f"{self._names} have finished: nobody has the value")
            return is_sent

    def _put(
        self, value: Any, dtype: Any, lane: int, number: int, time_ns: int, wait: Any
    ) -> bool:
        return send_to_all(
            self._outlets, value, dtype, lane, number, PLAIN, _NOBODY, time_ns, wait
        )

    def answer(self, number: int, values: tuple[Any, ...]) -> None:
        """Give a waiting caller what came of its value; the first answer counts."""
        future = self._waiting.pop(number, None)
        if future is not None:
            future.set_result(values[0] if len(values) == 1 else (list(values) or None))

    # ---- feeding

    def feed(self, source: Any, on_over: Callable[[Exception | None], None]) -> None:
        """Put everything that a source has, in a thread; then `on_over`."""
        values = values_of(source, lambda: self.is_closed)

        def pour() -> None:
            problem: Exception | None = None
            try:
                for value, time_ns in values:
                    if self.is_closed:
                        break
                    self.send(value, None, None, time_ns)
            except EndOfStream:
                pass
            except Exception as error:
                problem = error
            on_over(problem)

        self.thread = Thread(pour, "ataraxis-pipe-head")
        self.thread.start()

    def close(self, error: BaseException | None = None) -> None:
        """Take no more; who waits for an answer gets `error`, if there is one."""
        self.is_closed = True
        if error is None:
            return
        for outlet in self._outlets:
            outlet.close()
        while self._waiting:
            self._waiting.popitem()[1].set_exception(error)
