"""Consumer: receives the frames of a stream."""

from __future__ import annotations

import math
import os
import socket
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
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
from ataraxis.clock import boot_id
from ataraxis.errors import CorruptFrame, ReleasedBuffer
from ataraxis.frame import crc32
from ataraxis.gpu.batches import DeviceBatch, gather
from ataraxis.gpu.copies import copy_to_device
from ataraxis.gpu.exports import DeviceView, export
from ataraxis.labels import is_blocks, whole
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
from ataraxis.stream.samples import SampleBlock, SampleLayout, labelled_samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import xarray as xr
    from typing_extensions import Buffer


# ---- the consumer


class FrameEvent(EventWord):
    """A frame of a stream, or its end, awaited by an event loop."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer._attached(), STREAM_DATA)
        # A descriptor must not keep a dropped consumer alive.
        self._consumer = weakref.ref(consumer)

    def is_ready(self) -> bool:
        """Return True for a frame, the stream's end, or a closed consumer."""
        consumer = self._consumer()
        if consumer is None or not consumer.is_open:
            return True
        return consumer._has_next or consumer.is_ended


def _receive_and_rearm(
    of: weakref.ref[Consumer],
) -> Callable[..., Frame | None]:
    """Return a `Consumer.receive` that clears the descriptor if no frame is left."""

    def receive(*arguments: Any, **keywords: Any) -> Frame | None:
        consumer = of()
        assert consumer is not None
        frame = ConsumerHandle.receive(consumer, *arguments, **keywords)
        if frame is not None or consumer._descriptor is None:
            return frame

        def try_again() -> Any:
            found = ConsumerHandle.receive(consumer, blocking=False)
            return NOTHING if found is None and not consumer.is_ended else found

        frame = consumer._descriptor.rearm(try_again)
        return frame if isinstance(frame, Frame) else None

    return receive


_POLICIES = {"lossless": 0, "lossy": 1, "latest": 2}


class Consumer(Endpoint, ConsumerHandle):
    """Receive the frames of a stream, independently of other consumers.

    Parameters
    ----------
    stream_name : str or bytes
        Its name in the context; a leading ``mx://`` is removed.
    cancel_event : threading.Event, optional
        Ends waits when it is set.
    polling_interval : float, optional
        Ignored; accepted as MomentumX has it.
    context : Context, str, Path or None
        The directory the stream lives in.
    policy : {'lossless', 'lossy', 'latest'}, optional
        'lossless' misses nothing: the producer waits for it. 'lossy' is overtaken when
        slow and counts the frames it lost. 'latest' skips to the newest frame. By
        default 'lossless' if the producer has ``sync=True``, else 'lossy'.
    start : {'oldest', 'latest'}
        Begin with the oldest frame in the ring, or with the next one sent.
    durable : str, optional
        A name for which the producer keeps frames after this consumer dies, until a
        consumer of the same name is opened. Lossless. `close` releases the name.
    detached_timeout : float or None
        How long the producer waits for a durable consumer that died, s; None: forever.
    label : str, optional
        Its name in statistics.
    verify : bool
        Check each frame received or read against its checksum, if the producer gives
        it one (``checksum=True``), and raise `CorruptFrame` for one that was changed.
        `latest` does not check.
    timeout : float or None
        How long to wait for a stream that does not exist yet, s.

    Raises
    ------
    CorruptFrame
        By `receive` and `read`: see `verify`.
    StreamUnavailable, TimeoutError
        No stream has the name (within `timeout`).

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
            raise ValueError(f"start must be 'oldest' or 'latest', got {start!r}")
        if policy is not None and policy not in _POLICIES:
            raise ValueError(
                f"policy must be one of {', '.join(_POLICIES)}, got {policy!r}"
            )
        if durable is not None and policy not in (None, "lossless"):
            raise ValueError(f"a durable consumer is lossless, got policy={policy!r}")
        if durable is not None and not 0 < len(durable.encode()) < 64:
            raise ValueError(f"durable must be 1 to 63 bytes of UTF-8, got {durable!r}")
        segment = Segment.attach(
            plain_name(stream_name), kind=Kind.STREAM, context=context, timeout=timeout
        )
        self.cancel_event = cancel_event
        self._bind(segment, policy, start, durable, detached_timeout, label)
        self._verifies = verify

    @classmethod
    def of_segment(cls, segment: Segment) -> Consumer:
        """Receive from a segment that is attached already."""
        consumer = cls.__new__(cls)
        consumer._bind(segment)
        return consumer

    def _bind(
        self,
        segment: Segment,
        policy: str | None = None,
        start: str = "oldest",
        durable: str | None = None,
        detached_timeout: float | None = None,
        label: str | None = None,
    ) -> None:
        """Join the stream in a segment; the consumer is open from here on."""
        self._name = segment.name
        self._kept: deque[tuple[SampleBlock, NDArray[np.int64]]] = deque()
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
        self._register(segment)

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

        Works in asyncio, uvloop and, with ``ataraxis[trio]``, trio. One thread of the
        process sleeps for all waiting tasks. A cancelled task has received nothing.

        Raises
        ------
        TimeoutError
            No frame came within `timeout`, s.
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

        For `select`, ``loop.add_reader``, a QSocketNotifier. It stops being readable
        when ``receive(blocking=False)`` returns None; after the stream's end it stays
        readable, and `is_ended` is true. Do not read from it or close it: `close` of
        the consumer does.
        """
        self._attached()
        if self._descriptor is None:
            self._descriptor = Descriptor(FrameEvent(self))
            # Shadows the kernel's method, which does not know the descriptor.
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
        """Wait until a frame is there (True) or none will come (False).

        True: the next `receive` returns a frame at once. False: the stream ended or
        its producers died, and everything was received, or `cancel_event` was set.
        """
        if self._segment is None:
            return False
        return bool(self._await(None) == OK)

    @property
    def has_next(self) -> bool:
        """Whether the stream has not ended, or has unread frames. Never waits."""
        if self._segment is None:
            return False
        return self._has_next or not self.is_ended

    @property
    def is_ended(self) -> bool:
        """Whether every producer has ended or died; if it can be resumed, has ended."""
        segment = self._attached()
        if self._is_live and time.monotonic() - self._swept > 0.02:
            self._swept = time.monotonic()
            segment.participant.sweep()
        return not self._is_live

    _swept = 0.0

    @property
    def stream_id(self) -> str:
        """Identity of the stream: differs for each stream made under the name."""
        return self._attached().header.uuid.hex()

    @property
    def clock(self) -> str:
        """Clock of the stamps, ``HOST/BOOT-ID``: of this host, unless it is a mirror.

        A mirror of a stream of another host has the stamps of that one, as its labels
        state in ``attrs["clock"]``; the stream ``clock.HOST`` relates the two clocks.
        """
        found = self._labels.attrs.get("clock", "")
        if isinstance(found, str) and found:
            return found
        return f"{socket.gethostname()}/{boot_id()}"

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
        """Leave the stream, and release its durable name.

        Frames that are held stay valid until they are dropped.
        """
        descriptor, self._descriptor = self._descriptor, None
        self.__dict__.pop("receive", None)
        if descriptor is not None:
            descriptor.close()
        super().close()

    def _drop(self) -> None:
        self._unpin()
        # Only `close` releases a durable name: after a crash its frames are kept.
        if self._durable is None:
            self.close()

    _durable: str | None = None

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("stream", self)

    def __repr__(self) -> str:
        state = "closed" if self._segment is None else "open"
        return f"<Consumer {self._name!r}, {self._policy}, {state}>"

    # ---- frames as rows of one array

    def read(
        self,
        n: int,
        out: NDArray[Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> NDArray[Any]:
        """Receive `n` frames into one array, in one call; see also `read_block`.

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
            No frame came within `timeout`. If some came, they are returned.
        """
        labels = self._labels
        shape = (n, *labels.shape)
        if out is None:
            out = np.empty(shape, labels.dtype)
        elif out.shape != shape or out.dtype != labels.dtype or not out.flags.carray:
            raise ValueError(
                f"out must be C-contiguous and writable, {labels.dtype} {shape}, got "
                f"{out.dtype} {out.shape}"
            )
        self._attached()
        done, status = self._read_into(out, None, 0, timeout)
        if n and not done:
            if status == OVERFLOW:
                hint = ", or read_block()" if is_blocks(labels) else ""
                raise ValueError(
                    f"stream {self._name!r}: the next frame is not of the stream's "
                    f"shape {labels.shape}: receive() it{hint}"
                )
            if status in (ENDED, TIMEOUT, EMPTY, DAMAGED):
                self._fail(TIMEOUT if status == EMPTY else status)
        return out[:done]

    # ---- samples with their times

    def read_block(self, n: int, *, timeout: float | None = None) -> SampleBlock:
        """Receive `n` samples with their times, in one call, across edges of blocks.

        Where the first dim of the labels is "time", a frame is a block of samples; else
        it is one sample. A loss is never inside: the block ends before it, with fewer
        samples, and `lost` of the next one shows it.

        Parameters
        ----------
        n : int
            How many samples.
        timeout : float or None
            Longest wait for all of them, s.

        Returns
        -------
        SampleBlock
            A copy; fewer samples at a loss, at the end of the stream, after `timeout`,
            or if the wait was cancelled.

        Raises
        ------
        EndOfStream
            The stream ended and everything was read.
        TimeoutError
            No sample came within `timeout`. If some came, they are returned.
        ValueError
            The next frame does not consist of samples, or blocks have no rate.

        Notes
        -----
        Samples are copied once, in the kernel, without the GIL; except for a part of a
        block that a lossy reader could not hold in the ring. The rest of a block is
        kept for the next call: its slot stays held, and `receive` or `read` would
        return that block as a whole. An exception, such as Ctrl-C, loses no sample: the
        next call returns those that came before it.
        """
        self._attached()
        n, labels, layout = whole(n, "n"), self._labels, self._layout
        if n < 0:
            raise ValueError(f"n must be 0 or more samples, got {n}")
        self._check_times(layout)
        if n and (kept := self._take_kept(n)) is not None:
            return kept
        out = np.empty((n, *layout.shape), labels.dtype)
        frames, state = np.empty((n, 3), np.int64), np.zeros(4, np.int64)
        try:
            status = self._read_samples(
                out, frames, state, layout.whole, layout.are_blocks, timeout
            )
        except BaseException:
            if state[0]:
                block = self._samples(out, frames, state, layout)
                first, stop = state[2], state[2] + len(block)
                numbers = frames[: state[1], 1].repeat(frames[: state[1], 2])
                self._kept.append((block, numbers[first:stop]))
            raise
        if n and not state[0]:
            if status == OVERFLOW:
                raise ValueError(
                    f"stream {self._name!r}: the next frame does not consist of "
                    f"samples of shape {layout.shape}: receive() it"
                )
            if status in (ENDED, TIMEOUT, EMPTY, DAMAGED):
                self._fail(TIMEOUT if status == EMPTY else status)
        return self._samples(out, frames, state, layout)

    def _samples(
        self,
        out: NDArray[Any],
        frames: NDArray[np.int64],
        state: NDArray[np.int64],
        layout: SampleLayout,
    ) -> SampleBlock:
        """Return the samples that the kernel copied."""
        done, used, first, lost = state.tolist()
        return SampleBlock(
            out[:done],
            layout.times(frames[:used], first, done),
            int(frames[0, 1]) if used else None,
            lost * layout.whole,
            self._labels,
            self._name,
        )

    def _take_kept(self, n: int) -> SampleBlock | None:
        """Return at most `n` of the samples that came before an exception."""
        try:
            block, numbers = self._kept.popleft()
        except IndexError:
            return None
        if len(block) > n:
            rest = replace(
                block, data=block.data[n:], time_ns=block.time_ns[n:], lost=0,
                sequence=int(numbers[n]),
            )  # fmt: skip
            self._kept.appendleft((rest, numbers[n:]))
        return replace(block, data=block.data[:n], time_ns=block.time_ns[:n])

    @cached_property
    def _layout(self) -> SampleLayout:
        return SampleLayout.of(self._labels)

    def _check_times(self, layout: SampleLayout) -> None:
        """Refuse blocks whose samples have no times."""
        if not layout.has_times:
            raise ValueError(
                f"stream {self._name!r} has blocks of {layout.whole} samples and no "
                "rate: make it with attrs={'sample_rate_hz': ...}, or read() its frames"
            )

    def latest(self, n: int | float = 1) -> NDArray[Any]:
        """Copy the newest samples in the ring, received before or not.

        Parameters
        ----------
        n : int or float
            How many samples; a float is seconds, by ``attrs["sample_rate_hz"]``. Where
            the first dim of the labels is "time", a frame is a block of samples; else
            it is one sample.

        Returns
        -------
        ndarray
            Shape ``(up to n, *shape of a sample)``, oldest first; a copy.
        """
        return self._newest(n, self._layout)[0]

    def _newest(
        self, n: int | float, layout: SampleLayout
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the newest samples, and time, sequence and samples of their frames."""
        self._attached()
        if isinstance(n, float):
            if layout.rate is None:
                raise ValueError(
                    f"{n} s of stream {self._name!r}: attrs['sample_rate_hz'] is "
                    "missing; give the number of samples, an int"
                )
            n = max(1, math.ceil(n * layout.rate))
        rows = min(whole(n, "n"), self._slots * layout.whole)
        out = np.empty((rows, *layout.shape), self._labels.dtype)
        frames = np.empty((min(rows, self._slots + 1), 3), np.int64)
        count, used = self._latest_into(out, frames, layout.whole, layout.are_blocks)
        return out[rows - count :], frames[len(frames) - used :]

    def to_xarray(self, n: int | float) -> xr.DataArray:
        """Return the newest samples with labels and one time axis.

        Parameters
        ----------
        n : int or float
            As for `latest`: samples, or seconds.

        Returns
        -------
        xarray.DataArray
            Dims ``("time", *dims of a sample)``; coordinate "time", monotonic ns,
            int64. A copy.

        Raises
        ------
        ValueError
            Frames are blocks and the labels have no rate.
        """
        layout = self._layout
        self._check_times(layout)
        data, frames = self._newest(n, layout)
        first = int(frames[:, 2].sum()) - len(data)
        times = layout.times(frames, first, len(data))
        return labelled_samples(data, times, self._labels, self._name)

    # ---- batches on a GPU

    def batches(
        self,
        n: int,
        *,
        device: Any = "cuda",
        library: Literal["torch", "cupy"] = "torch",
        latest: bool = False,
        timeout: float | None = None,
    ) -> Iterator[DeviceBatch]:
        """Iterate over arrays of a device, each with `n` frames.

        Frames are copied from the ring straight into the array, on a stream of their
        own: while you compute with one batch, the next one is gathered.

        Parameters
        ----------
        n : int
            Frames of a batch. The last one has fewer, and so has one before a frame of
            another shape.
        device : object
            As the library names it: "cuda:0", a number; "cpu" with PyTorch.
        library : {'torch', 'cupy'}
            Whose arrays.
        latest : bool
            Skip frames that are more than `n` behind the newest one.
        timeout : float or None
            Longest wait for the next frame, s. A batch that has some frames is then
            returned as it is.

        Yields
        ------
        DeviceBatch
            ``for data, times in consumer.batches(32)``: shape ``(n, *shape)``, and
            monotonic ns of each frame. It is a copy that stays valid; the device's
            current stream waits for it, this thread does not.

        Raises
        ------
        TimeoutError
            No frame came within `timeout`.
        GpuUnavailable
            The library is not installed, or has no such device.
        """
        check_timeout(timeout)

        def next_frame(may_wait: bool) -> Frame | None:
            while True:
                frame = self.receive(may_wait, timeout=timeout)
                if frame is None or not latest:
                    return frame
                if self.last_sent_iteration - frame.iteration < n:
                    return frame
                frame.release()

        return gather(
            next_frame, n, device=device, library=library, labels=self._labels,
            new_hold=lambda: None if self._pin is None else self._pin.hold(),
            most_held=self._slots // 4,
        )  # fmt: skip

    # ---- called by the kernel

    def _dtype_of(self, code: int) -> np.dtype[Any]:
        return dtype_of(code)

    def _over(self, frame: Frame) -> NoReturn:
        raise ReleasedBuffer("the frame was released: keep it while you need it")

    def _corrupt(self, frame: Frame) -> NoReturn:
        raise CorruptFrame(
            f"stream {self._name!r}: a frame of {frame.nbytes} bytes has dtype code "
            f"{frame._code} and shape {frame._shape}, which do not fit them"
        )

    def _compare(self, frame: Frame, data: Buffer, expected: int) -> None:
        """Compare the bytes after a frame's header with its checksum."""
        found = crc32(data)
        if found != expected:
            raise CorruptFrame(
                f"stream {self._name!r}, frame {frame.sequence}: its checksum is "
                f"{expected:#010x}, that of its bytes {found:#010x}: it was changed "
                "after it was sent"
            )

    def _drained(self) -> None:
        self._unpin()

    def _to_dlpack(
        self, frame: Frame, stream: Any, max_version: Any, dl_device: Any, copy: Any
    ) -> Any:
        return export(
            frame.array, self._pin is not None and self._pin.is_pinned,
            stream=stream, max_version=max_version, dl_device=dl_device, copy=copy,
        )  # fmt: skip

    def _device_view(self, frame: Frame) -> DeviceView:
        return DeviceView.of(frame.array, self._pin, f"stream {self._name!r}")

    def _to_gpu(self, frame: Frame, library: str, device: Any, stream: Any) -> Any:
        hold = None if self._pin is None else self._pin.hold()
        return copy_to_device(library, frame.array, hold, device, stream)

    def _value(self, frame: Frame) -> Any:
        if frame._code == STR:
            return frame.read().decode()
        if frame._code == RAW:
            return frame[:]
        array = frame.array
        return array if array.ndim else array[()]

    def _to_html(self, frame: Frame) -> str:
        from ataraxis.card import html_of

        return html_of("received", frame)

    def _to_xarray(self, frame: Frame) -> xr.DataArray:
        import xarray as xr

        array, labels = frame.array, self._labels
        layout = self._layout
        if (
            layout.are_blocks
            and layout.rate is not None
            and array.ndim == len(labels.shape)
            and array.shape[1:] == layout.shape
            and array.dtype == labels.dtype
        ):
            header = np.array([[frame.time_ns, frame.sequence, len(array)]])
            times = layout.times(header, 0, len(array))
            result = labelled_samples(array, times, labels, labels.name)
            return result.assign_coords(sequence=((), frame.sequence))
        if array.shape == labels.shape and array.dtype == labels.dtype:
            result = labels.to_xarray(array)
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
        No stream had it within `timeout`, s.
    LayoutError
        A segment of another kind has it.
    """
    check_timeout(timeout)
    Segment.attach(plain_name(name), kind=Kind.STREAM, timeout=timeout, context=context)
