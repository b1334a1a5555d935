"""Producer: makes a stream and sends frames."""

from __future__ import annotations

import math
import mmap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ataraxis._kernels import snapshot
from ataraxis._kernels.consumer import BUSY, FULL
from ataraxis._kernels.producer import ProducerHandle
from ataraxis.clock import now_ns
from ataraxis.errors import DataOverflow
from ataraxis.frame import crc32
from ataraxis.gpu.libraries import library_of
from ataraxis.gpu.pins import Pin
from ataraxis.labels import (
    Labels,
    align,
    check_times,
    fit,
    frame_rate,
    is_blocks,
    is_data_array,
    unmasked,
    whole,
)
from ataraxis.shm.context import ContextLike
from ataraxis.stream.announcement import wait_for_announced
from ataraxis.stream.consumer import Consumer
from ataraxis.stream.endpoint import (
    RESUMABLE,
    SHARED,
    SYNC,
    TYPED,
    TYPED_LABELS,
    Encoded,
    Endpoint,
    check_timeout,
    code_of,
    encode,
    is_read_here,
    open_to_send,
    plain_name,
)
from ataraxis.stream.overflow import check_on_full
from ataraxis.stream.statistics import StreamStatistics, count_readers
from ataraxis.stream.write_buffer import WriteBuffer

# ---- options: the labels of a frame, and how many slots

# A ring that fits the processor's cache is several times as fast.
DEFAULT_BYTES = 1 << 20
LEAST, MOST = 4, 1024
MOST_SEQUENCE = 1 << 62


def frame_labels(
    buffer_size: int | None,
    shape: Sequence[int] | None,
    dtype: DTypeLike | None,
    dims: Sequence[str] | None,
    coords: Mapping[str, Any] | None,
    attrs: Mapping[str, Any] | None,
) -> tuple[Labels, int]:
    """Return the labels of a frame, and the payload bytes of a slot."""
    if shape is None:
        if dtype is not None or dims is not None or coords is not None:
            raise ValueError("dtype, dims and coords need shape=, that of one frame")
        if buffer_size is None or not 0 <= buffer_size < 1 << 46:
            raise ValueError(
                "buffer_size must be the bytes of a frame (or give shape=), got "
                f"{buffer_size!r}"
            )
        labels = Labels("u1", (buffer_size,), attrs=attrs)
        check_times(labels)
        return labels, buffer_size
    labels = Labels("f8" if dtype is None else dtype, shape, dims, coords, attrs)
    check_times(labels)
    if len(labels.shape) > 4:
        raise ValueError(f"shape must have at most 4 dimensions, got {labels.shape}")
    return labels, max(labels.nbytes, buffer_size or 0)


def slot_count(
    capacity: int, count: int | None, seconds: float | None, labels: Labels
) -> int:
    """Return the number of slots."""
    if seconds is not None:
        rate = frame_rate(labels)
        if count is not None or not rate or not seconds > 0:
            raise ValueError(
                f"buffer_seconds={seconds!r} replaces buffer_count and needs "
                "attrs={'sample_rate_hz': ...}, samples per second"
            )
        return max(2, math.ceil(seconds * rate) + 1)
    if count is None:
        return int(min(MOST, max(LEAST, DEFAULT_BYTES // (capacity + 192))))
    if not 0 < count < 1 << 31:
        raise ValueError(f"buffer_count must be at least 1, got {count}")
    return int(count)


# ---- the producer

_ON_FULL = {"block": 0, "raise": 1, "drop_newest": 2}
_STALL_S = 1.0
_TIME = np.dtype("i8")


class Producer(Endpoint, ProducerHandle):
    """Make a stream and send frames; every consumer receives every frame.

    Parameters
    ----------
    stream_name : str or bytes
        Its name in the context; a leading ``mx://`` is removed.
    buffer_size : int, optional
        Most bytes of a frame. Not needed with `shape`.
    buffer_count : int, optional
        How many frames the ring holds. By default as many as fit 1 MiB, 4 to 1024: a
        ring that fits the processor's cache is several times as fast. More bridge
        longer pauses of a lossless reader; see `buffer_seconds`.
    sync : bool
        Whether consumers are lossless by default; else lossy.
    cancel_event, polling_interval, context
        As for `Consumer`.
    shape, dtype : optional
        Of each frame, at most 4 dimensions. `send` also takes other shapes of the dtype
        that fit the slot, which readers get as they are; `send_block` and `read` take
        rows of this shape only. In a stream of blocks, `shape` is that of the longest
        block: `send` takes shorter ones, and no other shapes.
    dims, coords, attrs : optional
        Labels of each frame, as xarray's. A first dim "time" makes a stream of blocks:
        each frame holds samples. ``attrs={"sample_rate_hz": 20000}`` is the rate of
        samples, which `buffer_seconds` and times of samples need;
        ``attrs={"stamp_of": "sample"}`` states that the time of a block is of its first
        sample, not of its last one.
    buffer_seconds : float, optional
        Instead of `buffer_count`: how many seconds the ring holds.
    on_full : {'block', 'raise', 'drop_newest'}
        What `send` does when a lossless reader is a whole ring behind.
    on_stall : callable, optional
        Called with `StreamStatistics` once per stall, when a send has waited for a
        second. By default a warning is issued.
    shared : bool
        Let several producers send to the stream.
    checksum : bool
        Give each frame a CRC-32, for ``Frame.verify`` and ``Consumer(verify=True)``.
    participants : int
        How many producers and consumers may take part at a time, 1 to 1024.
    join_timeout : float
        How long to wait for recorders that were announced before the stream was made,
        s. One that does not join in time is named in a warning, and frames are kept
        for it.
    mode, group : optional
        Permission bits and group of the file, see `Segment.create`.
    resume : bool
        Make a stream that outlives the death of its producer: readers wait, and the
        next producer of the name with ``resume=True``, the same labels, sizes and
        policy goes on after the last frame. Such a stream ends by `end` or `close`
        only, also at the end of the program or by an exception. If there is none to go
        on with, a new one is made.
    first_sequence : int
        Number of the first frame of a stream that is made.

    Raises
    ------
    StreamExists
        A live producer has the name, or a durable reader has frames left to read of an
        ended stream.
    ValueError
        An option or an attribute of rates, stamps or exposures is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import Consumer, Producer
    >>> camera = Producer("doc_camera", shape=(2, 3), dtype="u1", dims=("y", "x"))
    >>> viewer = Consumer("doc_camera", policy="latest")
    >>> with camera.next_to_send() as frame:
    ...     frame.array[...] = 7
    >>> int(viewer.receive().array.sum())
    42

    A program that is started again after a kill goes on with its stream:

    >>> with Producer("doc_resume", shape=(3,), resume=True, first_sequence=7) as daq:
    ...     _ = daq.send(np.zeros(3))
    ...     daq.last_sent_iteration
    ...     daq.leave()  # without an end, as a kill would
    8
    >>> with Producer("doc_resume", shape=(3,), resume=True) as daq:
    ...     daq.last_sent_iteration
    ...     daq.unlink()
    8
    """

    def __init__(
        self,
        stream_name: str | bytes,
        buffer_size: int | None = None,
        buffer_count: int | None = None,
        sync: bool = False,
        cancel_event: Any = None,
        polling_interval: float | None = None,
        context: ContextLike = None,
        *,
        shape: Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        buffer_seconds: float | None = None,
        on_full: Literal["block", "raise", "drop_newest"] = "block",
        on_stall: Callable[[StreamStatistics], object] | None = None,
        shared: bool = False,
        checksum: bool = False,
        participants: int = 128,
        join_timeout: float = 2.0,
        mode: int | None = None,
        group: str | int | None = None,
        resume: bool = False,
        first_sequence: int = 0,
    ) -> None:
        check_timeout(join_timeout)
        if not 0 <= first_sequence < MOST_SEQUENCE:
            raise ValueError(
                f"first_sequence must be 0 to 2**62 - 1, got {first_sequence!r}"
            )
        if shared and (resume or first_sequence):
            raise ValueError(
                "resume= and first_sequence= are of a stream with one producer: leave "
                "out shared=True, whose producers join and leave at any time"
            )
        self._name = plain_name(stream_name)
        self._is_ended = False
        self._is_stall_reported = False
        self._on_stall = on_stall
        self.cancel_event = cancel_event
        self._on_full = _ON_FULL[check_on_full(on_full, tuple(_ON_FULL))]
        labels, capacity = frame_labels(buffer_size, shape, dtype, dims, coords, attrs)
        slots = slot_count(capacity, buffer_count, buffer_seconds, labels)
        is_typed = shape is not None
        flags = shared * SHARED | sync * SYNC | is_typed * TYPED | resume * RESUMABLE
        segment = open_to_send(
            self._name,
            labels,
            slots,
            capacity,
            flags,
            context=context,
            participants=participants,
            mode=mode,
            group=group,
            first=first_sequence,
        )
        typed = labels.dtype if is_typed else None
        code, sign = code_of(labels.dtype), TYPED_LABELS
        if not self._open(
            segment.payload, segment.participant, typed, labels.shape, code, sign, 0
        ):
            self._misfit()
        if checksum:
            self._sum_with(crc32)
        self._is_blocks = is_typed and is_blocks(labels)
        if self._is_blocks:
            self._take_short(labels.attrs.get("device_counter") == "samples")
        self._register(segment)
        try:
            wait_for_announced(
                self._name, context, join_timeout,
                has_joined=self._has_reader, keep_for=self._keep_for,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _has_reader(self, durable: str) -> bool:
        """Return whether a reader of a durable name takes part."""
        return any(
            entry[1] and entry[10].decode("utf-8", "replace") == durable
            for entry in snapshot.readers(self._attached().participant)
        )

    def _keep_for(self, durable: str, timeout: float | None) -> None:
        """Gate for a durable reader that has not joined, as for one that died."""
        segment = self._attached()
        consumer = Consumer(
            self._name, context=segment.context, durable=durable,
            detached_timeout=timeout,
        )  # fmt: skip
        del consumer  # not closed: the name keeps gating

    # ---- sending

    def next_to_send(
        self, blocking: bool = True, *, timeout: float | None = None
    ) -> WriteBuffer | None:
        """Return the slot of the next frame, to be filled in place without a copy.

        Parameters
        ----------
        blocking : bool
            Wait for readers that gate; if false, return None if no slot is free.
        timeout : float or None
            Longest wait, s.

        Returns
        -------
        WriteBuffer or None
            Also a context manager, which sends. A buffer returned before and not sent
            becomes invalid: its slot is reused. None: no slot is free (not blocking),
            or the wait was cancelled.

        Raises
        ------
        TimeoutError
            No slot was free within `timeout`.
        """
        check_timeout(timeout)
        loan = self._lend(WriteBuffer, timeout if blocking else 0)
        if isinstance(loan, WriteBuffer):
            return loan
        if loan == BUSY or (loan == FULL and not blocking):
            return None
        self._fail(loan)

    def send_string(
        self, message: str, *, blocking: bool = True, release: bool = True
    ) -> bool:
        """Send text as UTF-8; return False if it was not sent, as `next_to_send`."""
        if not isinstance(message, str):
            raise TypeError(f"send_string takes a str, got {type(message).__name__}")
        if blocking:
            return self.send(message)
        buffer = self.next_to_send(blocking=False)
        if buffer is None:
            return False
        buffer.write(message.encode())
        return buffer.send()

    def send_block(
        self,
        block: NDArray[Any],
        *,
        time_ns: int | NDArray[np.int64] | None = None,
        step_ns: int = 0,
        device: NDArray[np.int64] | None = None,
        timeout: float | None = None,
        casting: str | None = None,
    ) -> int:
        """Send each row of an array as one frame, in one call.

        Parameters
        ----------
        block : ndarray
            Shape ``(n, *shape)``, of values that the stream's dtype holds. In a stream
            of blocks each row is a whole block; `send` takes a single one, of any
            length.
        time_ns : int or int64 array, optional
            Monotonic time of the first row, ns, by default now; or of every row, shape
            (n,).
        step_ns : int
            Time between rows, ns.
        device : int64 array, optional
            Device time and device sequence of every row, shape (n, 2).
        timeout : float or None
            Longest wait, s.
        casting : str, optional
            As for `send`.

        Returns
        -------
        int
            How many rows were sent: all, unless the wait was cancelled or rows were
            dropped (``on_full="drop_newest"``).

        Raises
        ------
        TimeoutError, QueueFull
            Readers that gate are behind. `count` of `PutTimeout` and `QueueFull` is
            the number of rows sent.
        ValueError
            Values would change in the stream's dtype; nothing was sent.
        """
        labels = self._labels
        rows = block
        if type(block) is not np.ndarray or block.dtype != labels.dtype:
            rows = self._fitted(block, casting)
        rows = np.ascontiguousarray(rows)
        if not self.is_typed or rows.shape[1:] != labels.shape:
            hint = ": send() takes one block" if self._is_blocks else ""
            raise ValueError(
                f"send_block takes rows of the stream's shape: got {rows.shape}, the "
                f"stream has frames of {labels.shape if self.is_typed else 'bytes'}"
                f"{hint}"
            )
        check_timeout(timeout)
        if time_ns is None:
            times = np.array([now_ns()])
        else:
            times = np.atleast_1d(fit(time_ns, _TIME, None, "time_ns"))
        if times.shape not in ((1,), (len(rows),)):
            raise ValueError(
                f"time_ns has shape {times.shape}, expected () or ({len(rows)},)"
            )
        if device is not None:
            device = np.ascontiguousarray(fit(device, _TIME, None, "device"))
            if device.shape != (len(rows), 2):
                raise ValueError(
                    f"device has shape {device.shape}, expected {(len(rows), 2)}"
                )
        times = np.ascontiguousarray(times)
        return self._send_rows(rows, times, whole(step_ns, "step_ns"), device, timeout)

    def _cast(self, value: Any, casting: str) -> NDArray[Any]:
        """Convert a value to the stream's dtype by one of numpy's casting rules."""
        what, labels = f"stream {self._name!r}", self._labels
        if not self.is_typed:
            raise TypeError(
                f"{what} has no dtype, so casting={casting!r} has no effect: make it "
                "with dtype= and shape="
            )
        if is_data_array(value):
            value = align(value, labels.dims, labels.coords, what)
        return fit(value, labels.dtype, casting, what)

    def _fitted(self, block: Any, casting: str | None) -> NDArray[Any]:
        """Convert rows to the dtype, dims and labels of the stream, or refuse them."""
        what, labels = f"stream {self._name!r}", self._labels
        if is_data_array(block):
            (row, *_) = [d for d in block.dims if d not in labels.dims] or block.dims
            block = align(block, (row, *labels.dims), labels.coords, what)
        if not self.is_typed:
            return unmasked(block, what)
        return fit(block, labels.dtype, casting, what)

    def wait_for_subscribers(self, n: int = 1, timeout: float | None = None) -> int:
        """Wait until at least `n` consumers take part; return how many do.

        Raises
        ------
        TimeoutError
            Fewer took part within `timeout`, s.
        """
        check_timeout(timeout)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while self.subscriber_count < n:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"stream {self._name!r}: {self.subscriber_count} of {n} consumers "
                    f"within {timeout} s"
                )
            if self.cancel_event is not None and self.cancel_event.is_set():
                break
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return self.subscriber_count

    def end(self) -> None:
        """End the stream; consumers receive what was sent, then the end."""
        self._unpin()
        self._shut()
        self._is_ended = not self._has_left

    def leave(self) -> None:
        """Leave a stream made with ``resume=True`` without ending it.

        Its readers wait for the next producer, as after the death of this one.
        """
        if not self._flags & RESUMABLE:
            raise ValueError(
                f"stream {self._name!r} ends without its producer: use close(), or "
                "make it with resume=True"
            )
        self._has_left = self._has_left or not self._is_ended
        self._leave()
        super().close()

    def close(self) -> None:
        """End the stream and leave it.

        Unread frames stay available to later readers; `unlink` discards them.
        """
        self.end()
        super().close()

    def unlink(self) -> None:
        """End the stream and remove its name, with all unread frames."""
        segment = self._segment
        self.end()
        if segment is not None and not segment.participant.is_inherited:
            # Frames kept for durable readers are discarded too.
            snapshot.keep(segment.participant, False)
            segment.unlink()
        self.close()

    _has_left = False

    # ---- what it is

    @property
    def is_ended(self) -> bool:
        """Whether the stream was ended."""
        return self._is_ended

    @property
    def subscriber_count(self) -> int:
        """Consumers that take part, detached durable ones included.

        Lossy ones with the label 'view', such as those of `ataraxis view`, are not
        counted: who waits for readers does not wait for them. Detects dead ones, at
        most 50 times a second.
        """
        part = self._attached().participant
        if time.monotonic() - self._swept > 0.02:
            self._swept = time.monotonic()
            part.sweep()
        return count_readers(part)

    _swept = 0.0

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("stream", self)

    def __repr__(self) -> str:
        state = "ended" if self._is_ended else "open"
        return f"<Producer {self._name!r}, {state}>"

    # ---- called by the kernel

    def _encode(self, value: Any) -> Encoded:
        labels = self._labels if self.is_typed else None
        what = f"stream {self._name!r}"
        encoded = encode(value, labels, what)
        if labels is None or not self._is_blocks or not encoded.labels:
            return encoded
        found, most = encoded.shape, labels.shape
        if len(found) != len(most) or found[1:] != most[1:]:
            raise ValueError(
                f"{what} takes blocks of the dims {labels.dims}, the longest of the "
                f"shape {most}: got {found}; only the number of samples may differ"
            )
        if found[0] > most[0]:
            raise DataOverflow(
                f"{what} takes blocks of at most {most[0]} samples, got {found[0]}: "
                "send it in parts, or make the stream with a longer shape="
            )
        return encoded

    def _is_on_gpu(self, value: Any) -> bool:
        return library_of(value) is not None

    def _send_gpu(
        self,
        value: Any,
        timeout: float | None,
        device_time: int | None,
        device_sequence: int | None,
        time_ns: int,
    ) -> bool | None:
        """Send an array of a GPU: copy it into the slot, wait for it, publish.

        None: every slot is held, and ``on_full`` decides.
        """
        self.check_device_array(value)
        is_blocking = self._on_full == 0
        buffer = self.next_to_send(is_blocking, timeout=timeout)
        if buffer is None:
            return False if is_blocking else None
        size = buffer.copy_from(value)
        buffer.stamp(
            device_time=device_time, device_sequence=device_sequence, time_ns=time_ns
        )
        return buffer.send(size)

    def check_device_array(self, value: Any) -> Any:
        """Return the library of an array of a GPU; raise if it does not fit."""
        made, labels = library_of(value), self._labels
        what = f"stream {self._name!r}"
        if made is None:
            raise TypeError(
                f"{what}: {type(value).__name__} is not an array of a GPU: use send()"
            )
        shape, dtype = made.layout(value)
        if not self.is_typed or dtype != labels.dtype:
            raise TypeError(
                f"{what} {f'holds {labels.dtype}' if self.is_typed else 'has no dtype'}"
                f", the GPU's array is {dtype}: convert it on the GPU, or make the "
                "stream with dtype= and shape="
            )
        is_short = self._is_blocks and shape[1:] == labels.shape[1:]
        if shape != labels.shape and not (is_short and shape[0] <= labels.shape[0]):
            raise ValueError(
                f"{what} has frames of the shape {labels.shape}, the GPU's array is "
                f"{shape}: reshape it on the GPU"
            )
        return made

    def private_array(self) -> NDArray[Any] | None:
        """Return memory of this process for copies from a GPU; None: use the slot.

        After the death of this process its GPU may still write where it was told to.
        In a stream that another producer goes on with, that is not a slot.
        """
        if not self._flags & (SHARED | RESUMABLE):
            return None
        labels = self._labels
        if self._private is None:
            memory = mmap.mmap(-1, max(labels.nbytes, 1))
            array = np.ndarray(labels.shape, labels.dtype, memory)
            what = f"the private buffer of stream {self._name!r}"
            pin = Pin(memory, array.ctypes.data, len(memory), what)
            self._private = array, pin
        array, pin = self._private
        is_pinned = self._pin is not None and self._pin.is_pinned
        if is_pinned and not pin.is_pinned:
            pin.begin()
        return array

    _private: tuple[NDArray[Any], Pin] | None = None

    def _unpin(self) -> None:
        private, self._private = self._private, None
        if private is not None:
            private[1].close()
        super()._unpin()

    def _stalled(self, seconds: float) -> None:
        """Report, once per stall, that readers make the producer wait."""
        was_reported = self._is_stall_reported
        self._is_stall_reported = seconds >= _STALL_S
        if was_reported or not self._is_stall_reported:
            return
        statistics = self.statistics()
        if self._on_stall is not None:
            self._on_stall(statistics)
            return
        behind = ", ".join(r.label for r in statistics.readers if r.is_gating)
        detached = own = ""
        if statistics.detached:
            names = ", ".join(statistics.detached)
            detached = f"; detached: {names}: their processes ended, start them again"
        if is_read_here(self._name, self._attached().header.uuid):
            own = (
                "; a consumer of this process is open: a thread that sends cannot read "
                "at the same time. Read it in another thread or process, close it, or "
                "open it with policy='latest' or 'lossy'"
            )
        warnings.warn(
            f"stream {self._name!r} has waited {seconds:.1f} s for readers that gate: "
            f"{behind}{detached}{own}",
            RuntimeWarning,
            stacklevel=3,
        )
