"""What a card shows of each kind of object, by its public attributes only.

The objects belong to higher rooms, which call `html_of` with themselves. Nothing here
joins, reads on, locks or waits: a closed object is shown without its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.card._card import Card, Cell, Markup, count, span
from ataraxis.card._pictures import image, sparkline
from ataraxis.errors import AtaraxisError
from ataraxis.labels import Labels, is_blocks, sample_rate

_MOST = 6
_TRIES = 4
_SPARK_S = 0.4
_SPARK_ITEMS = 2_000_000
_CLOSED = (AtaraxisError, OSError, ValueError, AttributeError)


def html_of(kind: str, thing: Any) -> str:
    """Return the card of an object.

    Parameters
    ----------
    kind : str
        A name in `KINDS`.
    thing : object
        The object.

    Returns
    -------
    str
        HTML; of an object in a state that cannot be shown, its repr as text.
    """
    try:
        return KINDS[kind](thing).html()
    except Exception as error:  # a notebook would show a traceback in place of a value
        problem = f"cannot be shown: {type(error).__name__}: {error}"
        return Card(repr(thing), [kind], notes=[problem]).html()


# ---- arrays and values


def shape_of(labels: Labels) -> str:
    """Return dtype and named dims: 'int16 (time: 300, channel: 64)'."""
    dtype = labels.dtype
    name = "record" if dtype.names is not None else str(dtype)
    if not labels.shape:
        return name
    pairs = zip(labels.dims, labels.shape, strict=True)
    if all(dim == f"dim_{k}" for k, dim in enumerate(labels.dims)):
        return f"{name} ({', '.join(str(n) for n in labels.shape)})"
    return f"{name} ({', '.join(f'{dim}: {n}' for dim, n in pairs)})"


def _corner(
    values: NDArray[Any], labels: Labels | None
) -> tuple[list[str], list[list[Any]], list[str]]:
    """Return heads, rows and notes of at most 6 x 6 values."""
    notes: list[str] = []
    if values.dtype.names is not None:
        heads = list(values.dtype.names)
        rows = [[_text(row[n]) for n in heads] for row in values.reshape(-1)[:_MOST]]
        return heads, rows, notes
    dims = labels.dims if labels is not None else ()
    while values.ndim > 2:
        values = values[0]
        notes.append(f"at {dims[0]} 0" if dims else "at index 0")
        dims = dims[1:]
    if values.ndim == 0:
        return ["value"], [[_text(values[()])]], notes
    whole = values.shape
    values = values[:_MOST] if values.ndim == 1 else values[:_MOST, :_MOST]
    if values.shape != whole:
        notes.append(f"the first of {' x '.join(f'{n:,}' for n in whole)} values")
    along = [_names(labels, dim, n) for dim, n in zip(dims, values.shape, strict=False)]
    along += [None] * (values.ndim - len(along))
    heads = along[-1] or [str(k) for k in range(values.shape[-1])]
    table = values.reshape(-1, values.shape[-1])
    rows = [[_text(v) for v in row] for row in table]
    if values.ndim == 2 and along[0] is not None:
        heads = [dims[0], *heads]
        rows = [[name, *row] for name, row in zip(along[0], rows, strict=True)]
    return heads, rows, notes


def _names(labels: Labels | None, dim: str, count: int) -> list[str] | None:
    if labels is None or dim not in labels.coords:
        return None
    return [str(v) for v in labels.coords[dim].values[:count]]


def _text(value: Any) -> Any:
    """Return a value as a cell."""
    plain_value = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain_value, bool):
        return str(plain_value)
    return plain_value if isinstance(plain_value, int | float) else str(plain_value)


def _array(array: Any) -> Card:
    labels: Labels = array.labels
    about = ["array", shape_of(labels)]
    if not array.is_connected:
        return Card(array.name, [*about, "not connected"])
    try:
        before = array.statistics()
        view = np.asarray(array)
        for _ in range(_TRIES):
            heads, rows, notes = _corner(view, labels)
            after = array.statistics()
            if after.owner < 0 and after.version == before.version:
                break
            before = after
        else:
            notes.append("a process was writing: values may be of two writes")
    except AtaraxisError as error:
        return Card(array.name, [*about, "not connected"], notes=[str(error)])
    about.append(count(after.version, "write"))
    if after.owner >= 0:
        about.append(f"locked by participant {after.owner}")
    if after.is_torn:
        notes.append(f"half written: process {after.torn_pid} died in a write")
    return Card(array.name, about, heads, rows, notes=notes)


# ---- streams and queues


def _stream(end: Any) -> Card:
    about = ["stream", shape_of(end.labels) if end.is_typed else "bytes"]
    try:
        found = end.statistics()
    except _CLOSED:
        return Card(end.name, [*about, "closed here"])
    about += [count(found.sent, "frame"), found.state]
    notes: list[str] = []
    if found.is_stalled:
        notes.append("its producer waits for a reader now")
    if found.refused:
        notes.append(f"{count(found.refused, 'frame')} refused: no slot was free")
    if found.device_gaps:
        notes.append(f"{found.device_gaps:,} missing in the device's own counter")
    rows = [
        (
            reader.label,
            " · ".join(
                [reader.policy]
                + ["durable"] * reader.is_durable
                + [f"away for {span(reader.detached_s)}"] * reader.is_detached
            ),
            reader.received,
            reader.lag,
            # Of who reads the newest only, that is as it should be.
            Cell(f"{reader.dropped:,}", "bad" * (reader.policy == "lossless"))
            if reader.dropped
            else 0,
        )
        for reader in found.readers
    ]
    heads = ("reader", "policy", "received", "lag", "lost")
    return Card(end.name, about, heads, rows, _newest(end), notes)


def _newest(end: Any) -> Markup | None:
    """Return a picture of the newest values; None for a producer, which cannot read."""
    if not hasattr(end, "latest") or not end.is_typed:
        return None
    try:
        return _picture(end, end.labels)
    except _CLOSED:
        return None


def _picture(end: Any, labels: Labels) -> Markup | None:
    shape = labels.shape[1:] if is_blocks(labels) else labels.shape
    rate = sample_rate(labels)
    items = int(np.prod(shape, dtype=np.int64))
    if labels.dtype.names is not None or not 0 < items <= _SPARK_ITEMS:
        return None
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3):
        newest = end.latest(1)
        return image(newest[0], "newest image") if len(newest) else None
    if len(shape) > 1:
        return None
    most = _SPARK_ITEMS // items
    count = most if rate is None else min(int(_SPARK_S * rate) + 1, most)
    values = end.latest(min(count, 20_000) if rate is None else count)
    if len(values) < 2 or values.dtype.kind not in "iuf":
        return None
    values = values.reshape(len(values), -1)
    reach = values.max(axis=0).astype("f8") - values.min(axis=0)
    best = int(np.nanargmax(reach)) if not np.isnan(reach).all() else 0
    what = f"{labels.dims[-1]} {best}, " if shape else ""
    often = f"{span(len(values) / rate)}" if rate else f"{len(values):,} values"
    return sparkline(values[:, best], f"{what}newest {often}")


def _queue(queue: Any) -> Card:
    try:
        found = queue.statistics()
    except _CLOSED:
        return Card(queue.name, ["work queue", "closed here"])
    about = ["work queue", count(found.buffer_count, "slot"), f"{found.put:,} put"]
    heads = ("waiting", "leased", "acknowledged", "delivered again", "corrupt")
    row = (
        found.waiting, found.leased, found.acknowledged, found.redelivered,
        Cell(f"{found.corrupt:,}", "bad") if found.corrupt else 0,
    )  # fmt: skip
    notes = ["a putter waits for room now"] if found.is_stalled else []
    return Card(queue.name, about, heads, [row], notes=notes)


def _received(frame: Any) -> Card:
    """Return the card of a frame of a stream."""
    if frame.is_released:
        return Card("frame", ["released"])
    about = [f"{frame.nbytes:,} bytes", f"at {frame.time_ns * 1e-9:,.6f} s, monotonic"]
    return _of_values(f"frame {frame.sequence:,}", about, frame.array, None)


def _encoded(frame: Any) -> Card:
    """Return the card of a frame that carries one value."""
    kind = getattr(frame.dtype, "name", str(frame.dtype))
    about = [f"frame {frame.sequence:,}", f"source {frame.source}", kind]
    about.append(f"{sum(len(part) for part in frame.parts):,} bytes")
    try:
        labels, array = frame.labels, frame.array
    except (TypeError, *_CLOSED):
        if frame.pickled:
            return Card("value", about, notes=["a pickle, which is not read here"])
        text = repr(frame.value)
        return Card("value", about, ("value",), [(text,)])
    return _of_values(
        labels.name or "value" if labels else "value", about, array, labels
    )


def _of_values(
    name: str, about: list[str], array: NDArray[Any], labels: Labels | None
) -> Card:
    known = labels or Labels(array.dtype, array.shape)
    facts = [shape_of(known), *about]
    is_image = array.dtype.kind == "u" and min(array.shape[:2], default=0) >= 32
    if is_image and array.ndim in (2, 3):
        picture = image(array)
        if picture is not None:
            return Card(name, facts, picture=picture)
    heads, rows, notes = _corner(array, labels)
    return Card(name, facts, heads, rows, notes=notes)


# ---- recordings


def _verdict(verdict: Any, name: str = "verdict", about: tuple[str, ...] = ()) -> Card:
    word = "trusted" if verdict.is_trusted else "NOT TRUSTED"
    has_devices = any(stream.device_lost is not None for stream in verdict.streams)
    rows = [
        (
            stream.name,
            stream.expected,
            stream.received,
            stream.missing,
            *[stream.device_lost] * has_devices,
            Cell(*_TRUST[stream.is_trusted]),
            "; ".join(stream.notes),
        )
        for stream in verdict.streams
    ]
    heads = ["stream", "made", "on disk", "missing"]
    heads += ["lost in the device"] * has_devices + ["", ""]
    about = (*about, span(verdict.duration_s), word)
    return Card(name, about, heads, rows, notes=list(verdict.notes))


_TRUST = {True: ("trusted", "good"), False: ("not trusted", "bad")}


def _session(session: Any) -> Card:
    if session.verdict is not None:
        return _verdict(session.verdict, session.name, ("session", "ended"))
    about = ["session", "recording", f"to {session.directory}"]
    return _recorded(session.name, about, session.statistics())


def _folder(folder: Any) -> Card:
    """Return the card of the directory of a session, by its small files alone."""
    record, verdict = folder.record(), folder.verdict()
    about = ("session", f"of {record.subject}" if record.subject else "")
    if verdict is not None:
        return _verdict(verdict, record.name, about)
    state = "recording" if folder.is_live else "cut off: ataraxis recover judges it"
    rows = [(name,) for name in record.streams]
    return Card(
        record.name, [*about, state], ("stream",), rows, notes=[str(folder.path)]
    )


def _recorded(name: str, about: list[str], found: dict[str, Any]) -> Card:
    rows = [
        (
            stream, one.frames, one.nbytes,
            Cell(f"{one.lost:,}", "bad") if one.lost else 0,
            Cell("cannot write", "bad") if one.error
            else Cell("recording", "good") if one.is_recording
            else Cell("not recording"),
        )
        for stream, one in found.items()
    ]  # fmt: skip
    notes = list(dict.fromkeys(one.error for one in found.values() if one.error))
    heads = ("stream", "frames", "bytes", "lost", "")
    return Card(name, about, heads, rows, notes=notes)


def _recorder(recorder: Any) -> Card:
    state = "recording" if recorder.is_recording else "ended"
    return _recorded(
        "recorder", [state, f"to {recorder.directory}"], recorder.statistics()
    )


def _logger(logger: Any) -> Card:
    about = ["logger", f"to {logger.output_directory}"]
    try:
        found = logger.statistics()
        about.insert(1, "writing" if logger.started else "stopped")
    except _CLOSED:
        return Card(logger.name, [*about, "closed"])
    heads = ("written", "bytes", "waiting", "dropped", "restarts of the writer")
    return Card(logger.name, about, heads, [tuple(_counts(found))])


def _counts(found: Any) -> list[Any]:
    names = list(type(found).__dataclass_fields__)
    values = [getattr(found, name) for name in names[:5]]
    if values[3]:
        values[3] = Cell(f"{values[3]:,}", "bad")
    return values


def _archive(archive: Any) -> Card:
    about = [
        "log",
        count(len(archive), "entry", "entries"),
        "live" if archive.is_live else "",
    ]
    scale = 1e-9 if archive.unit == "ns" else 1e-6
    rows = []
    for source, info in archive.sources.items():
        found = archive.select(source)
        length = float(np.ptp(found.time)) * scale if len(found.time) else 0.0
        missing = archive.missing(source)
        rows.append(
            (
                info.name or f"source {source}",
                shape_of(info.labels) if info.labels is not None else "",
                len(found.time),
                Cell(f"{missing:,}", "bad") if missing else 0,
                span(length),
            )
        )
    notes = [str(problem) for problem in archive.problems]
    heads = ("source", "of", "entries", "missing", "span")
    return Card(archive.path.name or str(archive.path), about, heads, rows, notes=notes)


def _recording(recording: Any) -> Card:
    stream = recording.stream
    rate = f"{stream.rate_hz:g} samples/s" if stream.rate_hz else ""
    about = [
        "recording",
        count(len(recording), "sample"),
        span(recording.duration_s),
        rate,
    ]
    rows = [
        (name, str(one.dtype), " x ".join(map(str, one.shape)), one.unit or stream.unit)
        for name, one in stream.fields.items()
    ]
    first, picture = next(iter(stream.fields), None), None
    if first is not None and len(recording):
        block = recording.read(0, min(len(recording), 20_000))
        values = np.asarray(block.values[first])
        picture = sparkline(values, f"{first}, first {len(values):,} samples")
    heads = ("field", "dtype", "shape", "unit")
    return Card(
        stream.name or stream.id, about, heads, rows, picture, [recording.where]
    )


# ---- pipes


def _drawing(thing: Any) -> Markup | None:
    svg = thing._repr_svg_()  # IPython asks for it, too
    return None if svg is None else Markup(svg)


def _pipe(pipe: Any) -> Card:
    try:
        nodes = pipe.graph().nodes
    except ValueError as error:
        return Card(pipe.name, ["pipe"], notes=[str(error)])
    rows = [
        (n.name, n.settings.workers, "yes" if n.settings.ordered else "") for n in nodes
    ]
    state = "running" if pipe.running else "completed" if pipe.completed else ""
    about = ["pipe", state or "not running"]
    return Card(
        pipe.name, about, ("processor", "workers", "ordered"), rows, _drawing(pipe)
    )


def _run(run: Any) -> Card:
    done, total = run.progress
    fed = f"{count(done, 'value')} in" + (f" of {total:,}" if total is not None else "")
    found = run.statistics()
    names = [str(name) for name in found["worker"].values]
    columns = [found[key].values.tolist() for key in _WORDS]
    rows = [
        (
            name,
            str(pid or ""),
            got,
            sent,
            restarts,
            Cell(f"{bad:,}", "bad") if bad else 0,
        )
        for name, pid, got, sent, restarts, bad in zip(names, *columns, strict=True)
    ]
    heads = ("worker", "pid", "received", "emitted", "restarts", "dead letters")
    return Card(run.name, ["pipe", run.state, fed], heads, rows, _drawing(run))


_WORDS = ("pid", "received", "emitted", "restarts", "dead_letters")


def _view(view: Any) -> Card:
    names = ", ".join(view.streams) or "every stream"
    return Card("view", [names, "closed" if view.is_closed else "open"])


KINDS: dict[str, Callable[[Any], Card]] = {
    "array": _array,
    "stream": _stream,
    "queue": _queue,
    "received": _received,
    "encoded": _encoded,
    "session": _session,
    "folder": _folder,
    "verdict": _verdict,
    "pipe": _pipe,
    "run": _run,
    "logger": _logger,
    "archive": _archive,
    "recorder": _recorder,
    "recording": _recording,
    "view": _view,
}
"""What makes the card of each kind."""
