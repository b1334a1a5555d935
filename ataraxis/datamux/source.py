"""Live sources and their drivers: the protocols of plug-ins.

A plug-in is a `Driver` under the entry-point group ``ataraxis.sources``.
`ataraxis.testing.check_source` checks its sources.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.description import Node, Stream
from ataraxis.errors import NotConnectedError
from ataraxis.labels import Labels

Array = NDArray[Any]
Attrs = Mapping[str, Any]
T = TypeVar("T")
STAMP = np.dtype([("time_ns", "<i8"), ("device_s", "<f8"), ("device_sequence", "<i8")])
"""Per sample: time of arrival, monotonic ns here; unchanged time of the source's clock,
s (NaN: none); the source's counter (-1: none)."""


class Source(Protocol):
    """A live stream that is read in blocks, by one thread.

    A source may also have ``lost``, an int: samples it knows it lost; ``offsets``, a
    list of `ataraxis.clock.Offset`: measurements of its clock; ``command``, if it takes
    commands; and ``price()``, a `ataraxis.datamux.price.Price`, called before `open`
    when a server opens it for a client.
    """

    @property
    def stream(self) -> Stream:
        """Description; complete once the source is open."""

    @property
    def labels(self) -> Labels:
        """Labels of one sample: dtype, shape, channels, units, rate."""

    def open(self) -> None:
        """Open the source. May be called again after `close`.

        Raises
        ------
        SourceNotFound, OSError
            It does not exist or does not open.
        """

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows of `out` with the next samples, in order.

        Parameters
        ----------
        out : ndarray
            Shape (n, *labels.shape), dtype of the labels, n >= 1.
        stamps : ndarray of STAMP, optional
            Shape (n,); rows are filled alike.
        timeout : float or None
            Longest wait for the first sample, s.

        Returns
        -------
        int
            Number of rows filled; 0 if no sample came in time.

        Raises
        ------
        EndOfStream
            The source has ended.
        SourceLost, OSError
            It went away, and may come back after `close` and `open`.
        """

    def close(self) -> None:
        """Close the source; a second call does nothing."""


class Driver(Protocol):
    """Finds nodes and opens their streams; constructed without arguments.

    A driver that opens files named by `attrs` may have ``confine(folder)``: a server
    calls it with the `ataraxis.datamux.folder.Folder` in which clients may name files.
    """

    def nodes(self, timeout: float) -> list[Node]:
        """Return the nodes that exist; searches at most `timeout` s.

        Each has an `uri` whose scheme is the driver's name.
        """

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams of a node by their ids."""

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> Source:
        """Return the source of a stream, not opened; `SourceNotFound` without it."""


class OneNodeDriver:
    """A `Driver` of one node, whose id is also the scheme of its uri."""

    node_id: ClassVar[str]

    def nodes(self, timeout: float) -> list[Node]:
        """Return the one node."""
        return [Node(id=self.node_id, uri=f"{self.node_id}://")]


def check_out(out: Array, labels: Labels) -> None:
    """Raise `ValueError` if an array lacks the shape or dtype of a source's rows."""
    if out.ndim < 1 or out.shape[1:] != labels.shape or out.dtype != labels.dtype:
        raise ValueError(
            f"out is {out.dtype} {out.shape}: expected {labels.dtype} "
            f"(n, {', '.join(map(str, labels.shape))})"
        )
    if not len(out):
        raise ValueError("out has no rows: expected at least one")


# ---- shared parts of sources: description, handle of the device, wait

_SLICE_S = 0.05


class DescribedSource:
    """A source with a description, complete once it is open, or before.

    `what` names the device in errors, if labels are known only once it is open.
    """

    def __init__(self, stream: Stream, what: str = "") -> None:
        self._stream = stream
        self._what = what
        self._labels = None if what else stream.labels()
        self.lost = 0
        """Samples the source knows it lost."""

    @property
    def stream(self) -> Stream:
        """Description of the samples."""
        return self._stream

    @property
    def labels(self) -> Labels:
        """Labels of one sample."""
        if self._labels is None:
            raise NotConnectedError(f"{self._what} is closed: open() the source first")
        return self._labels


class DeviceHandle(Generic[T]):
    """Holds the device of an open source: a port, an inlet, a reader.

    `what` is its name in errors, `close` closes it.

    Examples
    --------
    >>> import io
    >>> held = DeviceHandle("the file", io.StringIO.close)
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
        """Whether the device is open."""
        return self._thing is not None

    def hold(self, thing: T) -> None:
        """Hold a device; close the one held before."""
        self.close()
        self._thing = thing

    def get(self) -> T:
        """Return the device; raise `NotConnectedError` if the source is not open."""
        if self._thing is None:
            raise NotConnectedError(f"{self._what} is closed: open() the source first")
        return self._thing

    def close(self) -> None:
        """Close the device; a second call does nothing."""
        thing, self._thing = self._thing, None
        if thing is not None:
            self._close(thing)


def wait_until(due_ns: int, timeout: float | None) -> bool:
    """Wait until a monotonic time, at most `timeout` s; whether it was reached."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (ahead_s := (due_ns - now_ns()) * 1e-9) > 0:
        ahead_s = min(ahead_s, deadline - time.monotonic(), _SLICE_S)
        if ahead_s <= 0:
            return False
        time.sleep(ahead_s)
    return True
