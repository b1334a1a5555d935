"""What a consumer receives, as arrays and values: many frames at once, or one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.consumer import (
    EMPTY,
    ENDED,
    OVERFLOW,
    TIMEOUT,
    ConsumerHandle,
    Frame,
)
from ataraxis.errors import CorruptFrame, ReleasedBuffer
from ataraxis.frame import crc32
from ataraxis.labels import Labels
from ataraxis.stream._codes import RAW, STR, dtype_of
from ataraxis.stream._end import End

if TYPE_CHECKING:
    import xarray as xr
    from typing_extensions import Buffer


class Rows(End, ConsumerHandle):
    """Frames as rows of one array, and what one frame means; a half of `Consumer`."""

    _labels: Labels
    _slots: int

    def read(
        self,
        n: int,
        out: NDArray[Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> NDArray[Any]:
        """Receive `n` frames into one array, in one call.

        Parameters
        ----------
        n : int
            How many.
        out : ndarray, optional
            Filled and returned, shape ``(n, *shape)``, C-contiguous, of the stream's
            dtype.
        timeout : float or None
            Longest wait for the next frame, s.

        Returns
        -------
        ndarray
            Shape ``(n, *shape)``, a copy; fewer rows if the stream ended or the wait
            was cancelled.

        Raises
        ------
        EndOfStream
            The stream ended and everything was read.
        TimeoutError
            Not a single frame within `timeout`; with some, these are returned.
        """
        labels = self._labels
        shape = (n, *labels.shape)
        if out is None:
            out = np.empty(shape, labels.dtype)
        elif out.shape != shape or out.dtype != labels.dtype or not out.flags.carray:
            raise ValueError(
                f"out must be C-contiguous and writable, {labels.dtype} {shape}; it is "
                f"{out.dtype} {out.shape}"
            )
        self._attached()
        done, status = self._read_into(out, None, 0, timeout)
        if done < n:
            self._explain_short(done, status)
        return out[:done]

    def _explain_short(self, done: int, status: int) -> None:
        """Raise if nothing was read, or if a frame of another size is next."""
        if status == OVERFLOW and not done:
            raise ValueError(
                f"stream {self._name!r}: the next frame is not of the stream's shape "
                f"{self._labels.shape}: receive() it"
            )
        if not done and status in (ENDED, TIMEOUT, EMPTY):
            self._fail(TIMEOUT if status == EMPTY else status)

    def latest(self, n: int | float = 1) -> NDArray[Any]:
        """Copy the newest frames that are in the ring, whatever was received.

        Parameters
        ----------
        n : int or float
            How many frames; a float is seconds, by the stream's ``attrs["rate_hz"]``.

        Returns
        -------
        ndarray
            Shape ``(up to n, *shape)``, oldest first; a copy.
        """
        return self._newest(n)[0]

    def _newest(self, n: int | float) -> tuple[NDArray[Any], NDArray[np.int64]]:
        self._attached()
        if isinstance(n, float):
            rate = self._labels.attrs.get("rate_hz")
            if not rate:
                raise ValueError(
                    f"{n} s of stream {self._name!r}: it has no attrs['rate_hz']; give "
                    "the number of frames, an int"
                )
            n = max(1, math.ceil(n * rate))
        rows = min(int(n), self._slots)
        out = np.empty((rows, *self._labels.shape), self._labels.dtype)
        times = np.empty(rows, np.int64)
        count = self._latest_into(out, times)
        return out[rows - count :], times[rows - count :]

    def to_xarray(self, n: int | float) -> xr.DataArray:
        """Return the newest frames with labels and a time coordinate.

        Parameters
        ----------
        n : int or float
            As for `latest`: frames, or seconds.

        Returns
        -------
        xarray.DataArray
            Dims ``("time", *dims)``; coordinate "time", monotonic ns, int64. A copy.
        """
        import xarray as xr

        data, times = self._newest(n)
        frame = self._labels.to_xarray(np.zeros(self._labels.shape, self._labels.dtype))
        coords: dict[Any, Any] = dict(frame.coords.items())
        dim = "time" if "time" not in frame.dims else "frame_time"
        coords[dim] = (dim, times, {"units": "ns", "long_name": "monotonic time"})
        return xr.DataArray(data, coords, (dim, *frame.dims), self._name, frame.attrs)

    # ---- what the kernel asks for

    def _dtype_of(self, code: int) -> np.dtype[Any]:
        return dtype_of(code)

    def _over(self, frame: Frame) -> NoReturn:
        raise ReleasedBuffer("the frame was released: keep it as long as you need it")

    def _corrupt(self, frame: Frame) -> NoReturn:
        raise CorruptFrame(
            f"stream {self._name!r}: a frame of {frame.nbytes} bytes says its dtype is "
            f"{frame._code} and its shape {frame._shape}"
        )

    def _compare(self, frame: Frame, data: Buffer, expected: int) -> None:
        """Compare the bytes after a frame's header with its checksum."""
        found = crc32(data)
        if found != expected:
            raise CorruptFrame(
                f"stream {self._name!r}, frame {frame.sequence}: its checksum says "
                f"{expected:#010x}, its bytes {found:#010x}: somebody wrote into it "
                "after it was sent"
            )

    def _value(self, frame: Frame) -> Any:
        if frame._code == STR:
            return frame.read().decode()
        if frame._code == RAW:
            return frame[:]
        array = frame.array
        return array if array.ndim else array[()]

    def _to_xarray(self, frame: Frame) -> xr.DataArray:
        import xarray as xr

        array = frame.array
        if array.shape == self._labels.shape and array.dtype == self._labels.dtype:
            result = self._labels.to_xarray(array)
        else:
            result = xr.DataArray(array)
        return result.assign_coords(
            time=((), frame.time_ns), sequence=((), frame.sequence)
        )
