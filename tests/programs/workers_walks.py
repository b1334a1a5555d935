"""What the workers of the walks run."""

from __future__ import annotations

import sys
from types import FrameType

COUNTED = 1000


def add_one(value: int) -> int:
    """A plain function of one value."""
    return value + 1


class Counting:
    """Counts Python calls over `COUNTED` values; the last one returns their mean."""

    def setup(self) -> None:
        self.values = self.calls = 0

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event == "call"

    def process(self, value: int) -> int | float:
        self.values += 1
        if self.values == COUNTED:
            sys.setprofile(self._count)
        elif self.values == 2 * COUNTED:
            sys.setprofile(None)
            return self.calls / COUNTED
        return value
