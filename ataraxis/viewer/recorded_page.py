"""RecordedPage and RecordedPump: pages of a recording, answered by one thread.

The thread answers what pages ask for, the newest question of each panel; while there is
none, it makes the columns of every scale.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.errors import BadMessage
from ataraxis.viewer import bundle
from ataraxis.viewer.bundle import Part
from ataraxis.viewer.page import (
    MOST_BYTES,
    MOST_PANELS,
    Credit,
    Panel,
    heard,
    panel_of,
    whole,
)
from ataraxis.viewer.picture import part_of
from ataraxis.viewer.recorded import RecordedSession, RecordedStream
from ataraxis.viewer.tap import BINS_A_DECADE, FIRST_BIN

_AGAIN_S = 1.0
_IDLE_S = 0.5
_log = logging.getLogger("ataraxis.viewer")


@dataclass(eq=False)
class RecordedPage(Credit):
    """One open page of a recording: the panels it shows, and the span it looks at.

    Examples
    --------
    >>> page = RecordedPage()
    >>> page.hear('{"op": "span", "start": 0, "stop": 1000000000}')
    >>> page.span
    (0, 1000000000)
    """

    panels: dict[int, Panel] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    """What it looks at, ns since the beginning; None: all."""
    cursor: int | None = None
    """Time of the pictures; None: the middle of the span."""
    due: set[int] = field(default_factory=set)
    """Panels that were not answered since they asked."""
    ready: dict[int, tuple[list[Part], dict[str, Any]]] = field(default_factory=dict)
    """Answers that were not sent."""
    is_fresh: bool = True
    """Whether it knows nothing of the recording."""
    events_of: tuple[int, int] | None = None
    """The span whose events it has."""
    _said: dict[str, str] = field(default_factory=dict)

    def hear(self, text: str | bytes) -> None:
        """Take a message of the page; raise `BadMessage`."""
        heard(self, text, _OPERATIONS, MOST_BYTES)

    def show(self, **given: Any) -> None:
        """Show a panel of a stream from now on."""
        panel = panel_of(given)
        if panel.number not in self.panels and len(self.panels) >= MOST_PANELS:
            raise BadMessage(f"a page has at most {MOST_PANELS} panels")
        self.panels[panel.number] = panel
        self.due.add(panel.number)

    def hide(self, *, panel: int) -> None:
        """Show a panel no longer."""
        number = whole(panel, 0, 65535, "panel")
        self.panels.pop(number, None)
        self.due.discard(number)
        self.ready.pop(number, None)

    def look(self, *, start: int, stop: int) -> None:
        """Look at a span, ns since the beginning."""
        start = whole(start, -(2**53), 2**53, "start")
        self.span = start, whole(stop, start + 1, 2**53, "stop")
        self.due |= {n for n, p in self.panels.items() if p.kind == "traces"}
        if self.cursor is None:
            self._want_pictures()

    def point(self, *, at: int | None) -> None:
        """Show the pictures nearest to a time; None: to the middle of the span."""
        self.cursor = None if at is None else whole(at, -(2**53), 2**53, "at")
        self._want_pictures()

    def _want_pictures(self) -> None:
        self.due |= {n for n, p in self.panels.items() if p.kind == "picture"}

    def next_bundle(self, words: dict[str, Any], news: dict[str, Any]) -> bytes | None:
        """Return the next bundle; None: nothing is new, or it has no credit."""
        if not self.has_credit:
            return None
        parts: list[Part] = []
        about: dict[str, Any] = {}
        for number in list(self.ready):
            found = self.ready.pop(number, None)
            if found is not None and number in self.panels:
                parts += found[0]
                about[str(number)] = found[1]
        said = {**(words if self.is_fresh else {}), **news}
        if about:
            said["panels"] = about
        changed = {}
        for key, value in said.items():
            text = json.dumps(value)
            if key == "panels" or self._said.get(key) != text:
                self._said[key] = text
                changed[key] = value
        if changed:
            parts.insert(0, bundle.state(changed))
        self.is_fresh = self.is_fresh and not words
        if not parts:
            return None
        return bundle.encode(parts, now_ns(), self.next_tick())


_OPERATIONS = {
    "show": RecordedPage.show, "hide": RecordedPage.hide, "span": RecordedPage.look,
    "cursor": RecordedPage.point, "ack": RecordedPage.acknowledge,
}  # fmt: skip


class RecordedPump:
    """Answers the pages of a recording, as `Pump` those of streams that run.

    Parameters
    ----------
    path : str or Path
        The directory of a session, or another log of ataraxis.

    Raises
    ------
    FileNotFoundError
        The path has no log.
    """

    def __init__(self, path: str | Path) -> None:
        self.session = RecordedSession(path)
        self._words: dict[str, Any] = {}
        self._pages: list[RecordedPage] = []
        self._open = 0
        self._wakes = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_over = False
        self._problem = ""
        self._again_s = 0.0
        self._sampled: set[tuple[RecordedPage, int]] = set()

    def new_page(self) -> RecordedPage:
        """Return a page that knows nothing yet."""
        return RecordedPage()

    def look(self, pages: int) -> None:
        """Note how many pages are open."""
        self._open = pages

    def step(
        self, pages: Collection[RecordedPage]
    ) -> Iterator[tuple[RecordedPage, bytes | None]]:
        """Wake the thread if a page asks; yield the bundles of pages that have credit.

        None instead of a bundle: the page is to be closed.
        """
        with self._wakes:
            self._pages = list(pages)
            if self._pages and self._thread is None:
                self._is_over = False
                self._thread = threading.Thread(
                    target=self._work, name="ataraxis-recording", daemon=True
                )
                self._thread.start()
            if any(page.due for page in self._pages):
                self._wakes.notify()
        return self._offer(list(pages))

    def _offer(
        self, pages: list[RecordedPage]
    ) -> Iterator[tuple[RecordedPage, bytes | None]]:
        for page in pages:
            news: dict[str, Any] = {"pages": self._open}
            if self._problem:
                news["verdict"] = {"tone": "bad", "text": self._problem}
            try:
                data = page.next_bundle(self._words, news)
            except Exception:  # of one page: the others go on
                _log.exception("a bundle could not be made")
                yield page, None
                continue
            if data is not None:
                yield page, data

    def close(self) -> None:
        """End the thread; `step` starts it again."""
        with self._wakes:
            self._is_over, self._pages = True, []
            self._wakes.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def end(self) -> None:
        """Close the recording."""
        self.close()
        self.session.close()

    # ---- the thread

    def _work(self) -> None:
        try:
            self._words = self.session.words()
            while not self._is_over:
                if self._answer() or self._extend():
                    continue
                with self._wakes:
                    if not any(p.due for p in self._pages) and not self._is_over:
                        self._wakes.wait(_IDLE_S)
        except Exception as error:  # of a damaged recording: the pages say so
            _log.exception("a recording cannot be shown")
            self._problem = f"cannot be shown: {type(error).__name__}: {error}"

    def _answer(self) -> bool:
        """Answer one panel; return False if none asks."""
        for page in self._pages:
            while page.due:
                number = page.due.pop()
                panel = page.panels.get(number)
                if panel is None:
                    continue
                stream = self.session.streams.get(panel.stream)
                try:
                    page.ready[number] = self._answer_of(page, panel, stream)
                except Exception as error:  # of one stream: the others go on
                    said = f"{type(error).__name__}: {error}"[:200]
                    page.ready[number] = [], {"stream": panel.stream, "problem": said}
                return True
        return False

    def _answer_of(
        self, page: RecordedPage, panel: Panel, stream: RecordedStream | None
    ) -> tuple[list[Part], dict[str, Any]]:
        about: dict[str, Any] = {"stream": panel.stream}
        if stream is None or not len(stream):
            return [], {**about, "problem": "nothing was recorded"}
        span = page.span or (0, self.session.end)
        if panel.kind == "intervals":
            step, counts = 1 / BINS_A_DECADE, stream.intervals()
            return [bundle.bins(panel.number, FIRST_BIN, step, counts)], about
        if panel.kind != stream.kind:
            return [], {**about, "problem": "this stream cannot be drawn so"}
        if panel.kind == "picture":
            at = sum(span) // 2 if page.cursor is None else page.cursor
            found = stream.picture(at)
            if found is None:
                return [], about
            part = part_of(panel.number, found, panel.columns, is_raw=panel.is_raw)
            return [part], {**about, "at": found[1]}
        seen = stream.columns(*span, panel.columns)
        low, high = seen.low, seen.high
        if panel.channels is not None:
            chosen = panel.channels[panel.channels < low.shape[1]]
            low, high = low[:, chosen], high[:, chosen]
        about |= {
            "is_fitted": stream.samples.is_fitted,
            "is_exact": seen.is_exact, "share": stream.share, "channels": low.shape[1],
            "events": self.session.events_in(*span), "span": span,
        }  # fmt: skip
        if seen.is_exact:
            self._sampled.discard((page, panel.number))
        else:
            self._sampled.add((page, panel.number))
        part = bundle.columns(
            panel.number, 0, low, high, seen.start_ns, seen.ns,
            are_lost=seen.are_lost, is_past=True,
        )  # fmt: skip
        return [part], about

    def _extend(self) -> bool:
        """Make some more columns of a stream that is shown; return False if all are."""
        shown = {
            panel.stream for page in self._pages for panel in page.panels.values()
            if panel.kind == "traces"
        }  # fmt: skip
        for name in shown:
            stream = self.session.streams.get(name)
            if stream is None or stream.kind != "traces" or not len(stream):
                continue
            if not stream.levels.extend():
                self._ask_again(name)
                continue
            if time.monotonic() - self._again_s > _AGAIN_S:
                self._again_s = time.monotonic()
                self._ask_again(name)
            return True
        return False

    def _ask_again(self, name: str) -> None:
        """Answer the panels again whose columns were of a few samples."""
        for page, number in list(self._sampled):
            panel = page.panels.get(number)
            if panel is None or page not in self._pages:
                self._sampled.discard((page, number))
            elif panel.stream == name:
                page.due.add(number)
