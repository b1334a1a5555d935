"""An array's state: its control words, waiting for change, a death repaired."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ataraxis._kernels import lock as status_of
from ataraxis._kernels.array import ArrayKernel
from ataraxis.errors import LockRecovered, OwnerDied, StaleSegment
from ataraxis.labels import Labels
from ataraxis.shm.section import Section


@dataclass(frozen=True)
class ArrayStatistics:
    """What an array's control words say; read without the lock."""

    version: int
    """Writes that are complete."""
    is_torn: bool
    """Whether a writer died half way and nobody has healed the data."""
    recoveries: int
    """Times the lock was taken from an owner that had died."""
    torn: int
    """Times data were left half written."""
    torn_pid: int
    """Process that died half way last; 0 if none ever did."""
    owner: int
    """Participant slot that holds the lock; -1 if free."""


class State(ArrayKernel):
    """The kernel with manners: statuses become exceptions here, and only here."""

    _name: str
    _labels: Labels
    _view: NDArray[Any]

    def _lend(self, view: NDArray[Any]) -> None:
        """Take the live view that the forms not known to the kernel work on."""
        self._view = view

    def wait_for_change(
        self, timeout: float | None = None, *, since: int | None = None
    ) -> int:
        """Wait until somebody completes a write.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s. ``None`` waits without end, ``0`` only looks.
        since : int, optional
            A `version` seen before: returns at once if there is a newer one. The
            version now, if not given.

        Returns
        -------
        int
            The version now.

        Raises
        ------
        TimeoutError
            Nothing changed within `timeout`.
        StaleSegment
            The array was destroyed, so that nothing new can be expected by name.

        Notes
        -----
        Sleeps in the kernel with the GIL released; Ctrl-C ends the wait.
        """
        if since is None:
            since = self.statistics().version
        status = self._wait_change(since, timeout)
        while status == status_of.RETIRED and self._is_named():
            # Somebody tried to take the name of a live array and is giving it back.
            status = self._wait_change(since, timeout)
        if status != status_of.OK:
            self._fail(status)
        return self.statistics().version

    def statistics(self) -> ArrayStatistics:
        """Read the array's control words."""
        words = self._guard_or_revive()
        version, health, recoveries, torn, pid, owner = words
        return ArrayStatistics(version, bool(health), recoveries, torn, pid, owner)

    def heal(self) -> None:
        """Declare the data whole again after a writer died half way.

        Look at them first, under ``with array.array() as view``, and put right what is
        wrong. Writing the whole array heals too.
        """
        with Section(self, is_locked=True):
            self._heal()

    def _is_named(self) -> bool:
        """Whether the name still means this array; the subclass knows."""
        return False

    # ---- what the kernel asks for

    def _guard_or_revive(self) -> tuple[int, int, int, int, int, int]:
        self._ready()
        words = self._guard()
        assert words is not None
        return words

    def _check_not_torn(self) -> None:
        if self._guard_or_revive()[1]:
            self._fail(status_of.TORN)

    def _fail(self, status: int) -> None:
        """Turn a status of the kernel into its exception; the only place that does."""
        name = self._name
        if status == status_of.TORN:
            pid = self.statistics().torn_pid
            raise OwnerDied(
                f"array {name!r}: process {pid} died in the middle of a write, and "
                "data may be half written. Look with 'with array.array() as view', "
                "then call heal(); or write the whole array"
            )
        if status == status_of.OVERFLOW:
            raise OverflowError(
                f"array {name!r}: the sum does not fit {self._labels.dtype}; nothing "
                "was changed"
            )
        if status == status_of.RETIRED:
            raise StaleSegment(
                f"array {name!r} was destroyed: nobody new can attach and change it"
            )
        raise TimeoutError(
            f"array {name!r}: nobody completed a write within the timeout; its version "
            f"is {self.statistics().version}. Writes before the call count only with "
            "since=, a version seen earlier"
        )

    def _warn_recovered(self) -> None:
        """Say once that a lock was taken from a dead owner."""
        part = self._participant
        count = part.take_recovered() if part is not None else 0
        if count:
            warnings.warn(
                f"the lock of array {self._name!r} was recovered from a process that "
                f"died holding it ({count}x); its data are "
                + ("half written, see OwnerDied" if self._is_torn() else "whole"),
                LockRecovered,
                stacklevel=4,
            )

    def _is_torn(self) -> bool:
        words = self._guard()
        return words is not None and bool(words[1])
