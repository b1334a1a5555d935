"""Ticket: place, checksum and labels of an array in a frame buffer, as JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ataraxis.labels import Coordinate, Labels

CHECKSUM_BYTES = 8
_LIMITS = {"offset": 1 << 63, "size": 1 << 63, "position": 1 << 64}


@dataclass(frozen=True)
class Ticket:
    """An array in a frame buffer; JSON-able, made by `FrameBufferClient.put`.

    `FrameBufferClient.get` takes it, its `to_json`, and its ``dataclasses.asdict``.

    Examples
    --------
    >>> from ataraxis.framebuffer import Ticket
    >>> labels = '{"dims":["t"],"dtype":"<i2","shape":[3]}'
    >>> ticket = Ticket(64, 6, "aabbccddeeff0011", 64, labels)
    >>> ticket.dims, ticket.dtype
    (('t',), dtype('int16'))
    >>> Ticket.of(ticket.to_json()) == ticket
    True
    """

    offset: int
    """Offset of its first byte in the ring."""
    size: int
    """Bytes."""
    checksum: str
    """Of its bytes, 16 hexadecimal digits."""
    position: int
    """Bytes allocated before it since the ring was made: shows if it was overtaken."""
    labels: str
    """dtype, shape, dims, coords, attrs: the JSON of `ataraxis.labels`."""

    def __post_init__(self) -> None:
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(
                    f"{field} of a ticket is an int, got {type(value).__name__}"
                )
            if not 0 <= value < limit:
                raise ValueError(
                    f"{field} of a ticket must be 0 to {limit - 1}, got {value}"
                )
        for field in ("checksum", "labels"):
            if not isinstance(getattr(self, field), str):
                found = type(getattr(self, field)).__name__
                raise TypeError(f"{field} of a ticket is a str, got {found}")
        if len(self.checksum) != 2 * CHECKSUM_BYTES or len(self.digest) != 8:
            raise ValueError(
                f"checksum of a ticket is {self.checksum[:40]!r}, expected 16 "
                "hexadecimal digits"
            )

    @classmethod
    def of(cls, ticket: Ticket | str | bytes | Mapping[str, Any]) -> Ticket:
        """Return the ticket of its JSON or its fields, or itself.

        Raises
        ------
        TypeError, ValueError
            It is not a ticket.
        """
        if isinstance(ticket, cls):
            return ticket
        if isinstance(ticket, str | bytes):
            try:
                ticket = json.loads(ticket)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"a ticket's text is JSON: {error}") from None
        if not isinstance(ticket, Mapping):
            raise TypeError(f"a ticket has fields, got a {type(ticket).__name__}")
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(ticket) != expected:
            raise ValueError(
                f"a ticket has the fields {sorted(expected)}, got "
                f"{sorted(map(str, ticket))[:10]}"
            )
        return cls(**ticket)

    def to_json(self) -> str:
        """Return the ticket as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def digest(self) -> bytes:
        """The checksum as bytes, as `FrameBufferClient.read` takes it."""
        return bytes.fromhex(self.checksum)

    @property
    def meaning(self) -> Labels:
        """The labels, decoded; `LayoutError` if they are not valid."""
        return _labels_of(self.labels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.meaning.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.meaning.shape

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return self.meaning.dims

    @property
    def coords(self) -> Mapping[str, Coordinate]:
        """Labels along its dimensions."""
        return self.meaning.coords

    @property
    def attrs(self) -> dict[str, Any]:
        """Units, rates and the like."""
        return self.meaning.attrs


@functools.lru_cache(maxsize=64)
def _labels_of(text: str) -> Labels:
    """Decode labels; equal texts give the same object."""
    return Labels.from_json(text.encode("utf-8", "surrogatepass"))
