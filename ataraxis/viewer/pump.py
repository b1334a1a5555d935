"""Pump: taps, events and the watch of one viewer, read in one thread, never awaited."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ataraxis.errors import AtaraxisError, EndOfStream
from ataraxis.session.events import EVENT, EVENTS
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Consumer
from ataraxis.viewer.page import Page
from ataraxis.viewer.tap import LABEL, Tap
from ataraxis.viewer.watch import StreamWatch

WATCH_S = 0.5
"""How often `Pump.look` is to be called, s."""
_EVENTS = 256
_log = logging.getLogger("ataraxis.viewer")
_TEXT = 200


class Pump:
    """The only place that opens, reads and closes taps.

    Parameters
    ----------
    context : Context, str, Path or None
        Context of the streams.
    names : sequence of str
        Streams; all of the context by default.
    history_s : float
        How long columns are kept, s.
    """

    def __init__(
        self, context: ContextLike, names: Sequence[str] = (), history_s: float = 60.0
    ) -> None:
        self.watch = StreamWatch(context, names)
        self._context, self._history_s = context, history_s
        self._words: dict[str, Any] = {}
        self._taps: dict[str, Tap] = {}
        self._problems: dict[str, str] = {}
        self._retry_s: dict[str, float] = {}
        self._events = EventTap(context)

    def new_page(self) -> Page:
        """Return a page that shows nothing yet."""
        return Page(self.watch)

    def look(self, pages: int) -> None:
        """Read what is shown as words; `pages` are open."""
        try:
            words = self.watch.look(asks_agent=pages > 0)
        except Exception as error:  # of a damaged file: the page says so and goes on
            verdict = {"tone": "bad", "text": f"cannot be read: {error}"}
            words = {**self._words, "verdict": verdict}
        self._words = {**words, "pages": pages}

    def step(self, pages: Collection[Page]) -> Iterator[tuple[Page, bytes | None]]:
        """Take what has come; yield the bundles of the pages that have credit.

        None instead of a bundle: something is wrong with that page, which is to be
        closed.
        """
        wanted = {p.stream for page in pages for p in page.panels.values()}
        self._close_others(wanted)
        if not pages:
            self._events.close()
            self.watch.close()
            return iter(())
        used: dict[str, list[tuple[str, int] | None]] = {}
        for page in pages:
            for panel in page.panels.values():
                used.setdefault(panel.stream, []).append(panel.key)
        for name in wanted:
            self._follow(name)
        for name, tap in list(self._taps.items()):
            if not tap.is_open:
                continue
            try:
                if not tap.drain():
                    tap.close()
                tap.drop_unused(used.get(name, ()))
            except Exception as error:  # of one stream: the others go on
                self._fail(name, error)
        self._events.drain(self.watch.ids.get(EVENTS))
        return self._offer(list(pages))

    def _offer(self, pages: list[Page]) -> Iterator[tuple[Page, bytes | None]]:
        for page in pages:
            try:
                data = page.next_bundle(
                    self._taps, self._problems, self._words, self._events.found
                )
            except Exception:  # of one page: the others go on
                _log.exception("a bundle could not be made")
                yield page, None
                continue
            if data is not None:
                yield page, data

    def close(self) -> None:
        """Leave every stream."""
        self.step(())

    def end(self) -> None:
        """Leave every stream."""
        self.close()

    def _follow(self, name: str) -> None:
        """Open a tap, also if a stream was made again under the name."""
        tap, current = self._taps.get(name), self.watch.ids.get(name)
        if tap is not None and current not in (None, tap.stream_id):
            self._drop(name)
            tap = None
        if tap is not None or current is None:
            return
        if time.monotonic() < self._retry_s.get(name, 0.0):
            return
        try:
            self._taps[name] = Tap(name, self._context, self._history_s)
            self._problems.pop(name, None)
        except (AtaraxisError, OSError, ValueError) as error:
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        self._problems[name] = f"{type(error).__name__}: {error}"[:_TEXT]
        self._retry_s[name] = time.monotonic() + WATCH_S
        self._drop(name)

    def _drop(self, name: str) -> None:
        tap = self._taps.pop(name, None)
        if tap is not None:
            tap.close()

    def _close_others(self, wanted: set[str]) -> None:
        for name in self._taps.keys() - wanted:
            self._drop(name)
        for name in self._problems.keys() - wanted:
            del self._problems[name]


class EventTap:
    """The newest events of a session, read with their stamps.

    Parameters
    ----------
    context : Context, str, Path or None
        Context of the stream "events".
    """

    def __init__(self, context: ContextLike) -> None:
        self._context = context
        self._reader: Consumer | None = None
        self._stream_id = ""
        self._count = 0
        self.found: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_EVENTS)
        """Number and description of each."""

    def drain(self, stream_id: str | None) -> None:
        """Take what has come; follow the stream of this identity."""
        if stream_id is None or stream_id != self._stream_id:
            self.close()
        if stream_id is None:
            return
        try:
            if self._reader is None:
                self._join()
            self._take()
        except EndOfStream:
            pass
        except (AtaraxisError, OSError, ValueError):
            self.close()

    def _join(self) -> None:
        self._reader = Consumer(
            EVENTS, policy="lossy", start="latest", label=LABEL, context=self._context
        )
        self._stream_id = self._reader.stream_id
        if self._reader.labels.dtype != EVENT:
            raise ValueError("not a stream of events")

    def _take(self) -> None:
        """Take what has come, copied in the kernel: a frame is held for no time."""
        assert self._reader is not None
        while True:
            try:
                block = self._reader.read_block(_EVENTS, timeout=0)
            except TimeoutError:
                return
            for row, time_ns in zip(block.data, block.time_ns.tolist(), strict=True):
                self._count += 1
                event = {
                    "time_ns": time_ns,
                    "name": str(row["event"]),
                    "data": str(row["data"])[:_TEXT],
                }
                self.found.append((self._count, event))
            if not len(block):
                return

    def close(self) -> None:
        """Leave the stream."""
        reader, self._reader = self._reader, None
        self._stream_id = ""
        if reader is not None:
            reader.close()
