"""The limits of ataraxis: of the files that it reads, and of the clients of a server.

`FILES` applies to every file, since any may be untrusted; `Limits` to a server. A file
or request that exceeds a limit is refused with a message that names both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any

_KiB, _MiB, _GiB = 2**10, 2**20, 2**30


def _limit(default: Any, about: str, unit: str = "") -> Any:
    return field(default=default, metadata={"about": about, "unit": unit})


@dataclass(frozen=True)
class FileLimits:
    """Limits of what reading a file may produce; see `FILES`."""

    expansion: int = _limit(16, "bytes of arrays that a byte of a file may become")
    expansion_bytes: int = _limit(
        32 * _MiB, "bytes of arrays that any file may become besides", "bytes"
    )
    columns: int = _limit(16_384, "columns, channels or fields of a recording")
    streams: int = _limit(4096, "streams that one file may describe")
    text_bytes: int = _limit(
        16 * _MiB, "the longest YAML or JSON file that is read", "bytes"
    )
    digits: int = _limit(20_000, "digits of a number in YAML or JSON")
    depth: int = _limit(100, "levels of YAML, JSON or groups of HDF5")
    merged: int = _limit(100_000, "keys that the '<<' of a YAML file may merge")
    values: int = _limit(
        100_000, "values that the aliases of a YAML file may stand for"
    )
    references: int = _limit(256, "files that '@ref' of a description may lead to")

    def allowed(self, file_bytes: int) -> int:
        """Return how many bytes of arrays a file of a size may become."""
        if _lifted.get():
            return 2**63
        return self.expansion * file_bytes + self.expansion_bytes


FILES = FileLimits()
"""The limits of files."""
_lifted: ContextVar[bool] = ContextVar("ataraxis_lifted", default=False)


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Allow any expansion of files that are read meanwhile.

    Examples
    --------
    >>> with lifted():
    ...     FILES.allowed(1) > 2**60
    True
    """
    token = _lifted.set(True)
    try:
        yield
    finally:
        _lifted.reset(token)


@dataclass(frozen=True)
class Limits:
    """Limits of a server; a client that exceeds one gets its name in the error."""

    clients: int = _limit(64, "clients at a time, those that may resume included")
    silent: int = _limit(512, "connections at a time that have sent nothing yet")
    handshakes: int = _limit(64, "connections at a time without an accepted token yet")
    address_share: float = _limit(
        0.75, "the share of these two that one address may have"
    )
    handshake_s: float = _limit(5.0, "how long each of the two may take", "s")
    message_bytes: int = _limit(_MiB, "the longest message from a client", "bytes")
    requests_hz: float = _limit(
        100.0, "requests of a client that are answered; more wait", "1/s"
    )
    messages_hz: float = _limit(
        5000.0, "messages of any kind that are read from a client; more wait", "1/s"
    )
    patience: int = _limit(
        2000, "requests of a client that may wait; with more it is disconnected"
    )
    streams: int = _limit(16, "streams of a client at a time: threads, open sources")
    all_streams: int = _limit(256, "streams of all clients")
    ring_bytes: int = _limit(
        32 * _MiB, "kept for a client until it has read it", "bytes"
    )
    all_ring_bytes: int = _limit(
        64 * _MiB, "kept for all clients; each has a share of what is free", "bytes"
    )
    block_samples: int = _limit(2**16, "the longest block that a client may ask for")
    bytes_s: float = _limit(
        256.0 * _MiB, "bytes that the streams of a client may make", "bytes/s"
    )
    all_bytes_s: float = _limit(
        1.0 * _GiB, "bytes that the streams of all clients may make", "bytes/s"
    )
    samples_hz: float = _limit(
        2.0e6, "samples that the streams of a client may make", "1/s"
    )
    memory_bytes: int = _limit(
        64 * _MiB, "memory in which the streams of a client are made", "bytes"
    )
    all_memory_bytes: int = _limit(96 * _MiB, "the same of all clients", "bytes")
    recording_bytes: int = _limit(
        _GiB, "recordings that are in memory for a client", "bytes"
    )
    all_recording_bytes: int = _limit(4 * _GiB, "the same of all clients", "bytes")
    files: int = _limit(64, "files that are open for a client")
    all_files: int = _limit(256, "files that are open for all clients")
    heartbeat_s: float = _limit(
        5.0, "how often to ask if the other side is there; gone after three", "s"
    )
    resume_s: float = _limit(
        30.0, "how long a client that lost its connection may take to come back", "s"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ValueError(f"Limits.{item.name} must be above 0, got {value!r}")


def table(limits: Any) -> list[tuple[str, str, str]]:
    """List name, value with its unit, and meaning of each limit."""
    rows = []
    for item in fields(limits):
        value, unit = getattr(limits, item.name), item.metadata["unit"]
        rows.append((item.name, _shown(value, unit), item.metadata["about"]))
    return rows


def _shown(value: float, unit: str) -> str:
    if not unit.startswith("bytes"):
        return (
            f"{value:g} {unit}".strip()
            if value < 1e6
            else f"{value:.0f} {unit}".strip()
        )
    for size, name in ((_GiB, "GiB"), (_MiB, "MiB"), (_KiB, "KiB")):
        if value >= size:
            return f"{value / size:g} {name}{unit.removeprefix('bytes')}"
    return f"{value:g} {unit}"
