"""Descriptions on the wire: streams, nodes, collections, faults, signals as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ataraxis.datamux import signals
from ataraxis.datamux.dfds import build
from ataraxis.errors import BadMessage, ConfigError

T = TypeVar("T")
_SIGNALS = {
    kind.__name__: kind
    for kind in (
        signals.Events, signals.Noise, signals.Pattern, signals.Ramp, signals.Sine,
        signals.Spikes,
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
