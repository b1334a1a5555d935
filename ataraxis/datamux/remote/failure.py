"""Errors on their way to another machine: their class by name, and what they say."""

from __future__ import annotations

import builtins
from typing import Any

from ataraxis import errors
from ataraxis.errors import AtaraxisError, RemoteError

_BUILT_IN = (
    "ConnectionError", "EOFError", "FileExistsError", "FileNotFoundError",
    "IsADirectoryError", "KeyError", "LookupError", "MemoryError",
    "ModuleNotFoundError", "NotADirectoryError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RuntimeError", "TimeoutError", "TypeError",
    "ValueError",
)  # fmt: skip
_MOST = 2000


def _known() -> dict[str, type[Exception]]:
    known: dict[str, type[Exception]] = {k: getattr(builtins, k) for k in _BUILT_IN}
    for name, kind in vars(errors).items():
        is_ours = isinstance(kind, type) and issubclass(kind, AtaraxisError)
        if is_ours and not issubclass(kind, (ExceptionGroup, Warning)):
            known[name] = kind
    return known


def packed_error(error: BaseException) -> dict[str, str]:
    """Return an error as plain values.

    Examples
    --------
    >>> packed_error(FileNotFoundError("no such file"))
    {'type': 'FileNotFoundError', 'message': 'no such file'}
    """
    known = _known()
    name = next((k.__name__ for k in type(error).__mro__ if k.__name__ in known), "")
    message = str(error) or type(error).__name__
    if name != type(error).__name__:
        message = f"{type(error).__name__}: {message}"
    return {"type": name, "message": message[:_MOST]}


def unpacked_error(data: Any) -> Exception:
    """Return the error that another machine told of.

    Its class is one of ataraxis or one that is built in; any other is `RemoteError`.

    Examples
    --------
    >>> unpacked_error({"type": "SystemExit", "message": "x"})
    RemoteError('x')
    """
    found = data if isinstance(data, dict) else {}
    kind = _known().get(str(found.get("type")), RemoteError)
    return kind(str(found.get("message", "no reason was given"))[:_MOST])
