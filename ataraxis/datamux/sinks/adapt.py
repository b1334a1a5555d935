"""`sink_of`: the sink for a queue, callable or stream."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from ataraxis.datamux.sinks.sink import BUFFER, ON_FULL, CallSink, QueueSink, Sink
from ataraxis.datamux.sinks.stream import StreamSink
from ataraxis.stream.overflow import Overflow, check_on_full


def sink_of(
    target: Any,
    on_full: Overflow | None = None,
    buffer: int = BUFFER,
    *,
    policy: Overflow | None = None,
) -> Sink:
    """Return the sink for a queue, callable or stream.

    Parameters
    ----------
    target : object
        `asyncio.Queue` (from within its event loop), `queue.Queue`, a queue of
        `multiprocessing`, anything else with a ``put``, a callable (a coroutine
        function, too), a `Producer` or an `LslOutlet`.
    on_full : {'block', 'drop_oldest', 'drop_newest', 'raise'}, optional
        What to do when a queue is full; by default wait.
    buffer : int
        How many items may wait in a queue without a bound.
    policy : str, optional
        The old name of `on_full`.

    Raises
    ------
    TypeError
        `target` is none of these.
    ValueError
        `on_full` or `buffer` is not possible, or `policy` is given too.
    RuntimeError
        `target` is an `asyncio.Queue`, and no event loop runs here.
    """
    if on_full is not None and policy is not None:
        raise ValueError(
            f"policy={policy!r} is the old name of on_full={on_full!r}: give one"
        )
    wanted = policy if on_full is None else on_full
    on_full = check_on_full("block" if wanted is None else wanted, ON_FULL)
    if buffer < 1:
        raise ValueError(f"buffer must be at least 1 item, got {buffer!r}")
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(target, asyncio.Queue):
        from ataraxis.datamux.sinks.loop import LoopSink

        return LoopSink(target, on_full, buffer)
    if hasattr(target, "send_block") and hasattr(target, "labels"):
        return StreamSink(target)
    if hasattr(target, "takes_blocks"):
        made: Sink = target  # already a sink, such as an LslOutlet
        return made
    if hasattr(target, "put"):
        return QueueSink(target, on_full, buffer)
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004 - an instance's async __call__
    ):
        from ataraxis.datamux.sinks.loop import CoroutineSink

        return CoroutineSink(target)
    if callable(target):
        return CallSink(target)
    raise TypeError(
        f"sink must be a queue (asyncio, queue, multiprocessing), a callable or an "
        f"ataraxis Producer, got {target!r}"
    )
