"""Work the kernels hard inside one process, for a sanitizer to watch.

Run by tests/stress/test_sanitizers.py with a sanitized build first on the path:
``drive.py PACKAGE DIRECTORY SECONDS``. Two participants share one mapping, so that a
sanitizer, which sees one process and one address per byte, sees both sides.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

sys.meta_path[:] = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402

from ataraxis import SharedMemoryArray  # noqa: E402
from ataraxis._kernels import memory as sanitized  # noqa: E402
from ataraxis._kernels.array import ArrayKernel  # noqa: E402
from ataraxis._kernels.memory import Participant  # noqa: E402
from ataraxis.shm.segment import Segment  # noqa: E402

assert sanitized.__file__.startswith(sys.argv[1]), sanitized.__file__
# Longer than what is copied with the GIL: the copies of two threads overlap.
LENGTH = 16384


class Handle(ArrayKernel):
    """The kernel with minimal hooks."""

    def _revive(self) -> None:
        raise ConnectionError

    def _read(self, index: Any) -> Any:
        raise IndexError(index)

    def _write(self, index: Any, value: Any) -> None:
        raise IndexError(index)

    def _fail(self, status: int) -> None:
        raise TimeoutError(status)

    def _warn_recovered(self) -> None:
        raise AssertionError("no participant dies in this test")


def another(segment: Segment) -> Handle:
    """Attach once more, on the same mapping."""
    first = segment.participant.descriptor
    path = os.fsencode(segment.context.path / segment.name)
    status = os.fstat(first)
    header = segment.header
    geometry = header.geometry
    part = Participant(
        segment.mapping, os.open(path, os.O_RDWR | os.O_CLOEXEC),
        status.st_dev, status.st_ino, path, header.kind, geometry.participants,
        geometry.control, 0, b"another", path,
    )  # fmt: skip
    assert part.slot >= 0
    handle = Handle()
    handle._open(segment.payload, part, np.dtype(np.int64), (LENGTH,))
    return handle


def main(directory: str, seconds: float) -> None:
    failed: list[BaseException] = []
    done = [0] * 8
    with SharedMemoryArray.create_array(
        "watched", np.zeros(LENGTH, np.int64), context=directory
    ) as array:
        segment = array._segment
        assert segment is not None
        one, two = another(segment), another(segment)
        deadline = time.monotonic() + seconds

        def write(me: int, handle: Handle) -> None:
            source = np.full(LENGTH, done[me], np.int64)
            handle[...] = source
            handle[10:90] = source[:80]

        def read(me: int, handle: Handle) -> None:
            copy = handle[...]
            assert copy[100:].min() == copy[100:].max(), "torn"
            handle[3:60]
            handle._guard()

        def store(me: int, handle: Handle) -> None:
            handle[me % 8] = me
            handle[me % 8]
            handle.add(9, 1)
            assert handle._acquire(None)
            handle._mark_dirty()
            handle[me % 8] = me
            handle._heal()
            handle._release()

        def wait(me: int, handle: Handle) -> None:
            version = handle._guard()[0]  # type: ignore[index]
            handle._wait_change(version, 0.001)
            if done[me] % 16 == 0:
                third = another(segment)
                third.add(9, 1)
                third._participant.sweep()  # type: ignore[union-attr]
                third._shut()

        def run(me: int, job: Callable[[int, Handle], None], handle: Handle) -> None:
            try:
                while time.monotonic() < deadline and not failed:
                    job(me, handle)
                    done[me] += 1
            except BaseException as error:
                failed.append(error)

        threads = [
            threading.Thread(target=run, args=(me, job, handle))
            for me, (job, handle) in enumerate(
                (job, handle)
                for job in (write, read, store, wait)
                for handle in (one, two)
            )
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if failed:
            raise failed[0]
        every_form(array)
        one._shut()
        two._shut()
        del one, two
    print("done", done)
    assert all(done), "a thread starved"


def every_form(array: SharedMemoryArray) -> None:
    """Read and write with every form of index, in range and out of it."""
    chance = random.Random(7)
    for _ in range(500):
        i = chance.choice([0, -1, LENGTH - 1, LENGTH, -LENGTH - 1, 1 << 62, -(1 << 62)])
        j = chance.choice([0, 1, -1, LENGTH, 1 << 62, -(1 << 62)])
        for index in (i, slice(i, j), slice(i, j, chance.choice([1, -1, 3])), (i, j)):
            try:
                got = array[index]
                array[index] = got
            except (IndexError, ValueError):
                pass
    for value in (1 << 62, -(1 << 63), 1 << 63, 1.5, True, np.int8(3), np.nan):
        try:
            array[0] = value
            array.add(0, value)
        except (OverflowError, ValueError, TypeError):
            pass


if __name__ == "__main__":
    main(sys.argv[2], float(sys.argv[3]))
