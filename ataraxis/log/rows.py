"""Rows: entries of one dtype and shape, read into one array."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import DType, Frame
from ataraxis.log.selection import LogSource, Selection

PIECE_BYTES = 1 << 24
TEXT = np.dtype(object)
_TEXTS = (DType.STR, DType.JSON)


@dataclass(frozen=True)
class RowKind:
    """Dtype and shape that the entries of one array share."""

    code: DType | None
    """Code of their headers; None: any payload of that size."""
    dtype: np.dtype[Any]
    """Dtype of a row; object: text."""
    shape: tuple[int, ...]
    """Shape of a row."""
    is_plain: bool
    """Whether the payload is the row's bytes; else entries are read one by one."""

    @classmethod
    def of(cls, frame: Frame) -> RowKind:
        """Return the kind of an entry: an array, text or a number; else `TypeError`."""
        if frame.dtype in _TEXTS:
            return cls(frame.dtype, TEXT, (), False)
        if frame.dtype == DType.INT:
            if not -(2**63) <= frame.value < 2**63:
                raise TypeError("the number does not fit int64")
            return cls(frame.dtype, np.dtype("i8"), (), False)
        array = frame.array
        # The payload of some frames includes their labels.
        is_plain = len(frame.payload) == array.nbytes
        return cls(frame.dtype, array.dtype, array.shape, is_plain)

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def is_of(self, frame: Frame) -> bool:
        """Return whether an entry is of this kind."""
        if self.code is None:
            return len(frame.payload) == self.row_bytes
        if frame.dtype in _TEXTS or self.dtype == TEXT:
            return frame.dtype in _TEXTS and self.dtype == TEXT
        if frame.dtype != self.code:
            return False
        if self.code == DType.INT:
            return bool(-(2**63) <= frame.value < 2**63)
        return (frame.array.dtype, frame.array.shape) == (self.dtype, self.shape)

    def value(self, frame: Frame) -> Any:
        """Return the row of an entry of this kind."""
        if self.dtype == TEXT:
            return bytes(frame.payload).decode()
        if self.code is None:
            return np.frombuffer(frame.payload, self.dtype).reshape(self.shape)
        return frame.value if self.code == DType.INT else frame.array

    def __str__(self) -> str:
        return "text" if self.dtype == TEXT else f"{self.dtype} of shape {self.shape}"


def read_rows(
    source: LogSource,
    found: Selection,
    kind: RowKind,
    out: NDArray[Any] | None = None,
    *,
    verify: bool,
    refuse: Callable[[Frame, int], NoReturn],
    damaged: Callable[[int, CorruptFrame], NoReturn],
) -> NDArray[Any]:
    """Read entries of one kind into an array, shape (n, *shape): a copy.

    It is `out` if given, contiguous and of that shape. `refuse` and `damaged` raise for
    an entry of another kind or a damaged one, given its number.
    """
    if out is None:
        out = np.empty((len(found), *kind.shape), kind.dtype)
    is_bulk = kind.is_plain and kind.row_bytes > 0
    flat = None
    if is_bulk and len(out):
        flat = out.reshape(-1).view(np.uint8).reshape(len(out), -1)
    done = 0
    while done < len(found):
        number = int(found.numbers[done])
        try:
            # Bulk rows equal the first of them in kind, so only that is checked here.
            frame = source.frame(number, verify=False)
            if not kind.is_of(frame):
                refuse(frame, number)
            many = 0
            if flat is not None:
                many = source.gather(found[done:], flat[done:], verify=verify)
            if not many:
                # It is damaged, or refers to the same labels by another number.
                if verify:
                    frame = source.frame(number, verify=True)
                out[done] = kind.value(frame)
                many = 1
        except CorruptFrame as error:
            damaged(number, error)
        done += many
    return out


Take = Callable[[NDArray[Any]], NDArray[Any]]


def in_pieces(
    rows: Any, each: int, read: Callable[[Any], NDArray[Any]], take: Take | None
) -> NDArray[Any]:
    """Read rows; with `take`, `each` at a time, and keep what it returns of them.

    `rows` is what `read` takes, and has a length and slices.
    """
    if take is None:
        return read(rows)
    if len(rows) <= each:
        return take(read(rows))
    pieces = range(0, len(rows), each)
    return np.concatenate([take(read(rows[k : k + each])) for k in pieces])


def frame_kind(frame: Frame) -> str:
    """Return the kind of an entry, for a message."""
    try:
        return f"{frame.array.dtype} of shape {frame.array.shape}"
    except TypeError:
        return frame.dtype.name
