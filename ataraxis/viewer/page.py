"""Page: one open page, the panels it shows, and what it has been sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.errors import BadMessage
from ataraxis.viewer import bundle
from ataraxis.viewer.bundle import Part
from ataraxis.viewer.filters import FILTERS
from ataraxis.viewer.picture import part_of
from ataraxis.viewer.tap import BINS_A_DECADE, FIRST_BIN, MOST_COLUMNS, Tap
from ataraxis.viewer.watch import StreamWatch

CREDIT = 2
"""Bundles that a page is sent before it acknowledges one."""
MOST_PANELS = 16
MOST_BYTES = 4096
"""Of a message of a page."""
_BINS_NS = 450_000_000


@dataclass
class Panel:
    """What a page shows of one stream."""

    number: int
    kind: str
    """'traces', 'picture', 'intervals' or 'spectrogram', of its first channel."""
    stream: str
    seconds: float = 2.0
    columns: int = 1000
    channels: NDArray[np.intp] | None = None
    is_raw: bool = False
    stream_id: str = ""
    """The stream of whose columns it has some."""
    filter_name: str = ""
    key: tuple[str, int] | None = None
    """Which series of the tap."""
    sent: int = 0
    """Columns before this one were sent; of a picture: its sequence, plus one."""
    skipped: int = 0
    """Columns that were not sent, as the page was too slow for its window."""
    is_fresh: bool = True
    """Whether it has no columns yet."""
    past: tuple[int, int] | None = None
    """Columns of the past that it has asked for."""
    sent_ns: int = 0


@dataclass(eq=False, kw_only=True)
class Credit:
    """How many bundles a page may be sent: those that it has not drawn are few."""

    tick: int = 0
    """Bundles sent."""
    acknowledged: int = 0
    """The last one that the page has drawn."""

    @property
    def has_credit(self) -> bool:
        """Whether it may be sent another bundle."""
        return self.tick - self.acknowledged < CREDIT

    def next_tick(self) -> int:
        """Count a bundle; return its number."""
        self.tick += 1
        return self.tick

    def acknowledge(self, *, tick: int) -> None:
        """Note that a bundle, and those before it, were drawn."""
        if not isinstance(tick, int) or not self.acknowledged <= tick <= self.tick:
            raise BadMessage(f"tick {tick!r} was not sent")
        self.acknowledged = tick


@dataclass(eq=False)
class Page(Credit):
    """One open page.

    Nothing is queued for it: columns wait in the tap's series, at most a window of
    them, and only the newest picture is sent. So a page that does not acknowledge costs
    no memory.

    Parameters
    ----------
    watch : StreamWatch
        What is shown as words.
    """

    watch: StreamWatch
    panels: dict[int, Panel] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    _beat_ns: dict[str, int] = field(default_factory=dict)
    _event: int = 0

    # ---- what it asks for

    def hear(self, text: str | bytes) -> None:
        """Take a message of the page; raise `BadMessage`."""
        heard(self, text, _OPERATIONS, MOST_BYTES)

    def hide(self, *, panel: int) -> None:
        """Show a panel no longer."""
        self.panels.pop(whole(panel, 0, 65535, "panel"), None)

    def show(self, **given: Any) -> None:
        """Show a panel of a stream from now on; see `panel_of`."""
        panel = panel_of(given)
        if panel.number not in self.panels and len(self.panels) >= MOST_PANELS:
            raise BadMessage(f"a page has at most {MOST_PANELS} panels")
        self._said.pop("panels", None)
        self.panels[panel.number] = panel

    def look(self, *, panel: int, first: int, last: int) -> None:
        """Send columns `first` to `last` of the past, as far as they are kept."""
        found = self.panels.get(whole(panel, 1, 65535, "panel"))
        first = whole(first, 0, 2**53, "first")
        last = whole(last, first, first + MOST_COLUMNS, "last")
        if found is not None:
            found.past = first, last

    # ---- what it gets

    def next_bundle(
        self,
        taps: Mapping[str, Tap],
        problems: Mapping[str, str],
        words: Mapping[str, Any],
        events: Iterable[tuple[int, dict[str, Any]]],
    ) -> bytes | None:
        """Return the next bundle; None: there is nothing new, or it has no credit.

        Parameters
        ----------
        taps : mapping
            Name of a stream to its tap.
        problems : mapping
            Name of a stream to the reason why it has none.
        words : mapping
            What `StreamWatch.look` has returned.
        events : iterable
            Numbers and descriptions of events, the newest last.
        """
        if not self.has_credit:
            return None
        parts: list[Part] = []
        for panel in self.panels.values():
            tap = taps.get(panel.stream)
            if tap is not None:
                parts += self._parts(panel, tap)
        news = self._news(words, problems, taps, events)
        if news:
            parts.insert(0, bundle.state(news))
        if not parts:
            return None
        return bundle.encode(parts, now_ns(), self.next_tick())

    def _parts(self, panel: Panel, tap: Tap) -> list[Part]:
        if panel.kind == "intervals":
            now = now_ns()
            if now - panel.sent_ns < _BINS_NS:
                return []
            panel.sent_ns, step = now, 1 / BINS_A_DECADE
            counts = tap.intervals.counts()
            return [bundle.bins(panel.number, FIRST_BIN, step, counts)]
        if panel.kind == "spectrogram":
            return self._columns(panel, tap) if tap.kind == "traces" else []
        if panel.kind != tap.kind:
            return []
        if panel.kind == "picture":
            newest = tap.picture
            if newest is None or (
                panel.stream_id == tap.stream_id and newest[0] < panel.sent
            ):
                return []
            panel.stream_id, panel.sent = tap.stream_id, newest[0] + 1
            return [part_of(panel.number, newest, panel.columns, is_raw=panel.is_raw)]
        return self._columns(panel, tap)

    def _columns(self, panel: Panel, tap: Tap) -> list[Part]:
        is_dropped = panel.key not in tap.series  # while the page was away
        if panel.stream_id != tap.stream_id or is_dropped:
            panel.stream_id = tap.stream_id
            panel.key = _series_of(panel, tap)
            panel.is_fresh = True
        if panel.key is None:
            return []
        series = tap.series[panel.key]
        ns = tap.ns_a_column(panel.key)
        oldest = series.end - int(panel.seconds * 1e9 / ns) - 1
        start = max(oldest, series.first)
        is_fresh = panel.is_fresh
        if is_fresh:
            panel.sent = start
        elif start > panel.sent:
            panel.skipped += start - panel.sent
            panel.sent = start
        chosen = panel.channels
        if panel.kind == "spectrogram":
            chosen = None  # its columns are frequencies
        elif chosen is not None:
            chosen = chosen[chosen < tap.channels]
        parts = []
        for range_, is_past in (panel.past, True), ((panel.sent, series.end), False):
            if range_ is None or (range_[0] >= range_[1] and not is_past):
                continue
            first, low, high = series.read(*range_, chosen)
            parts.append(
                bundle.columns(
                    panel.number, first, low, high, tap.time_of(panel.key, first), ns,
                    are_lost=tap.rate is not None, is_past=is_past,
                    is_fresh=is_fresh and not is_past,
                )
            )  # fmt: skip
        if series.end > panel.sent:
            panel.sent, panel.is_fresh = series.end, False
        panel.past = None
        return parts

    # ---- words

    def _news(
        self,
        words: Mapping[str, Any],
        problems: Mapping[str, str],
        taps: Mapping[str, Tap],
        events: Iterable[tuple[int, dict[str, Any]]],
    ) -> dict[str, Any]:
        """Return what has changed since the last bundle."""
        found = {**words, "panels": self._about_panels(problems, taps)}
        news: dict[str, Any] = {}
        for key, value in found.items():
            text = json.dumps(value)
            if self._said.get(key) != text:
                self._said[key] = text
                news[key] = value
        beats = {}
        for name, kept in self.watch.beats.items():
            last = self._beat_ns.get(name, 0)
            if new := [beat for beat in kept if beat[0] > last]:
                beats[name] = new
                self._beat_ns[name] = int(new[-1][0])
        if beats:
            news["beats"] = beats
        new_events = [(k, event) for k, event in events if k > self._event]
        if new_events:
            self._event = new_events[-1][0]
            news["events"] = [event for _, event in new_events]
        return news

    def _about_panels(
        self, problems: Mapping[str, str], taps: Mapping[str, Tap]
    ) -> dict[str, Any]:
        found = {}
        for number, panel in self.panels.items():
            about: dict[str, Any] = {"stream": panel.stream, "id": panel.stream_id}
            if panel.stream in problems:
                about["problem"] = problems[panel.stream]
            tap = taps.get(panel.stream)
            if panel.kind == "traces" and tap is not None and panel.key:
                about["filter"] = FILTERS[panel.key[0]]
                about["skipped"] = panel.skipped
                about["missed"] = tap.missed
            found[str(number)] = about
        return found


_OPERATIONS: dict[str, Callable[..., None]] = {
    "show": Page.show,
    "hide": Page.hide,
    "window": Page.look,
    "ack": Page.acknowledge,
}


def heard(
    page: Any, text: str | bytes, operations: Mapping[str, Any], most: int
) -> None:
    """Do what a message asks a page for; raise `BadMessage`."""
    if isinstance(text, bytes) or len(text) > most:
        raise BadMessage("a message is JSON of at most 4 KiB")
    try:
        message = json.loads(text)
        operation = message.pop("op")
        operations[operation](page, **message)
    except BadMessage:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise BadMessage(f"not a message: {e}") from e


def panel_of(given: dict[str, Any]) -> Panel:
    """Return the panel of a message "show"; `channels` are ranges [first, end].

    Raises `BadMessage`, or `TypeError` for a field that it does not have.
    """
    return _panel(**given)


def _panel(
    *,
    panel: int,
    kind: str,
    stream: str,
    seconds: float = 2.0,
    columns: int = 1000,
    channels: list[list[int]] | None = None,
    raw: bool = False,
    filter: str = "",  # the protocol's word
) -> Panel:
    number = whole(panel, 1, 65535, "panel")
    if kind not in ("traces", "picture", "intervals", "spectrogram"):
        raise BadMessage(f"kind {kind!r} is unknown")
    if not isinstance(stream, str) or not isinstance(raw, bool):
        raise BadMessage("stream is a name, and raw a truth")
    if filter not in FILTERS:
        raise BadMessage(f"filter must be one of {[*FILTERS]}")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0.01 <= seconds <= 3600:
        raise BadMessage("seconds are 0.01 to 3600")
    return Panel(
        number,
        kind,
        stream,
        float(seconds),
        whole(columns, 1, MOST_COLUMNS, "columns"),
        _ranges(channels),
        raw,
        filter_name=filter,
    )


def _series_of(panel: Panel, tap: Tap) -> tuple[str, int] | None:
    """Return the series that a panel shows."""
    if panel.kind == "spectrogram":
        channel = 0 if panel.channels is None else int(panel.channels[0])
        return tap.spectrum_of(channel)
    return tap.series_of(panel.seconds, panel.columns, panel.filter_name)


def whole(value: Any, least: int, most: int, what: str) -> int:
    """Return a whole number of a message; raise `BadMessage`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadMessage(f"{what} must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise BadMessage(f"{what} must be {least} to {most}, got {value}")
    return value


def _ranges(channels: Any) -> NDArray[np.intp] | None:
    """Return the channels in ranges [first, end]; None: all of them."""
    if channels is None:
        return None
    found: list[int] = []
    for first, end in channels:
        pair = whole(first, 0, 65535, "channel"), whole(end, 0, 65535, "channel")
        found += range(*pair)
    if not 0 < len(found) <= 65535:
        raise BadMessage("channels must be 1 to 65535 in all")
    return np.array(found, np.intp)
