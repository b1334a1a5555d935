"""`around`: the streams of a session around its events, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels import sample_rate
from ataraxis.log.clock_table import CLOCK, FIELDS, PREFIX, table_name
from ataraxis.log.host_times import read_tables
from ataraxis.session.events import EVENTS, parsed
from ataraxis.session.outputs import OUTPUT_ROW

if TYPE_CHECKING:
    import xarray as xr

TRIAL, TIME, ENTRY = "trial", "time", "entry"
STAMP, POSITION = "monotonic_ns", "position"
MARGIN = 64
"""Samples before and after a trial that are looked at."""
MOST_DRIFT = 1e-3
"""Largest relative difference of a rate from the declared one within a trial."""
GROUP_BYTES = 1 << 25
"""Overlapping trials are read together up to this size."""


def around(
    tree: xr.DataTree,
    event: str,
    before: float,
    after: float,
    *,
    streams: str | Iterable[str] | None = None,
) -> xr.DataTree:
    """Cut a session into trials: a part of each stream around each event.

    Parameters
    ----------
    tree : xarray.DataTree
        A session, opened with ``xr.open_datatree(path, engine="ataraxis")``.
    event : str
        Name of the events that are the trials.
    before, after : float
        Length of the part before and after each event, s.
    streams : str or iterable of str, optional
        Names; by default all streams with a rate.

    Returns
    -------
    xarray.DataTree
        A node for each stream, with the dims (trial, time, ...). "time" is in seconds
        since the event, at the stream's rate; the sample nearest to the start of a
        trial is the first. The data of the events are coordinates along "trial"; a
        datum "trial" is its index. In memory: only the parts are read.

    Notes
    -----
    Of a stream with a rate (blocks, or ``sample_rate_hz`` in its attrs) a trial has
    every sample of its part exactly once: each is at its position, which counts lost
    ones. Of others it has the sample nearest to each moment, within one interval.

    Where no sample is, ``is_there`` (trial, time) is false, and the value is NaN, NaT
    or ``""``; of integers the least, of unsigned ones the largest of their dtype, which
    is then the attribute "missing_value"; of booleans False.

    Of a stream that was mirrored from another host the events are placed on that host's
    clock, by the offsets that were recorded beside it: its attribute "clock_bound_ns"
    is their largest error there.

    Raises
    ------
    TypeError, ValueError
        `tree` is not a session, `event` not a name, or a time is not valid; or the
        clock of a mirrored stream was not recorded.
    KeyError
        The session has no events, no event of that name, or no such stream.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import xarray as xr
    >>> from ataraxis import Producer, Session
    >>> directory = tempfile.TemporaryDirectory()
    >>> with Session("s", directory=directory.name) as s:
    ...     rate = {"sample_rate_hz": 10}
    ...     probe = Producer("doc_trials", shape=(), dtype="f8", attrs=rate)
    ...     s.record("doc_trials")
    ...     for k in range(20):
    ...         _ = probe.send(float(k), time_ns=k * 10**8)
    ...     _ = s.event("stim_on", trial=7, time_ns=5 * 10**8)
    >>> with xr.open_datatree(f"{directory.name}/s", engine="ataraxis") as tree:
    ...     trials = around(tree, "stim_on", before=0.2, after=0.3)
    >>> trials["doc_trials"]["doc_trials"].sel(trial=7).values
    array([3., 4., 5., 6., 7.])
    >>> probe.unlink(); directory.cleanup()
    """
    import xarray as xr

    if not isinstance(tree, xr.DataTree):
        raise TypeError(
            f"around takes a session, got {type(tree).__name__}: the tree that "
            'xr.open_datatree(path, engine="ataraxis") opens, not one stream of it'
        )
    if not isinstance(event, str):
        raise TypeError(f"around takes the name of an event, got {event!r}")
    if not (before >= 0 and after >= 0 and before + after > 0):
        raise ValueError(
            f"before and after must be seconds, 0 or more, and not both 0; got "
            f"before={before!r}, after={after!r}"
        )
    times, coords = _events(tree, event)
    wanted = [streams] if isinstance(streams, str) else streams
    if wanted is None:
        names = [n for n in tree.children if n != EVENTS and _is_sampled(n, tree[n])]
    else:
        names = list(wanted)
    nodes = {}
    for name in names:
        if name not in tree.children:
            raise KeyError(f"no stream {name!r}: the session has {[*tree.children]}")
        dataset = tree[name].to_dataset()
        there, about = _on_its_clock(tree, name, dataset, times, coords["event_ns"][1])
        part = _cut(dataset, there, before, after)
        if part is not None:
            nodes[name] = part.assign_coords(coords).assign_attrs(about)
        elif wanted is not None:
            raise ValueError(f"stream {name!r} has no rate: it has too few samples")
    attrs = {"event": event, "before_s": before, "after_s": after}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **nodes})


def _on_its_clock(
    tree: xr.DataTree,
    name: str,
    dataset: xr.Dataset,
    times: NDArray[Any],
    stamps: NDArray[np.int64],
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the times of events on the clock of a stream, and attributes that say so.

    `times` are those of the events on the clock here, `stamps` their monotonic times.
    """
    every = (variable.attrs.get(CLOCK) for variable in dataset.data_vars.values())
    clock = next((one for one in every if isinstance(one, str) and one), "")
    if not clock:
        return times, {}
    host, _, boot = clock.partition("/")
    tables = read_tables(tree.attrs["path"]) if "path" in tree.attrs else {}
    if host not in tables:
        raise ValueError(
            f"stream {name!r} has the times of host {host!r}, and {table_name(host)!r} "
            "was not recorded beside it: they cannot be related to the events. Name "
            "the other streams with streams="
        )
    there, bound = tables[host].of_boot(boot).to_remote(stamps)
    about = {CLOCK: clock, "clock_bound_ns": int(bound.max(initial=0))}
    return there.astype("m8[ns]"), about


def _is_sampled(name: str, node: Any) -> bool:
    """Return whether it has samples, and is not the log of an output, nor a clock."""
    fields = node.coords["field"].values if "field" in node.coords else ()
    if name.startswith(PREFIX) and tuple(map(str, fields)) == FIELDS:
        return False
    has_stamps = STAMP in node.coords and len(node[STAMP]) > 0
    return has_stamps and not {*(OUTPUT_ROW.names or ())} <= {*node.data_vars}


def events_of(tree: xr.DataTree) -> xr.Dataset:
    """Return the events of a session as columns.

    Parameters
    ----------
    tree : xarray.DataTree
        A session, opened with ``xr.open_datatree(path, engine="ataraxis")``.

    Returns
    -------
    xarray.Dataset
        Along "time": "event", their names, and a variable for each datum that some of
        them have, if it is a number, a text or a boolean in all of these. A missing
        number is NaN, a missing text "". In memory.

    Raises
    ------
    KeyError
        The session has no events.

    Examples
    --------
    >>> import tempfile
    >>> import xarray as xr
    >>> from ataraxis import Session
    >>> directory = tempfile.TemporaryDirectory()
    >>> with Session("s", directory=directory.name) as s:
    ...     _ = s.event("stim_on", trial=7), s.event("reward", ml=0.5)
    >>> with xr.open_datatree(f"{directory.name}/s", engine="ataraxis") as tree:
    ...     events_of(tree).trial.values
    array([ 7., nan])
    >>> directory.cleanup()
    """
    node = _event_node(tree)
    data = [parsed(text) for text in node["data"].values]
    found = node[["event"]].load()
    found["event"] = found["event"].astype(str)
    for key in dict.fromkeys(key for one in data for key in one):
        column = _column([one.get(key) for one in data])
        called = key if key not in found.variables else f"event_{key}"
        if column is not None:
            found[called] = (TIME, column)
    return found


def _event_node(tree: xr.DataTree) -> xr.Dataset:
    """Return the events of a session as they were recorded."""
    if EVENTS not in tree.children:
        raise KeyError(f"the session has no events: it has {[*tree.children]}")
    return tree[EVENTS].to_dataset()


def _column(values: list[Any]) -> NDArray[Any] | None:
    """Return values as one array, None if they are not of one kind of scalar."""
    there = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in there) and len(there) == len(values):
        return np.array(values, bool)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in there):
        if len(there) < len(values):
            return np.array([np.nan if v is None else v for v in values], "f8")
        made = np.array(values)
        return made if made.dtype.kind in "iuf" else None
    if all(isinstance(value, str) for value in there):
        return np.array(["" if value is None else value for value in values])
    return None


def _events(tree: xr.DataTree, event: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the times of the events, and their data as coordinates of trials."""
    node = _event_node(tree)
    names = node["event"].values.astype(str)
    at = np.flatnonzero(names == event)
    if not len(at):
        raise KeyError(f"no event {event!r}: the session has {sorted({*names})}")
    data = [parsed(text) for text in node["data"].values[at]]
    stamps = node[STAMP].values[at].astype(np.int64)
    coords: dict[str, Any] = {TRIAL: np.arange(len(at)), "event_ns": (TRIAL, stamps)}
    for key in dict.fromkeys(key for one in data for key in one):
        values = [one.get(key) for one in data]
        if not all(isinstance(v, (bool, int, float, str)) for v in values):
            continue  # missing in some events, or not a scalar
        called = key if key not in (TIME, "is_there", "event_ns") else f"event_{key}"
        coords[called] = (TRIAL, np.array(values))
    return node[TIME].values[at], coords


# ---- one stream


def _cut(
    dataset: xr.Dataset, events: NDArray[Any], before: float, after: float
) -> xr.Dataset | None:
    """Cut one stream; None if it has no rate."""
    import xarray as xr

    if TIME not in dataset.coords:
        raise ValueError(
            f"the times of {sorted(map(str, dataset.data_vars))} go back: open the "
            "session with time='fitted' to cut it into trials"
        )
    times = _Times(dataset)
    if times.dtype.kind != events.dtype.kind:
        raise ValueError(
            "events and samples have times of two clocks: open the session with "
            "time='fitted' or 'host' to cut it into trials"
        )
    declared = _declared_rate(dataset)
    rate = declared or times.measured_rate()
    if rate is None:
        return None
    count = round((before + after) * rate)
    offsets = np.arange(count) / rate - before
    first = events.astype("i8") - round(before * 1e9)
    if declared is None:
        wanted = first[:, None] + np.round(np.arange(count) * (1e9 / rate)).astype("i8")
        places = _Places(len(first), count)
        places.add(np.arange(len(first)), *times.nearest(wanted, 1e9 / rate))
    else:
        places = _by_position(dataset, times, first, count, rate)
    found: dict[str, Any] = {"is_there": ((TRIAL, TIME), places.is_there)}
    for name, variable in dataset.data_vars.items():
        if TIME not in variable.dims:
            continue
        order = variable.variable.transpose(TIME, ...)
        fill, attrs = _fill(order.dtype), dict(variable.attrs)
        values = places.read(order, fill)
        if order.dtype.kind in "iu" and not places.is_there.all():
            attrs["missing_value"] = fill
        dims = [str(d) for d in order.dims[1:]]
        found[str(name)] = ((TRIAL, TIME, *dims), values, attrs)
    coords = {
        n: c.variable
        for n, c in dataset.coords.items()
        if not {TIME, ENTRY} & {*c.dims}
    }
    coords[TIME] = xr.Variable((TIME,), offsets, {"units": "s"})
    attrs = {**dataset.attrs, "sample_rate_hz": rate, "rate_hz": rate}
    return xr.Dataset(found, coords, attrs=attrs)


def _fill(dtype: np.dtype[Any]) -> Any:
    """Return what stands where no sample is."""
    if dtype.kind == "i":
        return np.iinfo(dtype).min
    if dtype.kind == "u":
        return np.iinfo(dtype).max
    if dtype.kind in "fc":
        return np.nan
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    return "" if dtype.hasobject else np.zeros((), dtype)[()]


def _declared_rate(dataset: xr.Dataset) -> float | None:
    """Return the rate of samples that the attributes of the data state, Hz."""
    rates = (sample_rate(variable.attrs) for variable in dataset.data_vars.values())
    return next((rate for rate in rates if rate is not None), None)


class _Places:
    """Which sample is at each place of each trial.

    Most trials are one span of samples that follow each other.
    """

    def __init__(self, trials: int, count: int) -> None:
        self.is_there = np.zeros((trials, count), bool)
        self._spans: list[tuple[int, int, int, int]] = []
        self._others: list[tuple[int, NDArray[np.int64]]] = []

    def add_span(self, trial: int, place: int, first: int, last: int) -> None:
        """Put samples `first` to before `last` at a place and those behind it."""
        self._spans.append((first, last, trial, place))
        self.is_there[trial, place : place + last - first] = True

    def add(
        self,
        trials: NDArray[np.int64],
        samples: NDArray[np.int64],
        is_there: NDArray[np.bool_],
    ) -> None:
        """Put samples, (m, count), at the places of trials where they are there."""
        self.is_there[trials] = is_there
        self._others += zip(trials.tolist(), samples, strict=True)

    def read(self, variable: xr.Variable, fill: Any) -> NDArray[Any]:
        """Read the samples into one array, (trial, time, ...)."""
        shape = (*self.is_there.shape, *variable.shape[1:])
        values = np.empty(shape, variable.dtype)
        if not self.is_there.all():
            values[~self.is_there] = fill
        row_bytes = max(variable.dtype.itemsize * math.prod(shape[2:]), 1)
        for group in _neighbours(self._spans, max(1, GROUP_BYTES // row_bytes)):
            begin = group[0][0]
            part = variable[begin : max(span[1] for span in group)].values
            for first, last, trial, place in group:
                into = values[trial, place : place + last - first]
                into[...] = part[first - begin : last - begin]
        for trial, samples in self._others:
            is_there = self.is_there[trial]
            values[trial, is_there] = _rows(variable, samples[is_there])
        return values


def _neighbours(
    spans: list[tuple[int, int, int, int]], most: int
) -> Iterator[list[tuple[int, int, int, int]]]:
    """Group spans that overlap, so that each part is read once; at most so many."""
    group: list[tuple[int, int, int, int]] = []
    end = 0
    for span in sorted(spans):
        if group and (span[0] > end or span[1] - group[0][0] > most):
            yield group
            group = []
        end = max(end, span[1]) if group else span[1]
        group.append(span)
    if group:
        yield group


def _by_position(
    dataset: xr.Dataset,
    times: _Times,
    first: NDArray[np.int64],
    count: int,
    rate: float,
) -> _Places:
    """Place samples by their positions, so that each is there exactly once."""
    step = 1e9 / rate
    slack = round(MARGIN * step)
    low = times.search(first - slack)
    high = times.search(first + round(count * step) + slack)
    name = POSITION if POSITION in dataset.coords else "sequence"
    places = _Places(len(first), count)
    left = high > low
    if times.is_lazy:
        left &= ~_whole_spans(dataset[name], times, places, first, low, high, step)
    for trial in np.flatnonzero(left).tolist():
        own = times.numbers(np.arange(low[trial], high[trial]))
        away = (times.at(own) - first[trial]) / step
        position = _rows(dataset[name].variable, own).astype("i8")
        position -= position[0]
        # Where the grid begins, by the middle of all: jitter has no effect.
        place = position + round(float(np.median(away - position)))
        # Beyond a jump of a clock, or where numbers are not of samples, times count.
        is_off = np.abs(place - away) > np.maximum(MARGIN, MOST_DRIFT * count)
        place = np.where(is_off, np.rint(away).astype("i8"), place)
        is_in = (place >= 0) & (place < count)
        samples = np.zeros((1, count), np.int64)
        is_there = np.zeros((1, count), bool)
        samples[0, place[is_in]] = own[is_in]
        is_there[0, place[is_in]] = True
        places.add(np.array([trial]), samples, is_there)
    return places


def _whole_spans(
    position: xr.DataArray,
    times: _Times,
    places: _Places,
    first: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    step: float,
) -> NDArray[np.bool_]:
    """Place trials without a loss or a jump of the clock; return which they are."""
    count = places.is_there.shape[1]
    trials = np.flatnonzero(high > low)
    ends = low[trials], high[trials] - 1
    behind = ends[1] - ends[0]
    is_whole = np.zeros(len(first), bool)
    if not len(trials):
        return is_whole
    both = _rows(position.variable, np.concatenate(ends)).astype("i8")
    at = (times.at(np.concatenate(ends)).reshape(2, -1) - first[trials]) / step
    begin = np.rint((at[0] + at[1] - behind) / 2).astype("i8")
    good = both[len(trials) :] - both[: len(trials)] == behind
    good &= np.abs(at[0] - begin) <= max(MARGIN, MOST_DRIFT * count)
    is_whole[trials[good]] = True
    for k in np.flatnonzero(good).tolist():
        start, place = int(ends[0][k]), int(begin[k])
        skipped = max(-place, 0)
        last = start + min(int(behind[k]) + 1, count - place)
        if start + skipped < last:
            places.add_span(int(trials[k]), place + skipped, start + skipped, last)
    return is_whole


def _rows(variable: xr.Variable, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Read some rows of a variable; each part of the file once."""
    if len(rows) and (np.diff(rows) == 1).all():
        return np.asarray(variable[int(rows[0]) : int(rows[-1]) + 1].values)
    needed, back = np.unique(rows, return_inverse=True)
    return np.asarray(variable[needed].values)[back]


class _Times:
    """The times of a stream, looked up where its index can, else in memory."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._index = dataset.xindexes.get(TIME)
        self._coord, self.dtype = dataset[TIME], dataset[TIME].dtype
        self._size = dataset.sizes[TIME]
        self._order: NDArray[np.int64] | None = None
        self.is_lazy = bool(getattr(self._index, "is_searchable", False))
        if not self.is_lazy:
            self._values = self._coord.values.astype("i8")
            if not (self._values[1:] >= self._values[:-1]).all():
                self._order = np.argsort(self._values, kind="stable")
                self._values = self._values[self._order]

    def search(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many samples are before each time."""
        if self.is_lazy:
            found: NDArray[np.int64] = self._index.search(wanted)  # type: ignore[union-attr]
            return found
        return np.searchsorted(self._values, wanted)

    def numbers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at places in the order of time."""
        return places if self._order is None else self._order[places]

    def at(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the times of samples."""
        if self.is_lazy or self._order is not None:
            return _rows(self._coord.variable, numbers).astype("i8")
        return self._values[numbers]

    def nearest(
        self, wanted: NDArray[np.int64], step: float
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the sample nearest to each moment, and whether it is within a step."""
        if not self._size:
            return np.zeros(wanted.shape, "i8"), np.zeros(wanted.shape, bool)
        right = np.clip(self.search(wanted.ravel()), 0, self._size - 1)
        left = np.maximum(right - 1, 0)
        ends = [self.numbers(left), self.numbers(right)]
        times = [self.at(end) for end in ends]
        flat = wanted.ravel()
        is_left = np.abs(flat - times[0]) <= np.abs(times[1] - flat)
        samples = np.where(is_left, ends[0], ends[1])
        away = np.abs(np.where(is_left, times[0], times[1]) - flat)
        return samples.reshape(wanted.shape), (away <= step).reshape(wanted.shape)

    def measured_rate(self) -> float | None:
        """Return samples per second by the median of intervals; None with too few."""
        values = self._coord.values.astype("i8") if self.is_lazy else self._values
        steps = np.diff(values)
        steps = steps[steps > 0]
        return 1e9 / float(np.median(steps)) if len(steps) else None


# ---- what is often drawn


def psth(
    times: NDArray[Any], events: NDArray[Any], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the rate of point events around other events, Hz.

    Parameters
    ----------
    times : array, shape (n,)
        Times of the points, such as spikes: datetime64, or numbers in s.
    events : array, shape (m,)
        Times around which they are counted, alike.
    edges : array, shape (k + 1,)
        Edges of the bins relative to an event, s, increasing.

    Returns
    -------
    float64 array, shape (k,)
        Mean over the events, per second.

    Examples
    --------
    >>> psth(np.array([1.01, 2.01, 2.02]), np.array([1.0, 2.0]), np.array([0, 0.1]))
    array([15.])
    """
    widths = np.diff(edges)
    counted = np.zeros(len(widths))
    for points in raster(times, events, (float(edges[0]), float(edges[-1]))):
        counted += np.histogram(points, edges)[0]
    return np.asarray(counted / (max(len(events), 1) * widths))


def raster(
    times: NDArray[Any], events: NDArray[Any], window_s: tuple[float, float]
) -> list[NDArray[np.float64]]:
    """Return the points around each event, s relative to it: for `eventplot`.

    Parameters
    ----------
    times, events : array
        As for `psth`.
    window_s : tuple of float
        First and last moment relative to an event, s.

    Returns
    -------
    list of float64 array
        One for each event, in order.

    Examples
    --------
    >>> raster(np.array([0.9, 1.25, 3.0]), np.array([1.0, 2.0]), (-0.5, 0.5))
    [array([-0.1 ,  0.25]), array([], dtype=float64)]
    """
    points, centres = np.sort(np.asarray(times)), np.asarray(events)
    is_time = points.dtype.kind in "mM"
    low, high = (
        np.timedelta64(round(s * 1e9), "ns") if is_time else s for s in window_s
    )
    found = []
    for centre in centres:
        first = np.searchsorted(points, centre + low, "left")
        last = np.searchsorted(points, centre + high, "right")
        away = points[first:last] - centre
        found.append(away.astype("m8[ns]").astype("i8") / 1e9 if is_time else away)
    return found
