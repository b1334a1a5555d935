"""Imports of optional packages."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str, what: str) -> Any:
    """Import an optional package when it is used.

    Parameters
    ----------
    module : str
        Name of the module.
    extra : str
        The extra of ataraxis that installs it.
    what : str
        What needs it, for the message.

    Raises
    ------
    ModuleNotFoundError
        It is not installed, or fails to load; the message has the pip command.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # other packages may raise anything
        raise ModuleNotFoundError(
            f"{what} needs {module}, which does not import here ({error}): "
            f'pip install "ataraxis[{extra}]"',
            name=module,
        ) from error
