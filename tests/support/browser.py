"""Debian's Chromium by playwright; a test is skipped where one of them is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Run Chromium, which draws by software and reaches only this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


class Seen:
    """A page in Chromium, and what it has asked for and complained of."""

    def __init__(
        self, browser: Any, url: str, scheme: str, wide: int, **more: Any
    ) -> None:
        context = browser.new_context(
            viewport={"width": wide, "height": 1000}, color_scheme=scheme, **more
        )
        self.page = context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(url)

    def wait(self, condition: str, timeout: float = 30) -> None:
        # Not wait_for_function, which the page's policy forbids to evaluate text.
        deadline = time.monotonic() + timeout
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"{condition}; {self.said}"
            self.page.wait_for_timeout(50)

    def inks(self, selector: str) -> int:
        """Return how many colours a canvas shows."""
        return self.page.evaluate(
            """selector => {
              const c = document.querySelector(selector);
              const {data} = c.getContext("2d").getImageData(0, 0, c.width, c.height);
              return new Set(new Uint32Array(data.buffer)).size; }""",
            selector,
        )


def keep(folder: Path, page: Any, name: str, **options: Any) -> None:
    """Take a picture, of 256 colours with Pillow; into $ATARAXIS_SHOTS if it is set."""
    path = Path(os.environ.get("ATARAXIS_SHOTS", folder)) / name
    page.screenshot(path=str(path), **options)
    assert path.stat().st_size > 10_000, f"{name} is empty"
    try:
        from PIL import Image
    except ImportError:
        return
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


CONTRASTS = """() => {
  const probe = document.createElement("canvas").getContext("2d",
    {willReadFrequently: true});
  const rgba = text => {
    probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => {
    v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const over = (a, b) => a.slice(0, 3).map((v, i) =>
    v * a[3] / 255 + b[i] * (1 - a[3] / 255));
  const patch = document.createElement("div");
  patch.style.backgroundColor = "Canvas";
  document.body.append(patch);
  const canvas = rgba(getComputedStyle(patch).backgroundColor);
  patch.remove();
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data)
      .join("").trim();
    const style = getComputedStyle(e);
    if (!own || !e.checkVisibility() || e.closest("style,script,option")) continue;
    const grounds = [];
    for (let p = e; p; p = p.parentElement) {
      const c = rgba(getComputedStyle(p).backgroundColor);
      grounds.push(c); if (c[3] == 255) break;
    }
    let ground = canvas;
    for (const c of grounds.reverse()) ground = over(c, ground);
    const isSvg = e.ownerSVGElement;
    const ink = over(rgba(isSvg ? style.fill : style.color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), own.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""
"""JavaScript that returns the contrast of each text with its ground, least first."""
