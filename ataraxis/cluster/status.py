"""State of mirrors and hosts as numbers: what the agent tells, and commands show."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ataraxis.clock import Offset
from ataraxis.cluster.door import SOCKET, AgentClient, ask_agent
from ataraxis.errors import AtaraxisError, HostUnavailable, NotConnectedError
from ataraxis.shm.context import Context, ContextLike

CONNECTING, FLOWING, SPOOLING = "connecting", "flowing", "spooling"
DISCONNECTED, ENDED, LOST = "disconnected", "ended", "lost"
SILENT_S = 3.0
"""After so long without an answer, an agent is said to be silent, s."""
_ANSWER_BYTES = 4 << 20
_PAUSE_S = 5.0
_NONSENSE = (
    AtaraxisError, OSError, ValueError, TypeError, LookupError, AttributeError,
)  # fmt: skip


@dataclass(frozen=True)
class MirrorStatistics:
    """One mirror, as this host's agent sees it."""

    name: str
    """Name of the stream here."""
    stream: str
    """Its name on the other host."""
    host: str
    """The other host."""
    state: str = CONNECTING
    """'connecting', 'flowing', 'spooling', 'disconnected', 'ended' or 'lost'."""
    since_s: float = 0.0
    """For how long it has been in this state, s."""
    policy: str = "lossless"
    """'lossless', 'lossy' or 'latest'."""
    is_connected: bool = False
    """Whether the other host answers."""
    is_here: bool = False
    """Whether the stream exists here."""
    is_detached: bool = False
    """Whether it stays when the program that asked for it ends."""
    frames: int = 0
    """Frames received and published here since it began."""
    nbytes: int = 0
    """Bytes of these frames, with their headers."""
    lost: int = 0
    """Frames that the other host could not keep; readers see them as missing."""
    repeated: int = 0
    """Frames that came twice after a break, and were dropped."""
    reconnects: int = 0
    """How many times the link was opened again."""
    behind_frames: int = 0
    """Frames that were sent there and are not here yet."""
    behind_s: float = 0.0
    """How long ago the last frame came, if frames are missing, s; else 0."""
    spooled_bytes: int = 0
    """Bytes that the other host keeps on its disk for this stream."""
    problem: str = ""
    """What is wrong, and since when; '' if nothing."""
    ended_id: str = ""
    """Id of the last stream that is here to its end; '' if none is."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the statistics of fields as of `as_dict`; unknown ones are ignored.

        Examples
        --------
        >>> MirrorStatistics.from_dict({"name": "a", "stream": "a", "host": "acq"}).host
        'acq'
        """
        return cls(**_known(cls, fields))


@dataclass(frozen=True)
class HostState:
    """Another host of the lab, as this host's agent sees it."""

    name: str
    """Its name in ``hosts.yaml``."""
    address: str = ""
    """Where it listens."""
    state: str = "idle"
    """'here' (this host), 'idle' (not needed), 'connected', 'suspect', 'away'."""
    since_s: float = 0.0
    """For how long, s."""
    offset_ns: int | None = None
    """How far its clock is ahead of the one here, ns; None: not measured."""
    bound_ns: int | None = None
    """Largest error of the offset now, ns."""
    drift_ppb: float | None = None
    """Growth of the offset, ns per s."""
    mirrors: int = 0
    """Mirrors here of its streams."""
    served: int = 0
    """Mirrors there of streams of this host."""
    behind_frames: int = 0
    """Frames that mirrors here have not received yet."""
    spooled_bytes: int = 0
    """Bytes on this host's disk that mirrors there have not received yet."""
    problem: str = ""
    """What was tried last, and failed; '' if nothing."""
    round_trip_ns: int | None = None
    """Least round trip to it of late, ns; None: not measured."""
    lost: int = 0
    """Frames of its streams that mirrors here could not be given."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the state of fields as of `as_dict`; unknown ones are ignored."""
        return cls(**_known(cls, fields))


@dataclass(frozen=True)
class EdgeState:
    """Values of a pipe that go from a queue on one host to workers on another one.

    As this host's agent sees it: the queue, or the workers, are here.
    """

    run: str
    """Name of the run."""
    name: str
    """Name of the queue, on `source`."""
    source: str
    """Host of the queue."""
    to: str
    """Host of the workers."""
    waiting: int | None = None
    """Values in the queue that are not leased; None: the queue is not here."""
    leased: int = 0
    """Values that `to` has, and that are not settled."""
    settled: int = 0
    """Values whose results have left `to`, or that were consumed there."""
    settled_hz: float | None = None
    """Values settled per second since the last look; None: it is the first one."""
    repeated: int = 0
    """Values that were sent again after a break."""
    taken_back: int = 0
    """Values that `to` had when it was lost, and that were given to others."""
    is_connected: bool = False
    """Whether the other host answers."""
    problem: str = ""
    """What is wrong; '' if nothing."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def of_row(
        cls, row: Mapping[str, Any], me: str, hz: float | None = None
    ) -> EdgeState:
        """Return the state of a row of `Edges.statistics` on host `me`.

        Examples
        --------
        >>> row = {"run": "p-1", "name": "p-1.edge.in.far", "kind": "outlet",
        ...        "host": "gpu", "waiting": 3, "held": 5, "settled": 7}
        >>> edge = EdgeState.of_row(row, "acq")
        >>> edge.source, edge.to, edge.waiting, edge.leased
        ('acq', 'gpu', 3, 5)
        """
        is_here = row["kind"] == "outlet"
        source, to = (me, row["host"]) if is_here else (row["host"], me)
        return cls(
            **_known(cls, row) | {
                "source": source, "to": to, "leased": row["held"], "settled_hz": hz,
                "waiting": row["waiting"] if is_here else None,
            }
        )  # fmt: skip


def _known(kind: type[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a dataclass has: another version may send others."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


@dataclass(frozen=True)
class AgentReading:
    """What the agent of a context has told last."""

    state: str
    """'asked', 'answers', 'silent', 'ended' (it was killed) or 'refused'."""
    problem: str = ""
    """What is wrong; '' if nothing."""
    silent_s: float = 0.0
    """For how long it has not answered, s; 0 if it answers."""
    hosts: tuple[HostState, ...] = ()
    """The hosts of its lab; its own is the first."""
    mirrors: tuple[MirrorStatistics, ...] = ()
    """The mirrors here."""
    edges: tuple[EdgeState, ...] = ()
    """The edges of pipes that begin or end here."""

    @classmethod
    def of(
        cls, found: Mapping[str, Any], before: AgentReading | None = None
    ) -> AgentReading:
        """Return the reading of `Agent.statistics`; rates are since `before`."""
        hosts = tuple(map(HostState.from_dict, found["hosts"]))
        mirrors = map(MirrorStatistics.from_dict, found["mirrors"])
        rows, me = found.get("edges", []), hosts[0].name
        edges = sorted(
            (EdgeState.of_row(row, me) for row in rows),
            key=lambda edge: (edge.run, edge.name, edge.source, edge.to),
        )
        if before is not None and before.hosts:
            # By the agent's own clock: an answer is read some time after it was made.
            seconds = hosts[0].since_s - before.hosts[0].since_s
            edges = _with_rates(edges, before.edges, seconds)
        by_name = sorted(mirrors, key=lambda mirror: mirror.name)
        return cls("answers", "", 0.0, hosts, tuple(by_name), tuple(edges))

    def as_dict(self) -> dict[str, Any]:
        """Return hosts, mirrors and edges, JSON-able."""
        return {
            "hosts": [one.as_dict() for one in self.hosts],
            "mirrors": [one.as_dict() for one in self.mirrors],
            "edges": [one.as_dict() for one in self.edges],
        }


def _with_rates(
    edges: Sequence[EdgeState], before: Sequence[EdgeState], seconds: float
) -> list[EdgeState]:
    known = {(e.run, e.name, e.source, e.to): e.settled for e in before}
    found = []
    for edge in edges:
        old = known.get((edge.run, edge.name, edge.source, edge.to))
        hz = None
        if old is not None and seconds > 0 and edge.settled >= old:
            hz = (edge.settled - old) / seconds
        found.append(dataclasses.replace(edge, settled_hz=hz))
    return found


class AgentWatch:
    """Asks the agent of a context how its hosts are, without waiting for it.

    Parameters
    ----------
    context : Context, str, Path or None
        The context.
    every_s : float
        Least time between two questions, s.

    Notes
    -----
    One connection, with one question on its way: an agent that hangs costs nothing but
    that. For one thread.

    Examples
    --------
    >>> watch = AgentWatch(None)
    >>> watch.look() is None
    True
    """

    def __init__(self, context: ContextLike, every_s: float = 1.0) -> None:
        self._context, self._every_s = Context.of(context), every_s
        self._client: AgentClient | None = None
        self._asked_s: float | None = None
        self._next_s = 0.0
        self._last: AgentReading | None = None

    def look(self, wait: float = 0.0) -> AgentReading | None:
        """Return what the agent has told last; None: there is none.

        Parameters
        ----------
        wait : float
            How long to wait for the answer to a question that this call asks, s.
        """
        for _ in range(2):  # an agent that has ended may have a successor
            try:
                return self._look(wait)
            except HostUnavailable as error:
                self._forget()
                if os.path.lexists(self._context.join(SOCKET)):
                    return AgentReading("ended", str(error))
                return None
            except NotConnectedError:
                self._forget()
            except TimeoutError:  # more programs wait for it than it can be asked by
                return AgentReading("silent", "the agent here takes no connection")
            except _NONSENSE as e:
                self._forget()
                self._next_s = time.monotonic() + _PAUSE_S
                self._last = AgentReading("refused", str(e) or type(e).__name__)
                return self._last
        return None

    def _look(self, wait: float) -> AgentReading | None:
        now = time.monotonic()
        is_due = now >= self._next_s
        if self._client is None:
            if not is_due:
                return self._last
            self._client = AgentClient(self._context, timeout=0.0)
        if self._asked_s is None and is_due:
            self._client.begin("statistics")
            self._asked_s, self._next_s = now, now + self._every_s
        else:
            wait = 0.0
        if self._asked_s is None:
            return self._last
        found = self._client.answer(wait, _ANSWER_BYTES)
        if found is not None:
            self._asked_s = None
            self._last = AgentReading.of(found, self._last)
            return self._last
        last, silent = self._last or AgentReading("asked"), now - self._asked_s
        if silent < SILENT_S:
            return last
        problem = f"the agent here has not answered for {silent:.0f} s"
        return dataclasses.replace(
            last, state="silent", problem=problem, silent_s=silent
        )

    def _forget(self) -> None:
        self.close()
        self._last, self._next_s = None, 0.0

    def close(self) -> None:
        """Close the connection; the next `look` opens it again."""
        client, self._client, self._asked_s = self._client, None, None
        if client is not None:
            client.close()


def agent_reading(context: ContextLike = None, timeout: float = 10.0) -> AgentReading:
    """Return what the agent of a context tells now.

    Raises
    ------
    HostUnavailable
        No agent runs in the context.
    """
    return AgentReading.of(ask_agent("statistics", context=context, timeout=timeout))


def host_states(context: ContextLike = None) -> list[HostState]:
    """Return the hosts that the agent of a context knows; its own is the first.

    Raises
    ------
    HostUnavailable
        No agent runs in the context.
    """
    found = ask_agent("hosts", context=context)
    return [HostState.from_dict(fields) for fields in found]


def mirrors_here(context: ContextLike = None) -> list[MirrorStatistics]:
    """Return the mirrors of a context's agent; none without an agent.

    Examples
    --------
    >>> mirrors_here()
    []
    """
    try:
        found = ask_agent("mirrors", context=context, timeout=2.0)
    except (HostUnavailable, TimeoutError):
        return []
    return [MirrorStatistics.from_dict(fields) for fields in found]


def offset_fields(offset: Offset) -> dict[str, Any]:
    """Return an offset as JSON holds it."""
    return dataclasses.asdict(offset)


def offset_of(fields: Mapping[str, Any]) -> Offset:
    """Return the offset of fields as of `offset_fields`.

    Examples
    --------
    >>> offset_of(offset_fields(Offset(5, 1, 0, "acq"))).host
    'acq'
    """
    known = {field.name for field in dataclasses.fields(Offset) if field.init}
    return Offset(**{k: v for k, v in fields.items() if k in known})
