"""What both ends of a stream share; a status becomes an exception here."""

from __future__ import annotations

import atexit
import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ataraxis._kernels import consumer as status_of
from ataraxis._kernels import snapshot
from ataraxis.errors import (
    DataOverflow,
    EndOfStream,
    LayoutError,
    NotConnectedError,
    PutTimeout,
    QueueFull,
)
from ataraxis.stream.statistics import StreamStatistics, survey_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ataraxis.labels import Labels
    from ataraxis.shm.segment import Segment

SHARED, SYNC, TYPED = 1, 2, 4
HOLD_TRIES = 200

_open_ends: weakref.WeakSet[End] = weakref.WeakSet()


def plain_name(name: str | bytes) -> str:
    """Return the plain name of a stream given in one of MomentumX's ways.

    ``bytes`` are decoded and a leading ``mx://`` is taken off; what is left must be a
    segment's name.
    """
    text = name.decode() if isinstance(name, bytes) else name
    return text[5:] if isinstance(text, str) and text[:5] == "mx://" else text


class End:
    """A handle on a stream; `Producer` and `Consumer` are the two."""

    _name: str
    _segment: Segment | None = None
    _labels: Labels
    _slots: int
    _capacity: int
    _flags: int
    _shut: Callable[[], None]  # the kernel's

    def _begin(self, segment: Segment) -> None:
        """Take the segment; it is left with the last reference, or with the program."""
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
        segment, self._segment = self._segment, None
        if segment is None:
            return
        self._shut()
        farewell(segment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Leave with the last reference."""
        self._drop()

    def _drop(self) -> None:
        """Leave unasked: the last reference, or the program, ends."""
        self.close()

    @property
    def name(self) -> str:
        """Name of the stream in its context."""
        return self._name

    # ---- what the stream is; also after closing

    @property
    def labels(self) -> Labels:
        """dtype, shape, dims, coords and attrs of a frame."""
        return self._labels

    @property
    def is_typed(self) -> bool:
        """Whether the stream has a shape and dtype, or holds any bytes."""
        return bool(self._flags & TYPED)

    @property
    def is_sync(self) -> bool:
        """Whether consumers that do not say are lossless."""
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
        """Number of the last frame sent, from 1; 0 before the first."""
        return snapshot.words(self._attached().participant)[1]

    def statistics(self) -> StreamStatistics:
        """Read the stream's control words; disturbs nobody."""
        return survey_stream(self._name, self._attached().participant)

    def _attached(self) -> Segment:
        """Return the segment, or raise because the handle was closed."""
        if self._segment is None or self._segment.participant.is_inherited:
            self._revive()
        assert self._segment is not None
        return self._segment

    def _revive(self) -> NoReturn:
        """Say why the handle cannot be used any more."""
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
        """Turn a status of the kernel into its exception; the only place that does.

        `count` of several rows were sent before.
        """
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
                f"stream {name!r}: every slot holds a frame that a reader has yet to "
                "read; see statistics(), use a larger buffer_count=, or on_full="
                '"block"'
            )
            full.count = count
            raise full
        if status == status_of.ENDED:
            raise EndOfStream(f"stream {name!r} has ended and everything was read")
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
def no_new_names(segment: Segment) -> Iterator[None]:
    """Keep readers from being promised what is about to go.

    Who registers before is seen; who registers after sees that the name is gone.
    """
    part = segment.participant
    tries = HOLD_TRIES
    while not (is_held := snapshot.hold_names(part)) and tries:
        time.sleep(0.001)
        tries -= 1
    try:
        yield
    finally:
        if is_held:
            snapshot.free_names(part)


def farewell(segment: Segment) -> None:
    """Take the name of an ended stream away once it was read to its end.

    Called by whoever leaves. A stream nobody has read to its end keeps its name, until
    a reader has, a producer reuses it, or 'ataraxis gc'.
    """
    part = segment.participant
    if part.is_inherited:
        return
    part.sweep()
    tail, sent, *_, drained = snapshot.words(part)
    if not snapshot.producers(part) and (drained >= tail or sent == 0):
        with no_new_names(segment):
            segment.unlink()


def _close_all() -> None:
    """Leave every stream that is still open when the program ends."""
    for end in list(_open_ends):
        end._drop()  # noqa: SLF001 - ours, above


def check_timeout(timeout: Any) -> None:
    """Refuse what is no time to wait."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or >= 0 s, got {timeout!r}")
