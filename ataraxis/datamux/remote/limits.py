"""What a server lets one client, and all of them, take."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; a client that passes one is told which.

    Examples
    --------
    >>> Limits(clients=2).clients
    2
    """

    clients: int = 64
    """Clients at a time, those away for a moment included."""
    handshakes: int = 64
    """Connections at a time that have not said who they are."""
    handshake_s: float = 5.0
    """How long that may take, s."""
    streams: int = 16
    """Streams of one client at a time."""
    message_bytes: int = 2**20
    """The longest message from a client."""
    ring_bytes: int = 32 * 2**20
    """What is kept for one client until it has read it, of all its streams."""
    block_samples: int = 2**16
    """The longest block that a client may ask for."""
    requests_hz: float = 100.0
    """Requests a second that one client is answered; more wait."""
    messages_hz: float = 5000.0
    """Messages of any kind a second that are read from one client; more wait."""
    patience: int = 2000
    """Requests of one client that may wait; with more it is sent away."""
    heartbeat_s: float = 5.0
    """How often to ask whether the other side is there; gone after three in vain."""
    resume_s: float = 30.0
    """How long a client that lost its connection may take to come back."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"Limits.{field.name}={value!r}: expected above 0")


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

    def take(self, now: float | None = None) -> float:
        """Take one; how long to wait before it may happen, s."""
        now = time.monotonic() if now is None else now
        gained = (now - self._since) * self._rate_hz
        self._left = min(self._burst, self._left + gained) - 1
        self._since = now
        return max(0.0, -self._left / self._rate_hz)
