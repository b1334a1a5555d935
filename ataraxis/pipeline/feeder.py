"""`Feeder`: how the program puts values into a pipe."""

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
from ataraxis.pipeline.frames import CALL_LANE, GAP, HEAD_LANE, PLAIN, Stamp
from ataraxis.pipeline.outbox import SLICE_S, Outbox, put_into_all
from ataraxis.pipeline.plan import Plan
from ataraxis.shm.thread import Thread
from ataraxis.shm.waiting import NOTHING, until

# ---- the values of a source

_ROWS = 1024
Value = tuple[Any, int | None]


def values_of(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    """Iterate over a source: each value, and its time, ns, if it has one.

    Parameters
    ----------
    source : iterable, Consumer or datamux Source
        A stream gives each frame's array, held until the next one is asked for; a live
        source gives blocks of shape (n, *labels.shape) as they come.
    is_over : callable
        Returns whether the pipe is stopping.

    Raises
    ------
    TypeError
        It is none of these.
    """
    if hasattr(source, "read_into"):
        return _blocks(source, is_over)
    if hasattr(source, "receive"):
        return _frames(source, is_over)
    if not isinstance(source, Iterable):
        raise TypeError(
            "source must be an iterable, a Consumer or a live source of datamux, got "
            f"{source!r}"
        )
    return ((value, None) for value in source)


def _frames(consumer: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    while not is_over():
        try:
            frame = consumer.receive(timeout=SLICE_S)
        except TimeoutError:  # the producer pauses
            continue
        if frame is None:
            return
        with frame:
            # Held until it was put: copied once, from the stream into the queue.
            yield frame.array, frame.time_ns


def _blocks(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    from ataraxis.datamux.source import STAMP

    source.open()
    try:
        labels = source.labels
        stamps = np.zeros(_ROWS, STAMP)
        out = np.zeros((_ROWS, *labels.shape), labels.dtype)
        while not is_over():
            try:
                n = source.read_into(out, stamps, timeout=SLICE_S)
            except EndOfStream:
                return
            if n:
                yield out[:n].copy(), int(stamps["time_ns"][0])
    finally:
        source.close()


# ---- the feeder

_TURN_S = 0.001
_NO_PROCESSOR = 2**32 - 1


class Feeder:
    """Puts values into the first processors of a run; any thread may use it."""

    def __init__(self, plan: Plan, board: StatusBoard) -> None:
        self._outboxes = [
            Outbox(plan.target(node.index, -1), board, plan.credit, plan.context)
            for node in plan.graph.nodes
            if -1 in node.parents and plan.inboxes(node)
        ]
        self._numbers = {HEAD_LANE: 0, CALL_LANE: 0}
        self._lock = ThreadLock()
        # By lane: a number whose put was interrupted, and may have succeeded.
        self._uncertain: dict[int, int] = {}
        self._waiting: dict[int, Future[Any]] = {}
        self.is_closed = False
        self._error: BaseException | None = None
        self.thread: Thread | None = None
        self.fed = 0
        """How many values were put in."""
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

        `future` receives its result. Raises `EndOfStream` once the head is closed or no
        reader is left, and `PipeError` after the pipe has failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _slice(deadline)
            # In slices, so that a caller with a short timeout does not wait for one
            # with a long timeout, only for one that is putting now.
            with self._lock.within(max(wait, _TURN_S)) as is_locked:
                if is_locked and self._send(value, dtype, time_ns, future, wait):
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
            if lane in self._uncertain and not self._settle(lane, time_ns, wait):
                return False
            number = self._numbers[lane]
            if future is not None:
                self._waiting[number] = future
            # Until the put has returned, no other value may use the number.
            self._uncertain[lane] = number
            stamp = Stamp(lane, number, PLAIN, _NO_PROCESSOR, time_ns)
            is_sent = put_into_all(self._outboxes, value, dtype, stamp, wait)
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
            names = ", ".join(o.target.name for o in self._outboxes)
            raise EndOfStream(f"value not delivered: {names} have finished")
        return is_sent

    async def send_async(
        self,
        value: Any,
        dtype: DType | int | None,
        timeout: float | None,
        future: Future[Any] | None = None,
    ) -> bool:
        """Put a value as `send` does, awaited; a cancelled call has not put it."""

        def attempt() -> Any:
            return self.send(value, dtype, 0, future=future) or NOTHING

        if self.is_closed or not self._outboxes:
            raise self._refusal()
        # In slices, as in a thread: a reader that has finished makes no room.
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                room = [event for outbox in self._outboxes for event in outbox.room()]
            except NotConnectedError:
                raise self._refusal() from None
            found = await until(attempt, *room, timeout=_slice(deadline))
            if found is not NOTHING:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _refusal(self) -> Exception:
        """Return the error of a put: the cause, if the pipe has failed."""
        if isinstance(self._error, PipeError):
            return PipeError(self._error.message, self._error.exceptions)
        why = self._error or (
            "it is stopping, has ended, or its first processors are sources"
        )
        return EndOfStream(f"the pipe takes no values: {why}")

    def _settle(self, lane: int, time_ns: int, wait: float) -> bool:
        """Skip a number whose put was interrupted; False: no room in time.

        Its value may be in the pipe, or in one first processor of two, or lost. So a
        gap with its number is put: processors that have read the value drop the gap as
        a repeat, and those that resequence do not wait for the number.
        """
        number = self._uncertain[lane]
        if number == self._numbers[lane]:
            stamp = Stamp(lane, number, GAP, _NO_PROCESSOR, time_ns)
            if not put_into_all(self._outboxes, None, None, stamp, wait):
                return False
            self._numbers[lane] = number + 1
        self._uncertain.pop(lane, None)
        return True

    def answer(
        self, number: int, values: tuple[Any, ...], error: Exception | None = None
    ) -> None:
        """Give a waiting caller the results of its value; the first answer counts.

        The answer of a caller that has given up is dropped, and counted in `late`.
        """
        future = self._waiting.pop(number, None)
        if future is not None:
            value = values[0] if len(values) == 1 else (list(values) or None)
            self.late += not _is_answered(future, value, error)

    # ---- feeding

    def feed(self, source: Any, on_over: Callable[[Exception | None], None]) -> None:
        """Put every value of a source, in a thread; then call `on_over`."""
        values = values_of(source, lambda: self.is_closed)

        def pour() -> None:
            try:
                for value, time_ns in values:
                    if self.is_closed:
                        break
                    self.send(value, None, None, time_ns)
            except EndOfStream:
                pass

        self.thread = Thread(lambda: on_over(failure_of(pour)), "ataraxis-pipe-head")
        self.thread.start()

    def close(self, error: BaseException | None = None) -> None:
        """Take no more values; with `error`, raise it in the callers that wait."""
        if error is not None and self._error is None:
            self._error = error
        self.is_closed = True
        if error is None:
            return
        for outbox in self._outboxes:
            outbox.close()
        # A caller that adds itself from now on cannot put, and removes itself.
        for number in list(self._waiting):
            future = self._waiting.pop(number, None)
            if future is not None:
                _is_answered(future, None, error)


def failure_of(step: Callable[[], object]) -> Exception | None:
    """Take a step of the user's source or sink; return what it raised, or None.

    ``sys.exit()`` in there does not end the program.
    """
    try:
        step()
    except Exception as error:
        return error
    except BaseException as error:
        problem = RuntimeError(f"{type(error).__name__}: {error}")
        problem.__cause__ = error
        return problem
    return None


def _slice(deadline: float | None) -> float:
    """Return how long to wait until the next check, s; `deadline` is monotonic, s."""
    if deadline is None:
        return SLICE_S
    return min(SLICE_S, max(0.0, deadline - time.monotonic()))


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
