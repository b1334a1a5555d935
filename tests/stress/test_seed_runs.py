"""The seed's stream examples, again and again: no run hangs, no run loses anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_seed_stream import in_a_context, streaming, synchronous, with_numpy


@pytest.mark.parametrize("example", [streaming, synchronous, with_numpy, in_a_context])
def test_a_hundred_runs_in_a_row(
    example: Callable[..., None],
    arena: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[..., float],
) -> None:
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    for _ in range(int(figure(100, 10))):
        if example is in_a_context:
            in_a_context(tmp_path)
        else:
            example()
        assert list(arena.iterdir()) == []
