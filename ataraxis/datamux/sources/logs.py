"""Recordings of ataraxis: journals, and logs in the seed's layouts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import DEVICE_UNITS, Field, Stream, stream_of
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.price import Price, charge
from ataraxis.errors import CorruptFrame, LayoutError, RecordingError
from ataraxis.labels import Labels, is_blocks, sample_rate, sample_times, stamp_of
from ataraxis.log.archive import LogArchive
from ataraxis.log.sample_axis import FrameTimes, axis_of
from ataraxis.log.selection import EntryBlock, SourceInfo
from ataraxis.shm.beneath import path_of

ARCHIVE = ".npz"
_ENTRIES = (".axj", ".npy", ARCHIVE)


class Logs:
    """``log://{session}``: a directory of journals or npy entries, or an ``.npz``.

    A stream is a source of the log, by name or else by number. Times are those of the
    device if the recording marks them as ns, else the monotonic times of the frames. An
    index may also declare ``time_ns``, ``device_time``, ``device_sequence`` and
    ``sequence``, as recorded. Blocks are split into samples: their times are fitted to
    the stamps, as xarray shows them; their device times are of the first sample.
    """

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the directories that contain a log, and other archives."""
        found: list[str] = []
        archives: list[str] = []
        for inside, names in folder.walk():
            if any(name.endswith(_ENTRIES[:2]) for name in names):
                found.append(inside)
            else:
                archives += [
                    f"{inside}/{name}" if inside else name
                    for name in names
                    if name.endswith(ARCHIVE)
                ]
        names = sorted({*found, *archives} - {""})
        return [(name.removesuffix(ARCHIVE), {}) for name in names]

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one source: its channels, and all recorded times."""
        with _opened(folder, key) as archive:
            wanted = str(stream.attrs.get("log_name", stream_id))
            info = _source(archive, wanted)
            parts = _read_parts(archive, info)
            is_numbered = archive.is_numbered(info.number)
        row = _labels_of(info, parts[0])
        sample = _sample_of(row)
        each = [part.data.shape[1] if is_blocks(row) else 1 for part in parts]
        counts = np.repeat(each, [*map(len, parts)])
        samples = [
            part.data.reshape(len(part) * n, *sample.shape)
            for part, n in zip(parts, each, strict=True)
        ]
        data = _joined(samples)
        columns = _columns(data, stream, sample, f"{archive.path}, {wanted!r}")
        time = _joined([part.time for part in parts])
        stamps = [part.device for part in parts if part.device is not None]
        device = _joined(stamps) if len(stamps) == len(parts) else None
        scale = 10**9 if parts[0].unit == "ns" else 10**6
        is_ns = device is not None and row.attrs.get(DEVICE_UNITS) == "ns"
        ticks = device[:, 0] if device is not None and is_ns else time
        per_s, stamp = (10**9, "sample") if is_ns else (scale, stamp_of(row))
        rate = sample_rate(row)
        sequence = _joined([part.sequence for part in parts])
        if is_blocks(row) and not is_ns and scale == 10**9 and len(counts) > 1:
            frames = FrameTimes(
                counts, time, sequence if is_numbered else None, device,
                whole=row.shape[0],
            )  # fmt: skip
            ticks = axis_of(frames, row.attrs).at(np.arange(int(counts.sum())))
            columns.setdefault("t", ticks / 1e9)
        elif is_blocks(row) and rate is not None:
            ticks = sample_times(ticks * (10**9 // per_s), counts, rate, stamp)
            columns.setdefault("t", ticks / 1e9)
        else:
            columns.setdefault("t", np.repeat(ticks / per_s, counts))
        # All samples of a frame have its time.
        columns["time_ns"] = np.repeat(time, counts) * (10**9 // scale)
        columns["sequence"] = np.repeat(sequence, counts).astype(np.int64)
        if device is not None:
            columns["device_time"] = np.repeat(device[:, 0], counts)
            columns["device_sequence"] = np.repeat(device[:, 1], counts)
        return columns

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the sources of a log with numbers or text, by name."""
        described: dict[str, Stream] = {}
        with _opened(folder, key) as archive:
            for number, info in archive.sources.items():
                numbers = archive.without_onsets(archive.select(number))
                if not len(numbers):
                    continue
                name = info.name or str(number)
                try:
                    first = _read(archive, info, numbers.numbers[:1])
                    if first.data.dtype == object:
                        continue  # variable-length text
                    sample = _sample_of(_labels_of(info, first))
                    made = stream_of(name, sample, "replay")
                except (LayoutError, RecordingError):
                    continue  # pickles and records have no columns
                made.index["time_ns"] = Field("made here", dtype="i64", unit="ns")
                if first.device is not None:
                    for key_ in ("device_time", "device_sequence"):
                        made.index[key_] = Field(dtype="i64")
                made.attrs["lost"] = archive.missing(number)
                described[name] = made
            if archive.problems and not described:
                raise RecordingError(f"{archive.path}: {archive.problems[0]}")
        return described


@contextmanager
def _opened(folder: Folder, key: str) -> Iterator[LogArchive]:
    with _found(folder, key) as (path, shown), folder.reworded(path, shown):
        try:
            with LogArchive(path) as archive:
                yield archive
        except FileNotFoundError as error:
            raise RecordingError(f"{path}: not a log of ataraxis") from error
        except (LayoutError, CorruptFrame) as error:
            raise RecordingError(f"{path}: damaged: {error}") from error


@contextmanager
def _found(folder: Folder, key: str) -> Iterator[tuple[str, str]]:
    """Open a log's directory or archive; yield its path, and its name."""
    for name in (key, f"{key}{ARCHIVE}"):
        if folder.is_there(name):
            with folder.opened(name) as opened:
                yield opened.path, opened.shown
            return
        if folder.is_folder(name):
            descriptor = folder.descriptor(name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                shown = folder.shown(name)
                _check_entries(folder, descriptor, shown)
                yield (path_of(descriptor) if folder.is_confined else shown), shown
            finally:
                os.close(descriptor)
            return
    raise folder.not_there(key)


def _check_entries(folder: Folder, descriptor: int, shown: str) -> None:
    """Charge for a log; raise for links in one that a client asks for."""
    nbytes = files = 0
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_symlink() and folder.is_confined:
                raise RecordingError(
                    f"{shown}/{entry.name} is a link, and is not followed"
                )
            if entry.is_file(follow_symlinks=False):
                nbytes += entry.stat(follow_symlinks=False).st_size
                files += 1
    charge(Price(recording_bytes=nbytes, files=min(files, 16)))


def _source(archive: LogArchive, wanted: str) -> SourceInfo:
    for number, info in archive.sources.items():
        if wanted in (info.name, str(number)):
            return info
    names = [info.name or str(number) for number, info in archive.sources.items()]
    why = f"; {archive.problems[0]}" if archive.problems else ""
    raise RecordingError(f"{archive.path}: no source {wanted!r}: found {names}{why}")


def _read(
    archive: LogArchive, info: SourceInfo, numbers: NDArray[np.int64] | None = None
) -> EntryBlock:
    """Read the entries of a source, all of one dtype and shape."""
    try:
        if numbers is not None:
            return archive.read(numbers=numbers)
        return archive.read(info.number)
    except CorruptFrame:
        raise
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{archive.path}: {error}") from error


def _read_parts(archive: LogArchive, info: SourceInfo) -> list[EntryBlock]:
    """Read the entries of a source, in parts of one shape: blocks may be shorter."""
    if info.labels is not None and is_blocks(info.labels):
        found = archive.select(info.number)
        edges = np.flatnonzero(found.nbytes[1:] != found.nbytes[:-1]) + 1
        if len(edges):
            parts = np.split(found.numbers, edges)
            return [_read(archive, info, part) for part in parts]
    return [_read(archive, info)]


def _labels_of(info: SourceInfo, block: EntryBlock) -> Labels:
    """Return the labels of a row of a block, which may be shorter than they state."""
    labels, data = info.labels, block.data
    if block.labels is None and labels is not None and is_blocks(labels):
        row = (data.dtype, data.ndim - 1, data.shape[2:])
        if row == (labels.dtype, len(labels.shape), labels.shape[1:]):
            return labels
    return block.labels or Labels(data.dtype, data.shape[1:])


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _sample_of(row: Labels) -> Labels:
    """Return the labels of one sample of a frame with these labels."""
    if not is_blocks(row):
        return row
    coords = {
        name: (coord.dims, coord.values, coord.attrs)
        for name, coord in row.coords.items()
        if "time" not in coord.dims
    }
    attrs = {
        k: v for k, v in row.attrs.items() if k not in ("rate_hz", "sample_rate_hz")
    }
    if (rate := sample_rate(row)) is not None:
        attrs["rate_hz"] = rate
    return Labels(row.dtype, row.shape[1:], row.dims[1:], coords, attrs, row.name)


def _columns(
    data: NDArray[Any], stream: Stream, sample: Labels, where: str
) -> dict[str, NDArray[Any]]:
    """Name the columns by their labels, or as the stream declares them; views."""
    fields = [*stream.fields]
    names = [*stream_of(stream.id, sample).fields]
    if len(names) == 1 and len(fields) == 1:
        is_channel = bool(sample.shape) and sample.dims[0] == "channel"
        return {fields[0]: data[:, 0] if is_channel else data}
    if not set(fields) <= set(names):
        if len(fields) != len(names):
            raise RecordingError(f"{where}: found channels {names}, declared {fields}")
        names = fields
    return {name: data[:, i] for i, name in enumerate(names)}
