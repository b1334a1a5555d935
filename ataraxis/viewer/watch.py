"""StreamWatch: what a page says in words, read twice a second without taking part."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ataraxis.clock import now_ns
from ataraxis.errors import AtaraxisError, LayoutError
from ataraxis.labels import Labels, sample_rate
from ataraxis.pipeline.board import StatusBoard, board_names
from ataraxis.pipeline.statistics import RunStatistics, list_runs
from ataraxis.session.events import EVENT, EVENTS
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import SegmentHeader
from ataraxis.stream.endpoint import TYPED
from ataraxis.stream.inspector import STREAM, Meter, Metered
from ataraxis.stream.statistics import ReaderStatistics
from ataraxis.viewer.tap import shown_as

if TYPE_CHECKING:
    from ataraxis.cluster.status import AgentWatch

BEATS = 120
"""Readings that are kept: the last minute."""
_LEAST_S = 0.2
"""A rate over less is mostly of the moment that it was read at."""
_NAMES = 512
_PATH = 200
_RECORDER = "session-"
AGENT_SOCKET = ".agent"
"""The agent's socket in a context, as `ataraxis.cluster.door` names it."""
AGENT_S = 1.0
"""Least time between two questions to it, s."""
_ROWS, _TEXT = 200, 200
_BYTES_ATTRS = ("units", "unit", "long_name")


class StreamWatch:
    """Reads the streams, readers, pipes and hosts of a context.

    Parameters
    ----------
    context : Context, str, Path or None
        The context.
    names : sequence of str
        Only these streams; all of them by default.

    Examples
    --------
    >>> from ataraxis import Producer
    >>> with Producer("doc_watch", shape=(3,)) as stream:
    ...     watch = StreamWatch(None, ["doc_watch"])
    ...     words = watch.look()
    ...     stream.unlink()
    >>> [found["name"] for found in words["streams"]], words["verdict"]["text"]
    (['doc_watch'], 'live, not recorded')
    """

    def __init__(self, context: ContextLike, names: Sequence[str] = ()) -> None:
        self._context = Context.of(context)
        self._names = set(names)
        self._meter = Meter(self._context)
        self._described: dict[str, dict[str, Any]] = {}
        self._lost: dict[str, tuple[int, int]] = {}
        self._runs: dict[tuple[str, str], RunStatistics] = {}
        self._hosts = HostWatch(self._context)
        self._read_ns = 0
        self._is_long = False
        self.beats: dict[str, deque[list[float]]] = {}
        """For each stream: time ns, frames per second, and whether all was well."""
        self.ids: dict[str, str] = {}
        """Identity of each stream."""

    def look(self, *, asks_agent: bool = True) -> dict[str, Any]:
        """Read everything; return it, JSON-able.

        Hosts are what the agent of the context has told: it is not waited for, and not
        asked if `asks_agent` is false.
        """
        reading = self._meter.read()
        self._is_long = (reading.interval_s or 0.0) >= _LEAST_S
        found = [
            metered
            for metered in reading.streams
            if not self._names or metered.name in self._names
        ]
        self.ids = {}
        streams = [self._stream(metered) for metered in found]
        if EVENTS not in self.ids:  # drawn over the traces of any stream
            with contextlib.suppress(AtaraxisError, OSError):
                self.ids[EVENTS] = self._describe(EVENTS)[0]
        for name in self.beats.keys() - {metered.name for metered in found}:
            del self.beats[name]
        for identity in self._described.keys() - set(self.ids.values()):
            self._lost.pop(identity, None)
            del self._described[identity]
        about = self._described.get(self.ids.get(EVENTS, ""), {})
        session = about.get("session", {})
        pipes = self._pipes()
        self._read_ns = now_ns()
        hosts = self._hosts.look() if asks_agent else {}
        return {
            "about": {
                "host": socket.gethostname(),
                "context": str(self._context.path),
                **session,
            },
            "streams": streams,
            "labels": dict(self._described),
            "pipes": pipes,
            "hosts": hosts,
            "verdict": verdict_of(streams, hosts.get("mirrors", ())),
        }

    def close(self) -> None:
        """Leave the agent; the next `look` asks it again. Streams are never joined."""
        self._hosts.close()

    # ---- streams

    def _stream(self, metered: Metered) -> dict[str, Any]:
        found = metered.stream
        if found is None:
            return {"name": metered.name, "id": "", "problem": metered.problem}
        try:
            identity, about = self._describe(metered.name)
        except (AtaraxisError, OSError) as error:
            return {"name": metered.name, "id": "", "problem": str(error)}
        self.ids[metered.name] = identity
        lost = found.refused + found.device_gaps
        before = self._lost.get(identity, (lost, found.skipped))
        self._lost[identity] = lost, found.skipped
        is_well = lost == before[0] and not found.is_stalled
        is_well = is_well and not (metered.stalled_share or 0) > 0.02
        beats = self.beats.setdefault(metered.name, deque(maxlen=BEATS))
        if self._is_long and metered.frames_hz is not None:
            beats.append([now_ns(), metered.frames_hz, float(is_well)])
        return {
            "name": metered.name,
            "id": identity,
            "problem": "",
            "what": about["what"],
            "kind": about["kind"],
            "frames_hz": metered.frames_hz,
            "bytes_hz": metered.bytes_hz,
            "sent": found.sent,
            "age_s": found.age_s,
            "lost": lost,
            "is_stalled": found.is_stalled,
            "is_ended": found.is_ended,
            "readers": [_reader(r) for r in found.readers if not r.is_viewer],
            "viewers": sum(r.is_viewer for r in found.readers),
        }

    def _describe(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return identity and description of a stream, by its file's head alone."""
        with (
            self._context.opened() as directory,
            files.find(directory, self._context, name, os.O_RDONLY) as found,
        ):
            header = SegmentHeader.unpack(found.page, found.status.st_size, found.path)
            identity = header.uuid.hex()
            if identity not in self._described:
                g = header.geometry
                text = os.pread(found.descriptor, g.labels_bytes, g.labels)
                flags = os.pread(found.descriptor, 4, g.control + STREAM["flags"])
                is_typed = bool(int.from_bytes(flags, "little") & TYPED)
                self._described[identity] = describe(Labels.from_json(text), is_typed)
        return identity, self._described[identity]

    # ---- pipes

    def _pipes(self) -> list[dict[str, Any]]:
        seconds = (now_ns() - self._read_ns) * 1e-9
        runs = {(run.run, run.worker): run for run in list_runs(self._context)}
        before, self._runs = self._runs, runs
        found = []
        for name in board_names(self._context):
            with contextlib.suppress(AtaraxisError, LayoutError, OSError):
                board = StatusBoard.attach(name, self._context)
                about = board.about
                board.close()
                found.append(_pipe(name, about, runs, before, seconds))
        return found


def describe(labels: Labels, is_typed: bool = True) -> dict[str, Any]:
    """Return what a page needs to know of a stream, JSON-able.

    Examples
    --------
    >>> describe(Labels("i2", (300, 64), ("time", "channel")))["what"]
    'int16 300×64'
    """
    is_record = labels.dtype.names is not None
    shape = "×".join(map(str, labels.shape))
    dims = labels.dims[1:] if labels.dims[:1] == ("time",) else labels.dims
    units = next((labels.attrs[k] for k in _BYTES_ATTRS[:2] if k in labels.attrs), "")
    what = "records" if is_record else f"{labels.dtype} {shape}".strip()
    if not is_typed:
        what = f"bytes, at most {labels.nbytes:,}"
    names: list[str] = []
    if len(dims) == 1 and dims[0] in labels.coords:
        names = [str(v)[:24] for v in labels.coords[dims[0]].values[:_NAMES]]
    return {
        "what": what,
        "kind": shown_as(labels, is_typed),
        "rate": sample_rate(labels),
        "units": str(units)[:24],
        "dim": dims[-1] if dims else "",
        "names": names,
        "dtype": str(labels.dtype)[:40],
        **_session_of(labels),
    }


def _session_of(labels: Labels) -> dict[str, Any]:
    """Return name, directory and beginning of the session whose events these are."""
    begun = labels.attrs.get("begun_ns")
    if labels.dtype != EVENT or not isinstance(begun, int):
        return {}
    words = {k: str(labels.attrs.get(k, ""))[:_PATH] for k in ("session", "directory")}
    return {"session": {**words, "begun_ns": begun}}


def _reader(reader: ReaderStatistics) -> dict[str, Any]:
    return {
        "label": reader.label,
        "policy": reader.policy,
        "is_durable": reader.is_durable,
        "away_s": reader.detached_s if reader.is_detached else None,
        "is_gating": reader.is_gating,
        "received": reader.received,
        "lag": reader.lag,
        "lost": reader.dropped,
    }


def _pipe(
    run: str,
    about: dict[str, Any],
    runs: dict[tuple[str, str], RunStatistics],
    before: dict[tuple[str, str], RunStatistics],
    seconds: float,
) -> dict[str, Any]:
    """Return a pipe: its processors, who follows whom, where, and values per second."""
    steps, hosts = [], about.get("hosts", ["localhost"])
    for processor in about["processors"]:
        name, workers = processor["name"], processor["workers"]
        names = [f"{name}.{k}" for k in range(workers)] if workers > 1 else [name]
        rate = 0.0
        where = {runs[run, w].host for w in names if (run, w) in runs}
        for key in ((run, worker) for worker in names):
            if key in runs and key in before and seconds > 0:
                rate += (runs[key].received - before[key].received) / seconds
        steps.append(
            {
                "name": name,
                "workers": workers,
                "children": processor["children"],
                "hz": rate,
                "hosts": sorted(where) if len(hosts) > 1 else [],
                "dead_letters": sum(
                    runs[run, w].dead_letters for w in names if (run, w) in runs
                ),
            }
        )
    home = hosts[0] if len(hosts) > 1 else ""
    return {"run": run, "pipe": about["pipe"], "home": home, "steps": steps}


# ---- other hosts


class HostWatch:
    """Asks the agent of a context for its hosts, mirrors and edges, seldom.

    Without an agent nothing of other hosts is imported: its socket is looked for.

    Parameters
    ----------
    context : Context
        The context.

    Examples
    --------
    >>> HostWatch(Context.of(None)).look()
    {}
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._agent: AgentWatch | None = None

    def look(self) -> dict[str, Any]:
        """Return what it has told last, JSON-able; empty without an agent."""
        if self._agent is None:
            if not os.path.lexists(self._context.join(AGENT_SOCKET)):
                return {}
            from ataraxis.cluster.status import AgentWatch

            self._agent = AgentWatch(self._context, AGENT_S)
        reading = self._agent.look()
        if reading is None:
            self.close()
            return {}
        rows = reading.as_dict()
        return {
            "state": reading.state,
            "problem": reading.problem[:_TEXT],
            "silent_s": round(reading.silent_s),
            "left_out": sum(max(len(found) - _ROWS, 0) for found in rows.values()),
            **{key: _fitting(found) for key, found in rows.items()},
        }

    def close(self) -> None:
        """Leave the agent; the next `look` asks it again."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return so many rows as a page can show, with texts of bounded length."""
    return [
        {k: v[:_TEXT] if isinstance(v, str) else v for k, v in row.items()}
        for row in rows[:_ROWS]
    ]


# ---- the verdict


def verdict_of(
    streams: Sequence[dict[str, Any]], mirrors: Sequence[dict[str, Any]] = ()
) -> dict[str, str]:
    """Return one verdict in words, and its tone: 'good', 'warn', 'bad' or ''.

    Examples
    --------
    >>> verdict_of([])
    {'tone': '', 'text': 'no streams yet'}
    """
    live = [s for s in streams if not s["problem"]]
    damaged = [s["name"] for s in streams if s["problem"]]
    if damaged:
        return _verdict("bad", f"{damaged[0]} cannot be read")
    if not live:
        return _verdict("", "no streams yet")
    lost = {s["name"]: s["lost"] for s in live if s["lost"]}
    names = {s["name"] for s in live}
    here = [m for m in mirrors if m["name"] in names and m["policy"] == "lossless"]
    for mirror in (m for m in here if m["lost"]):
        lost[mirror["name"]] = lost.get(mirror["name"], 0) + mirror["lost"]
    if lost:
        return _verdict("bad", f"{_frames(lost)} lost · {_list(lost)}")
    readers = [(s, r) for s in live for r in s["readers"]]
    behind = {s["name"]: r["lost"] for s, r in readers if r["is_durable"] and r["lost"]}
    if behind:
        return _verdict("bad", f"{_frames(behind)} not recorded · {_list(behind)}")
    away = {r["label"] for _, r in readers if r["away_s"] is not None}
    if away:
        is_recorder = all(label.startswith(_RECORDER) for label in away)
        who = "the recorder" if is_recorder else _list(sorted(away))
        return _verdict("bad", f"{who} is away; frames are kept")
    waiting = [s["name"] for s in live if s["is_stalled"]]
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        return _verdict("warn", f"{_list(waiting)} {verb} for readers")
    cut = sorted({m["host"] for m in here if _is_cut(m)})
    if cut:
        verb = "does" if len(cut) == 1 else "do"
        text = f"{_list(cut)} {verb} not answer; frames are kept there"
        return _verdict("warn", text)
    if any(r["is_durable"] for _, r in readers):
        return _verdict("good", "recording · nothing missing")
    if all(s["is_ended"] for s in live):
        return _verdict("", "ended")
    return _verdict("", "live, not recorded")


def _is_cut(mirror: dict[str, Any]) -> bool:
    return not mirror["is_connected"] and mirror["state"] not in ("ended", "lost")


def _verdict(tone: str, text: str) -> dict[str, str]:
    return {"tone": tone, "text": text}


def _frames(counts: dict[str, int]) -> str:
    count = sum(counts.values())
    return f"{count:,} frame" + "s" * (count != 1)


def _list(names: Any) -> str:
    """Return at most three names."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
