"""What a stream, a node and a collection are: plain dataclasses.

Also their YAML files, by `YamlConfig`; the JSON of DFDS is in `dfds`. Nothing here
opens a recording or a device.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ataraxis.config import YamlConfig
from ataraxis.errors import LayoutError
from ataraxis.labels import Labels

DTYPES: Mapping[str, str] = {
    **{f"f{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    **{f"i{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    "bool": "?",
    "str": "U",
    "bytes": "S",
}
"""Names of dtypes in metadata, in bits as DFDS has them, to NumPy's."""

TIME_UNITS: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6, "ns": 1e9}
"""Units of an index, to how many make a second."""


@dataclass
class Field:
    """One column of a stream, a value or an index.

    Examples
    --------
    >>> Field("left x", dtype="f32").numpy_dtype
    dtype('float32')
    """

    name: str = ""
    """What people call it."""
    description: str = ""
    """What it means."""
    dtype: str = "f64"
    """f16 f32 f64, i8 to i64, u8 to u64 (bits), bool, str or bytes."""
    unit: str = ""
    """Its unit; of a time index s, ms, us or ns, or '' to find out."""
    shape: tuple[int, ...] = ()
    """Shape of one value; () is a number."""

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype, as NumPy has it."""
        return np.dtype(DTYPES[self.dtype])


@dataclass
class Device:
    """The instrument behind a node."""

    model: str = ""
    """Its model."""
    manufacturer: str = ""
    """Who makes it."""
    category: str = ""
    """What kind of instrument it is."""


@dataclass
class Stream:
    """One stream: its columns, rate and attributes.

    Examples
    --------
    >>> lead = Field(dtype="f32", unit="mV")
    >>> ecg = Stream("ecg", frequency=360, fields={"MLII": lead})
    >>> ecg.rate_hz, ecg.labels().shape, ecg.labels().dims
    (360.0, (1,), ('channel',))
    """

    name: str = ""
    """What people call it."""
    description: str = ""
    """What it means."""
    unit: str = ""
    """Unit of the fields that have none of their own."""
    frequency: float | None = None
    """Samples a second; None or 0 for events."""
    fields: dict[str, Field] = field(default_factory=dict)
    """Its value columns, in order."""
    index: dict[str, Field] = field(default_factory=dict)
    """Its index columns, in order; the first is time."""
    node: Node | None = None
    """Where it comes from."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """Which recording or device it is, and whatever else is known of it."""

    @property
    def id(self) -> str:
        """Its id in its collection or node; its name if it has none."""
        return str(self.attrs.get("id", self.name))

    @property
    def rate_hz(self) -> float | None:
        """Samples a second; None for events."""
        return float(self.frequency) if self.frequency else None

    @property
    def time(self) -> str:
        """Name of the time index."""
        return next(iter(self.index), "t")

    @property
    def is_uniform(self) -> bool:
        """Whether all fields have one dtype and shape, so that they make one array."""
        kinds = {(f.numpy_dtype, tuple(f.shape)) for f in self.fields.values()}
        return len(kinds) == 1 and next(iter(kinds))[0].kind in "fiub"

    def labels(self) -> Labels:
        """Return the labels of one sample as an array.

        Returns
        -------
        Labels
            Shape (channels,) with the field names as coordinates; of a single field
            that is an array itself, that field's shape. Fields that do not make one
            array share the dtype that holds them all.

        Raises
        ------
        ValueError
            A field is text, or its shape is another than its neighbours'.
        """
        kinds = [f.numpy_dtype for f in self.fields.values()]
        shapes = {tuple(f.shape) for f in self.fields.values()}
        if not kinds or len(shapes) > 1 or any(k.kind not in "fiub" for k in kinds):
            raise ValueError(
                f"stream {self.id!r}: its fields {[*self.fields]} do not make one "
                "array; use deliver='block', whose values keep their columns apart"
            )
        (shape,) = shapes
        attrs: dict[str, Any] = {"long_name": self.name} if self.name else {}
        units = {f.unit or self.unit for f in self.fields.values()}
        if len(units) == 1 and units != {""}:
            attrs["units"] = units.pop()
        elif len(units) > 1:
            attrs["units"] = [f.unit or self.unit for f in self.fields.values()]
        if self.rate_hz:
            attrs["rate_hz"] = self.rate_hz
        if len(kinds) == 1 and shape:
            dims = ("y", "x", "colour")[: len(shape)] if len(shape) <= 3 else None
            return Labels(kinds[0], shape, dims, attrs=attrs)
        coords = {"channel": [*self.fields]}
        dims = ("channel", *(f"dim_{i}" for i in range(len(shape))))
        joint = np.result_type(*kinds)
        return Labels(joint, (len(kinds), *shape), dims, coords, attrs)

    def copy(self) -> Stream:
        """Return a copy that shares nothing with this one."""
        return copy.deepcopy(self)


@dataclass
class Node(YamlConfig):
    """Something that gives streams: a device, a program, a collection."""

    id: str = ""
    """Its id, as `list_live_streams` takes it."""
    device: Device | None = None
    """The instrument, if it is one."""
    uri: str | None = None
    """Where it is, if it has an address."""
    inputs: dict[str, Stream] = field(default_factory=dict)
    """Streams it takes."""
    outputs: dict[str, Stream] = field(default_factory=dict)
    """Streams it gives."""


@dataclass
class Author:
    """Somebody who made a collection."""

    name: str = ""
    """Their name."""
    affiliation: str = ""
    """Where they work."""
    email: str = ""
    """How to reach them."""


@dataclass
class Group:
    """One of the things by which recordings of a collection differ."""

    description: str = ""
    """What it is."""
    values: list[str] = field(default_factory=list)
    """The values it has."""


@dataclass
class Collection(YamlConfig):
    """A data set: which streams its recordings hold, and how their files are called."""

    name: str = ""
    """Its name, which is also that of its folder in the data directory."""
    description: str = ""
    """What it holds."""
    keywords: list[str] = field(default_factory=list)
    """Words to find it by."""
    authors: list[Author] = field(default_factory=list)
    """Who made it."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """Streams of every recording."""
    groups: dict[str, Group] = field(default_factory=dict)
    """What recordings differ by."""
    pattern: str = ""
    """``format://`` and the path of a recording, ``{group}`` standing for its value."""
    id: str = ""
    """Its id: the name of its file without ``.collection.json``."""


# ---- channels: what they are called, and their dtypes in metadata, LSL and arrays

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
