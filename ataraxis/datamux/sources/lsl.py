"""The Lab Streaming Layer: any outlet as a source, and any stream as an outlet.

Times are the sender's, unchanged; the offsets of its clock are recorded in ``offsets``.
"""

from __future__ import annotations

import ctypes
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Offset, now_ns
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import WIDER, Field, Node, Stream, channel_names
from ataraxis.datamux.end import End
from ataraxis.datamux.sinks.sink import IsOver, ShortWaits
from ataraxis.datamux.source import (
    Array,
    DescribedSource,
    DeviceHandle,
    OneNodeDriver,
    check_out,
)
from ataraxis.errors import DataOverflow, SourceLost, SourceNotFound
from ataraxis.labels import Labels
from ataraxis.log.optional import need

_DTYPES = ("", "f32", "f64", "str", "i32", "i16", "i8", "i64")
_FORMATS = {name: i for i, name in enumerate(_DTYPES) if name}
_TEXT = 256
OFFSET_S = 5.0
GAP_S = 0.02
BUFFER_S = 360
LINGER_S = 1.0
_INFO_S = 10.0
_ASK_S = 0.2
_AGAIN_NS = 1_000_000_000
_SLICE_S = 0.02
_ANOTHER_S = 0.25
_MOST_FIELDS = 4096


def _pylsl() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return need("pylsl", "lsl", "the Lab Streaming Layer")


class Lsl(OneNodeDriver):
    """Driver of the node "lsl": every outlet on the network, by source id or name.

    ``attrs`` of a stream may select by ``uid``, ``source_id``, ``name``, ``hostname``
    or ``type``, and set ``gap_s``: longer gaps in the times count as losses.
    """

    node_id = "lsl"

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Search for outlets for `timeout` s."""
        found: dict[str, Stream] = {}
        for info in _pylsl().resolve_streams(wait_time=timeout):
            stream = _described(info, None)
            known = stream.attrs["source_id"] or stream.name
            name = known if known not in found else stream.attrs["uid"]
            stream.attrs["id"] = name
            found[name] = stream
        return found

    def source(self, node: Node, stream_id: str, attrs: Mapping[str, Any]) -> LslSource:
        """Return the source of an outlet."""
        wanted = {
            key: str(attrs[key])
            for key in ("source_id", "uid", "name", "hostname", "type")
            if attrs.get(key)
        }
        return LslSource(stream_id, wanted, gap_s=float(attrs.get("gap_s", GAP_S)))


def _described(info: Any, full: Any) -> Stream:
    """Return the description of an outlet; labels and units if `full` has them."""
    count = info.channel_count()
    names, units, texts = channel_names(count), [""] * count, [""] * count
    index = {"t": Field("time of the sender", unit="s")}
    if full is not None:
        labels = _channels(full, "label", count)
        names, units = channel_names(count, labels), _channels(full, "unit", count)
        if own := _hub_fields(full, "fields"):
            # StreamingHub describes its outlets here, and not in desc/channels.
            if len(own) == count and not any(labels):
                names = channel_names(count, [field.name for field in own])
                units = [field.unit for field in own]
                texts = [field.description for field in own]
            if named := _hub_fields(full, "index"):
                # LSL gives seconds, whatever unit is declared.
                text = named[0].description or "time of the sender"
                index = {named[0].name: Field(text, unit="s")}
    dtype = _DTYPES[info.channel_format()]
    return Stream(
        info.name(), info.type(), frequency=info.nominal_srate() or None,
        fields={
            name: Field(name, text, dtype=dtype, unit=unit)
            for name, text, unit in zip(names, texts, units, strict=True)
        },
        index=index,
        attrs={
            "id": info.source_id() or info.name(), "mode": "proxy",
            "name": info.name(), "type": info.type(), "source_id": info.source_id(),
            "uid": info.uid(), "hostname": info.hostname(),
        },
    )  # fmt: skip


def _channels(info: Any, key: str, count: int) -> list[str]:
    """Return a text of each channel from desc/channels; '' where it is missing."""
    channel = info.desc().child("channels").child("channel")
    found = []
    for _ in range(count):
        found.append(channel.child_value(key) or "")
        channel = channel.next_sibling("channel")
    return found


class _HubField(NamedTuple):
    """A child of desc/fields or desc/index."""

    name: str
    description: str
    unit: str


def _hub_fields(info: Any, part: str) -> list[_HubField]:
    """Read the layout of StreamingHub: desc/fields/NAME, desc/index/NAME."""
    found: list[_HubField] = []
    one = info.desc().child(part).first_child()
    while not one.empty() and len(found) < _MOST_FIELDS:
        if name := one.name():
            texts = (one.child_value(key) or "" for key in ("description", "unit"))
            found.append(_HubField(name, *texts))
        one = one.next_sibling()
    return found


class LslSource(DescribedSource):
    """One outlet, by its source id, uid or name, and further attributes in `wanted`.

    These are ``source_id``, ``uid``, ``name``, ``hostname`` and ``type``. Gaps in the
    times of a regular stream that are longer than `gap_s` count as lost samples. The
    outlet is searched for up to `timeout` s.
    """

    def __init__(
        self,
        stream_id: str,
        wanted: Mapping[str, str] | None = None,
        *,
        gap_s: float = GAP_S,
        timeout: float = 3.0,
    ) -> None:
        self._lsl = _pylsl()
        self._id = stream_id
        self._wanted = dict(wanted or {})
        self._gap_s = gap_s
        self._timeout = timeout
        what = f"LSL stream {stream_id!r}"
        super().__init__(
            Stream(stream_id, attrs={"id": stream_id, "mode": "proxy"}), what
        )
        self._inlet = DeviceHandle[Any](what, lambda i: i.close_stream())
        self._is_text = False
        self._rate: float | None = None
        self._last_s = math.nan
        self._ask_ns = 0
        self._is_behind = False
        self.offsets: list[Offset] = []
        """Add to a time here, ns, to get the sender's; measured about every 5 s."""

    def open(self) -> None:
        """Find the outlet and connect; samples are buffered from now on."""
        self.close()
        info = self._found()
        # recover=False: liblsl would reconnect without reporting losses.
        inlet = self._lsl.StreamInlet(
            info, max_buflen=BUFFER_S, recover=False, as_numpy=True
        )
        try:
            full = inlet.info(timeout=_INFO_S)
            inlet.open_stream(timeout=_INFO_S)
        except (self._lsl.util.LostError, self._lsl.util.TimeoutError) as error:
            raise SourceLost(f"LSL stream {self._id!r} does not answer") from error
        self._stream = _described(info, full)
        self._stream.attrs["id"] = self._id
        self._is_text = info.channel_format() == _FORMATS["str"]
        if self._is_text:
            names = [*self._stream.fields]
            shape, coords = (len(names),), {"channel": names}
            self._labels = Labels(f"U{_TEXT}", shape, ("channel",), coords)
        else:
            self._labels = self._stream.labels()
        self._rate = self._stream.rate_hz
        self._inlet.hold(inlet)
        self._last_s, self._ask_ns = math.nan, 0
        self._ask(_INFO_S)  # the first takes LSL half a second

    def _found(self) -> Any:
        """Return the outlet; its source id is the same after a restart."""
        wanted = dict(self._wanted)
        if wanted.get("source_id"):
            wanted.pop("uid", None)
        if not wanted.keys() & {"source_id", "uid", "name"}:
            tries = [{**wanted, key: self._id} for key in ("source_id", "name", "uid")]
            predicate = " or ".join(f"({_predicate(t)})" for t in tries)
        else:
            predicate = _predicate(wanted)
        found = self._lsl.resolve_bypred(predicate, 1, self._timeout)
        if found and "uid" not in wanted:
            # A second one would have answered by now.
            found = self._lsl.resolve_bypred(predicate, 2, _ANOTHER_S) or found
        if not found:
            raise SourceNotFound(
                f"no LSL stream {self._id!r} ({predicate}) within {self._timeout} s: "
                "is its program running, and on this network?"
            )
        return self._meant(found)

    def _meant(self, found: list[Any]) -> Any:
        """Return the outlet with the id; raise if several have it."""
        # After a restart under the same source id the last one counts.
        newest = {
            info.source_id() or info.uid(): info
            for info in sorted(found, key=lambda info: info.created_at())
        }
        exact = [i for key, i in newest.items() if self._id in (key, i.uid())]
        if len(newest) == 1 or len(exact) == 1:
            return (exact or [*newest.values()])[0]
        ways = "; ".join(
            f"source_id={info.source_id()!r} on {info.hostname()!r}, uid={info.uid()!r}"
            for info in newest.values()
        )
        raise SourceNotFound(
            f"{len(newest)} LSL streams are called {self._id!r}: select one in attrs, "
            f"by source_id, uid or hostname: {ways}"
        )

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the samples that arrived; see `Source.read_into`."""
        inlet = self._inlet.get()
        labels = self.labels
        if (
            out.shape[1:] != labels.shape
            or out.dtype is not labels.dtype
            or not len(out)
        ):
            check_out(out, labels)
        is_direct = not self._is_text and out.flags.c_contiguous
        try:
            samples, t = self._pull(inlet, out, timeout, out if is_direct else None)
            self._is_behind = len(t) == len(out)
            if not len(t):
                return 0
            self._ask()
        except self._lsl.util.LostError as error:
            raise SourceLost(
                f"LSL stream {self._id!r}: its outlet went away"
            ) from error
        got = len(t)
        if self._is_text:
            texts = [[value.decode() for value in row] for row in samples]
            longest = max(len(text) for row in texts for text in row)
            if longest > _TEXT:
                raise DataOverflow(
                    f"LSL stream {self._id!r}: a text of {longest} characters is too "
                    f"long: at most {_TEXT} fit"
                )
            out[:got] = texts
        elif not is_direct:
            out[:got] = samples
        self._count(t)
        if stamps is not None:
            stamps["time_ns"][:got] = now_ns()
            stamps["device_s"][:got] = t
        return got

    def _pull(
        self, inlet: Any, out: NDArray[Any], timeout: float | None, into: Any
    ) -> tuple[Any, NDArray[np.float64]]:
        """Return the available samples and their times; wait for the first."""
        n = len(out)
        if self._is_behind:
            # One call returns all available samples; waiting takes pylsl two.
            samples, t = inlet.pull_chunk(0.0, n, into)
            if len(t):
                return samples, t
        wait_s = 3600.0 if timeout is None else timeout
        samples, t = inlet.pull_chunk(wait_s, n, into, min_samples=1)
        return samples, t

    def _count(self, t: NDArray[np.float64]) -> None:
        """Count the samples that are missing in gaps of the times."""
        rate, last = self._rate, float(t[-1])
        # Only a late chunk has gaps; False for the first too, whose time is NaN.
        is_late = last - self._last_s - len(t) / (rate or 1.0) > self._gap_s / 2
        if rate is not None and (is_late or math.isnan(self._last_s)):
            gaps = np.diff(t, prepend=self._last_s) - 1 / rate
            holes = gaps[gaps > self._gap_s + 0.5 / rate]
            self.lost += int(np.rint(holes * rate).sum())
        self._last_s = last

    def _ask(self, timeout: float = _ASK_S) -> None:
        """Read the clock's offset regularly; LSL measures it in a thread."""
        if now_ns() < self._ask_ns:
            return
        self._ask_ns = now_ns() + _AGAIN_NS
        try:
            correction, round_trip, sender = self._correction(timeout)
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError):
            return  # the next pull reports a loss, after the samples
        self._ask_ns = now_ns() + round(OFFSET_S * 1e9)
        # LSL has another clock on this machine: include the difference.
        before, lsl_s, after = now_ns(), self._lsl.local_clock(), now_ns()
        here = round(lsl_s * 1e9) - (before + after) // 2
        offset_ns = here - round(correction * 1e9)
        measured_ns = min(round((sender + correction) * 1e9) - here, after)
        host = str(self._stream.attrs.get("hostname", ""))
        # Whatever the way there and back, the error is half of both.
        bound_ns = math.ceil(round_trip * 5e8) + (after - before)
        self.offsets.append(Offset(offset_ns, bound_ns, measured_ns, host))

    def _correction(self, timeout: float) -> tuple[float, float, float]:
        """Return what to add to the sender's time, the duration of the round trip, and
        the sender's time then, s. pylsl has a call for the first of them only.
        """
        remote, trip, code = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
        ask = self._lsl.lib.lib.lsl_time_correction_ex
        ask.restype = ctypes.c_double
        correction = ask(
            self._inlet.get().obj, ctypes.byref(remote), ctypes.byref(trip),
            ctypes.c_double(timeout), ctypes.byref(code),
        )  # fmt: skip
        self._lsl.util.handle_error(code)
        return float(correction), trip.value, remote.value

    def close(self) -> None:
        """Disconnect from the outlet."""
        self._inlet.close()


def _predicate(wanted: Mapping[str, str]) -> str:
    """Return the query for LSL, XPath 1.0, which cannot quote both quotes."""
    parts = []
    for key, value in wanted.items():
        quote = '"' if "'" in value else "'"
        if quote in value:
            raise SourceNotFound(f"LSL: {key} {value!r} has both kinds of quotes")
        parts.append(f"{key}={quote}{value}{quote}")
    return " and ".join(parts)


class LslOutlet(ShortWaits):
    """Publishes a stream on the network; a sink for replay, simulation and proxy.

    Parameters
    ----------
    stream : Stream
        Description of the samples: fields of one dtype.
    name : str, optional
        Name of the outlet; by default the stream's.
    source_id : str, optional
        Id by which readers find it again after a restart.
    """

    takes_blocks = True

    def __init__(
        self, stream: Stream, name: str | None = None, source_id: str | None = None
    ) -> None:
        self._lsl = _pylsl()
        declared = {f.dtype for f in stream.fields.values()}
        kinds = {WIDER.get(dtype, dtype) for dtype in declared}
        if len(kinds) != 1 or any(f.shape for f in stream.fields.values()):
            raise ValueError(
                f"stream {stream.id!r}: LSL has one dtype per stream, found {declared}"
            )
        dtype = pick(_FORMATS, kinds.pop(), "dtype", "LSL")
        kind = str(stream.attrs.get("type", stream.description))
        info = self._lsl.StreamInfo(
            name or stream.name or stream.id, kind, len(stream.fields),
            stream.rate_hz or 0.0, dtype, source_id or f"ataraxis-{stream.id}",
        )  # fmt: skip
        channels = info.desc().append_child("channels")
        for key, field in stream.fields.items():
            channel = channels.append_child("channel")
            channel.append_child_value("label", key)
            channel.append_child_value("unit", field.unit or stream.unit)
        self._outlet: Any = self._lsl.StreamOutlet(info)

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until a reader is connected, at most `timeout` s; whether one is."""
        return bool(self._outlet.wait_for_consumers(timeout))

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Push blocks; the last sample is now, the others keep their intervals."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(f"an LSL outlet takes blocks, not {type(block)}")
            stamps = self._lsl.local_clock() - (block.t[-1] - block.t)
            columns = [*block.values.values()]
            if columns[0].dtype.kind == "U":
                rows: Any = [
                    [*row] for row in zip(*(c.tolist() for c in columns), strict=True)
                ]
            else:
                rows = block.array
            self._outlet.push_chunk(rows, stamps.tolist())
            self.delivered += len(block)

    def finish(self, end: End, is_over: IsOver) -> End:
        """Close the outlet, after a second in which readers can receive the rest.

        LSL does not report what has arrived, and a reader loses the data of an outlet
        that is gone.
        """
        until = time.monotonic() + LINGER_S
        while time.monotonic() < until and self._outlet.have_consumers():
            time.sleep(_SLICE_S)
        self._outlet = None
        return end
