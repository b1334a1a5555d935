"""Recordings in tables: CSV and Parquet, one file per recording."""

from __future__ import annotations

import collections
import csv
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.recording import check_fields
from ataraxis.datamux.sources.pieces import opened_or_packed
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}|$)")
_ZONE = re.compile(r"(?<=\d)(?:Z|([+-])(\d{2}):?(\d{2}))$")
_TRUE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Csv(SuffixFormat):
    """``csv://{a}_{b}``: a header line, then one row per sample, UTF-8.

    Columns are read in their declared dtypes; an empty cell of a float column is NaN.
    Times may also be dates, ISO 8601, UTC unless they say otherwise. ``a_b.csv.gz`` is
    unpacked first.
    """

    suffix = ".csv"

    def keys(self, folder: Folder) -> list[tuple[str, Mapping[str, Any]]]:
        """List the files, also in sub-folders."""
        return sorted(
            {
                key: (key, a) for s in (".csv", ".csv.gz") for key, a in folder.files(s)
            }.values(),
            key=lambda k: k[0],
        )

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns that the stream declares."""
        with opened_or_packed(folder, f"{key}.csv", ".gz") as opened:
            return _read(opened, stream)


def _read(opened: OpenedFile, stream: Stream) -> Mapping[str, NDArray[Any]]:
    header = _header(opened)
    check_fields(stream, header, opened.shown)
    wanted = {
        name: _parsed_as(name, stream)
        for name in header
        if name in stream.fields or name in stream.index or name == stream.time
    }
    if not wanted:
        return {}
    places = {name: at for at, name in enumerate(header)}
    for name in wanted:
        is_index = name not in stream.fields
        if is_index and wanted[name].kind == "f" and _is_dates(opened, places[name]):
            wanted[name] = np.dtype("M8[ns]")
    are_numbers = all(dtype.kind in "fiu" for dtype in wanted.values())
    if are_numbers and _are_rows_whole(opened, len(header)):
        row = np.dtype([(str(i), dtype) for i, dtype in enumerate(wanted.values())])
        try:
            with _text(opened) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a file without rows
                table = np.loadtxt(
                    file, row, delimiter=",", skiprows=1,
                    usecols=[places[name] for name in wanted],
                    comments=None, ndmin=1, quotechar='"',
                )  # fmt: skip
        except (ValueError, UnicodeDecodeError, OverflowError):
            pass  # read again cell by cell, to name or accept the cell
        else:
            columns = {name: table[str(i)] for i, name in enumerate(wanted)}
            if not any(map(_is_unsure, columns.values())):
                return columns
    return _slowly(opened, len(header), places, wanted)


def _is_dates(opened: OpenedFile, place: int) -> bool:
    """Return whether the first row has a date in a column."""
    with _text(opened) as file:
        try:
            rows = csv.reader(file)
            next(rows, None)
            row = next((row for row in rows if row), [])
        except (UnicodeDecodeError, csv.Error):
            return False
    return len(row) > place and bool(_DATE.match(row[place].strip()))


def _date(text: str) -> np.datetime64:
    """Return a date in UTC; ValueError if it is not ISO 8601."""
    zone = _ZONE.search(text)
    if zone is None:
        return np.datetime64(text, "ns")
    ahead = np.timedelta64(0, "m")
    if zone[1]:
        minutes = int(zone[2]) * 60 + int(zone[3] or 0)
        ahead = np.timedelta64(-minutes if zone[1] == "-" else minutes, "m")
    return np.datetime64(text[: zone.start()], "ns") - ahead


def _are_rows_whole(opened: OpenedFile, width: int) -> bool:
    """Whether each row has as many commas as the header, also within quotes."""
    with _text(opened) as file:
        next(file, None)
        try:
            return all(
                line.count(",") == width - 1 or not line.strip() for line in file
            )
        except UnicodeDecodeError:
            return False


def _is_unsure(column: NDArray[Any]) -> bool:
    """Whether numbers may differ from the text, so that cells must be read one by one.

    A number too large for the dtype becomes infinite, and an integer with a decimal
    point is read as a float.
    """
    if column.dtype.kind == "f":
        return bool(np.isinf(column).any())
    return bool((column > 2**53).any() or (column < -(2**53)).any())


@contextmanager
def _text(opened: OpenedFile) -> Iterator[io.TextIOWrapper]:
    """Read the file as text from its start; the file stays open."""
    opened.file.seek(0)
    text = io.TextIOWrapper(opened.file, encoding="utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()


def _parsed_as(name: str, stream: Stream) -> np.dtype[Any]:
    field = stream.fields.get(name) or stream.index.get(name)
    dtype = np.dtype("f8") if field is None else field.numpy_dtype
    # DFDS often declares times as float32, which would lose digits of the text.
    return np.dtype("f8") if name not in stream.fields and dtype.kind == "f" else dtype


def _header(opened: OpenedFile) -> list[str]:
    where = opened.shown
    try:
        with _text(opened) as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{where}: not CSV text: {error}") from error
    if not names:
        raise RecordingError(f"{where}: empty file: expected a line of column names")
    if len(names) > FILES.columns:
        raise RecordingError(
            f"{where}:1: {len(names)} columns, at most {FILES.columns} are read"
        )
    # A spreadsheet leaves columns without a name behind its own.
    named = collections.Counter(name for name in names if name)
    twice = sorted(name for name, count in named.items() if count > 1)
    if twice:
        raise RecordingError(f"{where}: duplicate column names: {twice[:20]}")
    return names


_ROWS = 4096
_DIGITS = 25  # more than a 64-bit integer has


def _slowly(
    opened: OpenedFile,
    width: int,
    places: Mapping[str, int],
    wanted: Mapping[str, np.dtype[Any]],
) -> dict[str, NDArray[Any]]:
    """Read cell by cell; raise for the first wrong one."""
    where = opened.shown
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted}
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    columns = [(name, dtype, places[name]) for name, dtype in wanted.items()]

    def pack() -> None:
        """Convert the cells to arrays: lists of objects are many times larger."""
        for name, dtype in wanted.items():
            try:
                made = np.array(cells[name], dtype if dtype.kind != "S" else None)
            except OverflowError as error:
                raise RecordingError(f"{where}: {name!r}: {dtype}: {error}") from error
            if made.dtype.kind in "US":
                _check_text(opened, name, [*pieces[name], made])
            pieces[name].append(made)
            cells[name] = []

    with _text(opened) as file:
        reader = csv.reader(file)
        try:
            next(reader)
            for rows, row in enumerate(reader, 1):
                if not row:
                    continue
                if len(row) != width:
                    raise RecordingError(
                        f"{where}:{reader.line_num}: {len(row)} cells, the header has "
                        f"{width}"
                    )
                for name, dtype, place in columns:
                    text = row[place].strip()
                    cells[name].append(_cell(text, dtype, where, reader.line_num, name))
                if rows % _ROWS == 0:
                    pack()
        except (UnicodeDecodeError, csv.Error) as error:
            raise RecordingError(f"{where}:{reader.line_num}: {error}") from error
    pack()
    return {
        name: found[0] if len(found) == 1 else np.concatenate(found)
        for name, found in pieces.items()
    }


def _check_text(opened: OpenedFile, name: str, pieces: list[NDArray[Any]]) -> None:
    """Raise if padding all rows to the longest cell needs too much memory."""
    widest = max(piece.dtype.itemsize for piece in pieces)
    rows = sum(len(piece) for piece in pieces)
    if widest * rows > FILES.allowed(opened.size):
        raise RecordingError(
            f"{opened.shown}: column {name!r}: {rows} rows padded to the longest cell "
            f"({widest} bytes) are over {FILES.expansion} times the file's size"
        )


def _cell(text: str, dtype: np.dtype[Any], where: str, line: int, name: str) -> Any:
    try:
        if dtype.kind == "f":
            number = float(text) if text else math.nan
            with np.errstate(over="ignore"):
                is_infinite = np.isinf(dtype.type(number))
            if is_infinite and "inf" not in text.lower():
                raise ValueError
            return number
        if dtype.kind in "iu":
            try:
                return int(text)
            except ValueError:
                exact = Decimal(text)
                if exact.adjusted() < _DIGITS and exact == exact.to_integral_value():
                    return int(exact)
                raise
        if dtype.kind == "b":
            return _TRUE[text.lower()]
        if dtype.kind == "M":
            return _date(text)
    except (ValueError, KeyError, OverflowError, InvalidOperation):
        raise RecordingError(
            f"{where}:{line}: column {name!r}: expected {dtype}, found {text[:200]!r}"
        ) from None
    return text.encode() if dtype.kind == "S" else text


class Parquet(SuffixFormat):
    """``parquet://{a}_{b}``: one row per sample; needs pyarrow."""

    suffix = ".parquet"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns that the stream declares."""
        if not folder.is_there(f"{key}.parquet"):
            raise folder.not_there(f"{key}.parquet")
        parquet = need("pyarrow.parquet", "tables", "a Parquet recording")
        with folder.opened(f"{key}.parquet") as opened:
            try:
                return _parquet(parquet, opened, stream)
            except RecordingError:
                raise
            except Exception as error:  # Arrow raises many kinds
                raise RecordingError(
                    f"{opened.shown}: not a Parquet file, or damaged: {error}"
                ) from error


def _parquet(
    parquet: Any, opened: OpenedFile, stream: Stream
) -> Mapping[str, NDArray[Any]]:
    file = parquet.ParquetFile(
        opened.file, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20
    )
    metadata = file.metadata
    check_fields(stream, file.schema_arrow.names, opened.shown)
    names = [
        name
        for name in file.schema_arrow.names
        if name in stream.fields or name in stream.index or name == stream.time
    ]
    if metadata.num_columns > FILES.columns:
        raise RecordingError(
            f"{opened.shown}: {metadata.num_columns} columns, at most {FILES.columns} "
            "are read"
        )
    packed = sum(
        group.column(i).total_uncompressed_size
        for group in map(metadata.row_group, range(metadata.num_row_groups))
        for i in range(metadata.num_columns)
    )
    opened.check(max(packed, metadata.num_rows * 8 * len(names)), "the table")
    table = file.read(columns=names, use_threads=False)
    made = {}
    for name in table.column_names:
        column = table.column(name)
        opened.check(column.nbytes, f"column {name!r}")
        made[name] = _plain(column.to_numpy(), opened, name)
    return made


def _plain(column: NDArray[Any], opened: OpenedFile, name: str) -> NDArray[Any]:
    """Convert text, which Arrow returns as objects, to a NumPy dtype."""
    if column.dtype != object:
        return column
    values = column.tolist()
    widest = max((len(v) for v in values if isinstance(v, (str, bytes))), default=1)
    opened.check(4 * widest * len(values), f"column {name!r}")
    return np.array(values)
