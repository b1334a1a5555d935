"""The node "sim": simulated streams that behave like a device."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.config.limits import FILES
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Field, Node, Stream, channel_names
from ataraxis.datamux.price import Price
from ataraxis.datamux.simulation import (
    Chunk,
    Events,
    Faults,
    Noise,
    Pattern,
    Ramp,
    Signals,
    Simulation,
    Sine,
    Spikes,
)
from ataraxis.datamux.source import Array, Attrs, DescribedSource, check_out
from ataraxis.errors import NotConnectedError, SourceLost
from ataraxis.labels import given_rate

_SLICE_S = 0.02


def _stream(name: str, rate: float | None, field: Field, count: int = 4) -> Stream:
    names = ["code"] if rate is None else channel_names(count)
    if field.shape:
        names = ["frame"]
    return Stream(
        name, f"simulated {name}", field.unit, rate,
        fields=dict.fromkeys(names, field), index={"t": Field("time", unit="s")},
        attrs={"id": name, "mode": "proxy"},
    )  # fmt: skip


_PICTURE = Field("picture", dtype="u8", shape=(48, 64))
_VOLTAGE = Field(dtype="i16", unit="uV")
_STREAMS: dict[str, tuple[Stream, Signals]] = {
    "sine": (
        _stream("sine", 1000, Field(dtype="f32", unit="mV")),
        {f"ch{i}": Sine(float(i + 1)) for i in range(4)},
    ),
    "noise": (_stream("noise", 1000, Field(dtype="f32", unit="mV")), Noise()),
    "spikes": (_stream("spikes", 1000, Field(dtype="f32", unit="uV")), Spikes()),
    "ramp": (_stream("ramp", 1000, Field(dtype="i16")), Ramp(1.0, 1000.0)),
    "probe": (_stream("probe", 30_000, _VOLTAGE, 64), Spikes(5.0, 400.0, 25.0)),
    "camera": (_stream("camera", 30, _PICTURE), Pattern()),
    "events": (_stream("events", None, Field(dtype="u8")), Events()),
}


def simulation_of(stream_id: str, attrs: Mapping[str, Any]) -> Simulation:
    """Return the simulation of a built-in stream, whose chunks need no waiting.

    Parameters
    ----------
    stream_id : str
        'sine', 'noise', 'spikes', 'ramp', 'probe', 'camera' or 'events'.
    attrs : mapping
        ``seed``; ``faults``; ``sample_rate_hz`` (or ``rate_hz``); number of
        ``channels``; ``shape`` of images.

    Raises
    ------
    SourceNotFound, ValueError
        The stream does not exist, or `attrs` do not fit it.

    Examples
    --------
    >>> attrs = {"shape": [6, 8], "sample_rate_hz": 10}
    >>> chunk = next(simulation_of("camera", attrs).chunks())
    >>> chunk.block.array.shape
    (1, 6, 8)
    """
    return _simulation(Simulated().nodes(0)[0], stream_id, attrs)


def _simulation(node: Node, stream_id: str, attrs: Mapping[str, Any]) -> Simulation:
    streams = Simulated().streams(node, 0)
    stream = _shaped(pick(streams, stream_id, "stream", f"node {node.id!r}"), attrs)
    signals = _STREAMS[stream_id][1] if stream_id in _STREAMS else None
    if "channels" in attrs:
        signals = signals if not isinstance(signals, Mapping) else None
    faults = attrs.get("faults")
    if isinstance(faults, Mapping):
        faults = Faults(**faults)
    return Simulation(stream, signals, seed=int(attrs.get("seed", 0)), faults=faults)


def _shaped(stream: Stream, attrs: Mapping[str, Any]) -> Stream:
    """Return a stream with the rate, channels and image size of `attrs`."""
    stream = stream.copy()
    if (given := given_rate(attrs)) is not None:
        rate = float(given)
        if stream.rate_hz is None or not 0 < rate < math.inf:
            raise ValueError(
                "sample_rate_hz must be above 0, for a stream with a rate, got "
                f"{rate!r}"
            )
        stream.frequency = rate
    first = next(iter(stream.fields.values()))
    if "channels" in attrs:
        count = int(attrs["channels"])
        is_one = first.shape or stream.rate_hz is None
        if is_one or not 1 <= count <= FILES.columns:
            raise ValueError(
                f"channels must be 1 to {FILES.columns}, for a stream with channels, "
                f"got {count}"
            )
        stream.fields = dict.fromkeys(channel_names(count), first)
    if "shape" in attrs:
        shape = tuple(int(n) for n in attrs["shape"])
        if len(shape) != len(first.shape) or min(shape, default=0) < 1:
            raise ValueError(f"shape must have {len(first.shape)} extents, got {shape}")
        first.shape = shape
    return stream


class Simulated:
    """Driver of the node "sim"; ``attrs`` as `simulation_of` takes them."""

    options: ClassVar[frozenset[str]] = frozenset(
        ("seed", "faults", "sample_rate_hz", "rate_hz", "channels", "shape")
    )
    """Attributes of a stream."""

    def nodes(self, timeout: float) -> list[Node]:
        """Return the one node."""
        node = Node(id="sim", uri="sim://")
        node.outputs = self.streams(node, timeout)
        return [node]

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the built-in streams, or those that a node's file describes."""
        if node.outputs:
            return node.outputs
        return {name: stream.copy() for name, (stream, _) in _STREAMS.items()}

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> SimulatedSource:
        """Return the source of a stream."""
        return SimulatedSource(_simulation(node, stream_id, attrs))


class SimulatedSource(DescribedSource):
    """A simulation whose samples come when they are due."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation.stream)
        self._simulation = simulation
        self._chunks: Iterator[Chunk] | None = None
        self._pending: Block | None = None
        self._stall: tuple[float, float] | None = None
        self._began_ns = 0

    def price(self) -> Price:
        """Return its price."""
        return self._simulation.price()

    def open(self) -> None:
        """Start from the first sample."""
        self._chunks = self._simulation.chunks()
        self._pending, self._stall = None, None
        self._began_ns = now_ns()

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the samples that are due; see `Source.read_into`."""
        check_out(out, self.labels)
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
        """Return the samples that are due, or the time until some are, s."""
        if self._chunks is None:
            raise NotConnectedError("the simulated source is closed: open() it first")
        now_s = (now_ns() - self._began_ns) * 1e-9
        gone = self._simulation.faults.lost_after_s
        if gone is None or now_s < gone:
            return self._due_at(now_s, most)
        block, wait_s = self._due_at(math.nextafter(gone, 0.0), most)
        if block is None:  # earlier samples are given first
            raise SourceLost(f"simulated: the source went away after {gone} s")
        return block, wait_s

    def _due_at(self, now_s: float, most: int) -> tuple[Block | None, float]:
        """Return the samples that are due at a time, or the time until some are, s."""
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
        """Close the source."""
        self._chunks = None
