"""`Ending`: the signals that end a program, taken as flags."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from ataraxis.shm.thread import Latch

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Ending:
    """While it is entered, signals that would end the program set flags instead.

    Nothing is thrown into the middle of anything: the program looks at the flags, or
    waits for them, and ends in order. Those that the program was told to ignore
    (``nohup``, a shell's background job) stay ignored; the handlers that were there are
    put back.

    Parameters
    ----------
    is_last : bool
        Once a signal came, further ones are ignored afterwards: what follows is the end
        of the program, and they do not change its exit code.

    Examples
    --------
    >>> import signal
    >>> with Ending() as ending:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     ending.first.wait(5), ending.second.is_set(), ending.name
    (True, False, 'SIGTERM')
    """

    def __init__(self, *, is_last: bool = False) -> None:
        self._is_last = is_last
        self.first = Latch()
        """Set by the first signal: end in order."""
        self.second = Latch()
        """Set by the second: end now."""
        self.name = ""
        """Of the signal that came last."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python hands signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                if number is None or signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        (self.second if self.first.is_set() else self.first).set()

    def __exit__(self, *exc: object) -> None:
        """Put the handlers back."""
        while self._before:
            number, before = self._before.popitem()
            if self._is_last and self.first.is_set():
                before = signal.SIG_IGN
            signal.signal(number, before)
