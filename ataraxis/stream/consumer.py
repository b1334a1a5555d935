"""Consumer: the end of a stream that receives."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import snapshot
from ataraxis._kernels.consumer import (
    DAMAGED,
    EMPTY,
    ENDED,
    OK,
    OVERFLOW,
    TIMEOUT,
    ConsumerHandle,
    Frame,
)
from ataraxis.errors import CorruptFrame, ReleasedBuffer
from ataraxis.frame import crc32
from ataraxis.labels import Labels
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.waiting import NOTHING, STREAM_DATA, Descriptor, EventWord, until
from ataraxis.stream.endpoint import (
    RAW,
    STR,
    SYNC,
    TYPED,
    Endpoint,
    check_timeout,
    dtype_of,
    plain_name,
    register_durable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import xarray as xr
    from typing_extensions import Buffer


# ---- the consumer


class FrameEvent(EventWord):
    """A frame of a stream, or its end, for who waits in a loop."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer._attached(), STREAM_DATA)
        # A descriptor must not keep a consumer that is dropped.
        self._consumer = weakref.ref(consumer)

    def is_ready(self) -> bool:
        """Whether there is a frame, the stream has ended, or the consumer is closed."""
        consumer = self._consumer()
        if consumer is None or not consumer.is_open:
            return True
        return consumer._has_next or consumer.is_ended


def _receive_and_rearm(
    of: weakref.ref[Consumer],
) -> Callable[..., Frame | None]:
    """Return `Consumer.receive` that makes the descriptor quiet if there is nothing."""

    def receive(*arguments: Any, **keywords: Any) -> Frame | None:
        consumer = of()
        assert consumer is not None
        frame = ConsumerHandle.receive(consumer, *arguments, **keywords)
        if frame is not None or consumer._descriptor is None:
            return frame

        def look() -> Any:
            found = ConsumerHandle.receive(consumer, blocking=False)
            return NOTHING if found is None and not consumer.is_ended else found

        frame = consumer._descriptor.rearm(look)
        return frame if isinstance(frame, Frame) else None

    return receive


_POLICIES = {"lossless": 0, "lossy": 1, "latest": 2}


class Consumer(Endpoint, ConsumerHandle):
    """Receive the frames of a stream, each consumer on its own.

    Parameters
    ----------
    stream_name : str or bytes
        Its name in the context; ``mx://`` in front is taken off.
    cancel_event : threading.Event, optional
        Ends waits when it is set.
    polling_interval : float, optional
        Accepted for MomentumX's sake; nobody polls.
    context : Context, str, Path or None
        The directory the stream lives in.
    policy : {'lossless', 'lossy', 'latest'}, optional
        'lossless' misses nothing, and the producer waits for it; 'lossy' is overtaken
        when slow, and counts what it lost; 'latest' jumps to the newest frame. By
        default what the producer's `sync` says.
    start : {'oldest', 'latest'}
        Begin with the oldest frame that is still there, or with what comes next.
    durable : str, optional
        A name under which the producer goes on waiting when this consumer dies, until
        one of the same name is opened. Lossless. `close` gives the name up.
    detached_timeout : float or None
        How long the producer waits for a durable consumer that died, s; None: no end.
    label : str, optional
        What it is called in statistics.
    verify : bool
        Compare each frame received, or read, with its checksum, if the producer gives
        it one (``checksum=True``); `CorruptFrame` is raised in place of one that was
        changed. `latest` does not look.
    timeout : float or None
        How long to wait for a stream that is not there yet, s.

    Raises
    ------
    CorruptFrame
        By `receive` and `read`: see `verify`.
    StreamUnavailable
        No stream has the name (`timeout` 0).
    TimeoutError
        None had it within `timeout`.

    Examples
    --------
    >>> from ataraxis import Consumer, Producer
    >>> producer = Producer("doc_consumer", 64, 8)
    >>> consumer = Consumer("doc_consumer", policy="lossless")
    >>> _ = producer.send(b"a"), producer.send(b"b"), producer.end()
    >>> [frame.read() for frame in consumer]
    [b'a', b'b']
    """

    def __init__(
        self,
        stream_name: str | bytes,
        cancel_event: Any = None,
        polling_interval: float | None = None,
        context: ContextLike = None,
        *,
        policy: Literal["lossless", "lossy", "latest"] | None = None,
        start: Literal["oldest", "latest"] = "oldest",
        durable: str | None = None,
        detached_timeout: float | None = None,
        label: str | None = None,
        verify: bool = False,
        timeout: float | None = 0,
    ) -> None:
        check_timeout(timeout)
        check_timeout(detached_timeout)
        if start not in ("oldest", "latest"):
            raise ValueError(f"start={start!r}: 'oldest' or 'latest'")
        if policy is not None and policy not in _POLICIES:
            raise ValueError(f"policy={policy!r}: one of {', '.join(_POLICIES)}")
        if durable is not None and policy not in (None, "lossless"):
            raise ValueError(f"a durable consumer is lossless, not {policy!r}")
        if durable is not None and not 0 < len(durable.encode()) < 64:
            raise ValueError(f"durable={durable!r}: 1 to 63 bytes of UTF-8")
        segment = Segment.attach(
            plain_name(stream_name), kind=Kind.STREAM, context=context, timeout=timeout
        )
        self.cancel_event = cancel_event
        self._plug(segment, policy, start, durable, detached_timeout, label)
        self._verifies = verify

    @classmethod
    def of_segment(cls, segment: Segment) -> Consumer:
        """Receive from a segment that is attached already."""
        consumer = cls.__new__(cls)
        consumer._plug(segment, None, "oldest", None, None, None)
        return consumer

    def _plug(
        self,
        segment: Segment,
        policy: str | None,
        start: str,
        durable: str | None,
        detached_timeout: float | None,
        label: str | None,
    ) -> None:
        self._name = segment.name
        flags = snapshot.geometry(segment.participant)[2]
        if durable is not None:
            policy = "lossless"
        elif policy is None:
            policy = "lossless" if flags & SYNC else "lossy"
        self._policy = policy
        line = -1
        if durable is None:
            own = label if label is not None else f"pid {os.getpid()}"
            snapshot.label(segment.participant, own.encode()[:63])
        else:
            line = register_durable(segment, durable, detached_timeout)
        dtype = segment.labels.dtype if flags & TYPED else None
        if not self._open(
            segment.payload,
            segment.participant,
            dtype,
            _POLICIES[policy],
            start == "oldest",
            line,
        ):
            self._misfit()
        if durable is not None:
            snapshot.keep(segment.participant, True)
        self._durable = durable
        self._begin(segment)

    # ---- receiving: receive(), release and iteration are the kernel's

    def receive_string(
        self,
        blocking: bool = True,
        *,
        timeout: float | None = None,
        minimum_ts: int | None = None,
    ) -> str | None:
        """Receive a frame as text and release it; None as `receive`."""
        frame = self.receive(blocking, timeout=timeout)
        if frame is None:
            return None
        with frame:
            return frame.read().decode()

    async def receive_async(self, timeout: float | None = None) -> Frame | None:
        """Wait for the next frame without blocking the event loop; None at the end.

        In asyncio, uvloop or, with ``ataraxis[trio]``, trio. One thread of this process
        sleeps for all that wait. Who is cancelled has not received anything.

        Raises
        ------
        TimeoutError
            None came within `timeout`, s.
        """
        check_timeout(timeout)
        if self._segment is None:
            return None
        frame = await until(self._try_receive, FrameEvent(self), timeout=timeout)
        if frame is NOTHING:
            self._fail(TIMEOUT)
        return frame if isinstance(frame, Frame) else None

    def _try_receive(self) -> Any:
        if self._segment is None:
            return None
        frame = self.receive(blocking=False)
        if frame is not None or (self.is_ended and not self.has_next):
            return frame
        return NOTHING

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be a frame.

        For `select`, ``loop.add_reader``, a QSocketNotifier. It becomes quiet when
        ``receive(blocking=False)`` has returned None; after the stream's end it stays
        readable, and `is_ended` is true. Do not read from it or close it: `close` of
        the consumer does.
        """
        self._attached()
        if self._descriptor is None:
            self._descriptor = Descriptor(FrameEvent(self))
            # In front of the kernel's, which does not know of it.
            self.__dict__["receive"] = _receive_and_rearm(weakref.ref(self))
        return self._descriptor.number

    _descriptor: Descriptor | None = None

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self

    async def __anext__(self) -> Frame:
        frame = await self.receive_async()
        if frame is None:
            raise StopAsyncIteration
        return frame

    # ---- what it is

    @property
    def is_alive(self) -> bool:
        """Whether there is something to receive; waits until that is certain.

        True means that the next `receive` returns a frame at once; False that the
        stream ended, or its producers died, and everything was received, or that
        `cancel_event` was set.
        """
        if self._segment is None:
            return False
        return bool(self._await(None) == OK)

    @property
    def has_next(self) -> bool:
        """True while the stream is not ended, and then while there is something unread.

        Never waits.
        """
        if self._segment is None:
            return False
        return self._has_next or not self.is_ended

    @property
    def is_ended(self) -> bool:
        """Whether every producer has ended or died."""
        segment = self._attached()
        if self._is_live and time.monotonic() - self._swept > 0.02:
            self._swept = time.monotonic()
            segment.participant.sweep()
        return not self._is_live

    _swept = 0.0

    @property
    def stream_id(self) -> str:
        """Which stream of that name it is: another for each that was made."""
        return self._attached().header.uuid.hex()

    @property
    def policy(self) -> str:
        """'lossless', 'lossy' or 'latest'."""
        return self._policy

    @property
    def dropped_count(self) -> int:
        """Frames lost since this consumer joined."""
        return int(self._words[2])

    @property
    def received_count(self) -> int:
        """Frames received."""
        return int(self._words[1])

    # ---- life

    def close(self) -> None:
        """Leave the stream. Frames that are held stay valid until they are dropped.

        A durable name is given up.
        """
        descriptor, self._descriptor = self._descriptor, None
        self.__dict__.pop("receive", None)
        if descriptor is not None:
            descriptor.close()
        super().close()

    def _drop(self) -> None:
        # Only `close` gives a durable name up: after a crash its frames wait.
        if self._durable is None:
            self.close()

    _durable: str | None = None

    def __repr__(self) -> str:
        state = "closed" if self._segment is None else "open"
        return f"<Consumer {self._name!r}, {self._policy}, {state}>"

    # ---- frames as rows of one array, and what one frame means; a half of `Consumer`

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
        if not done and status in (ENDED, TIMEOUT, EMPTY, DAMAGED):
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


def wait_for_stream(
    name: str | bytes, timeout: float | None = None, *, context: ContextLike = None
) -> None:
    """Wait until a stream has the name.

    Raises
    ------
    TimeoutError
        None had it within `timeout`, s.
    LayoutError
        Something else has it.
    """
    check_timeout(timeout)
    Segment.attach(plain_name(name), kind=Kind.STREAM, timeout=timeout, context=context)
