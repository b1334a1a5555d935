"""Fits of the clocks of sources, kept beside their data in the folder ``fits``.

A fit says which host time each sample had. Stamps are never changed by it.
"""

from __future__ import annotations

import json
import os
import secrets
import warnings
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import ClockFit, fit_arrivals
from ataraxis.labels import sample_rate
from ataraxis.log.device import BITS_OF_TIME, COUNTER, PER_S, UNITS
from ataraxis.log.sample_axis import (
    LATENCY,
    FrameTimes,
    fit_samples,
    latency_of,
    thinned,
)
from ataraxis.log.selection import Selection
from ataraxis.log.series import Series

FOLDER = "fits"
POSITIONS, DEVICE_TIME = "positions", "device_time"
NUMBERS = "device_sequence", "sequence"
"""Of frames: by the counter of the device, or by that of the sender."""
_MOST_BYTES = 1 << 26
_KEPT = 20_000
_ARRAYS = ("residuals", "ticks", "used", "partners")


@dataclass(frozen=True)
class SourceFit:
    """The fit of one source."""

    fit: ClockFit
    """Host time of its ticks."""
    of: str
    """What the ticks are: ``positions`` of samples, ``device_time``, or the numbers of
    frames, ``device_sequence`` or ``sequence``."""
    entries: int
    """How many entries of the source it was made from."""

    @property
    def summary(self) -> str:
        """What it claims, in one line."""
        worst = max(int(part.bound_ns.max()) for part in self.fit.segments)
        parts = len(self.fit.segments)
        text = f"fitted from {self.fit.kind}, within {worst / 1000:.3g} us"
        if parts > 1:
            text += f", in {parts} segments"
        if not self.fit.is_absolute:
            is_own = self.of not in NUMBERS
            whose = "its device" if is_own else "the device that recorded them"
            text += f"; the fixed delay of {whose} is unknown"
        return text


# ---- making one


def fit_series(
    series: Series, latency_ms: tuple[float, float] | None = None
) -> SourceFit:
    """Fit a source: positions of its samples, or its device's times, to its stamps.

    `latency_ms` is the least and largest fixed delay of its device; by default as its
    labels declare it.

    Raises
    ------
    ValueError
        It has neither samples at a rate nor device times of a known unit, or its stamps
        cannot be fitted.
    """
    return fit_of_frames(series, frames_of(series), latency_ms)


def fit_of_frames(
    series: Series,
    frames: FrameTimes,
    latency_ms: tuple[float, float] | None = None,
) -> SourceFit:
    """Fit a source, given the times of all its entries."""
    attrs = series.attrs
    if latency_ms is not None:
        attrs = {**attrs, LATENCY: list(latency_ms)}
    if series.is_blocks:
        positions = frames.positions(sample_rate(attrs), attrs)
        try:
            return SourceFit(
                fit_samples(frames, positions, attrs), POSITIONS, len(frames)
            )
        except ValueError as error:
            raise ValueError(f"{series.title}: {error}") from error
    unit = PER_S.get(str(attrs.get(UNITS)))
    if frames.device is None or unit is None:
        raise ValueError(
            f"{series.title} has no device times of a known unit, and no blocks of "
            "samples: its times are those of arrival. Declare "
            f"attrs[{UNITS!r}] and send device_time="
        )
    rows = thinned(frames.rows)
    bits = attrs.get(BITS_OF_TIME)
    made = fit_arrivals(
        frames.device[rows, 0], frames.time_ns[rows],
        unit_ns=Fraction(10**9, unit), bits=None if bits is None else int(bits),
        latency_ms=latency_of(attrs),
    )  # fmt: skip
    return SourceFit(made, DEVICE_TIME, len(frames))


def frames_of(series: Series, rows: int | None = None) -> FrameTimes:
    """Return the times of all entries of a source, or of its first `rows`.

    Reads their headers, not their payloads.
    """
    whole = series.whole(rows)
    found = whole.pick(slice(None))
    wall = series.source.wall_ns(found)
    known = found.known
    shift: NDArray[np.int64] | int = 0
    if wall is not None:
        shift = wall - found.time
        if known is not None and known.any():
            # Of a damaged header the shift is that of the entry before.
            last = np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))
            shift = shift[np.where(known[last], last, np.flatnonzero(known)[0])]
    is_numbered = series.source.is_numbered(series.number)
    counts = whole.blocks().counts if series.is_blocks else np.ones(len(whole), "i8")
    device = None
    if series.has_device and known is None:
        device = series.source.device_stamps(found)
    sequence = _continued(series, found) if is_numbered else None
    return FrameTimes(
        counts, found.time, sequence, device, shift, known,
        series.shape[0] if series.is_blocks else 1,
    )  # fmt: skip


def _continued(series: Series, found: Selection) -> NDArray[np.uint64]:
    """Return sequence numbers that go on where another stream of the name begins.

    Nothing is known to be missing between two streams.
    """
    parts = series.source.parts(series.number)
    if len(parts) < 2:
        return found.sequence
    part_of = np.zeros(len(found), np.int64)
    for k, part in enumerate(parts):
        for low, high in np.searchsorted(found.numbers, part.ranges).tolist():
            part_of[low:high] = k
    rows = np.arange(len(found))
    if found.known is not None:
        rows = np.flatnonzero(found.known)
    own = found.sequence[rows].astype(np.int64)
    is_first = np.diff(part_of[rows], prepend=part_of[rows[:1]]) != 0
    steps = np.diff(own, prepend=own[:1])
    sequence = found.sequence.copy()
    shift = np.cumsum(np.where(is_first, 1 - steps, 0))
    sequence[rows] = (own + shift).view(np.uint64)
    return sequence


# ---- numbers of frames


def kind_of_numbers(series: Series, frames: FrameTimes) -> str:
    """Return by which of `NUMBERS` the frames of a source are counted.

    By the device's counter, if its labels declare one of frames, or declare nothing
    and it increases.

    Raises
    ------
    ValueError
        Frames have no numbers, or a damaged header hides them.
    """
    counter, device = series.attrs.get(COUNTER), frames.device
    if counter == "frames" and device is None:
        raise ValueError(
            f"not every entry of {series.title} has an intact device_sequence, which "
            "counts its frames"
        )
    if device is not None and (
        counter == "frames" or (counter is None and (np.diff(device[:, 1]) > 0).all())
    ):
        return NUMBERS[0]
    if frames.sequence is None:
        raise ValueError(f"the frames of {series.title} have no numbers")
    return NUMBERS[1]


def numbers_of(frames: FrameTimes, of: str) -> NDArray[np.int64]:
    """Return the number of each frame, (n,), by one of `NUMBERS`.

    That of a damaged header follows that of the frame before.

    Raises
    ------
    ValueError
        Not every frame has one.
    """
    if of == NUMBERS[0]:
        if frames.device is None:
            raise ValueError("not every frame has an intact device_sequence")
        return frames.device[:, 1]
    if frames.sequence is None:
        raise ValueError("the frames have no sequence numbers")
    numbers = frames.sequence.astype(np.int64)
    rows = frames.rows
    if len(rows) in (0, len(frames)):
        return numbers
    every = np.arange(len(frames))
    last = rows[np.maximum(np.searchsorted(rows, every, "right") - 1, 0)]
    return np.asarray(numbers[last] + every - last)


# ---- on disk


def path_of(directory: Path, name: str) -> Path:
    """Return the file of the fit of a source of a log in a directory."""
    return directory / FOLDER / f"{quote(name, safe='')}.npz"


def save_fit(directory: Path, name: str, made: SourceFit) -> Path:
    """Write the fit of a source beside its data; an older one is replaced.

    At most 20,000 residuals are kept, evenly spread.
    """
    tree = made.fit.as_dict()
    for key in _ARRAYS:
        tree[key] = []
    text = json.dumps({"fit": tree, "of": made.of, "entries": made.entries})
    every = max(1, -(-len(made.fit.residuals) // _KEPT))
    arrays = {
        key: np.asarray(getattr(made.fit, key))[::every]
        for key in _ARRAYS
        if len(getattr(made.fit, key))
    }
    path = path_of(directory, name)
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(8)}.npz")
    try:
        with open(new, "wb") as file:
            arrays["fit"] = np.frombuffer(text.encode(), "u1")
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return path


def load_fit(directory: Path, name: str) -> SourceFit | None:
    """Return the fit that is kept of a source; None without one.

    A file that is not valid is left aside, with a warning.
    """
    path = path_of(directory, name)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            tree = json.loads(bytes(found["fit"]))
            fit = {**tree["fit"]}
            for key in _ARRAYS:
                fit[key] = found.get(key, [])
            made = ClockFit.from_dict(fit)
            return SourceFit(made, str(tree["of"]), int(tree["entries"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (
        OSError, ValueError, KeyError, TypeError, IndexError, AttributeError,
        OverflowError, ZeroDivisionError, EOFError, RecursionError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        warnings.warn(
            f"{path} is not a fit ({type(error).__name__}: {error}): it is left aside; "
            "'ataraxis fit' makes it again",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
