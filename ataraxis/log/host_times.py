"""Times on the clock of another host, by the tables of its clock that were recorded.

A recording of a mirror has the stamps of the host that sent it. Its table relates that
clock to the clock of the host that recorded: see `ataraxis.log.clock_table`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import SLEW, UNKNOWN_DRIFT, WANDER
from ataraxis.errors import CorruptFrame
from ataraxis.log.clock_table import BOOT, LOCAL, PREFIX, clock_of, is_table, table_name
from ataraxis.log.journal.page import files_of
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.row_times import RowTimes, SampleTimes
from ataraxis.log.selection import LogSource, SourceInfo
from ataraxis.log.series import Series

Ints = NDArray[np.int64]
_FIELDS = 4
_SPAN_NS = 10 * 10**9
"""A line of a table was fitted to at least this time, ns."""
_WINDOW_NS = 64 * 10**9

# ---- the table


@dataclass(frozen=True, eq=False)
class ClockTable:
    """How far the clock of a host is ahead of the clock of the host that recorded.

    Arrays of shape (n,), in the order of the local time.

    Examples
    --------
    >>> rows = np.array([[0, 500, 6, 0], [1000, 510, 6, 0]])
    >>> table = ClockTable.of_rows("acq", rows)
    >>> local, bound = table.to_local(np.array([1005]))
    >>> local, table.to_remote(local)[0]
    (array([500]), array([1005]))
    """

    host: str
    """Name of the other host."""
    local_ns: Ints
    """Monotonic time of the host that recorded, ns."""
    offset_ns: Ints
    """Time of the other host minus `local_ns`, ns."""
    bound_ns: Ints
    """Largest error of `offset_ns`, ns."""
    drift: NDArray[np.float64]
    """Growth of the offset, ns per ns; 0: not known."""
    shift_ns: Ints
    """Wall time minus `local_ns`, ns; 0: not known."""
    boots: NDArray[Any]
    """Boot of the other host at each row; empty: not known."""
    local_name: str = ""
    """Name of the host that recorded, if the table has it."""
    has_wall: bool = False
    """Whether `shift_ns` is known."""

    @classmethod
    def of_rows(
        cls,
        host: str,
        rows: Ints,
        *,
        shift_ns: Ints | None = None,
        boots: NDArray[Any] | None = None,
        local_name: str = "",
    ) -> ClockTable:
        """Return the table of rows, (n, 4), in any order, some of them repeated."""
        n = len(rows)
        shift = np.zeros(n, np.int64) if shift_ns is None else shift_ns
        boot = np.full(n, "") if boots is None else boots
        _, order = np.unique(rows[:, 0] + shift, return_index=True)
        rows = rows[order].astype(np.int64)
        return cls(
            host, rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3].astype("f8") * 1e-9,
            shift[order], boot[order], local_name, shift_ns is not None,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.local_ns)

    def of_boot(self, boot: str) -> ClockTable:
        """Return the rows of one boot of the other host; all, if none are known.

        Raises `ValueError` if it has rows of other boots only.
        """
        is_own = (self.boots == boot) | (self.boots == "")
        if not boot or is_own.all():
            return self
        if not is_own.any():
            raise ValueError(
                f"the recorded clock of {self.host!r} is of its boots "
                f"{sorted(set(self.boots.tolist()))}, not of {boot!r}: its stream was "
                "not there while this one was recorded"
            )
        return self.rows(is_own)

    # ---- conversions

    def to_local(self, remote_ns: Ints) -> tuple[Ints, Ints]:
        """Convert times of the other host to times of the host that recorded.

        Returns
        -------
        local_ns, bound_ns : int64 array
            Of the shape of `remote_ns`: the time, and its largest error, ns.
        """
        local, bound, _ = self._to_local(remote_ns)
        return local, bound

    def to_wall(self, remote_ns: Ints) -> tuple[Ints, Ints]:
        """Convert times of the other host to wall times here, ns since 1970."""
        local, bound, row = self._to_local(remote_ns)
        return local + self.shift_ns[row], bound

    def _to_local(self, remote_ns: Ints) -> tuple[Ints, Ints, NDArray[np.intp]]:
        order = np.argsort(self.local_ns + self.offset_ns, kind="stable")
        return _converted(self.rows(order), np.asarray(remote_ns, np.int64), -1, order)

    def to_remote(self, local_ns: Ints) -> tuple[Ints, Ints]:
        """Convert times of the host that recorded to times of the other host.

        Returns
        -------
        remote_ns, bound_ns : int64 array
            Of the shape of `local_ns`: the time, and its largest error, ns.
        """
        order = np.argsort(self.local_ns, kind="stable")
        stamps = np.asarray(local_ns, np.int64)
        remote, bound, _ = _converted(self.rows(order), stamps, 1, order)
        return remote, bound

    def rows(self, which: NDArray[Any]) -> ClockTable:
        """Return the table of some rows."""
        names = "local_ns", "offset_ns", "bound_ns", "drift", "shift_ns", "boots"
        parts = {name: getattr(self, name)[which] for name in names}
        return replace(self, **parts)


def _converted(
    table: ClockTable, stamps: Ints, way: int, order: NDArray[np.intp]
) -> tuple[Ints, Ints, NDArray[np.intp]]:
    """Convert stamps; rows are in the order of the clock of the stamps.

    `way` is 1 to the other host's clock, -1 from it. Returns also the row of the
    table, in the order before, that each is converted by.
    """
    at = table.local_ns + (table.offset_ns if way < 0 else 0)
    after = np.searchsorted(at, stamps, "right")
    low = np.clip(after - 1, 0, len(at) - 1)
    high = np.clip(after, 0, len(at) - 1)
    step = table.local_ns[high] - table.local_ns[low]
    change = table.offset_ns[high] - table.offset_ns[low]
    most = table.bound_ns[high] + table.bound_ns[low] + UNKNOWN_DRIFT * np.abs(step)
    is_jump = np.abs(change) > most
    is_jump |= table.shift_ns[high] != table.shift_ns[low]
    is_between = (high > low) & ~is_jump
    # Beside a jump, or outside of the table, the nearer row and its drift count.
    is_high = (high > low) & ~is_between & (at[high] - stamps < stamps - at[low])
    row = np.where(is_high, high, low)
    away = stamps - at[row]
    width = np.maximum(at[high] - at[low], 1)
    rate = table.drift[row]
    if way < 0:
        rate = rate / (1 + rate)
    grown = np.where(is_between, change * (away / width), rate * away)
    found = stamps + way * (table.offset_ns[row] + np.rint(grown).astype(np.int64))
    between = np.maximum(table.bound_ns[low], table.bound_ns[high]) + np.ceil(
        np.minimum(UNKNOWN_DRIFT, WANDER + SLEW * width) * width / 2
    )
    beyond = table.bound_ns[row] + np.ceil(_growth(table, row, away) * np.abs(away))
    jump = np.abs(change) + np.ceil(UNKNOWN_DRIFT * np.abs(step))
    beyond += np.where(is_jump & (high > low) & (away != 0), jump, 0)
    bound = np.where(is_between, between, beyond).astype(np.int64)
    return found, bound, order[row]


def _growth(
    table: ClockTable, row: NDArray[np.intp], away: Ints
) -> NDArray[np.float64]:
    """Return how fast the error grows beyond some rows, ns per ns."""
    known = 2 * table.bound_ns[row] / _SPAN_NS + WANDER
    known = known + SLEW * (np.abs(away) + _WINDOW_NS)
    most = UNKNOWN_DRIFT + np.abs(table.drift[row])
    return np.where(table.drift[row] == 0, most, np.minimum(known, most))


def read_tables(path: str | os.PathLike[str]) -> dict[str, ClockTable]:
    """Read the recorded clocks of other hosts beside a log, by the hosts' names.

    Parameters
    ----------
    path : str or Path
        Directory or file of a log.
    """
    directory = Path(path)
    if directory.is_file():
        directory = directory.parent
    found: dict[str, ClockTable] = {}
    journals = files_of(directory) if directory.is_dir() else {}
    for journal in journals:
        if not journal.startswith(PREFIX):
            continue
        with JournalReader(directory, journal) as log:
            for info in log.sources.values():
                if info.name is not None and is_table(info.name, info.labels):
                    table = _read(log, info)
                    if len(table):
                        found[table.host] = table
    return found


def _read(log: LogSource, info: SourceInfo) -> ClockTable:
    assert info.name is not None
    host = info.name.removeprefix(PREFIX)
    series = Series(log, info)
    picked = series.pick(slice(None))
    if picked.known is not None:
        picked = log.pick(picked.numbers[picked.known])
    numbers = picked.numbers
    rows = np.empty((len(numbers), _FIELDS), np.int64)
    good = np.ones(len(numbers), bool)
    try:
        rows[:] = series.read(series.rows_of(numbers))
    except CorruptFrame:
        for k, number in enumerate(numbers.tolist()):
            try:
                rows[k] = log.frame(number).array
            except CorruptFrame:
                good[k] = False
    wall = log.wall_ns(picked)
    boots = np.full(len(numbers), "", object)
    local = ""
    for part in log.parts(info.number):
        attrs = part.labels.attrs if part.labels is not None else {}
        local = str(attrs.get(LOCAL, local))
        for low, high in np.searchsorted(numbers, part.ranges).tolist():
            boots[low:high] = str(attrs.get(BOOT, ""))
    return ClockTable.of_rows(
        host, rows[good], boots=boots[good], local_name=local,
        shift_ns=None if wall is None else (wall - picked.time)[good],
    )  # fmt: skip


# ---- from clock to clock


class Route:
    """The way from the clocks of the sources of a log to the clock of a host.

    Parameters
    ----------
    title : str
        Name of the source, for messages.
    tables : mapping
        Those of `read_tables`.
    here : set of str
        Names of the host that recorded; the tables may have others.
    clock : str
        Name of the host.
    """

    def __init__(
        self, title: str, tables: Mapping[str, ClockTable], here: set[str], clock: str
    ) -> None:
        self._title, self._tables, self.clock = title, tables, clock
        self._here = {*here, *(t.local_name for t in tables.values())} - {""}
        self.is_here = clock in self._here
        """Whether it is the clock of the host that recorded."""

    def is_its(self, host: str) -> bool:
        """Return whether the stamps of a host are of the clock already.

        "" is the host that recorded.
        """
        return host == self.clock or (not host and self.is_here)

    def check(self, host: str) -> None:
        """Raise `ValueError` if no table leads from the clock of a host to this one."""
        if self.is_its(host):
            return
        if host and host not in self._tables:
            raise ValueError(
                f"{self._title} has the stamps of host {host!r}, and no table of its "
                f"clock was recorded: record {table_name(host)!r} beside it"
            )
        if not self.is_here and self.clock not in self._tables:
            raise ValueError(
                f"{self._title} has no times of host {self.clock!r}: it was recorded "
                f"on {_listed(self._here)}, with the clocks of "
                f"{_listed(self._tables)} beside it. Record "
                f"{table_name(self.clock)!r} too, or name one of these"
            )

    def has_wall(self, host: str) -> bool:
        """Return whether the wall times of stamps of a host are known."""
        return self.is_here and self._tables[host].has_wall

    def convert(
        self, stamps: Ints, host: str, boot: str, *, to_wall: bool = False
    ) -> tuple[Ints, Ints]:
        """Convert monotonic times of a host; return also the bound of each, ns.

        With `to_wall` to the wall time of the host that recorded.
        """
        self.check(host)
        bound = np.zeros(stamps.shape, np.int64)
        if self.is_its(host):
            return stamps.copy(), bound
        if host:
            table = self._tables[host].of_boot(boot)
            if self.is_here:
                return table.to_wall(stamps) if to_wall else table.to_local(stamps)
            stamps, bound = table.to_local(stamps)
        stamps, more = self._tables[self.clock].to_remote(stamps)
        return stamps, bound + more

    def bound(self, stamps: Ints, host: str, boot: str) -> int:
        """Return the largest error between the first and last of some stamps, ns.

        Looked up at these, and at and between the rows of the tables.
        """
        if not len(stamps) or self.is_its(host):
            return 0
        if host:
            self.check(host)
            table = self._tables[host].of_boot(boot)
            rows = table.local_ns + table.offset_ns
        else:
            rows = self._tables[self.clock].local_ns
        rows = rows[(rows > stamps.min()) & (rows < stamps.max())]
        middle = rows[:-1] + (rows[1:] - rows[:-1]) // 2
        every = np.concatenate([[stamps.min(), stamps.max()], rows, middle])
        return int(self.convert(every, host, boot)[1].max())


class ClockTimes:
    """Times of the rows of a source on the clock of a host, converted when read.

    Parameters
    ----------
    series : Series
        The source.
    times : RowTimes
        Times of its rows, on its own clock: in wall time, if that is known of it.
    tables : mapping
        Those of `read_tables`.
    clock : str
        Name of the host.

    Raises
    ------
    ValueError
        No table was recorded that leads to this clock.
    """

    def __init__(
        self,
        series: Series,
        times: RowTimes,
        tables: Mapping[str, ClockTable],
        clock: str,
    ) -> None:
        self._series, self._times, self.clock = series, times, clock
        is_own = times.attrs.get("clock") == "device"
        if times.dtype.kind not in "mM" or series.times.unit != "ns" or is_own:
            raise ValueError(
                f"{series.title} was not opened with times of a host's clock: open it "
                "without clock=, or with time='host' or 'fitted'"
            )
        parts = series.source.parts(series.number)
        self._hosts = [clock_of(part.labels) for part in parts]
        self._ranges = [part.ranges for part in parts]
        hosts = {host for host, _ in self._hosts}
        here = {anchor.host for anchor in series.source.anchors}
        self._route = route = Route(series.title, tables, here, clock)
        for host in hosts:
            route.check(host)
        others = {host for host in hosts if not route.is_its(host)}
        self._is_wall = times.dtype.kind == "M" if hosts != others else True
        self._is_wall &= all(route.has_wall(host) for host in others)
        self._is_wall &= route.is_here
        self.dtype = np.dtype("M8[ns]" if self._is_wall else "m8[ns]")

    def __len__(self) -> int:
        return len(self._times)

    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of rows, (n,), of `dtype`."""
        return self._at(rows)[0].view(self.dtype)

    def bound_at(self, rows: Ints) -> Ints:
        """Return the largest error of the conversion of rows, ns, (n,)."""
        return self._at(rows)[1]

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for xarray: the clock, and the largest error of all rows, ns.

        Looked up at the first and last row, and at the rows of the tables between.
        """
        return {
            "long_name": f"time on the clock of host {self.clock}",
            "clock": self.clock,
            "bound_ns": self._bound(),
        }

    def _bound(self) -> int:
        source, worst = self._series.source, [0]
        for (host, boot), ranges in zip(self._hosts, self._ranges, strict=True):
            if len(ranges):
                ends = source.pick(np.array([ranges[0, 0], ranges[-1, 1] - 1]))
                stamps = ends.time if ends.known is None else ends.time[ends.known]
                worst.append(self._route.bound(stamps, host, boot))
        return max(worst)

    def _at(self, rows: Ints) -> tuple[Ints, Ints]:
        found = self._times.at(rows).view(np.int64).copy()
        bound = np.zeros(len(found), np.int64)
        if not len(found):
            return found, bound
        entries = rows
        if isinstance(self._times, SampleTimes):
            entries = self._times.blocks.rows_of(rows)[0]
        picked = self._series.pick(entries)
        if self._times.dtype.kind == "M" and not self._is_wall:
            # Before wall times are converted, they become monotonic ones again.
            wall = self._series.source.wall_ns(picked)
            assert wall is not None
            found -= wall - picked.time
        for (host, boot), ranges in zip(self._hosts, self._ranges, strict=True):
            part = np.searchsorted(ranges[:, 0], picked.numbers, "right") - 1
            is_own = part >= 0
            is_own[is_own] &= picked.numbers[is_own] < ranges[part[is_own], 1]
            if is_own.any() and not self._route.is_its(host):
                found[is_own], bound[is_own] = self._route.convert(
                    found[is_own], host, boot, to_wall=self._is_wall
                )
        return found, bound


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
