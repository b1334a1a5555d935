"""A real JupyterLab, in a process of its own, and a notebook in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from deadline import wait_until

TOKEN = "t" * 32
COUNTS = """() => {
  const all = [...document.querySelectorAll("*")].filter(e => e.viewCounts);
  return all.length ? {...all.at(-1).viewCounts, ms: performance.now(),
    text: all.at(-1).shadowRoot.textContent} : null; }"""
"""JavaScript that returns what the newest widget has counted."""


class Lab:
    """A server of JupyterLab with the notebook ``look.ipynb``."""

    def __init__(self, folder: Path, cells: Sequence[str]) -> None:
        nbformat = pytest.importorskip("nbformat")
        pytest.importorskip("jupyterlab")
        prefix = Path(pytest.importorskip("anywidget").__file__).parents[4]
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(text) for text in cells]
        )
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        (folder / "notebooks").mkdir()
        nbformat.write(book, folder / "notebooks" / "look.ipynb")
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
                 "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             f"--port={self.port}", "--ServerApp.port_retries=0",
             f"--notebook-dir={folder / 'notebooks'}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={
                **os.environ, **{name: str(folder / name) for name in names},
                "JUPYTER_PATH": str(prefix / "share" / "jupyter"),
                "JUPYTER_TOKEN": TOKEN,
            },
        )  # fmt: skip

    def set(self, what: str, **values: Any) -> None:
        """Change settings of an extension, such as its theme."""
        request = Request(
            f"http://127.0.0.1:{self.port}/lab/api/settings/"
            f"@jupyterlab/apputils-extension:{what}",
            json.dumps({"raw": json.dumps(values)}).encode(),
            {"Authorization": f"token {TOKEN}"}, method="PUT",
        )  # fmt: skip
        urlopen(request, timeout=30).close()

    def open(self, page: Any) -> None:
        """Open the notebook, and run its first cell once its kernel is there."""
        page.goto(
            f"http://127.0.0.1:{self.port}/lab/tree/look.ipynb?token={TOKEN}&reset"
        )
        cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        cell.click(timeout=90_000)
        # What is run before the kernel is there is dropped without a word.
        page.get_by_text("| Idle").first.wait_for(timeout=90_000)
        cell.click()
        page.keyboard.press("Shift+Enter")

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def jupyterlab(folder: Path, *cells: str) -> Iterator[Lab]:
    """Run JupyterLab with a notebook of these cells; its kernel ends with it."""
    lab = Lab(folder, cells)
    try:
        wait_until(lab.is_ready, 60, "JupyterLab")
        # It would ask a server elsewhere for news.
        lab.set("notification", fetchNews="false", checkForUpdates=False)
        yield lab
    finally:
        lab.process.send_signal(signal.SIGTERM)
        lab.process.wait(30)
