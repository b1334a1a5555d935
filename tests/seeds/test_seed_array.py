"""The seed's SharedMemoryArray chapter runs as printed, after the import line."""

from __future__ import annotations

import re
from pathlib import Path

import programs
import pytest
from places import PRINTED, TESTS

COPIES = sorted(PRINTED.glob("array_*.py"))
OLD_IMPORT = "from ataraxis_data_structures import SharedMemoryArray\n"
NEW_IMPORT = "from ataraxis import SharedMemoryArray\n"


def chapter_file() -> Path:
    """The seed beside this repository, wherever that was cloned."""
    for folder in TESTS.parents:
        found = folder / "shared/seeds/ataraxis-data-structures.md"
        if found.exists():
            return found
    pytest.skip("the seeds are not beside this repository: their copies are run")


def printed_blocks(text: str) -> list[str]:
    chapter = text.split("### SharedMemoryArray\n")[1].split("### DataLogger\n")[0]
    return re.findall(r"^```(?:python)?\n(.*?)^```$", chapter, re.M | re.S)


def ours(block: str) -> str:
    """The block with nothing but the import line changed."""
    assert block.count(OLD_IMPORT) == 1
    return block.replace(OLD_IMPORT, NEW_IMPORT)


def one_after_another(blocks: list[str]) -> str:
    """One program that runs each block as a notebook would, dropping its names."""
    return f"""
        for number, block in enumerate({[ours(b) for b in blocks]!r}):
            names = {{"__name__": "__main__"}}
            exec(compile(block, f"block {{number}}", "exec"), names)
            del names
        """


def test_the_copies_are_the_chapter_word_for_word() -> None:
    blocks = printed_blocks(chapter_file().read_text(encoding="utf-8"))
    assert [copy.read_text(encoding="utf-8") for copy in COPIES] == blocks


@pytest.mark.parametrize("number", range(4))
def test_every_block_of_the_seed_runs_silently(number: int, context: Path) -> None:
    blocks = printed_blocks(chapter_file().read_text(encoding="utf-8"))
    assert len(blocks) == 4
    assert programs.run(ours(blocks[number])) == ""
    assert list(context.iterdir()) == []


@pytest.mark.parametrize("copy", COPIES, ids=lambda path: path.stem)
def test_every_copied_block_runs_silently(copy: Path, context: Path) -> None:
    assert programs.run(ours(copy.read_text(encoding="utf-8"))) == ""
    assert list(context.iterdir()) == []


def test_all_blocks_run_one_after_another_in_one_interpreter(context: Path) -> None:
    blocks = [copy.read_text(encoding="utf-8") for copy in COPIES]
    assert len(blocks) == 4
    assert programs.run(one_after_another(blocks)) == ""
    assert list(context.iterdir()) == []


def test_a_block_may_be_run_twice_in_one_interpreter(context: Path) -> None:
    blocks = [copy.read_text(encoding="utf-8") for copy in COPIES]
    assert programs.run(one_after_another(blocks * 2)) == ""
    assert list(context.iterdir()) == []


def test_blocks_run_in_one_namespace_with_the_handle_dropped(context: Path) -> None:
    cells = "\n".join(
        ours(copy.read_text(encoding="utf-8")) + "\ndel sma\n" for copy in COPIES
    )
    assert programs.run(cells) == ""
    assert list(context.iterdir()) == []
