"""The lock of an array, as an object: for several steps that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

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
