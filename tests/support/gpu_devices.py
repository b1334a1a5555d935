"""What of a GPU this machine has; tests that need more skip, and say what."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def need(module: str) -> Any:
    """Return a module; skip unless it is installed and a GPU is there."""
    from ataraxis.errors import GpuUnavailable
    from ataraxis.gpu.drivers import driver_for

    found = pytest.importorskip(module)
    try:
        driver_for("a test")
    except GpuUnavailable as error:
        pytest.skip(f"no GPU: {error}")
    return found


def jax_of_the_processor() -> Any:
    """Return JAX, which must not look for GPUs."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    pytest.importorskip("jax")
    return importlib.import_module("jax")


def has_gpu() -> bool:
    """Return whether a driver finds a GPU."""
    from ataraxis.errors import GpuUnavailable
    from ataraxis.gpu.drivers import driver_for

    try:
        driver_for("a test")
    except GpuUnavailable:
        return False
    return True
