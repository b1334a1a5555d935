"""Expected, received, missing, late, waiting and device losses: one count.

Contract: `verify`, the verdict, xarray and LogArchive agree over the same recordings.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_log
import xarray as xr
from click.testing import CliRunner
from deadline import wait_until
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ataraxis import Consumer, DataLogger, LogArchive, Producer, Recorder, Session
from ataraxis.cli import main
from ataraxis.labels import Labels
from ataraxis.log.account import REFUSED, SourceAccount, SourceReport
from ataraxis.log.device import DeviceStamps, unwrapped
from ataraxis.log.journal.page import Gap
from ataraxis.log.selection import distinct
from ataraxis.log.verification import verify
from ataraxis.stream.inspector import Inspector
from ataraxis.stream.statistics import device_gaps

pytestmark = pytest.mark.usefixtures("context")

# ---- unique numbers


@given(arrays("u8", st.integers(0, 30), elements=st.integers(0, 9)))
def test_distinct_equals_numpy_unique(numbers: Any) -> None:
    before = numbers.copy()
    assert distinct(numbers).tolist() == np.unique(numbers).tolist()
    assert distinct(np.sort(numbers)).tolist() == np.unique(numbers).tolist()
    assert np.array_equal(numbers, before)


# ---- counters of devices


def counted(
    counters: list[int],
    bits: int = 64,
    refused: int = 0,
    sequences: list[int] | None = None,
    times: list[int] | None = None,
    **attrs: Any,
) -> Any:
    stamps = DeviceStamps()
    each = attrs.pop("each", 1)
    stamps.describe({"device_counter_bits": bits, **attrs}, each)
    n = len(counters)
    device = np.stack([np.arange(n), np.array(counters, "u8").view("i8")], 1)
    order = np.arange(n) if sequences is None else np.array(sequences)
    stamps.add(device, order.astype("u8"), np.array(times or range(n)) * 10**6)
    return stamps.losses(refused)


@pytest.mark.parametrize(
    ("attrs", "each", "wanted"),
    [
        ({"rate_hz": 20000}, 200, 100.0),
        ({"sample_rate_hz": 20000}, 200, 100.0),
        ({"sample_rate_hz": 20000, "rate_hz": 100}, 200, 100.0),
        ({"rate_hz": 120}, 1, 120.0),
        ({"rate_hz": 0}, 1, None),
        ({}, 200, None),
    ],
)
def test_the_declared_rate_is_of_frames(
    attrs: dict[str, Any], each: int, wanted: float | None
) -> None:
    """Fault B1: 20,000 Hz in blocks of 200 are 100 frames a second."""
    stamps = DeviceStamps()
    stamps.describe(attrs, each)
    assert stamps.declared_hz == wanted


@pytest.mark.parametrize("lost", [1, 40, 5000])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_numbers_that_the_device_left_out_are_counted(lost: int, bits: int) -> None:
    if lost + 1 >= 1 << (bits - 1):
        pytest.skip("a counter of 8 bits cannot tell")
    start = (1 << bits) - 60 if bits < 32 else 0  # it wraps within the loss
    whole = list(range(start, start + 6000 + lost))
    kept = whole[:50] + whole[50 + lost :]
    found = counted([k % (1 << bits) for k in kept], bits, times=kept)
    assert (found.lost, found.resets) == (lost, 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_counter_that_wraps_five_times_loses_nothing(bits: int) -> None:
    n = 5 * (1 << bits) + 7
    found = counted([k % (1 << bits) for k in range(3, n)], bits)
    assert (found.lost, found.resets, found.wraps) == (0, 0, 5)


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("at", [10, 3000, 40_000])
def test_a_reset_is_neither_wrap_nor_loss(bits: int, at: int) -> None:
    counters = [*range(at), *range(100)]
    found = counted(counters, bits)
    assert (found.lost, found.resets, found.wraps) == (0, 1, 0)
    counters.remove(50) if at <= 50 else counters.pop(50)
    assert counted(counters, bits).lost == 1


def test_elapsed_time_separates_a_reset_from_a_wrap() -> None:
    """40,000 back to 0 in a u16 is 25,536 forwards; no device does that in 1 ms."""
    counters = np.array([39_998, 39_999, 40_000, 0, 1], "u8")
    times = np.arange(5) * 10**6
    steps, resets, wraps = unwrapped(counters, 16, times)
    assert (resets.tolist(), wraps) == ([2], 0)
    # After such a pause it may have wrapped.
    times[3:] += 25_535 * 10**6
    steps, resets, wraps = unwrapped(counters, 16, times)
    assert (resets.tolist(), wraps, int(steps[2])) == ([], 1, 25_536)


def test_a_loss_of_the_ring_is_not_a_loss_of_the_device() -> None:
    numbers = [0, 1, 2, 5, 6, 9]  # of the device
    assert counted(numbers).lost == 4
    assert counted(numbers, sequences=[0, 1, 2, 5, 6, 7]).lost == 2
    assert counted(numbers, refused=3).lost == 1
    assert counted(numbers, refused=9).lost == 0
    blocks = [0, 200, 400, 1000, 1203]
    assert counted(blocks, each=200, device_counter="samples").lost == 403
    assert counted(blocks, each=200).lost == 403
    assert counted([0, 1, 2, 4], each=200).lost == 1
    assert counted([0, 0, 0, 0]) is None
    assert counted([0, 1], device_counter="unknown") is None


@pytest.mark.parametrize(
    ("gaps", "sent", "expected"),
    [(199 * 9, 10, 0), (199 * 9 + 7, 10, 7), (0, 10, 0), (4, 10, 4), (0, 1, 0)],
)
def test_samples_and_frames_are_not_mixed(gaps: int, sent: int, expected: int) -> None:
    block = Labels("i2", (200, 4), dims=("time", "channel"))
    assert device_gaps(gaps, sent, block) == expected
    for counter in ("samples", "frames"):
        known = Labels(
            "i2", (200, 4), ("time", "channel"), attrs={"device_counter": counter}
        )
        assert device_gaps(gaps, sent, known) == gaps
    picture = Labels("u1", (200, 4), dims=("y", "x"))
    assert device_gaps(gaps, sent, picture) == gaps


@pytest.mark.parametrize("lost", [0, 3])
def test_a_block_source_has_no_gaps_in_its_statistics(lost: int) -> None:
    with Producer("daq", shape=(50, 2), dtype="i2", dims=("time", "channel")) as daq:
        for k in range(40):
            number = 50 * k + (lost if k > 20 else 0)
            daq.send(np.zeros((50, 2), "i2"), device_time=k, device_sequence=number)
        assert daq.statistics().device_gaps == lost
        assert Inspector("daq").statistics().device_gaps == lost
        output = CliRunner().invoke(main, ["top", "--once"]).output
        assert (f"{lost} missing in the device" in output) == bool(lost)
        daq.unlink()


@pytest.mark.parametrize("lost", [0, 3])
def test_blocks_of_any_length_have_no_gaps_inside(lost: int) -> None:
    attrs = {"device_counter": "samples"}
    shape, dims = (50, 2), ("time", "channel")
    daq = Producer("daq", shape=shape, dtype="i2", dims=dims, attrs=attrs)
    with daq:
        at = 0
        for n in (50, 3, 49, 0, 1, 50, 7):
            at += lost if n == 1 else 0
            rows = np.zeros((n, 2), "i2")
            assert daq.send(rows, device_time=at, device_sequence=at)
            at += n
        with daq.next_to_send() as slot:
            slot.array[:] = 0
            slot.stamp(device_sequence=at)
        device = np.array([[0, at + 50], [0, at + 100]])
        daq.send_block(np.zeros((2, *shape), "i2"), device=device)
        assert daq.statistics().device_gaps == lost
        assert Inspector("daq").statistics().device_gaps == lost
        daq.unlink()


# ---- sequence numbers that do not count frames


def test_a_logger_with_several_threads_and_processes_misses_nothing(
    tmp_path: Path,
) -> None:
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")
    with DataLogger(tmp_path, "rig", layout="journal") as logger:
        queue = logger.input_queue
        programs = [
            spawn.Process(target=workers_log.log_arrays, args=(queue, s, 150))
            for s in (1, 2)
        ]
        for program in programs:
            program.start()
        workers_log.log_arrays(queue, 3, 150)
        for program in programs:
            program.join()
    report = verify(logger.output_directory)
    assert report.is_complete, report
    assert [s.expected for s in report.sources] == [150] * 3
    with xr.open_datatree(logger.output_directory, engine="ataraxis") as tree:
        assert [tree[k].attrs["missing"] for k in tree.children] == [0] * 3


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_viewer_that_holds_an_event_takes_nothing_from_the_verdict(
    tmp_path: Path, is_closed: bool
) -> None:
    with Session("s", directory=tmp_path) as s:
        viewer = Consumer("events", policy="lossy", start="latest")
        held = []
        for k in range(900):
            s.event("tick", k=k)
            frame = viewer.receive(timeout=10)
            # The second half of the ring is pinned, the first copied.
            if k == 200:
                held.append(frame.array)
            del frame
        skipped = Inspector("events").statistics().skipped
        if is_closed:
            held.clear()
            viewer.close()
    assert skipped
    assert s.verdict.is_trusted, s.verdict
    assert s.verdict["events"].expected == s.verdict["events"].received == 900
    assert verify(s.directory).is_complete
    held.clear()
    viewer.close()


# ---- late, and waited


def test_frames_sent_before_the_recorder_joined_are_late(tmp_path: Path) -> None:
    with Producer("cam", shape=(), dtype="i8", buffer_count=8) as cam:
        for k in range(40):
            cam.send(k)
        with Session("s", directory=tmp_path) as s:
            s.record("cam", timeout=10)
            for k in range(40, 100):
                cam.send(k)
    stream = s.verdict["cam"]
    assert s.verdict.is_trusted
    assert stream.late > 30
    assert stream.late + stream.expected == 100
    assert stream.expected == stream.received
    assert f"began at sequence {stream.late}" in stream.notes[0]
    (report,) = [r for r in verify(s.directory).sources if r.name == "cam"]
    assert (report.late, report.expected) == (stream.late, stream.expected)
    with xr.open_datatree(s.directory, engine="ataraxis") as tree:
        assert tree["cam"].attrs["late"] == stream.late
        assert tree["cam"].attrs["missing"] == 0


def test_frames_before_a_late_start_of_a_whole_recording_are_missing(
    tmp_path: Path,
) -> None:
    with Producer("cam", shape=(), dtype="i8", buffer_count=8) as cam:
        for k in range(20):
            cam.send(k)
        with Recorder("cam", tmp_path, is_whole=True):
            for k in range(20, 50):
                cam.send(k)
    (report,) = verify(tmp_path).sources
    assert report.expected == 50
    assert report.missing == 50 - report.received > 0
    assert report.late == 0
    with LogArchive(tmp_path) as log:
        assert log.missing("cam") == report.missing
        assert log.gaps[0].reason == "sent before the recorder had joined"


def account(gaps: list[Gap], *, is_numbered: bool = True) -> SourceReport:
    """Three entries, numbered 0 to 2, and these gaps."""
    entries = [np.arange(3, dtype="u8")]
    source = SourceAccount("cam", is_numbered, sequences=entries, gaps=gaps)
    return source.report("cam", 0)


@pytest.mark.parametrize("first", [0, 2, 3])
def test_refused_frames_are_expected_wherever_they_were(first: int) -> None:
    """3: the producer ended, so that no later frame took their number."""
    found = account([Gap(0, first, 5, REFUSED)])
    assert (found.expected, found.missing) == (8, 5)


def test_gaps_are_added_where_sequence_numbers_do_not_count() -> None:
    found = account(
        [Gap(0, 0, 4, "no room"), Gap(0, 2, 2, "no room")], is_numbered=False
    )
    assert (found.expected, found.received, found.missing) == (9, 3, 6)


def test_waiting_time_is_counted_per_source(tmp_path: Path) -> None:
    with Producer("held", shape=(), dtype="i8", buffer_count=4) as held:
        with Recorder("held", tmp_path):
            held.send(0)
        reader = Consumer("held", policy="lossless")
        began = time.monotonic()
        waiting = threading.Thread(target=lambda: [held.send(k) for k in range(9)])
        waiting.start()
        wait_until(lambda: held.statistics().stalled_s > 0.5, 20, "a stall")
        with Recorder("held", tmp_path):
            reader.close()
            waiting.join()
        most = time.monotonic() - began
    (report,) = verify(tmp_path).sources
    assert 0.5 < report.waited_s < most
