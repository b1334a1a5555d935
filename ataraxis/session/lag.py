"""Lag: how far behind the recorder of a stream is, and was at most."""

from __future__ import annotations

import time

from ataraxis.errors import AtaraxisError
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.context import Context
from ataraxis.stream.inspector import Inspector
from ataraxis.stream.statistics import StreamStatistics

_SHORTEST_S = 0.05


class Lag:
    """Writes into a verdict how far behind its recorder was.

    Parameters
    ----------
    verdict : StreamVerdict
        Of the stream.
    recorder : str
        The name its producer knows the recorder by.
    context : Context
        Where the stream lives.
    is_known : bool
        It was recorded before: what its source waited until now counts.
    """

    def __init__(
        self,
        verdict: StreamVerdict,
        recorder: str,
        context: Context,
        is_known: bool = False,
    ) -> None:
        self._verdict, self._recorder, self._context = verdict, recorder, context
        self._before = 0.0 if is_known else None
        self.waited_s = 0.0
        """How long the source has waited for readers since, s."""
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def seen(self) -> StreamStatistics | None:
        """Read the stream's words; None: it is not there."""
        try:
            return Inspector(self._verdict.name, self._context).statistics()
        except (OSError, AtaraxisError):
            return None

    def look(self, found: StreamStatistics) -> None:
        """Take in what was just seen."""
        now, verdict = time.monotonic(), self._verdict
        lag = self._of(found)
        verdict.longest_lag = max(verdict.longest_lag, lag)
        if self._before is None:
            self._before = found.stalled_s
        self.waited_s = max(self.waited_s, found.stalled_s - self._before)
        if self._last is None or self._first is None:
            self._first = self._last = now, found.sent
        elif now - self._last[0] > _SHORTEST_S:
            # A stream that pauses or ends while some wait is not behind any further.
            rate = max(
                (found.sent - sent) / (now - when)
                for when, sent in (self._first, self._last)
            )
            if rate > 0:
                verdict.longest_lag_s = max(verdict.longest_lag_s, lag / rate)
            self._last = now, found.sent

    def forget(self) -> None:
        """Begin anew: the stream has ended."""
        self._first = self._last = None

    def behind(self) -> int:
        """Count the frames that wait in the ring for the recorder."""
        found = self.seen()
        return 0 if found is None else self._of(found)

    def is_promised(self, found: StreamStatistics) -> bool:
        """Whether the ring keeps frames for the recorder, which is away."""
        return any(r.label == self._recorder and r.is_detached for r in found.readers)

    def _of(self, found: StreamStatistics) -> int:
        lags = (r.lag for r in found.readers if r.label == self._recorder)
        return max(lags, default=0)
