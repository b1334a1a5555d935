"""Hosts on the page, in Chromium: what is shown while agents come, hang and are killed.

`ATARAXIS_SHOTS=docs/howto pytest -m slow tests/viewer/test_hosts_page.py` makes the
pictures of docs/howto; otherwise they go into the test's own folder.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import workers_pipe as w
from agent_processes import AgentProcesses, agent_processes
from browser import CHROMIUM, CONTRASTS, Seen, chromium, keep
from view_rig import ViewProcess, picture, probe_block, repeating
from widget_page import HARNESS, FakeWidget

from ataraxis import Consumer, Pipe, Processor, Producer
from ataraxis.cluster import Cluster, Mirror
from ataraxis.demo.detector import spikes
from ataraxis.viewer.pump import Pump
from ataraxis.viewer.widget import LOADER, KernelFeed, modules, sheet

pytest.importorskip("playwright.sync_api", reason="no playwright")
pytestmark = pytest.mark.slow


def row(text: str, table: int = 0) -> str:
    """JavaScript: the text of the row of a table that begins with a name."""
    return (
        f"([...document.querySelectorAll('.hosts table')[{table}].tBodies[0].rows]"
        f".find(r => r.cells[0].textContent === '{text}')?.innerText ?? '')"
    )


@contextmanager
def mirrored_camera(agents: AgentProcesses) -> Iterator[Producer]:
    """A stream of acq that is mirrored here, and read."""
    camera = Producer(
        "camera", shape=(48, 64), dtype="u1", dims=("y", "x"), buffer_count=64,
        context=agents.contexts["acq"], on_full="drop_newest",
    )  # fmt: skip
    here = agents.contexts["gpu"]
    frames = [picture(k)[::10, ::10].copy() for k in range(30)]
    try:
        with (
            repeating(lambda k: camera.send(frames[k % 30]), 0.02),
            Mirror("camera", host="acq", context=here, hold=False),
        ):
            yield camera
    finally:
        camera.unlink()


def test_a_host_is_seen_to_go_and_to_come_back(context: Path) -> None:
    with (
        agent_processes(context) as agents,
        mirrored_camera(agents),
        ViewProcess() as view,
        chromium() as browser,
    ):
        seen = Seen(browser, view.url, "dark", 1600)
        page = seen.page
        seen.wait(f"{row('acq')}.includes('● connected')")
        seen.wait(f"{row('camera', 1)}.includes('● flowing')")
        seen.wait("/acq/.test(document.querySelector('#graph .stream text.tag')"
                  "?.textContent)")  # fmt: skip
        assert "◆ here" in page.evaluate(row("gpu"))
        assert "acq:camera" in page.evaluate(row("camera", 1))
        assert "as the agent of gpu sees them" in page.inner_text(".hosts h2")
        assert page.locator(".hosts table").nth(2).is_hidden(), "no pipe runs"
        label = "document.querySelector('#graph svg').ariaLabel"
        assert "mirror of acq:camera, flowing" in page.evaluate(label)
        assert page.locator("#graph .crosses.is-cut").count() == 0
        agents.kill("acq")
        # By words and marks: no colour is needed.
        seen.wait(f"{row('acq')}.includes('× away')")
        seen.wait(f"{row('camera', 1)}.includes('× disconnected')")
        seen.wait(f"{label}.includes('mirror of acq:camera, disconnected')")
        assert page.text_content("#graph .stream text.tag") == "acq ×"
        assert page.locator("#graph .crosses.is-cut").count() == 1
        seen.wait("document.querySelector('#verdict').className === 'warn'")
        assert "acq does not answer" in page.inner_text("#verdict")
        for scheme in ("dark", "light"):
            assert page.get_attribute("html", "data-theme") == scheme
            least, text = page.evaluate(CONTRASTS)[0]
            assert least >= 4.5, (scheme, text)
            page.keyboard.press("t")
        agents.start("acq")
        seen.wait(f"{row('acq')}.includes('● connected')")
        seen.wait(f"{row('camera', 1)}.includes('● flowing')")
        seen.wait("document.querySelector('#verdict').className !== 'warn'")
        assert page.locator("#graph .crosses.is-cut").count() == 0
        assert seen.said == []
        assert view.stop() == 0


def test_the_page_lives_without_its_agent(context: Path) -> None:
    """It hangs, goes on, is killed, comes back, and ends: traces go on all the time."""
    probe = Producer(
        "probe", shape=(300, 8), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 30_000}, buffer_count=128,
    )  # fmt: skip
    blocks = [probe_block(k, 8) for k in range(30)]
    with (
        agent_processes(context, others=()) as agents,
        repeating(lambda k: probe.send(blocks[k % 30]), 0.01),
        ViewProcess() as view,
        chromium() as browser,
    ):
        seen = Seen(browser, view.url, "light", 900)

        def traces_go_on() -> None:
            before = seen.page.evaluate("viewCounts.columns")
            seen.wait(f"viewCounts.columns > {before + 500}")

        heading = "document.querySelector('.hosts h2').textContent"
        seen.wait(f"{heading}.includes('as the agent of gpu sees them, 1 host')")
        agents.send("gpu", signal.SIGSTOP)
        seen.wait(f"{heading}.includes('has not answered for')")
        traces_go_on()
        assert "gpu" in seen.page.inner_text(".hosts"), "what it told last"
        agents.send("gpu", signal.SIGCONT)
        seen.wait(f"{heading}.includes('as the agent of gpu')")
        agents.kill("gpu")
        seen.wait(f"{heading}.includes('no agent runs')")
        traces_go_on()
        agents.start("gpu")
        seen.wait(f"{heading}.includes('as the agent of gpu')")
        agents.close()
        seen.wait("document.querySelector('.hosts').hidden")
        traces_go_on()
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert seen.said == []
        # A page that is stopped holds up no agent, and no other page.
        agents.start("gpu")
        seen.wait(f"{heading}.includes('as the agent of gpu')")
        with view.page() as stopped:  # acknowledges nothing
            stopped.show(1, "probe")
            traces_go_on()
        assert view.stop() == 0
    probe.unlink()


def test_the_widget_shows_hosts(context: Path) -> None:
    """As a notebook without a server does, for the page of Chromium's own."""
    pump = Pump(None)

    async def show() -> tuple[str, list[str]]:
        from playwright.async_api import async_playwright

        async with async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = await browser.new_page(viewport={"width": 1600, "height": 900})
            said: list[str] = []
            page.on("pageerror", lambda error: said.append(str(error)))
            feed = KernelFeed(FakeWidget(page), pump, 30.0)
            await page.expose_function(
                "toKernel", lambda content: feed.hear(None, content, [])
            )
            values: dict[str, Any] = {
                "modules": modules(), "sheet": sheet(), "streams": [], "seconds": 1,
                "channels": [],
            }  # fmt: skip
            await page.evaluate(HARNESS, [LOADER, values])
            text = ""
            for _ in range(600):
                text = await page.evaluate(
                    "el.shadowRoot.querySelector('.hosts').innerText"
                )
                if "as the agent of gpu" in text:
                    break
                await asyncio.sleep(0.05)
            await page.evaluate("end()")
            await browser.close()
            feed.end()
            return text, said

    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with agent_processes(context, others=()):
        text, said = asyncio.run(show())
    assert "as the agent of gpu sees them, 1 host, 0 mirrors" in text
    assert "◆ here" in text
    assert said == []


@contextmanager
def laboratory(agents: AgentProcesses) -> Iterator[None]:
    """A probe and a camera of acq, seen on gpu, and a pipe with a step on each host."""
    there, here = agents.contexts["acq"], agents.contexts["gpu"]
    with ExitStack() as stack:
        probe = Producer(
            "probe", shape=(300, 64), dtype="i2", dims=("time", "channel"),
            attrs={"sample_rate_hz": 30_000, "units": "uV"}, buffer_count=128,
            context=there, on_full="drop_newest",
        )  # fmt: skip
        stack.callback(probe.unlink)
        camera = Producer(
            "camera", shape=(480, 640), dtype="u1", dims=("y", "x"), context=there,
            on_full="drop_newest",
        )  # fmt: skip
        stack.callback(camera.unlink)
        blocks = [probe_block(k, 64) for k in range(60)]
        pictures = [picture(k) for k in range(20)]

        def send(k: int) -> None:
            probe.send(blocks[k % 60])
            if k % 4 == 0:
                camera.send(pictures[k // 4 % 20])

        for name in ("probe", "camera"):
            stack.enter_context(Mirror(name, host="acq", context=here, hold=False))
        cluster = stack.enter_context(Cluster(agents.hosts["gpu"], context=here))
        pipe = Pipe("track", context=here)
        pipe.add(Processor("detect", func=spikes, workers=2)).add(
            Processor("decide", func=w.double, host="acq")
        )
        stack.enter_context(repeating(send, 0.01))
        source = Consumer("probe", policy="lossless", context=here, label="pipe track")
        found: list[Any] = []
        run = stack.enter_context(pipe.run(source, found, engine=cluster))
        try:
            yield
        finally:
            run.stop()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pictures_of_hosts(scheme: str, context: Path, tmp_path: Path) -> None:
    with (
        agent_processes(
            context, off=("behaviour",), modules=["workers_pipe"]
        ) as agents,
        laboratory(agents),
        ViewProcess() as view,
        chromium() as browser,
    ):
        seen = Seen(browser, view.url, scheme, 1600)
        page = seen.page
        seen.wait("viewCounts.columns > 500 && viewCounts.pictures > 3")
        seen.wait("document.querySelectorAll('.hosts table')[2].tBodies[0].rows.length")
        seen.wait("document.querySelectorAll('#graph .crosses').length >= 3")
        seen.wait(f"{row('acq')}.includes('µs') || {row('acq')}.includes('ms')")
        page.wait_for_timeout(4000)
        graph = page.inner_text("#graph")
        assert all(word in graph for word in ("probe", "camera", "detect", "decide"))
        label = page.evaluate("document.querySelector('#graph svg').ariaLabel")
        assert "from gpu to acq" in label
        least, text = page.evaluate(CONTRASTS)[0]
        assert least >= 4.5, text
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert seen.said == []
        keep(tmp_path, page, f"hosts-{scheme}.png", full_page=True)
        assert view.stop() == 0
