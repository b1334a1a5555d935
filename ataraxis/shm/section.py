"""A write section: the lock held and the memory lent, for the length of a ``with``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ataraxis._kernels.lock import leave

if TYPE_CHECKING:
    from ataraxis._kernels.memory import Participant
    from ataraxis.shm.state import State


class Section:
    """Lend an array's memory for the length of a ``with`` block.

    Made by ``array.array()``. If the process dies inside, the data count as half
    written (`OwnerDied`) until they are healed.

    Parameters
    ----------
    array : State
        Whose memory it is.
    is_locked : bool
        Hold the lock and lend a writable view; else a read-only one.
    is_dirty : bool
        Whether anything may be half written from the start. Else only the lock is held,
        and the version stands still, until `_mark_dirty`.
    """

    def __init__(self, array: State, *, is_locked: bool, is_dirty: bool = True) -> None:
        self._array = array
        self._is_locked = is_locked
        self._is_dirty = is_dirty
        self._open: list[tuple[NDArray[Any], Participant]] = []

    def __enter__(self) -> NDArray[Any]:
        array = self._array
        if not self._is_locked:
            array._guard_or_revive()
            view = array._view.view()
            view.flags.writeable = False
            return view
        array._acquire(None)
        if self._is_dirty:
            array._mark_dirty()
        view = array._view.view()
        assert array._participant is not None
        self._open.append((view, array._participant))
        return view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_locked:
            view, participant = self._open.pop()
            # Kept views go on as read-only ones.
            view.flags.writeable = False
            leave(participant)
