"""`END_OF_STREAM`, the last item that a sink receives, and its reason."""

from __future__ import annotations

import pickle
from typing import Literal

Reason = Literal["completed", "stopped", "failed", "lost"]


class End:
    """The end of a stream. All ends are equal, whatever their reason, and false.

    Compare with ``item == END_OF_STREAM``. A stream that was read to its end delivers
    `END_OF_STREAM` itself; any other end is equal to it and has the reason.

    Parameters
    ----------
    reason : {'completed', 'stopped', 'failed', 'lost'}
        Read to its end; stopped by `stop_task`; an error; a live source went away.
    error : Exception, optional
        The error of 'failed' and 'lost'.

    Examples
    --------
    >>> lost = End("lost", ConnectionError("cable"))
    >>> lost == END_OF_STREAM, lost == {}, bool(lost)
    (True, False, False)
    >>> lost
    END_OF_STREAM(lost: ConnectionError: cable)
    """

    __slots__ = ("error", "reason")
    __array_ufunc__ = None  # array == END_OF_STREAM is one bool

    reason: Reason
    error: Exception | None

    def __init__(
        self, reason: Reason = "completed", error: Exception | None = None
    ) -> None:
        self.reason = reason
        self.error = error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, End)

    def __ne__(self, other: object) -> bool:
        # Called for each item of a stream: faster than the negated __eq__.
        return not isinstance(other, End)

    def __hash__(self) -> int:
        return hash(End)

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> tuple[object, ...]:
        if self.reason == "completed" and self.error is None:
            return _the_end, ()
        return _an_end, (self.reason, portable(self.error))

    def __repr__(self) -> str:
        why = "" if self.error is None else f": {type(self.error).__name__}"
        return f"END_OF_STREAM({self.reason}{why}{': ' if why else ''}" + (
            f"{self.error})" if why else ")"
        )


END_OF_STREAM = End()
"""Delivered last; unpickling returns this same object."""


def _the_end() -> End:
    return END_OF_STREAM


def _an_end(reason: Reason, error: Exception | None) -> End:
    return End(reason, error)


def portable(error: Exception | None) -> Exception | None:
    """Return the error, or one with its text if it does not survive pickling."""
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a foreign error's pickling may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
