"""Strict JSON for labels: what goes in comes back, whatever comes in is bounded.

Standard JSON only. Floats that JSON lacks are ``{"$f": "nan"}``; a key that begins with
``$`` gets one ``$`` more, so that no dictionary can be mistaken for that tag.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ataraxis.errors import LayoutError

ATTRS_DEPTH = 32
MAX_INT_BITS = 4096
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Copy a JSON-able value, NumPy scalars and arrays made plain; else explain."""
    if depth > ATTRS_DEPTH:
        raise ValueError(f"{where} nests deeper than {ATTRS_DEPTH} levels: flatten it.")
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, where)
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise ValueError(
                f"{where} is an integer of {value.bit_length()} bits and at most"
                f" {MAX_INT_BITS} are kept: store it as text."
            )
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            text(key, f"a key of {where}"): plain(item, f"{where}[{key!r}]", depth + 1)
            for key, item in value.items()
        }
    raise TypeError(
        f"{where} is of type {type(value).__name__}; labels keep str, int, float, bool,"
        " None, lists and dicts of these: convert it, e.g. with str()."
    )


def text(value: Any, where: str) -> str:
    """Return a str that UTF-8 can hold, or explain."""
    if not isinstance(value, str):
        raise TypeError(
            f"{where} is {value!r} of type {type(value).__name__}: give it as a str."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} is {str(value)!r}, which UTF-8 cannot hold: {error.reason}."
        ) from error
    return str(value)


def tagged(value: Any) -> Any:
    """Turn a plain tree into standard JSON (see the module)."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$f": repr(value)}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, dict):
        return {
            ("$" + key if key.startswith("$") else key): tagged(item)
            for key, item in value.items()
        }
    return value


def untagged(value: Any, depth: int = 0) -> Any:
    """Undo `tagged` on a parsed tree from anywhere."""
    if depth > ATTRS_DEPTH:
        raise LayoutError(f"attributes nest deeper than {ATTRS_DEPTH} levels.")
    if isinstance(value, float) and not math.isfinite(value):
        raise LayoutError("a number is too large for a float.")
    if isinstance(value, list):
        return [untagged(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$f"}:
        if not isinstance(value["$f"], str) or value["$f"] not in _NON_FINITE:
            raise LayoutError(f"{repr(value)[:80]} is no float.")
        return _NON_FINITE[value["$f"]]
    result = {}
    for key, item in value.items():
        if key.startswith("$") and not key.startswith("$$"):
            raise LayoutError(f"{key[:80]!r} is no tag of ours.")
        result[key[1:] if key.startswith("$") else key] = untagged(item, depth + 1)
    return result


def dump(tree: Any) -> bytes:
    """Write standard JSON in its one canonical form."""
    return json.dumps(
        tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def load(data: bytes) -> Any:
    """Parse JSON from anywhere; only `LayoutError` comes out."""
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except LayoutError:
        raise
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"not JSON that ataraxis writes: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LayoutError(f"the key {twice[:80]!r} is given twice.")
    return result


def _refuse(constant: str) -> Any:
    raise LayoutError(f"{constant} is not standard JSON.")
