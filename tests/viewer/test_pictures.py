"""Pictures of page, widget and cards for the documentation, made to be looked at.

`ATARAXIS_SHOTS=docs/pictures pytest -m slow tests/viewer/test_pictures.py` makes those
that are kept; otherwise they go into the test's own folder.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, keep
from jupyter_rig import COUNTS, jupyterlab
from places import ROOT
from view_rig import ViewProcess, repeating

from ataraxis import Consumer, Session, SharedMemoryArray
from ataraxis.session.rig import Rig, RigPipe, RigSource, RigStep

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 1_500_000
WIDTHS = {"page": (900, 1600), "widget": (900, 1600), "cards": (900, 1600)}
NAMES = [
    f"{what}-{scheme}-{wide}.png"
    for what, widths in WIDTHS.items()
    for scheme in ("dark", "light")
    for wide in widths
]


def test_the_pictures_of_the_documentation_are_there() -> None:
    assert sorted(p.name for p in PICTURES.iterdir()) == sorted(NAMES)
    assert sum(p.stat().st_size for p in PICTURES.iterdir()) < MOST_BYTES
    for path in PICTURES.iterdir():
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        wide, _ = struct.unpack(">II", head[16:])
        assert wide == int(path.stem.rpartition("-")[2])


@contextmanager
def laboratory(folder: Path) -> Iterator[Session]:
    """A probe, a camera, a pipe with two workers, a recorder, events."""
    program = [sys.executable, str(ROOT / "tests" / "programs" / "scene_source.py")]
    rig = Rig(
        {name: RigSource(command=[*program, name]) for name in ("probe", "camera")},
        pipes={
            "spikes": RigPipe(
                "probe",
                [RigStep("detect", "ataraxis.demo.detector:spikes", 2, ordered=True)],
                event="spikes",
            )
        },
    )
    with Session("m42_day3", directory=folder) as session:
        running = session.start(rig)
        names = itertools.cycle(["stim_on", "reward"])
        with repeating(lambda _: session.event(next(names)), 0.7):
            yield session
        running.stop()
    assert session.verdict is not None
    assert session.verdict.is_trusted, session.verdict


@pytest.mark.slow
def test_pictures_of_the_page(tmp_path: Path) -> None:
    with laboratory(tmp_path), ViewProcess() as view, chromium() as browser:
        for scheme, wide in itertools.product(("dark", "light"), WIDTHS["page"]):
            page = browser.new_page(
                viewport={"width": wide, "height": 1000}, color_scheme=scheme
            )
            page.goto(view.url)
            page.wait_for_timeout(6000)
            assert page.evaluate("viewCounts.columns") > 500
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            keep(tmp_path, page, f"page-{scheme}-{wide}.png", full_page=True)
            page.close()


CELL = """import ataraxis
view = ataraxis.view("probe", "camera", seconds=2.0)
view"""


@pytest.mark.slow
def test_pictures_of_the_widget(tmp_path: Path) -> None:
    with (
        laboratory(tmp_path),
        jupyterlab(tmp_path, CELL) as lab,
        chromium() as browser,
    ):
        for scheme in ("dark", "light"):
            lab.set("themes", theme=f"JupyterLab {scheme.title()}")
            for wide in WIDTHS["widget"]:
                page = browser.new_page(
                    viewport={"width": wide, "height": 1100}, color_scheme=scheme
                )
                lab.open(page)
                for _ in range(300):
                    found = page.evaluate(COUNTS) or {}
                    if found.get("columns", 0) > 700 and found.get("pictures", 0) > 3:
                        break
                    page.wait_for_timeout(200)
                page.wait_for_timeout(2500)
                assert "probe" in page.evaluate(COUNTS)["text"]
                keep(tmp_path, page, f"widget-{scheme}-{wide}.png")
                page.close()


@pytest.mark.slow
def test_pictures_of_cards(tmp_path: Path) -> None:
    pose = SharedMemoryArray.create_array("pose", np.array([[0.5, 0, 0], [1, 2, 3]]))
    with laboratory(tmp_path) as session, chromium() as browser:
        probe = Consumer("probe", policy="latest", timeout=20)
        camera = Consumer("camera", policy="latest", timeout=20)
        probe.receive().release()
        camera.receive().release()
        shown = [probe, camera, pose, session]
        html = "".join(f"<div>{item._repr_html_()}</div>" for item in shown)
        for reader in (probe, camera):
            reader.close()
        for scheme, wide in itertools.product(("dark", "light"), WIDTHS["cards"]):
            page = browser.new_page(
                viewport={"width": wide, "height": 600}, color_scheme=scheme
            )
            page.set_content(
                "<meta name=color-scheme content='light dark'><style>body { margin: "
                "24px; font: 14px system-ui, sans-serif; display: grid; gap: 0 24px; "
                "grid-template-columns: repeat(auto-fit, minmax(700px, 1fr)) }"
                "</style>" + html
            )
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            keep(tmp_path, page, f"cards-{scheme}-{wide}.png", full_page=True)
            page.close()
    pose.destroy()
