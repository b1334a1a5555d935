"""The widget in a real JupyterLab: updates a second. Used by bench_view.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from view_rows import Row

TOKEN = "t" * 32
CELL = 'import ataraxis\nview = ataraxis.view("probe", seconds=2)\nview'
COUNTS = """() => {
  const e = [...document.querySelectorAll("*")].find(e => e.viewCounts);
  return e ? {...e.viewCounts, ms: performance.now()} : null; }"""


def missing() -> str:
    """Return what is not installed; empty if all is there."""
    try:
        import anywidget  # noqa: F401
        import jupyterlab  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def measure(browser: Any, seconds: float, turn: Any) -> list[Row]:
    """Show 64 channels x 30 kHz in a notebook."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        process, port = _begin(Path(folder))
        try:
            turn(seconds + 25, lambda: found.extend(_look(browser, port, seconds)))
        finally:
            process.terminate()
            process.wait(30)
    first, last = found
    passed = (last["ms"] - first["ms"]) / 1000
    per_s = {key: (last[key] - first[key]) / passed for key in ("bundles", "frames")}
    return [
        Row("widget in JupyterLab: updates/s", "", per_s["bundles"], 28, 15, False),
        Row("widget in JupyterLab: frames/s", "", per_s["frames"], 59, 25, False),
        Row("widget in JupyterLab: columns missing", "", last["gaps"], 0, 0),
    ]


def _begin(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    import anywidget

    book = {
        "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [],
                   "execution_count": None, "source": CELL}],
    }  # fmt: skip
    (folder / "look.ipynb").write_text(json.dumps(book))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    share = Path(anywidget.__file__).parents[4] / "share" / "jupyter"
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
         f"--port={port}", "--ServerApp.port_retries=0", f"--notebook-dir={folder}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **{name: str(folder / name) for name in names},
             "JUPYTER_TOKEN": TOKEN, "JUPYTER_PATH": str(share)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise TimeoutError("JupyterLab has not started within 60 s")


def _look(browser: Any, port: int, seconds: float) -> list[dict[str, float]]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    try:
        page.goto(f"http://127.0.0.1:{port}/lab/tree/look.ipynb?token={TOKEN}")
        cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        cell.click(timeout=60_000)
        page.get_by_text("| Idle").first.wait_for(timeout=60_000)
        cell.click()
        page.keyboard.press("Shift+Enter")
        deadline = time.monotonic() + 60
        while not (page.evaluate(COUNTS) or {}).get("columns", 0) > 500:
            if time.monotonic() > deadline:
                raise TimeoutError("the widget shows nothing")
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)
        first = page.evaluate(COUNTS)
        page.wait_for_timeout(seconds * 1000)
        return [first, page.evaluate(COUNTS)]
    finally:
        page.close()
