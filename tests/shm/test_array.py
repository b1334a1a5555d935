"""What a SharedMemoryArray is: made, described, viewed, iterated, pickled."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import workers

from ataraxis import SharedMemoryArray, attach
from ataraxis.errors import NotConnectedError, SegmentExists


def test_creation_takes_dtype_shape_and_contents_of_the_prototype() -> None:
    prototype = np.arange(6, dtype="u8")
    with SharedMemoryArray.create_array(name="x", prototype=prototype) as array:
        assert array.name == "x"
        assert array.shape == (6,)
        assert array.ndim == 1
        assert array.datatype == array.dtype == np.dtype("u8")
        assert array.is_connected
        prototype[:] = 0
        np.testing.assert_array_equal(array[...], np.arange(6))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3), (1,) * 8, (2,) * 8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_shape_up_to_eight_dimensions_is_kept(
    shape: tuple[int, ...], order: str
) -> None:
    """Flaw 12: 2-d, 0-d and empty prototypes."""
    plain = np.arange(np.prod(shape, dtype=int), dtype="f4").reshape(shape)
    prototype = np.array(plain, order=order)
    with SharedMemoryArray.create_array("x", prototype) as array:
        assert array.shape == shape
        assert array.ndim == len(shape)
        np.testing.assert_array_equal(array[...], plain)


def test_a_prototype_of_strided_memory_is_copied() -> None:
    plain = np.arange(20).reshape(4, 5)[::-2, ::3]
    with SharedMemoryArray.create_array("x", plain) as array:
        np.testing.assert_array_equal(array[...], plain)


def test_more_than_eight_dimensions_are_refused(context: Path) -> None:
    with pytest.raises(ValueError, match="8"):
        SharedMemoryArray.create_array("x", np.zeros((1,) * 9))
    assert list(context.iterdir()) == []


@pytest.mark.parametrize("prototype", [[1, 2], 3, None, "abc", (1.0,)])
def test_a_prototype_that_is_no_ndarray_is_refused(
    prototype: object, context: Path
) -> None:
    with pytest.raises(TypeError, match="prototype"):
        SharedMemoryArray.create_array("x", prototype)  # type: ignore[arg-type]
    assert list(context.iterdir()) == []


@pytest.mark.parametrize("dtype", [object, [("a", "i4"), ("b", object)]])
def test_python_objects_are_refused(dtype: object, context: Path) -> None:
    """Flaw 12: dtype=object would share raw pointers."""
    with pytest.raises(TypeError):
        SharedMemoryArray.create_array("x", np.zeros(2, dtype))
    assert list(context.iterdir()) == []


def test_the_name_of_a_live_array_is_refused() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        with pytest.raises(SegmentExists, match="'x'"):
            SharedMemoryArray.create_array("x", np.zeros(9))
        with pytest.raises(FileExistsError):
            SharedMemoryArray.create_array("x", np.zeros(9))
        assert array[...].tolist() == [0, 1, 2]


@pytest.mark.parametrize("how", [{"exist_ok": True}, {"exists_ok": True}])
def test_both_spellings_replace_a_live_array(how: dict[str, bool]) -> None:
    old = SharedMemoryArray.create_array("x", np.arange(3))
    with SharedMemoryArray.create_array("x", np.zeros((2, 2)), **how) as new:
        assert new.shape == (2, 2)
        del old
        assert attach("x").shape == (2, 2)


def test_exist_ok_is_the_third_positional_argument() -> None:
    with (
        SharedMemoryArray.create_array("x", np.arange(3)),
        SharedMemoryArray.create_array("x", np.arange(4), True) as new,
    ):
        assert len(new) == 4


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_auto_connect_false_makes_a_handle_that_connects_nowhere_else(
    method: str,
) -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3), auto_connect=False)
    assert array[2] == 2
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=workers.read_after_connect, args=(array, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == 2
    array.disconnect()
    with pytest.raises(NotConnectedError):
        array[0]
    array.connect()
    array.destroy()


def test_the_repr_is_the_seeds_and_tells_the_state() -> None:
    array = SharedMemoryArray.create_array("x", np.zeros(5, "i4"))
    shown = "SharedMemoryArray(name='x', shape=(5,), datatype=int32, connected={})"
    assert repr(array) == shown.format(True)
    array.disconnect()
    assert repr(array) == shown.format(False)
    array.destroy()
    assert repr(array) == shown.format(False)


def test_len_and_iteration_are_over_rows() -> None:
    plain = np.arange(6).reshape(3, 2)
    with SharedMemoryArray.create_array("x", plain) as array:
        assert len(array) == 3
        rows = list(array)
        np.testing.assert_array_equal(rows, plain)
        array[...] = 0
        np.testing.assert_array_equal(rows, plain)


def test_a_0d_array_has_no_length_and_no_rows() -> None:
    with SharedMemoryArray.create_array("x", np.array(7.5)) as array:
        assert array[()] == 7.5
        with pytest.raises(TypeError):
            len(array)
        with pytest.raises(TypeError):
            iter(array)


def test_the_buffer_protocol_lends_live_read_only_memory() -> None:
    with SharedMemoryArray.create_array("x", np.arange(6).reshape(2, 3)) as array:
        view = memoryview(array)
        assert view.shape == (2, 3)
        assert view.readonly
        assert view.nbytes == 48
        array[1, 2] = 99
        assert view[1, 2] == 99
        with pytest.raises(TypeError):
            view[1, 2] = 5


def test_a_memoryview_outlives_the_array() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3, dtype="i4"))
    view = memoryview(array)
    array.destroy()
    del array
    assert view.tolist() == [0, 1, 2]


def test_asarray_is_a_live_read_only_view() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        for view in (np.asarray(array), array.__array__(), np.array(array, copy=False)):
            assert not view.flags.writeable
            array[0] = 41
            assert view[0] == 41
            array[0] = 0
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1


def test_np_array_is_a_private_writable_copy() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        taken = np.array(array)
        taken[0] = 9
        assert array[0] == 0
        assert not np.shares_memory(taken, np.asarray(array))


def test_another_dtype_needs_a_copy_and_says_so() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        assert np.asarray(array, dtype="f4").dtype == np.dtype("f4")
        assert np.array(array, dtype="f4", copy=True).tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="copy"):
            array.__array__(dtype="f4", copy=False)


def test_numpy_functions_take_the_array() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4.0)) as array:
        assert np.sum(array) == 6
        assert (np.asarray(array) + 1).tolist() == [1, 2, 3, 4]


def test_a_context_manager_connects_and_the_creator_cleans_up(context: Path) -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    array.disconnect()
    with array as entered:
        assert entered is array
        assert array.is_connected
        with attach("x") as other:
            assert other[1] == 1
        assert not other.is_connected
        assert [p.name for p in context.iterdir()] == ["x"]
    assert not array.is_connected
    assert list(context.iterdir()) == []


def test_a_pickled_handle_holds_no_data() -> None:
    """Flaw 6: the originals pickled all 8 MB."""
    labels = [f"mouse {i}" for i in range(500)]
    plain = np.zeros((500, 2000))
    with SharedMemoryArray.create_array(
        "x" * 100, plain, dims=("mouse", "time"), coords={"mouse": labels}
    ) as array:
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert len(pickle.dumps(array, protocol)) < 1024
        assert len(cloudpickle.dumps(array)) < 1024


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_pickled_handle_arrives_as_the_same_array(dumps: object) -> None:
    with SharedMemoryArray.create_array(
        "x", np.arange(3), dims=("t",), attrs={"units": "V"}
    ) as array:
        arrived = pickle.loads(dumps(array))  # type: ignore[operator]
        assert arrived.is_connected
        arrived[0] = 7
        assert array[0] == 7
        assert arrived.labels == array.labels
        arrived.disconnect()
        assert array.is_connected
        assert not pickle.loads(pickle.dumps(arrived)).is_connected


def test_a_copied_handle_is_the_same_array() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)) as array:
        for twin in (copy.copy(array), copy.deepcopy(array)):
            twin[1] = 5
            assert array[1] == 5
            array[1] = 1
        del twin
        assert attach("x")[1] == 1


def test_a_pickle_of_a_destroyed_array_arrives_unconnected() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    pickled = pickle.dumps(array)
    array.destroy()
    arrived = pickle.loads(pickled)
    assert not arrived.is_connected
    with pytest.raises(NotConnectedError):
        arrived[0]
