"""What comes over a serial line: lines of text, or frames of bytes, into rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ataraxis.datamux.description import TIME_UNITS, Stream
from ataraxis.errors import ConfigError

_CHECKS = {"none": 0, "sum": 1, "xor": 1}
_LONGEST = 65536


@dataclass
class Arrived:
    """What a protocol made of some bytes."""

    rows: list[tuple[float, int, tuple[Any, ...]]] = field(default_factory=list)
    """Of each sample: device time, s (NaN: none), counter (-1: none), values."""
    replies: list[bytes] = field(default_factory=list)
    """Lines that are no samples: answers to commands."""
    malformed: int = 0
    """Lines or frames that were thrown away."""


class Wire:
    """Turns bytes into samples of a stream, as a node's uri describes it.

    Each sample is: the device's time, if the stream's index has a unit; a counter, if
    the options name one (``counter=u16``); the fields, in order.

    Parameters
    ----------
    stream : Stream
        Its fields and index.
    options : mapping
        ``protocol`` lines or frames; of lines ``separator``; of frames ``sync`` (hex),
        ``order`` (little or big), ``check`` (none, sum or xor, one byte at the end).

    Raises
    ------
    ConfigError
        An option is none.
    """

    def __init__(self, stream: Stream, options: Mapping[str, str]) -> None:
        known = {"protocol", "separator", "sync", "order", "check", "counter", "baud"}
        unknown = set(options) - known
        if unknown:
            raise ConfigError(
                f"serial: unknown option {sorted(unknown)[0]!r}: one of {sorted(known)}"
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
                raise ConfigError(f"serial: counter={self._counter}: u1, u2, u4 or u8")
            parts.append(("#n", self._counter.newbyteorder(order)))
        for name, item in stream.fields.items():
            if item.numpy_dtype.kind not in "fiub" or item.shape:
                raise ConfigError(f"serial: field {name!r}: a line carries numbers")
            parts.append((name, item.numpy_dtype.newbyteorder(order)))
        self._row = np.dtype(parts)
        self._width = len(parts)
        self._rest = b""
        if not self._is_text and not self._sync:
            raise ConfigError("serial: frames need sync, such as sync=aa55")

    def take(self, data: bytes) -> Arrived:
        """Take bytes as they came; what is whole is returned."""
        self._rest += data
        return self._lines() if self._is_text else self._frames()

    def reset(self) -> None:
        """Forget what is half there."""
        self._rest = b""

    def missed(self, before: int, now: int) -> int:
        """Return how many samples lie between two counters, which wrap."""
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
                # Text is an answer; a sample of which a cell is no number is damaged.
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
                at += 1  # the sync may have been data: look on right behind it
                continue
            row = np.frombuffer(body, self._row, 1)[0]
            made.rows.append(self._named(row.tolist()))
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
        device_s = float("nan") if self._per_s is None else rest.pop(0) / self._per_s
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
        raise ConfigError(f"serial: {name}={found!r}: one of {', '.join(known)}")
    return found
