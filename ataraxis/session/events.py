"""EventStream: the events of a session, as a stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ataraxis.errors import SegmentExists, SegmentNotFound, StreamExists
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.stream import Producer
from ataraxis.stream.inspector import Inspector

EVENTS = "events"
NAME_SIZE, DATA_SIZE = 64, 448
EVENT = np.dtype([("event", f"U{NAME_SIZE}"), ("data", f"U{DATA_SIZE}")])
"""One event: its name, and its data, a JSON object."""


class EventStream:
    """Sends into the stream "events" of a context, which several processes share.

    Parameters
    ----------
    context : Context, str, Path or None
        Context of the stream.
    about : mapping, optional
        Attributes of the stream: a session gives ``session`` (its name), ``directory``
        and ``begun_ns`` (monotonic ns). If another process made the stream, it keeps
        those that it was made with.

    Examples
    --------
    >>> from ataraxis import Consumer
    >>> events = EventStream()
    >>> reader = Consumer("events")
    >>> _ = events.send("stim_on", trial=3)
    >>> frame = reader.receive()
    >>> str(frame.array["event"]), parsed(frame.array["data"])
    ('stim_on', {'trial': 3})
    >>> frame.release(); reader.close(); events.close()
    """

    def __init__(
        self, context: ContextLike = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self._lock = threading.Lock()
        try:
            self.producer = _producer(context, about or {})
        except StreamExists:
            self.producer = _producer(context, _attrs_of(context))

    def send(self, name: str, /, *, time_ns: int | None = None, **data: Any) -> int:
        """Send one event.

        Parameters
        ----------
        name : str
            Name of the event, at most 64 characters.
        time_ns : int, optional
            Time of the event, monotonic ns; by default now.
        **data
            JSON values, scalars and arrays of NumPy; at most 448 characters in all.

        Returns
        -------
        int
            Time of the event, monotonic ns.

        Raises
        ------
        ValueError
            Name or data are too long: record large data as a stream.
        TypeError
            A value cannot be written as JSON.
        """
        from ataraxis.clock import now_ns

        when = now_ns() if time_ns is None else int(time_ns)
        row = row_of(name, data)
        with self._lock:
            self.producer.send(row, time_ns=when)
        return when

    def close(self) -> None:
        """Close the stream; unread events stay."""
        self.producer.close()


def _producer(context: ContextLike, about: Mapping[str, Any]) -> Producer:
    return Producer(
        EVENTS, shape=(), dtype=EVENT, buffer_count=256, shared=True,
        context=context, attrs={"long_name": "events of the session", **about},
    )  # fmt: skip


def _attrs_of(context: ContextLike) -> Mapping[str, Any]:
    """Return the attributes that the stream was made with."""
    try:
        made = Segment.attach(EVENTS, kind=Kind.STREAM, context=context).labels
    except SegmentNotFound:  # it has ended meanwhile
        return {}
    return made.attrs


def refuse_a_second(name: str, context: Context) -> None:
    """Raise `SegmentExists` in a context where a session is being recorded."""
    try:
        found = Inspector(EVENTS, context).statistics()
    except FileNotFoundError:
        return
    live = [r.label for r in found.readers if not r.is_detached]
    if any(label.startswith("session-") for label in live):
        raise SegmentExists(
            f"session {name!r} cannot begin: another one is recorded in context "
            f"{context.path}. End that, or use another context="
        )


def row_of(name: str, data: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Write an event as one row of `EVENT`, shape (); raises as `EventStream.send`."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_SIZE:
        raise ValueError(
            f"the name of an event must have 1 to {NAME_SIZE} characters, got {name!r}"
        )
    text = json.dumps(data, default=_plain, ensure_ascii=False) if data else ""
    if len(text) > DATA_SIZE:
        raise ValueError(
            f"event {name!r}: its data are {len(text)} characters of JSON, and at most "
            f"{DATA_SIZE} fit. Send large data as a stream"
        )
    return np.array((name, text), EVENT)


def parsed(data: Any) -> dict[str, Any]:
    """Parse the data of an event."""
    text = str(data)
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"event data must be JSON values, got {type(value).__name__}")
