"""Every notebook runs from top to bottom and leaves nothing in its context."""

from __future__ import annotations

import os
import tempfile
import time

import pytest
from places import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = ROOT / "notebooks"
DEADLINE_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    "path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebook_runs_and_leaves_nothing(path, monkeypatch):
    page = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(page)
    for module in page.metadata.get("ataraxis", {}).get("needs", ()):
        pytest.importorskip(module, reason=f"the notebook needs {module}")
    assert (page.nbformat, page.nbformat_minor) == (4, 5)
    assert not any(cell.get("outputs") for cell in page.cells)
    assert any(li.startswith("assert ") for li in page.cells[-1].source.splitlines())
    with tempfile.TemporaryDirectory(
        prefix="ataraxis-notebook-", dir="/dev/shm"
    ) as context:
        monkeypatch.setenv("ATARAXIS_CONTEXT", context)
        monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        # The kernel must find workers.py beside the notebook.
        monkeypatch.setenv("PYTHONSAFEPATH", "")
        began = time.monotonic()
        nbclient.NotebookClient(
            page,
            timeout=DEADLINE_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        ).execute()
        assert time.monotonic() - began < DEADLINE_S
        assert os.listdir(context) == []
