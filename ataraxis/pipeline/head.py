"""`Head`: the program's own way into a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream, NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline.board import Board
from ataraxis.pipeline.heads import values_of
from ataraxis.pipeline.outlet import Outlet, send_to_all
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.stamp import CALL_LANE, HEAD_LANE, PLAIN

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
        self.thread: threading.Thread | None = None
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

        self.thread = threading.Thread(
            target=pour, name="ataraxis-pipe-head", daemon=True
        )
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
