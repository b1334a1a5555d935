"""Consumer: the end of a stream that receives."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Literal

from ataraxis._kernels import snapshot
from ataraxis._kernels.consumer import OK, Frame
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.stream._end import SYNC, TYPED, check_timeout, plain_name
from ataraxis.stream._opening import register_durable
from ataraxis.stream.rows import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_POLICIES = {"lossless": 0, "lossy": 1, "latest": 2}


class Consumer(Rows):
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

    async def receive_async(self) -> Frame | None:
        """Wait for the next frame without blocking the event loop; None at the end.

        One thread of this process sleeps for all consumers that wait.
        """
        from ataraxis.stream.waiting import wait_async

        return await wait_async(self)

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
        super().close()

    def _drop(self) -> None:
        # Only `close` gives a durable name up: after a crash its frames wait.
        if self._durable is None:
            self.close()

    _durable: str | None = None

    def __repr__(self) -> str:
        state = "closed" if self._segment is None else "open"
        return f"<Consumer {self._name!r}, {self._policy}, {state}>"


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
