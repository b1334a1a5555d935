"""Rows of an array as frames of a journal: their header and their extensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ataraxis.frame import HEADER_BYTES, DType, Header
from ataraxis.labels import Labels

_CODES = {
    "u1": DType.U8, "u2": DType.U16, "u4": DType.U32, "u8": DType.U64,
    "i1": DType.I8, "i2": DType.I16, "i4": DType.I32, "i8": DType.I64,
    "f2": DType.F16, "f4": DType.F32, "f8": DType.F64, "c8": DType.C64,
    "c16": DType.C128, "b1": DType.BOOL,
}  # fmt: skip


class EncodedRows(NamedTuple):
    """Rows as bytes."""

    template: bytes
    """Header that all share but for sequence, time and checksums."""
    data: NDArray[np.uint8]
    """Payloads, shape (rows, bytes); a view of what was given, if contiguous."""
    fronts: NDArray[np.uint8] | None
    """Extensions, shape (rows, bytes)."""


def row_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View a contiguous array as the bytes of its rows, shape (rows, bytes)."""
    width = array.itemsize * math.prod(array.shape[1:])
    if not array.size * array.itemsize:
        return np.empty((len(array), width), np.uint8)
    return array.reshape(-1).view(np.uint8).reshape(len(array), width)


def plain_header(
    source: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> bytes | None:
    """Write the header of rows with device stamps; None: it takes labels or more bytes.

    Sequence, times and checksums are whoever writes the rows'.
    """
    code = _code_of(dtype)
    if code == DType.ND_ARR:
        return None
    template, extents = _template(
        code, shape, dtype.itemsize, source=source, device_time=0, device_sequence=0,
        device_unsigned=True,
    )  # fmt: skip
    return None if extents else template


def _code_of(dtype: np.dtype[Any]) -> DType:
    """Find the code of plain numbers; of others that of what labels name."""
    if not dtype.isnative or dtype.names is not None:
        return DType.ND_ARR
    return _CODES.get(dtype.str[1:], DType.ND_ARR)


def _template(
    code: DType, shape: tuple[int, ...], itemsize: int, **more: Any
) -> tuple[bytes, bytes]:
    """Write a row's header, and the extension that says its extents, if it has one."""
    width = itemsize * math.prod(shape)
    header = Header(dtype=code, shape=shape, payload_bytes=width, **more)
    data = bytearray(header.nbytes - width)
    header.write(data)
    end = len(data) - (16 if header.device_time is not None else 0)
    return bytes(data[:HEADER_BYTES]), bytes(data[HEADER_BYTES:end])


class RowTemplates:
    """Headers of rows, made once for each kind of row.

    Parameters
    ----------
    checksum : bool
        Whether frames get a checksum.
    """

    def __init__(self, checksum: bool) -> None:
        self.checksum = checksum
        self._known: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def encode(
        self,
        source: int,
        block: ArrayLike,
        device_time: NDArray[Any] | None,
        device_sequence: NDArray[Any] | None,
        labels_id: Callable[[Labels], int],
    ) -> EncodedRows:
        """Take an array of shape (n, ...) apart into rows.

        Parameters
        ----------
        source : int
            Of all rows.
        block : array-like
            Its first axis is that of the rows.
        device_time, device_sequence : array or None
            Of each row.
        labels_id : callable
            Gives the id of labels, for dtypes that only labels can name.

        Raises
        ------
        TypeError, ValueError
            It has no rows, or holds Python objects, or stamps do not fit.
        """
        array = np.ascontiguousarray(block)
        if np.ndim(block) == 0:
            raise ValueError("log_block takes an array of rows: log() takes one value")
        if array.dtype.hasobject:
            raise TypeError(f"{array.dtype} holds Python objects: convert it first")
        n, shape = len(array), array.shape[1:]
        data = row_bytes(array)
        stamps = _stamps(n, device_time, device_sequence)
        unsigned = stamps is not None and np.asarray(device_time).dtype.kind == "u"
        kind = str(array.dtype.descr) if array.dtype.names else array.dtype.str
        key = (source, kind, shape, stamps is not None, unsigned)
        template, extents = self._known.get(key) or self._make(
            key, source, array.dtype, shape, stamps is not None, unsigned, labels_id,
        )  # fmt: skip
        fronts = stamps
        if extents:
            lead = np.broadcast_to(np.frombuffer(extents, "u1"), (n, len(extents)))
            fronts = np.hstack([lead, stamps] if stamps is not None else [lead])
        if fronts is not None:
            fronts = np.ascontiguousarray(fronts)
        return EncodedRows(template, data, fronts)

    def _make(
        self,
        key: tuple[Any, ...],
        source: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        is_stamped: bool,
        unsigned: bool,
        labels_id: Callable[[Labels], int],
    ) -> tuple[bytes, bytes]:
        code = _code_of(dtype)
        made = _template(
            code, shape, dtype.itemsize, source=source,
            labels_id=labels_id(Labels(dtype, shape)) if code == DType.ND_ARR else 0,
            device_time=0 if is_stamped else None,
            device_sequence=0 if is_stamped else None,
            device_unsigned=unsigned, checksum=self.checksum,
        )  # fmt: skip
        self._known[key] = made
        return made


def _stamps(
    n: int, device_time: NDArray[Any] | None, device_sequence: NDArray[Any] | None
) -> NDArray[np.uint8] | None:
    """Write device stamps as their bytes, shape (n, 16)."""
    if device_time is None:
        if device_sequence is not None:
            raise ValueError("device_sequence goes with device_time: give both")
        return None
    times = np.asarray(device_time)
    counts = np.zeros(n, "u8") if device_sequence is None else device_sequence
    counts = np.asarray(counts)
    if times.dtype.kind not in "iu" or counts.dtype.kind not in "iu":
        raise TypeError("device_time and device_sequence are integers")
    if times.shape != (n,) or counts.shape != (n,):
        raise ValueError(f"device stamps have shape ({n},), one for each row")
    stamps = np.empty((n, 2), "<u8")
    stamps[:, 0] = times.astype("u8" if times.dtype.kind == "u" else "i8").view("u8")
    stamps[:, 1] = counts.astype("u8")
    return stamps.view(np.uint8)
