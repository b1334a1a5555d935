"""The columns of a stream's blocks: sent once, so that blocks are numbers alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.block import ArrayColumns, Block, Columns
from ataraxis.datamux.description import Stream
from ataraxis.datamux.remote.describing import packed, unpacked
from ataraxis.errors import BadMessage

# No objects, no records: numbers, text, times of one size.
_DTYPE = re.compile(r"[<|]([biuf][1248]|f16|c8|c16|c32|[SU]\d{1,7}|[mM]8(\[\w+\])?)")
_MOST = 4096
TIME, VALUE, INDEX, JOINT = "time", "value", "index", "joint"


class Column(NamedTuple):
    """One array of a block."""

    role: str
    """'time', 'value', 'index', or 'joint': all values as one array."""
    name: str
    """Which field it is; '' of time and joint ones."""
    dtype: np.dtype[Any]
    """Of its values."""
    shape: tuple[int, ...]
    """Shape of one sample."""

    def pack(self) -> list[Any]:
        """Return it as plain values."""
        return [self.role, self.name, self.dtype.str, list(self.shape)]

    @classmethod
    def unpack(cls, data: Any) -> Column:
        """Read it from a stranger."""
        try:
            role, name, dtype, shape = data
            is_ours = role in (TIME, VALUE, INDEX, JOINT) and _DTYPE.fullmatch(dtype)
            extents = tuple(int(n) for n in shape)
        except (TypeError, ValueError) as error:
            raise BadMessage(f"labels: no column: {str(data)[:80]}") from error
        if not is_ours or len(extents) > 7 or any(n < 0 for n in extents):
            raise BadMessage(f"labels: no column of numbers: {str(data)[:80]}")
        return cls(role, str(name), np.dtype(dtype), extents)


@dataclass(frozen=True)
class Layout:
    """What the arrays of a stream's blocks are.

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
    """What they mean."""
    columns: tuple[Column, ...]
    """The arrays, in order."""
    origin_s: float
    """What records take off the times, s."""
    has_arrived: bool
    """Whether samples have a time of arrival: where they are read, it is taken anew."""
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
        """Return the arrays of a block as `arrays`; None if it has another layout."""
        if (
            block.stream is not self.stream
            or block.origin_s != self.origin_s
            or (block.arrived_ns is not None) != self.has_arrived
        ):
            return None
        if not self.names:
            fits = Layout.of(block).columns == self.columns
            return self.arrays(block) if fits else None
        # Of one stream: uniform as before, unless its fields became arrays.
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
        """Return the block of these arrays, which are not copied.

        Raises
        ------
        BadMessage
            They are not those of one block.
        """
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
        """Return it as plain values."""
        return {
            "description": packed(self.stream),
            "columns": [column.pack() for column in self.columns],
            "names": list(self.names),
            "origin_s": float(self.origin_s),
            "has_arrived": self.has_arrived,
        }

    @classmethod
    def unpack(cls, data: Any) -> Layout:
        """Read it from a stranger.

        Raises
        ------
        BadMessage
            It is none.
        """
        columns, names = data.get("columns"), data.get("names")
        if not isinstance(columns, list) or not isinstance(names, list):
            raise BadMessage("labels: no columns")
        if not 1 <= len(columns) <= _MOST:
            raise BadMessage(f"labels: {len(columns)} columns")
        found = tuple(Column.unpack(column) for column in columns)
        if [c.role for c in found].count(TIME) != 1 or found[0].role != TIME:
            raise BadMessage("labels: the first column, and no other, is time")
        if found[0].dtype != np.dtype("f8") or found[0].shape:
            raise BadMessage("labels: time is a column of float64")
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
