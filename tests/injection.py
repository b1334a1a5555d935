"""Exceptions wherever CPython itself looks for signals (the eval breaker of ceval.c).

Those are: after a call of a C function, at the start or resume of a function, at a
backward jump. A trace function does it on 3.11, `sys.monitoring` later, where
`f_trace_opcodes` may call nothing (3.12.1).
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class Interrupted(BaseException):
    """What a signal handler of the user's raises."""


class Injector:
    """Runs an operation with an exception at one of its points.

    Attributes
    ----------
    count : int
        Exceptions that were raised so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._left = -1
        self._seen = 0
        self._thread = 0

    def points(self, operation: Callable[[], Any]) -> int:
        """Run an operation as it is; how many points it has."""
        self._run(operation, -1)
        return self._seen

    def run(self, operation: Callable[[], Any], point: int) -> bool:
        """Run an operation with an exception at a point; whether it was raised."""
        before = self.count
        try:
            self._run(operation, point)
        except Interrupted:
            pass
        return self.count > before

    def _run(self, operation: Callable[[], Any], point: int) -> None:
        self._left, self._seen, self._thread = point, 0, threading.get_ident()
        start, stop = (_monitor if sys.version_info >= (3, 12) else _trace)(self._reach)
        start()
        try:
            operation()
        finally:
            stop()

    def _reach(self, code: CodeType) -> None:
        if threading.get_ident() != self._thread or code.co_filename == __file__:
            return
        self._seen += 1
        if self._left == self._seen - 1:
            self._left = -1
            self.count += 1
            raise Interrupted


_Reach = Callable[[CodeType], None]
_Switch = Callable[[], None]


def _monitor(reach: _Reach) -> tuple[_Switch, _Switch]:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - not on 3.11
    tool, events = 4, monitoring.events

    def jump(code: CodeType, origin: int, target: int) -> None:
        if target < origin:
            reach(code)

    callbacks = {
        events.PY_START: lambda code, offset: reach(code),
        events.PY_RESUME: lambda code, offset: reach(code),
        events.JUMP: jump,
        events.C_RETURN: lambda code, offset, function, first: reach(code),
    }

    def start() -> None:
        monitoring.use_tool_id(tool, "injection")
        for event, callback in callbacks.items():
            monitoring.register_callback(tool, event, callback)
        wanted = events.CALL | events.PY_START | events.PY_RESUME | events.JUMP
        monitoring.set_events(tool, wanted)

    def stop() -> None:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)

    return start, stop


_CALLS = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX") if name in dis.opmap}


def _trace(reach: _Reach) -> tuple[_Switch, _Switch]:
    texts: dict[CodeType, bytes] = {}
    last: dict[FrameType, int] = {}

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "return":
            last.pop(frame, None)
        if event != "opcode":
            return local
        code, here = frame.f_code, frame.f_lasti
        before = last.get(frame, -1)
        text = texts.setdefault(code, code.co_code)
        last[frame] = here
        if before >= 0 and (here < before or text[before] in _CALLS):
            reach(code)
        return local

    def called(frame: FrameType, event: str, _: Any) -> Any:
        caller = frame.f_back
        if caller in last:
            # A call of a Python function: looked at in there, not after it.
            last[caller] = -1
        frame.f_trace_opcodes = True
        reach(frame.f_code)
        return local

    def stop() -> None:
        sys.settrace(None)
        # No "return" comes after an exception of ours; a frame holds what it worked on.
        last.clear()

    return (lambda: sys.settrace(called)), stop
