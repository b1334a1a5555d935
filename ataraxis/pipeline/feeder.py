"""`Feeder`: the program's own way into a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np

from ataraxis._kernels.lock import ThreadLock
from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream, NotConnectedError, PipeError
from ataraxis.frame import DType
from ataraxis.pipeline.board import StatusBoard
from ataraxis.pipeline.frames import CALL_LANE, GAP, HEAD_LANE, PLAIN
from ataraxis.pipeline.outbox import Outbox, send_to_all
from ataraxis.pipeline.plan import Plan
from ataraxis.shm.thread import Thread
from ataraxis.shm.waiting import NOTHING, until

# ---- what a pipe is fed with: values one by one, of anything that has some

_ROWS = 1024
_SLICE_S = 0.25
_TURN_S = 0.001
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


class Feeder:
    """Puts values into the first processors of a run; any thread may."""

    def __init__(self, plan: Plan, board: StatusBoard) -> None:
        self._outboxes = [
            Outbox(plan.target(node.index, -1), board, plan.credit, plan.context)
            for node in plan.graph.nodes
            if -1 in node.parents and plan.inboxes(node)
        ]
        self._names = ", ".join(o.target.name for o in self._outboxes)
        self._numbers = {HEAD_LANE: 0, CALL_LANE: 0}
        self._lock = ThreadLock()
        # Of each lane, the next number if it may have gone into the pipe all the same.
        self._uncertain: dict[int, int] = {}
        self._waiting: dict[int, Future[Any]] = {}
        self.is_closed = False
        self._error: BaseException | None = None
        self.thread: Thread | None = None
        self.fed = 0
        """How many values went in."""
        self.late = 0
        """How many answers came for callers that had given up."""

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
        no reader is left, and `PipeError` after the pipe has failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _SLICE_S
            if deadline is not None:
                wait = min(wait, max(0.0, deadline - time.monotonic()))
            # In slices: a caller that may not wait does not wait for one that may; only
            # for one that is just putting.
            with self._lock.within(max(wait, _TURN_S)) as is_ours:
                if is_ours and self._send(value, dtype, time_ns, future, wait):
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _send(
        self,
        value: Any,
        dtype: DType | int | None,
        time_ns: int | None,
        future: Future[Any] | None,
        wait: float,
    ) -> bool:
        if self.is_closed or not self._outboxes:
            raise self._refusal()
        lane = HEAD_LANE if future is None else CALL_LANE
        time_ns = time_ns or now_ns()
        number, is_sent, is_lost = -1, False, False
        try:
            if not self._settle(lane, time_ns, wait):
                return False
            number = self._numbers[lane]
            if future is not None:
                self._waiting[number] = future
            # Until it is known, the number is taken: no other value may have it.
            self._uncertain[lane] = number
            is_sent = self._put(value, dtype, lane, number, PLAIN, time_ns, wait)
            if is_sent:
                self._numbers[lane] = number + 1
                self.fed += 1
            self._uncertain.pop(lane, None)
            is_lost = is_sent and all(o.is_finished for o in self._outboxes)
        except NotConnectedError:
            raise self._refusal() from None
        finally:
            if future is not None and (is_lost or not is_sent):
                self._waiting.pop(number, None)
        if is_lost:
            raise EndOfStream(
                f"value not delivered: {self._names} have finished, and read no more"
            )
        return is_sent

    async def send_async(
        self,
        value: Any,
        dtype: DType | int | None,
        timeout: float | None,
        future: Future[Any] | None = None,
    ) -> bool:
        """Put a value as `send` does, awaited; who is cancelled has not put it."""

        def attempt() -> Any:
            return self.send(value, dtype, 0, future=future) or NOTHING

        if self.is_closed or not self._outboxes:
            raise self._refusal()
        # In slices, as where a thread waits: a reader that has finished makes no room.
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _SLICE_S
            if deadline is not None:
                wait = min(wait, max(0.0, deadline - time.monotonic()))
            try:
                room = [event for outbox in self._outboxes for event in outbox.room()]
            except NotConnectedError:
                raise self._refusal() from None
            if await until(attempt, *room, timeout=wait) is not NOTHING:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _refusal(self) -> Exception:
        """Return why no value is taken: the cause, if the pipe has failed."""
        if isinstance(self._error, PipeError):
            return PipeError(self._error.message, self._error.exceptions)
        why = self._error or (
            "it is being stopped, has ended, or its first processors are sources"
        )
        return EndOfStream(f"the pipe takes no values: {why}")

    def _settle(self, lane: int, time_ns: int, wait: float) -> bool:
        """Leave a number behind whose put was interrupted; False: no room in time.

        Its value may be in the pipe, in one first processor of two, or not at all. So
        whatever the number is, nothing more comes of it: those who have it drop this
        as a repeat, and those who put in order do not wait for it.
        """
        number = self._uncertain.get(lane)
        if number is None:
            return True
        if number == self._numbers[lane]:
            if not self._put(None, None, lane, number, GAP, time_ns, wait):
                return False
            self._numbers[lane] = number + 1
        self._uncertain.pop(lane, None)
        return True

    def _put(
        self, value: Any, dtype: Any, lane: int, number: int, kind: int, time_ns: int,
        wait: Any,
    ) -> bool:  # fmt: skip
        return send_to_all(
            self._outboxes, value, dtype, lane, number, kind, _NOBODY, time_ns, wait
        )

    def answer(
        self, number: int, values: tuple[Any, ...], error: Exception | None = None
    ) -> None:
        """Give a waiting caller what came of its value; the first answer counts.

        The answer of a caller that has given up is dropped, and counted in `late`.
        """
        future = self._waiting.pop(number, None)
        if future is None:
            return
        value = values[0] if len(values) == 1 else (list(values) or None)
        self.late += not _is_answered(future, value, error)

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
            except BaseException as error:  # sys.exit() in a source ends no program
                problem = RuntimeError(f"{type(error).__name__}: {error}")
                problem.__cause__ = error
            on_over(problem)

        self.thread = Thread(pour, "ataraxis-pipe-head")
        self.thread.start()

    def close(self, error: BaseException | None = None) -> None:
        """Take no more; who waits for an answer gets `error`, if there is one."""
        if error is not None and self._error is None:
            self._error = error
        self.is_closed = True
        if error is None:
            return
        for outbox in self._outboxes:
            outbox.close()
        # What is added from here on is taken out again by who adds it: it cannot put.
        for number in list(self._waiting):
            future = self._waiting.pop(number, None)
            if future is not None:
                _is_answered(future, None, error)


def _is_answered(future: Future[Any], value: Any, error: BaseException | None) -> bool:
    """Answer a caller; False: it has given up, or has set the future itself."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except InvalidStateError:
        return False
    return True
