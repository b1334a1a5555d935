"""`Held`: a leased frame as its bytes, for those who decode it themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ataraxis.errors import AtaraxisError, LeaseLost

if TYPE_CHECKING:
    from ataraxis._kernels.queue_handle import Grip


class Held:
    """What a `Lease` is, without its comfort: quick to make, and nothing is decoded.

    Made by `MemQ.hold`.
    """

    __slots__ = ("_grip", "_is_over", "_settle", "data")

    def __init__(
        self, settle: Callable[[Grip, int, bool], int], grip: Grip, data: bytes
    ) -> None:
        self._settle, self._grip = settle, grip
        self._is_over = False
        self.data = data
        """The whole frame; its checksums were not looked at."""

    @property
    def id(self) -> int:
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self._grip.id * 64

    @property
    def attempt(self) -> int:
        """1 at the first delivery; more after somebody had it and failed."""
        return self._grip.failures + 1

    def acknowledge(self) -> None:
        """Say that the frame is done with; `LeaseLost` if the lease ran out before."""
        if not self._is_over:
            self._is_over = True
            if self._settle(self._grip, 1, False):
                raise LeaseLost(f"the lease of frame {self.id} ran out")

    def give_back(self) -> None:
        """Let another getter have the frame; does nothing after the lease is over."""
        if not self._is_over:
            self._is_over = True
            self._settle(self._grip, 0, True)

    def __del__(self) -> None:
        """Give back what was dropped."""
        if not self._is_over:
            with suppress(AtaraxisError):  # the handle was closed: that gave it back
                self.give_back()
