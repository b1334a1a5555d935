"""`sink_of`: the sink that fits what a user gave."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from ataraxis.datamux.sinks.sink import (
    BUFFER,
    POLICIES,
    CallSink,
    Policy,
    QueueSink,
    Sink,
)
from ataraxis.datamux.sinks.stream import StreamSink


def sink_of(target: Any, policy: Policy = "block", buffer: int = BUFFER) -> Sink:
    """Return the sink for what the user gave.

    Parameters
    ----------
    target : object
        `asyncio.Queue` (from within its event loop), `queue.Queue`, a queue of
        `multiprocessing`, anything else with a ``put``, a callable (a coroutine
        function, too), a `Producer` or an `LslOutlet`.
    policy : {'block', 'drop_oldest', 'drop_newest', 'raise'}
        What a full queue means.
    buffer : int
        How many items may wait in a queue that has no bound of its own.

    Raises
    ------
    TypeError
        It is nothing of these.
    RuntimeError
        An `asyncio.Queue`, and no event loop runs here.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: one of {', '.join(POLICIES)}")
    if buffer < 1:
        raise ValueError(f"buffer={buffer!r}: at least 1 item")
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(target, asyncio.Queue):
        from ataraxis.datamux.sinks.loop import LoopSink

        return LoopSink(target, policy, buffer)
    if hasattr(target, "send_block") and hasattr(target, "labels"):
        return StreamSink(target)
    if hasattr(target, "takes_blocks"):
        made: Sink = target  # a sink already, such as an LslOutlet
        return made
    if hasattr(target, "put"):
        return QueueSink(target, policy, buffer)
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004 - an instance's async __call__
    ):
        from ataraxis.datamux.sinks.loop import CoroutineSink

        return CoroutineSink(target)
    if callable(target):
        return CallSink(target)
    raise TypeError(
        f"sink={target!r}: expected a queue (asyncio, queue, multiprocessing), a "
        "callable or an ataraxis Producer"
    )
