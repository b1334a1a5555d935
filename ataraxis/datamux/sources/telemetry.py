"""The machine as a source: processors, memory, disks and network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ataraxis.clock import now_ns
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Field, Node, Stream
from ataraxis.datamux.source import (
    Array,
    Attrs,
    DescribedSource,
    OneNodeDriver,
    check_out,
    wait_until,
)
from ataraxis.errors import NotConnectedError
from ataraxis.labels import given_rate
from ataraxis.log.optional import need

# ---- counters of Linux in ``/proc``, used when psutil is not installed

# The methods have the names and units of psutil.

PROC = Path("/proc")
_SECTOR = 512


class Memory(NamedTuple):
    """Bytes."""

    used: int
    available: int


class Network(NamedTuple):
    """Bytes since boot, of every interface but the loopback."""

    bytes_sent: int
    bytes_recv: int


class Disk(NamedTuple):
    """Bytes since boot, of whole disks."""

    read_bytes: int
    write_bytes: int


class ProcHost:
    """Reads ``/proc``."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}

    def cpu_count(self) -> int:
        """Return the number of processors."""
        return len(_processors())

    def cpu_percent(self, percpu: bool = True) -> list[float]:
        """Return the load of each since the last call, %; 0 the first time."""
        busy = []
        now = _processors()
        for name, (used, total) in now.items():
            used0, total0 = self._before.get(name, (used, total))
            passed = total - total0
            busy.append(100.0 * (used - used0) / passed if passed > 0 else 0.0)
        self._before = now
        return busy

    def virtual_memory(self) -> Memory:
        """Return used and available memory."""
        values = _meminfo()
        available = values.get("MemAvailable", values.get("MemFree", 0))
        return Memory(values.get("MemTotal", 0) - available, available)

    def swap_memory(self) -> Memory:
        """Return used and available swap space."""
        values = _meminfo()
        free = values.get("SwapFree", 0)
        return Memory(values.get("SwapTotal", 0) - free, free)

    def net_io_counters(self) -> Network | None:
        """Return the bytes sent and received."""
        sent = received = 0
        for line in (PROC / "net" / "dev").read_text().splitlines()[2:]:
            name, _, counts = line.partition(":")
            numbers = [int(word) for word in counts.split()]
            if name.strip() != "lo":
                received, sent = received + numbers[0], sent + numbers[8]
        return Network(sent, received)

    def disk_io_counters(self) -> Disk | None:
        """Return the bytes read and written."""
        read = written = 0
        for line in (PROC / "diskstats").read_text().splitlines():
            words = line.split()
            if os.path.isdir(f"/sys/block/{words[2]}"):  # skip partitions
                read += int(words[5]) * _SECTOR
                written += int(words[9]) * _SECTOR
        return Disk(read, written)


def _processors() -> dict[str, tuple[int, int]]:
    """Return busy and total ticks of each processor."""
    found = {}
    for line in (PROC / "stat").read_text().splitlines():
        name, *words = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(word) for word in words[:8]]
            found[name] = sum(ticks) - sum(ticks[3:5]), sum(ticks)
    return found


def _meminfo() -> dict[str, int]:
    """Return the values of ``meminfo``, bytes."""
    found = {}
    for line in (PROC / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found


# ---- the source

RATE_HZ = 10.0
_SLICE_S = 0.05


def _cpu(psutil: Any) -> list[float]:
    return [float(value) for value in psutil.cpu_percent(percpu=True)]


def _memory(psutil: Any) -> list[float]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return [float(memory.used), float(memory.available), float(swap.used)]


def _network(psutil: Any) -> list[float]:
    found = psutil.net_io_counters()
    return [0.0, 0.0] if found is None else [found.bytes_sent, found.bytes_recv]


def _disk(psutil: Any) -> list[float]:
    found = psutil.disk_io_counters()
    return [0.0, 0.0] if found is None else [found.read_bytes, found.write_bytes]


_READERS: dict[str, tuple[Callable[[Any], list[float]], list[str], str]] = {
    "cpu": (_cpu, [], "%"),
    "memory": (_memory, ["used", "available", "swap"], "bytes"),
    "network": (_network, ["sent", "received"], "bytes"),
    "disk": (_disk, ["read", "written"], "bytes"),
}


def host() -> Any:
    """Return psutil, or a `ProcHost` in its place.

    Raises `ModuleNotFoundError` if neither is available, with the command that installs
    psutil.
    """
    is_linux = (PROC / "stat").is_file()
    if is_linux and importlib.util.find_spec("psutil") is None:
        return ProcHost()
    return need("psutil", "telemetry", "host telemetry")


class Telemetry(OneNodeDriver):
    """Driver of the node "telemetry", with ``sample_rate_hz`` in `attrs`."""

    node_id = "telemetry"
    options: ClassVar[frozenset[str]] = frozenset(["sample_rate_hz", "rate_hz"])
    """Attributes of a stream."""

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams: cpu, memory, network, disk."""
        return {name: _described(name, RATE_HZ) for name in _READERS}

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> TelemetrySource:
        """Return the source of a stream."""
        pick(_READERS, stream_id, "stream", f"node {node.id!r}")
        rate = given_rate(attrs)
        return TelemetrySource(stream_id, RATE_HZ if rate is None else float(rate))


def _described(name: str, rate: float) -> Stream:
    _, names, unit = _READERS[name]
    if name == "cpu":
        names = [f"cpu{i}" for i in range(host().cpu_count() or 1)]
    return Stream(
        name, f"{name} of this machine", unit, rate,
        fields={n: Field(n, dtype="f64", unit=unit) for n in names},
        index={"t": Field("time", unit="s")}, attrs={"id": name, "mode": "proxy"},
    )  # fmt: skip


class TelemetrySource(DescribedSource):
    """Samples 'cpu', 'memory', 'network' or 'disk' at absolute deadlines."""

    def __init__(self, name: str, rate_hz: float = RATE_HZ) -> None:
        if not 0 < rate_hz <= 1000:
            raise ValueError(f"rate_hz must be above 0, at most 1000, got {rate_hz!r}")
        self._psutil = host()
        self._read = _READERS[name][0]
        super().__init__(_described(name, rate_hz))
        self._step_ns = round(1e9 / rate_hz)
        self._due_ns: int | None = None

    def open(self) -> None:
        """Open the source; the first sample is one step from now."""
        self._read(self._psutil)  # later readings are relative to this
        self._due_ns = now_ns() + self._step_ns

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Wait for the next sample and fill one row; see `Source.read_into`."""
        check_out(out, self.labels)
        if self._due_ns is None:
            raise NotConnectedError("telemetry is closed: open() the source first")
        if not wait_until(self._due_ns, timeout):
            return 0
        missed = (now_ns() - self._due_ns) // self._step_ns
        self.lost += missed
        self._due_ns += (missed + 1) * self._step_ns
        out[0] = self._read(self._psutil)
        if stamps is not None:
            stamps["time_ns"][0] = now_ns()
        return 1

    def close(self) -> None:
        """Close the source."""
        self._due_ns = None
