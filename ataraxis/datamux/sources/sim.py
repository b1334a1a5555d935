"""The node "sim": simulated streams that come as if from a device."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.channels import channel_names
from ataraxis.datamux.description import Field, Node, Stream
from ataraxis.datamux.faults import Faults
from ataraxis.datamux.signals import Events, Noise, Pattern, Ramp, Sine, Spikes
from ataraxis.datamux.simulation import Chunk, Signals, Simulation
from ataraxis.datamux.source import check_out
from ataraxis.errors import NotConnectedError, SourceLost
from ataraxis.labels import Labels

_SLICE_S = 0.02


def _stream(name: str, rate: float | None, field: Field, count: int = 4) -> Stream:
    names = ["code"] if rate is None else channel_names(count)
    if field.shape:
        names = ["frame"]
    return Stream(
        name=name,
        description=f"simulated {name}",
        unit=field.unit,
        frequency=rate,
        fields=dict.fromkeys(names, field),
        index={"t": Field("time", unit="s")},
        attrs={"id": name, "mode": "proxy"},
    )


_PICTURE = Field("picture", dtype="u8", shape=(48, 64))
_STREAMS: dict[str, tuple[Stream, Signals]] = {
    "sine": (
        _stream("sine", 1000, Field(dtype="f32", unit="mV")),
        {f"ch{i}": Sine(float(i + 1)) for i in range(4)},
    ),
    "noise": (_stream("noise", 1000, Field(dtype="f32", unit="mV")), Noise()),
    "spikes": (_stream("spikes", 1000, Field(dtype="f32", unit="uV")), Spikes()),
    "ramp": (_stream("ramp", 1000, Field(dtype="i16")), Ramp(1.0, 1000.0)),
    "camera": (_stream("camera", 30, _PICTURE), Pattern()),
    "events": (_stream("events", None, Field(dtype="u8")), Events()),
}


class Simulated:
    """Driver of the node "sim"; ``attrs`` may have ``seed`` and ``faults``."""

    def nodes(self, timeout: float) -> list[Node]:
        """Return the one node."""
        node = Node(id="sim", uri="sim://")
        node.outputs = self.streams(node, timeout)
        return [node]

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the built-in streams, or what a node's file describes."""
        if node.outputs:
            return node.outputs
        return {name: stream.copy() for name, (stream, _) in _STREAMS.items()}

    def source(
        self, node: Node, stream_id: str, attrs: Mapping[str, Any]
    ) -> SimulatedSource:
        """Return the source of a stream."""
        stream = pick(self.streams(node, 0), stream_id, "stream", f"node {node.id!r}")
        signals = _STREAMS[stream_id][1] if stream_id in _STREAMS else None
        faults = attrs.get("faults")
        if isinstance(faults, Mapping):
            faults = Faults(**faults)
        seed = int(attrs.get("seed", 0))
        return SimulatedSource(Simulation(stream, signals, seed=seed, faults=faults))


class SimulatedSource:
    """A simulation that gives samples when their time has come.

    Parameters
    ----------
    simulation : Simulation
        What to give.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._labels = simulation.stream.labels()
        self._chunks: Iterator[Chunk] | None = None
        self._pending: Block | None = None
        self._stall: tuple[float, float] | None = None
        self._began_ns = 0
        self.lost = 0

    @property
    def stream(self) -> Stream:
        """What it gives."""
        return self._simulation.stream

    @property
    def labels(self) -> Labels:
        """Labels of one sample."""
        return self._labels

    def open(self) -> None:
        """Begin anew, from the first sample."""
        self._chunks = self._simulation.chunks()
        self._pending, self._stall = None, None
        self._began_ns = now_ns()

    def read_into(
        self,
        out: NDArray[Any],
        stamps: NDArray[Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Fill rows with the samples whose time has come; see `Source.read_into`."""
        check_out(out, self._labels)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            block, wait_s = self._due(len(out))
            if block is not None:
                break
            if deadline is not None:
                wait_s = min(wait_s, deadline - time.monotonic())
                if wait_s <= 0:
                    return 0
            time.sleep(min(wait_s, _SLICE_S))
        got = len(block)
        out[:got] = block.array
        if stamps is not None:
            stamps["time_ns"][:got] = now_ns()
            stamps["device_s"][:got] = block.t
            stamps["device_sequence"][:got] = block.sequence + np.arange(got)
        return got

    def _due(self, most: int) -> tuple[Block | None, float]:
        """Return what is due, or how long until something is, s."""
        if self._chunks is None:
            raise NotConnectedError("the simulated source is closed; open() it")
        now_s = (now_ns() - self._began_ns) * 1e-9
        gone = self._simulation.faults.lost_after_s
        if gone is None or now_s < gone:
            return self._due_at(now_s, most)
        block, wait_s = self._due_at(math.nextafter(gone, 0.0), most)
        if block is None:  # what came before is given first
            raise SourceLost(f"simulated: the source went away after {gone} s")
        return block, wait_s

    def _due_at(self, now_s: float, most: int) -> tuple[Block | None, float]:
        """Return what is due at a time, or how long until something is, s."""
        assert self._chunks is not None
        while self._pending is None:
            chunk = next(self._chunks)
            self.lost += chunk.lost
            self._stall = chunk.stall or self._stall
            self._pending = chunk.block if len(chunk.block) else None
            if self._pending is None and chunk.end_s > now_s:
                return None, chunk.end_s - now_s
        if self._stall is not None and self._stall[0] <= now_s < self._stall[1]:
            return None, self._stall[1] - now_s
        due = int(np.searchsorted(self._pending.t, now_s, "right"))
        if not due:
            return None, float(self._pending.t[0]) - now_s
        block = self._pending[: min(due, most)]
        rest = self._pending[len(block) :]
        self._pending = rest if len(rest) else None
        return block, 0.0

    def close(self) -> None:
        """End."""
        self._chunks = None
