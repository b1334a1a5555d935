"""A contract suite for formats of recordings: equal to their reference readers.

Subclass `RecordingContract` for each format, in a module that pytest collects.
"""

from __future__ import annotations

import abc
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.block import Block
from ataraxis.datamux.formats import open_recordings
from ataraxis.datamux.recording import Recording
from ataraxis.errors import RecordingError

__all__ = ["RecordingContract", "Referred"]

GARBAGE = bytes(range(256)) * 64


class Referred(NamedTuple):
    """What the reference reader of a format gives."""

    values: NDArray[Any]
    """Shape (n, channels), or (n, height, width) of images."""
    t: NDArray[np.float64]
    """Times, s, shape (n,)."""
    units: tuple[str, ...] = ()
    """Units of the channels; empty: not compared."""


class RecordingContract(abc.ABC):
    """What holds for every format of recordings.

    A file must be written by the format's own writer, or another program's, and read by
    its reference reader: `write` and `read_reference`. A format that only a collection
    describes overrides `open`; one whose values are not an array, `values`.

    Attributes
    ----------
    suffix : str
        Of the file, or folder.
    stream : str
        Name of the stream of the values.
    dtype : str
        Of the values that `write` gets.
    rate_hz : float
        Samples a second.
    channels : int
        How many channels are written.
    formats : tuple of str
        What the class stands for: formats of a collection's pattern, suffixes of
        files, and suffixes of a file in a folder.
    keeps_names, has_empty, has_one, can_grow : bool
        Whether the format can hold equal names, no sample, a single one, and any
        other number of them.
    is_text : bool
        Whether a number that is cut is another number: the last sample of a file that
        was cut is not compared.
    has_damage : bool
        Whether bytes of something else can be told from values.
    tolerance : float
        Largest difference of values, of a format that is lossy; of times it is 1 ns.
    """

    suffix: ClassVar[str]
    formats: ClassVar[tuple[str, ...]] = ()
    stream: ClassVar[str] = "signals"
    dtype: ClassVar[str] = "i2"
    rate_hz: ClassVar[float] = 250.0
    channels: ClassVar[int] = 3
    samples: ClassVar[int] = 1000
    keeps_names: ClassVar[bool] = False
    has_empty: ClassVar[bool] = True
    has_one: ClassVar[bool] = True
    can_grow: ClassVar[bool] = True
    is_text: ClassVar[bool] = False
    has_damage: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0

    @abc.abstractmethod
    def write(self, path: Path, names: list[str], values: NDArray[Any]) -> None:
        """Write values, shape (n, channels), at `rate_hz`."""

    @abc.abstractmethod
    def read_reference(self, path: Path) -> Referred:
        """Read a file with the format's reference reader."""

    def open(self, path: Path) -> Mapping[str, Recording]:
        """Open the streams of a file; `open_recordings`, of one that describes itself.

        A format that only a collection describes opens it by one.
        """
        return open_recordings(path)

    def values(self, block: Block) -> NDArray[Any]:
        """Return what is compared with the reference; the array of the channels."""
        return np.asarray(block.array)

    def path_in(self, folder: Path, stem: str) -> Path:
        """Return where `write` writes."""
        return folder / f"{stem}{self.suffix}"

    def file_of_values(self, path: Path) -> Path:
        """Return the file that the tests cut: of a folder its largest."""
        if not path.is_dir():
            return path
        files = (own for own in path.rglob("*") if own.is_file())
        return max(files, key=lambda own: own.stat().st_size)

    def write_beside(self, path: Path, values: NDArray[Any]) -> str:
        """Write values, and beside them a stream that cannot be read.

        Returns the name of the latter, or "" of a format that holds one stream.
        """
        return ""

    # ---- the tests

    def _made(self, folder: Path, n: int, names: list[str] | None = None) -> Path:
        path = self.path_in(folder, "made")
        values = self._some(n)
        self.write(path, names or [f"c{i}" for i in range(self.channels)], values)
        return path

    def _some(self, n: int) -> NDArray[Any]:
        info = np.iinfo(self.dtype) if np.dtype(self.dtype).kind in "iu" else None
        source = np.random.default_rng(7)
        values: NDArray[Any]
        if info is None:
            values = source.normal(size=(n, self.channels)).astype(self.dtype)
        else:
            low, high = max(info.min, -30_000), min(info.max, 30_000)
            values = source.integers(low, high, (n, self.channels)).astype(self.dtype)
        return values

    def _compare(self, path: Path) -> Recording:
        expected = self.read_reference(path)
        recording = self.open(path)[self.stream]
        block = recording.read()
        assert len(recording) == len(expected.t), "number of samples"
        found = self.values(block).reshape(expected.values.shape)
        if self.tolerance:
            np.testing.assert_allclose(found, expected.values, 0, self.tolerance)
        else:
            np.testing.assert_array_equal(found, expected.values)
        np.testing.assert_allclose(recording.t, expected.t, 0, 1e-9)
        np.testing.assert_array_equal(block.t, recording.t)
        if expected.units:
            stream = recording.stream
            units = [f.unit or stream.unit for f in stream.fields.values()]
            assert units == list(expected.units)
        return recording

    def test_it_is_equal_to_the_reference_reader(self, tmp_path: Path) -> None:
        """Values, times, units and the number of samples are equal."""
        self._compare(self._made(tmp_path, self.samples))

    def test_any_part_is_a_part_of_the_whole(self, tmp_path: Path) -> None:
        """What `read` gives of some samples is what it gives of all."""
        path = self._made(tmp_path, self.samples)
        recording = self.open(path)[self.stream]
        whole = np.array(self.values(recording.read()))
        n = len(recording)
        parts = [(0, 1), (n - 1, n), (n // 3, n // 2), (5, 5), (n, n + 5)]
        some = np.random.default_rng(5).integers(0, n, 20).tolist()
        parts += [(at, at + long) for at in some for long in (1, 2, 7)]
        for start, stop in parts:
            part = recording.read(start, stop)
            np.testing.assert_array_equal(self.values(part), whole[start:stop])
            np.testing.assert_array_equal(part.t, recording.t[start:stop])
            assert len(part) == len(part.t) == len(whole[start:stop])

    def test_equal_names_keep_every_channel(self, tmp_path: Path) -> None:
        """Of channels that share a name, none is lost."""
        if not self.keeps_names:
            raise SkipTest("the format cannot hold equal names")
        path = self._made(tmp_path, 50, ["same"] * self.channels)
        assert len(self._compare(path).stream.fields) == self.channels

    def test_one_sample(self, tmp_path: Path) -> None:
        """A recording of one sample is one."""
        if not self.has_one:
            raise SkipTest("the format cannot hold one sample")
        self._compare(self._made(tmp_path, 1))

    def test_no_sample(self, tmp_path: Path) -> None:
        """A recording without samples is empty, or refused with its name."""
        if not self.has_empty:
            raise SkipTest("the format cannot hold no sample")
        path = self._made(tmp_path, 0)
        try:
            recording = self.open(path)[self.stream]
        except RecordingError as error:
            assert path.name in str(error)
        else:
            assert len(recording) == 0

    def test_a_cut_file_gives_no_wrong_value(self, tmp_path: Path) -> None:
        """Cut anywhere, it is refused with its name, or what is left is right."""
        path = self._made(tmp_path, self.samples)
        cut = self.file_of_values(path)
        whole = cut.read_bytes()
        recording = self.open(path)[self.stream]
        names = [*recording.stream.fields]
        expected = np.array(self.values(recording.read()))
        for share in (0.1, 0.5, 0.9, 0.999):
            cut.unlink()  # the file may be mapped
            cut.write_bytes(whole[: int(len(whole) * share)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    block = self.open(path)[self.stream].read()
                except (RecordingError, KeyError, ValueError) as error:
                    assert path.stem in str(error) or isinstance(error, KeyError)
                    continue
            found = self.values(block)[: -1 if self.is_text else None]
            left = expected[: len(found)]
            if found.shape[1:] != left.shape[1:]:  # a file a channel, one without
                left = left[:, [names.index(name) for name in block.stream.fields]]
            np.testing.assert_array_equal(found, left)

    def test_a_file_of_something_else_is_refused_with_its_name(
        self, tmp_path: Path
    ) -> None:
        """Bytes that are not of the format raise `RecordingError`."""
        if not self.has_damage or self._made(tmp_path, self.samples).is_dir():
            raise SkipTest("any bytes may be values")
        (tmp_path / "b").mkdir()
        path = self.path_in(tmp_path / "b", "other")
        path.write_bytes(GARBAGE)
        try:
            found = self.open(path)
        except (RecordingError, ValueError) as error:
            assert path.stem in str(error)
        else:
            raise AssertionError(f"garbage was read as {[*found]}")

    def test_a_stream_that_cannot_be_read_spoils_no_other(self, tmp_path: Path) -> None:
        """It is left out with a warning, and raises when it is asked for."""
        path = self.path_in(tmp_path, "made")
        bad = self.write_beside(path, self._some(50))
        if not bad:
            raise SkipTest("the format holds one stream")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.open(path)
        assert any(f"{bad!r} is left out" in str(w.message) for w in caught)
        values = self.values(found[self.stream].read())
        np.testing.assert_array_equal(values, self.read_reference(path).values)
        try:
            found[bad]
        except RecordingError as error:
            assert path.name in str(error)
        else:
            raise AssertionError(f"{bad!r} was read")

    def test_a_file_that_grew_is_read_anew(self, tmp_path: Path) -> None:
        """A second opening sees what was written since the first."""
        if not self.can_grow:
            raise SkipTest("the format holds whole blocks of samples")
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        path = self._made(tmp_path / "a", 20)
        first = self.open(path)[self.stream]
        assert len(first) == 20
        self._made(tmp_path / "b", 60)
        shutil.rmtree(tmp_path / "a")
        shutil.copytree(tmp_path / "b", tmp_path / "a")
        assert len(self._compare(path)) == 60
