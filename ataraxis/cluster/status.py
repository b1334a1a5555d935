"""State of mirrors and hosts as numbers: what the agent tells, and commands show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ataraxis.clock import Offset
from ataraxis.cluster.door import ask_agent
from ataraxis.errors import HostUnavailable
from ataraxis.shm.context import ContextLike

CONNECTING, FLOWING, SPOOLING = "connecting", "flowing", "spooling"
DISCONNECTED, ENDED, LOST = "disconnected", "ended", "lost"


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

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the state of fields as of `as_dict`; unknown ones are ignored."""
        return cls(**_known(cls, fields))


def _known(kind: type[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a dataclass has: another version may send others."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


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
