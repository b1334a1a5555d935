"""WatchedTrack: one stream of a session that another process records."""

from __future__ import annotations

from ataraxis.log.recorder import RecordingStatistics
from ataraxis.session.lag import Lag
from ataraxis.session.track import SessionLoss
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.context import Context
from ataraxis.stream.statistics import ReaderStatistics, StreamStatistics


class WatchedTrack:
    """One stream of a session that another process records, seen from here.

    Parameters
    ----------
    stream : str
        Its name.
    context : Context
        Where it lives, or will.
    recorder : str
        The name its producer knows the recorder by.
    """

    def __init__(self, stream: str, context: Context, recorder: str) -> None:
        self.name = stream
        self.verdict = StreamVerdict(stream)
        self.is_known = False
        """Whether any recorder has begun with it."""
        self._lag, self._recorder = Lag(self.verdict, recorder, context), recorder
        self._lost = 0

    def look(self) -> None:
        """Look how far behind its recorder is."""
        found, _ = self._seen()
        if found is None:
            self._lag.forget()
        else:
            self._lag.look(found)

    def _seen(self) -> tuple[StreamStatistics | None, ReaderStatistics | None]:
        """Look at the stream, and at its recorder's place in it: that it has begun."""
        found = self._lag.seen()
        readers = found.readers if found is not None else ()
        ours = next((r for r in readers if r.label == self._recorder), None)
        self.is_known |= ours is not None
        return found, ours

    def lose(self, loss: SessionLoss) -> None:
        """Count a loss that its recorder told."""
        self._lost += loss.count

    def merge(self, told: StreamVerdict) -> None:
        """Take in what a recorder says of it at its end."""
        self.note(*told.notes)
        self.verdict.is_trusted &= told.is_trusted
        self.verdict.missing += told.missing
        self.verdict.longest_lag = max(self.verdict.longest_lag, told.longest_lag)
        behind = max(self.verdict.longest_lag_s, told.longest_lag_s)
        self.verdict.longest_lag_s = behind

    def note(self, *texts: str) -> None:
        """Write down what is to be said of it, once."""
        known = self.verdict.notes
        known += [text for text in texts if text not in known]

    def stop(self) -> StreamVerdict:
        """Say what is known of it; its recorder has ended."""
        found = self._lag.seen()
        if found is not None and self._lag.is_promised(found):
            self.verdict.missing += self._lag.behind()
            self.verdict.is_trusted = False
            self.note("its ring holds what is not recorded: run 'ataraxis recover'")
        return self.verdict

    def statistics(self) -> RecordingStatistics:
        """Say how it goes, as far as its ring tells."""
        found, ours = self._seen()
        if found is None or ours is None:
            return RecordingStatistics(self.name, -1, 0, 0, self._lost, 0, False, "")
        frames = max(found.sent - ours.joined_sequence - ours.lag, 0)
        mean = found.sent_bytes // max(found.sent, 1)
        return RecordingStatistics(
            self.name, -1, frames, frames * mean, self._lost, 0,
            not ours.is_detached, "",
        )  # fmt: skip
