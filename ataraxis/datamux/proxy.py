"""Proxy: a live source as a feed of blocks, reopened when it goes away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.block import ArrayColumns, Block, Columns
from ataraxis.datamux.replay import BLOCK_BYTES, UNPACED
from ataraxis.datamux.source import STAMP, Source
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.timeline import Timeline
from ataraxis.errors import EndOfStream, SourceLost, SourceNotFound
from ataraxis.labels import Labels

_SLICE_S = 0.05
_PAUSE_S = (0.02, 1.0)
_KEPT = 1000


class Proxy:
    """Yields the blocks of an open source as they come, of at most `block` samples.

    `use_relative_ts` and `patience` are those of `API.proxy_live_stream`. `lend`, of a
    sink that keeps no blocks, returns rows of it to read into, for labels, or None if
    none are free.
    """

    timeline: Timeline | None = None

    def __init__(
        self,
        source: Source,
        *,
        use_relative_ts: bool = True,
        block: int | None = None,
        patience: float | None = 10.0,
        lend: Callable[[Labels], NDArray[Any] | None] | None = None,
    ) -> None:
        if patience is not None and not patience >= 0:
            raise ValueError(f"patience must be None or 0 s or more, got {patience!r}")
        if block is not None and (not isinstance(block, int) or block < 1):
            raise ValueError(f"block must be at least 1 sample, got {block!r}")
        self.source = source
        self._is_relative = use_relative_ts
        width = max(1, source.labels.nbytes)
        self._size = block or max(1, min(UNPACED, BLOCK_BYTES // width))
        self._patience = math.inf if patience is None else patience
        self._lend = lend
        self._out: NDArray[Any] | None = None
        self._stamps = self._blank = _blank(0)
        self._form: _Form | None = None
        self._is_behind = False
        self._reconnects: list[str] = []
        self._lost = 0
        self.away = ""
        """Why the source has gone away; empty while it is there."""

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Yield blocks until the source ends."""
        origin_s: float | None = None
        number = 0
        try:
            while not is_over():
                try:
                    block = self._read(number)
                except EndOfStream:
                    return
                except OSError as error:  # SourceLost is one
                    self._reopen(error, is_over)
                    continue
                if block is None:
                    continue
                if origin_s is None:
                    origin_s = float(block.t[0]) if self._is_relative else 0.0
                block.origin_s = origin_s
                number += len(block)
                yield block
        finally:
            self.source.close()

    def _read(self, number: int) -> Block | None:
        labels = self.source.labels
        if self._form is None:
            self._form = _Form(self.source)
            self._stamps, self._blank = _blank(self._size), _blank(self._size)
        # When behind: read many small frames at once, and copy them.
        lent = None
        if self._lend is not None and not self._is_behind:
            lent = self._lend(labels)
        if lent is None and self._out is None:
            self._out = np.empty((self._size, *labels.shape), labels.dtype)
        out = self._out if lent is None else lent[: self._size]
        assert out is not None
        stamps = self._stamps[: len(out)]
        got = self.source.read_into(out, stamps, timeout=_SLICE_S)
        self._lost = getattr(self.source, "lost", self._lost)
        self._is_behind = got == len(out) and (lent is None or got * 4 <= self._size)
        if not got:
            return None
        if self._lend is not None:
            out = out[:got]
        elif got * 2 < self._size:
            out = out[:got].copy()  # so that the buffer can be reused
        else:
            out, self._out = out[:got], None
        block = self._form.block(out, stamps[:got], number)
        self._stamps[:got] = self._blank[:got]
        return block

    def _reopen(self, error: OSError, is_over: Callable[[], bool]) -> None:
        """Reopen the source, or raise `SourceLost`."""
        self.away = reason = f"{type(error).__name__}: {error}"
        self._out = self._form = None  # its labels may have changed
        self.source.close()
        began, pause = time.monotonic(), _PAUSE_S[0]
        while not is_over():
            if time.monotonic() - began >= self._patience:
                raise SourceLost(
                    f"{self.source.stream.id!r} went away and did not come back in "
                    f"{self._patience:g} s: {reason}"
                ) from error
            time.sleep(pause)
            pause = min(pause * 2, _PAUSE_S[1], max(self._patience, _PAUSE_S[0]))
            try:
                self.source.open()
            except (OSError, SourceNotFound) as again:
                reason = f"{type(again).__name__}: {again}"
                self.source.close()
                continue
            del self._reconnects[: len(self._reconnects) - _KEPT + 1]
            self._reconnects.append(f"{type(error).__name__}: {error}")
            self.away = ""
            return

    def wake(self) -> None:
        """Do nothing: waits are short."""

    def lateness(self) -> LatenessStatistics:
        """Return an empty summary: a live source is not paced."""
        return Lateness().summary()

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return samples the source knows it lost, and the reason of each reopening."""
        return self._lost, tuple(self._reconnects)


def _blank(n: int) -> NDArray[Any]:
    stamps = np.zeros(n, STAMP)
    stamps["device_s"], stamps["device_sequence"] = np.nan, -1
    return stamps


class _Form:
    """Turns the arrays that an open source fills into blocks."""

    def __init__(self, source: Source) -> None:
        self._stream = source.stream
        self._names = tuple(self._stream.fields)
        shape = source.labels.shape
        self._is_one = self._stream.is_uniform and shape == (len(self._names),)

    def block(self, out: NDArray[Any], stamps: NDArray[Any], number: int) -> Block:
        """Return a block; values are views, stamps are copied."""
        t, arrived = stamps["device_s"].copy(), stamps["time_ns"].copy()
        if math.isnan(np.minimum.reduce(t)):
            has_none = np.isnan(t)
            t[has_none] = arrived[has_none] * 1e-9
        index, numbers = {}, stamps["device_sequence"]
        if np.maximum.reduce(numbers) >= 0:
            index["device_sequence"] = numbers.copy()
        names, stream, array = self._names, self._stream, None
        values: Columns
        if self._is_one:
            values, array = ArrayColumns(names, out), out
        elif len(names) == 1:
            values = {names[0]: out if out.ndim > 1 else out.reshape(len(out))}
        else:
            values = {
                name: out[:, i].astype(stream.fields[name].numpy_dtype)
                for i, name in enumerate(names)
            }
        return Block(
            stream, t, values, index, sequence=number, arrived_ns=arrived, array=array
        )
