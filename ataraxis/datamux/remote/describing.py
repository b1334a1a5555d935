"""Descriptions on the wire: streams, nodes, collections, faults, signals as values."""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ataraxis import errors
from ataraxis.datamux import simulation
from ataraxis.datamux.streaminghub.dfds import build
from ataraxis.errors import AtaraxisError, BadMessage, ConfigError, RemoteError

T = TypeVar("T")
_SIGNALS = {
    kind.__name__: kind
    for kind in (
        simulation.Events, simulation.Noise, simulation.Pattern,
        simulation.Ramp, simulation.Sine, simulation.Spikes,
    )
}  # fmt: skip


def packed(made: Any) -> Any:
    """Return a dataclass, or anything in its attributes, as plain values.

    Examples
    --------
    >>> from ataraxis.datamux import Device
    >>> packed({"device": Device("X1"), "gain": np.float32(2.0)})["gain"]
    2.0
    """
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        return {f.name: packed(getattr(made, f.name)) for f in dataclasses.fields(made)}
    if isinstance(made, Mapping):
        return {str(key): packed(value) for key, value in made.items()}
    if isinstance(made, (list, tuple, set, frozenset)):
        return [packed(value) for value in made]
    if isinstance(made, (np.generic, np.ndarray)):
        return packed(made.tolist())
    if made is None or isinstance(made, (bool, int, float, str)):
        return made
    return str(made)


def unpacked(kind: type[T], data: Any) -> T:
    """Return the description that a stranger sent.

    Raises
    ------
    BadMessage
        It is none.
    """
    try:
        return build(kind, data, kind.__name__, "", is_checked=False)
    except ConfigError as error:
        raise BadMessage(str(error)) from error


def packed_signals(given: Any) -> Any:
    """Return signals of a simulation as plain values.

    Raises
    ------
    TypeError
        A function, which stays on its machine.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {str(name): packed_signals(signal) for name, signal in given.items()}
    if type(given).__name__ not in _SIGNALS:
        raise TypeError(
            f"signal {given!r}: functions do not travel to another machine; use "
            f"one of {', '.join(sorted(_SIGNALS))}, or simulate here with API()"
        )
    return {"signal": type(given).__name__, **packed(given)}


def unpacked_signals(data: Any) -> Any:
    """Return the signals that a stranger described.

    Raises
    ------
    BadMessage
        They are none.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise BadMessage("signals: expected an object")
    if "signal" not in data:
        return {name: unpacked_signals(value) for name, value in data.items()}
    kind = _SIGNALS.get(str(data["signal"]))
    if kind is None:
        raise BadMessage(f"signal {str(data['signal'])[:40]!r}: {sorted(_SIGNALS)}")
    return unpacked(kind, {k: v for k, v in data.items() if k != "signal"})


# ---- errors on their way to another machine: their class by name, and what they say

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
