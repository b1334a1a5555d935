"""What a file or folder of recordings holds, a line a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.datamux.formats import open_recordings
from ataraxis.datamux.recording import Recording, UniformTimes

_PIECE = 1 << 20
# Two samples are a gap apart if it is so many times the interval of their rate.
_GAP = 1.5


@dataclass(frozen=True)
class StreamSummary:
    """What is known of one stream without reading its values."""

    name: str
    """Name of the stream."""
    samples: int
    """How many samples, or events."""
    rate_hz: float | None
    """Samples a second; None for events."""
    dtype: str
    """dtype, or the dtypes of the fields if they differ."""
    shape: tuple[int, ...]
    """Shape of a sample."""
    fields: tuple[str, ...]
    """Names of the fields."""
    unit: str
    """Unit, or the units of the fields if they differ."""
    first_s: float | None
    """Time of the first sample, s; None if there is none."""
    last_s: float | None
    """Time of the last sample, s; None if there is none."""
    gaps: int
    """How many times consecutive samples are further apart than 1.5 intervals."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "shape": [*self.shape], "fields": [*self.fields]}


def summarize(path: str | Path) -> list[StreamSummary]:
    """Return what each stream of a file or folder holds.

    Parameters
    ----------
    path : str or Path
        A recording that `open_recordings` opens.

    Raises
    ------
    FileNotFoundError, RecordingError, ValueError
        As `open_recordings`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/x.npz", sample_rate_hz=100, v=np.zeros(50, "i2"))
    ...     (found,) = summarize(f"{folder}/x.npz")
    >>> found.name, found.samples, found.rate_hz, found.dtype, found.last_s
    ('x', 50, 100.0, 'i16', 0.49)
    """
    return [_summary(name, each) for name, each in open_recordings(path).items()]


def _summary(name: str, recording: Recording) -> StreamSummary:
    stream = recording.stream
    fields = stream.fields.values()
    shapes = {tuple(field.shape) for field in fields}
    shape = next(iter(shapes)) if len(shapes) == 1 else ()
    if len(stream.fields) != 1:
        shape = (len(stream.fields), *shape)
    n = len(recording)
    return StreamSummary(
        name, n, stream.rate_hz, _joined(field.dtype for field in fields), shape,
        tuple(stream.fields), _joined(field.unit or stream.unit for field in fields),
        float(recording.times[0]) if n else None,
        float(recording.times[n - 1]) if n else None,
        _gaps(recording),
    )  # fmt: skip


def _joined(texts: Any) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _gaps(recording: Recording) -> int:
    """Count the gaps; a million times are read at a time."""
    rate, times = recording.stream.rate_hz, recording.times
    if not rate or isinstance(times, UniformTimes):
        return 0
    return sum(
        int((np.diff(times[at : at + _PIECE + 1]) > _GAP / rate).sum())
        for at in range(0, len(times), _PIECE)
    )
