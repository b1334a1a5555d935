"""Waiting, awaited: for room or for a value, without holding up the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ataraxis.frame import DType

EMIT_WAIT_S = 0.5
# How long the only task of a loop may sleep in the kernel itself, at a time and at all.
_SLICE_S, _SHORT_S = 0.01, 0.1
# How long a thread sleeps for a task.
_LONG_S = 0.25


async def patiently(attempt: Callable[[float], bool], deadline: float | None) -> bool:
    """Try until it works, or the deadline, monotonic s.

    The only task of a loop sleeps in the kernel itself, in short slices. Beside other
    tasks, and where nothing happens for long, a thread does.
    """
    # Here, since a worker whose function is plain starts sooner without it.
    import asyncio

    loop = asyncio.get_running_loop()
    began = time.monotonic()
    is_alone = len(asyncio.all_tasks(loop)) == 1
    while True:
        now = time.monotonic()
        is_short = is_alone and now - began < _SHORT_S
        left = _SLICE_S if is_short else _LONG_S
        if deadline is not None:
            left = min(left, deadline - now)
            if left <= 0:
                return False
        if is_short:
            done = attempt(left)
            await asyncio.sleep(0)
            is_alone = len(asyncio.all_tasks(loop)) == 1
        else:
            done = await loop.run_in_executor(None, attempt, left)
        if done:
            return True


async def emitted(
    emit: Callable[..., bool], value: Any, d_type: DType | int | None
) -> bool:
    """Emit at once, or wait briefly for room; whether it went."""
    if emit(value, d_type, 0):
        return True
    deadline = time.monotonic() + EMIT_WAIT_S
    return await patiently(lambda wait: emit(value, d_type, wait), deadline)
