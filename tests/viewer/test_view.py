"""`view` and the command: a link, a widget, and their ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import programs
import pytest
from browser import CHROMIUM, chromium
from deadline import wait_until
from jupyter_rig import COUNTS, jupyterlab
from view_rig import probe_block, readers_of, repeating
from widget_page import HARNESS, FakeWidget

import ataraxis
from ataraxis import Producer
from ataraxis.errors import NotConnectedError
from ataraxis.session.directory import SessionFolder
from ataraxis.viewer.pump import Pump
from ataraxis.viewer.widget import LOADER, MODULES, KernelFeed, modules, sheet


def test_a_view_has_a_link_and_ends() -> None:
    with Producer("probe", shape=(3,)) as probe:
        with ataraxis.view("probe", seconds=0.5, channels=[0, 1, 2, 7]) as view:
            assert not view.is_closed
            assert "#seconds=0.5&channels=0:3,7:8" in view.url
            assert repr(view) == f"<View of 1 stream, {view.url}>"
            assert "open" in view._repr_html_()
            assert "token" not in view._repr_html_()
            pid = view._child.pid
            assert Path(f"/proc/{pid}").exists()
            command = Path(f"/proc/{pid}/cmdline").read_text()
            assert view.url.partition("token=")[2][:20] not in command
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10)
        assert view.is_closed
        assert repr(view) == "<View, closed>"
        assert "closed" in view._repr_html_()
        view.close()
        with pytest.raises(NotConnectedError, match="make another"):
            view.open()
        probe.unlink()


def test_a_view_starts_nothing_before_it_is_asked() -> None:
    view = ataraxis.view()
    assert view._child is None
    assert not view.is_closed
    view.close()


def test_a_view_ends_with_a_program_that_is_killed() -> None:
    code = """
        import os, sys
        import ataraxis
        view = ataraxis.view()
        view.url
        print(view._child.pid, flush=True)
        sys.stdin.read()
        """
    with programs.Program(code) as program:
        assert program.process.stdout is not None
        pid = int(program.process.stdout.readline())
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not _is_running(pid), 15, "the server to end")


def _is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_session_that_has_ended_is_shown_as_a_recording(tmp_path: Path) -> None:
    with ataraxis.Session("m42", directory=tmp_path) as session:
        assert ataraxis.view(session.directory).recording == ""
        with pytest.raises(ValueError, match="'m42' is recording: close it before"):
            session.report()
    view = ataraxis.view(session.directory)
    assert view.recording == str(session.directory)
    assert view.url.partition("?")[0].endswith("/recording.html")
    view.close()
    assert session.report(tmp_path / "a.html").name == "a.html"
    folder = SessionFolder(session.directory)
    assert folder.report() == session.directory / "report.html"
    card = folder._repr_html_()
    assert "trusted" in card
    assert "events" in card


def test_a_browser_is_given_a_file_and_not_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with ataraxis.view() as view:
        view.open()
        (link,) = opened
        path = Path(link.removeprefix("file://"))
        token = view.url.partition("token=")[2].partition("#")[0]
        assert token not in link
        assert token in path.read_text()
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_import_loads_none_of_it() -> None:
    found = programs.run("""
        import sys, ataraxis
        ataraxis.view
        names = ("websockets", "simplejpeg", "anywidget", "asyncio", "xarray")
        print([name for name in names if name in sys.modules])
        """)
    assert found.strip() == "[]"


SHOTS = os.environ.get("ATARAXIS_SHOTS")
"""Directory for pictures; none by default."""


# ---- the widget


def test_the_widget_is_drawn_by_messages_of_its_kernel() -> None:
    playwright = pytest.importorskip("playwright.async_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")

    async def show() -> tuple[dict[str, Any], list[str], str]:
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = await browser.new_page(viewport={"width": 900, "height": 600})
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            widget = FakeWidget(page)
            feed = KernelFeed(widget, Pump(None, ["probe"]), 30)
            await page.expose_function(
                "toKernel", lambda message: feed.hear(widget, message, [])
            )
            values = {
                "modules": modules(), "sheet": sheet(), "streams": ["probe"],
                "seconds": 1, "channels": [[0, 8]],
            }  # fmt: skip
            await page.evaluate(HARNESS, [LOADER, values])
            counts: dict[str, Any] = {}
            for _ in range(600):
                counts = await page.evaluate("({...el.viewCounts})")
                if counts["columns"] > 400:
                    break
                await asyncio.sleep(0.05)
            text = await page.evaluate(
                "el.shadowRoot.querySelector('.widget').innerText"
            )
            readers = readers_of("probe")
            assert readers == ["view"]
            await page.evaluate("end()")
            for _ in range(100):
                if not readers_of("probe"):
                    break
                await asyncio.sleep(0.05)
            await browser.close()
            feed.close()
            return counts, said, text

    probe = Producer(
        "probe", shape=(300, 16), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=128,
    )  # fmt: skip
    blocks = [probe_block(k, 16) for k in range(30)]
    with repeating(lambda k: probe.send(blocks[k % 30]), 0.01):
        counts, said, text = asyncio.run(show())
    assert counts["columns"] > 400
    assert counts["gaps"] == 0
    assert said == []
    assert "8 channels × 30,000/s" in text
    assert "live, not recorded" in text
    assert readers_of("probe") == []
    probe.unlink()


def test_modules_come_after_what_they_import() -> None:
    assert [name for name, _ in modules()] == list(MODULES)
    assert "\nbody" not in sheet()
    assert ".widget[data-theme=" in sheet()


NOTEBOOK = """
import numpy as np
import ataraxis
from IPython.display import display
array = ataraxis.SharedMemoryArray.create_array("pose", np.eye(2))
display(array)
view = ataraxis.view("probe")
display(view)
assert view._child is None, "a widget has no server"
view.close()
array.destroy()
"""


def test_a_notebook_shows_cards_and_the_widget() -> None:
    pytest.importorskip("anywidget")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    found = [output["data"] for output in book.cells[0].outputs]
    assert "ataraxis-card" in found[0]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in found[1]
    assert found[1]["text/plain"] == "<View of 1 stream, in a notebook>"


def test_without_the_notebook_extra_the_widget_names_it() -> None:
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import ataraxis\n"
        "try:\n    ataraxis.view().widget\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert 'pip install "ataraxis[notebook]"' in done.stdout


def test_a_feed_takes_no_nonsense() -> None:
    feed = KernelFeed(None, Pump(None, []), 30)
    for content in (None, {}, {"view": 3}, {"view": "["}, {"view": "[]"},
                    {"view": json.dumps({"op": "show"})}):  # fmt: skip
        feed.hear(None, content, [])
    feed.close()


# ---- in a real JupyterLab

LAB_CELL = 'import ataraxis\nview = ataraxis.view("probe", seconds=1)\nview'


@pytest.mark.slow
def test_the_widget_in_jupyterlab(tmp_path: Path, record_property: Any) -> None:
    with jupyterlab(tmp_path, LAB_CELL) as lab, chromium() as browser:
        probe = Producer(
            "probe", shape=(300, 64), dtype="i2", dims=("time", "channel"),
            attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=128,
        )  # fmt: skip
        blocks = [probe_block(k, 64) for k in range(30)]
        with repeating(lambda k: probe.send(blocks[k % 30]), 0.01):
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            said: list[str] = []
            page.on("pageerror", lambda error: said.append(str(error)))
            lab.open(page)
            deadline = time.monotonic() + 90
            while not (page.evaluate(COUNTS) or {}).get("columns", 0) > 500:
                if time.monotonic() > deadline:
                    page.screenshot(path=str(tmp_path / "late.png"))
                    pytest.fail(f"no columns: {said}, {tmp_path / 'late.png'}")
                page.wait_for_timeout(200)
            first = page.evaluate(COUNTS)
            page.wait_for_timeout(4000)
            last = page.evaluate(COUNTS)
    seconds = (last["ms"] - first["ms"]) / 1000
    rates = {
        key: (last[key] - first[key]) / seconds
        for key in ("bundles", "frames", "columns")
    }
    record_property("per_second", rates)
    assert last["gaps"] == 0
    assert last["bundles"] > first["bundles"]
    assert "64 channels × 30,000/s" in last["text"]
    wait_until(lambda: readers_of("probe") == [], 30, "the kernel to end")
    probe.unlink()


def test_a_snapshot_is_a_picture_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with Producer("probe", shape=(3,)) as probe, ataraxis.view("probe") as view:
        path = view.snapshot(tmp_path / "now.png", wait=0.5)
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        probe.unlink()
