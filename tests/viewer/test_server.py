"""The server: all that is acknowledged arrives, and nothing else notices it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from view_rig import PageProgram, ViewProcess, readers_of, wait_for_reader

from ataraxis import Consumer, Producer, Session
from ataraxis.shm.gc import collect
from ataraxis.stream.inspector import Inspector

pytestmark = pytest.mark.slow

RATE = 10_000
SAMPLES, CHANNELS = 100, 4
ATTRS = {"sample_rate_hz": RATE, "units": "uV"}


@contextmanager
def sending(name: str = "probe", seconds: float = 60) -> Iterator[list[np.ndarray]]:
    """Send blocks in real time from a thread; what was sent, while it runs."""
    probe = Producer(
        name, shape=(SAMPLES, CHANNELS), dtype="i2", dims=("time", "channel"),
        attrs=ATTRS, buffer_count=256,
    )  # fmt: skip
    sent: list[np.ndarray] = []
    is_over = threading.Event()

    def run() -> None:
        rng = np.random.default_rng(0)
        began = time.monotonic()
        while not is_over.is_set() and len(sent) < seconds * RATE / SAMPLES:
            block = rng.integers(-500, 500, (SAMPLES, CHANNELS)).astype("i2")
            sent.append(block)
            probe.send(block)
            is_over.wait(max(began + len(sent) * SAMPLES / RATE - time.monotonic(), 0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        is_over.set()
        thread.join()
        probe.unlink()


def columns_of(
    page: PageProgram, panel: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for part in page.of(panel):
        for k, (low, high) in enumerate(zip(part["low"], part["high"], strict=True)):
            found[part["first"] + k] = low, high
    return found


def test_all_columns_arrive_and_are_exact() -> None:
    with ViewProcess() as view, sending() as sent, view.page() as page:
        page.show(1, "probe", seconds=2, columns=500)
        page.take_until(lambda: sum(len(p["low"]) for p in page.of(1)) > 600)
        columns = columns_of(page, 1)
        numbers = sorted(columns)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "one is missing"
        assert page.of(1)[0]["ns_a_column"] == 4e6
        rows = np.concatenate(sent[: numbers[-1] * 40 // SAMPLES + 2])
        is_lost = 0
        for number, (low, high) in columns.items():
            whole = rows[number * 40 : (number + 1) * 40]
            if (low > high).all():
                is_lost += 1
                continue
            if number == numbers[0]:  # the tap joined within it
                assert (low >= whole.min(0)).all()
                continue
            assert np.array_equal(low, whole.min(0)), number
            assert np.array_equal(high, whole.max(0)), number
        assert is_lost == 0 or page.state["panels"]["1"]["missed"] > 0
        assert page.state["panels"]["1"]["skipped"] == 0
        assert view.stop() == 0


def test_channels_and_windows_are_the_page_s_own() -> None:
    with ViewProcess() as view, sending(), view.page() as page, view.page() as other:
        page.show(1, "probe", seconds=0.5, columns=100, channels=[[1, 3]])
        page.show(2, "probe", "intervals")
        other.show(1, "probe", seconds=10, columns=100)
        page.take_until(lambda: len(page.of(1)) > 5 and page.of(2)[-1]["counts"].sum())
        other.take_until(lambda: len(other.of(1)) > 2)
        assert page.of(1)[-1]["low"].shape[1] == 2
        assert page.of(1)[-1]["ns_a_column"] == 5e6
        assert other.of(1)[-1]["low"].shape[1] == CHANNELS
        assert other.of(1)[-1]["ns_a_column"] == 1e8
        assert readers_of("probe") == ["view"], "both pages share one reader"


def test_the_past_is_what_was_live() -> None:
    with ViewProcess() as view, sending(), view.page() as page:
        page.show(1, "probe", seconds=1, columns=500)
        page.take_until(lambda: sum(len(p["low"]) for p in page.of(1)) > 1500)
        live = columns_of(page, 1)
        oldest, newest = min(live), max(live)
        page.send(op="window", panel=1, first=oldest + 10, last=oldest + 800)
        page.take_until(
            lambda: page.of(1)[-1]["flags"] & 4 or page.of(1)[-2]["flags"] & 4
        )
        past = [part for part in page.of(1) if part["flags"] & 4]
        page.parts = past
        found = columns_of(page, 1)
        assert sorted(found) == list(range(oldest + 10, oldest + 800))
        for number, (low, high) in found.items():
            assert np.array_equal(low, live[number][0])
            assert np.array_equal(high, live[number][1])
        page.send(op="window", panel=1, first=newest + 10**6, last=newest + 10**6 + 5)
        page.take_until(lambda: len([p for p in page.of(1) if p["flags"] & 4]) == 2)
        assert len(page.of(1)[-1]["low"]) <= 500


def test_a_stream_is_read_only_while_a_page_shows_it() -> None:
    with ViewProcess() as view, sending():
        with view.page() as page:
            assert page.take()
            assert readers_of("probe") == []
            page.show(1, "probe")
            page.take_until(lambda: page.of(1))
            assert readers_of("probe") == ["view"]
            assert page.state["streams"][0]["readers"] == []  # it is not in the table
            page.send(op="hide", panel=1)
            page.take_until(lambda: readers_of("probe") == [])
            page.show(1, "probe")
            page.take_until(lambda: readers_of("probe") == ["view"])
        wait_until(lambda: readers_of("probe") == [], 10, "the reader to leave")


def test_a_page_that_acknowledges_nothing_gets_two_bundles_and_costs_nothing() -> None:
    with ViewProcess() as view, sending() as sent, view.page() as page:
        page.show(1, "probe", seconds=1, columns=1000)
        page.take_until(lambda: len(page.of(1)) > 20)
        before, at = view.memory(), len(sent)
        while page.take(timeout=0.5, acknowledges=False):
            pass
        wait_until(lambda: len(sent) > at + 300, 30, "3 s of blocks")
        assert not page.take(timeout=0.2, acknowledges=False)
        assert view.memory() - before < 20e6
        page.send(op="ack", tick=page.bundles)
        page.take_until(lambda: page.state["panels"]["1"].get("skipped", 0) > 0)
        assert Inspector("probe").statistics().refused == 0
        assert Inspector("probe").statistics().stalled_s == 0


def test_a_picture_is_the_newest_and_none_is_queued() -> None:
    with (
        ViewProcess() as view,
        Producer("camera", shape=(48, 64), dtype="u2", buffer_count=8) as camera,
        view.page() as page,
    ):
        page.take()
        page.show(3, "camera", "picture", columns=32, raw=True)
        wait_for_reader("camera")
        frame = np.arange(48 * 64, dtype="u2").reshape(48, 64)
        for _ in range(20):
            camera.send(frame)
        page.take_until(lambda: page.of(3) and page.of(3)[-1]["sequence"] == 19)
        assert len(page.of(3)) < 20
        part = page.of(3)[-1]
        assert (part["width"], part["height"], part["encoding"]) == (64, 48, 0)
        assert (part["whole_width"], part["whole_height"]) == (64, 48)
        assert part["low"] < 100 < 2900 < part["high"]
        pytest.importorskip("simplejpeg")
        page.show(3, "camera", "picture", columns=64)
        camera.send(frame)
        page.take_until(lambda: page.of(3)[-1]["encoding"] == 1)
        assert page.of(3)[-1]["data"][:2] == b"\xff\xd8"
        camera.unlink()


def test_a_stream_that_is_made_again_is_followed() -> None:
    with ViewProcess() as view, view.page() as page:
        page.show(1, "probe", seconds=1, columns=100)
        page.take()
        with sending():
            page.take_until(lambda: page.of(1))
        first = page.state["panels"]["1"]["id"]
        page.parts.clear()
        with sending():
            page.take_until(lambda: page.of(1))
            page.take_until(lambda: page.state["panels"]["1"]["id"] != first)
            # A part of the first one may have been on its way.
            is_again = [bool(part["flags"] & 2) for part in page.of(1)]
            assert any(is_again), "the page begins again"
        assert view.stop() == 0


def test_what_cannot_be_read_is_said_and_the_rest_goes_on(context: Path) -> None:
    (context / "damaged").write_bytes(b"not a segment" * 1000)
    with ViewProcess() as view, sending(), view.page() as page:
        page.show(1, "damaged")
        page.show(2, "probe", "picture")
        page.show(3, "probe")
        page.take_until(lambda: len(page.of(3)) > 5)
        problems = {s["name"]: s["problem"] for s in page.state["streams"]}
        assert problems["damaged"]
        assert not problems["probe"]
        assert page.state["verdict"]["text"] == "damaged cannot be read"
        assert page.of(1) == page.of(2) == []
    (context / "damaged").unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    with ViewProcess() as view, sending(), view.page() as page:
        page.show(1, "probe")
        page.take_until(lambda: page.of(1))
        view.process.send_signal(number)
        _, problems = view.process.communicate(timeout=20)
        assert (view.process.returncode, problems) == (0, "")
        wait_until(lambda: readers_of("probe") == [], 10, "the reader to leave")


def test_a_stopped_and_killed_server_changes_nothing() -> None:
    with (
        ViewProcess() as view,
        sending() as sent,
        Consumer("probe", policy="lossless", label="analysis") as reader,
        view.page() as page,
    ):
        taken = 0

        def take_all() -> None:
            nonlocal taken
            while (frame := reader.receive(False)) is not None:
                assert np.array_equal(frame.array, sent[taken])
                frame.release()
                taken += 1

        def take_until(count: int) -> bool:
            take_all()
            return taken >= count

        page.show(1, "probe")
        while not page.of(1):
            page.take(timeout=0.1)
            take_all()
        os.kill(view.pid, signal.SIGSTOP)
        wait_until(lambda: take_until(600), 60, "two rings and more of blocks")
        os.kill(view.pid, signal.SIGKILL)
        view.process.wait()
        wait_until(lambda: take_until(1000), 60, "4 s of blocks")
        found = Inspector("probe").statistics()
        assert (found.refused, found.stalled_s, found.skipped) == (0, 0, 0)
        assert readers_of("probe") == ["analysis"]
    collect()


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_a_session_that_was_looked_at_is_trusted(
    end: signal.Signals, tmp_path: Path
) -> None:
    with (
        ViewProcess() as view,
        sending(),
        Session("m42", directory=tmp_path) as session,
    ):
        session.record("probe")
        with view.page() as page:
            page.show(1, "probe")
            page.take_until(lambda: page.of(1) and "view" in readers_of("events"))
            for k in range(2000):
                session.event("lick", count=k)
                if k == 600:
                    page.take_until(lambda: page.state.get("events"))
                    os.kill(view.pid, end)
            event = page.state["events"][-1]
            assert event["name"] == "lick"
        wait_until(lambda: session.statistics()["probe"].frames > 50, 20, "frames")
        if end == signal.SIGSTOP:
            os.kill(view.pid, signal.SIGCONT)
    assert session.verdict is not None
    assert session.verdict.is_trusted, session.verdict
    assert session.verdict["events"].received == 2000


def test_a_session_is_shown_by_its_directory(tmp_path: Path) -> None:
    with sending(), sending("other"), Session("m42", directory=tmp_path) as session:
        session.record("probe")
        with ViewProcess(str(session.directory)) as view, view.page() as page:
            page.take_until(lambda: "verdict" in page.state)
            page.take_until(lambda: page.state["verdict"]["tone"] == "good")
            names = [s["name"] for s in page.state["streams"]]
            assert names == ["events", "probe"]
            assert page.state["verdict"]["text"] == "recording · nothing missing"
