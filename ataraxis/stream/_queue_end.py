"""What both halves of a queue's handle share; a status becomes an exception here."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from ataraxis._kernels import queue_handle as status_of
from ataraxis._kernels.queue_handle import QueueHandle
from ataraxis.clock import now_ns
from ataraxis.errors import (
    GetTimeout,
    NotConnectedError,
    PutTimeout,
    QueueEmpty,
    QueueFull,
)
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment

if TYPE_CHECKING:
    from ataraxis._kernels.queue_handle import Grip
    from ataraxis.shm.context import Context
    from ataraxis.stream.lease import Lease

_NEVER = (1 << 63) - 1


class QueueEnd(QueueHandle):
    """The kernel with manners."""

    _name: str
    _where: Context
    _uuid: bytes
    _manner: str
    _checksum: bool
    _allow_pickle: bool
    _segment: Segment | None

    def _begin(self) -> None:
        """Forget whatever is leased: at the start, and in a forked child."""
        self._guard = threading.RLock()
        self._pocket: deque[Grip] = deque()
        self._unfinished: deque[Lease] = deque()
        self._larges: list[str] = []
        self._is_plain = self._manner == "get"

    @property
    def _is_copy(self) -> bool:
        """Whether this is a forked child's copy of a handle, not attached itself."""
        return self._segment is not None and self._segment.participant.is_inherited

    def _attached(self) -> Segment:
        """Return the segment, or raise because the handle was closed."""
        if not self.is_open or self._is_copy:
            self._revive()
        assert self._segment is not None
        return self._segment

    def _plug(self, segment: Segment) -> None:
        raise NotImplementedError

    def _revive(self) -> None:
        """Attach anew in a forked child; else say why the handle is of no use."""
        if not self._is_copy:
            raise NotConnectedError(
                f"queue {self._name!r}: this handle was closed; attach({self._name!r})"
            )
        segment = Segment.attach(
            self._name, kind=Kind.QUEUE, context=self._where, uuid=self._uuid
        )
        self._begin()
        self._plug(segment)

    def _fail(self, status: int, is_put: bool, count: int = 0) -> NoReturn:
        """Turn a status of the kernel into its exception; the only place that does."""
        name = self._name
        error: QueueFull | QueueEmpty | PutTimeout | GetTimeout
        if status == status_of.FULL:
            error = QueueFull(
                f"queue {name!r}: every slot holds a frame that is not acknowledged; "
                "wait with timeout=, start more getters, or make it with a larger "
                "buffer_count="
            )
        elif status == status_of.EMPTY:
            error = QueueEmpty(f"queue {name!r} holds nothing; wait with timeout=")
        elif is_put:
            error = PutTimeout(
                f"queue {name!r}: no slot came free within the timeout; see "
                "statistics() for who holds them"
            )
        else:
            error = GetTimeout(f"queue {name!r}: nothing came within the timeout")
        if isinstance(error, QueueFull | PutTimeout):
            error.count = count
        raise error

    def _deadline(self, block: bool, timeout: float | None) -> int:
        """Turn a timeout in s into a monotonic time, ns; 0: do not wait."""
        if not block or timeout == 0:
            return 0
        if timeout is None or timeout > 9e8 or math.isinf(timeout):
            return _NEVER
        return now_ns() + int(timeout * 1e9)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a name: the other process attaches."""
        return _arrive, (
            type(self),
            self._name,
            str(self._where.path),
            self._uuid,
            (self._manner, self._checksum, self._allow_pickle),
        )


def _arrive(kind: Any, name: str, where: str, uuid: bytes, manners: Any) -> Any:
    """Attach to the queue that a pickled handle named."""
    segment = Segment.attach(name, kind=Kind.QUEUE, context=where, uuid=uuid)
    return kind.of_segment(segment, *manners)
