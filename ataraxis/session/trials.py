"""`around`: the streams of a session around its events, trial by trial."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.session.events import EVENTS, parsed
from ataraxis.session.outputs import OUTPUT_ROW

if TYPE_CHECKING:
    import xarray as xr

TRIAL, TIME = "trial", "time"
STAMP = "monotonic_ns"


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
        since the event, at the stream's rate; the nearest sample is taken. The data of
        the events are coordinates along "trial"; a datum "trial" is its index. Without
        a sample within one interval, floats are NaN, others 0, and ``is_there`` (trial,
        time) is false. In memory: only the parts are read.

    Raises
    ------
    TypeError, ValueError
        `tree` is not a session, `event` not a name, or a time is not valid.
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
    ...     probe = Producer("doc_trials", shape=(), dtype="f8", attrs={"rate_hz": 10})
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
        names = [n for n in tree.children if n != EVENTS and _is_sampled(tree[n])]
    else:
        names = list(wanted)
    nodes = {}
    for name in names:
        if name not in tree.children:
            raise KeyError(f"no stream {name!r}: the session has {[*tree.children]}")
        part = _cut(tree[name].to_dataset(), times, before, after)
        if part is not None:
            nodes[name] = part.assign_coords(coords)
        elif wanted is not None:
            raise ValueError(f"stream {name!r} has no rate: it has too few samples")
    attrs = {"event": event, "before_s": before, "after_s": after}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **nodes})


def _is_sampled(node: Any) -> bool:
    """Return whether it has samples, and is not the log of an output."""
    has_stamps = STAMP in node.coords and len(node[STAMP]) > 0
    return has_stamps and not {*(OUTPUT_ROW.names or ())} <= {*node.data_vars}


def _events(tree: xr.DataTree, event: str) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the times of the events, and their data as coordinates of trials."""
    if EVENTS not in tree.children:
        raise KeyError(f"the session has no events: it has {[*tree.children]}")
    node = tree[EVENTS].to_dataset()
    names = node["event"].values.astype(str)
    at = np.flatnonzero(names == event)
    if not len(at):
        raise KeyError(f"no event {event!r}: the session has {sorted({*names})}")
    times = node[STAMP].values[at].astype(np.int64)
    data = [parsed(text) for text in node["data"].values[at]]
    coords: dict[str, Any] = {TRIAL: np.arange(len(at)), "event_ns": (TRIAL, times)}
    for key in dict.fromkeys(key for one in data for key in one):
        values = [one.get(key) for one in data]
        if not all(isinstance(v, (bool, int, float, str)) for v in values):
            continue  # missing in some events, or not a scalar
        called = key if key not in (TIME, "is_there", "event_ns") else f"event_{key}"
        coords[called] = (TRIAL, np.array(values))
    return times, coords


def _cut(
    dataset: xr.Dataset, times: NDArray[np.int64], before: float, after: float
) -> xr.Dataset | None:
    """Cut one stream; None if it has no rate."""
    import xarray as xr

    dim = str(dataset[STAMP].dims[0])
    stamps = dataset[STAMP].values.astype(np.int64)
    inner, count = _samples_in(dataset, dim)
    rate = _rate_of(dataset, stamps, count)
    if rate is None:
        return None
    step = 1e9 / rate
    moments = (stamps[:, None] + np.round(np.arange(count) * step).astype("i8")).ravel()
    order = np.argsort(moments, kind="stable")
    moments = moments[order]
    offsets = np.arange(round((before + after) * rate)) / rate - before
    targets = times[:, None] + np.round(offsets * 1e9).astype("i8")
    nearest = _nearest(moments, targets)
    is_there = np.abs(moments[nearest] - targets) <= step
    rows, which = np.divmod(order[nearest], count)
    needed, back = np.unique(rows, return_inverse=True)
    back = back.reshape(rows.shape)
    found: dict[str, Any] = {"is_there": ((TRIAL, TIME), is_there)}
    for name, variable in dataset.data_vars.items():
        if dim not in variable.dims:
            continue
        read = variable.isel({dim: needed}).transpose(dim, ...)
        values, dims = read.values, [str(d) for d in read.dims[1:]]
        if inner is not None and inner in dims:
            values = np.moveaxis(values, 1 + dims.index(inner), 1)[back, which]
            dims.remove(inner)
        else:
            values = values[back]
        values[~is_there] = (
            np.nan if values.dtype.kind == "f" else np.zeros((), values.dtype)
        )
        found[str(name)] = ((TRIAL, TIME, *dims), values, variable.attrs)
    coords = {
        n: c.variable for n, c in dataset.coords.items() if not {dim, inner} & {*c.dims}
    }
    coords[TIME] = xr.Variable((TIME,), offsets, {"units": "s"})
    return xr.Dataset(found, coords, attrs={**dataset.attrs, "rate_hz": rate})


def _samples_in(dataset: xr.Dataset, dim: str) -> tuple[str | None, int]:
    """Return the dim of a frame's samples, None if it has one sample; and how many."""
    if dim != TIME and TIME in dataset.sizes:
        return TIME, dataset.sizes[TIME]
    return None, 1


def _rate_of(
    dataset: xr.Dataset, stamps: NDArray[np.int64], count: int
) -> float | None:
    """Return the rate of samples, Hz, as declared or measured."""
    key = "sample_rate_hz" if count > 1 else "rate_hz"
    for variable in dataset.data_vars.values():
        if variable.attrs.get(key):
            return float(variable.attrs[key])
    steps = np.diff(np.sort(stamps))
    steps = steps[steps > 0]
    return 1e9 / float(np.median(steps)) * count if len(steps) else None


def _nearest(
    moments: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the number of the moment nearest to each target."""
    right = np.clip(np.searchsorted(moments, targets), 0, len(moments) - 1)
    left = np.maximum(right - 1, 0)
    is_left = np.abs(targets - moments[left]) <= np.abs(moments[right] - targets)
    return np.where(is_left, left, right)
