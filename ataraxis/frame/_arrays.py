"""Arrays as payloads: bytes in C order, after a labels block where one is needed.

An ND_ARR payload with its own labels (labels id 0) begins with the length of their JSON
(u32), the container (u8: 0 ndarray, 1 NumPy scalar, 2 xarray DataArray) and 3 zero
bytes; then the JSON, zeros to a multiple of 8, and the array's bytes.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np

from ataraxis.errors import LayoutError
from ataraxis.frame._header import CODE_OF, MAX_BYTES, MAX_NDIM, PLAIN, DType, corrupt
from ataraxis.labels import LABELS_LIMIT, Labels, fit, is_data_array, unmasked

_BLOCK = struct.Struct("<IBBBB")
NDARRAY, SCALAR, DATA_ARRAY = 0, 1, 2
_Array = np.ndarray[Any, Any]


class EncodedPayload(NamedTuple):
    """A payload in pieces; a contiguous array is viewed, not copied."""

    dtype: DType
    shape: tuple[int, ...]
    parts: list[Any]
    pickled: bool = False


def array_bytes(array: _Array) -> memoryview:
    """Return the bytes of an array in C order: a view, if it is contiguous."""
    if not array.size or not array.itemsize:
        return memoryview(b"")
    flat: Any = np.ascontiguousarray(array).reshape(-1)
    return memoryview(flat.view(np.ndarray).view("u1"))


def encode_array(
    value: Any, code: DType | None = None, *, interned: bool = False
) -> EncodedPayload:
    """Encode an ndarray, NumPy scalar or DataArray.

    With `interned` labels the payload is only the array's bytes.
    """
    labels, container = None, NDARRAY
    if is_data_array(value):
        if not interned:
            labels, container = Labels.from_xarray(value), DATA_ARRAY
        array = np.asarray(value.values)
    else:
        if isinstance(value, np.generic):
            container = SCALAR
        array = unmasked(value, "a frame")
    if array.ndim > MAX_NDIM:
        raise ValueError(
            f"the array has {array.ndim} dimensions and a frame at most {MAX_NDIM}:"
            " reshape it."
        )
    plain = CODE_OF.get(array.dtype.str)
    if code is None and plain is not None and (interned or (array.ndim and not labels)):
        return EncodedPayload(plain, array.shape, [array_bytes(array)])
    labels = labels or Labels(array.dtype, array.shape)
    if interned:
        return EncodedPayload(DType.ND_ARR, array.shape, [array_bytes(array)])
    text = labels.to_json()
    head = _BLOCK.pack(len(text), container, 0, 0, 0) + text
    head += bytes(-len(head) % 8)
    return EncodedPayload(DType.ND_ARR, array.shape, [head, array_bytes(array)])


class ArrayPayload(NamedTuple):
    """The parts of an ND_ARR payload."""

    labels: Labels
    container: int
    data: memoryview


def read_array_payload(payload: memoryview, shape: tuple[int, ...]) -> ArrayPayload:
    """Split an ND_ARR payload into its own labels and the array's bytes."""
    if len(payload) < _BLOCK.size:
        raise corrupt(0, "labels block", f"{len(payload)} bytes", "8 or more")
    length, container, *zeros = _BLOCK.unpack_from(payload)
    start = _BLOCK.size + length + -length % 8
    if length > LABELS_LIMIT or start > len(payload):
        raise corrupt(0, "length of labels", length, "that of the payload or less")
    if container > DATA_ARRAY or (container == SCALAR and shape) or any(zeros):
        raise corrupt(4, "container", (container, *zeros), "one of 0, 1, 2")
    if any(payload[_BLOCK.size + length : start]):
        raise corrupt(_BLOCK.size + length, "padding", "bytes", "zeros")
    try:
        labels = Labels.from_json(payload[_BLOCK.size : _BLOCK.size + length])
    except LayoutError as error:
        raise corrupt(_BLOCK.size, "labels", str(error), "valid labels") from error
    if labels.shape != shape:
        raise corrupt(_BLOCK.size, "shape of labels", labels.shape, shape)
    return ArrayPayload(labels, container, payload[start:])


def view(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], *, verify: bool
) -> _Array:
    """Return a read-only array over bytes, which must fit its dtype and shape."""
    if math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) >= MAX_BYTES:
        raise corrupt(0, "extents", shape, "an array of below 2**62 bytes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise corrupt(
            0,
            f"array of {dtype} {shape}",
            f"{len(data)} bytes",
            math.prod(shape) * dtype.itemsize,
        )
    if not len(data):
        # zeros() would give an itemsize of 1 to a dtype of 0 bytes.
        return np.ndarray(shape, dtype, b"")
    array: _Array = np.frombuffer(data, dtype).reshape(shape)
    if verify and not _is_sound(array):
        raise corrupt(0, f"array of {dtype}", "items", "values of that dtype")
    return array


def _is_sound(array: _Array) -> bool:
    """Return whether NumPy can read every item: not all bytes are bools or text."""
    dtype = array.dtype
    if dtype.names is not None:
        return all(_is_sound(array[name]) for name in dtype.names)
    if not array.size or not array.itemsize:
        return True
    if dtype.kind == "b":
        return bool(np.max(array.view("u1")) <= 1)
    if dtype.kind == "U":
        points = np.ascontiguousarray(array).view(dtype.str[0] + "u4")
        return bool(np.max(points) <= 0x10FFFF)
    return True


def decode_array(payload: memoryview, shape: tuple[int, ...], *, verify: bool) -> Any:
    """Decode an ND_ARR payload that has its own labels."""
    labels, container, data = read_array_payload(payload, shape)
    array = view(data, labels.dtype, shape, verify=verify)
    if container == SCALAR:
        return array.copy()[()]
    if container == NDARRAY:
        return array
    try:
        return labels.to_xarray(array)
    except Exception as error:
        raise corrupt(8, "labels", f"{error}", "labels for xarray") from error


def cast_array(value: _Array, code: DType) -> _Array:
    """Convert an array to the dtype of a code, if nothing is lost."""
    wanted = PLAIN[code][0]
    if not np.can_cast(value.dtype, wanted, "safe"):
        raise TypeError(
            f"an array of {value.dtype} does not fit {code.name} without loss: convert"
            f" it first, array.astype({wanted.str!r})."
        )
    return fit(value, wanted, None, f"dtype {code.name}")
