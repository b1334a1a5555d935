"""Boards on a serial line: samples in lines or frames, commands and replies."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import TIME_UNITS, Field, Node, Stream
from ataraxis.datamux.source import (
    Array,
    Attrs,
    DescribedSource,
    DeviceHandle,
    check_out,
)
from ataraxis.errors import ConfigError, SourceLost, SourceNotFound
from ataraxis.labels import given_rate
from ataraxis.log.optional import need

# ---- the bytes of a serial line, as lines of text or frames, into rows

_CHECKS = {"none": 0, "sum": 1, "xor": 1}
_LONGEST = 65536


@dataclass
class Arrived:
    """Samples and replies that were parsed from some bytes."""

    rows: list[tuple[float, int, tuple[Any, ...]]] = field(default_factory=list)
    """Per sample: device time, s (NaN: none), counter (-1: none), values."""
    replies: list[bytes] = field(default_factory=list)
    """Lines that are not samples: replies to commands."""
    malformed: int = 0
    """Number of invalid lines or frames, which are dropped."""


class Unwrapped:
    """A clock of few bits without its wraps; it restarts with its board.

    Clocks of dtype u1 to u4 wrap, others do not.

    Examples
    --------
    >>> clock = Unwrapped(np.dtype("u4"))
    >>> [clock.take(t, 10**6) for t in (2**32 - 1000, 0, 1000)]
    [4294966296, 4294967296, 4294968296]
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        wraps = dtype.kind == "u" and dtype.itemsize < 8
        self._span = 1 << (8 * dtype.itemsize) if wraps else 0
        self._base, self._last = 0, -1

    def take(self, now: Any, most: float) -> Any:
        """Return a reading, `now`, without wraps.

        `most` is the largest possible step since the last reading. A step back that
        would be a larger step, or more than half the range, means that the board
        restarted.
        """
        if not self._span:
            return now
        now = int(now)
        ahead = (now - self._last) % self._span
        if self._last > now:
            is_wrap = ahead < self._span // 2 and ahead <= most
            self._base = self._base + self._span if is_wrap else 0
        self._last = now
        return self._base + now

    def reset(self) -> None:
        """Restart: the board was reopened."""
        self._base, self._last = 0, -1


class Wire:
    """Parses bytes into samples of a stream, as a node's uri describes.

    Each sample is: the device's time, if the stream's index has a unit; a counter, if
    the options name one (``counter=u16``); the fields, in order.

    Parameters
    ----------
    stream : Stream
        Description: fields and index.
    options : mapping
        ``protocol`` lines or frames; of lines ``separator``; of frames ``sync`` (hex),
        ``order`` (little or big), ``check`` (none, sum or xor, one byte at the end).

    Raises
    ------
    ConfigError
        An option is invalid.
    """

    def __init__(self, stream: Stream, options: Mapping[str, str]) -> None:
        known = {"protocol", "separator", "sync", "order", "check", "counter", "baud"}
        unknown = set(options) - known
        if unknown:
            raise ConfigError(
                f"serial: unknown option {sorted(unknown)[0]!r}: known: {sorted(known)}"
            )
        self._is_text = _one_of(options, "protocol", ("lines", "frames")) == "lines"
        is_big = _one_of(options, "order", ("little", "big")) == "big"
        order: Literal["<", ">"] = ">" if is_big else "<"
        self._check = _one_of(options, "check", tuple(_CHECKS))
        self._separator = options.get("separator", ",").encode() or None
        try:
            self._sync = bytes.fromhex(options.get("sync", "aa55"))
            self._counter = (
                np.dtype(options["counter"]) if "counter" in options else None
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"serial: sync or counter: {error}") from error
        index = stream.index.get(stream.time)
        self._per_s = TIME_UNITS.get(index.unit) if index is not None else None
        parts = []
        if self._per_s is not None and index is not None:
            parts.append(("#t", index.numpy_dtype.newbyteorder(order)))
        if self._counter is not None:
            if self._counter.kind != "u":
                raise ConfigError(
                    f"serial: counter must be u1, u2, u4 or u8, got {self._counter}"
                )
            parts.append(("#n", self._counter.newbyteorder(order)))
        for name, item in stream.fields.items():
            if item.numpy_dtype.kind not in "fiub" or item.shape:
                raise ConfigError(f"serial: field {name!r} must be a number")
            parts.append((name, item.numpy_dtype.newbyteorder(order)))
        clock = index.numpy_dtype if index is not None else np.dtype("f8")
        self._clock, self._taken_ns = Unwrapped(clock), now_ns()
        self._row = np.dtype(parts)
        self._width = len(parts)
        self._rest = b""
        if not self._is_text and not self._sync:
            raise ConfigError("serial: frames need sync, such as sync=aa55")

    def take(self, data: bytes) -> Arrived:
        """Take received bytes; return the complete samples and replies."""
        self._rest += data
        return self._lines() if self._is_text else self._frames()

    def reset(self) -> None:
        """Drop incomplete data, and restart the clock."""
        self._rest = b""
        self._clock.reset()

    def missed(self, before: int, now: int) -> int:
        """Return the number of samples between two counters, which wrap."""
        if self._counter is None or before < 0:
            return 0
        return (now - before - 1) % (1 << (8 * self._counter.itemsize))

    def _lines(self) -> Arrived:
        made = Arrived()
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest, made.malformed = b"", 1
        for line in lines:
            line = line.strip()
            if not line:
                continue
            cells = line.split(self._separator)
            try:
                values = [_number(cell) for cell in cells]
            except ValueError:
                # Text is a reply; a row with a cell that is not a number is damaged.
                if len(cells) == self._width and len(cells) > 1:
                    made.malformed += 1
                else:
                    made.replies.append(line)
                continue
            if len(values) == self._width:
                made.rows.append(self._named(values))
            else:
                made.malformed += 1
        return made

    def _frames(self) -> Arrived:
        made, size = Arrived(), self._row.itemsize
        whole = len(self._sync) + size + _CHECKS[self._check]
        data, at = self._rest, 0
        while True:
            found = data.find(self._sync, at)
            if found < 0:
                at = max(at, len(data) - len(self._sync) + 1)
                break
            at = found
            if len(data) - at < whole:
                break
            body = data[at + len(self._sync) : at + whole]
            if not self._is_right(body):
                made.malformed += 1
                at += 1  # the sync may have been data: search on after it
                continue
            made.rows.append(self._named(np.frombuffer(body, self._row, 1)[0].tolist()))
            at += whole
        self._rest = data[at:]
        return made

    def _is_right(self, body: bytes) -> bool:
        if self._check == "none":
            return True
        found = np.frombuffer(body[:-1], np.uint8)
        wanted = (
            int(found.sum()) & 0xFF
            if self._check == "sum"
            else int(np.bitwise_xor.reduce(found))
        )
        return wanted == body[-1]

    def _named(self, values: Any) -> tuple[float, int, tuple[Any, ...]]:
        rest = list(values)
        device_s = float("nan")
        if self._per_s is not None:
            before, self._taken_ns = self._taken_ns, now_ns()
            passed_s = 1.0 + 4e-9 * (self._taken_ns - before)
            most = self._per_s * passed_s
            device_s = self._clock.take(rest.pop(0), most) / self._per_s
        number = -1 if self._counter is None else int(rest.pop(0))
        return device_s, number, tuple(rest)


def _number(cell: bytes) -> int | float:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _one_of(options: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    found = options.get(name, known[0])
    if found not in known:
        raise ConfigError(
            f"serial: {name} must be one of {', '.join(known)}, got {found!r}"
        )
    return found


# ---- the board

_SLICE_S = 0.02
_KEPT = 1 << 20
_REPLIES = 1000


@dataclass(frozen=True)
class Exchange:
    """A command and its reply."""

    command: bytes
    """The bytes sent."""
    sent_ns: int
    """Begin of sending, monotonic ns: every reply is later."""
    reply: bytes | None
    """The reply without line end; None if it was not waited for."""
    replied_ns: int | None
    """Arrival of its last byte, monotonic ns."""


class Serial:
    """Driver of boards that a ``*.node.yaml`` file describes.

    Its uri has port and protocol: ``serial:///dev/ttyACM0?baud=115200``, with the
    options of `ataraxis.datamux.sources.serial.Wire`; its outputs have one stream.
    """

    options: ClassVar[frozenset[str]] = frozenset(
        ["fields", "time", "sample_rate_hz", "rate_hz"]
    )
    """Attributes of a stream."""

    def nodes(self, timeout: float) -> list[Node]:
        """Return an empty list: ports do not describe themselves."""
        return []

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams that the node's file describes."""
        return node.outputs

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> SerialSource:
        """Return the source of a board."""
        if node.outputs:
            stream = pick(node.outputs, stream_id, "stream", f"node {node.id!r}").copy()
        else:
            stream = _stream_from(node, stream_id, attrs)
        stream.attrs.update(id=stream_id, mode="proxy")
        parts = urlsplit(node.uri or "")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not parts.path:
            raise ConfigError(
                f"node {node.id!r}: uri {node.uri!r}: expected serial:///dev/ttyACM0"
            )
        return SerialSource(unquote(parts.path), stream, options)


def _stream_from(node: Node, stream_id: str, attrs: Mapping[str, Any]) -> Stream:
    """Return the stream of a board that is given by its URI alone."""
    fields = attrs.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        raise ConfigError(
            f"node {node.id!r}: its data is not described: give attrs "
            "fields: {NAME: DTYPE}, and time: {dtype: u32, unit: us} if its samples "
            "begin with a time"
        )
    index = {}
    if isinstance(time := attrs.get("time"), Mapping):
        unit = str(time.get("unit", "us"))
        index["t"] = Field("t", dtype=str(time.get("dtype", "u32")), unit=unit)
    rate = given_rate(attrs)
    return Stream(
        stream_id,
        frequency=None if rate is None else float(rate),
        fields={str(k): Field(str(k), dtype=str(v)) for k, v in fields.items()},
        index=index,
    )


def spread_by_device(device_s: Sequence[float], arrived_ns: int) -> list[int]:
    """Return stamps of samples that were read together, monotonic ns.

    The last one has the time of arrival; each one before it is earlier by what its
    device's time, s, is earlier. Samples without a device time, or from before the
    device's clock was reset, have the stamp of the next one: they arrived no later.

    Examples
    --------
    >>> spread_by_device([0.5, 0.75, 1.0], 2_000_000_000)
    [1500000000, 1750000000, 2000000000]
    """
    stamps, stamp, later = [], arrived_ns, math.nan
    for at_s in reversed(device_s):
        if at_s <= later:  # false without a device time
            stamp -= round((later - at_s) * 1e9)
        stamps.append(stamp)
        later = at_s
    return stamps[::-1]


class SerialSource(DescribedSource):
    """One board at a port: read samples, and send commands, from any thread.

    The options are ``baud``, and those of `Wire`.
    """

    def __init__(
        self, port: str, stream: Stream, options: Mapping[str, str] | None = None
    ) -> None:
        self._serial = need("serial", "serial", "a serial board")
        options = dict(options or {})
        try:
            self._baud = int(options.get("baud", 115200))
        except ValueError:
            raise ConfigError(
                f"serial: baud must be a number, got {options['baud']!r}"
            ) from None
        self._where = port
        super().__init__(stream)
        self._wire = Wire(stream, options)
        self._port = DeviceHandle[Any](
            f"serial port {port!r}", lambda made: made.close()
        )
        self._reading = threading.Lock()
        self._lock = threading.RLock()  # entered without Python's Condition
        self._came = threading.Condition(self._lock)
        self._rows: deque[tuple[int, float, int, Any]] = deque(maxlen=_KEPT)
        self._replies: deque[tuple[int, bytes]] = deque(maxlen=_REPLIES)
        self._number, self._stamped_ns = -1, 0
        self._failure: OSError | None = None
        self.malformed = 0
        """Number of invalid lines or frames, which are dropped."""

    def open(self) -> None:
        """Open the port exclusively."""
        self.close()
        try:
            port = self._serial.Serial(
                self._where, self._baud, timeout=_SLICE_S, exclusive=True
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise SourceNotFound(
                f"cannot open serial port {self._where!r}: {error}"
            ) from error
        self._wire.reset()
        self._rows.clear()
        self._replies.clear()
        self._number, self._failure = -1, None
        self._port.hold(port)

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the samples that arrived; see `Source.read_into`."""
        check_out(out, self.labels)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._rows:
            if not self._pump(deadline):
                return 0
        got = min(len(out), len(self._rows))
        for i in range(got):
            arrived, device_s, number, values = self._rows.popleft()
            out[i] = values
            if stamps is not None:
                stamps[i] = (arrived, device_s, number)
        return got

    def command(self, data: bytes, *, timeout: float | None = 1.0) -> Exchange:
        """Send a command, and wait for the next line that is not a sample.

        Parameters
        ----------
        data : bytes
            Bytes to send, including a line end.
        timeout : float or None
            Longest wait for the reply, s; 0: do not wait.

        Returns
        -------
        Exchange
            Command and reply, with their times.

        Raises
        ------
        TimeoutError
            No reply came in time.
        SourceLost
            The board went away.
        """
        port = self._port.get()
        with self._lock:
            self._replies.clear()
        # Before the write, as the reply may come before it returns.
        sent_ns = now_ns()
        try:
            port.write(data)
            port.flush()
        except OSError as error:
            raise self._gone(error) from error
        if timeout == 0:
            return Exchange(data, sent_ns, None, None)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._replies:
            if not self._pump(deadline):
                raise TimeoutError(
                    f"serial port {self._where!r}: no reply to {data!r} in {timeout} s"
                )
        replied_ns, reply = self._replies.popleft()
        return Exchange(data, sent_ns, reply, replied_ns)

    def _gone(self, error: OSError) -> SourceLost:
        self._failure = SourceLost(f"serial port {self._where!r} went away: {error}")
        return SourceLost(str(self._failure))

    def _pump(self, deadline: float | None) -> bool:
        """Read the port, or wait for the thread that does; False after the deadline.

        The threads of `read_into` and `command` share the port: the one that holds it
        reads for both.
        """
        left = _SLICE_S if deadline is None else deadline - time.monotonic()
        if self._failure is not None:
            raise SourceLost(str(self._failure))
        if self._reading.locked():
            with self._lock:
                self._came.wait(min(max(left, 0.0), _SLICE_S))
            return left > 0
        # If two threads come at once, one waits for the other.
        with self._reading:
            data = self._read(min(max(left, 0.0), _SLICE_S))
        if data:
            self._sort(data, now_ns())
        return bool(data) or left > 0

    def _read(self, wait_s: float) -> bytes:
        try:
            port = self._port.get()
            port.timeout = wait_s
            found: bytes = port.read(max(1, port.in_waiting))
        except (OSError, TypeError) as error:  # TypeError: closed by another thread
            if not self._port.is_open:
                raise self._gone(OSError("closed")) from error
            raise self._gone(OSError(str(error))) from error
        return found

    def _sort(self, data: bytes, arrived_ns: int) -> None:
        made = self._wire.take(data)
        self.malformed += made.malformed
        with self._lock:
            stamps = spread_by_device([row[0] for row in made.rows], arrived_ns)
            for stamp, (device_s, number, values) in zip(
                stamps, made.rows, strict=True
            ):
                self.lost += self._wire.missed(self._number, number)
                self._number = number
                self.lost += len(self._rows) == _KEPT
                self._stamped_ns = max(
                    stamp, self._stamped_ns + (not math.isnan(device_s))
                )
                self._rows.append((self._stamped_ns, device_s, number, values))
            self._replies.extend((arrived_ns, reply) for reply in made.replies)
            self._came.notify_all()

    def close(self) -> None:
        """Close the port."""
        self._port.close()
