"""Arrays travel: arguments, queues, pipes, pools, names, forks."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import programs
import pytest
import workers
from programs import Program

from ataraxis import SharedMemoryArray, attach
from ataraxis.errors import SegmentNotFound, TooManyParticipants

# Python 3.12 warns of any fork beside threads; the tests fork without any.
FORKS = "-W error -W ignore::DeprecationWarning"
SPAWN = multiprocessing.get_context("spawn")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_array_travels_as_an_argument_of_a_process(method: str) -> None:
    """Flaw 4: only the default start method worked."""
    programs.run(
        """
        import multiprocessing, sys
        import numpy as np
        import workers
        from ataraxis import SharedMemoryArray
        context = multiprocessing.get_context(sys.argv[1])
        with SharedMemoryArray.create_array("x", np.array([7, 0])) as array:
            process = context.Process(target=workers.write_and_read, args=(array, 7))
            process.start()
            process.join()
            assert process.exitcode == 0
            assert array[...].tolist() == [7, 7]
            process = context.Process(target=workers.add_many, args=(array, 1, 500))
            process.start()
            for _ in range(500):
                array.add(1, 1)
            process.join()
            assert process.exitcode == 0
            assert array[1] == 1007
        """,
        method,
        warnings=FORKS,
    )


def test_a_disconnected_array_travels_and_connects_there() -> None:
    array = SharedMemoryArray.create_array("x", np.array([7, 0]))
    array.disconnect()
    process = SPAWN.Process(target=workers.write_and_read, args=(array, 7))
    process.start()
    process.join()
    array.connect()
    assert process.exitcode == 0
    assert array[1] == 7


def test_an_array_travels_through_a_queue() -> None:
    """Flaw 5: the error appeared in the feeder thread, and the consumer waited."""
    with SharedMemoryArray.create_array("x", np.zeros(3, "i8")) as array:
        inbox, outbox = SPAWN.Queue(), SPAWN.Queue()
        process = SPAWN.Process(target=workers.add_arrivals, args=(inbox, outbox))
        process.start()
        inbox.put(array)
        pid, value, shown = outbox.get(timeout=30)
        process.join()
        assert (pid, value) == (process.pid, 1)
        assert shown == repr(array)
        assert array[0] == 1
        for queue in (inbox, outbox):
            queue.close()
            queue.join_thread()


def test_an_array_travels_through_a_pipe_and_back() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3, "i8")) as array:
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=workers.add_from_pipe, args=(there,))
        process.start()
        there.close()
        here.send(array)
        assert here.poll(30)
        returned = here.recv()
        process.join()
        here.close()
        assert returned[0] == array[0] == 1
        returned.disconnect()


def test_an_array_travels_into_a_pool_of_processes() -> None:
    with (
        SharedMemoryArray.create_array("x", np.arange(10.0)) as array,
        ProcessPoolExecutor(2, mp_context=SPAWN) as pool,
    ):
        assert list(pool.map(workers.total, [array] * 6, timeout=60)) == [45.0] * 6
        array[0] = 5
        assert pool.submit(workers.total, array).result(timeout=60) == 50


def test_an_unrelated_program_attaches_by_name(context: Path) -> None:
    with SharedMemoryArray.create_array(
        "pose", np.zeros((4, 3)), dims=("mouse", "axis"), coords={"axis": [*"xyz"]}
    ) as array:
        printed = programs.run("""
            from ataraxis import SharedMemoryArray, attach
            array = attach("pose")
            assert isinstance(array, SharedMemoryArray)
            print(array, array.labels.dims, array.labels.coords["axis"].values.tolist())
            array[2, :] = [1, 2, 3]
            """)
        assert printed == f"{array!r} ('mouse', 'axis') ['x', 'y', 'z']\n"
        assert array.sel(mouse=2).tolist() == [1, 2, 3]
        programs.run(
            """
            import os, sys
            del os.environ["ATARAXIS_CONTEXT"]
            from ataraxis import attach
            assert attach("pose", context=sys.argv[1])[2, 0] == 1
            """,
            context,
        )


def test_the_error_for_an_unknown_name_has_similar_names() -> None:
    with SharedMemoryArray.create_array("pose", np.zeros(3)):
        for opener in (attach, SharedMemoryArray.attach):
            with pytest.raises(SegmentNotFound, match="pose"):
                opener("posse")
            with pytest.raises(FileNotFoundError):
                opener("posse")


def test_attach_waits_for_an_array_that_is_made_later() -> None:
    program = """
        from ataraxis import attach
        print("waiting", flush=True)
        print(attach("late", timeout=30)[...].tolist(), flush=True)
        """
    with Program(program) as other:
        other.expect("waiting")
        other.wait_until_asleep()
        with SharedMemoryArray.create_array("late", np.arange(3)):
            other.expect("[0, 1, 2]")
            other.succeed()


def test_attach_in_a_thread_lets_the_others_run() -> None:
    found: list[SharedMemoryArray] = []
    thread = threading.Thread(target=lambda: found.append(attach("late", timeout=30)))
    thread.start()
    with SharedMemoryArray.create_array("late", np.arange(3)):
        thread.join(timeout=30)
        assert found[0][2] == 2


def test_attach_gives_up_at_its_timeout() -> None:
    started = time.monotonic()
    for opener in (attach, SharedMemoryArray.attach):
        with pytest.raises(TimeoutError, match="late"):
            opener("late", timeout=0.1)
    assert 0.19 < time.monotonic() - started < 5
    with pytest.raises(ValueError, match="timeout"):
        attach("late", timeout=-1)


@pytest.mark.parametrize(
    "child",
    [
        "os._exit(0)",
        "del array; os._exit(0)",
        "del array, view; gc.collect(); os._exit(0)",
        "del array, view; gc.collect(); sys.exit()",
        "sys.exit()",
        "array.disconnect(); sys.exit()",
        "array.disconnect(); del array; gc.collect(); os._exit(0)",
        "array[0] = 0; sys.exit()",
        "array.add(0, 0); del array; gc.collect(); sys.exit()",
        "exec('with array: array[0]'); sys.exit()",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_a_forked_child_that_drops_its_copy_changes_nothing(child: str) -> None:
    """Flaw 7: a forked child that dropped its copy unlinked the parent's segment."""
    programs.run(
        f"""
        import gc, os, subprocess, sys
        import numpy as np
        from ataraxis import SharedMemoryArray, attach
        array = SharedMemoryArray.create_array("x", np.arange(3))
        view = np.asarray(array)
        pid = os.fork()
        if pid == 0:
            {child}
        os.waitpid(pid, 0)
        assert os.listdir(array.context.path) == ["x"]
        assert array.is_connected and view[2] == array[2] == 2
        array[1] = 5
        look = "from ataraxis import attach; assert attach('x')[1] == 5"
        subprocess.run([sys.executable, "-P", "-c", look], check=True)
        assert array.lock.acquire(timeout=0)
        array.lock.release()
        """,
        warnings=FORKS,
    )


def test_a_forked_child_uses_its_copy_as_a_participant_of_its_own() -> None:
    programs.run(
        """
        import os
        import numpy as np
        from ataraxis import SharedMemoryArray
        array = SharedMemoryArray.create_array("x", np.zeros(3, "i8"))
        read, write = os.pipe()
        with array.lock:
            pid = os.fork()
            if pid == 0:
                assert not array.lock.is_held
                assert not array.lock.acquire(timeout=0.05)
                os.write(write, b"!")
                with array.array() as view:
                    view[0] += 1
                for _ in range(1000):
                    array.add(1, 1)
                os._exit(0)
            os.read(read, 1)
            assert array[0] == 0
        for _ in range(1000):
            array.add(1, 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert array[...].tolist() == [1, 2000, 0]
        """,
        warnings=FORKS,
    )


def test_a_forked_child_outlives_its_parent_without_blocking_the_name() -> None:
    """A child that inherited an array but never used it takes no part in it."""
    script = """
        import os, sys
        import numpy as np
        from ataraxis import SharedMemoryArray
        array = SharedMemoryArray.create_array("x", np.zeros(3))
        if os.fork() == 0:
            os.setsid()
            sys.stdin.readline()
            os._exit(0)
        print("made", flush=True)
        os.kill(os.getpid(), 9)
        """
    with Program(script) as parent:
        parent.expect("made")
        parent.process.wait(timeout=30)
        with SharedMemoryArray.create_array("x", np.arange(5)) as array:
            assert array[4] == 4
        parent.tell()


def test_a_fork_in_a_thread_leaves_both_sides_usable() -> None:
    programs.run(
        """
        import os, threading
        import numpy as np
        from ataraxis import SharedMemoryArray, attach
        array = SharedMemoryArray.create_array("x", np.zeros(3, "i8"))
        stop = threading.Event()
        def churn():
            while not stop.is_set():
                array.add(0, 1)
                attach("x").disconnect()
        thread = threading.Thread(target=churn)
        thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                array.add(1, 1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        thread.join()
        assert array[1] == 20
        """,
        warnings=FORKS,
    )


def test_one_process_more_than_there_are_slots_is_told_who_holds_them() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3), participants=1) as array:
        assert attach("x")[0] == 0
        printed = programs.run("""
            from ataraxis import attach
            from ataraxis.errors import TooManyParticipants
            try:
                attach("x")
            except TooManyParticipants as error:
                assert isinstance(error, OSError)
                print(error)
            """)
        assert "pid" in printed
        assert array[0] == 0
    assert issubclass(TooManyParticipants, OSError)


@pytest.mark.parametrize("participants", [0, -1, 1025])
def test_an_impossible_number_of_participants_is_refused(participants: int) -> None:
    with pytest.raises(ValueError, match="participants"):
        SharedMemoryArray.create_array("x", np.zeros(3), participants=participants)
