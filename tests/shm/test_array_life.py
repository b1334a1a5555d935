"""Connect, disconnect, destroy, replace; views and handles that outlive all that."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import programs
import pytest
from programs import Program

from ataraxis import SharedMemoryArray, attach
from ataraxis.errors import (
    NotConnectedError,
    SegmentExists,
    SegmentNotFound,
    StaleSegment,
)


def test_connect_and_disconnect_may_be_repeated() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    for _ in range(3):
        array.connect()
        array.connect()
        assert array.is_connected
        assert array[1] == 1
        array.disconnect()
        array.disconnect()
        assert not array.is_connected


def test_a_disconnected_handle_says_so_both_ways() -> None:
    """Old callers catch RuntimeError, newer ones ConnectionError."""
    array = SharedMemoryArray.create_array("x", np.arange(3), dims=("t",))
    array.disconnect()
    uses = [
        lambda: array[0],
        lambda: array.__setitem__(0, 1),
        lambda: array.read_data(0),
        lambda: array.read_data(0, with_lock=False),
        lambda: array.write_data(0, 1),
        lambda: array.write_data(0, 1, with_lock=False),
        lambda: array.add(0, 1),
        lambda: array.update(lambda old: old),
        lambda: array.compare_exchange(0, 0, 1),
        lambda: array.array().__enter__(),
        lambda: array.array(with_lock=False).__enter__(),
        lambda: array.lock.acquire(),
        lambda: array.wait_for_change(timeout=0),
        lambda: array.version,
        lambda: array.statistics(),
        lambda: array.snapshot(),
        lambda: array.to_xarray(),
        lambda: array.sel(t=0),
        lambda: np.asarray(array),
        lambda: memoryview(array),
        lambda: list(array),
        lambda: array.heal(),
    ]
    for use in uses:
        for kind in (NotConnectedError, RuntimeError, ConnectionError):
            with pytest.raises(kind, match="connect"):
                use()
    assert len(array) == 3
    assert array.labels.dims == ("t",)


def test_destroying_is_possible_while_connected_and_twice(context: Path) -> None:
    """Flaw 7: silently ignored while connected; the second raised."""
    array = SharedMemoryArray.create_array("x", np.arange(3))
    array.destroy()
    assert list(context.iterdir()) == []
    assert not array.is_connected
    array.destroy()
    array.disconnect()
    with pytest.raises(SegmentNotFound, match="'x'"):
        array.connect()


def test_any_handle_may_destroy(context: Path) -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    other = attach("x")
    other.disconnect()
    other.destroy()
    assert list(context.iterdir()) == []
    assert array[...].tolist() == [0, 1, 2]
    array.destroy()


def test_who_is_connected_goes_on_with_the_memory_after_a_destroy() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    other = attach("x")
    array.destroy()
    other[0] = 9
    assert other[...].tolist() == [9, 1, 2]
    with pytest.raises(SegmentNotFound):
        attach("x")


def test_dropping_the_creators_handle_takes_the_name_away(context: Path) -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    assert [p.name for p in context.iterdir()] == ["x"]
    del array
    gc.collect()
    assert list(context.iterdir()) == []


def test_dropping_another_handle_leaves_the_name() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    other = attach("x")
    del other
    gc.collect()
    assert attach("x")[1] == array[1]


def test_a_handle_in_a_reference_cycle_is_collected(context: Path) -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    array.myself = [array, array.lock, array.array()]  # type: ignore[attr-defined]
    del array
    gc.collect()
    assert list(context.iterdir()) == []


def test_a_view_in_a_reference_cycle_outlives_its_handle() -> None:
    array = SharedMemoryArray.create_array("x", np.arange(3))
    cycle: list[object] = [array, np.asarray(array), memoryview(array)]
    cycle.append(cycle)
    view = np.asarray(array)
    del array, cycle
    gc.collect()
    assert view.tolist() == [0, 1, 2]


def test_a_handle_that_was_never_set_up_can_be_dropped() -> None:
    """Flaw 7: AttributeError in __del__."""
    with pytest.raises(TypeError):
        SharedMemoryArray()  # type: ignore[call-arg]
    blank = SharedMemoryArray.__new__(SharedMemoryArray)
    del blank
    gc.collect()


def test_a_bare_handle_does_not_crash() -> None:
    programs.run("""
        from ataraxis import SharedMemoryArray
        blank = SharedMemoryArray.__new__(SharedMemoryArray)
        for use in (lambda: blank[0], lambda: blank.add(0, 1), lambda: blank._release(),
                    lambda: blank._acquire(0), lambda: memoryview(blank),
                    lambda: blank._wait_change(0, 0), lambda: blank._mark_dirty(),
                    lambda: blank._heal(), lambda: blank._changed_unlocked()):
            try:
                use()
            except Exception:
                pass
        """)


def test_views_outlive_disconnect_destroy_and_replacement() -> None:
    """Flaw 9: SIGSEGV."""
    programs.run("""
        import gc
        import numpy as np
        from ataraxis import SharedMemoryArray
        array = SharedMemoryArray.create_array("x", np.arange(1_000_000))
        with array.array() as lent:
            pass
        with array.array(with_lock=False) as unlocked:
            pass
        views = [lent, unlocked, np.asarray(array), memoryview(array), lent[5:],
                 array.to_xarray(), array.to_xarray().values[::2]]
        array.disconnect()
        gc.collect()
        assert all(int(v[3]) in (3, 6, 8) for v in views)
        array.connect()
        array[3] = 33
        array.destroy()
        gc.collect()
        assert views[0][3] == views[3][3] == 33
        array = SharedMemoryArray.create_array("x", np.zeros(3), exist_ok=True)
        assert views[2][999_999] == 999_999
        del array
        gc.collect()
        assert views[0].sum() == views[3].obj.sum()
        """)


@pytest.mark.parametrize(
    "last_act",
    [
        "keep = np.asarray(array)",
        "keep = memoryview(array)",
        "keep = array.to_xarray()",
        "keep = array.array().__enter__()",
        "import builtins; builtins.keep = np.asarray(array), array",
        "keep = array; array.me = [array, np.asarray(array)]",
        "keep = np.asarray(array); array.destroy()",
        "keep = np.asarray(array); array.disconnect()",
        "import atexit; atexit.register(lambda: array[0])",
        "import atexit; atexit.register(array.destroy)",
        "import threading; threading.Thread(target=lambda: array[0]).start()",
        "import weakref; weakref.finalize(array, print, end='')",
        "class D:\n def __del__(self): array[0]; array[:2]\nd = D()",
        "lock = array.lock; lock.acquire()",
        "g = (array[i] for i in range(3)); next(g)",
        "def held():\n with array.array() as v:\n  yield v\ng = held(); next(g)",
    ],
)
def test_no_exit_of_an_interpreter_crashes_or_leaks(
    last_act: str, context: Path
) -> None:
    start = "import numpy as np\nfrom ataraxis import SharedMemoryArray\n"
    make = "array = SharedMemoryArray.create_array('x', np.arange(9))\n"
    programs.run(start + make + last_act)
    assert list(context.iterdir()) == []


def test_a_replaced_array_makes_old_handles_stale() -> None:
    """Flaw 8: old handles stayed silently, or read the new bytes as the old dtype."""
    old = SharedMemoryArray.create_array("x", np.array([1.5, 2.5]))
    other = attach("x")
    view = np.asarray(other)
    pickled = pickle.dumps(other)
    new = SharedMemoryArray.create_array("x", np.arange(100), exist_ok=True)
    for handle in (old, other):
        for use in (
            lambda h: h[0],
            lambda h: h.__setitem__(0, 1.0),
            lambda h: h.snapshot(),
            lambda h: h.add(0, 1.0),
            lambda h: h.wait_for_change(timeout=0),
        ):
            with pytest.raises(StaleSegment, match="attach"):
                use(handle)
        with pytest.raises(ConnectionError):
            handle[0]
        handle.disconnect()
        with pytest.raises(StaleSegment):
            handle.connect()
    assert view.tolist() == [1.5, 2.5]
    assert not pickle.loads(pickled).is_connected
    assert new[99] == 99
    old.destroy()
    del old, other
    gc.collect()
    assert attach("x").shape == (100,)


def test_a_handle_in_another_process_becomes_stale_too() -> None:
    program = """
        from ataraxis import attach
        from ataraxis.errors import StaleSegment
        array = attach("x")
        print(array[0], flush=True)
        input()
        try:
            array[0]
        except StaleSegment:
            print(attach("x").shape, flush=True)
        """
    old = SharedMemoryArray.create_array("x", np.array([1.5, 2.5]))
    with Program(program) as other:
        other.expect("1.5")
        with SharedMemoryArray.create_array("x", np.arange(7), exist_ok=True):
            other.tell()
            other.expect("(7,)")
            other.succeed()
    del old


def test_the_name_of_a_killed_creator_is_free_again(context: Path) -> None:
    """Flaw 7: leftovers of a killed process blocked the name."""
    program = """
        import numpy as np
        from ataraxis import SharedMemoryArray
        array = SharedMemoryArray.create_array("x", np.arange(3))
        print("made", flush=True)
        input()
        """
    with Program(program) as creator:
        creator.expect("made")
        with pytest.raises(SegmentExists, match=str(creator.pid)):
            SharedMemoryArray.create_array("x", np.zeros(5))
        creator.process.kill()
        creator.finish()
    assert [p.name for p in context.iterdir()] == ["x"]
    with SharedMemoryArray.create_array("x", np.zeros(5)) as array:
        assert array.shape == (5,)


def test_the_name_stays_taken_while_a_killed_creators_array_is_used() -> None:
    program = """
        import numpy as np
        from ataraxis import SharedMemoryArray
        array = SharedMemoryArray.create_array("x", np.arange(3))
        print("made", flush=True)
        input()
        """
    with Program(program) as creator:
        creator.expect("made")
        array = attach("x")
        creator.process.kill()
        creator.finish()
    with pytest.raises(SegmentExists, match=str(os.getpid())):
        SharedMemoryArray.create_array("x", np.zeros(5))
    assert array[...].tolist() == [0, 1, 2]
    array.destroy()


def test_an_attached_array_keeps_no_file_open_after_it_is_dropped() -> None:
    with SharedMemoryArray.create_array("x", np.arange(3)):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            array = attach("x")
            array.disconnect()
        del array
        assert len(os.listdir("/proc/self/fd")) == before
