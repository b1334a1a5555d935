"""What a server lets one client, and all of them, take: counted and paced."""

from __future__ import annotations

import time

from ataraxis.config.limits import Limits

__all__ = ["Bucket", "Limits"]


class Bucket:
    """How often something may happen: `rate_hz` on average, `burst` at once.

    Examples
    --------
    >>> bucket = Bucket(10.0, burst=2)
    >>> bucket.take(now=0.0), bucket.take(now=0.0), bucket.take(now=0.0)
    (0.0, 0.0, 0.1)
    """

    def __init__(self, rate_hz: float, burst: float) -> None:
        self._rate_hz = rate_hz
        self._burst = burst
        self._left = burst
        self._since = -float("inf")

    def take(self, now: float | None = None, count: float = 1) -> float:
        """Take one, or `count`; how long to wait before it may happen, s."""
        now = time.monotonic() if now is None else now
        gained = (now - self._since) * self._rate_hz
        self._left = min(self._burst, self._left + gained) - count
        self._since = now
        return max(0.0, -self._left / self._rate_hz)
