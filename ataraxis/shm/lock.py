"""The lock of an array, for several steps that belong together."""

from __future__ import annotations

from typing import Any, Protocol

from ataraxis._kernels.lock import LockKernel, SectionKernel


class Guarded(Protocol):
    """What a `Lock` needs of the array that it guards."""

    @property
    def name(self) -> str:
        """Name of the array in its context."""

    def statistics(self) -> Any:
        """Read the array's control words."""


class Lock(LockKernel):
    """The lock of a `SharedMemoryArray`, between processes and threads.

    It is reentrant. If its owner dies, the next thread that takes it gets it (warning
    `LockRecovered`).

    Parameters
    ----------
    array : SharedMemoryArray
        Array whose lock it is; ``array.lock`` makes it.

    Notes
    -----
    ``with array.lock`` releases the lock in any case: also when a signal handler raises
    between two instructions.

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

    def __init__(self, array: Guarded) -> None:
        self._array = array

    @property
    def recoveries(self) -> int:
        """How often it was taken from an owner that had died."""
        return int(self._array.statistics().recoveries)

    def __repr__(self) -> str:
        state = "held by this thread" if self.is_held else "not held by this thread"
        return f"<Lock of {self._array.name!r}, {state}>"


class Section(SectionKernel):
    """Give a view of an array's memory in a ``with`` block.

    Made by ``array.array()``. If the process dies inside, the data count as half
    written (`OwnerDied`) until they are healed. An exception inside, also of a signal
    handler, releases the lock; what was written until then stays.
    """
