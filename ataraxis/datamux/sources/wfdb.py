"""Recordings of PhysioNet: WFDB headers, signals and annotations, through ``wfdb``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.formats import files
from ataraxis.datamux.optional import need
from ataraxis.errors import RecordingError

ANNOTATOR = "annotator"


class Wfdb:
    """``wfdb://{record}``: the signals of a record, or the annotations beside it.

    A field of a float dtype has the physical value, one of an integer dtype what the
    converter gave. A stream whose attrs have ``annotator`` (``"atr"``) is the file of
    that suffix, an event stream with the fields ``symbol`` and ``sample``.
    """

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the headers, ``*.hea``."""
        return files(folder, ".hea")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the signals that are declared, or the annotations."""
        path = folder / key
        if ANNOTATOR in stream.attrs:
            return _annotations(path, str(stream.attrs[ANNOTATOR]))
        header = _header(path)
        is_physical = any(f.numpy_dtype.kind == "f" for f in stream.fields.values())
        missing = [name for name in stream.fields if name not in header.sig_name]
        if missing:
            raise RecordingError(
                f"{path}.hea: no signal {missing[0]!r}: found {header.sig_name}"
            )
        rate = stream.rate_hz
        if rate is not None and rate != header.fs:
            raise RecordingError(
                f"{path}.hea: {header.fs} Hz, and the stream declares {rate} Hz"
            )
        record = _read(path, is_physical)
        whole = record.p_signal if is_physical else record.d_signal
        columns = {name: whole[:, i] for i, name in enumerate(record.sig_name)}
        return {"t": np.arange(len(whole)) / float(record.fs), **columns}

    def describe(self, folder: Path, key: str) -> dict[str, Stream]:
        """Say which streams a record has: ``signals`` and each annotator."""
        path = folder / key
        header = _header(path)
        units = zip(header.sig_name, header.units, strict=True)
        found = {
            "signals": Stream(
                name=str(header.record_name),
                frequency=header.fs,
                fields={
                    name: Field(name, dtype="f64", unit=unit) for name, unit in units
                },
                index={"t": Field("time", unit="s")},
                attrs={"id": "signals", "comments": header.comments},
            )
        }
        for file in sorted(path.parent.glob(f"{path.name}.*")):
            if file.suffix not in (".hea", ".dat", ".xws", ".mat"):
                found[file.suffix[1:]] = Stream(
                    name=f"{header.record_name} {file.suffix[1:]}",
                    fields={
                        "symbol": Field("annotation", dtype="str"),
                        "sample": Field("sample", dtype="i64"),
                    },
                    index={"t": Field("time", unit="s")},
                    attrs={"id": file.suffix[1:], ANNOTATOR: file.suffix[1:]},
                )
        return found


def _header(path: Path) -> Any:
    if not path.with_name(f"{path.name}.hea").is_file():
        raise FileNotFoundError(2, "no such recording", f"{path}.hea")
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    try:
        return wfdb.rdheader(str(path))
    except Exception as error:  # wfdb raises whatever its parsing meets
        raise RecordingError(f"{path}.hea: not a WFDB header: {error}") from error


def _read(path: Path, is_physical: bool) -> Any:
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    try:
        return wfdb.rdrecord(str(path), physical=is_physical)
    except Exception as error:  # wfdb raises whatever its parsing meets
        raise RecordingError(f"{path}: its signals do not read: {error}") from error


def _annotations(path: Path, suffix: str) -> Mapping[str, NDArray[Any]]:
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    if not path.with_name(f"{path.name}.{suffix}").is_file():
        raise FileNotFoundError(2, "no such recording", f"{path}.{suffix}")
    header = _header(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what pandas deprecates in wfdb
            read = wfdb.rdann(str(path), suffix)
    except Exception as error:  # wfdb raises whatever its parsing meets
        raise RecordingError(
            f"{path}.{suffix}: not WFDB annotations: {error}"
        ) from error
    sample = np.asarray(read.sample, np.int64)
    symbols = np.array(read.symbol, "U") if len(sample) else np.empty(0, "U1")
    return {"t": sample / float(header.fs), "sample": sample, "symbol": symbols}
