"""How many examples a law is tried with: a fifth in plain ``pytest``, else all."""

from __future__ import annotations

import os


def examples(full: int) -> int:
    """Return `full` if $ATARAXIS_LAWS is set, else a fifth of it."""
    return full if os.environ.get("ATARAXIS_LAWS") else max(20, full // 5)
