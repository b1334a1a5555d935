"""What sources share: what they give, what they hold while open, a wait in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ataraxis.clock import now_ns
from ataraxis.datamux.description import Stream
from ataraxis.errors import NotConnectedError
from ataraxis.labels import Labels

T = TypeVar("T")
_SLICE_S = 0.05


class Known:
    """A source that knows what it gives before it is opened.

    Parameters
    ----------
    stream : Stream
        What it gives.

    Examples
    --------
    >>> from ataraxis.datamux import Field
    >>> Known(Stream("x", fields={"a": Field(dtype="i16")})).labels.dtype
    dtype('int16')
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._labels = stream.labels()
        self.lost = 0
        """Samples it knows it lost."""

    @property
    def stream(self) -> Stream:
        """What it gives."""
        return self._stream

    @property
    def labels(self) -> Labels:
        """Labels of one sample."""
        return self._labels


class Held(Generic[T]):
    """What a source holds while it is open: a port, an inlet, a reader.

    Parameters
    ----------
    what : str
        Whose it is, for errors: "camera 0".
    close : callable
        Lets go of it.

    Examples
    --------
    >>> import io
    >>> held = Held("the file", io.StringIO.close)
    >>> held.hold(io.StringIO("x"))
    >>> held.get().read(), held.close(), held.is_open
    ('x', None, False)
    """

    def __init__(self, what: str, close: Callable[[T], object]) -> None:
        self._what = what
        self._close = close
        self._thing: T | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is held."""
        return self._thing is not None

    def hold(self, thing: T) -> None:
        """Hold it, instead of what was held before."""
        self.close()
        self._thing = thing

    def get(self) -> T:
        """Return it.

        Raises
        ------
        NotConnectedError
            The source is not open.
        """
        if self._thing is None:
            raise NotConnectedError(f"{self._what} is closed: open() the source first")
        return self._thing

    def close(self) -> None:
        """Let go of it; twice is fine."""
        thing, self._thing = self._thing, None
        if thing is not None:
            self._close(thing)


def wait_until(due_ns: int, timeout: float | None) -> bool:
    """Wait until a monotonic time, no longer than `timeout`, s; whether it is there."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (ahead_s := (due_ns - now_ns()) * 1e-9) > 0:
        ahead_s = min(ahead_s, deadline - time.monotonic(), _SLICE_S)
        if ahead_s <= 0:
            return False
        time.sleep(ahead_s)
    return True
