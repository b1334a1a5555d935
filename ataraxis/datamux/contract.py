"""A check that a source does what `Source` requires; needs no test framework."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.datamux.source import STAMP, Source
from ataraxis.errors import AtaraxisError, EndOfStream
from ataraxis.labels import frame_rate


def check_source(
    make: Callable[[], Source], *, samples: int = 4, timeout: float = 10.0
) -> None:
    """Check a source: see `ataraxis.testing.check_source`."""
    source = make()
    _check_closed(source, "before open()")
    for _ in range(2):
        source.open()
        try:
            _check_descriptions(source)
            _check_refusals(source)
            _check_reading(source, samples, timeout)
        finally:
            source.close()
        source.close()
    _check_closed(source, "after close()")


def _expect(is_so: object, what: str) -> None:
    if not is_so:
        raise AssertionError(what)


def _check_closed(source: Source, when: str) -> None:
    try:
        labels = source.labels
        out = np.zeros((1, *labels.shape), labels.dtype)
    except (AtaraxisError, ValueError):
        out = np.zeros((1, 1))  # labels may be unknown before open()
    try:
        source.read_into(out, timeout=0)
    except AtaraxisError:
        return
    raise AssertionError(f"read_into {when} must raise NotConnectedError")


def _check_descriptions(source: Source) -> None:
    stream, labels = source.stream, source.labels
    _expect(stream.fields, "an open source's stream has fields")
    _expect(stream.index, "an open source's stream has a time index")
    _expect(labels.dtype.kind in "fiubU", f"samples are {labels.dtype}")
    count = len(stream.fields)
    one = next(iter(stream.fields.values()))
    shape = tuple(one.shape) if count == 1 and one.shape else (count, *one.shape)
    _expect(
        labels.shape == shape,
        f"labels have shape {labels.shape}, the fields of the stream {shape}",
    )
    rate = frame_rate(labels)
    _expect(
        rate is None or rate == stream.rate_hz,
        f"labels have {rate} Hz and the stream {stream.rate_hz} Hz",
    )


def _check_refusals(source: Source) -> None:
    labels = source.labels
    for out in (
        np.zeros((2, *labels.shape, 1), labels.dtype),
        np.zeros((0, *labels.shape), labels.dtype),
        np.zeros((2, *labels.shape), np.complex128),
    ):
        try:
            source.read_into(out, timeout=0)
        except ValueError:
            continue
        raise AssertionError(
            f"read_into({out.dtype} {out.shape}) must raise ValueError"
        )


def _check_reading(source: Source, samples: int, timeout: float) -> None:
    labels = source.labels
    began_ns, deadline = now_ns(), time.monotonic() + timeout
    got, last_ns = 0, 0
    out = np.zeros((samples, *labels.shape), labels.dtype)
    stamps = np.zeros(samples, STAMP)
    while got < samples:
        stamps["time_ns"], stamps["device_s"], stamps["device_sequence"] = 0, np.nan, -1
        asked = time.monotonic()
        try:
            n = source.read_into(out, stamps, timeout=0.05)
        except EndOfStream as end:
            raise AssertionError(f"ended after {got} of {samples} samples") from end
        _expect(isinstance(n, int) and 0 <= n <= samples, f"read_into returned {n!r}")
        _expect(time.monotonic() - asked < 2.0, "timeout=0.05 took 2 s or more")
        times = stamps["time_ns"]
        _expect((times[n:] == 0).all(), "stamps beyond what was read were written")
        if n:
            _expect((times[:n] <= now_ns()).all(), "time_ns is in the future")
            _expect((times[:n] > began_ns - 60 * 10**9).all(), "time_ns is not set")
            _expect((np.diff(times[:n]) >= 0).all(), "time_ns goes back")
            _expect(times[0] >= last_ns, "time_ns goes back between two reads")
            last_ns = int(times[n - 1])
        got += n
        _expect(
            time.monotonic() < deadline, f"{got} of {samples} samples in {timeout} s"
        )
    source.read_into(out, timeout=0)  # without stamps, without waiting
