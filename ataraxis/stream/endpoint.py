"""What both ends of a stream share: life, labels, statistics, errors of a status."""

from __future__ import annotations

import atexit
import contextlib
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

import numpy as np

from ataraxis._kernels import consumer as status_of
from ataraxis._kernels import snapshot
from ataraxis._kernels.consumer import BUSY
from ataraxis.errors import (
    DataOverflow,
    EndOfStream,
    LayoutError,
    NotConnectedError,
    PutTimeout,
    QueueFull,
    SegmentExists,
    SegmentNotFound,
    StreamExists,
    StreamUnavailable,
    TooManyParticipants,
)
from ataraxis.gpu.pins import Pin
from ataraxis.labels import Labels, align, fit, is_data_array, unmasked
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import begin_exit, end_daemon
from ataraxis.stream.statistics import StreamStatistics, read_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED, SYNC, TYPED, RESUMABLE = 1, 2, 4, 8
HOLD_TRIES = 200

_open_ends: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def is_read_here(name: str, uuid: bytes) -> bool:
    """Return whether a consumer of this process reads that stream."""
    segments = [(e.name, e._segment) for e in _open_ends if hasattr(e, "receive")]  # noqa: SLF001
    return any(s and own == name and s.header.uuid == uuid for own, s in segments)


def plain_name(name: str | bytes) -> str:
    """Return a name given as MomentumX does: decode ``bytes``, remove ``mx://``."""
    text = name.decode() if isinstance(name, bytes) else name
    return text[5:] if isinstance(text, str) and text[:5] == "mx://" else text


class Endpoint:
    """A handle on a stream; `Producer` and `Consumer` are the two."""

    _name: str
    _segment: Segment | None = None
    _labels: Labels
    _slots: int
    _capacity: int
    _flags: int
    _shut: Callable[[], None]  # the kernel's
    _damage: str  # the kernel's

    def _register(self, segment: Segment) -> None:
        """Keep the segment; the last reference, or the program's end, leaves it."""
        segment.keep_name()
        self._labels = segment.labels
        self._slots, self._capacity, self._flags = snapshot.geometry(
            segment.participant
        )
        if not _open_ends:
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        self._segment = segment
        _open_ends.add(self)

    def close(self) -> None:
        """Leave the stream."""
        segment = self._segment
        if segment is None:
            return
        # Every step can be repeated: the next call completes one that was interrupted.
        self._unpin()
        self._shut()
        finalize(segment)
        self._segment = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        """Leave when the last reference or the program ends."""
        self.close()

    # ---- for a GPU

    _pin: Pin | None = None

    def pin(self) -> Pin:
        """Lock the stream's pages for copies to and from GPUs, which are then faster.

        Returns
        -------
        Pin
            Also a context manager: its end unlocks them. So do `close`, the stream's
            end and the program's; copies under way are completed before. The pages are
            locked once for all handles of this process.

        Raises
        ------
        GpuUnavailable
            No GPU, no driver, or neither cuda-bindings (``ataraxis[gpu]``) nor PyTorch
            nor CuPy is installed.
        PinError
            The memory cannot be locked: too much, or not permitted.
        """
        segment = self._attached()
        if self._pin is None:
            mapping = segment.mapping
            self._pin = Pin(
                mapping, mapping.address, len(mapping), f"stream {self._name!r}"
            )
        return self._pin.begin()

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()

    # ---- what the stream is; also after closing

    @property
    def name(self) -> str:
        """Name of the stream in its context."""
        return self._name

    @property
    def labels(self) -> Labels:
        """dtype, shape, dims, coords and attrs of a frame."""
        return self._labels

    @property
    def is_typed(self) -> bool:
        """Whether the stream has a shape and dtype; else its frames are bytes."""
        return bool(self._flags & TYPED)

    @property
    def is_shared(self) -> bool:
        """Whether several producers may send to it."""
        return bool(self._flags & SHARED)

    @property
    def is_sync(self) -> bool:
        """Whether consumers are lossless by default."""
        return bool(self._flags & SYNC)

    @property
    def buffer_size(self) -> int:
        """Payload bytes a slot holds."""
        return self._capacity

    @property
    def buffer_count(self) -> int:
        """Slots."""
        return self._slots

    # ---- what it does

    @property
    def last_sent_iteration(self) -> int:
        """Number of the last frame sent, from 1; 0 before the first.

        It is the `sequence` of the next frame, of a stream with one producer.
        """
        return snapshot.words(self._attached().participant)[1]

    def statistics(self) -> StreamStatistics:
        """Read the stream's control words; waits for nothing and stops nothing."""
        return read_statistics(self._name, self._attached().participant, self._labels)

    def _attached(self) -> Segment:
        """Return the segment, or raise because the handle was closed."""
        if self._segment is None or self._segment.participant.is_inherited:
            self._revive()
        assert self._segment is not None
        return self._segment

    def _revive(self) -> NoReturn:
        """Raise: the handle was closed, or belongs to the parent process."""
        end_daemon()
        if self._segment is not None and self._segment.participant.is_inherited:
            raise NotConnectedError(
                f"stream {self._name!r}: this {type(self).__name__} belongs to the "
                "process that forked this one; open another one here"
            )
        raise NotConnectedError(
            f"stream {self._name!r}: this {type(self).__name__} was closed; open "
            "another one"
        )

    def _fail(self, status: int, count: int = 0) -> NoReturn:
        """Raise the exception of a kernel status; `count` rows were sent before."""
        end_daemon()
        name = self._name
        if status == status_of.OVERFLOW:
            size = self._segment and self._segment.header.geometry.payload_bytes
            raise DataOverflow(
                f"stream {name!r}: the frame is larger than a slot ({size} bytes in "
                "all slots together); make the stream with a larger buffer_size= or "
                "shape="
            )
        if status == status_of.FULL:
            full = QueueFull(
                f"stream {name!r}: every slot holds a frame that a reader has not "
                "read; see statistics(), use a larger buffer_count=, or on_full="
                '"block"'
            )
            full.count = count
            raise full
        if status == status_of.ENDED:
            raise EndOfStream(f"stream {name!r} has ended and everything was read")
        if status == status_of.DAMAGED:
            raise LayoutError(
                f"stream {name!r} was damaged: {self._damage}. Read the frames that "
                "are left, then make the stream again under another name"
            )
        late = PutTimeout if count else TimeoutError
        error = late(f"stream {name!r}: nothing happened within the timeout")
        if isinstance(error, PutTimeout):
            error.count = count
        raise error

    def _misfit(self) -> NoReturn:
        raise LayoutError(
            f"stream {self._name!r}: its control block does not fit the file; it was "
            "damaged: remove it"
        )


@contextlib.contextmanager
def no_new_names(segment: Segment) -> Iterator[bool]:
    """Block registrations, and producers that resume, while the name is taken away.

    A reader that registered before is seen; a later one finds the name gone. Yields
    whether they are blocked; if not, another process blocks them for long.
    """
    part = segment.participant
    tries = HOLD_TRIES
    while not (is_held := snapshot.hold_names(part)) and tries:
        time.sleep(0.001)
        tries -= 1
    try:
        yield is_held
    finally:
        if is_held:
            snapshot.free_names(part)


def finalize(segment: Segment) -> None:
    """Take the name of an ended stream away once it was read to its end.

    Called by each participant that leaves. A stream that no reader has read to its end
    keeps its name until one has, a producer reuses it, or 'ataraxis gc' removes it.
    """
    part = segment.participant
    if part.is_inherited:
        return
    part.sweep()
    tail, sent, *_, drained = snapshot.words(part)
    if snapshot.is_over(part) and (drained >= tail or sent == 0):
        with no_new_names(segment):
            segment.unlink()


def _close_all() -> None:
    """Leave every stream that is open when the program ends."""
    begin_exit()
    for end in list(_open_ends):
        end._drop()  # noqa: SLF001


def check_timeout(timeout: Any) -> None:
    """Raise `ValueError` unless a timeout is None or 0 or more, s."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or >= 0 s, got {timeout!r}")


# ---- a stream's segment: made, joined, or replaced if its producers are gone

TRIES = 8
DURABLE_WAIT_S = 2.0
REGISTER_TRIES = 200


def open_to_send(
    name: str,
    labels: Labels,
    slots: int,
    capacity: int,
    flags: int,
    *,
    context: ContextLike,
    participants: int,
    mode: int | None,
    group: str | int | None,
    first: int = 0,
) -> Segment:
    """Make the stream, or join it as another producer if it is shared.

    A stream that can be resumed, and whose producer died, is joined if labels, geometry
    and flags are the same. `first` is the number of the first frame of one that is
    made. Raises `StreamExists` if a live producer has the name, or a durable reader has
    frames to read.
    """
    geometry = slots, capacity, flags

    def fill(segment: Segment) -> None:
        g = segment.header.geometry
        control = np.frombuffer(memoryview(segment.mapping), np.uint8)
        control = control[g.control : g.control + g.control_bytes]
        snapshot.describe(control, *geometry[:2], participants, flags, first)
        snapshot.announce(segment.participant)

    for attempt in range(TRIES):
        joined = _join(name, labels, geometry, context)
        if joined is not None:
            return joined
        try:
            return Segment.create(
                name,
                Kind.STREAM,
                labels,
                control_bytes=snapshot.control_bytes(slots, participants),
                payload_bytes=slots * snapshot.stride_of(capacity),
                fill=fill,
                context=context,
                participants=participants,
                mode=mode,
                group=group,
            )
        except SegmentExists:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _join(
    name: str, labels: Labels, geometry: tuple[int, int, int], context: ContextLike
) -> Segment | None:
    """Join a live shared stream, or one to resume; or remove one without producers."""
    flags = geometry[2]
    try:
        old = Segment.attach(name, kind=Kind.STREAM, context=context)
    except (SegmentNotFound, LayoutError):
        return None
    old.participant.sweep()
    found = snapshot.geometry(old.participant)[2]
    is_alike = snapshot.geometry(old.participant) == geometry and old.labels == labels
    if flags & RESUMABLE and is_alike and _take_over(old):
        return old
    if snapshot.producers(old.participant):
        if not flags & found & SHARED:
            if flags & RESUMABLE:
                raise StreamExists(
                    f"stream {name!r} in {old.context.path} has a live producer: "
                    "resume=True goes on with it once that one has died; end it, or "
                    "use another name"
                )
            raise StreamExists(
                f"stream {name!r} in {old.context.path} has a producer already: read "
                f"it with Consumer({name!r}), use another name, or give both "
                "producers shared=True"
            )
        if old.labels != labels or found != flags:
            raise StreamExists(
                f"stream {name!r} has other labels, sizes or policy than this "
                f"producer's ({old.labels}): give both the same"
            )
        return old
    # An ended stream stays ended; its readers keep the frames that they have.
    deadline = time.monotonic() + DURABLE_WAIT_S
    while _reader_behind(old) and time.monotonic() < deadline:
        time.sleep(0.01)
    with no_new_names(old):
        if behind := _reader_behind(old):
            is_over = snapshot.is_over(old.participant)
            state = "ended" if is_over else "lost its producer"
            advice = "" if is_over else "; resume=True with the same labels goes on"
            raise StreamExists(
                f"stream {name!r} has {state}, but holds frames that its durable "
                f"reader {behind!r} has not read: start that reader, or 'ataraxis "
                f"recover'{advice}"
            )
        if snapshot.producers(old.participant):
            return None  # one has resumed it: the next try finds it
        snapshot.end(old.participant)
        snapshot.keep(old.participant, False)
        old.unlink()
    return None


def _take_over(segment: Segment) -> bool:
    """Become the producer of a stream whose producer died; return whether it worked.

    Of several that try, one does. A stream that has ended, or whose name was taken
    away, is not resumed.
    """
    part = segment.participant
    with no_new_names(segment) as is_alone:
        part.sweep()
        if not is_alone or segment.meaning_of_name() != "this":
            return False
        return snapshot.take_over(part)


def _reader_behind(segment: Segment) -> str | None:
    """Return the name of a durable reader that has frames to read, or None."""
    segment.participant.sweep()
    tail = snapshot.words(segment.participant)[0]
    for name in snapshot.registered(segment.participant):
        return str(name, "utf-8", "replace")
    for entry in snapshot.readers(segment.participant):
        if entry[1] and entry[3] < tail:
            return entry[10].decode("utf-8", "replace")
    return None


def register_durable(segment: Segment, durable: str, timeout: float | None) -> int:
    """Take the line of a durable name, and return its number."""
    limit = (1 << 63) if timeout is None else int(timeout * 1e9)
    for _ in range(REGISTER_TRIES):
        segment.participant.sweep()
        line = snapshot.register_durable(segment.participant, durable.encode(), limit)
        if line is None:
            time.sleep(0.001)
        elif line == BUSY:
            raise NotConnectedError(
                f"stream {segment.name!r}: a live consumer reads as durable "
                f"{durable!r}; close it, or use another name"
            )
        elif line == snapshot.RETIRED and segment.meaning_of_name() == "this":
            time.sleep(0.001)  # a producer checked whether the name may go: it stays
        elif line == snapshot.RETIRED:
            raise StreamUnavailable(
                f"stream {segment.name!r} has ended, and its name was taken away just "
                "now: wait for the next stream of the name, timeout="
            )
        elif line < 0:
            raise TooManyParticipants(
                f"stream {segment.name!r} has 16 durable names already; no more fit"
            )
        else:
            return line
    raise TimeoutError(f"stream {segment.name!r}: could not register {durable!r}")


# ---- values as payloads of frames

RAW, STR, ND_ARR = 0, 5, 9
TYPED_LABELS = 1
_CODES = {
    "u1": 1, "u2": 2, "u4": 3, "u8": 4, "i1": 10, "i2": 11, "i4": 12, "i8": 13,
    "f2": 14, "f4": 15, "f8": 16, "c8": 17, "c16": 18, "b1": 19,
}  # fmt: skip
_DTYPES = {code: np.dtype(text) for text, code in _CODES.items()}
_BYTES = np.dtype("u1")


class Encoded(NamedTuple):
    """A value as the payload of a frame."""

    code: int
    shape: tuple[int, ...]
    data: Any
    labels: int
    pickled: bool


@lru_cache(64)
def code_of(dtype: np.dtype[Any]) -> int:
    """Return the frame's code of a dtype; `ND_ARR` for one that needs labels."""
    if dtype.names is not None or not dtype.isnative:
        return ND_ARR
    return _CODES.get(dtype.str[1:], ND_ARR)


def dtype_of(code: int) -> np.dtype[Any]:
    """Return the dtype of a frame's items; uint8 if it is not an array."""
    return _DTYPES.get(code, _BYTES)


def encode(value: Any, labels: Labels | None, what: str) -> Encoded:
    """Encode a value, for a stream with a dtype if `labels` are given.

    `what` names the stream in errors: `TypeError` if a stream does not take such a
    value, or it is not of the stream's dtype; `ValueError` if it would change: 300 does
    not fit uint8.
    """
    if isinstance(value, str):
        return Encoded(STR, (), value.encode(), 0, False)
    if isinstance(value, bytes | bytearray | memoryview):
        view = memoryview(value)
        data = view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
        return Encoded(RAW, (), data, 0, False)
    if is_data_array(value):
        value = (
            value.values
            if labels is None
            else align(value, labels.dims, labels.coords, what)
        )
    array = unmasked(value, what)
    if labels is not None:
        dtype = labels.dtype
        if array.dtype != dtype and not _may_fit(value, array, dtype):
            if dtype.names is not None:
                fields = ", ".join(f"{n} ({dtype[n]})" for n in dtype.names)
                raise TypeError(
                    f"the stream holds records of the fields {fields}, the value is "
                    f"{array.dtype}: send a structured array of that dtype, as "
                    "np.array([(...)], stream.labels.dtype)"
                )
            raise TypeError(
                f"the stream holds {dtype}, the value is {array.dtype}: convert it "
                f"first, array.astype({dtype.str!r})"
            )
        if array.dtype != dtype:
            array = fit(value, dtype, None, what)
    elif code_of(array.dtype) == ND_ARR:
        raise TypeError(
            f"a stream without a dtype does not take {array.dtype}: make it with "
            "dtype= and shape=, or send bytes"
        )
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    sign = 0 if labels is None else TYPED_LABELS
    payload: Any = flat if array.nbytes else b""
    return Encoded(code_of(array.dtype), array.shape, payload, sign, False)


def _may_fit(value: Any, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Return whether a kind of value may fit `dtype`; `fit` compares the values."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    if isinstance(value, np.ndarray | np.generic):
        return False
    return bool(np.can_cast(array.dtype, dtype, "same_kind")) or (
        array.dtype.kind in "iu" and dtype.kind in "iuf"
    )
