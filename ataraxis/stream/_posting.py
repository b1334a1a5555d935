"""What a pipeline does with a queue's handle: frames that say which value they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ataraxis._kernels import queue_handle as status_of
from ataraxis._kernels.queue_handle import Parcel
from ataraxis.stream._putting import Putting
from ataraxis.stream.held import Held

if TYPE_CHECKING:
    from ataraxis._kernels.queue_handle import Grip
    from ataraxis.stream.lease import Lease

_WAITED = (status_of.FULL, status_of.TIMEOUT)


class Posting(Putting):
    """Putting and leasing of frames with an origin, as quick as it goes."""

    def post(
        self,
        value: Any,
        code: int,
        origin: tuple[int, int, int],
        source: int,
        time_ns: int,
        timeout: float | None,
    ) -> bool | None:
        """Put a value as a frame with an origin; whether it found room.

        Parameters
        ----------
        value : object
            A number, None, bytes, text or an array: written where it will lie.
        code : int
            How to write it, a `DType`; -1: as itself.
        origin : tuple of int
            The frame's `Origin`: source, sequence, part. The sequence is the frame's.
        source, time_ns : int
            Of the frame.
        timeout : float or None
            As for `offer`.

        Returns
        -------
        bool or None
            None: it does not go that way, nothing was done; encode it and `offer`.
        """
        deadline = 0 if timeout == 0 else self._deadline(True, timeout)
        status = self._post(value, code, *origin, 0, source, time_ns, deadline)
        if status == status_of.OK:
            return True
        return False if status in _WAITED else None

    def hold(self, timeout: float | None = None) -> Parcel | Held | Lease | None:
        """Lease a frame; None if none came within `timeout`, s.

        For those who decode frames themselves. What `post` has put comes as a `Parcel`,
        decoded and checked; any other frame as its bytes, `Held`; one that shares its
        slot with others, or lies in a segment of its own, as a `Lease`.
        """
        deadline = 0 if timeout == 0 else self._deadline(True, timeout)
        while not self._pocket:
            found = self._fetch(deadline)
            if isinstance(found, Parcel):
                return found
            if isinstance(found, int):
                return None
            held = self.adopt(found)
            if held is not None:
                return held
        return self.lease(True, timeout)

    def adopt(self, grip: Grip) -> Held | None:
        """Hold a slot that the kernel has leased; None: look into it by `hold`."""
        if grip.pending == 1 and not grip.is_large:
            data = self._copy(grip, 0)
            return None if data is None else Held(self._settle, grip, data)
        with self._guard:
            self._pocket.append(grip)
            self._is_plain = False
        return None
