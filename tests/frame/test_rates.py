"""Rates and stamps of labels, and the times of samples."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ataraxis.labels import (
    Labels,
    check_times,
    frame_rate,
    given_rate,
    is_blocks,
    sample_rate,
    sample_times,
    samples_per_frame,
    stamp_of,
)

BLOCK: dict[str, Any] = {"shape": (200, 32), "dims": ("time", "channel")}
rates = st.one_of(
    st.integers(1, 2_000_000).map(float),
    st.floats(0.001, 1e9, allow_nan=False),
    st.sampled_from([30.0, 29.97, 44100.0, 1 / 3, 20004.987654321]),
)


def block(**attrs: Any) -> Labels:
    return Labels("i2", attrs=attrs, **BLOCK)


def test_a_first_dim_of_time_makes_blocks() -> None:
    assert is_blocks(block())
    assert samples_per_frame(block()) == 200
    for other in (Labels("f8", ()), Labels("u1", (2, 3), ("y", "time"))):
        assert not is_blocks(other)
        assert samples_per_frame(other) == 1


def test_a_rate_alone_is_of_samples_under_both_names() -> None:
    """Fault B1: 20000 is not the rate of frames."""
    for name in ("rate_hz", "sample_rate_hz"):
        assert given_rate({name: "20 kHz"}) == "20 kHz"
        assert sample_rate(block(**{name: 20000})) == 20000.0
        assert frame_rate(block(**{name: 20000})) == 100.0
    both = block(sample_rate_hz=20000, rate_hz=90)
    assert sample_rate(both) == 20000.0
    assert frame_rate(both) == 90.0
    assert frame_rate(both.attrs, 200) == 90.0
    assert frame_rate({"rate_hz": 20000}, 200) == 100.0


@pytest.mark.parametrize("rate", [None, 0, -1, "fast", True, float("nan")])
def test_what_is_not_a_rate_is_none(rate: Any) -> None:
    assert sample_rate({"sample_rate_hz": rate}) is None
    assert frame_rate({"rate_hz": rate}) is None


def test_a_wrong_stamp_names_the_nearest() -> None:
    assert stamp_of(block()) == "arrival"
    assert stamp_of(block(stamp_of="sample")) == "sample"
    with pytest.raises(ValueError, match="did you mean 'arrival'"):
        stamp_of(block(stamp_of="arival"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("exposure_ns", -1), ("readout_ns", 1.5), ("line_time_ns", "1 us"),
     ("exposure_ns", True), ("sample_rate_hz", "20 kHz"), ("rate_hz", -1.0),
     ("stamp_of", "end")],
)  # fmt: skip
def test_wrong_attributes_of_time_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        check_times(block(**{name: value}))
    good = {"exposure_ns": 0, "readout_ns": 12, "rate_hz": 0, "stamp_of": "sample"}
    check_times(block(**good))


@given(
    rate=rates,
    counts=st.lists(st.integers(0, 40), max_size=8),
    stamps=st.lists(st.integers(0, 2**60), min_size=8, max_size=8),
    stamp=st.sampled_from(["arrival", "sample", "exposure_mid"]),
)
def test_times_are_exact(
    rate: float, counts: list[int], stamps: list[int], stamp: str
) -> None:
    """Each is within half a nanosecond of the exact one, in whatever block."""
    stamps = stamps[: len(counts)]
    found = sample_times(stamps, counts, rate, stamp)
    wanted = []
    for t, m in zip(stamps, counts, strict=True):
        for i in range(m):
            step = -(m - 1 - i) if stamp == "arrival" else i
            wanted.append(t + step * 10**9 / Fraction(repr(rate)))
    assert found.dtype == np.int64
    assert len(found) == len(wanted)
    for a, b in zip(found.tolist(), wanted, strict=True):
        assert abs(a - b) <= Fraction(1, 2)


@given(rate=rates, count=st.integers(0, 100), n=st.integers(0, 4))
def test_one_count_is_as_many(rate: float, count: int, n: int) -> None:
    stamps = np.arange(n) * 10**9
    for stamp in ("arrival", "sample"):
        np.testing.assert_array_equal(
            sample_times(stamps, count, rate, stamp),
            sample_times(stamps, [count] * n, rate, stamp),
        )


def test_long_blocks_do_not_drift() -> None:
    for rate, per_s in ((30000.0, 30000), (29.97, 2997), (20004.987654321, None)):
        count = per_s * 3 + 1 if per_s else 200_000
        found = sample_times([0], count, rate, "sample")
        last = (count - 1) * 10**9 / Fraction(repr(rate))
        assert abs(int(found[-1]) - last) <= Fraction(1, 2)
        assert (np.diff(found) > 0).all()


def test_what_has_no_times_is_refused() -> None:
    assert sample_times([5, 6], 1, None).tolist() == [5, 6]
    with pytest.raises(ValueError, match="sample_rate_hz"):
        sample_times([5], 2, None)
    with pytest.raises(ValueError, match="one count"):
        sample_times([5], [1, 2], 10.0)
    with pytest.raises(ValueError, match="0 or more"):
        sample_times([5], -1, 10.0)
    with pytest.raises(ValueError, match="stamp_of"):
        sample_times([5], 2, 10.0, "first")
