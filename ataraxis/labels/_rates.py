"""Rates and stamps: which samples a frame holds, and the time of each.

A stream whose first dim is "time" is a stream of blocks: each frame holds samples at a
rate. The labels state the rate, and of what the stamp of a frame is.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ataraxis.labels._labels import Labels

RATES = SAMPLE_RATE, RATE = "sample_rate_hz", "rate_hz"
"""Names of the attribute of the rate of samples; the first is preferred."""
STAMP_OF = "stamp_of"
STAMPS = ("arrival", "sample", "exposure_start", "exposure_mid", "exposure_end")
DURATIONS = ("exposure_ns", "readout_ns", "line_time_ns")

# ---- what the labels state


def is_blocks(labels: Labels) -> bool:
    """Return whether frames are blocks of samples: the first dim is "time".

    Examples
    --------
    >>> from ataraxis.labels import Labels, is_blocks
    >>> is_blocks(Labels("i2", (200, 32), ("time", "channel")))
    True
    """
    return labels.dims[:1] == ("time",)


def samples_per_frame(labels: Labels) -> int:
    """Return the samples of a whole frame: the length of a block, else 1."""
    return labels.shape[0] if is_blocks(labels) else 1


def given_rate(attrs: Mapping[str, Any]) -> Any:
    """Return the rate of samples as it was given, under either name; else None."""
    return attrs.get(SAMPLE_RATE, attrs.get(RATE))


def sample_rate(labels: Labels | Mapping[str, Any]) -> float | None:
    """Return the samples per second that labels, or their attrs, state.

    It is the attribute ``sample_rate_hz``, or ``rate_hz`` where that stands alone.

    Returns
    -------
    float or None
        Hz; None without a rate above 0.

    Examples
    --------
    >>> from ataraxis.labels import sample_rate
    >>> sample_rate({"rate_hz": 20000})
    20000.0
    >>> sample_rate({"sample_rate_hz": 20000, "rate_hz": 100})
    20000.0
    """
    attrs = labels.attrs if isinstance(labels, Labels) else labels
    return _positive(given_rate(attrs))


def frame_rate(
    labels: Labels | Mapping[str, Any], samples: int | None = None
) -> float | None:
    """Return the frames per second that labels, or their attrs, state.

    Parameters
    ----------
    labels : Labels or mapping
        With both ``sample_rate_hz`` and ``rate_hz``, the latter is of frames; with one
        of them, it is the rate of samples.
    samples : int, optional
        Samples per frame; by default those of a whole frame of `labels`, or 1.

    Returns
    -------
    float or None
        Hz; None without a rate above 0.

    Examples
    --------
    >>> from ataraxis.labels import Labels, frame_rate
    >>> block = Labels("i2", (200, 32), ("time", "channel"), attrs={"rate_hz": 20000})
    >>> frame_rate(block)
    100.0
    """
    attrs = labels.attrs if isinstance(labels, Labels) else labels
    if SAMPLE_RATE in attrs and (frames := _positive(attrs.get(RATE))) is not None:
        return frames
    if samples is None:
        samples = samples_per_frame(labels) if isinstance(labels, Labels) else 1
    rate = sample_rate(attrs)
    return rate / samples if rate is not None and samples > 0 else None


def stamp_of(labels: Labels | Mapping[str, Any]) -> str:
    """Return of what the time of a frame is: the attribute ``stamp_of``.

    Returns
    -------
    str
        ``arrival``, the default: of the frame when it arrived, so of its last sample.
        ``sample``: of its first sample. ``exposure_start``, ``exposure_mid``,
        ``exposure_end``: of that moment of its first image's exposure.

    Raises
    ------
    ValueError
        The attribute has another value.

    Examples
    --------
    >>> from ataraxis.labels import stamp_of
    >>> stamp_of({}), stamp_of({"stamp_of": "sample"})
    ('arrival', 'sample')
    """
    attrs = labels.attrs if isinstance(labels, Labels) else labels
    found = attrs.get(STAMP_OF, STAMPS[0])
    if found in STAMPS:
        return str(found)
    close = difflib.get_close_matches(str(found), STAMPS, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"attrs[{STAMP_OF!r}] must be one of {', '.join(STAMPS)}, got {found!r}{hint}"
    )


def check_times(labels: Labels) -> None:
    """Raise `ValueError` if an attribute of rates, stamps or exposures is wrong.

    ``sample_rate_hz`` and ``rate_hz`` are numbers of 0 (unknown) or more;
    ``exposure_ns``, ``readout_ns`` and ``line_time_ns`` are integers of 0 or more.
    """
    stamp_of(labels)
    for name in RATES:
        rate = labels.attrs.get(name, 0)
        is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not is_number or not 0 <= rate < math.inf:
            raise ValueError(f"attrs[{name!r}] must be a rate in Hz, got {rate!r}")
    for name in DURATIONS:
        duration = labels.attrs.get(name, 0)
        is_integer = isinstance(duration, int) and not isinstance(duration, bool)
        if not is_integer or duration < 0:
            raise ValueError(
                f"attrs[{name!r}] must be an integer of 0 or more, ns, got {duration!r}"
            )


def _positive(rate: Any) -> float | None:
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    return float(rate) if is_number and 0 < rate < math.inf else None


# ---- times of samples


def sample_times(
    time_ns: ArrayLike,
    counts: ArrayLike,
    rate: float | None,
    stamp_of: str = "arrival",
) -> NDArray[np.int64]:
    """Return the time of each sample of frames.

    Parameters
    ----------
    time_ns : int64, shape (n,)
        Stamp of each frame, ns.
    counts : int, or int array of shape (n,)
        Samples of each frame.
    rate : float or None
        Samples per second; None if no frame has more than one.
    stamp_of : str
        Of what the stamps are, as `stamp_of` returns it. Sample `i` of a block of `m`
        with the stamp `t` has the time ``t - (m - 1 - i) / rate`` for 'arrival', and
        ``t + i / rate`` for the others.

    Returns
    -------
    int64 array, shape (total,)
        Times, ns. Each distance to the stamp is exact, rounded once to the nearest ns
        (halves up), so that it does not drift along a block. `rate` is taken as the
        decimal number that it is shown as.

    Raises
    ------
    ValueError
        A frame has several samples and there is no rate, or an argument does not fit.

    Examples
    --------
    >>> from ataraxis.labels import sample_times
    >>> sample_times([1000, 2000], [3, 1], 1e7)
    array([ 800,  900, 1000, 2000])
    >>> sample_times([1000, 2000], 2, 1e7, "sample")
    array([1000, 1100, 2000, 2100])
    """
    stamps = np.asarray(time_ns, np.int64)
    lengths = np.asarray(counts, np.int64)
    if stamps.ndim != 1 or lengths.shape not in ((), stamps.shape):
        raise ValueError(
            f"time_ns has shape {stamps.shape} and counts {lengths.shape}: give one "
            "stamp and one count a frame, or one count for all"
        )
    if stamp_of not in STAMPS:
        raise ValueError(
            f"stamp_of must be one of {', '.join(STAMPS)}, got {stamp_of!r}"
        )
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"counts must be 0 or more, got {lengths.min()}")
    most = int(lengths.max()) if lengths.size and stamps.size else 0
    if most <= 1:
        return stamps.repeat(lengths)
    if rate is None or not 0 < rate < math.inf:
        raise ValueError(
            f"a frame has {most} samples and the rate is {rate}: without "
            f"attrs[{SAMPLE_RATE!r}] the samples of a block have no times"
        )
    steps = _distances(float(rate), most)
    is_first = stamp_of != "arrival"
    times: NDArray[np.int64]
    if lengths.ndim == 0:
        times = stamps[:, None] + (steps if is_first else -steps[::-1])
        return times.reshape(-1)
    ends = lengths.cumsum()
    place = np.arange(int(ends[-1])) - (ends - lengths).repeat(lengths)
    times = stamps.repeat(lengths)
    if is_first:
        times += steps[place]
    else:
        times -= steps[lengths.repeat(lengths) - 1 - place]
    return times


_KEPT = 1 << 16


def _distances(rate: float, count: int) -> NDArray[np.int64]:
    """Return the times of samples 0 to count - 1 after sample 0, ns."""
    if count > _KEPT:
        return _computed(rate, count)
    return _kept(rate, 1 << (count - 1).bit_length())[:count]


def _computed(rate: float, count: int) -> NDArray[np.int64]:
    period = 10**9 / Fraction(repr(rate))
    over, under = 2 * period.numerator, 2 * period.denominator
    # The nearest integer to k * period is (over * k + under / 2) // under.
    if over * count + under < 1 << 63:
        return (np.arange(count) * over + under // 2) // under
    found = (np.arange(count, dtype="O") * over + under // 2) // under
    return found.astype(np.int64)


@lru_cache(16)
def _kept(rate: float, count: int) -> NDArray[np.int64]:
    found = _computed(rate, count)
    found.flags.writeable = False
    return found
