"""Reading and writing: the seed's index forms, and numpy's against numpy itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from laws import examples

from ataraxis import SharedMemoryArray

PLAIN = np.arange(10, 20, dtype="i4")
STRUCTURED = np.dtype([("t", "<i8"), ("xyz", "<f4", 3), ("tag", "S4")])
DTYPES = [
    *("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"),
    *("c8", "c16", ">i4", ">u2", ">f8", ">c8", "q", "Q"),
    *("M8[ns]", "M8[D]", "m8[us]", ">M8[s]", "S5", "U4", ">U3"),
]
# Index of the seed, and what it means to numpy.
SEED_FORMS = {
    0: 0,
    9: 9,
    -1: -1,
    -10: -10,
    (0,): slice(0, None),
    (3,): slice(3, None),
    (10,): slice(10, None),
    (-3,): slice(7, None),
    (-10,): slice(0, None),
    (1, 4): slice(1, 4),
    (0, 10): slice(0, 10),
    (0, 0): slice(0, 0),
    (2, 2): slice(2, 2),
    (10, 10): slice(10, 10),
    (3, 4): slice(3, 4),
    (-5, -2): slice(5, 8),
    (2, -1): slice(2, 9),
    (-10, 10): slice(0, 10),
}


@pytest.mark.parametrize("with_lock", [True, False])
@pytest.mark.parametrize(("index", "means"), SEED_FORMS.items(), ids=str)
def test_read_data_takes_every_form_of_the_seed(
    index: Any, means: Any, with_lock: bool
) -> None:
    """Flaw 10: (0, 0) gave the whole array, one-element slices became scalars."""
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        output = array.read_data(index=index, with_lock=with_lock)
        expected = PLAIN[means]
        assert type(output) is type(expected)
        assert output.dtype == expected.dtype
        np.testing.assert_array_equal(output, expected)
        converted = array.read_data(index, convert_output=True, with_lock=with_lock)
        assert converted == expected.tolist()
        assert type(converted) is (int if isinstance(index, int) else list)


@pytest.mark.parametrize("with_lock", [True, False])
@pytest.mark.parametrize(("index", "means"), SEED_FORMS.items(), ids=str)
def test_write_data_takes_every_form_of_the_seed(
    index: Any, means: Any, with_lock: bool
) -> None:
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        plain = PLAIN.copy()
        data: Any = -5
        if not isinstance(index, int):
            data = list(range(100, 100 + len(plain[means])))
        array.write_data(index=index, data=data, with_lock=with_lock)
        plain[means] = data
        assert array[...].tolist() == plain.tolist()
        array.write_data(index, np.int32(3), with_lock)
        plain[means] = 3
        assert array[...].tolist() == plain.tolist()


@pytest.mark.parametrize("index", [slice(1, 9, 3), ..., np.array([3, 1]), PLAIN > 14])
def test_read_data_and_write_data_also_take_numpys_forms(index: Any) -> None:
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        np.testing.assert_array_equal(array.read_data(index), PLAIN[index])
        array.write_data(index, 0)
        plain = PLAIN.copy()
        plain[index] = 0
        assert array[...].tolist() == plain.tolist()


@pytest.mark.parametrize("integer", [np.int8, np.uint16, np.int64, np.uint64])
def test_numpy_integers_index_as_python_integers_do(integer: type) -> None:
    """Flaw 10: numpy integers were rejected."""
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        assert array.read_data(integer(2)) == 12
        assert array.read_data((integer(2), integer(4))).tolist() == [12, 13]
        assert array[integer(2)] == 12
        array.write_data(integer(2), 5)
        assert array[2] == 5


@pytest.mark.parametrize("index", [10, -11, (11,), (0, 11), (-11,), (-11, 3), 2**70])
def test_positions_out_of_range_are_refused_not_clipped(index: Any) -> None:
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        for with_lock in (True, False):
            with pytest.raises(IndexError):
                array.read_data(index, with_lock=with_lock)
            with pytest.raises(IndexError):
                array.write_data(index, 1, with_lock)
        assert array[...].tolist() == PLAIN.tolist()


@pytest.mark.parametrize(
    "index",
    [(4, 1), (), (1, 2, 3), "1", 1.0, None, True, (True,), (1.0, 2), ("1",), (0, None)],
    ids=repr,
)
def test_forms_the_seed_does_not_have_are_refused(index: Any) -> None:
    """Flaw 10: bool, float and str tuple elements were taken, (0, None) TypeError."""
    with SharedMemoryArray.create_array("x", PLAIN) as array:
        with pytest.raises(ValueError, match="index"):
            array.read_data(index)
        with pytest.raises(ValueError, match="index"):
            array.write_data(index, 1)
        assert array[...].tolist() == PLAIN.tolist()


def test_the_seeds_forms_select_rows_of_an_nd_array() -> None:
    """Flaw 10: no n-d."""
    plain = np.arange(24).reshape(4, 3, 2)
    with SharedMemoryArray.create_array("x", plain) as array:
        np.testing.assert_array_equal(array.read_data(1), plain[1])
        np.testing.assert_array_equal(array.read_data((1, 3)), plain[1:3])
        array.write_data((2,), 0)
        plain[2:] = 0
        assert array.read_data((0,), convert_output=True) == plain.tolist()


@pytest.mark.parametrize("index", [5, -6, 2**70, -(2**70), (0, 0), "x", 1.5, [7]])
def test_bad_indices_raise_what_numpy_raises(index: Any) -> None:
    plain = np.arange(5)
    with pytest.raises(IndexError):
        plain[index]
    with SharedMemoryArray.create_array("x", plain) as array:
        with pytest.raises(IndexError):
            array[index]
        with pytest.raises(IndexError):
            array[index] = 1
        assert array[...].tolist() == plain.tolist()
        assert array.lock.acquire(timeout=0)
        array.lock.release()


def test_a_bad_index_of_a_matrix_raises_what_numpy_raises() -> None:
    plain = np.zeros((2, 3))
    with SharedMemoryArray.create_array("x", plain) as array:
        for index in [(0, 3), (2, 0), (-3, 0), (0, 2**70), (0, 0, 0), (slice(9), 9)]:
            with pytest.raises(IndexError):
                array[index]
            with pytest.raises(IndexError):
                array[index] = 1


def test_what_is_read_is_a_copy() -> None:
    plain = np.zeros((3, 2), STRUCTURED)
    with SharedMemoryArray.create_array("x", plain) as array:
        for index in [(0, 0), 0, slice(None), ..., [0, 1], "t", (slice(None), 1)]:
            output = array[index]
            before = output.copy()
            array[...] = np.ones((3, 2), STRUCTURED)
            np.testing.assert_array_equal(output, before)
            array[...] = plain


def test_a_shape_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    with SharedMemoryArray.create_array("x", np.arange(6).reshape(2, 3)) as array:
        for index, value in [
            (..., np.zeros((3, 2))),
            (slice(0, 1), [1, 2]),
            (0, [1, 2]),
            ((0, 0), [1, 2]),
            ([0, 1], [[1], [2], [3]]),
        ]:
            with pytest.raises(ValueError, match=r"shape|broadcast|sequence"):
                array[index] = value
        assert array[...].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_array_may_be_written_from_its_own_memory() -> None:
    """Overlap is numpy's business: the outcome is as if the source were copied."""
    for move in (slice(1, None), slice(0, -1)), (slice(0, -1), slice(1, None)):
        for size in (5, 1000, 100_000):
            plain = np.arange(size)
            with SharedMemoryArray.create_array("x", plain) as array:
                array[move[0]] = np.asarray(array)[move[1]]
                plain[move[0]] = plain[move[1]].copy()
                np.testing.assert_array_equal(array[...], plain)


def test_an_array_may_be_written_from_its_own_memory_under_the_lock() -> None:
    plain = np.arange(1000)
    with SharedMemoryArray.create_array("x", plain) as array:
        with array.array() as view:
            array[1:] = view[:-1]
        plain[1:] = plain[:-1].copy()
        np.testing.assert_array_equal(array[...], plain)


# ---- numpy as the oracle


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    small = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    many = hnp.array_shapes(min_dims=5, max_dims=8, min_side=0, max_side=2)
    return st.one_of(small, small, many)


@st.composite
def arrays_and_indices(draw: st.DrawFn) -> tuple[np.ndarray, Any]:
    dtype = np.dtype(draw(st.sampled_from([*DTYPES, STRUCTURED])))
    plain = draw(hnp.arrays(dtype, draw(shapes())))
    forms = [hnp.basic_indices(plain.shape, allow_newaxis=True)]
    if plain.ndim:
        forms.append(hnp.arrays("?", plain.shape))
        forms.append(hnp.arrays("?", plain.shape[:1]))
        forms.append(st.lists(st.integers(-4, 4), max_size=3))
        forms.append(st.tuples(*(st.integers(-3, 3) for _ in plain.shape)))
        forms.append(st.integers(-5, 5))
    if plain.ndim and plain.size:
        forms.append(hnp.integer_array_indices(plain.shape))
    return plain, draw(st.one_of(forms))


@given(arrays_and_indices())
@settings(max_examples=examples(300))
def test_reading_is_numpys(case: tuple[np.ndarray, Any]) -> None:
    plain, index = case
    with SharedMemoryArray.create_array("x", plain) as array:
        try:
            expected = plain[index]
        except IndexError:
            with pytest.raises(IndexError):
                array[index]
            return
        output = array[index]
        assert type(output) is type(expected)
        assert output.dtype == expected.dtype
        assert output.shape == expected.shape
        np.testing.assert_array_equal(output, expected)
        if isinstance(output, np.ndarray):
            assert not np.shares_memory(output, np.asarray(array))
            assert output.flags.writeable


@given(arrays_and_indices(), st.data())
@settings(max_examples=examples(300))
def test_writing_is_numpys(case: tuple[np.ndarray, Any], data: st.DataObject) -> None:
    plain, index = case
    with SharedMemoryArray.create_array("x", plain) as array:
        try:
            selected = plain[index]
        except IndexError:
            with pytest.raises(IndexError):
                array[index] = np.zeros((), plain.dtype)
            return
        shape = data.draw(st.sampled_from([(), selected.shape]))
        value = data.draw(hnp.arrays(plain.dtype, shape))
        if data.draw(st.booleans()):
            value = value[()]
        plain = plain.copy()
        plain[index] = value
        array[index] = value
        np.testing.assert_array_equal(array[...], plain)


@pytest.mark.parametrize("size", [3, 8192, 8193, 100_000])
def test_rows_of_every_size_go_both_ways(size: int) -> None:
    plain = np.arange(2 * size, dtype="f8").reshape(2, size)
    with SharedMemoryArray.create_array("x", plain) as array:
        np.testing.assert_array_equal(array[1:], plain[1:])
        array[:1] = plain[1:]
        np.testing.assert_array_equal(array[0], plain[1])
        array[0] = plain[0]
        np.testing.assert_array_equal(array[...], plain)
