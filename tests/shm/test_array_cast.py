"""What may be written: values that stay what they were, unless casting= allows more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ids import plain

from ataraxis import SharedMemoryArray

NAN, INF = float("nan"), float("inf")
LOSSY = [
    ("u8", -1),
    ("u8", np.array([-1, 0])),
    ("u8", [-1, 0]),
    ("u8", 3.7),
    ("u8", 2**64),
    ("u8", 2**70),
    ("u8", 2.0**64),
    ("i8", 2**63),
    ("i8", 2.0**63),
    ("i8", NAN),
    ("i8", np.array([NAN, 1.0])),
    ("i8", INF),
    ("i8", 3.7),
    ("i8", np.float32(0.5)),
    ("i8", 1 + 2j),
    ("i1", 128),
    ("i1", -129),
    ("i2", np.int64(40000)),
    ("u1", 256),
    ("u1", np.array([1, 300])),
    ("u4", 2**32),
    ("?", 2),
    ("?", 0.5),
    ("?", -1),
    ("f4", 1e300),
    ("f2", 70000),
    ("f8", 1 + 2j),
    ("f8", 10**400),
    ("f8", 2**53 + 1),
    ("f8", np.array([0, 2**63 - 1])),
    ("f4", [2**24 + 1, 0]),
    ("c8", 1e300),
    ("U1", "hello"),
    ("U2", np.array(["ab", "cde"])),
    ("S2", b"abc"),
    ("i8", "5"),
    ("i8", "hello"),
    ("i8", None),
    ("f8", None),
    ("f8", "1.5"),
    ("i8", object()),
    ("U3", 5),
    ("i8", np.datetime64(5, "ns")),
    ("M8[D]", np.datetime64("2024-05-01T12:00", "m")),
    ("M8[D]", np.array(["2024-05-01T12:00", "2024-05-02"], "M8[m]")),
    ("M8[D]", "2024-05-01T12:00"),
    ("m8[s]", np.timedelta64(1500, "ms")),
    ("M8[ns]", 1.5),
    ("i8", [[1, 2], [3]]),
]
KEPT = [
    ("u8", 7, 7),
    ("u8", [10, 11], [10, 11]),
    ("u8", (10, 11), [10, 11]),
    ("u8", 2**64 - 1, 2**64 - 1),
    ("u8", 3.0, 3),
    ("u8", True, 1),
    ("i8", -(2**63), -(2**63)),
    ("i1", np.array([127, -128]), [127, -128]),
    ("i1", np.array([1.0, -1.0]), [1, -1]),
    ("u1", np.uint64(255), 255),
    ("?", 1, True),
    ("?", [0, 1], [False, True]),
    ("f4", 0.1, float(np.float32(0.1))),
    ("f4", np.array([0.1, INF]), [float(np.float32(0.1)), INF]),
    ("f4", INF, INF),
    ("f4", [2**24, 2**30], [2.0**24, 2.0**30]),
    ("f8", np.array([2**63, 0], "u8"), [2.0**63, 0.0]),
    ("f8", 3, 3.0),
    ("f8", np.float32(0.5), 0.5),
    ("f2", 0.5, 0.5),
    ("c16", 1.5, 1.5 + 0j),
    ("c16", 1 + 2j, 1 + 2j),
    ("f8", 1 + 0j, 1.0),
    ("U5", "hello", "hello"),
    ("U5", ["a", "bcd"], ["a", "bcd"]),
    ("S3", b"ab", b"ab"),
    (">i4", 5, 5),
    (">f8", [1.5, 2], [1.5, 2.0]),
]


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("with_lock", [True, False])
@pytest.mark.parametrize(("dtype", "value"), LOSSY, ids=plain)
def test_values_that_would_change_are_refused_and_nothing_is_written(
    dtype: str, value: Any, with_lock: bool
) -> None:
    """Flaw 11: -1 became 2**64 - 1, NaN 2**63, 3.7 3, "hello" "h"; or TypeError."""
    plain = np.zeros(2, dtype)
    index: Any = (0,) if np.ndim(np.array(value, object)) else 0
    with SharedMemoryArray.create_array("x", plain) as array:
        with pytest.raises(ValueError, match="x"):
            array.write_data(index, value, with_lock)
        with pytest.raises(ValueError, match="x"):
            array[slice(None) if index == (0,) else 0] = value
        with pytest.raises(ValueError, match="x"):
            array[...] = value
        same(array[...], plain)


@pytest.mark.parametrize("with_lock", [True, False])
@pytest.mark.parametrize(("dtype", "value", "becomes"), KEPT, ids=repr)
def test_values_that_stay_what_they_were_are_written(
    dtype: str, value: Any, becomes: Any, with_lock: bool
) -> None:
    plain = np.zeros(2, dtype)
    index: Any = (0,) if isinstance(becomes, list) else 0
    with SharedMemoryArray.create_array("x", plain) as array:
        array.write_data(index, value, with_lock)
        assert array.read_data(index, convert_output=True) == becomes
        array[...] = plain
        array[slice(None) if index == (0,) else 0] = value
        assert array.read_data(index, convert_output=True) == becomes
        assert array.dtype == plain.dtype


def test_nan_and_signed_zero_go_into_floats_as_they_are() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3, "f4")) as array:
        array[0] = NAN
        array[1] = -0.0
        array[2] = np.array(NAN)
        assert np.isnan(array[0])
        assert np.isnan(array[2])
        assert np.signbit(array[1])


@pytest.mark.parametrize("index", [(6,), (6, 6), (2, 2), slice(6, None), slice(4, 2)])
@pytest.mark.parametrize("data", [[1], np.arange(6)])
def test_values_for_which_there_is_no_place_are_refused(index: Any, data: Any) -> None:
    with SharedMemoryArray.create_array("a", np.arange(6)) as array:
        with pytest.raises(IndexError, match="selects none of 6"):
            array.write_data(index, data)
        array.write_data(index, [])
        assert array[...].tolist() == [0, 1, 2, 3, 4, 5]


def test_unsafe_casting_allows_what_numpy_allows() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3, "i4")) as array:
        array.write_data((0, 2), [3.7, -1.2], casting="unsafe")
        assert array[...].tolist() == [3, -1, 0]
        array.write_data(2, 2**32 + 5, casting="unsafe")
        assert array[2] == 5


def test_casting_follows_numpys_rules() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(2, "f4")) as array:
        array.write_data((0,), np.array([0.1, 1e300]), casting="same_kind")
        assert array[1] == np.inf
        with pytest.raises(ValueError, match="safe"):
            array.write_data((0,), np.array([0.5, 1.0]), casting="safe")
        with pytest.raises(ValueError, match="casting"):
            array.write_data(0, 1.0, casting="nonsense")
        assert array[0] == np.float32(0.1)


@pytest.mark.parametrize("with_lock", [True, False])
def test_what_does_not_fit_by_shape_is_a_value_error(with_lock: bool) -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        for index, data in [((0, 2), [1, 2, 3]), (0, [1, 2]), ((1,), [[1], [2]])]:
            with pytest.raises(ValueError, match="x"):
                array.write_data(index, data, with_lock)
        assert array[...].tolist() == [0, 1, 2, 3]


def test_text_is_broadcast_whole() -> None:
    """Flaw 11: "xy" over a slice wrote 'x', 'x'."""
    with SharedMemoryArray.create_array("x", np.array(["a", "b", "c"], "U2")) as array:
        array.write_data((0, 2), "xy")
        assert array[...].tolist() == ["xy", "xy", "c"]


def test_empty_data_fit_an_empty_slice() -> None:
    for dtype in ("i4", "f8", "U3", "M8[ns]"):
        with SharedMemoryArray.create_array("x", np.zeros(2, dtype)) as array:
            array.write_data((1, 1), [])
            array[2:] = []
            array[:] = 0 if dtype in ("i4", "f8") else array[...]


# ---- times


def test_times_are_written_in_any_unit_that_loses_nothing() -> None:
    day = np.datetime64("2024-05-01", "D")
    with SharedMemoryArray.create_array("x", np.zeros(3, "M8[ns]")) as array:
        array[0] = "2024-05-01T12:30"
        array[1] = day
        array[2] = np.array(["2024-05-02"], "M8[s]")[0]
        assert array[0] == np.datetime64("2024-05-01T12:30")
        assert array[1] == day
        array[:] = day + np.arange(3).astype("m8[D]")
        assert array[2] == np.datetime64("2024-05-03")


def test_not_a_time_stays_not_a_time() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(2, "M8[ns]")) as array:
        array[0] = np.datetime64("NaT", "ms")
        array[1] = "NaT"
        assert np.isnat(array[...]).all()
        array[:] = ["nat", ""]
        assert np.isnat(array[...]).all()
        array[:] = [None, None]
        assert np.isnat(array[...]).all()
        array[:] = np.array(["2024-05-01", "NaT"], "M8[D]")
        assert np.isnat(array[...]).tolist() == [False, True]


# ---- structured elements

SAMPLE = np.dtype([("t", "i8"), ("xyz", "f4", 3), ("tag", "U2")])


def test_a_field_is_read_and_written_by_its_name() -> None:
    plain = np.zeros(3, SAMPLE)
    with SharedMemoryArray.create_array("x", plain) as array:
        array["t"] = [1, 2, 3]
        array["xyz"] = np.arange(9).reshape(3, 3)
        array["tag"] = "ab"
        assert array["t"].tolist() == [1, 2, 3]
        assert array["xyz"][2].tolist() == [6, 7, 8]
        assert array["tag"].tolist() == ["ab"] * 3
        assert array[1]["t"] == 2


def test_a_lossy_write_to_a_field_is_refused() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3, SAMPLE)) as array:
        for field, value in [("t", 0.5), ("t", 2**63), ("tag", "abc")]:
            with pytest.raises(ValueError, match="x"):
                array[field] = value
        same(array[...], np.zeros(3, SAMPLE))


def test_a_whole_element_is_written_from_a_tuple_or_a_record() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(2, SAMPLE)) as array:
        array[0] = (5, [1, 2, 3], "ab")
        record = array[0]
        assert record["xyz"].tolist() == [1, 2, 3]
        array[1] = record
        assert array[1] == array[0]
        array[:] = np.zeros(2, SAMPLE)
        assert record["t"] == 5


def test_a_tuple_that_would_change_is_refused() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(2, SAMPLE)) as array:
        for value in [(0.5, [1, 2, 3], ""), (5, [1, 2, 3], "abc"), (2**63, 0, "")]:
            with pytest.raises(ValueError, match="x"):
                array[0] = value
            with pytest.raises(ValueError, match="x"):
                array[:] = [value, value]
        same(array[...], np.zeros(2, SAMPLE))
        array[:] = [(1, [1, 2, 3], "a"), (2, 0.5, "b")]
        assert array["xyz"].tolist() == [[1, 2, 3], [0.5] * 3]


def test_some_fields_are_read_and_written_together() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(2, SAMPLE)) as array:
        wanted = np.ones(2, SAMPLE)[["t", "tag"]]
        array[["t", "tag"]] = wanted
        assert array[["t", "tag"]].tolist() == wanted.tolist()
        assert array["xyz"].sum() == 0


def test_a_raw_void_array_goes_both_ways() -> None:
    plain = np.frombuffer(b"abcdefghijklmn", "V7").copy()
    with SharedMemoryArray.create_array("x", plain) as array:
        assert array[...].tobytes() == plain.tobytes()
        array[0] = plain[1]
        assert array[0].tobytes() == b"hijklmn"
