"""When a recorded instant is due now: absolute deadlines, pause, seek and speed.

Replays that share a timeline share one clock.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ataraxis.clock import now_ns

_SLICE_S = 0.5  # longest wait without a check, if no wake comes


class Timeline:
    """The clock of a replay: source time, s, against monotonic time here.

    Sample k is due at ``begin + (t_k - t_begin) / speed``: deadlines do not drift.

    Parameters
    ----------
    speed : float
        Seconds of the recording per second; above 0.

    Examples
    --------
    >>> timeline = Timeline(speed=1000)
    >>> timeline.begin(5.0)
    >>> timeline.wait(6.0, timeline.moves, lambda: False) >= 0  # 1 ms later
    True
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._lock = threading.RLock()  # entered without Python's Condition
        self._condition = threading.Condition(self._lock)
        self._speed = checked_speed(speed)
        self._anchor_ns: int | None = None
        self._anchor_s = 0.0
        self._held_s: float | None = None
        self.moves = 0
        """Number of seeks."""
        self.target_s = 0.0
        """Target of the last seek, on the source's clock, s."""

    def begin(self, at_s: float) -> None:
        """Set source time `at_s` to now, unless another replay has begun."""
        with self._lock:
            if self._anchor_ns is None:
                self._anchor(at_s)
                if self._held_s is not None:
                    self._held_s = at_s

    def _anchor(self, at_s: float) -> None:
        self._anchor_ns, self._anchor_s = now_ns(), at_s

    @property
    def position_s(self) -> float:
        """Source time now, s."""
        with self._lock:
            return self._position()

    def _position(self) -> float:
        if self._held_s is not None:
            return self._held_s
        if self._anchor_ns is None:
            return self._anchor_s
        return self._anchor_s + (now_ns() - self._anchor_ns) * 1e-9 * self._speed

    @property
    def speed(self) -> float:
        """Seconds of the recording per second; can be set while it runs."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        with self._lock:
            if self._anchor_ns is not None:
                self._anchor(self._position())
            self._speed = checked_speed(speed)
            self._condition.notify_all()

    @property
    def is_paused(self) -> bool:
        """Whether the clock is paused."""
        return self._held_s is not None

    def pause(self) -> None:
        """Pause the clock."""
        with self._lock:
            if self._held_s is None:
                self._held_s = self._position()

    def resume(self) -> None:
        """Resume the clock where it was paused."""
        with self._lock:
            if self._held_s is not None:
                held, self._held_s = self._held_s, None
                if self._anchor_ns is not None:
                    self._anchor(held)
                self._condition.notify_all()

    def seek(self, at_s: float) -> None:
        """Go to source time `at_s`, s; it is due at once, or after `resume`."""
        if not math.isfinite(at_s):
            raise ValueError(f"seek needs a finite time, s, got {at_s!r}")
        with self._lock:
            self._anchor(at_s)
            if self._held_s is not None:
                self._held_s = at_s
            self.moves += 1
            self.target_s = at_s
            self._condition.notify_all()

    def wake(self) -> None:
        """Make every wait check whether it is over."""
        with self._lock:
            self._condition.notify_all()

    def wait(self, at_s: float, moves: int, is_over: Callable[[], bool]) -> int | None:
        """Wait until source time `at_s` is due; return how late it is, ns.

        None: a seek came after `moves`, or it is over.
        """
        with self._lock:
            while True:
                if is_over() or self.moves != moves:
                    return None
                if self._held_s is None and self._anchor_ns is not None:
                    ahead_s = (at_s - self._anchor_s) / self._speed
                    late = now_ns() - self._anchor_ns - round(ahead_s * 1e9)
                    if late >= 0:
                        return late
                    self._condition.wait(min(-late * 1e-9, _SLICE_S))
                else:
                    self._condition.wait(_SLICE_S)


def checked_speed(speed: float) -> float:
    """Return the speed; `ValueError` if it is not above 0 and finite."""
    if not 0 < speed < math.inf:
        raise ValueError(
            f"speed must be above 0, got {speed!r}; rate_limit=False is as fast as "
            "possible"
        )
    return float(speed)
