"""When a recorded instant is due now: absolute deadlines, paused, moved and speeded.

Several replays that share one timeline stay on one clock.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ataraxis.clock import now_ns

_SLICE_S = 0.5  # a wait looks up this often, should nobody wake it


class Timeline:
    """The clock of a replay: source time, s, against monotonic time here.

    Sample k is due at ``begin + (t_k - t_begin) / speed``: nothing adds up, so nothing
    drifts.

    Parameters
    ----------
    speed : float
        Seconds of the recording a second; above 0.

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
        """How often somebody has sought."""
        self.target_s = 0.0
        """Where to, on the source's clock, s."""

    def begin(self, at_s: float) -> None:
        """Say that source time `at_s` is now, unless another replay has begun."""
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
        """Seconds of the recording a second; may be set while it runs."""
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
        """Whether time stands still."""
        return self._held_s is not None

    def pause(self) -> None:
        """Let time stand still."""
        with self._lock:
            if self._held_s is None:
                self._held_s = self._position()

    def resume(self) -> None:
        """Let time go on from where it stands."""
        with self._lock:
            if self._held_s is not None:
                held, self._held_s = self._held_s, None
                if self._anchor_ns is not None:
                    self._anchor(held)
                self._condition.notify_all()

    def seek(self, at_s: float) -> None:
        """Go to source time `at_s`, s; it is due at once, or at the resume."""
        if not math.isfinite(at_s):
            raise ValueError(f"seek({at_s!r}): expected a time, s")
        with self._lock:
            self._anchor(at_s)
            if self._held_s is not None:
                self._held_s = at_s
            self.moves += 1
            self.target_s = at_s
            self._condition.notify_all()

    def wake(self) -> None:
        """Make every wait look whether it is over."""
        with self._lock:
            self._condition.notify_all()

    def wait(self, at_s: float, moves: int, is_over: Callable[[], bool]) -> int | None:
        """Wait until source time `at_s` is due; how late it is now, ns.

        None: somebody sought since `moves`, or it is over.
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
    """Return the speed, or raise because it is none."""
    if not 0 < speed < math.inf:
        raise ValueError(
            f"speed={speed!r}: expected a number above 0; rate_limit=False is as fast "
            "as possible"
        )
    return float(speed)
