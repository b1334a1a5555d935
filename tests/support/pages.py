"""Pages of documentation: their code blocks, and how to run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of code."""

    language: str
    code: str
    excuse: str
    """The reason not to run it, from the HTML comment before it, or ''."""


def blocks(page: Path) -> list[Block]:
    """Return every fenced block of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        excuse = re.search(r"<!-- not run: ([^>]+) -->$", before)
        language = match["language"].strip()
        found.append(Block(language, match["code"], excuse[1] if excuse else ""))
    return found


def python_blocks(page: Path) -> list[Block]:
    """Return its blocks of Python, also under the names that MyST uses."""
    names = ("python", "py", "python3", "{code-block} python", "{code-cell}", "pycon")
    return [block for block in blocks(page) if block.language in names]


@contextmanager
def fresh_context() -> Iterator[dict[str, str]]:
    """Yield an environment with a new context, which must be empty at the end."""
    with tempfile.TemporaryDirectory(
        prefix="ataraxis-page-", dir="/dev/shm"
    ) as context:
        yield {**os.environ, "ATARAXIS_CONTEXT": context, "OPENBLAS_NUM_THREADS": "1"}
        assert os.listdir(context) == []


def python(*arguments: str) -> list[str]:
    """Return the command of a user's interpreter; warnings are errors."""
    # -P: the working folder must not shadow the installed package.
    return [sys.executable, "-P", "-W", "error", *arguments]


def run_script(script: Path, environment: dict[str, str]) -> str:
    """Run a script, which must succeed without stderr; return its stdout."""
    done = subprocess.run(
        python(str(script)),
        env=environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout
