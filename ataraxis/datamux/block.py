"""Blocks of samples, which move from a source to a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import TIME_UNITS, Stream
from ataraxis.errors import RecordingError

if TYPE_CHECKING:
    import xarray as xr

# Seconds that ns in 64 bits hold, on either side of 0.
_MOST_S = 2.0**63 / 1e9

Columns = Mapping[str, NDArray[Any]]


class ArrayColumns(Mapping[str, NDArray[Any]]):
    """The columns of one array, shape (n, columns), each a view made on access."""

    __slots__ = ("_array", "_names")

    def __init__(self, names: tuple[str, ...], array: NDArray[Any]) -> None:
        self._names = names
        self._array = array

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            place = self._names.index(name)
        except ValueError:
            raise KeyError(name) from None
        column: NDArray[Any] = self._array[:, place]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def values(self) -> Any:
        """Return the columns in order."""
        return self._array.T

    def items(self) -> Any:
        """Return names and columns in order."""
        return zip(self._names, self._array.T, strict=True)


class Block:
    """Some consecutive samples of one stream: columns and their times.

    Parameters
    ----------
    stream : Stream
        Description of the columns.
    t : ndarray
        Times of the samples on the source's own clock, s, shape (n,), float64.
    values : mapping of str to ndarray
        Columns, each of shape (n, *shape of the field); not copied.
    index : mapping of str to ndarray, optional
        Index columns as recorded, each of shape (n,); not copied.
    sequence : int
        Number of the first sample in its stream, from 0.
    arrived_ns : ndarray, optional
        Time of arrival here, monotonic ns, shape (n,); of live sources.
    origin_s : float
        Time that `records` subtracts, s.
    array : ndarray, optional
        The values as one array (n, fields), of which `values` are the columns.

    Examples
    --------
    >>> from ataraxis.datamux import Field
    >>> stream = Stream("gaze", fields={"x": Field(), "y": Field()})
    >>> xy = np.arange(6.0).reshape(3, 2)
    >>> block = Block(stream, np.arange(3) / 60, {"x": xy[:, 0], "y": xy[:, 1]})
    >>> len(block), block[1:].records()[0]["value"]
    (3, {'x': 2.0, 'y': 3.0})
    """

    __slots__ = (
        "_array", "arrived_ns", "index", "origin_s",
        "sequence", "stream", "t", "values",
    )  # fmt: skip
    __array_ufunc__ = None

    def __init__(
        self,
        stream: Stream,
        t: NDArray[np.float64],
        values: Columns,
        index: Columns | None = None,
        *,
        sequence: int = 0,
        arrived_ns: NDArray[np.int64] | None = None,
        origin_s: float = 0.0,
        array: NDArray[Any] | None = None,
    ) -> None:
        self.stream = stream
        self.t = t
        self.values = values
        self.index: Columns = {} if index is None else index
        self.sequence = sequence
        self.arrived_ns = arrived_ns
        self.origin_s = origin_s
        self._array = array

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice) -> Block:
        """Return some of the samples; views. A slice with step 1."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError(f"slice a block by rows, block[a:b]; got {rows!r}")
        start, stop, _ = rows.indices(len(self))
        return self._with_each(lambda column: column[start:stop], start)

    def _with_each(self, change: Callable[[Any], Any], skipped: int = 0) -> Block:
        """Return a block of changed arrays, which begins `skipped` samples later."""
        columns, array, arrived = self.values, self._joint(), self.arrived_ns
        if array is not None:
            array = change(array)
            columns = ArrayColumns(tuple(columns), array)
        else:
            columns = {name: change(column) for name, column in columns.items()}
        return Block(
            self.stream, change(self.t), columns,
            {name: change(column) for name, column in self.index.items()},
            sequence=self.sequence + skipped, origin_s=self.origin_s, array=array,
            arrived_ns=None if arrived is None else change(arrived),
        )  # fmt: skip

    @property
    def array(self) -> NDArray[Any]:
        """The values as one array, (n, fields) or (n, *shape) of a single image field.

        A view if the columns are stored in one array, else a copy in the dtype of the
        stream's labels.

        Raises
        ------
        ValueError
            The columns do not make one array.
        """
        if self._array is None:
            columns = [*self.values.values()]
            if len(columns) == 1 and columns[0].ndim > 1:
                return columns[0]
            dtype = self.stream.labels().dtype
            self._array = np.stack([c.astype(dtype) for c in columns], axis=1)
        return self._array

    def _joint(self) -> NDArray[Any] | None:
        """Return the array of which `values` are the columns, if they are of one."""
        return self._array if isinstance(self.values, ArrayColumns) else None

    @property
    def time_ns(self) -> NDArray[np.int64]:
        """The times in ns on the source's own clock; shape (n,), int64.

        Exact if the time index has integers or dates; `t` in seconds is rounded to
        128 ns at present-day times. Raises `RecordingError` from 292 years on.
        """
        if len(self.t) and max(abs(self.t[0]), abs(self.t[-1])) >= _MOST_S:
            raise RecordingError(
                f"stream {self.stream.id!r}: times up to {self.t[-1]:g} s do not fit"
                f" into ns of 64 bits: declare the unit of index {self.stream.time!r}"
            )
        rounded = np.rint(self.t * 1e9).astype(np.int64)
        exact = self._exact_ns()
        if exact is None or not len(rounded):
            return rounded
        # In a repeated replay the times differ from the recorded ones.
        slack = 1 + 2e9 * float(np.spacing(np.abs(self.t).max()))
        return exact if np.abs(exact - rounded).max() <= slack else rounded

    def _exact_ns(self) -> NDArray[np.int64] | None:
        """Return the time index in ns, if it holds whole ns."""
        name = self.stream.time
        raw = self.index.get(name)
        if raw is None or raw.ndim != 1 or not len(raw):
            return None
        if raw.dtype.kind == "M":
            return raw.astype("M8[ns]").view(np.int64)
        declared = self.stream.index.get(name)
        per_s = TIME_UNITS.get("s" if declared is None else declared.unit)
        if raw.dtype.kind not in "iu" or per_s is None:
            return None
        each = round(1e9 / per_s)
        if max(abs(int(raw.max())), abs(int(raw.min()))) * each >= 1 << 63:
            return None
        return raw.astype(np.int64) * each

    def records(self) -> list[dict[str, dict[str, Any]]]:
        """Return ``{"index": {...}, "value": {...}}`` per sample, of Python scalars.

        The first index is time in seconds, less `origin_s`. Values of array fields are
        views.
        """
        times = (self.t - self.origin_s if self.origin_s else self.t).tolist()
        name = self.stream.time
        others = {k: _items(c) for k, c in self.index.items() if k != name}
        names = tuple(self.values)
        rows: Any
        array = self._joint()
        if array is not None:
            rows = array.tolist()
        else:
            rows = zip(*(_items(c) for c in self.values.values()), strict=True)
        if not others:
            if len(names) == 2:
                a, b = names
                return [
                    {"index": {name: t}, "value": {a: x, b: y}}
                    for t, (x, y) in zip(times, rows, strict=True)
                ]
            return [
                {"index": {name: t}, "value": dict(zip(names, row, strict=True))}
                for t, row in zip(times, rows, strict=True)
            ]
        keys = (name, *others)
        indices = zip(times, *others.values(), strict=True)
        return [
            {
                "index": dict(zip(keys, index, strict=True)),
                "value": dict(zip(names, row, strict=True)),
            }
            for index, row in zip(indices, rows, strict=True)
        ]

    def to_xarray(self) -> xr.Dataset:
        """Return an `xarray.Dataset` over dim ``time``, s; not copied."""
        import xarray as xr

        fields = self.stream.fields
        variables = {}
        for key, column in self.values.items():
            dims = ("time", *(f"{key}_{i}" for i in range(1, column.ndim)))
            unit = (fields[key].unit if key in fields else "") or self.stream.unit
            variables[key] = (dims, column, {"units": unit} if unit else {})
        coords: dict[str, Any] = {"time": ("time", self.t, {"units": "s"})}
        if self.arrived_ns is not None:
            coords["arrived_ns"] = ("time", self.arrived_ns)
        coords.update((k, ("time", c)) for k, c in self.index.items() if k != "time")
        return xr.Dataset(variables, coords, {"name": self.stream.name})

    def followed_by(self, second: Block) -> Block:
        """Return one block of this and the next; a copy, unless one is empty."""
        if not len(self) or not len(second):
            return second if len(second) else self
        arrived, array, values = None, None, self.values
        if self.arrived_ns is not None and second.arrived_ns is not None:
            arrived = np.concatenate([self.arrived_ns, second.arrived_ns])
        first_array, second_array = self._joint(), second._joint()
        if first_array is not None and second_array is not None:
            array = np.concatenate([first_array, second_array])
            values = ArrayColumns(tuple(values), array)
        else:
            values = {
                name: np.concatenate([column, second.values[name]])
                for name, column in values.items()
            }
        index = {
            name: np.concatenate([column, second.index[name]])
            for name, column in self.index.items()
            if name in second.index
        }
        t = np.concatenate([self.t, second.t])
        return Block(
            second.stream, t, values, index, sequence=self.sequence,
            arrived_ns=arrived, origin_s=second.origin_s, array=array,
        )  # fmt: skip

    def copy(self) -> Block:
        """Return a block that shares no memory with this one."""
        return self._with_each(lambda column: column.copy())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._joint()
        columns = None if array is not None else dict(self.values)
        names = tuple(self.values)
        state = (self.sequence, self.arrived_ns, self.origin_s)
        return _rebuilt, (
            self.stream, self.t, names, columns, dict(self.index), array, state,
        )  # fmt: skip

    def __repr__(self) -> str:
        span = f", {self.t[0]:.6g} to {self.t[-1]:.6g} s" if len(self) else ""
        return f"<Block of {self.stream.id!r}: {len(self)} samples{span}>"


class LabelledBlock:
    """A block as an `xarray.Dataset`, wrapped so that ``item == END_OF_STREAM`` works.

    Attributes
    ----------
    dataset : xarray.Dataset
        The samples over dim ``time``.
    """

    __slots__ = ("dataset",)

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset

    def __repr__(self) -> str:
        return f"<LabelledBlock\n{self.dataset!r}>"


def _items(column: NDArray[Any]) -> list[Any]:
    return column.tolist() if column.ndim == 1 else list(column)


def _rebuilt(
    stream: Stream,
    t: NDArray[np.float64],
    names: tuple[str, ...],
    columns: Columns | None,
    index: Columns,
    array: NDArray[Any] | None,
    state: tuple[int, NDArray[np.int64] | None, float],
) -> Block:
    """Rebuild a block after pickling; its columns are views of its array."""
    if columns is None:
        assert array is not None
        columns = ArrayColumns(names, array)
    sequence, arrived, origin = state
    return Block(
        stream, t, columns, index,
        sequence=sequence, arrived_ns=arrived, origin_s=origin, array=array,
    )  # fmt: skip
