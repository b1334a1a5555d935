"""An exception raised where CPython looks for signals: when a call of C code returns,
at the start of a function, at a jump back. Counted, so that a test knows that it took
place; and as CPython does, it is the call's, the function's or the jump's own.

Python 3.11 tells of them by `sys.settrace` and `sys.setprofile`; `f_trace_opcodes` of
3.12.1 tells of no instruction, so that from 3.12 on `sys.monitoring` does.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_TOOL = 4
_MOST = 1 << 40


class Injected(BaseException):
    """As KeyboardInterrupt: no part of the library expects it."""


def jumps_of(code: CodeType) -> frozenset[int]:
    """Offsets of the jumps back."""
    found = dis.get_instructions(code)
    return frozenset(i.offset for i in found if i.opname == "JUMP_BACKWARD")


class Injector:
    """Raises once, at the n-th point that this thread passes in files of some names.

    Parameters
    ----------
    files : str
        Ends of the paths of the files that are watched; none: all but this one.
    """

    def __init__(self, *files: str) -> None:
        self._files = files
        self._jumps: dict[CodeType, frozenset[int]] = {}
        self._left = 0
        self.count = 0
        """How many exceptions were injected."""

    def run(self, function: Callable[[], object], at: int) -> bool:
        """Call a function, interrupted at point `at`; whether it came that far."""
        self._left = at
        before = self.count
        start, stop = (
            (self._trace, self._untrace)
            if sys.version_info < (3, 12)
            else (self._monitor, self._unmonitor)
        )
        start()
        try:
            function()
        except Injected:
            pass
        finally:
            stop()
        return self.count > before

    def points(self, function: Callable[[], object]) -> int:
        """Call a function as it is; how many points it has."""
        self.run(function, _MOST)
        return _MOST - self._left

    def each(
        self,
        prepare: Callable[[], Any],
        function: Callable[[Any], object],
        check: Callable[[Any], object],
    ) -> int:
        """Interrupt a function at every point it has, one a run; how many there are."""
        at = 0
        while True:
            made = prepare()
            was_injected = self.run(lambda m=made: function(m), at)
            check(made)
            if not was_injected:
                return at
            at += 1

    def _is_watched(self, code: CodeType) -> bool:
        if self._files:
            return code.co_filename.endswith(self._files)
        return code.co_filename != __file__

    def _pass(self) -> None:
        self._left -= 1
        if self._left == -1:
            self.count += 1
            raise Injected

    def _jump(self, code: CodeType, offset: int) -> None:
        if code not in self._jumps:
            self._jumps[code] = jumps_of(code)
        if offset in self._jumps[code]:
            self._pass()

    # ---- Python 3.11

    def _trace(self) -> None:
        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if event == "call":
                if not self._is_watched(frame.f_code):
                    return None
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
                self._pass()
            elif event == "opcode":
                self._jump(frame.f_code, frame.f_lasti)
            return trace

        def profile(frame: FrameType, event: str, argument: object) -> None:
            if event == "c_return" and self._is_watched(frame.f_code):
                self._pass()

        sys.setprofile(profile)
        sys.settrace(trace)

    def _untrace(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    # ---- Python 3.12

    def _monitor(self) -> None:
        monitoring = sys.monitoring  # type: ignore[attr-defined]
        events, thread = monitoring.events, threading.get_ident()

        def is_ours(code: CodeType) -> bool:
            return threading.get_ident() == thread and self._is_watched(code)

        def begun(code: CodeType, offset: int) -> None:
            if is_ours(code):
                self._pass()

        def returned(code: CodeType, offset: int, *of: object) -> None:
            begun(code, offset)

        def reached(code: CodeType, offset: int) -> None:
            if is_ours(code):
                self._jump(code, offset)

        monitoring.use_tool_id(_TOOL, "injection")
        for event, function in (
            (events.PY_START, begun),
            (events.C_RETURN, returned),
            (events.INSTRUCTION, reached),
        ):
            monitoring.register_callback(_TOOL, event, function)
        # Those of C calls come with those of calls.
        monitoring.set_events(_TOOL, events.PY_START | events.CALL | events.INSTRUCTION)

    def _unmonitor(self) -> None:
        monitoring = sys.monitoring  # type: ignore[attr-defined]
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)
