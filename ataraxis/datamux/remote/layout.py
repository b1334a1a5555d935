"""The columns of a stream's blocks: sent once, so that blocks are only numbers."""

from __future__ import annotations

import builtins
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ataraxis import errors
from ataraxis.clock import now_ns
from ataraxis.datamux import simulation
from ataraxis.datamux.block import ArrayColumns, Block, Columns
from ataraxis.datamux.description import Stream
from ataraxis.datamux.streaminghub.dfds import build
from ataraxis.errors import AtaraxisError, BadMessage, ConfigError, RemoteError

# Numbers, text and times of fixed size; neither objects nor records.
_DTYPE = re.compile(r"[<|]([biuf][1248]|f16|c8|c16|c32|[SU]\d{1,7}|[mM]8(\[\w+\])?)")
_MOST_COLUMNS = 4096
TIME, VALUE, INDEX, JOINT = "time", "value", "index", "joint"


class Column(NamedTuple):
    """One array of a block."""

    role: str
    """'time', 'value', 'index', or 'joint': all values in one array."""
    name: str
    """Name of the field; '' for time and joint."""
    dtype: np.dtype[Any]
    """Dtype of the values."""
    shape: tuple[int, ...]
    """Shape of one sample."""

    def pack(self) -> list[Any]:
        """Return plain values."""
        return [self.role, self.name, self.dtype.str, list(self.shape)]

    @classmethod
    def unpack(cls, data: Any) -> Column:
        """Return a column from untrusted plain values."""
        try:
            role, name, dtype, shape = data
            is_ours = role in (TIME, VALUE, INDEX, JOINT) and _DTYPE.fullmatch(dtype)
            extents = tuple(int(n) for n in shape)
        except (TypeError, ValueError) as error:
            raise BadMessage(f"labels: not a column: {str(data)[:80]}") from error
        if not is_ours or len(extents) > 7 or any(n < 0 for n in extents):
            raise BadMessage(f"labels: invalid column: {str(data)[:80]}")
        return cls(role, str(name), np.dtype(dtype), extents)


@dataclass(frozen=True)
class Layout:
    """The arrays of the blocks of a stream.

    Examples
    --------
    >>> from ataraxis.datamux import Field
    >>> stream = Stream("x", fields={"a": Field(dtype="i16")})
    >>> block = Block(stream, np.zeros(2), {"a": np.arange(2, dtype="i2")}, sequence=5)
    >>> layout = Layout.of(block)
    >>> Layout.unpack(layout.pack()).block(5, layout.arrays(block)).records()[1]
    {'index': {'t': 0.0}, 'value': {'a': 1}}
    """

    stream: Stream
    """Description of the stream."""
    columns: tuple[Column, ...]
    """The arrays, in order."""
    origin_s: float
    """Time that records subtract, s."""
    has_arrived: bool
    """Whether samples have a time of arrival, which the reader measures again."""
    names: tuple[str, ...] = field(default=())
    """The fields of a joint array."""

    @classmethod
    def of(cls, block: Block) -> Layout:
        """Return the layout of a block."""
        columns = [Column(TIME, "", _little(block.t), ())]
        names: tuple[str, ...] = ()
        if _is_joint(block):
            array, names = block.array, tuple(block.values)
            columns.append(Column(JOINT, "", _little(array), array.shape[1:]))
        else:
            columns += [_column(VALUE, name, c) for name, c in block.values.items()]
        columns += [_column(INDEX, name, c) for name, c in block.index.items()]
        has_arrived = block.arrived_ns is not None
        return cls(block.stream, tuple(columns), block.origin_s, has_arrived, names)

    def fitted(self, block: Block) -> list[NDArray[Any]] | None:
        """Return the arrays of a block, or None if it has another layout."""
        if (
            block.stream is not self.stream
            or block.origin_s != self.origin_s
            or (block.arrived_ns is not None) != self.has_arrived
        ):
            return None
        if not self.names:
            fits = Layout.of(block).columns == self.columns
            return self.arrays(block) if fits else None
        # Blocks of a stream are uniform, unless fields became arrays.
        first = next(iter(block.values.values()))
        if first.ndim != 1 or block.index.keys() != {c.name for c in self.columns[2:]}:
            return None
        arrays = self._found(block)
        for column, array in zip(self.columns, arrays, strict=True):
            if column.dtype != array.dtype or column.shape != array.shape[1:]:
                return None
        return [np.ascontiguousarray(array) for array in arrays]

    def _found(self, block: Block) -> list[NDArray[Any]]:
        parts = {TIME: {"": block.t}, VALUE: block.values, INDEX: block.index}
        return [
            block.array if role == JOINT else parts[role][name]
            for role, name, _, _ in self.columns
        ]

    def arrays(self, block: Block) -> list[NDArray[Any]]:
        """Return the arrays of a block; views where they are contiguous."""
        return [
            np.ascontiguousarray(array, column.dtype)
            for column, array in zip(self.columns, self._found(block), strict=True)
        ]

    def block(self, first: int, arrays: Sequence[NDArray[Any]]) -> Block:
        """Return the block of arrays, not copied; `BadMessage` if lengths differ."""
        t, *others = arrays
        if any(len(array) != len(t) for array in others):
            raise BadMessage(f"block {first}: its columns differ in length")
        joint: NDArray[Any] | None = None
        values: Columns = {}
        single: dict[str, NDArray[Any]] = {}
        index: dict[str, NDArray[Any]] = {}
        for column, array in zip(self.columns[1:], others, strict=True):
            if column.role == JOINT:
                joint = array
                values = ArrayColumns(self.names, array)
            else:
                part = single if column.role == VALUE else index
                part[column.name] = array
        arrived = np.full(len(t), now_ns()) if self.has_arrived else None
        return Block(
            self.stream, t, values if joint is not None else single, index,
            sequence=first, arrived_ns=arrived, origin_s=self.origin_s, array=joint,
        )  # fmt: skip

    def pack(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "description": packed(self.stream),
            "columns": [column.pack() for column in self.columns],
            "names": list(self.names),
            "origin_s": float(self.origin_s),
            "has_arrived": self.has_arrived,
        }

    @classmethod
    def unpack(cls, data: Any) -> Layout:
        """Return a layout from untrusted plain values, or raise `BadMessage`."""
        columns, names = data.get("columns"), data.get("names")
        if not isinstance(columns, list) or not isinstance(names, list):
            raise BadMessage("labels: no columns")
        if not 1 <= len(columns) <= _MOST_COLUMNS:
            raise BadMessage(f"labels: {len(columns)} columns")
        found = tuple(Column.unpack(column) for column in columns)
        if [c.role for c in found].count(TIME) != 1 or found[0].role != TIME:
            raise BadMessage("labels: the first column, and only that, must be time")
        if found[0].dtype != np.dtype("f8") or found[0].shape:
            raise BadMessage("labels: time must be a column of float64")
        joints = [c for c in found if c.role == JOINT]
        if len(joints) > 1 or any(c.shape[:1] != (len(names),) for c in joints):
            raise BadMessage("labels: the joint array has another number of fields")
        origin_s = data.get("origin_s")
        if not isinstance(origin_s, (int, float)):
            raise BadMessage("labels: no origin")
        return cls(
            unpacked(Stream, data.get("description")), found, float(origin_s),
            data.get("has_arrived") is True, tuple(map(str, names)),
        )  # fmt: skip


def _is_joint(block: Block) -> bool:
    columns = [*block.values.values()]
    return block.stream.is_uniform and bool(columns) and columns[0].ndim == 1


def _little(array: NDArray[Any]) -> np.dtype[Any]:
    return array.dtype.newbyteorder("<")


def _column(role: str, name: str, array: NDArray[Any]) -> Column:
    return Column(role, name, _little(array), array.shape[1:])


# ---- descriptions, faults and signals as plain values

T = TypeVar("T")
_SIGNALS = {
    kind.__name__: kind
    for kind in (
        simulation.Events, simulation.Noise, simulation.Pattern,
        simulation.Ramp, simulation.Sine, simulation.Spikes,
    )
}  # fmt: skip


def packed(made: Any) -> Any:
    """Return a dataclass, with everything in it, as plain values."""
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
    """Return a description from untrusted plain values, or raise `BadMessage`."""
    try:
        return build(kind, data, kind.__name__, "", is_checked=False)
    except ConfigError as error:
        raise BadMessage(str(error)) from error


def packed_signals(given: Any) -> Any:
    """Return signals as plain values; raise `TypeError` for a function."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {str(name): packed_signals(signal) for name, signal in given.items()}
    if type(given).__name__ not in _SIGNALS:
        raise TypeError(
            f"signal {given!r}: functions cannot be sent to a server; use one of "
            f"{', '.join(sorted(_SIGNALS))}, or simulate here with API()"
        )
    return {"signal": type(given).__name__, **packed(given)}


def unpacked_signals(data: Any) -> Any:
    """Return signals from untrusted plain values, or raise `BadMessage`."""
    if data is None:
        return None
    if not isinstance(data, dict):
        raise BadMessage("signals: expected an object")
    if "signal" not in data:
        return {name: unpacked_signals(value) for name, value in data.items()}
    kind = _SIGNALS.get(str(data["signal"]))
    if kind is None:
        raise BadMessage(
            f"unknown signal {str(data['signal'])[:40]!r}: {sorted(_SIGNALS)}"
        )
    return unpacked(kind, {k: v for k, v in data.items() if k != "signal"})


# ---- errors as plain values: the name of the class, and the message

_BUILT_IN = (
    "ConnectionError", "EOFError", "FileExistsError", "FileNotFoundError",
    "IsADirectoryError", "KeyError", "LookupError", "MemoryError",
    "ModuleNotFoundError", "NotADirectoryError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RuntimeError", "TimeoutError", "TypeError",
    "ValueError",
)  # fmt: skip
_MOST_TEXT = 2000


def _known() -> dict[str, type[Exception]]:
    known: dict[str, type[Exception]] = {k: getattr(builtins, k) for k in _BUILT_IN}
    for name, kind in vars(errors).items():
        is_ours = isinstance(kind, type) and issubclass(kind, AtaraxisError)
        if is_ours and not issubclass(kind, (ExceptionGroup, Warning)):
            known[name] = kind
    return known


def packed_error(error: BaseException) -> dict[str, str]:
    """Return an error as plain values."""
    known = _known()
    name = next((k.__name__ for k in type(error).__mro__ if k.__name__ in known), "")
    message = str(error) or type(error).__name__
    if name != type(error).__name__:
        message = f"{type(error).__name__}: {message}"
    return {"type": name, "message": message[:_MOST_TEXT]}


def unpacked_error(data: Any) -> Exception:
    """Return the error that another machine sent.

    Its class is one of ataraxis or built in; any other becomes `RemoteError`.

    Examples
    --------
    >>> unpacked_error({"type": "SystemExit", "message": "x"})
    RemoteError('x')
    """
    found = data if isinstance(data, dict) else {}
    kind = _known().get(str(found.get("type")), RemoteError)
    return kind(str(found.get("message", "no reason given"))[:_MOST_TEXT])
