"""Problem: something in a log that is not as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """Something in a log that is not as it was written.

    Examples
    --------
    >>> print(Problem(Path("a.axj"), 4096, 64, "no frame begins"))
    a.axj: 64 bytes at byte 4096: no frame begins
    """

    path: Path
    """The file."""
    offset: int
    """Byte where it begins."""
    nbytes: int
    """Bytes of it."""
    what: str
    """What is wrong, and what it means."""

    def __str__(self) -> str:
        return f"{self.path}: {self.nbytes} bytes at byte {self.offset}: {self.what}"
