"""Files of named arrays: which of them make streams, and by what times.

HDF5, MATLAB, Zarr and netCDF files of any layout are read by one rule: the arrays of a
group that has times or a rate are the columns of one stream, if they are as long; any
other array is a stream of its own, whose times are the numbers of its samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream, dtype_name
from ataraxis.datamux.folder import Folder, SuffixFormat
from ataraxis.errors import AtaraxisError, RecordingError
from ataraxis.labels import RATES

TIMES = ("t", "time", "times", "timestamps", "timestamp")
"""Names of an array of times, s, in order of preference; in any case of letters."""
BY_NUMBER = "number of the sample: the file has no times"


class NamedArray(Protocol):
    """An array of a file: of NumPy, h5py, zarr or xarray."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""


class ArrayFile(SuffixFormat):
    """A format whose files hold named arrays; a subclass opens them."""

    def members(
        self, folder: Folder, key: str
    ) -> AbstractContextManager[tuple[Mapping[str, Any], str]]:
        """Open a file: its arrays by their paths, joined by ``/``, and its name."""
        raise NotImplementedError

    def read(self, member: Any) -> NDArray[Any]:
        """Read an array."""
        return np.asarray(member[...])

    def unit_of(self, member: Any) -> str:
        """Return the unit of an array; empty if the file states none."""
        return ""

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a file; reads rates, and no other values."""
        with self.members(folder, key) as (members, where):
            if len(members) > FILES.columns:
                raise RecordingError(
                    f"{where}: {len(members)} arrays, at most {FILES.columns} are read"
                )
            groups: dict[str, dict[str, Any]] = {}
            for path, member in members.items():
                group, _, name = path.rpartition("/")
                if member.shape or name in RATES:
                    groups.setdefault(group, {})[name] = member
            described: dict[str, Stream] = {}
            for group, own in groups.items():
                name = group or key.rpartition("/")[2]
                described |= self._described(group, name, own)
            return described

    def _described(
        self, group: str, name: str, members: Mapping[str, Any]
    ) -> dict[str, Stream]:
        """Return the stream of the columns of a group, and those of other arrays."""
        lower = {own.lower(): own for own in reversed([*members])}
        time = next((lower[own] for own in TIMES if own in lower), "")
        rates = (own for own in RATES if own in members)
        rate = next((own for own in rates if np.size(members[own]) == 1), "")
        rest = {k: m for k, m in members.items() if k not in (time, rate) and m.shape}
        length = members[time].shape[0] if time else None
        if length is None and rate and rest:
            length = max(member.shape[0] for member in rest.values())
        columns = [
            own
            for own, member in rest.items()
            if member.shape[0] == length and dtype_name(member.dtype)
        ]
        path = f"{group}/" if group else ""
        described = {}
        if columns:
            unit = self.unit_of(members[time]) if time else ""
            hz = float(np.ravel(self.read(members[rate]))[0]) if rate else None
            described[name] = Stream(
                name, frequency=hz,
                fields={
                    field: Field(field, "", kind, self.unit_of(members[own]), shape)
                    for own in columns
                    for field, kind, shape in fields_of(own, members[own])
                },
                index={"t": Field("time", unit=unit if unit in ("ms", "us") else "s")},
                attrs={
                    "id": name, "arrays": [path + own for own in columns],
                    "times": path + time if time else "",
                },
            )  # fmt: skip
        for own, member in rest.items():
            if own in columns:
                continue
            described[path + own] = Stream(
                path + own, frequency=1.0,
                fields={
                    field: Field(field, "", kind, self.unit_of(member), shape)
                    for field, kind, shape in fields_of(own, member)
                },
                index={"t": Field(BY_NUMBER, unit="s")},
                attrs={"id": path + own, "arrays": [path + own], "times": ""},
            )  # fmt: skip
        return described

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns of one stream."""
        with self.members(folder, key) as (members, where):
            paths, times = stream.attrs.get("arrays"), stream.attrs.get("times")
            if paths is None:  # described by a collection
                inside = f"{stream_id}/" if f"{stream_id}/" in str([*members]) else ""
                paths = [inside + name for name in stream.fields]
                times = inside + stream.time
            columns: dict[str, NDArray[Any]] = {}
            for path in paths:
                if path not in members:
                    raise RecordingError(
                        f"{where}: no array {path!r}: found {[*members][:50]}"
                    )
                if dtype_name(members[path].dtype) is None:
                    raise RecordingError(
                        f"{where}: array {path!r} is {members[path].dtype}: expected "
                        "numbers or text"
                    )
                found = self._array(members[path], path, where)
                own = path.rpartition("/")[2]
                names = [name for name, *_ in fields_of(own, found)]
                if len(names) == 1:
                    columns[names[0]] = found
                else:
                    columns |= {name: found[:, i] for i, name in enumerate(names)}
            if times and times in members:
                columns[stream.time] = self._array(members[times], times, where)
            return columns

    def _array(self, member: Any, path: str, where: str) -> NDArray[Any]:
        """Read an array, or raise `RecordingError` with its file and path."""
        try:
            return self.read(member)
        except AtaraxisError:
            raise
        except Exception as error:  # zarr, codecs and xarray raise several kinds
            raise RecordingError(
                f"{where}: damaged: array {path!r}: {type(error).__name__}: "
                f"{str(error)[:300]}"
            ) from error


def fields_of(name: str, member: NamedArray) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of each field of an array.

    An array of two dimensions has a field a column, ``name0`` and so on. An array of
    another dtype is described as a number, and refused when it is read.
    """
    kind = dtype_name(member.dtype)
    if kind is None:
        return [(name, "f64", ())]
    shape = tuple(int(n) for n in member.shape)
    if len(shape) == 2 and 0 < shape[1] <= FILES.columns:
        return [(f"{name}{i}", kind, ()) for i in range(shape[1])]
    return [(name, kind, shape[1:])]
