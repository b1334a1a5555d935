"""Words that the English of ataraxis does without; none may come back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import PRINTED, ROOT

# Pattern; a word of it, to skip most files; what to write instead.
# Case is ignored, and a phrase may go on in the next line, behind "#" or "*".
PATTERNS = [
    (r"(?<!there\x20)\b(?:is|are|was|were) no\b", "no", "is not a ..., without ..."),
    (r"\bwhoever\b", "whoever", "the process, reader, caller ... that"),
    (r"\bsomebody\b", "somebody", "a process, reader, caller ..."),
    (r"\bnobody\b", "nobody", "no process, reader, caller ..."),
    (r"\b(?:has|have|had) had\b", "had", "has read, has received"),
    (r"\bsays what\b", "says", "states, names, shows, describes"),
    (r"\bmanners\b", "manners", "what it does, in plain words"),
    (r"\banew\b", "anew", "again, rebuilt, restarted"),
    (r"\bto be had\b", "to be", "available"),
    (r"\bis minded\b", "minded", "applies, has an effect"),
]
IDS = [word for _, word, _ in PATTERNS]

SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".h", ".md", ".ipynb", ".sh", ".c", ".cpp",
            ".hpp", ".pml", ".yaml", ".toml", ".build", ".txt", ""}  # fmt: skip
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
FOLDERS = [".ci", "ataraxis", "benchmarks", "docs", "notebooks", "tests"]
BUILT = {"_build", "tutorial", "jupyter_execute", "__pycache__", ".ipynb_checkpoints"}
# The decisions stay as they were written, the seeds' words are the seeds'.
LEFT_OUT = {ROOT / "docs" / "decisions", PRINTED, ROOT / "tests" / "golden"}


def files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            if path not in LEFT_OUT and path.name not in BUILT:
                yield from files(path)
        elif path.suffix in SUFFIXES and path != Path(__file__):
            yield path


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    paths = [ROOT / page for page in PAGES]
    paths += [path for folder in FOLDERS for path in files(ROOT / folder)]
    return {str(p.relative_to(ROOT)): text_of(p).lower() for p in sorted(paths)}


@pytest.mark.parametrize(("pattern", "word", "instead"), PATTERNS, ids=IDS)
def test_no_word_comes_back(
    pattern: str, word: str, instead: str, texts: dict[str, str]
) -> None:
    search = re.compile(pattern.replace(" ", r"\s+(?:[#*]\s+)?"))
    places = [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}"
        for name, text in texts.items()
        if word in text
        for found in search.finditer(text)
    ]
    assert places == [], f"{pattern}: write instead: {instead}"
