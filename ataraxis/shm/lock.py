"""The lock of an array, as an object: for several steps that belong together."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ataraxis._kernels.lock import leave

if TYPE_CHECKING:
    from ataraxis._kernels.memory import Participant
    from ataraxis.shm.array import SharedMemoryArray


class Lock:
    """The lock of a `SharedMemoryArray`, between processes and threads.

    Taken again by the thread that holds it, it only counts. If its owner dies, the
    next to take it gets it (warning `LockRecovered`).

    Parameters
    ----------
    array : SharedMemoryArray
        Whose lock it is; ``array.lock`` makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import SharedMemoryArray
    >>> with SharedMemoryArray.create_array("doc_lock", np.zeros(2)) as pair:
    ...     with pair.lock:
    ...         pair[0] = 1.0
    ...         pair[1] = 2.0
    ...     pair[...].tolist()
    [1.0, 2.0]
    """

    def __init__(self, array: SharedMemoryArray) -> None:
        self._array = array

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s. ``None`` waits without end, ``0`` does not wait.

        Returns
        -------
        bool
            Whether it was taken.

        Notes
        -----
        Waits with the GIL released; Ctrl-C ends the wait. From your first write until
        `release`, readers everywhere wait: they see all of your writes or none.
        """
        return self._array._acquire(timeout)

    def release(self) -> None:
        """Give the lock back.

        Raises
        ------
        RuntimeError
            This thread does not hold it.
        """
        self._array._release()

    @property
    def is_held(self) -> bool:
        """Whether this thread holds it."""
        return self._array._held()

    @property
    def recoveries(self) -> int:
        """How often it was taken from an owner that had died, ever."""
        return self._array.statistics().recoveries

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "held by this thread" if self.is_held else "not held by this thread"
        return f"<Lock of {self._array.name!r}, {state}>"


# ---- a write section: the lock held and the memory lent, for the length of a ``with``


class Section:
    """Lend an array's memory for the length of a ``with`` block.

    Made by ``array.array()``. If the process dies inside, the data count as half
    written (`OwnerDied`) until they are healed.

    Parameters
    ----------
    array : SharedMemoryArray
        Whose memory it is.
    is_locked : bool
        Hold the lock and lend a writable view; else a read-only one.
    is_dirty : bool
        Whether anything may be half written from the start. Else only the lock is held,
        and the version stands still, until `_mark_dirty`.
    """

    def __init__(
        self, array: SharedMemoryArray, *, is_locked: bool, is_dirty: bool = True
    ) -> None:
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
