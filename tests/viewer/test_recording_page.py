"""The page of a recording in Chromium, and the report: as they are used and seen."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, CONTRASTS, Seen, chromium
from recording_rig import recorded_session
from view_rig import ViewProcess
from widget_page import HARNESS, FakeWidget

import ataraxis
from ataraxis.viewer.recorded_page import RecordedPump
from ataraxis.viewer.recorded_widget import make_recorded_widget
from ataraxis.viewer.widget import KernelFeed

pytest.importorskip("playwright.sync_api", reason="no playwright")

SHOTS = os.environ.get("ATARAXIS_SHOTS")
"""Directory for pictures, docs/howto for those that are kept; none by default."""
pytestmark = pytest.mark.slow
LOST = tuple(range(900, 960))
RANGE = "recording.range"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_session(tmp_path_factory.mktemp("rec"), 20, 16, LOST)


class Shown(Seen):
    """A page of a recording."""

    def is_shown(self) -> None:
        self.wait("globalThis.viewCounts?.answers > 1 && viewCounts.pictures > 0")

    def settle(self, condition: str) -> None:
        """Wait until the span is as told, and was answered."""
        self.wait(condition)
        before = self.page.evaluate("viewCounts.frames")
        self.wait(f"viewCounts.frames > {before + 5}")


@pytest.mark.parametrize(
    ("scheme", "wide"),
    [
        ("dark", 1600),
        ("light", 900),
        ("light", 1600),
    ],
)
def test_a_recording_is_shown(home: Path, scheme: str, wide: int) -> None:
    with ViewProcess(str(home)) as view, chromium() as browser:
        seen = Shown(browser, view.url, scheme, wide)
        seen.is_shown()
        page = seen.page
        assert seen.inks(".traces canvas") > 15, "a colour for each channel"
        assert seen.inks(".pictures canvas") > 20
        assert seen.inks(".navigator canvas") > 3
        assert seen.inks(".intervals canvas") > 3
        assert "not to be trusted · 60 frames missing" in page.inner_text("#verdict")
        text = page.inner_text("body")
        for word in ("m42_day3", "16 channels × 10,000/s", "320×240", "killed", "1,940",
                     "20 s"):  # fmt: skip
            assert word in text, word
        labels = page.eval_on_selector_all(
            "canvas:not([aria-hidden])", "all => all.map(c => [c.role, c.ariaLabel])"
        )
        assert all(role == "img" and label for role, label in labels)
        least, what = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, what
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert {url.split("/")[2] for url in seen.asked} == {f"127.0.0.1:{view.port}"}
        assert view.token not in page.url
        if SHOTS:
            page.wait_for_timeout(700)
            size = f"-{wide}" if wide < 1600 else ""
            page.screenshot(
                path=f"{SHOTS}/recording-{scheme}{size}.png", full_page=True
            )
        assert seen.said == []


def test_a_recording_is_looked_through(home: Path) -> None:
    """By wheel, drag and keys: from all of it to single samples, and back."""
    with ViewProcess(str(home)) as view, chromium() as browser:
        seen = Shown(browser, view.url, "dark", 1600)
        seen.is_shown()
        page = seen.page
        whole = page.evaluate(RANGE)
        plot = page.locator(".traces .plot").first.bounding_box()
        assert plot
        x, y = plot["x"] + plot["width"] * 0.7, plot["y"] + plot["height"] / 2
        page.mouse.move(x, y)
        under = page.evaluate("recording.range[0] + recording.length * 0.69")
        # The wheel: what is under the pointer stays there.
        for _ in range(22):
            page.mouse.wheel(0, -400)
        seen.settle("recording.length <= 800000")
        start, stop = page.evaluate(RANGE)
        assert abs((start + stop) / 2 - under) < 0.05 * 20e9
        seen.wait("document.querySelector('.traces h2').textContent"
                  ".includes('a column is 100 µs')")  # fmt: skip
        readout = "document.querySelector('.traces .readout').textContent"
        page.mouse.move(x + 40, y)
        seen.wait(f"/channel \\d+.* uV/.test({readout}) && !{readout}.includes(' to ')")
        # A drag moves it, within the recording.
        page.mouse.down()
        page.mouse.move(x + 40 + plot["width"] / 4, y, steps=4)
        page.mouse.up()
        seen.settle(f"recording.range[0] < {start}")
        moved = start - page.evaluate("recording.range[0]")
        assert 0.15 * (stop - start) < moved < 0.4 * (stop - start)
        # Keys.
        page.keyboard.press("0")
        seen.settle(f"recording.length === {whole[1] - whole[0]}")
        page.keyboard.press("+")
        page.keyboard.press("+")
        seen.settle(f"recording.length < {(whole[1] - whole[0]) / 3.9}")
        page.keyboard.press("Home")
        seen.settle("recording.range[0] === 0")
        page.keyboard.press("ArrowRight")
        seen.settle("recording.range[0] > 0")
        page.keyboard.press("ArrowLeft")
        seen.settle("recording.range[0] <= 1")
        page.keyboard.press("End")
        seen.settle("recording.range[1] === recording.facts.end")
        assert "stop=" in page.url or page.wait_for_timeout(400) is None
        page.keyboard.press("Home")
        page.keyboard.press("n")
        seen.settle("recording.range[0] > 0.4e9 && recording.length < 1e9")
        names = "recording.panels.get('probe').view.events.map(e => e.name)"
        seen.wait(f"{names}.includes('stim_on')")
        page.keyboard.press("g")
        seen.settle("recording.range[0] < 9.6e9 && recording.range[1] > 9.0e9")
        lost = "recording.panels.get('probe').view.lost?.some(v => v)"
        seen.wait(lost)
        # The picture is the one nearest to the pointer.
        page.keyboard.press("0")
        frame = "document.querySelector('.pictures h2').textContent"
        numbers = []
        for share in (0.3, 0.8):
            page.mouse.move(plot["x"] + plot["width"] * share, y)
            seen.wait(f"!{frame}.includes('frame {numbers[-1] if numbers else 100}')")
            page.wait_for_timeout(300)
            numbers.append(page.evaluate(f"/frame (\\d+)/.exec({frame})[1]"))
        assert int(numbers[0]) < 80 < 130 < int(numbers[1])
        # One channel, and streams by their buttons.
        page.keyboard.press("s")
        seen.wait("document.querySelector('.traces h2').textContent"
                  ".includes('1 channel')")  # fmt: skip
        page.keyboard.press("s")
        page.get_by_role("button", name="hide wheel").click()
        seen.wait("!recording.panels.has('wheel')")
        page.get_by_role("button", name="show wheel").click()
        seen.wait("recording.panels.get('wheel')?.view.n > 0")
        page.keyboard.press("t")
        assert page.get_attribute("html", "data-theme") == "light"
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        page.keyboard.press("Escape")
        # The navigator, and a line of the log.
        strip = page.locator(".navigator canvas").bounding_box()
        assert strip
        page.mouse.move(strip["x"] + strip["width"] * 0.5, strip["y"] + 12)
        page.mouse.down()
        page.mouse.move(strip["x"] + strip["width"] * 0.6, strip["y"] + 12, steps=3)
        page.mouse.up()
        seen.settle("recording.length < 4e9")
        page.locator(".log button", has_text="12 s").click()
        seen.settle("recording.range[0] < 12e9 && recording.range[1] > 12e9")
        # It is asked for again after the server was away; a link is a span.
        page.wait_for_timeout(400)
        span = page.evaluate(RANGE)
        page.reload()
        seen.is_shown()
        again = page.evaluate(RANGE)
        assert all(abs(a - b) < 2000 for a, b in zip(span, again, strict=True))
        assert seen.said == []
        assert view.stop() == 0
        seen.wait("document.querySelector('#words').textContent.includes('has ended')")


def test_the_widget_shows_a_recording(home: Path) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    pytest.importorskip("anywidget")
    made = make_recorded_widget(str(home), [], 30)
    values = {name: getattr(made, name) for name in ("modules", "sheet", "streams")}
    loader = made._esm
    made.feed.end()
    made.close()

    async def show() -> tuple[str, list[str]]:
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = await browser.new_page(viewport={"width": 1000, "height": 760})
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            widget = FakeWidget(page)
            feed = KernelFeed(widget, RecordedPump(home), 30)
            await page.expose_function(
                "toKernel", lambda message: feed.hear(widget, message, [])
            )
            await page.evaluate(HARNESS, [str(loader), values])

            async def until(condition: str) -> None:
                deadline = time.monotonic() + 30
                while not await page.evaluate(condition):
                    assert time.monotonic() < deadline, (condition, said)
                    await asyncio.sleep(0.05)

            await until("el.viewCounts?.answers > 1 && el.viewCounts.pictures > 0")
            text = await page.evaluate(
                "el.shadowRoot.querySelector('.widget').innerText"
            )
            await page.evaluate("el.shadowRoot.querySelector('.widget').focus()")
            await page.keyboard.press("+")
            await until("el.recording.length < 11e9")
            if SHOTS:
                await asyncio.sleep(1)
                await page.screenshot(path=f"{SHOTS}/recording-widget.png")
            await page.evaluate("end()")
            await browser.close()
            feed.end()
            return text, said

    text, said = asyncio.run(show())
    assert said == []
    assert "16 channels × 10,000/s" in text
    assert "60 frames missing" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_read_in_the_light_in_the_dark_and_printed(
    home: Path, tmp_path: Path, scheme: str
) -> None:
    made = ataraxis.report(home, tmp_path / "report.html")
    assert made.stat().st_size < 1_000_000
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1100, "height": 1250}, color_scheme=scheme
        )
        page = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(made.as_uri())
        least, what = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, what
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [url for url in asked if not url.startswith("data:")] == [made.as_uri()]
        assert said == []
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/report-{scheme}.png")
        page.emulate_media(media="print")
        least, what = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, f"printed: {what}"
        if SHOTS and scheme == "dark":
            page.pdf(path=f"{SHOTS}/report.pdf")
