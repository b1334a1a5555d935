"""Any HDF5 file of arrays, and the tracks of SLEAP in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.folder import Folder
from ataraxis.datamux.sources.hdf5 import check_inside, opened_hdf5, read_dataset, walk
from ataraxis.datamux.sources.members import ArrayFile

_SLEAP = {"tracks", "node_names", "track_names"}


class Hdf5File(ArrayFile):
    """``hdf5://{session}``: the datasets of a file ``.h5`` or ``.hdf5``.

    See `ataraxis.datamux.sources.members` for what makes a stream. The analysis file of
    SLEAP has a group of ``x``, ``y`` and scores for each track and node.
    """

    suffix = ".h5"

    @contextmanager
    def members(
        self, folder: Folder, key: str
    ) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Open a file; arrays are read when they are asked for."""
        with opened_hdf5(folder, f"{key}{self.suffix}") as (file, opened):
            datasets: dict[str, Any] = {}
            for name, item in walk(file, opened):
                if hasattr(item, "dtype"):
                    check_inside(item, opened)
                    datasets[name] = _Dataset(item, opened)
            if datasets.keys() >= _SLEAP:
                datasets = _tracks(datasets)
            yield datasets, opened.shown

    def read(self, member: Any) -> NDArray[Any]:
        """Read an array."""
        return member.read() if isinstance(member, _Dataset) else np.asarray(member)

    def unit_of(self, member: Any) -> str:
        """Return the attribute ``units`` or ``unit`` of a dataset."""
        attrs = getattr(member, "attrs", {})
        return str(next((attrs[n] for n in ("units", "unit") if n in attrs), ""))


class _Dataset:
    """A dataset that is read as a whole, after its size was checked."""

    def __init__(self, item: Any, opened: Any) -> None:
        self._item, self._opened = item, opened
        self.shape, self.dtype, self.attrs = item.shape, item.dtype, item.attrs

    def read(self) -> NDArray[Any]:
        return np.asarray(read_dataset(self._item, self._opened))

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.read() if dtype is None else self.read().astype(dtype)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def _tracks(datasets: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return x, y and score of each node of each track, by ``track/node.x``."""
    tracks = datasets["tracks"].read()  # (tracks, 2, nodes, frames)
    nodes, names = (
        [n.decode() if isinstance(n, bytes) else str(n) for n in datasets[k].read()]
        for k in ("node_names", "track_names")
    )
    names = names or [f"track{i}" for i in range(len(tracks))]
    scores = datasets.get("point_scores")
    score = None if scores is None else scores.read()
    found: dict[str, NDArray[Any]] = {}
    frames = np.arange(tracks.shape[-1], dtype="f8")
    for i, track in enumerate(names):
        found[f"{track}/t"] = frames
        for k, node in enumerate(nodes):
            for axis, letter in enumerate("xy"):
                found[f"{track}/{node}.{letter}"] = tracks[i, axis, k]
            if score is not None:
                found[f"{track}/{node}.score"] = score[i, k]
    return found
