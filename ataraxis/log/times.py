"""Times: the stamps of a source as wall time, and which entries are of a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame

if TYPE_CHECKING:
    from ataraxis.log.selection import LogSource, Selection

NOT_A_TIME = np.iinfo(np.int64).min
_LAST, _FIRST = 2**63 - 1, -(2**63)
_ONSETS_US = 10**15, 4 * 10**15
_ONSET_BYTES = 8
_LOOKED_AT = 64


class Times:
    """What the times of a source mean.

    A stamp becomes wall time by adding one number for each session: what the session's
    anchor says, or the onset of an npy log. So differences are exactly those of the
    stamps, and a wall clock that was corrected in between does not fold them.

    Parameters
    ----------
    source : LogSource
        The log.
    number : int
        Of the source.
    onset_us : int, optional
        Onset of an npy log, UTC microseconds; looked for, if not given: an entry of
        stamp 0 whose 8 bytes are microseconds of this century.
    """

    def __init__(
        self, source: LogSource, number: int, onset_us: int | None = None
    ) -> None:
        self._source, self.number, self.unit = source, number, source.unit
        self.onsets: list[int] = []
        """Onsets that were found, UTC microseconds."""
        self._behind: NDArray[np.int64] = np.empty(0, np.int64)
        shifts: list[int | None]
        if self.unit == "us":
            self._find_onsets()
            is_one = len(set(self.onsets)) == 1
            if onset_us is None and is_one:
                onset_us = self.onsets[0]
            shifts = [onset_us]
        else:
            shifts = list(source.shifts_ns(number))
        self._shifts = sorted({shift for shift in shifts if shift is not None})
        self._scale = 1000 if self.unit == "us" else 1
        self.dtype = self._dtype()
        """datetime64[ns]; timedelta64[ns] if nobody knows the wall time; uint64 if the
        stamps are no microseconds."""

    def _dtype(self) -> np.dtype[Any]:
        if self.unit == "us":
            # Stamps lie in memory.
            found = self._source.select(self.number).time
            most = int(found.max()) if len(found) else 0
            if (most + max(self._shifts, default=0)) * 1000 > _LAST:
                return np.dtype("u8")
        return np.dtype("M8[ns]" if self._shifts else "m8[ns]")

    def _find_onsets(self) -> None:
        found = self._source.select(self.number, 0, 1)
        behind = []
        for number in found.numbers[:_LOOKED_AT].tolist():
            try:
                payload = self._source.frame(number).payload
            except CorruptFrame:
                continue
            onset = int.from_bytes(payload, "little")
            if len(payload) == _ONSET_BYTES and _ONSETS_US[0] <= onset < _ONSETS_US[1]:
                self.onsets.append(onset)
                behind.append(number)
        self._behind = np.array(behind, np.int64)

    def without_onset(self, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take the onsets out of the entries of the source."""
        for number in self._behind.tolist():
            k = int(np.searchsorted(ranges[:, 0], number, "right")) - 1
            first, last = ranges[k].tolist()
            parts = np.array([[first, number], [number + 1, last]], np.int64)
            parts = parts[parts[:, 0] < parts[:, 1]]
            ranges = np.concatenate([ranges[:k], parts, ranges[k + 1 :]])
        return ranges

    @property
    def attrs(self) -> dict[str, Any]:
        """What xarray is to say of them."""
        if self.dtype.kind == "u":
            return {"long_name": "stamp, as its source gave it"}
        if self.dtype.kind == "m":
            said = {"long_name": "time since the machine started"}
            if self.unit == "us":
                said = {"long_name": "time since the onset, which nobody recorded"}
            return {**said, **self._several()}
        said = {"long_name": "wall time: stamps, counted from one anchor a session"}
        if self.unit == "us":
            said = {"long_name": "wall time: stamps, counted from the onset"}
        return said

    def _several(self) -> dict[str, Any]:
        return {"onsets_us": self.onsets} if len(self.onsets) > 1 else {}

    def of(self, found: Selection) -> NDArray[Any]:
        """Return the times of some entries, (n,), of `dtype`."""
        if self.dtype.kind == "u":
            stamps = self._source.device_stamps(found)
            if stamps is None:
                return np.empty(0, np.uint64)
            return stamps[:, 0].copy().view(np.uint64)
        if self.unit == "us":
            shift = self._shifts[0] if self._shifts else 0
            return ((found.time + shift) * 1000).view(self.dtype)
        shifted = self._source.wall_ns(found) if self._shifts else None
        if shifted is None:
            shifted = found.time.copy()
        return shifted.view(self.dtype)

    def between(self, start: int | None, stop: int | None) -> NDArray[np.int64]:
        """Number the entries whose time is from `start` to before `stop`, in order.

        Only those parts of the log are looked at that may have some.
        """
        parts = []
        for shift in self._shifts or [0]:
            low, high = (
                None if bound is None else _clipped(-(-bound // self._scale) - shift)
                for bound in (start, stop)
            )
            if self.dtype.kind == "u":
                low, high = start, stop
            parts.append(self._source.select(self.number, low, high))
        if len(parts) == 1:
            return parts[0].numbers
        kept = []
        for part in parts:
            own = self.of(part).view(np.int64)
            good = own != NOT_A_TIME
            if start is not None:
                good &= own >= start
            if stop is not None:
                good &= own < stop
            kept.append(part.numbers[good])
        return np.unique(np.concatenate(kept))


def by_anchors(
    anchors: Sequence[Anchor], times: NDArray[np.int64], log: str
) -> NDArray[np.datetime64]:
    """Turn monotonic times into wall times, each by the last anchor before it."""
    if not anchors:
        raise ValueError(f"{log} says of no time what wall time it was")
    boots = {(anchor.host, anchor.boot_id) for anchor in anchors}
    if len(boots) > 1:
        raise ValueError(
            f"{log} was written in {len(boots)} boots, each with a monotonic clock of "
            "its own: the wall times of its entries are the 'time' of "
            "xarray.open_dataset(path, engine='ataraxis')"
        )
    ordered = sorted(anchors, key=lambda anchor: anchor.monotonic_ns)
    starts = np.array([anchor.monotonic_ns for anchor in ordered])
    shifts = np.array([anchor.wall_ns for anchor in ordered]) - starts
    at = np.maximum(np.searchsorted(starts, times, "right") - 1, 0)
    return np.asarray(times + shifts[at], "i8").astype("M8[ns]")


def _clipped(value: int) -> int:
    return min(max(value, _FIRST), _LAST)
