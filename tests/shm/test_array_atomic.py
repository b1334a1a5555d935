"""add, compare_exchange and update: all at once or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import workers
from programs import Program

from ataraxis import SharedMemoryArray

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "q", "Q", ">i4", ">u8"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "f2", "f4", "f8", "c8", "c16", ">f8"])
def test_add_gives_and_stores_the_sum(dtype: str) -> None:
    with SharedMemoryArray.create_array("x", np.arange(4, dtype=dtype)) as array:
        new = array.add(2, 5)
        assert new == 7
        assert isinstance(new, array.dtype.type)
        assert array[...].tolist() == [0, 1, 7, 3]
        assert array.add(-1, array.dtype.type(1)) == 4


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_add_that_overflows_changes_nothing(dtype: str) -> None:
    limits = np.iinfo(dtype)
    plain = np.array([limits.max, limits.min], dtype)
    with SharedMemoryArray.create_array("x", plain) as array:
        version = array.version
        with pytest.raises(OverflowError):
            array.add(0, 1)
        with pytest.raises((OverflowError, ValueError)):
            array.add(1, -1)
        assert array[...].tolist() == plain.tolist()
        assert array.version == version
        assert array.lock.acquire(timeout=0)
        array.lock.release()


@pytest.mark.parametrize("amount", [0.5, 2**70, "1", None, 1j, float("nan")])
def test_an_amount_that_does_not_fit_is_refused(amount: Any) -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        with pytest.raises(ValueError, match="x"):
            array.add(0, amount)
        assert array[...].tolist() == [0, 1, 2]


@pytest.mark.parametrize("index", [3, -4, (0, 0), 2**70])
def test_an_add_out_of_range_is_an_index_error(index: Any) -> None:
    with (
        SharedMemoryArray.create_array("x", np.arange(3)) as array,
        pytest.raises(IndexError),
    ):
        array.add(index, 1)


def test_add_reaches_one_element_of_an_nd_array() -> None:
    with SharedMemoryArray.create_array("x", np.zeros((2, 3))) as array:
        assert array.add((1, -1), 2.5) == 2.5
        assert array[...].tolist() == [[0, 0, 0], [0, 0, 2.5]]


def test_add_works_on_a_0d_array() -> None:
    with SharedMemoryArray.create_array("x", np.array(3)) as array:
        assert array.add((), 4) == 7
        assert array[()] == 7


def test_add_takes_numpys_other_index_forms_at_once() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        assert array.add(slice(1, 3), 10).tolist() == [11, 12]
        assert array[...].tolist() == [0, 11, 12, 3]


def test_compare_exchange_writes_only_where_expected() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        assert array.compare_exchange(1, 1, 10) is True
        assert array.compare_exchange(1, 1, 20) is False
        assert array[...].tolist() == [0, 10, 2]


def test_compare_exchange_reaches_one_element_of_an_nd_array() -> None:
    with SharedMemoryArray.create_array("x", np.zeros((2, 2), "f4")) as array:
        assert array.compare_exchange((0, 1), 0.0, 2.5)
        assert array[...].tolist() == [[0, 2.5], [0, 0]]


def test_compare_exchange_refuses_what_does_not_fit() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3, dtype="u1")) as array:
        for desired in (256, -1, 0.5, None):
            with pytest.raises(ValueError, match="x"):
                array.compare_exchange(0, 0, desired)
        with pytest.raises(IndexError):
            array.compare_exchange(3, 0, 1)
        assert array.compare_exchange(0, 256, 1) is False
        assert array[...].tolist() == [0, 1, 2]


def test_update_replaces_all_or_some_elements_by_a_function_of_them() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        assert array.update(lambda old: old * 2).tolist() == [0, 2, 4, 6]
        assert array.update(lambda old: old + 1, 3) == 7
        assert array.update(lambda old: old[::-1], slice(0, 3)).tolist() == [4, 2, 0]
        assert array[...].tolist() == [4, 2, 0, 7]


def test_a_function_that_raises_leaves_the_array_as_it_was() -> None:
    def spoil(old: np.ndarray) -> np.ndarray:
        old[:] = -1
        raise KeyError("spoilt")

    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        version = array.version
        with pytest.raises(KeyError, match="spoilt"):
            array.update(spoil)
        assert array[...].tolist() == [0, 1, 2, 3]
        assert array.version == version
        assert not array.lock.is_held


def test_an_update_that_does_not_fit_leaves_the_array_as_it_was() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        for function in (lambda a: a + 0.5, lambda a: a[:2], lambda a: None):
            with pytest.raises(ValueError, match="x"):
                array.update(function)
        assert array[...].tolist() == [0, 1, 2, 3]
        assert array.update(lambda a: a + 0.5, casting="unsafe").tolist() == [
            0,
            1,
            2,
            3,
        ]


def test_the_function_of_an_update_may_use_the_array_itself() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        array.update(lambda old: old + array[3])
        assert array[...].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("how", "dtype"),
    [("add_many", "i8"), ("add_many", ">i8"), ("increment_under_lock", "i8")],
)
def test_no_increment_of_two_processes_is_lost(how: str, dtype: str) -> None:
    """Flaw 3: 2 x 5000 "locked" increments gave 6571."""
    times = 3000
    program = f"""
        import workers
        from ataraxis import attach
        array = attach("x")
        print("ready", flush=True)
        input()
        workers.{how}(array, {"0, " if how == "add_many" else ""}{times})
        """
    with (
        SharedMemoryArray.create_array("x", np.zeros(1, dtype)) as array,
        Program(program) as one,
        Program(program) as two,
    ):
        one.expect("ready")
        two.expect("ready")
        one.tell()
        two.tell()
        arguments = (0, times) if how == "add_many" else (times,)
        getattr(workers, how)(array, *arguments)
        one.succeed()
        two.succeed()
        array.connect()
        assert array[0] == 3 * times
