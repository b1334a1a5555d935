"""Recordings of public repositories, in the folder that ``ATARAXIS_SAMPLES`` names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("ATARAXIS_SAMPLES", "/none"))
_POINTER = b"version https://git-lfs"


def sample(repository: str, inside: str) -> Path:
    """A file or folder of a repository, or skip and say how to get it."""
    name = repository.rpartition("/")[2]
    path = SAMPLES / name / inside
    url = repository if "://" in repository else f"https://github.com/{repository}"
    folder = Path(inside).parent.as_posix()
    how = (
        f"in the folder that ATARAXIS_SAMPLES names: git clone --depth 1 "
        f"--filter=blob:none --sparse {url} && git -C {name} sparse-checkout set "
        f"'{folder}'"
    )
    if "gin.g-node.org" in url:
        how += f" && git -C {name} annex get '{inside}'"
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        pytest.skip(how)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                pytest.skip(f"{how} && git -C {name} lfs pull")
    return path
