"""What a live source is, and what gives sources: the protocols of plug-ins.

A plug-in is a class that does what `Driver` says, under the entry-point group
``ataraxis.sources``. `ataraxis.testing.check_source` tries its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Node, Stream
from ataraxis.labels import Labels

STAMP = np.dtype([("time_ns", "<i8"), ("device_s", "<f8"), ("device_sequence", "<i8")])
"""Of each sample: when it came, monotonic ns here; what the source's own clock said,
untouched, s (NaN: it has none); the source's own counter (-1: it has none)."""


class Source(Protocol):
    """A live stream that is read in blocks, by one thread.

    Besides, a source may have ``lost``, an int: samples it knows it lost; ``offsets``,
    a list of `ataraxis.clock.Offset`: what its clock was found to be; and ``command``,
    if it takes commands.
    """

    @property
    def stream(self) -> Stream:
        """What it gives. Complete once it is open."""

    @property
    def labels(self) -> Labels:
        """Labels of one sample: dtype, shape, channels, units, rate."""

    def open(self) -> None:
        """Begin. May be called again after `close`.

        Raises
        ------
        SourceNotFound, OSError
            It is not there.
        """

    def read_into(
        self,
        out: NDArray[Any],
        stamps: NDArray[Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Fill rows of `out` with the next samples, in order.

        Parameters
        ----------
        out : ndarray
            Shape (n, *labels.shape), dtype of the labels, n >= 1.
        stamps : ndarray of STAMP, optional
            Shape (n,); filled alike.
        timeout : float or None
            Longest wait for the first sample, s.

        Returns
        -------
        int
            How many rows were filled, what was there; 0 if nothing came in time.

        Raises
        ------
        EndOfStream
            It has ended; nothing will come.
        SourceLost, OSError
            It went away, and may come back after `close` and `open`.
        """

    def close(self) -> None:
        """End. Closing twice is fine."""


class Driver(Protocol):
    """Finds nodes and opens their streams; made without arguments."""

    def nodes(self, timeout: float) -> list[Node]:
        """Return the nodes that are there, looking no longer than `timeout`, s.

        Each has an `uri` whose scheme is the driver's name.
        """

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams of a node by their ids."""

    def source(self, node: Node, stream_id: str, attrs: Mapping[str, Any]) -> Source:
        """Return the source of a stream, not opened yet.

        Raises
        ------
        SourceNotFound
            The node has no such stream.
        """


def check_out(out: NDArray[Any], labels: Labels) -> None:
    """Refuse what cannot hold rows of a source.

    Raises
    ------
    ValueError
        Shape or dtype are others.
    """
    if out.ndim < 1 or out.shape[1:] != labels.shape or out.dtype != labels.dtype:
        raise ValueError(
            f"out is {out.dtype} {out.shape}: expected {labels.dtype} "
            f"(n, {', '.join(map(str, labels.shape))})"
        )
    if not len(out):
        raise ValueError("out has no rows: expected at least one")
