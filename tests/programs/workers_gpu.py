"""Processors of GPUs: what their workers see."""

from __future__ import annotations

import os
from typing import Any


def visible(value: Any) -> list[Any]:
    """Return the GPUs that CUDA would show here, and the process."""
    return [os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()]
