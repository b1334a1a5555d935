"""Every command, ended by every signal, once and twice, at random moments."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMANDS, SIGNALS, ended_in_order, unlink_what_may_stay


@pytest.mark.parametrize("command", COMMANDS)
def test_every_signal_at_random_moments(
    command: str, context: Path, tmp_path: Path, figure: Callable[..., float]
) -> None:
    """200 in all at full figures."""
    rng, longest = random.Random(command), 0.0
    for k in range(int(figure(200 / len(COMMANDS) + 1, 1))):
        number, times = SIGNALS[k % 3], 1 + k // 3 % 2
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        try:
            took = ended_in_order(command, number, times, rng.uniform(0, 3), place)
        finally:
            unlink_what_may_stay(context)
        longest = max(longest, took)
        left = [path.name for path in context.iterdir()]
        assert left == [], left
    print(f"{command}: ended within {longest:.2f} s")
