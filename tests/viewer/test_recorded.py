"""Recordings by time: exact columns of any span, pictures, gaps; what a page asks."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_rig import BLOCK, RATE, recorded_session, sparse_recording
from view_rig import PageProgram, ViewProcess

import ataraxis
from ataraxis.errors import BadMessage
from ataraxis.viewer import bundle, recorded
from ataraxis.viewer.levels import Samples
from ataraxis.viewer.recorded import RecordedSession, RecordedStream
from ataraxis.viewer.recorded_page import RecordedPage, RecordedPump
from ataraxis.viewer.view import recording_of

LOST = tuple(range(300, 330))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_session(tmp_path_factory.mktemp("rec"), 8, 4, LOST)


@pytest.fixture(scope="module")
def session(home: Path) -> Any:
    found = RecordedSession(home)
    yield found
    found.close()


def everything(stream: RecordedStream) -> tuple[np.ndarray, np.ndarray]:
    """Times since the beginning, and values, of all samples."""
    samples = stream.samples
    times = samples.at(np.arange(len(samples))).astype("i8") - stream.zero
    return times, samples.read(0, len(samples))


def check(stream: RecordedStream, start: int, stop: int, most: int, slack: int) -> None:
    """Compare with a loop; an edge may be `slack` samples away, exactly once."""
    seen = stream.columns(start, stop, most)
    times, values = everything(stream)
    count = len(seen.low)
    assert count <= most + 2
    edges = seen.start_ns + np.arange(count + 1) * seen.ns
    assert edges[0] <= max(start, times[0]) + 1
    assert edges[-1] >= min(stop, times[-1]) - 1
    at = np.searchsorted(times, np.rint(edges))
    wrong = 0
    for k in range(count):
        own = values[at[k] : at[k + 1]]
        is_empty = seen.low[k, 0] > seen.high[k, 0]
        if not len(own):
            wrong += not is_empty
            continue
        lows, highs = own.min(0), own.max(0)
        if (seen.low[k] == lows).all() and (seen.high[k] == highs).all():
            continue
        around = values[max(at[k] - slack, 0) : at[k + 1] + slack]
        inner = values[at[k] + slack : max(at[k + 1] - slack, at[k] + slack)]
        assert slack, (k, seen.low[k], lows)
        assert (seen.low[k] >= around.min(0)).all()
        if len(inner):
            assert (seen.low[k] <= inner.min(0)).all()
            assert (seen.high[k] >= inner.max(0)).all()
    # The first column of a stream without a rate holds the value before.
    assert wrong <= (0 if seen.are_lost else 1)


@settings(deadline=None, max_examples=40)
@given(
    start=st.integers(-(10**9), 9 * 10**9),
    length=st.integers(10**4, 10**10),
    most=st.integers(1, 700),
    name=st.sampled_from(["probe", "wheel"]),
)
def test_columns_are_those_of_a_loop(session, start, length, most, name) -> None:
    check(session.streams[name], start, start + length, most, 0)


@settings(deadline=None, max_examples=30)
@given(
    start=st.integers(-(10**9), 7 * 10**9),
    length=st.integers(2 * 10**9, 10**10),
    most=st.integers(1, 60),
)
def test_columns_of_levels_begin_near_their_edges(session, start, length, most) -> None:
    stream = session.streams["probe"]
    stream.levels.complete()
    patch = pytest.MonkeyPatch()
    patch.setattr(recorded, "_READ_AT_MOST", 0)
    try:
        seen = stream.columns(start, start + length, most)
        assert seen.is_exact
        each = max(1, int(seen.ns * RATE / 1e9))
        check(stream, start, start + length, most, max(32, each // 8))
    finally:
        patch.undo()


def test_a_spike_is_in_one_column_and_a_gap_is_empty(session) -> None:
    stream = session.streams["probe"]
    seen = stream.columns(0, session.end, 200)
    empty = np.flatnonzero(seen.low[:, 0] > seen.high[:, 0])
    assert len(empty) >= 3
    begin, end = (np.array([LOST[0], LOST[-1]]) * BLOCK / RATE * 1e9).tolist()
    middle = seen.start_ns + (empty + 0.5) * seen.ns
    assert ((middle > begin - seen.ns) & (middle < end + 3 * seen.ns)).all()
    assert seen.are_lost
    (gap,) = stream.gaps
    assert gap[2] == len(LOST)
    _, values = everything(stream)
    assert seen.low.min() == values.min()


def test_pictures_events_and_words(session) -> None:
    camera = session.streams["camera"]
    row, when, pixels = camera.picture(4_040_000_000)
    assert (row, when // 10**7) in ((40, 400), (41, 410))
    assert pixels.shape == (240, 320)
    assert camera.picture(-5)[0] == 0
    assert camera.picture(10**12)[0] == 79
    assert [e["name"] for e in session.events_in(0, 4 * 10**9)] == ["reward", "stim_on"]
    words = session.words()
    assert words["verdict"] == {
        "tone": "bad", "text": "not to be trusted · 30 frames missing"
    }  # fmt: skip
    assert [s["name"] for s in words["streams"]] == ["camera", "probe", "wheel"]
    assert "killed" in str(words["recording"]["notes"])


def test_long_streams_keep_some_stamps_only(
    home: Path, session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are found by the stamps on disk."""
    monkeypatch.setattr(recorded, "_ROWS", 50)
    few = RecordedSession(home)
    for name in ("camera", "wheel"):
        other, one = session.streams[name], few.streams[name]
        assert one.step > 1
        for at in range(-(10**8), 9 * 10**9, 377_777_777):
            assert one.nearest(at) == other.nearest(at)
    wheel = few.streams["wheel"].columns(10**9, 2 * 10**9, 7)
    same = session.streams["wheel"].columns(10**9, 2 * 10**9, 7)
    np.testing.assert_array_equal(wheel.low, same.low)
    assert sum(n for *_, n in few.streams["probe"].gaps) == len(LOST)
    few.close()


def test_many_frames_without_a_fit_have_the_times_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit of a million frames takes a minute; single samples are still in a row."""
    monkeypatch.setattr("ataraxis.viewer.levels._FITTED", 10)
    home = recorded_session(tmp_path, 4, 4, LOST[:5])
    few = RecordedSession(home)
    stream = few.streams["probe"]
    assert stream.samples.is_fitted == (home / "fits").exists()
    shutil.rmtree(home / "fits", ignore_errors=True)
    few.close()
    few = RecordedSession(home)
    stream = few.streams["probe"]
    assert not stream.samples.is_fitted
    seen = stream.columns(10**9, 10**9 + 10**7, 1000)
    assert seen.ns == 1e5
    assert (seen.low == seen.high).all(), "one sample a column, and none is empty"
    whole = stream.columns(0, few.end, 100)
    _, values = everything(stream)
    assert whole.low.min() == values.min()
    few.close()


# ---- pages


def test_a_page_is_answered_and_what_is_sampled_becomes_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_READ_AT_MOST", 0)
    monkeypatch.setattr("ataraxis.viewer.levels.PIECE_BYTES", 1 << 12)
    pump = RecordedPump(recorded_session(tmp_path, 4, 4))
    page = pump.new_page()
    page.hear('{"op": "show", "panel": 1, "kind": "traces", "stream": "probe",'
              ' "columns": 40}')  # fmt: skip
    page.hear('{"op": "show", "panel": 2, "kind": "picture", "stream": "camera"}')
    page.hear('{"op": "show", "panel": 3, "kind": "intervals", "stream": "probe"}')
    page.hear('{"op": "show", "panel": 4, "kind": "traces", "stream": "nothing"}')
    parts: list[Any] = []
    state: dict[str, Any] = {}
    exact: list[bool] = []

    def take() -> None:
        for _, data in pump.step([page]):
            head, found = bundle.decode(data)
            page.acknowledge(tick=head["tick"])
            for part in found:
                state.update(part.get("state", {}))
                about = part.get("state", {}).get("panels", {}).get("1", {})
                exact.extend([about["is_exact"]] if "is_exact" in about else [])
            parts.extend(p for p in found if p["kind"] != bundle.STATE)

    def is_done() -> bool:
        take()
        return bool(exact) and exact[-1] and len({p["panel"] for p in parts}) == 3

    wait_until(is_done, 20, "an exact answer")
    assert state["recording"]["name"] == "m42_day3"
    columns = [p for p in parts if p["panel"] == 1]
    assert columns[-1]["low"].shape == (40, 4)
    assert next(p for p in parts if p["panel"] == 3)["counts"].sum() == 399
    # The picture is that of the middle, then of the cursor.
    assert next(p for p in parts if p["panel"] == 2)["sequence"] == 20
    page.hear('{"op": "cursor", "at": 0}')
    wait_until(lambda: take() or any(p.get("sequence") == 0 for p in parts), 20)
    before = len(columns)
    page.hear('{"op": "span", "start": 1000000000, "stop": 1001000000}')
    wait_until(
        lambda: take() or len([p for p in parts if p["panel"] == 1]) > before, 20
    )
    assert [p for p in parts if p["panel"] == 1][-1]["ns_a_column"] == 1e5
    pump.end()


@pytest.mark.parametrize(
    "message",
    ['{"op": "span", "start": 1, "stop": 1}', '{"op": "span", "start": 0.5, "stop": 2}',
     '{"op": "cursor", "at": "x"}', '{"op": "window", "panel": 1, "first": 0}', "[]",
     '{"op": "show", "panel": 1, "kind": "x", "stream": "probe"}', '{"op": "ack"}'],
)  # fmt: skip
def test_nonsense_is_refused(message: str) -> None:
    with pytest.raises(BadMessage):
        RecordedPage().hear(message)


def test_the_command_serves_a_recording(home: Path) -> None:
    with ViewProcess(str(home)) as view:
        assert "/recording.html?token=" in view.url
        with view.page() as page:
            ask(page)
        assert view.stop() == 0


def ask(page: PageProgram) -> None:
    page.show(1, "probe", columns=100)
    page.take_until(lambda: page.of(1) and "recording" in page.state)
    assert page.of(1)[0]["low"].shape[1] == 4


def test_what_is_a_recording(home: Path, tmp_path: Path) -> None:
    assert recording_of([]) == recording_of(["probe"]) == recording_of(["a", "b"]) == ""
    assert recording_of([home]) == str(home)
    (journal,) = home.glob("wheel*.axj")
    assert recording_of([str(journal.parent)]) == str(home)
    with pytest.raises(FileNotFoundError, match="expected a log"):
        recording_of([tmp_path])
    with pytest.raises(FileNotFoundError, match="expected a log"):
        ataraxis.view(tmp_path)
    with ataraxis.view(home) as view:
        assert repr(view).startswith("<View of recording")
        assert "/recording.html" in view.url


@pytest.mark.slow
def test_three_hours_and_a_hundred_gigabytes_open_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little of it is read, whatever the span; the columns of a level are in files."""
    home = sparse_recording(tmp_path, 10_800)
    assert sum(f.stat().st_size for f in home.iterdir()) > 100e9
    read = [0]
    for name in ("read", "few"):
        original = getattr(Samples, name)

        def counted(self: Any, start: int, stop: int, original: Any = original) -> Any:
            found = original(self, start, stop)
            read[0] += found.nbytes
            return found

        monkeypatch.setattr(Samples, name, counted)
    session = RecordedSession(home)
    assert session.end == 10_800 * 10**9 - round(1e9 / 30_000) + 1
    stream = session.streams["probe"]
    for share in (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        start, length = session.end // 3, int(session.end * share)
        read[0] = 0
        seen = stream.columns(start, start + length, 1000)
        assert 0 < len(seen.low) <= 1002
        assert read[0] < 300e6
        assert seen.is_exact == (share <= 1e-4)
    # A single sample, hours from the beginning.
    at = 7000 * 10**9
    seen = stream.columns(at - 2 * 10**6, at + 2 * 10**6, 1000)
    assert seen.high.max() == 8000
    assert (seen.high[:, 0] == 8000).sum() == 1
    for _ in range(3):
        assert stream.levels.extend()
    assert 0 < stream.share < 0.01
    session.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory < 6e6, "kB: the files are mapped"
