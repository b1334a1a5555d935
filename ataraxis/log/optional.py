"""Imports of optional packages."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str, what: str) -> Any:
    """Import an optional package, of an extra of ataraxis, when `what` needs it.

    Raises `ModuleNotFoundError` with the pip command if it is not installed, or fails
    to load.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # other packages may raise anything
        raise ModuleNotFoundError(
            f"{what} needs {module}, which does not import here ({error}): "
            f'pip install "ataraxis[{extra}]"',
            name=module,
        ) from error
