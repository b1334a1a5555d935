"""XDF, the files of the Lab Streaming Layer: read through ``pyxdf``, and written.

Reference: the specification of XDF 1.0, github.com/sccn/xdf/wiki/Specifications.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import ClockFit, convert_in_order, fit_offsets
from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream, channel_names
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.sources.pieces import opened_or_packed
from ataraxis.errors import ConfigError, RecordingError
from ataraxis.log.export.xdf import XdfWriter, fitting
from ataraxis.log.optional import need

RAW = "raw"
BOUND = "bound"
_INDEX = {"t": "time", RAW: "as written"}
_FITTED = {**_INDEX, BOUND: "largest error of the time"}
_FORMATS = {
    "float32": "f32", "double64": "f64", "int8": "i8", "int16": "i16", "int32": "i32",
    "int64": "i64", "string": "str",
}  # fmt: skip
_CHUNK = 4096
_RESET_S = 5.0


class Xdf(SuffixFormat):
    """``xdf://{session}``: streams by their name in the file.

    Times are those of `pyxdf`: clocks aligned, jitter of regular streams removed, clock
    resets handled by the file's clock offsets. After a reset without offsets, times
    continue where they were, with a warning. The index ``raw``, if declared, has the
    times as written.

    With ``attrs: {times: fitted}`` a stream's times are those as written, converted by
    `fit_offsets` of its clock offsets; jitter stays. The index ``bound``, if declared,
    has the largest error of each, s: of jitter and drift, see `ClockFit.bound_at`.
    """

    suffix = ".xdf"

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, bool], list[dict[str, Any]]] = {}

    def _load(
        self, folder: Folder, key: str, is_corrected: bool
    ) -> list[dict[str, Any]]:
        """Load a file once for all its streams."""
        name = f"{key}.xdf"
        known = (folder.shown(name), is_corrected)
        if known not in self._loaded:
            if not folder.is_there(name) and not folder.is_there(f"{name}z"):
                raise folder.not_there(name)
            with opened_or_packed(folder, name, "z") as opened:
                self._loaded[known] = _load(opened, is_corrected)
        return self._loaded[known]

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one stream: its channels under their labels, and its times."""
        path = folder.shown(f"{key}.xdf")
        loaded = _named(self._load(folder, key, True))
        wanted = str(stream.attrs.get("xdf_name", stream_id))
        chosen = _chosen(loaded, wanted, stream.name)
        if chosen is None:
            raise RecordingError(f"{path}: no stream {wanted!r}: found {[*loaded]}")
        names = _labels(loaded[chosen])
        if set(stream.fields) - set(names) and len(stream.fields) == len(names):
            names = [*stream.fields]  # the file does not label its channels
        made = _columns(loaded[chosen], names)
        if _is_fitted(stream.attrs.get("times", "file"), path):
            raw = _named(self._load(folder, key, False))[chosen]
            made[stream.time], made[BOUND] = _fitted(raw, f"{path}: stream {wanted!r}")
            made[RAW] = raw["time_stamps"]
            return made
        rate = float(loaded[chosen]["info"]["nominal_srate"][0])
        where = f"{path}: stream {wanted!r}"
        made[stream.time] = _continued(loaded[chosen]["time_stamps"], rate, where)
        if RAW in stream.index:
            made[RAW] = _named(self._load(folder, key, False))[chosen]["time_stamps"]
        return made

    def fits(self, folder: Folder, key: str) -> dict[str, ClockFit]:
        """Return the fit of each stream that has clock offsets."""
        loaded = _named(self._load(folder, key, False))
        where = folder.shown(f"{key}.xdf")
        return {
            name: _fit_of(found, f"{where}: stream {name!r}")
            for name, found in loaded.items()
            if len(found["clock_times"])
        }

    def describe(
        self, folder: Folder, key: str, times: str = "file"
    ) -> dict[str, Stream]:
        """Return the streams of a file by name, with times as pyxdf's or fitted."""
        is_fitted = _is_fitted(times, folder.shown(f"{key}.xdf"))
        index, more = (_FITTED, {"times": times}) if is_fitted else (_INDEX, {})
        described = {}
        for stream_id, found in _named(self._load(folder, key, True)).items():
            info = found["info"]
            dtype = _FORMATS[info["channel_format"][0]]
            rate = float(info["nominal_srate"][0])
            # Of programs other than LSL: the specification does not require it.
            kind = next(iter(info.get("type") or ()), None) or ""
            units = _of_channels(found, "unit")
            described[stream_id] = Stream(
                info["name"][0], kind, frequency=rate or None,
                fields={
                    name: Field(name, dtype=dtype, unit=unit)
                    for name, unit in zip(_labels(found), units, strict=True)
                },
                index={name: Field(text, unit="s") for name, text in index.items()},
                attrs={"id": stream_id, "type": kind, **more},
            )  # fmt: skip
        return described


def _is_fitted(times: object, where: str) -> bool:
    if times not in ("file", "fitted"):
        raise ConfigError(f"{where}: times must be 'file' or 'fitted', got {times!r}")
    return times == "fitted"


def xdf_fits(path: str | Path) -> dict[str, ClockFit]:
    """Fit the clock of each stream of an XDF file by the file's clock offsets.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict of str to ClockFit
        By the names of streams that have offsets: a stream's times, ns, to those of
        the computer that recorded the file. ``open_recordings(path, times="fitted")``
        applies them.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    RecordingError
        The file is damaged.
    """
    file = Path(path)
    return Xdf().fits(Folder(file.parent), file.stem)


def _fit_of(found: dict[str, Any], where: str) -> ClockFit:
    """Fit the clock of a stream as read without corrections."""
    if not len(found["clock_times"]):
        raise RecordingError(
            f"{where}: without clock offsets, its times cannot be fitted: read it with"
            " times='file'"
        )
    seconds, offsets = (np.array(found[k]) for k in ("clock_times", "clock_values"))
    is_good = np.isfinite(seconds) & np.isfinite(offsets)
    if not is_good.any():
        raise RecordingError(f"{where}: none of its clock offsets is a number")
    host = "the recording computer"
    return fit_offsets(_ns(seconds[is_good]), _ns(offsets[is_good]), clock=host)


def _fitted(found: dict[str, Any], where: str) -> tuple[Any, Any]:
    """Return a stream's times by the fit of its clock, and their bounds, s."""
    fit = _fit_of(found, where)
    try:
        host_ns, bound_ns = convert_in_order(fit, _ns(found["time_stamps"]))
    except ValueError as error:  # AmbiguousMatch, too
        raise RecordingError(
            f"{where}: its times cannot be fitted: {error}. Read it with times='file'"
        ) from error
    return host_ns / 1e9, bound_ns / 1e9


def _ns(seconds: Any) -> NDArray[np.int64]:
    """Return seconds as whole ns."""
    return np.rint(np.asarray(seconds, np.float64) * 1e9).astype(np.int64)


def _load(opened: OpenedFile, is_corrected: bool) -> list[dict[str, Any]]:
    file, where = opened.file, opened.shown
    if (found := file.read(4)) != b"XDF:":
        raise RecordingError(f"{where}: not XDF: begins with {found!r}")
    pyxdf = need("pyxdf", "xdf", "an XDF recording")
    end = _check_chunks(opened)
    file.seek(0)
    if end < opened.size:  # truncated: read the complete chunks
        file = io.BytesIO(file.read(end))
    try:
        streams, _ = pyxdf.load_xdf(
            file, synchronize_clocks=is_corrected, dejitter_timestamps=is_corrected,
            verbose=False,
        )  # fmt: skip
    except Exception as error:  # pyxdf may raise anything
        raise RecordingError(f"{where}: not XDF, or damaged: {error}") from error
    for stream in streams:
        _check_text(opened, stream)
    return list(streams)


# ---- declared sizes are compared with the file's, before pyxdf allocates memory

_HEADER, _SAMPLES, _CLOCK = 2, 3, 4
_WIDTHS = {
    "float32": 4, "double64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "string": 1,
}  # fmt: skip
_COUNT = re.compile(rb"<channel_count>\s*(\d{1,18})\s*</channel_count>")
_KIND = re.compile(rb"<channel_format>\s*(\w+)\s*</channel_format>")


def _check_chunks(opened: OpenedFile) -> int:
    """Raise for headers and samples that declare more than their chunks can hold.

    pyxdf trusts the declared sizes, and continues where the samples end: this must be
    the end of the chunk. Return the end of the last complete chunk of the file, which
    may be truncated.
    """
    widths: dict[int, int] = {}
    counts: dict[int, int] = {}
    kinds: dict[int, str] = {}
    declared, end = 0, 4
    for at, tag, nbytes in _chunks(opened):
        file, where = opened.file, f"{opened.shown}: chunk at byte {at}"
        end = file.tell() + nbytes
        if tag == _HEADER and nbytes >= 4:
            number = struct.unpack("<I", file.read(4))[0]
            if nbytes > FILES.text_bytes:
                raise RecordingError(f"{where}: a header of {nbytes} bytes")
            text = file.read(nbytes - 4)
            if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
                raise RecordingError(f"{where}: a header that declares entities")
            count, kind = _COUNT.search(text), _KIND.search(text)
            if count is None or kind is None:
                raise RecordingError(f"{where}: a header without channels or format")
            if len(_COUNT.findall(text)) > 1 or len(_KIND.findall(text)) > 1:
                raise RecordingError(f"{where}: a header with channels given twice")
            channels, name = int(count[1]), kind[1].decode()
            if channels > FILES.columns:
                raise RecordingError(
                    f"{where}: {channels} channels, at most {FILES.columns} are read"
                )
            if name not in _WIDTHS:
                raise RecordingError(f"{where}: channel_format {name[:40]!r}")
            widths[number] = channels * _WIDTHS[name]
            counts[number], kinds[number] = channels, name
            if len(widths) > FILES.streams:
                raise RecordingError(f"{where}: more than {FILES.streams} streams")
        elif tag == _SAMPLES and nbytes >= 5:
            head = file.read(min(nbytes, 13))
            number, size = struct.unpack_from("<IB", head)
            if size not in (1, 4, 8) or len(head) < 5 + size:
                raise RecordingError(f"{where}: samples without a count")
            samples = int.from_bytes(head[5 : 5 + size], "little")
            if number not in widths:
                raise RecordingError(f"{where}: samples of a stream without a header")
            least = samples * (1 + widths[number])
            if least > nbytes:
                raise RecordingError(
                    f"{where}: {samples} samples declared, found {nbytes} bytes"
                )
            declared += samples * (8 + widths[number])
            opened.check(declared, "the file")
            file.seek(end - nbytes + 5 + size)
            data = file.read(nbytes - 5 - size)
            width = -counts[number] if kinds[number] == "string" else widths[number]
            if _end_of(data, samples, width) != len(data):
                raise RecordingError(
                    f"{where}: damaged: {samples} samples do not end with the chunk"
                )
        elif tag in (_SAMPLES, _HEADER):
            raise RecordingError(f"{where}: damaged: {nbytes} bytes")
        elif tag == _CLOCK and (nbytes != 20 or _number(file) not in widths):
            raise RecordingError(f"{where}: damaged: offset of an unknown stream")
    return end


def _number(file: Any) -> int:
    return int.from_bytes(file.read(4), "little")


def _end_of(data: bytes, samples: int, width: int) -> int:
    """Return where samples of `width` bytes end, or of -`width` texts; -1: invalid."""
    at, most = 0, len(data)
    for _ in range(samples):
        if at >= most:
            return -1
        at += 9 if data[at] else 1
        if width >= 0:
            at += width
            continue
        for _ in range(-width):
            size = data[at] if at < most else 0
            if size not in (1, 4, 8):
                return -1
            at += 1 + size + int.from_bytes(data[at + 1 : at + 1 + size], "little")
    return at


def _chunks(opened: OpenedFile) -> Iterator[tuple[int, int, int]]:
    """Yield the begin of each chunk, its tag, and the number of bytes after it."""
    file, at = opened.file, 4
    while at < opened.size:
        file.seek(at)
        size = file.read(1)
        if size not in (b"\x01", b"\x04", b"\x08"):
            raise RecordingError(f"{opened.shown}: damaged at byte {at}: not a chunk")
        raw = file.read(size[0])
        length = int.from_bytes(raw, "little")
        begin = at + 1 + size[0]
        if len(raw) < size[0] or begin + length > opened.size:
            return
        if length < 2:
            raise RecordingError(f"{opened.shown}: damaged at byte {at}: not a chunk")
        yield at, int.from_bytes(file.read(2), "little"), length - 2
        at = begin + length


def _check_text(opened: OpenedFile, stream: dict[str, Any]) -> None:
    """Raise if padding all values to the longest text needs too much memory."""
    series = stream["time_series"]
    if isinstance(series, np.ndarray) or not len(series):
        return
    widest = max((len(value) for row in series for value in row), default=0)
    opened.check(4 * widest * len(series) * len(series[0]), "text")


def _named(streams: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return streams by name; streams with equal names by name and number."""
    names = [str(found["info"]["name"][0]) for found in streams]
    return {
        name
        if names.count(name) == 1
        else f"{name}#{found['info']['stream_id']}": found
        for name, found in zip(names, streams, strict=True)
    }


def _chosen(loaded: Mapping[str, Any], wanted: str, name: str) -> str | None:
    return next((n for n in (wanted, name) if n in loaded), None)


def _labels(found: dict[str, Any]) -> list[str]:
    """Return the labels of the channels; ch0... if the file does not label them."""
    labels = _of_channels(found, "label")
    return channel_names(len(labels), labels)


def _of_channels(found: dict[str, Any], key: str) -> list[str]:
    """Return a text of each channel; '' where it is missing."""
    info = found["info"]
    count = int(info["channel_count"][0])
    try:
        channels = info["desc"][0]["channels"][0]["channel"]
        texts = [str((channel.get(key) or [""])[0] or "") for channel in channels]
    except (TypeError, KeyError, IndexError, AttributeError):
        texts = []
    return texts if len(texts) == count else [""] * count


def _continued(stamps: Any, rate_hz: float, where: str) -> NDArray[np.float64]:
    """Return times that go on after a clock reset, so that samples keep their order.

    A step back of `_RESET_S` or more is a reset, as for pyxdf; shorter ones are not.
    """
    times: NDArray[np.float64] = np.asarray(stamps, np.float64)
    resets = np.flatnonzero(np.diff(times) <= -_RESET_S) + 1
    if not len(resets):
        return times
    step = 1 / rate_hz if rate_hz else 0.0
    moved = np.zeros(len(times))
    moved[resets] = times[resets - 1] + step - times[resets]
    warnings.warn(
        f"{where}: its clock was reset at sample {', '.join(map(str, resets[:5]))}"
        f"{' ...' if len(resets) > 5 else ''}, and no clock offset shows by how much: "
        "times continue without a gap from there, and the true gap is unknown; declare "
        f"the index {RAW!r} for the times as written",
        RuntimeWarning,
        stacklevel=2,
    )
    continued: NDArray[np.float64] = times + np.cumsum(moved)
    return continued


def _columns(found: dict[str, Any], names: list[str]) -> dict[str, NDArray[Any]]:
    series = found["time_series"]
    if isinstance(series, np.ndarray):
        whole = series.reshape(len(found["time_stamps"]), len(names))
    else:
        rows = [list(row) for row in series]
        whole = np.array(rows, "U").reshape(len(rows), len(names))
    return {name: whole[:, i] for i, name in enumerate(names)}


# ---- writing


def write_xdf(path: str | Path, recordings: Mapping[str, Recording]) -> None:
    """Write recordings as the streams of one XDF file.

    Parameters
    ----------
    path : str or Path
        The file; must not exist.
    recordings : mapping of str to Recording
        Recordings by the names of their streams. Times `t` and values are written
        exactly. XDF has times in seconds as doubles, which hold the ns up to 97 days;
        of ns since 1970 they are off by up to 128. The fields of a stream share
        one dtype; u8 to u32, bool and f16 become the next wider one that XDF has; if
        one field is text, all are.

    Raises
    ------
    ValueError
        XDF cannot hold a recording; nothing is written.
    FileExistsError
        The file exists.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.datamux import Field, Recording, Stream
    >>> stream = Stream("x", frequency=10, fields={"v": Field(dtype="i16")})
    >>> recording = Recording.of(stream, {"v": np.arange(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_xdf(f"{folder}/a.xdf", {"x": recording})
    ...     Path(f"{folder}/a.xdf").read_bytes()[:4]
    b'XDF:'
    """
    kinds = {name: _kind_of(name, rec) for name, rec in recordings.items()}
    with XdfWriter(path) as xdf:
        numbers = {
            name: xdf.stream(
                name,
                kinds[name],
                [(k, f.unit or rec.stream.unit) for k, f in rec.stream.fields.items()],
                rec.stream.rate_hz or 0,
                str(rec.stream.attrs.get("type", rec.stream.description)),
            )
            for name, rec in recordings.items()
        }
        for name, recording in recordings.items():
            # All streams have one clock: write one offset of 0.
            clock = float(recording.t[0]) if len(recording) else 0.0
            xdf.clock(numbers[name], clock)
            for at in range(0, len(recording), _CHUNK):
                block = recording.read(at, at + _CHUNK)
                columns = [*block.values.values()]
                if kinds[name] == "str":
                    rows: Any = list(zip(*(c.tolist() for c in columns), strict=True))
                else:
                    rows = np.stack(columns, 1)
                xdf.samples(numbers[name], block.t, rows)


def _kind_of(name: str, recording: Recording) -> str:
    fields = recording.stream.fields.values()
    kinds = {fitting(field.numpy_dtype) for field in fields}
    if "str" in kinds:
        kinds = {"str"}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        declared = [field.dtype for field in fields]
        raise ValueError(
            f"stream {name!r}: XDF has one dtype per stream, of "
            f"{', '.join(_FORMATS.values())}; found {declared}"
        )
    if any(field.shape for field in fields):
        raise ValueError(f"stream {name!r}: XDF cannot hold array fields")
    return kind
