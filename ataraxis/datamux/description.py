"""Descriptions of streams, nodes and collections: plain dataclasses.

`YamlConfig` reads and writes them as YAML; `dfds` reads the JSON of DFDS.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ataraxis.config import YamlConfig
from ataraxis.errors import LayoutError
from ataraxis.labels import Labels, frame_rate

DTYPES: Mapping[str, str] = {
    **{f"f{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    **{f"i{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    "bool": "?",
    "str": "U",
    "bytes": "S",
}
"""Names of dtypes in metadata, in bits as in DFDS, to NumPy's."""

TIME_UNITS: Mapping[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6, "ns": 1e9}
"""Units of an index, to their number per second."""


@dataclass
class Field:
    """One column of a stream, a value or an index.

    Examples
    --------
    >>> Field("left x", dtype="f32").numpy_dtype
    dtype('float32')
    """

    name: str = ""
    """Name for people."""
    description: str = ""
    """Description for people."""
    dtype: str = "f64"
    """f16 f32 f64, i8 to i64, u8 to u64 (bits), bool, str or bytes."""
    unit: str = ""
    """Unit; of a time index s, ms, us or ns, or '' to derive it."""
    shape: tuple[int, ...] = ()
    """Shape of one value; () is a number."""

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return np.dtype(DTYPES[self.dtype])


@dataclass
class Device:
    """The instrument behind a node."""

    model: str = ""
    """Model."""
    manufacturer: str = ""
    """Manufacturer."""
    category: str = ""
    """Kind of instrument."""


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
    """Name for people."""
    description: str = ""
    """Description for people."""
    unit: str = ""
    """Unit of the fields without a unit."""
    frequency: float | None = None
    """Samples a second; None or 0 for events."""
    fields: dict[str, Field] = field(default_factory=dict)
    """Value columns, in order."""
    index: dict[str, Field] = field(default_factory=dict)
    """Index columns, in order; the first is time."""
    node: Node | None = None
    """Node that gives the stream."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """Recording or device of the stream, and further attributes."""

    @property
    def id(self) -> str:
        """Id in the collection or node; by default the name."""
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
        """Whether all fields have one dtype and shape, and so make one array."""
        kinds = {(f.numpy_dtype, tuple(f.shape)) for f in self.fields.values()}
        return len(kinds) == 1 and next(iter(kinds))[0].kind in "fiub"

    def labels(self) -> Labels:
        """Return the labels of one sample as an array.

        Returns
        -------
        Labels
            Shape (channels,) with the field names as coordinates; for a single array
            field the shape of that field. Fields of several dtypes share the dtype
            that holds them all.

        Raises
        ------
        ValueError
            A field is text, or shapes differ.
        """
        kinds = [f.numpy_dtype for f in self.fields.values()]
        shapes = {tuple(f.shape) for f in self.fields.values()}
        if not kinds or len(shapes) > 1 or any(k.kind not in "fiub" for k in kinds):
            raise ValueError(
                f"stream {self.id!r}: its fields {[*self.fields]} do not make an "
                "array; use deliver='block', which has one array per field"
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
        return Labels(np.result_type(*kinds), (len(kinds), *shape), dims, coords, attrs)

    def copy(self) -> Stream:
        """Return a deep copy."""
        return copy.deepcopy(self)


@dataclass
class Node(YamlConfig):
    """A source of streams: a device, a program, a collection."""

    id: str = ""
    """Id, as `list_live_streams` takes it."""
    device: Device | None = None
    """The instrument, if any."""
    uri: str | None = None
    """Address, if any."""
    inputs: dict[str, Stream] = field(default_factory=dict)
    """Streams that the node takes."""
    outputs: dict[str, Stream] = field(default_factory=dict)
    """Streams that the node gives."""


@dataclass
class Author:
    """An author of a collection."""

    name: str = ""
    """Name."""
    affiliation: str = ""
    """Affiliation."""
    email: str = ""
    """Email address."""


@dataclass
class Group:
    """An attribute by which recordings of a collection differ."""

    description: str = ""
    """Description for people."""
    values: list[str] = field(default_factory=list)
    """Possible values."""


@dataclass
class Collection(YamlConfig):
    """A data set: the streams of its recordings, and the names of their files."""

    name: str = ""
    """Name, also that of its folder in the data directory."""
    description: str = ""
    """Description for people."""
    keywords: list[str] = field(default_factory=list)
    """Keywords."""
    authors: list[Author] = field(default_factory=list)
    """Authors."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """Streams of every recording."""
    groups: dict[str, Group] = field(default_factory=dict)
    """Attributes by which recordings differ."""
    pattern: str = ""
    """``format://`` and the path of a recording; ``{group}`` stands for a value."""
    id: str = ""
    """Id: the name of its file without ``.collection.json``."""


# ---- channels: their names, and their dtypes in metadata, LSL and arrays

WIDER: Mapping[str, str] = {
    "bool": "i8", "u8": "i16", "u16": "i32", "u32": "i64", "f16": "f32",
}  # fmt: skip
"""Dtypes that LSL and XDF lack, to the next wider one they have."""

DEVICE_UNITS = "device_time_units"
"""Attribute of labels: the unit of the frames' device times, "ns"."""

_NAMES = {np.dtype(kind): name for name, kind in DTYPES.items() if kind not in "US"}
_TEXTS = {"U": "str", "S": "bytes"}


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the name of a dtype in metadata; None if it cannot be named."""
    return _TEXTS.get(dtype.kind) or _NAMES.get(dtype.newbyteorder("="))


def channel_names(count: int, names: Sequence[str] | None = None) -> list[str]:
    """Return `names` if they are `count` distinct names, else ch0, ch1 and so on.

    Examples
    --------
    >>> channel_names(2, ["x", "y"]), channel_names(2, ["x", "x"])
    (['x', 'y'], ['ch0', 'ch1'])
    """
    if names is not None and len(names) == count == len(set(names)) and all(names):
        return [*names]
    return [f"ch{i}" for i in range(count)]


def unique_names(names: Sequence[str], what: str = "ch") -> list[str]:
    """Return names that differ: a repeated one gets its number, an empty one `what`.

    Examples
    --------
    >>> unique_names(["ECG", "ECG", "", "ECG#2"])
    ['ECG', 'ECG#3', 'ch2', 'ECG#2']
    """
    given = {name for name in names if name}
    found: dict[str, None] = {}
    for place, name in enumerate(names):
        own, number = name or f"{what}{place}", 1
        while own in found or (number > 1 and own in given):
            number += 1
            own = f"{name or what}#{number}"
        found[own] = None
    return [*found]


def names_within(names: Sequence[str], parents: Sequence[str]) -> list[str]:
    """Return names that differ: a repeated one also has that of its parent.

    Examples
    --------
    >>> names_within(["lick", "lick", "lfp"], ["a", "b", "a"])
    ['lick@a', 'lick@b', 'lfp']
    """
    return unique_names(
        [
            f"{name}@{parent}" if names.count(name) > 1 and parent else name
            for name, parent in zip(names, parents, strict=True)
        ]
    )


def labels_of(stream: Stream) -> Labels:
    """Return the labels from which a stream was described, or else `Stream.labels`.

    Raises `LayoutError` if their shape is not that of the stream.
    """
    text = stream.attrs.get("labels")
    amounts = stream.labels()
    if not isinstance(text, str):
        return amounts
    labels = Labels.from_json(text.encode())
    if labels.shape != amounts.shape:
        raise LayoutError(
            f"stream {stream.id!r}: its labels have shape {labels.shape}, its fields "
            f"{amounts.shape}"
        )
    return labels


def stream_of(name: str, labels: Labels, mode: str = "proxy") -> Stream:
    """Return the description of a stream whose samples have these labels.

    Frames that are blocks count as samples. A first dimension ``channel`` becomes
    fields; `mode`, how the stream is read, is
    'proxy' or 'replay'. Raises `LayoutError` if a field cannot have its dtype.
    """
    dtype = dtype_name(labels.dtype)
    if dtype is None:
        raise LayoutError(
            f"stream {name!r} holds {labels.dtype}: DataMux supports numbers and text"
        )
    units = labels.attrs.get("units", "")
    rate = frame_rate(labels)
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
        frequency=rate,
        fields={n: Field(n, dtype=dtype, unit=str(u), shape=shape) for n, u in pairs},
        index={"t": Field("time", unit="s")},
        # All labels, so that a mirror can rebuild the stream.
        attrs={"id": name, "mode": mode, "labels": labels.to_json().decode()},
    )
