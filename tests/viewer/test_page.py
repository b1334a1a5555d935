"""The page in Chromium: what it shows, asks for, and how it is used without a mouse."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser import CONTRASTS, Seen, chromium
from view_rig import ViewProcess, picture, probe_block, repeating

from ataraxis import Consumer, Producer, Session

pytest.importorskip("playwright.sync_api", reason="no playwright")

SHOTS = os.environ.get("ATARAXIS_SHOTS")
"""Directory for pictures of the page; none by default."""
HOSTILE = "<img src=x onerror=alert(1)>"


@contextmanager
def laboratory(folder: Path) -> Iterator[Session]:
    """A probe, a camera, a reader and a session with events."""
    with ExitStack() as stack:
        probe = Producer(
            "probe", shape=(300, 64), dtype="i2", dims=("time", "channel"),
            attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=128,
        )  # fmt: skip
        camera = Producer("camera", shape=(480, 640), dtype="u1", dims=("y", "x"))
        pose = Producer(
            "pose", shape=(3,), dtype="f4", dims=("axis",),
            coords={"axis": ["x", "y", "z"]}, attrs={"units": "cm"},
        )  # fmt: skip
        blocks = [probe_block(k, 64) for k in range(60)]
        pictures = [picture(k) for k in range(20)]
        analysis = stack.enter_context(
            Consumer("probe", policy="lossless", label="analysis")
        )
        session = stack.enter_context(Session("m42_day3", directory=folder))
        session.record("probe", "pose")

        def send(k: int) -> None:
            probe.send(blocks[k % 60])
            while (frame := analysis.receive(False)) is not None:
                frame.release()
            if k % 3 == 0:
                camera.send(pictures[k // 3 % 20])
                pose.send(np.sin(k / 30 + np.arange(3), dtype="f4"))
            if k % 70 == 35:
                session.event(HOSTILE if k < 40 else ("reward", "stim_on")[k // 70 % 2])

        try:
            with repeating(send, 0.01):
                yield session
        finally:
            for stream in (probe, camera, pose):
                stream.end()
    for stream in (probe, camera, pose):
        stream.unlink()


class LivePage(Seen):
    """The page of streams that run."""

    def is_live(self) -> None:
        """Wait until columns, pictures, events and words are there."""
        self.wait("viewCounts.columns > 300 && viewCounts.pictures > 3")
        self.wait("viewCounts.events > 0")
        self.wait("document.querySelectorAll('#table tbody tr').length > 5")
        self.wait("document.querySelectorAll('#graph path').length > 2")


CANVAS_INKS = """async () => {
  const {channelColour, colour, pixel} = await import("./theme.js");
  const light = p => { const [r, g, b] = [p, p >> 8, p >> 16].map(v => {
    v = (v & 255) / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = light(pixel(colour("panel")));
  const ratio = css => { const ink = light(pixel(css));
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); };
  const found = Object.fromEntries(["ink", "quiet", "event", "line", "bad", "good"]
    .map(name => [name, ratio(colour(name))]));
  found.channels = Math.min(
    ...[...Array(64).keys()].map(k => ratio(channelColour(k, 64))));
  return found; }"""
"""JavaScript that returns the contrast of what is written on canvases."""


@pytest.mark.parametrize(
    ("scheme", "wide"), [("dark", 1600), ("light", 1600), ("light", 900), ("dark", 900)]
)
def test_the_page_shows_what_runs(scheme: str, wide: int, tmp_path: Path) -> None:
    with laboratory(tmp_path) as session, ViewProcess() as view, chromium() as browser:
        seen = LivePage(browser, view.url, scheme, wide)
        seen.is_live()
        page = seen.page
        # What is seen.
        assert seen.inks("#traces canvas") > 60, "a colour for each channel"
        assert seen.inks("#pictures canvas") > 20
        assert seen.inks("#lanes canvas") > 3
        assert seen.inks("#intervals canvas") > 3
        assert "64 channels × 30,000/s" in page.inner_text("#traces")
        assert "480×640" not in page.inner_text("#pictures h2")
        assert "640×480" in page.inner_text("#pictures h2")
        assert "recording · nothing missing" in page.inner_text("#verdict")
        table = page.inner_text("#table")
        for word in ("probe", "int16 300×64", "lossless · durable", "analysis"):
            assert word in table
        assert "view" not in table.split()
        graph = page.inner_text("#graph")
        assert all(w in graph for w in ("probe", "recorder", "analysis", "this page"))
        # Where it is asked for, and the token, which has left the address bar.
        assert view.token not in page.url
        assert {url.split("/")[2] for url in seen.asked} == {f"127.0.0.1:{view.port}"}
        assert seen.said == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("viewCounts.gaps") == 0
        assert re.search(r"m42_day3 · 0:\d\d · ", page.inner_text("#place"))
        assert str(session.directory) in page.get_attribute("#place", "title")
        # How it can be read: the texts, and what canvases write.
        for name, least in page.evaluate(CANVAS_INKS).items():
            assert least >= 4.5, name
        least, text = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, text
        if SHOTS:
            page.wait_for_timeout(4000)
            page.screenshot(path=f"{SHOTS}/view-{scheme}-{wide}.png", full_page=True)
        # It still works when it is loaded again, by what this tab keeps.
        page.reload()
        seen.is_live()
        assert view.stop() == 0
        seen.wait("document.querySelector('#verdict').className === 'bad'")
        assert "has ended" in page.inner_text("#verdict")
    assert session.verdict is not None
    assert session.verdict.is_trusted, session.verdict


def test_the_page_is_used_by_keys(tmp_path: Path) -> None:
    with laboratory(tmp_path), ViewProcess() as view, chromium() as browser:
        seen = LivePage(browser, view.url, "dark", 1600)
        seen.is_live()
        page = seen.page
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            found = page.evaluate(
                """() => { const e = document.activeElement;
                  const name = e.getAttribute("aria-label") || e.textContent.trim()
                    || e.labels?.[0]?.textContent;
                  const line = getComputedStyle(e);
                  return [e.id || e.className || e.tagName, name,
                    line.outlineStyle !== "none"]; }"""
            )
            reached.append(found)
        names = {one[0] for one in reached}
        assert names >= {"freeze", "window", "less", "auto", "more", "theme", "help"}
        assert all(
            name and is_seen for what, name, is_seen in reached if what != "BODY"
        )
        page.evaluate("document.activeElement.blur()")
        seen.wait("viewCounts.columns > 5000")  # so that there is a past to look at
        # Space stops the picture and not the acquisition.
        page.keyboard.press("Space")
        assert page.get_attribute("#freeze", "aria-pressed") == "true"
        before = page.evaluate("viewCounts.bundles")
        seen.wait(f"viewCounts.bundles > {before + 3}")
        # While it is frozen, the last minute can be looked through.
        page.keyboard.press("ArrowLeft")
        label = "document.querySelector('#traces canvas').ariaLabel"
        seen.wait(f"{label}.includes('frozen')")
        page.hover("#traces .plot", position={"x": 300, "y": 90})
        readout = "document.querySelector('#traces .readout').textContent"
        seen.wait(f"/-[0-9.]+ s/.test({readout})")
        column = "document.querySelector('#traces h2 small').textContent"
        was = page.evaluate(column)
        page.keyboard.press("[")
        seen.wait(f"/-[0-9.]+ s/.test({readout})")
        assert page.evaluate(column) == was, "the same columns, drawn wider"
        assert seen.inks("#traces canvas") > 30
        page.keyboard.press("Space")
        seen.wait(f"{label}.includes('live')")
        assert page.get_attribute("#freeze", "aria-pressed") == "false"
        page.keyboard.press("]")
        assert page.input_value("#window") == "5"
        assert "seconds=5" in page.url
        page.keyboard.press("[")
        scale = "Number(/row is ([0-9.,]+)/.exec(document.querySelector('#traces h2')"
        scale += ".textContent)?.[1].replaceAll(',', ''))"
        before, now = None, 0
        while not now or now != before:  # the first scales are of a few columns
            page.wait_for_timeout(700)
            before, now = now, page.evaluate(scale)
        page.keyboard.press("+")
        seen.wait(f"{scale} < {before} * 0.85")
        page.keyboard.press("0")
        page.keyboard.press("t")
        assert page.get_attribute("html", "data-theme") == "light"
        assert "theme=light" in page.url
        page.hover("#traces .plot", position={"x": 400, "y": 100})
        seen.wait(
            "document.querySelector('#traces .readout').textContent.includes('uV')"
        )
        page.keyboard.press("s")
        seen.wait(
            "document.querySelector('#traces h2').textContent.includes('1 channel')"
        )
        page.keyboard.press("s")
        seen.wait("document.querySelector('#traces h2').textContent.includes('64 ch')")
        # A filter is named, and so is the contrast.
        page.keyboard.press("f")
        heading = "document.querySelector('#traces h2').textContent"
        seen.wait(f"{heading}.includes('high-pass 300 Hz')")
        page.keyboard.press("f")
        seen.wait(f"{heading}.includes('median reference')")
        page.keyboard.press("f")
        seen.wait(f"!{heading}.includes('median')")
        page.keyboard.press("g")
        second = "document.querySelectorAll('#traces h2')[2]?.textContent ?? ''"
        seen.wait(f"({second}).includes('spectrogram') && ({second}).includes('dB')")
        if SHOTS:
            page.wait_for_timeout(3000)
            page.screenshot(path=f"{SHOTS}/spectrogram.png")
        page.keyboard.press("g")
        seen.wait(f"{second} === ''")
        page.keyboard.press("c")
        page.keyboard.press("c")
        shown = "document.querySelector('#pictures h2').textContent"
        seen.wait(f"{shown}.includes('viridis')")
        assert seen.inks("#pictures canvas") > 20
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        page.keyboard.press("Escape")
        # A stream is hidden and shown by its button.
        button = page.locator("#table button", has_text="shown").first
        name = button.get_attribute("data-stream")
        button.click()
        seen.wait(f"!document.querySelector('main').textContent.includes('{name}640')")
        assert f"hide {name}" not in page.inner_text("#table")
        assert seen.said == []
        labels = page.eval_on_selector_all(
            "canvas:not([aria-hidden])", "all => all.map(c => [c.role, c.ariaLabel])"
        )
        assert labels
        assert all(role == "img" and label for role, label in labels)
        assert page.get_attribute("#verdict", "role") == "status"


def test_a_calm_page_is_drawn_four_times_a_second(tmp_path: Path) -> None:
    with laboratory(tmp_path), ViewProcess() as view, chromium() as browser:
        seen = LivePage(browser, view.url, "dark", 1600, reduced_motion="reduce")
        seen.is_live()
        assert seen.page.evaluate("viewCounts.gaps") == 0
        assert seen.said == []


def test_a_page_without_the_link_says_what_it_needs() -> None:
    with ViewProcess() as view, chromium() as browser:
        seen = LivePage(browser, view.url.partition("?")[0], "light", 900)
        seen.wait("document.querySelector('#verdict').className === 'bad'")
        assert "needs the printed link" in seen.page.inner_text("#verdict")


def test_a_link_is_a_layout(tmp_path: Path) -> None:
    with laboratory(tmp_path), ViewProcess() as view, chromium() as browser:
        url = f"{view.url}&show=probe&channels=4:8&theme=light".replace(
            "#seconds=2", "#seconds=0.5"
        )
        seen = LivePage(browser, url, "dark", 1600)
        seen.wait("viewCounts.columns > 100")
        page = seen.page
        assert page.get_attribute("html", "data-theme") == "light"
        assert page.input_value("#window") == "0.5"
        seen.wait(
            "document.querySelector('#traces h2').textContent.includes('4 channels')"
        )
        assert page.locator("#traces .panel").count() == 1
        assert page.locator("#pictures .panel").count() == 0
