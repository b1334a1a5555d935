"""What every process of a measurement shares: its task, the stamps, the schedule."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.errors import AtaraxisError
from ataraxis.shm.process import signal_at_end_of

START_S = 30.0
"""Longest wait for the other processes of a measurement to start, s."""
DEADLINE_S = 10.0
"""Longest wait for an event that no process has lost, s."""

# ---- the task, as text in the command of a process


@dataclass(frozen=True)
class LatencyTask:
    """What a process of a measurement is told.

    Examples
    --------
    >>> task = LatencyTask("/dev/shm/here", "/dev/shm/stamps", 100, parent=1)
    >>> LatencyTask.from_json(task.to_json()) == task
    True
    """

    context: str
    """Directory of the segments."""
    stamps: str
    """Path of the stamps."""
    events: int
    """How many events are sent, those of the warm-up included."""
    parent: int
    """Process that started it: it ends with that one."""
    rate_hz: float | None = None
    """Events a second; None: each when the one before it has arrived."""
    cpus: tuple[int, ...] = ()
    """CPUs of this process; empty: all."""
    worker_cpus: tuple[int, ...] = ()
    """CPUs of the workers it starts; empty: all."""
    loop: str = ""
    """'serial' or 'lsl': the result also goes to a device, and comes back."""
    port: str = ""
    """Port of the serial loop."""
    baud: int = 115200
    """Its speed, bit/s."""

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LatencyTask:
        """Return the task of which `to_json` has returned `text`."""
        fields = json.loads(text)
        pinned = {key: tuple(fields[key]) for key in ("cpus", "worker_cpus")}
        return cls(**{**fields, **pinned})

    @property
    def deadline_s(self) -> float:
        """Longest wait for the next event, s."""
        return DEADLINE_S + (2 / self.rate_hz if self.rate_hz else 0.0)


@contextmanager
def taking_part(text: str) -> Iterator[LatencyTask]:
    """Be a process of a measurement: pinned, ended by SIGTERM or its parent's end.

    An error becomes the last line on standard error, and exit code 1.
    """
    task = LatencyTask.from_json(text)
    signal.signal(signal.SIGTERM, _interrupt)
    signal_at_end_of(task.parent, signal.SIGTERM)
    if task.cpus:
        # Before anything is attached, as by taskset: with one CPU, waits do not spin.
        os.sched_setaffinity(0, task.cpus)
    try:
        yield task
    except KeyboardInterrupt:
        return
    except (AtaraxisError, OSError, ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from error


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


# ---- the stamps of all events, in memory that outlives every process of a measurement

_WORDS = 8
SENT, STARTED, RESTARTS, READY, LOOKS = range(5)


class StampFile:
    """When each event was sent and received, in a file that processes share.

    The file stays whole when a process is killed: what was measured so far is there.
    `sent` and `received` are memoryviews of int64, monotonic ns, 0: not yet.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "stamps"
    ...     StampFile.create(path, 3)
    ...     file = StampFile(path)
    ...     file.sent[1], file.received[1] = 1000, 1500
    ...     file.arrays()[1].tolist()
    [0, 1500, 0]
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "r+b") as file:
            # Every page is there before the first event: none is a page fault.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._map = mmap.mmap(file.fileno(), 0, flags=flags)
        words = memoryview(self._map).cast("q")
        events = (len(words) - _WORDS) // 2
        self.words = words[:_WORDS]
        """Counters: `SENT`, `STARTED`, ns, `RESTARTS`, `READY`, `LOOKS`."""
        self.sent = words[_WORDS : _WORDS + events]
        """When each event was sent."""
        self.received = words[_WORDS + events :]
        """When each event was received."""

    @classmethod
    def create(cls, path: str | Path, events: int) -> None:
        """Make the file, with memory for so many events. Raises `OSError`."""
        with open(path, "xb") as file:
            os.posix_fallocate(file.fileno(), 0, 8 * (_WORDS + 2 * events))

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return copies of the two columns of stamps, ns."""
        return np.array(self.sent, np.int64), np.array(self.received, np.int64)


class EventSchedule:
    """When the events of a rate are due, by absolute times.

    Examples
    --------
    >>> schedule = EventSchedule(1000.0)
    >>> began = schedule.begin()
    >>> schedule.wait(5)
    >>> now_ns() - began >= 5_000_000
    True
    """

    _SPIN_NS = 60_000  # Linux may wake a sleeper 50 us late

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = 1e9 / rate_hz
        self._began_ns = 0

    def begin(self) -> int:
        """Return the time of event 0, now, monotonic ns."""
        self._began_ns = now_ns()
        return self._began_ns

    def wait(self, event: int) -> None:
        """Wait until an event is due: sleep, and spin for the rest, below 60 us."""
        due = self._began_ns + round(event * self._period_ns)
        left = due - now_ns()
        if left > self._SPIN_NS:
            time.sleep((left - self._SPIN_NS) * 1e-9)
        while now_ns() < due:
            pass
