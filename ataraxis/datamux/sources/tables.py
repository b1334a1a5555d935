"""Recordings in tables: CSV and Parquet, one file a recording."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Stream
from ataraxis.datamux.formats import files
from ataraxis.datamux.optional import need
from ataraxis.errors import RecordingError

_TRUE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Csv:
    """``csv://{a}_{b}``: a header line, then one row a sample, UTF-8.

    Columns are read in their declared dtypes; an empty cell of a float is NaN.
    """

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List ``*.csv``, also in sub-folders."""
        return files(folder, ".csv")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns that the stream declares."""
        path = folder / f"{key}.csv"
        header = _header(path)
        wanted = {
            name: _parsed_as(name, stream)
            for name in header
            if name in stream.fields or name in stream.index or name == stream.time
        }
        places = [header.index(name) for name in wanted]
        if not wanted:
            return {}
        if all(dtype.kind in "fiu" for dtype in wanted.values()):
            row = np.dtype([(str(i), dtype) for i, dtype in enumerate(wanted.values())])
            try:
                table = np.loadtxt(
                    path, row, delimiter=",", skiprows=1, usecols=places,
                    comments=None, encoding="utf-8-sig", ndmin=1, quotechar='"',
                )  # fmt: skip
            except (ValueError, UnicodeDecodeError, OverflowError):
                pass  # read once more, slowly, to name the cell or forgive it
            else:
                return {name: table[str(i)] for i, name in enumerate(wanted)}
        return _slowly(path, header, wanted)


def _parsed_as(name: str, stream: Stream) -> np.dtype[Any]:
    field = stream.fields.get(name) or stream.index.get(name)
    dtype = np.dtype("f8") if field is None else field.numpy_dtype
    # A time in float32, as much of DFDS declares, would lose what the text says.
    return np.dtype("f8") if name not in stream.fields and dtype.kind == "f" else dtype


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: not CSV text: {error}") from error
    if not names:
        raise RecordingError(f"{path}: an empty file: expected a line of column names")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RecordingError(f"{path}: columns named twice: {sorted(twice)}")
    return names


def _slowly(
    path: Path, header: list[str], wanted: Mapping[str, np.dtype[Any]]
) -> dict[str, NDArray[Any]]:
    """Read cell by cell, and say which one is wrong."""
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader)
        try:
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise RecordingError(
                        f"{path}:{reader.line_num}: {len(row)} cells, the header has "
                        f"{len(header)}"
                    )
                for name, dtype in wanted.items():
                    text = row[header.index(name)].strip()
                    cells[name].append(_cell(text, dtype, path, reader.line_num, name))
        except (UnicodeDecodeError, csv.Error) as error:
            raise RecordingError(f"{path}:{reader.line_num}: {error}") from error
    made = {}
    for name, dtype in wanted.items():
        try:
            made[name] = np.array(cells[name], dtype if dtype.kind != "S" else None)
        except OverflowError as error:
            raise RecordingError(f"{path}: {name!r}: {dtype}: {error}") from error
    return made


def _cell(text: str, dtype: np.dtype[Any], path: Path, line: int, name: str) -> Any:
    try:
        if dtype.kind == "f":
            return float(text) if text else float("nan")
        if dtype.kind in "iu":
            try:
                return int(text)
            except ValueError:
                number = float(text)
                if number.is_integer():
                    return int(number)
                raise
        if dtype.kind == "b":
            return _TRUE[text.lower()]
    except (ValueError, KeyError, OverflowError):
        raise RecordingError(
            f"{path}:{line}: column {name!r}: expected {dtype}, found {text!r}"
        ) from None
    return text.encode() if dtype.kind == "S" else text


class Parquet:
    """``parquet://{a}_{b}``: one row a sample; needs pyarrow."""

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List ``*.parquet``, also in sub-folders."""
        return files(folder, ".parquet")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns that the stream declares."""
        path = folder / f"{key}.parquet"
        if not path.is_file():
            raise FileNotFoundError(2, "no such recording", str(path))
        parquet = need("pyarrow.parquet", "tables", "a Parquet recording")
        arrow = need("pyarrow", "tables", "a Parquet recording")
        try:
            file = parquet.ParquetFile(path)
            names = [
                name
                for name in file.schema_arrow.names
                if name in stream.fields or name in stream.index or name == stream.time
            ]
            table = file.read(columns=names)
            file.close()
        except (arrow.ArrowInvalid, OSError) as error:
            raise RecordingError(f"{path}: not a Parquet file: {error}") from error
        return {
            name: _plain(table.column(name).to_numpy()) for name in table.column_names
        }


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Give text its NumPy dtype; Arrow makes objects of it."""
    return np.array(column.tolist()) if column.dtype == object else column
