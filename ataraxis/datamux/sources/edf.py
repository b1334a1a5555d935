"""EEG in EDF, EDF+, BDF and BDF+, through ``edfio``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream, unique_names
from ataraxis.datamux.folder import Folder, SuffixFormat
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

ANNOTATIONS = "annotations"
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)")


class Edf(SuffixFormat):
    """``edf://{session}`` and ``bdf://{session}``: signals and annotations.

    The signals of one rate make a stream, annotations another.
    Signals are named ``signals``, or ``signals_256hz`` where a file has several rates.
    A float field has the physical value in the header's unit, an integer field the
    stored one. Times count from the file's start.
    """

    suffix = ".edf"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one stream."""
        found, where = self._open(folder, key)
        if stream_id == ANNOTATIONS or stream.attrs.get("edf") == ANNOTATIONS:
            return _annotations(found)
        names = _names(found)
        missing = [name for name in stream.fields if name not in names]
        if missing:
            raise RecordingError(f"{where}: no signal {missing[0]!r}: found {[*names]}")
        chosen = {name: names[name] for name in stream.fields}
        rates = {signal.sampling_frequency for signal in chosen.values()}
        if len(rates) > 1:
            raise RecordingError(
                f"{where}: the fields {[*chosen]} have {sorted(rates)} Hz: declare a "
                "stream for each rate"
            )
        if not chosen:
            return {}
        each = next(iter(chosen.values())).samples_per_data_record
        is_stored = all(f.numpy_dtype.kind in "iu" for f in stream.fields.values())
        columns = {
            name: np.array(signal.digital if is_stored else signal.data)
            for name, signal in chosen.items()
        }
        count = len(next(iter(columns.values())))
        rate = float(rates.pop())
        return {stream.time: _times(found, count, each, rate, where), **columns}

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a file."""
        found, _ = self._open(folder, key)
        names = _names(found)
        rates = list(dict.fromkeys(s.sampling_frequency for s in names.values()))
        described = {}
        for rate in rates:
            name = "signals" if len(rates) == 1 else f"signals_{rate:g}hz"
            described[name] = Stream(
                name, frequency=float(rate),
                fields={
                    own: Field(own, signal.transducer_type, "f64", _unit(signal))
                    for own, signal in names.items()
                    if signal.sampling_frequency == rate
                },
                index={"t": Field("time", unit="s")}, attrs={"id": name},
            )  # fmt: skip
        if len(found.annotations):
            fields = {
                "text": Field("annotation", dtype="str"),
                "duration": Field("duration; NaN: none", dtype="f64", unit="s"),
            }
            described[ANNOTATIONS] = Stream(
                ANNOTATIONS, fields=fields, index={"t": Field("onset", unit="s")},
                attrs={"id": ANNOTATIONS, "edf": ANNOTATIONS},
            )  # fmt: skip
        return described

    def _open(self, folder: Folder, key: str) -> tuple[Any, str]:
        name = f"{key}{self.suffix}"
        if not folder.is_there(name):
            raise folder.not_there(name)
        edfio = need("edfio", "edf", "an EDF or BDF recording")
        with folder.opened(name) as opened:
            opened.check(opened.size * 6, "the header")  # 16 or 24 bits become 64
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about fields of the patient
                try:
                    if self.suffix == ".bdf":
                        found = edfio.read_bdf(opened.file)
                    else:
                        found = edfio.read_edf(opened.file, lazy_load_data=False)
                    found.annotations  # noqa: B018  (decoded when asked for)
                except Exception as error:  # edfio raises several kinds
                    raise RecordingError(
                        f"{opened.shown}: not {self.suffix[1:].upper()}, or damaged: "
                        f"{type(error).__name__}: {error}"
                    ) from error
            return found, opened.shown


def _names(found: Any) -> dict[str, Any]:
    signals = [*found.signals]
    return dict(zip(unique_names([s.label for s in signals]), signals, strict=True))


def _unit(signal: Any) -> str:
    unit = str(signal.physical_dimension)
    return "uV" if unit in ("\u00b5V", "\u03bcV") else unit


def _annotations(found: Any) -> dict[str, NDArray[Any]]:
    notes = [*found.annotations]
    none = float("nan")
    return {
        "t": np.array([note.onset for note in notes], "f8"),
        "text": np.array([note.text for note in notes], "U"),
        "duration": np.array(
            [none if note.duration is None else note.duration for note in notes], "f8"
        ),
    }


def _times(
    found: Any, count: int, each: int, rate: float, where: str
) -> NDArray[np.float64]:
    """Return times, s; in a discontinuous file (EDF+D) each record has its onset."""
    if found.is_continuous:
        return np.arange(count) / rate
    keeper = found._timekeeping_signal  # noqa: SLF001  (edfio does not offer it)
    kept = np.asarray(keeper.digital).tobytes()
    width = len(kept) // max(1, found.num_data_records)
    onsets = []
    for record in range(found.num_data_records):
        onset = _ONSET.match(kept, record * width)
        if onset is None:
            raise RecordingError(f"{where}: record {record} has no onset")
        onsets.append(float(onset[1]))
    within = np.arange(each) / rate
    return (np.array(onsets)[:, np.newaxis] + within).ravel()[:count]
