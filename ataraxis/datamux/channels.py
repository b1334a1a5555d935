"""Channels: what they are called, and their dtypes in metadata, LSL and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ataraxis.datamux.description import DTYPES, Field, Stream
from ataraxis.errors import LayoutError
from ataraxis.labels import Labels

WIDER: Mapping[str, str] = {
    "bool": "i8", "u8": "i16", "u16": "i32", "u32": "i64", "f16": "f32",
}  # fmt: skip
"""The next dtype that LSL and XDF have, of those they have not."""

DEVICE_UNITS = "device_time_units"
"""Attribute of labels whose frames' device times are in a unit: "ns"."""

_NAMES = {np.dtype(kind): name for name, kind in DTYPES.items() if kind not in "US"}
_TEXTS = {"U": "str", "S": "bytes"}


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the name of a dtype in metadata; None if it has none.

    Examples
    --------
    >>> [dtype_name(np.dtype(text)) for text in (">i2", "U8", "c8")]
    ['i16', 'str', None]
    """
    return _TEXTS.get(dtype.kind) or _NAMES.get(dtype.newbyteorder("="))


def channel_names(count: int, names: Sequence[str] | None = None) -> list[str]:
    """Return `names` if they tell `count` channels apart, else ch0, ch1 and so on.

    Examples
    --------
    >>> channel_names(2, ["x", "y"]), channel_names(2, ["x", "x"])
    (['x', 'y'], ['ch0', 'ch1'])
    """
    if names is not None and len(names) == count == len(set(names)) and all(names):
        return [*names]
    return [f"ch{i}" for i in range(count)]


def labels_of(stream: Stream) -> Labels:
    """Return the labels that a stream was described from, or else those it amounts to.

    Raises
    ------
    LayoutError
        Its labels are those of another: samples have another shape.
    """
    text = stream.attrs.get("labels")
    amounts = stream.labels()
    if not isinstance(text, str):
        return amounts
    labels = Labels.from_json(text.encode())
    if labels.shape != amounts.shape:
        raise LayoutError(f"stream {stream.id!r}: its labels are those of another")
    return labels


def stream_of(name: str, labels: Labels, mode: str = "proxy") -> Stream:
    """Return the description of a stream whose samples have these labels.

    Parameters
    ----------
    name : str
        Its name and id.
    labels : Labels
        Of one sample; a first dimension ``channel`` becomes fields.
    mode : {'proxy', 'replay'}
        How it is had.

    Raises
    ------
    LayoutError
        Its dtype is none that a field may have.
    """
    dtype = dtype_name(labels.dtype)
    if dtype is None:
        raise LayoutError(
            f"stream {name!r} holds {labels.dtype}: DataMux takes numbers and text"
        )
    units = labels.attrs.get("units", "")
    rate = labels.attrs.get("rate_hz")
    names, shape = [name], labels.shape
    if labels.shape and labels.dims[0] == "channel":
        count, shape = labels.shape[0], labels.shape[1:]
        coord = labels.coords.get("channel")
        found = None if coord is None else [str(value) for value in coord.values]
        names = channel_names(count, found)
    each = units if isinstance(units, list) else [str(units)] * len(names)
    pairs = zip(names, each, strict=True)
    return Stream(
        name=name,
        unit=units if isinstance(units, str) else "",
        frequency=float(rate) if rate else None,
        fields={n: Field(n, dtype=dtype, unit=str(u), shape=shape) for n, u in pairs},
        index={"t": Field("time", unit="s")},
        # All of its labels, for those who make it again elsewhere.
        attrs={"id": name, "mode": mode, "labels": labels.to_json().decode()},
    )
