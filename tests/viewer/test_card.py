"""Cards: what a notebook shows of an object, from strings of unknown origin too."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import programs
import pytest
from browser import CONTRASTS, chromium
from workers_pipe import double

from ataraxis import (
    Consumer,
    DataFrame,
    DataLogger,
    LogArchive,
    MemQ,
    Pipe,
    Processor,
    Producer,
    Recorder,
    Session,
    SharedMemoryArray,
)
from ataraxis.card import LIMIT, Card, Cell, columns_of, image, plain, sparkline
from ataraxis.card._objects import KINDS
from ataraxis.datamux import Field, Stream
from ataraxis.datamux.recording import Recording
from ataraxis.stream.inspector import Inspector

HOSTILE = "<img src=x onerror=alert(1)>\u202e&\"'"
BLOCK = {"sample_rate_hz": 30_000}


class Found(HTMLParser):
    """The tags and attributes of a card, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


TAGS = {
    "div", "strong", "span", "table", "thead", "tbody", "tr", "th", "td", "svg", "path",
    "img", "style", "rect", "text", "defs", "marker",
}  # fmt: skip


def test_a_number_with_a_meaning_is_aligned_as_the_others() -> None:
    html = Card("a", ["b"], heads=["lost"], rows=[[Cell("1,234", "bad")]]).html()
    assert '<td class="n bad">1,234</td>' in html
    html = Card("a", ["b"], heads=["state"], rows=[[Cell("away", "bad")]]).html()
    assert '<td class="bad">away</td>' in html


def check(html: str) -> str:
    """Check what holds for every card; return its text without the style."""
    assert len(html.encode()) < LIMIT
    without = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    found = Found(html)
    assert found.tags <= TAGS
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value is not None
            assert value.startswith("data:image/png;base64,")
    assert "url(" not in html.replace("url(#arrow)", "")
    assert "cannot be shown" not in without, without
    return without


@pytest.fixture
def probe():
    with Producer(
        "probe", shape=(300, 4), dtype="i2", dims=("time", "channel"), attrs=BLOCK,
        buffer_count=16,
    ) as stream:  # fmt: skip
        yield stream
        stream.unlink()


# ---- the parts


def test_text_is_escaped_and_cut() -> None:
    shown = plain(HOSTILE * 9)
    assert len(shown) < 1000
    assert not {"<", ">", '"', "'", "\u202e"} & set(shown)
    assert plain("\ud800") == "?"


def test_a_card_of_too_many_rows_says_so_and_stays_small() -> None:
    rows = [("x" * 200,) * 16] * 500
    html = check(Card("big", rows=rows, heads=("h",) * 16).html())
    assert "and 492 more rows" in html


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_columns_hold_every_extreme(count: int) -> None:
    values = np.random.default_rng(0).normal(size=50)
    low, high = columns_of(values, count)
    assert len(low) == count
    pieces = np.array_split(values, count) if 50 % count == 0 else None
    if pieces is not None:
        assert low.tolist() == [piece.min() for piece in pieces]
    assert (low.min(), high.max()) == (values.min(), values.max())


@pytest.mark.parametrize(
    "values",
    [np.zeros(0), np.array([np.nan]), np.array(["a"]), np.zeros((2, 2))],
    ids=["empty", "nan", "text", "2-d"],
)
def test_what_is_not_a_line_has_no_sparkline(values: np.ndarray) -> None:
    assert sparkline(values) is None


def test_a_picture_of_noise_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2160, 3840, 3), np.uint8)
    for pixels in (noise, noise[..., 0], noise[..., 0] * 1e9):
        check(Card("c", picture=image(pixels)).html())
    assert image(np.zeros((3, 0))) is None


# ---- the objects


def test_a_consumer_shows_its_stream_readers_and_newest_samples(probe) -> None:
    with Consumer("probe", policy="lossless", label=HOSTILE[:30]) as reader:
        block = np.zeros((300, 4), "i2")
        block[150, 2] = 900
        probe.send(block)
        html = check(reader._repr_html_())
        assert "int16 (time: 300, channel: 4)" in html
        assert "1 frame, live" in html
        assert "channel 2, newest 10 ms" in html
        assert "<svg" in html
        assert "&lt;img src=x" in html
        received = re.sub(r"<svg.*?</svg>", "", html)
        assert '<td class="n">1</td>' in received  # behind by one
        assert reader.received_count == 0, "a card receives nothing"
    closed = check(reader._repr_html_())
    assert "closed here" in closed


def test_a_producer_shows_no_picture_as_it_reads_nothing(probe) -> None:
    probe.send(np.zeros((300, 4), "i2"))
    html = check(probe._repr_html_())
    assert "<svg" not in html
    assert Inspector("probe").statistics().readers == ()


def test_a_camera_shows_its_newest_image() -> None:
    with Producer("cam", shape=(48, 64), dtype="u1") as cam, Consumer("cam") as reader:
        assert "<img" not in check(reader._repr_html_())
        cam.send(np.full((48, 64), 7, "u1"))
        assert "data:image/png;base64," in check(reader._repr_html_())
        frame = reader.receive()
        assert "<img" in check(frame._repr_html_())
        frame.release()
        assert "released" in check(frame._repr_html_())
        cam.unlink()


def test_an_array_shows_a_corner_with_its_labels() -> None:
    with SharedMemoryArray.create_array(
        "pose", np.arange(24.0).reshape(8, 3), dims=("mouse", "axis"),
        coords={"axis": ["x", "<y>", "z"]},
    ) as pose:  # fmt: skip
        pose[0] = [5, 6, 7]
        html = check(pose._repr_html_())
        assert "float64 (mouse: 8, axis: 3), 1 write" in html
        assert '<th scope="col" class="n">&lt;y&gt;</th>' in html
        assert "the first of 8 x 3 values" in html
        with pose.lock:
            assert "locked by participant" in check(pose._repr_html_())
    assert "not connected" in check(pose._repr_html_())


@pytest.mark.parametrize(
    "values",
    [np.array(3.5), np.zeros((0, 4)), np.ones((2, 3, 4, 5)), np.array(["<a>", "b"]),
     np.zeros(3, [("x", "f8"), ("n", "i4")]), np.array([True, False]),
     np.array([1 + 2j]), np.array(["2026-01-01"], "M8[ns]")],
    ids=["scalar", "empty", "4-d", "text", "records", "bools", "complex", "times"],
)  # fmt: skip
def test_an_array_of_any_dtype_is_shown(values: np.ndarray) -> None:
    with SharedMemoryArray.create_array("any", values) as array:
        check(array._repr_html_())


def test_a_queue_and_its_numbers() -> None:
    queue = MemQ("work", 8, 1024)
    queue.put("a")
    html = check(queue._repr_html_())
    assert "8 slots, 1 put" in html
    queue.unlink()
    assert "closed here" in check(queue._repr_html_())


@pytest.mark.parametrize(
    ("value", "shown"),
    [({"a": "<b>"}, "&lt;b&gt;"), (np.eye(2), "float64 (2, 2)"), ("text", "text"),
     (None, "None"), (b"\0raw", "uint8 (4)")],
    ids=["dict", "array", "text", "none", "bytes"],
)  # fmt: skip
def test_a_value_in_a_frame(value: object, shown: str) -> None:
    assert shown in check(DataFrame(value)._repr_html_())


def test_a_pickle_is_not_read() -> None:
    frame = DataFrame(Path("/x"), allow_pickle=True)
    assert "a pickle, which is not read here" in check(frame._repr_html_())


def test_a_session_while_it_records_and_afterwards(probe, tmp_path: Path) -> None:
    with Session("m42", directory=tmp_path) as session:
        session.record("probe")
        assert "recording" in check(session._repr_html_())
        probe.send(np.zeros((300, 4), "i2"))
    html = check(session._repr_html_())
    assert "ended" in html
    assert html.count('<td class="good">trusted</td>') == 2
    assert "trusted" in check(session.verdict._repr_html_())
    with LogArchive(session.directory) as archive:
        html = check(archive._repr_html_())
    assert "1 entry" in html
    assert "int16 (time: 300, channel: 4)" in html


def test_a_verdict_that_is_not_trusted_says_why(probe, tmp_path: Path) -> None:
    session = Session("m42", directory=tmp_path)
    session.doubt(HOSTILE)
    session.close()
    html = check(session._repr_html_())
    assert "NOT TRUSTED" in html
    assert "&lt;img src=x" in html


def test_a_recorder_and_a_logger(probe, tmp_path: Path) -> None:
    with Recorder("probe", tmp_path / "rec") as recorder:
        assert "recording" in check(recorder._repr_html_())
    assert "not recording" in check(recorder._repr_html_())
    logger = DataLogger(tmp_path, "log")
    assert "stopped" in check(logger._repr_html_())
    with logger:
        assert "writing" in check(logger._repr_html_())
    logger.close()
    check(logger._repr_html_())


def test_a_pipe_before_and_while_it_runs() -> None:
    pipe = Pipe("doubled")
    assert "is empty" in check(pipe._repr_html_())
    pipe.add(Processor("first", func=double)).add(Processor("second", func=double))
    html = check(pipe._repr_html_())
    assert "not running" in html
    assert html.count("<rect") == 2
    with pipe.run() as run:
        assert run.call(3) == 12
        html = check(run._repr_html_())
        assert "1 value in" in html
        assert "running" in html
        run.stop()
    assert "completed" in check(run._repr_html_())


def test_a_recording_of_datamux() -> None:
    stream = Stream("<x>", frequency=10, fields={"v": Field(dtype="i16", unit="mV")})
    recording = Recording.of(stream, {"v": np.arange(50, dtype="i2")})
    html = check(recording._repr_html_())
    assert "50 samples" in html
    assert "<svg" in html
    assert "mV" in html


def test_every_object_of_the_design_has_a_card() -> None:
    import ataraxis

    names = (
        "SharedMemoryArray", "Producer", "Consumer", "MemQ", "DataFrame", "Session",
        "Pipe", "DataLogger", "LogArchive", "Recorder",
    )  # fmt: skip
    assert all(hasattr(getattr(ataraxis, name), "_repr_html_") for name in names)


def test_an_object_in_an_impossible_state_is_shown_as_text() -> None:
    class Broken:
        is_released = property(lambda self: 1 / 0)

    from ataraxis.card import html_of

    for kind in KINDS:
        html = html_of(kind, Broken())
        assert "cannot be shown" in html
        assert "<test_card" not in html


def test_a_forked_child_shows_what_it_may_not_use() -> None:
    programs.run("""
        import os
        import numpy as np
        from ataraxis import Consumer, Producer, SharedMemoryArray
        stream = Producer("s", shape=(3,))
        reader = Consumer("s")
        array = SharedMemoryArray.create_array("a", np.zeros(3))
        pid = os.fork()
        if pid == 0:
            shown = [end._repr_html_() for end in (stream, reader, array)]
            is_right = "closed here" in shown[1] and "not connected" in shown[2]
            os._exit(0 if is_right else 1)
        assert os.waitpid(pid, 0)[1] == 0
        reader.close(); stream.unlink(); array.destroy()
        """)


# ---- in a browser


def cards(probe: Producer, folder: Path) -> list[str]:
    reader = Consumer("probe", policy="lossy")
    for k in range(16):
        wave = 300 * np.sin((np.arange(300) + 300 * k)[:, None] / 200 + np.arange(4))
        probe.send(wave.astype("i2"))
    session = Session("m42", directory=folder)
    session.doubt("the disk was full")
    session.close()
    found = [reader._repr_html_(), session._repr_html_()]
    reader.close()
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cards_are_readable_in_a_browser(probe, scheme: str, tmp_path: Path) -> None:
    page_file = tmp_path / "cards.html"
    body = "".join(cards(probe, tmp_path))
    page_file.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" '
        f'content="light dark"><body>{body}', encoding="utf-8",
    )  # fmt: skip
    with chromium() as browser:
        page = browser.new_page(
            viewport={"width": 820, "height": 500}, color_scheme=scheme
        )
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        least, text = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, text
        page.evaluate("document.querySelectorAll('style').forEach(s => s.remove())")
        assert "NOT TRUSTED" in page.inner_text("body")
        assert page.locator("th[scope=col]").count() >= 5
    assert asked == [page_file.as_uri()]
