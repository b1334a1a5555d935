"""The command of a Python process that this one starts."""

from __future__ import annotations

import sys

__all__ = ["python_command"]


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command of a Python that runs code and imports what this one would.

    It looks for modules where this process does now, whatever the current folder
    holds: a source folder of ataraxis, say, which would hide the installed package.

    Parameters
    ----------
    code : str
        What it runs.
    *arguments : str
        ``sys.argv[1:]`` of it.

    Raises
    ------
    OSError
        This program is embedded, and does not know its Python.

    Examples
    --------
    >>> import subprocess
    >>> subprocess.run(python_command("import ataraxis")).returncode
    0
    """
    if not sys.executable:
        raise OSError(
            "this program does not know its Python (sys.executable is empty): set it, "
            "so that processes can be started"
        )
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}; {code}",
        *arguments,
    ]
