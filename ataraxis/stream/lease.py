"""Lease: a frame that one getter has, and has not acknowledged yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ataraxis.errors import LeaseLost
from ataraxis.frame import Frame

if TYPE_CHECKING:
    from ataraxis._kernels.queue_handle import Grip


class Lease:
    """A frame out to a getter: nobody else gets it until it is given back.

    Made by `MemQ.lease`. A context manager: acknowledges at the end of the block, gives
    the frame back after an exception. If the process dies first, or drops the lease,
    another getter gets the frame.

    Examples
    --------
    >>> from ataraxis import MemQ
    >>> queue = MemQ()
    >>> queue.put("scan 7")
    >>> with queue.lease() as job:
    ...     job.value, job.attempt
    ('scan 7', 1)
    >>> queue.empty()
    True
    """

    def __init__(
        self,
        name: str,
        grip: Grip,
        place: int,
        frame: Frame,
        finish: Callable[[bool], bool],
    ) -> None:
        self._name = name
        self._grip = grip
        self._place = place
        self._frame = frame
        self._finish = finish
        self._is_over = False

    @property
    def frame(self) -> Frame:
        """The frame: a copy, or a view of the segment of its own; stays valid."""
        return self._frame

    @property
    def value(self) -> Any:
        """What was put, read anew at each use; arrays are views of `frame`."""
        return self._frame.value

    @property
    def id(self) -> int:
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self._grip.id * 64 + self._place

    @property
    def attempt(self) -> int:
        """1 at the first delivery; more after somebody had it and failed."""
        return self._grip.failures + 1

    @property
    def is_over(self) -> bool:
        """Whether it was acknowledged or given back."""
        return self._is_over

    def acknowledge(self) -> None:
        """Say that the frame is done with; does nothing the second time.

        Raises
        ------
        LeaseLost
            The lease ran out, and another getter has, or had, the frame.
        """
        if not self._is_over:
            self._is_over = True
            if not self._finish(True):
                raise LeaseLost(
                    f"queue {self._name!r}: the lease of frame {self.id} ran out "
                    "before it was acknowledged, and another getter has it; make the "
                    "queue with a longer lease_timeout="
                )

    def give_back(self) -> None:
        """Let another getter have the frame; does nothing after the lease is over."""
        if not self._is_over:
            self._is_over = True
            self._finish(False)

    ack = acknowledge
    nack = give_back

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Acknowledge; give back after an exception."""
        if kind is None:
            self.acknowledge()
        else:
            self.give_back()

    def __del__(self) -> None:
        """Give back what was dropped."""
        if not getattr(self, "_is_over", True):
            self.give_back()

    def __repr__(self) -> str:
        state = "over" if self._is_over else f"attempt {self.attempt}"
        return f"<Lease of frame {self.id}, {state}>"
