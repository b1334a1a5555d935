"""Words that the English of ataraxis does without: each count may only shrink."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import PRINTED, ROOT

# While several people remove them at once, a count may be lower than the table's.
MAY_BE_LOWER = True

# Pattern; a word of it, to skip most files; what to write instead; how many are left.
# Case is ignored, and a phrase may go on in the next line, behind "#" or "*".
PATTERNS = [
    (r"\b(?:is|are|was|were) no\b", "no", "is not a ..., without ...", 29),
    (r"\bwhoever\b", "whoever", "the process, reader, caller ... that", 14),
    (r"\bsomebody\b", "somebody", "a process, reader, caller ...", 13),
    (r"\bnobody\b", "nobody", "no process, reader, caller ...", 15),
    (r"\b(?:has|have|had) had\b", "had", "has read, has received", 3),
    (r"\bsays what\b", "says", "states, names, shows, describes", 2),
    (r"\bmanners\b", "manners", "what it does, in plain words", 0),
    (r"\banew\b", "anew", "again, rebuilt, restarted", 4),
    (r"\bto be had\b", "to be", "available", 0),
    (r"\bis minded\b", "minded", "applies, has an effect", 0),
]
IDS = [word for _, word, _, _ in PATTERNS]

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


@pytest.mark.parametrize(("pattern", "word", "instead", "allowed"), PATTERNS, ids=IDS)
def test_no_word_comes_back(
    pattern: str, word: str, instead: str, allowed: int, texts: dict[str, str]
) -> None:
    search = re.compile(pattern.replace(" ", r"\s+(?:[#*]\s+)?"))
    places = [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}"
        for name, text in texts.items()
        if word in text
        for found in search.finditer(text)
    ]
    assert len(places) <= allowed, (
        f"{pattern}: {len(places)}, and {allowed} are allowed; write instead: "
        f"{instead}\n" + "\n".join(places)
    )
    assert MAY_BE_LOWER or len(places) == allowed, (
        f"{pattern}: {len(places)} are left; lower the {allowed} in PATTERNS, "
        "which may only shrink"
    )
