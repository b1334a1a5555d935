"""Packages that are not needed to import ataraxis, imported at use."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str, what: str) -> Any:
    """Import an optional package.

    Parameters
    ----------
    module : str
        What to import.
    extra : str
        The extra of ataraxis that installs it.
    what : str
        What it is needed for.

    Raises
    ------
    ModuleNotFoundError
        It is not installed, or does not load: what to type.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # foreign packages raise what they like
        raise ModuleNotFoundError(
            f"{what} needs {module}, which does not import here ({error}): "
            f'pip install "ataraxis[{extra}]"',
            name=module,
        ) from error


# ---- Packages that are not needed to import ataraxis, imported at use
