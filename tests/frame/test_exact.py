"""Values arrive as they were given, or are refused: every room, every dtype.

The oracle is numpy: a value that a room took must read back equal to what
``np.asarray(value)`` has, a float rounded to the precision that was asked for at most.
"""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st
from laws import examples

from ataraxis import (
    Consumer,
    DataLogger,
    FrameBufferClient,
    FrameBufferServer,
    LogArchive,
    LogPackage,
    MemQ,
    Producer,
    SharedMemoryArray,
)
from ataraxis.datamux import Field, Recording, Stream
from ataraxis.errors import RecordingError
from ataraxis.frame import DType, Frame
from ataraxis.frame._header import PLAIN
from ataraxis.log.journal.writer import JournalWriter

DTYPES = [
    "?", "i1", "u1", "<i2", "<u2", ">i2", ">u2", "<i4", "<u4", ">i4", "<i8", "<u8",
    ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16",
    "S1", "S4", "S9", "<U1", "<U4", ">U4", "<M8[s]", "<M8[ms]", "<M8[ns]", "<M8[D]",
    ">M8[us]", "<m8[s]", "<m8[ns]", "<m8[D]", "V3", [("a", "i2"), ("b", "f4")],
    [("t", "M8[ns]"), ("v", "u1", (2,))],
]  # fmt: skip
VALUES: list[Any] = [
    0, 1, -1, 255, 300, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**30,
    True, 1.0, 1.5, -0.0, 0.1, 1e39, 1e300, math.inf, -math.inf, math.nan, 1 + 2j,
    "a", "abcde", "a\0", "", "ä", b"a", b"ab\0", "2026-11-30", "NaT", None,
    dt.datetime(2026, 11, 30, 1, 2, 3, 456789), dt.date(2500, 1, 1),
    dt.timedelta(microseconds=1), (1, 2.5), (300, 1.0), ("2026-11-30", (1, 2)),
    np.int8(-1), np.uint64(2**64 - 1), np.float32(0.1), np.float64(1e39),
    np.str_("a\0"), np.bytes_(b"b\0"), np.datetime64("2026-11-30T01:02:03.5"),
    np.timedelta64(90, "m"), np.bool_(True), np.complex64(1j), np.longdouble("0.1"),
    np.ma.masked, np.void(b"abc"), np.array((7, 0.5), [("a", "i2"), ("b", "f4")])[()],
]  # fmt: skip
REFUSALS = (TypeError, ValueError, OverflowError, IndexError)


def shapes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Give a value in the ways that programs have it."""
    yield "scalar", value
    yield "list", [value, value]
    if isinstance(value, np.generic) and value.dtype.kind not in "SU":
        yield "array", np.array([value, value])
    elif isinstance(value, bool | int | float | complex):
        with suppress(OverflowError):
            yield "array", np.array([value, value])
        if isinstance(value, int) and abs(value) < 2**63:
            yield "strided", np.array([value, 7, value, 7])[::2]
            yield "swapped", np.array([value, value], ">i8")
            yield "masked", np.ma.array([value, value], mask=[0, 1])


def _has_two(value: Any) -> bool:
    """Return whether it is one of those that `shapes_of` makes of a value."""
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    return isinstance(value, list) or is_array


def is_same(given: Any, found: np.ndarray[Any, Any]) -> bool:
    """Return whether what was read equals what was given, as numpy compares."""
    dtype = found.dtype
    if dtype.names is not None:
        items = [*given] if _has_two(given) else [given]
        rows = found.reshape(-1)
        # One value goes into every field, as numpy has it.
        count = len(dtype.names)
        items = [i if isinstance(i, tuple | np.void) else (i,) * count for i in items]
        return all(
            is_same(part, np.asarray(row[name]))
            for item, row in zip(items, rows, strict=True)
            for name, part in zip(dtype.names, tuple(item), strict=True)
        )
    if dtype.kind in "SU":
        items = given if isinstance(given, list) else np.asarray(given, object).ravel()
        return [*items] == found.reshape(-1).tolist()
    if dtype.kind in "mM":
        # Text and dates in the unit they are given in; integers are in the dtype's.
        items = given if isinstance(given, list) else [given]
        if isinstance(given, np.ndarray):
            items = [*given]
        for item, one in zip(items, found.reshape(-1), strict=True):
            is_time = isinstance(item, np.timedelta64)  # numpy calls it an integer
            if isinstance(item, int | np.integer) and not is_time:
                expected: Any = np.array(int(item)).astype(dtype)
            elif item is None or item in ("NaT", ""):
                expected = np.array("NaT", dtype)
            else:
                expected = np.array(item, f"{dtype.kind}8")
            same = np.isnat(expected) and np.isnat(one)
            if not same and expected != one:
                return False
        return True
    before = np.asarray(given)
    if before.dtype == object:  # integers past 64 bits
        pairs = zip(before.ravel().tolist(), found.ravel().tolist(), strict=True)
        return all(
            np.isfinite(b) and b == complex(b).real and int(complex(b).real) == a
            if not isinstance(b, int)
            else a == b
            for a, b in pairs
        )
    flat = np.broadcast_to(before, found.shape).ravel().tolist()
    for a, b in zip(flat, found.ravel().tolist(), strict=True):
        if a != a:
            same = b != b
        elif isinstance(a, float | complex | np.longdouble) and dtype.kind in "fc":
            rounded = np.array(a, dtype.newbyteorder("="))
            same = bool(rounded == b) and np.isfinite(a) == np.isfinite(b)
            same &= math.copysign(1, complex(a).real) == math.copysign(
                1, complex(b).real
            )
        else:
            same = a == b and not (isinstance(b, bool) and a not in (0, 1))
        if not same:
            return False
    return True


# ---- the rooms: each takes a value in a dtype and gives it back, or raises

Room = Callable[[Any], np.ndarray[Any, Any]]


class Rooms:
    """One of each, of a dtype, with two elements."""

    def __init__(self, dtype: np.dtype[Any], stack: ExitStack) -> None:
        self.dtype = dtype
        zeros = np.zeros(2, dtype)
        self.array = SharedMemoryArray.create_array("exact", zeros)
        stack.callback(self.array.destroy)
        self.producer = Producer("exact-s", shape=(2,), dtype=dtype, buffer_count=4)
        stack.callback(self.producer.unlink)
        self.consumer = stack.enter_context(Consumer("exact-s"))

    def assign(self, value: Any) -> np.ndarray[Any, Any]:
        self.array[...] = value
        return np.array(self.array[...])

    def write_data(self, value: Any) -> np.ndarray[Any, Any]:
        self.array.write_data((0, 2), value)
        return np.array(self.array[...])

    def exchange(self, value: Any) -> np.ndarray[Any, Any]:
        if _has_two(value):
            raise TypeError("one element")
        before = self.array[0]
        if before != before:
            self.array[0] = np.zeros((), self.dtype)
            before = self.array[0]
        assert self.array.compare_exchange(0, before, value)
        return np.array([self.array[0]], self.dtype)

    def send(self, value: Any) -> np.ndarray[Any, Any]:
        self.producer.send(value if _has_two(value) else [value, value])
        return np.array(np.asarray(self.consumer.receive()))

    def send_block(self, value: Any) -> np.ndarray[Any, Any]:
        rows = [value] if _has_two(value) else [[value, value]]
        self.producer.send_block(rows)
        return np.array(self.consumer.receive().array)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_typed_rooms_take_a_value_exactly_or_refuse_it(dtype: Any) -> None:
    wanted = np.dtype(dtype)
    taken = refused = 0
    with ExitStack() as stack:
        rooms = Rooms(wanted, stack)
        for value in VALUES:
            for how, given in shapes_of(value):
                for room in (
                    rooms.assign, rooms.write_data, rooms.exchange, rooms.send,
                    rooms.send_block,
                ):  # fmt: skip
                    try:
                        found = room(given)
                    except REFUSALS:
                        refused += 1
                        continue
                    taken += 1
                    assert found.dtype == wanted
                    is_pair = wanted.names is None and isinstance(given, tuple)
                    both = given
                    if how == "scalar" and found.size == 2 and not is_pair:
                        both = [given, given]
                    assert is_same(both, found), (room.__name__, how, given, found)
    assert taken
    assert refused


CODES = [
    code
    for code in DType
    if code == DType.BOOL or (code.name[0] in "UIFC" and code.name[1:].isdigit())
]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_frames_of_a_code_take_a_value_exactly_or_refuse_it(code: DType) -> None:
    for value in VALUES:
        for how, given in shapes_of(value):
            if how == "list":
                continue
            try:
                frame = Frame.from_value(given, dtype=code)
            except REFUSALS:
                continue
            found = np.asarray(Frame.from_buffer(frame.to_bytes()).value)
            found = found.astype(PLAIN[code][0])
            assert is_same(given, found), (how, given, found)


FIELDS = ["f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]


@pytest.mark.parametrize("declared", [*FIELDS, "bool"])
def test_declared_columns_take_a_value_exactly_or_refuse_it(declared: str) -> None:
    taken = 0
    stream = Stream("s", fields={"x": Field(dtype=declared)}, frequency=1.0)
    for value in VALUES:
        for how, given in shapes_of(value):
            if not isinstance(given, np.ndarray):
                if how == "scalar" or isinstance(value, tuple | np.ma.MaskedArray):
                    continue
                given = np.asarray(given)
            column = given
            try:
                found = Recording.of(stream, {"x": column}).read().values["x"]
            except REFUSALS:
                continue
            taken += 1
            assert is_same(column, np.asarray(found)), (how, given, found)
    assert taken


@pytest.mark.parametrize("null", [None, np.nan, 3])
def test_a_column_of_text_has_only_text(null: Any) -> None:
    stream = Stream("s", fields={"x": Field(dtype="str")}, frequency=1.0)
    column = np.array(["go", null], object)
    with pytest.raises(RecordingError, match=r"'x': str is declared, and row 1 is"):
        Recording.of(stream, {"x": column})


# ---- rooms that keep a value's own dtype


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return (
            isinstance(b, np.ndarray | np.generic)
            and a.dtype == b.dtype
            and np.shape(a) == np.shape(b)
            and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and (a == b or a != a)


def test_a_queue_and_a_journal_give_back_the_very_value(tmp_path: Path) -> None:
    taken = 0
    with (
        MemQ("exact-q", 8, 256) as queue,
        JournalWriter(tmp_path, "exact") as journal,
    ):
        kept = []
        for value in VALUES:
            for _, given in shapes_of(value):
                try:
                    queue.put(given)
                except REFUSALS:
                    with pytest.raises(REFUSALS):
                        journal.log(1, given)
                    continue
                got = queue.get()
                assert _equal(given, got), (given, got)
                journal.log(1, given)
                kept.append(given)
                taken += 1
    with LogArchive(tmp_path) as log:
        assert len(log) == len(kept) == taken
        for given, frame in zip(kept, log, strict=True):
            assert _equal(given, frame.value), (given, frame.value)


def test_a_frame_buffer_and_a_logger_give_back_the_very_array(tmp_path: Path) -> None:
    kept = []
    with (
        FrameBufferServer("exact-f", 2**16),
        FrameBufferClient("exact-f") as client,
        DataLogger(tmp_path, "exact", layout="journal") as logger,
    ):
        for value in VALUES:
            for how, given in shapes_of(value):
                for put in (client.put, lambda v: logger.log(1, v)):
                    try:
                        ticket = put(given)
                    except REFUSALS:
                        continue
                    expected = np.asarray(given)
                    if ticket is None:
                        kept.append(expected)
                    else:
                        found = client.get(ticket)
                        assert _equal(expected, np.asarray(found)), (how, given, found)
                    if expected.dtype.kind in "SU":
                        assert expected.reshape(-1).tolist() == [
                            *np.ravel(np.asarray(given, object))
                        ]
    with LogArchive(logger.output_directory) as log:
        assert len(log) == len(kept) > 0
        for expected, frame in zip(kept, log, strict=True):
            assert _equal(expected, np.asarray(frame.value)), expected


@pytest.mark.parametrize("casting", ["unsafe", "same_kind", "no"])
def test_casting_allows_more_where_it_is_asked_for(casting: str) -> None:
    with (
        Producer("s", shape=(2,), dtype="u1") as producer,
        Consumer("s") as reader,
        Producer("b", 64) as plain,
    ):
        for value, rules in (
            ([300, 1], ("unsafe",)),
            (np.array([300, 1], "u2"), ("unsafe", "same_kind")),
            (np.array([3, 1], "u1"), ("unsafe", "same_kind", "no")),
            (xr.DataArray(np.array([300, 1], "u2")), ("unsafe", "same_kind")),
        ):
            rows: Any = [value]
            if isinstance(value, xr.DataArray):
                rows = value.expand_dims("row")
            for deed in (
                lambda v=value: producer.send(v, casting=casting),
                lambda r=rows: producer.send_block(r, casting=casting),
            ):
                if casting not in rules:
                    with pytest.raises(ValueError, match="does not allow it"):
                        deed()
                    continue
                assert deed()
                found = reader.receive().array.tolist()
                assert found == np.asarray(value).astype("u1").tolist()
        with pytest.raises(TypeError, match="has no dtype"):
            plain.send(b"x", casting=casting)


MIXED = [[2**53 + 1, 0.5], [2**64 - 1, -1], [-(2**53) - 1, 1j], [10**25 + 1, 0.0]]


@pytest.mark.parametrize("value", MIXED, ids=str)
def test_an_integer_beside_others_is_not_made_another(
    value: Any, tmp_path: Path
) -> None:
    with (
        Producer("s", shape=(2,), dtype="f8") as producer,
        Producer("c", shape=(2,), dtype="c16") as complexes,
        SharedMemoryArray.create_array("a", np.zeros(2)) as array,
        FrameBufferServer("f", 4096), FrameBufferClient("f") as client,
        DataLogger(tmp_path, "l") as logger,
    ):  # fmt: skip
        for deed in (
            lambda: producer.send(value),
            lambda: complexes.send(value),
            lambda: producer.send_block([value]),
            lambda: array.__setitem__(..., value),
            lambda: client.put(value),
            lambda: logger.log(1, value),
            lambda: logger.log_block(1, value),
        ):
            with pytest.raises((ValueError, TypeError)):
                deed()
        assert producer.send([2**53, 0.5])
        producer.unlink()
        assert array[...].tolist() == [0, 0]


def test_numbers_beside_text_and_times_are_not_made_such(tmp_path: Path) -> None:
    with (
        SharedMemoryArray.create_array("t", np.zeros(2, "U4")) as texts,
        SharedMemoryArray.create_array("d", np.zeros(2, "m8[ns]")) as times,
        DataLogger(tmp_path, "l") as logger,
    ):
        for deed in (
            lambda: texts.__setitem__(..., [1, "a"]),
            lambda: times.__setitem__(..., [5, np.timedelta64(3, "us")]),
            lambda: logger.log(1, [1, "a"]),
        ):
            with pytest.raises((ValueError, TypeError)):
                deed()
        times[...] = [np.timedelta64(5, "ns"), np.timedelta64(3, "us")]
        assert times[...].view("i8").tolist() == [5, 3000]


def test_times_of_pandas_keep_their_ns() -> None:
    pandas = pytest.importorskip("pandas")
    ns = 1_700_000_000_123_456_789
    with (
        SharedMemoryArray.create_array("d", np.zeros(2, "M8[ns]")) as dates,
        SharedMemoryArray.create_array("t", np.zeros(2, "m8[ns]")) as times,
    ):
        dates[0] = pandas.Timestamp(ns)
        dates[1:] = [pandas.Timestamp(ns + 1)]
        times[...] = [pandas.Timedelta(7), pandas.Timedelta(8)]
        assert dates[...].view("i8").tolist() == [ns, ns + 1]
        assert times[...].view("i8").tolist() == [7, 8]


@pytest.mark.parametrize("names", ["yx", "ab"])
def test_fields_go_by_name(names: str) -> None:
    wanted = [("x", "f8"), ("y", "f8")]
    other = np.array([(1, 2)], [(name, "f8") for name in names])
    with (
        SharedMemoryArray.create_array("r", np.zeros(1, wanted)) as array,
        Producer("s", shape=(1,), dtype=wanted) as producer,
    ):
        for deed in (
            lambda: array.__setitem__(..., other),
            lambda: array.__setitem__(0, other[0]),
            lambda: producer.send(other),
            lambda: producer.send_block([other]),
        ):
            with pytest.raises((ValueError, TypeError)):
                deed()
        assert array[...].tolist() == [(0, 0)]
        assert producer.send_block([[(1, 0.5)]]) == 1
        producer.unlink()


MASKED = [
    np.ma.array([1.0, 999.0], mask=[0, 1]),
    np.ma.masked,
    [np.ma.array([1.0, 9.0], mask=[0, 1]), [1.0, 2.0]],
    [[1.0, np.ma.masked]],
    (np.ma.array([1.0, 9.0]),),
]


@pytest.mark.parametrize("value", MASKED, ids=range(len(MASKED)))
def test_a_mask_is_never_lost(value: Any) -> None:
    with (
        Producer("m", shape=(2,), dtype="f8") as producer,
        Producer("n", 64) as plain,
        SharedMemoryArray.create_array("a", np.zeros(2)) as array,
        FrameBufferServer("f", 4096), FrameBufferClient("f") as client,
        MemQ("q", 4, 64) as queue, tempfile.TemporaryDirectory() as folder,
        DataLogger(folder, "l") as logger,
        JournalWriter(Path(folder) / "j") as journal,
    ):  # fmt: skip
        for deed in (
            lambda: producer.send(value),
            lambda: producer.send_block(value),
            lambda: plain.send(value),
            lambda: array.__setitem__(..., value),
            lambda: array.write_data(..., value),
            lambda: array.update(lambda old: value),
            lambda: SharedMemoryArray.create_array("b", value),
            lambda: client.put(value),
            lambda: queue.put(value),
            lambda: logger.log(1, value),
            lambda: logger.log_block(1, value),
            lambda: journal.log(1, value),
            lambda: journal.log_block(1, value),
        ):
            with pytest.raises(TypeError, match=r"masked array is two|numpy array"):
                deed()
        queue.unlink()
        assert array[...].tolist() == [0, 0]
        assert producer.last_sent_iteration == plain.last_sent_iteration == 0


@pytest.mark.parametrize("cut", [1.5, np.float64(2.5), "1", None])
def test_stamps_and_sources_are_whole_numbers(tmp_path: Path, cut: Any) -> None:
    row = np.zeros((1, 2), "i4")
    with (
        Producer("t", shape=(2,), dtype="i4") as producer,
        MemQ("q", 4, 64) as queue,
        JournalWriter(tmp_path) as journal,
        DataLogger(tmp_path, "l") as logger,
    ):
        deeds: list[Callable[[], Any]] = [
            lambda: producer.send_block(row, step_ns=cut),
            lambda: queue.put(b"", source=cut),
            lambda: journal.log(cut, b""),
            lambda: journal.log_block(1, row, step_ns=cut),
            lambda: logger.log(cut, row),
            lambda: logger.log_block(1, row, step=cut),
        ]
        if cut is not None:
            for word in ("time_ns", "device_time", "device_sequence"):
                stamps = {"device_time": 1, word: cut}
                deeds += [
                    lambda s=stamps: producer.send(row[0], **s),
                    lambda s=stamps: queue.put(b"", **s),
                    lambda s=stamps: journal.log(1, b"", **s),
                    lambda s=stamps: Frame.from_value(b"", **s),
                ]
            deeds += [
                lambda: logger.log(1, row, timestamp=cut),
                lambda: logger.log_block(1, row, timestamp=cut),
                lambda: journal.log(1, b"", sequence=cut),
                lambda: journal.log_block(1, row, sequence=cut),
                lambda: journal.log_block(1, row, time_ns=cut),
                lambda: Frame.from_value(b"", sequence=cut),
                lambda: Frame.from_value(b"", source=cut),
            ]
            if not isinstance(cut, str):
                deeds += [
                    lambda: producer.send_block(row, time_ns=np.array([cut])),
                    lambda: producer.send_block(row, device=np.array([[1, cut]])),
                    lambda: journal.log_block(1, row, time_ns=np.array([cut])),
                    lambda: journal.log_block(
                        1, row, device_time=np.array([1]),
                        device_sequence=np.array([-1]),
                    ),
                ]  # fmt: skip
        for deed in deeds:
            with pytest.raises((TypeError, ValueError)):
                deed()
        queue.unlink()
        assert producer.last_sent_iteration == journal.entries == 0


def test_a_package_takes_a_byte_for_each_bool() -> None:
    package = LogPackage(np.uint8(3), np.uint64(9), np.array([True, False]))
    assert package.data[1].dtype == np.uint8
    assert package.data[1][-2:].tolist() == [1, 0]


# ---- labels

AXES = {"y": [10, 20, 30], "x": list("ab")}


@pytest.fixture
def labelled(context: Path) -> Iterator[tuple[Any, Any, Any]]:
    with (
        SharedMemoryArray.create_array(
            "la", np.zeros((3, 2)), dims=("y", "x"), coords=AXES
        ) as array,
        Producer(
            "ls", shape=(3, 2), dtype="f8", dims=("y", "x"), coords=AXES
        ) as sender,
        Consumer("ls") as reader,
    ):
        yield array, sender, reader


@st.composite
def data_arrays(draw: Any) -> xr.DataArray:
    """Any DataArray with permuted dims, and permuted, missing or extra labels."""
    labels = {
        "y": draw(st.permutations([10, 20, 30])),
        "x": draw(st.permutations(list("ab"))),
    }
    change = draw(st.sampled_from(["none", "none", "other", "fewer", "dim", "bare"]))
    if change == "other":
        labels["y"][draw(st.integers(0, 2))] = 40
    if change == "fewer":
        labels["x"] = labels["x"][:1]
    values = draw(st.permutations(range(6)))[: len(labels["y"]) * len(labels["x"])]
    values = np.array(values, "f8").reshape(len(labels["y"]), len(labels["x"]))
    coords: Any = labels if change != "bare" else {"x": labels["x"]}
    made = xr.DataArray(values, coords, ("y", "x"))
    if change == "dim":
        made = made.rename(y="z")
    return made.transpose(*draw(st.permutations(made.dims)))


@settings(max_examples=examples(200), deadline=None)
@hypothesis.given(value=data_arrays())
def test_a_data_array_goes_by_its_labels_or_is_refused(value: xr.DataArray) -> None:
    fits = set(value.dims) == {"y", "x"} and all(
        sorted(value.indexes[dim]) == AXES[dim] for dim in value.indexes
    )
    with (
        SharedMemoryArray.create_array(
            "la", np.zeros((3, 2)), dims=("y", "x"), coords=AXES
        ) as array,
        Producer(
            "ls", shape=(3, 2), dtype="f8", dims=("y", "x"), coords=AXES
        ) as sender,
        Consumer("ls") as reader,
    ):

        def block() -> None:
            sender.send_block(value.expand_dims("trial"))

        for deed in (
            lambda: sender.send(value),
            block,
            lambda: array.__setitem__(..., value),
            lambda: array.write_data(..., value),
            lambda: array.update(lambda old: value),
        ):
            if not fits:
                with pytest.raises((ValueError, TypeError)):
                    deed()
                continue
            deed()
        if fits:
            wanted = value.transpose("y", "x")
            wanted = wanted.sel({d: AXES[d] for d in value.indexes}).values
            assert np.asarray(reader.receive()).tolist() == wanted.tolist()
            assert reader.receive().array.tolist() == wanted.tolist()
            assert array[...].tolist() == wanted.tolist()
        else:
            assert not array[...].any()
            assert sender.last_sent_iteration == 0


def test_a_data_array_goes_into_a_part_by_the_labels_of_that_part(
    labelled: tuple[Any, Any, Any],
) -> None:
    array = labelled[0]
    row = xr.DataArray([2.0, 1.0], {"x": ["b", "a"]}, ("x",))
    array[1] = row
    assert array[...].tolist() == [[0, 0], [1, 2], [0, 0]]
    array[1:] = row  # for each y
    assert array[...].tolist() == [[0, 0], [1, 2], [1, 2]]
    array[[2, 0], :1] = xr.DataArray([[7.0, 8.0]], {"y": [10, 30]}, ("x", "y"))
    assert array[...].tolist() == [[7, 0], [1, 2], [8, 2]]
    array[:, 1] = xr.DataArray([1.0, 2.0, 3.0], {"y": [30, 10, 20]}, ("y",))
    assert array[...].tolist() == [[7, 2], [1, 3], [8, 1]]
    for index, value in (
        (0, xr.DataArray([1.0, 2.0], {"x": ["a", "c"]}, ("x",))),
        (slice(0, 2), xr.DataArray([1.0, 2.0], {"y": [10, 30]}, ("y",))),
        (0, xr.DataArray([1.0, 2.0], dims=("y",))),
    ):
        with pytest.raises(ValueError, match="was given, the"):
            array[index] = value
    with pytest.raises(TypeError, match=r"give \.values"):
        array[array[...] > 2] = row
    with pytest.raises(TypeError, match=r"give \.values"):  # numpy may move dims
        array[[2, 0], 0] = xr.DataArray([7.0, 8.0], {"y": [10, 30]}, ("y",))
    swapped = xr.DataArray(np.full((2, 3), 5.0), {"x": list("ba")}, ("x", "y"))
    swapped[0] = 6  # of "b"
    before = xr.DataArray(array[...], {"x": list("ab")}, ("y", "x"))[:, ::-1]
    assert array.compare_exchange(..., before, swapped)
    array.add(..., swapped)
    assert array[...].tolist() == [[10, 12]] * 3
    array[...] = [[7, 2], [1, 3], [8, 1]]
    assert array[...].tolist() == [[7, 2], [1, 3], [8, 1]]


def test_an_array_of_a_frame_has_its_dtype_and_shape(context: Path) -> None:
    with (
        Producer("s", shape=(2, 3), dtype="f8") as sender,
        Consumer("s") as reader,
        Producer("b", 64) as plain,
        Consumer("b") as bytes_reader,
    ):
        sender.send(np.full((2, 3), 1.5))
        frame = reader.receive()
        assert np.mean(frame) == 1.5
        assert np.asarray(frame).shape == (2, 3)
        assert not np.asarray(frame).flags.writeable
        assert memoryview(frame).format == "d"
        assert frame.buffer.format == "B"
        assert frame.buffer.tobytes() == bytes(frame)
        assert (
            bytes(frame)
            == np.frombuffer(frame, "u1").tobytes()
            == np.full(6, 1.5).tobytes()
        )
        plain.send(b"\1\2\3")
        raw = bytes_reader.receive()
        assert np.asarray(raw).tolist() == [1, 2, 3]
        assert memoryview(raw).tobytes() == b"\1\2\3" == bytes(raw.buffer)


@pytest.mark.parametrize("dtype", ["<M8[ns]", "V5", [("t", "M8[ns]")], "S3", "<U2"])
def test_an_array_of_what_the_buffer_protocol_does_not_know(dtype: Any) -> None:
    values = np.frombuffer(bytes(range(80)), "u1")
    values = values[: 2 * np.dtype(dtype).itemsize].view(dtype)
    if values.dtype.kind == "U":
        values = np.array(["a", "bc"])
    with (
        Producer("s", shape=(2,), dtype=dtype) as sender,
        Consumer("s") as reader,
        SharedMemoryArray.create_array("a", values) as array,
    ):
        sender.send(values)
        frame = reader.receive()
        for found in (np.asarray(frame), np.asarray(array)):
            assert found.dtype == values.dtype
            assert found.tobytes() == values.tobytes()
        assert bytes(frame) == bytes(frame.buffer) == values.tobytes()
        if values.dtype.kind in "MV":
            with pytest.raises(BufferError, match=r"\.buffer"):
                memoryview(frame)
