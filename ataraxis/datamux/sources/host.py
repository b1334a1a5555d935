"""What Linux says of the machine in ``/proc``, for where psutil is not installed.

The methods are those of psutil that telemetry asks, with the same names and units.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_SECTOR = 512


class Memory(NamedTuple):
    """Bytes."""

    used: int
    available: int


class Network(NamedTuple):
    """Bytes since the machine began; of every interface but the loopback."""

    bytes_sent: int
    bytes_recv: int


class Disk(NamedTuple):
    """Bytes since the machine began; of whole disks."""

    read_bytes: int
    write_bytes: int


class ProcHost:
    """Reads ``/proc``.

    Examples
    --------
    >>> host = ProcHost()
    >>> host.virtual_memory().used > 0, len(host.cpu_percent()) == host.cpu_count()
    (True, True)
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}

    def cpu_count(self) -> int:
        """Return how many processors there are."""
        return len(_processors())

    def cpu_percent(self, percpu: bool = True) -> list[float]:
        """Return how busy each was since the last call, %; 0 the first time."""
        busy = []
        now = _processors()
        for name, (used, total) in now.items():
            used0, total0 = self._before.get(name, (used, total))
            passed = total - total0
            busy.append(100.0 * (used - used0) / passed if passed > 0 else 0.0)
        self._before = now
        return busy

    def virtual_memory(self) -> Memory:
        """Return what of the memory is in use."""
        said = _memory()
        available = said.get("MemAvailable", said.get("MemFree", 0))
        return Memory(said.get("MemTotal", 0) - available, available)

    def swap_memory(self) -> Memory:
        """Return what of the swap space is in use."""
        said = _memory()
        free = said.get("SwapFree", 0)
        return Memory(said.get("SwapTotal", 0) - free, free)

    def net_io_counters(self) -> Network | None:
        """Return what went over the network."""
        sent = received = 0
        for line in (PROC / "net" / "dev").read_text().splitlines()[2:]:
            name, _, counts = line.partition(":")
            numbers = [int(word) for word in counts.split()]
            if name.strip() != "lo":
                received, sent = received + numbers[0], sent + numbers[8]
        return Network(sent, received)

    def disk_io_counters(self) -> Disk | None:
        """Return what went to and from disks."""
        read = written = 0
        for line in (PROC / "diskstats").read_text().splitlines():
            words = line.split()
            if os.path.isdir(f"/sys/block/{words[2]}"):  # no partitions
                read += int(words[5]) * _SECTOR
                written += int(words[9]) * _SECTOR
        return Disk(read, written)


def _processors() -> dict[str, tuple[int, int]]:
    """Return of each processor the ticks that it was busy, and all."""
    found = {}
    for line in (PROC / "stat").read_text().splitlines():
        name, *words = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(word) for word in words[:8]]
            found[name] = sum(ticks) - sum(ticks[3:5]), sum(ticks)
    return found


def _memory() -> dict[str, int]:
    """Return what ``meminfo`` says, bytes."""
    found = {}
    for line in (PROC / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found
