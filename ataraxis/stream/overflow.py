"""`on_full`: what to do when there is no room, one argument wherever values wait."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypeVar

Overflow: TypeAlias = Literal["block", "raise", "drop_newest", "drop_oldest", "latest"]
"""'block' waits; 'raise' raises. The others drop values and count them: the new one,
the oldest one, or, for 'latest', all that wait."""

T = TypeVar("T", bound=str)


def check_on_full(on_full: T, allowed: tuple[str, ...]) -> T:
    """Return `on_full`; `ValueError` if it is not one of `allowed`."""
    if on_full not in allowed:
        raise ValueError(
            f"on_full must be one of {', '.join(allowed)}, got {on_full!r}"
        )
    return on_full
