"""What the tests run in other processes: importable, so that spawn finds it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ataraxis import SharedMemoryArray
from ataraxis.errors import NotConnectedError


def add_many(array: SharedMemoryArray, index: int, times: int) -> None:
    """Add 1 to an element, again and again."""
    array.connect()
    for _ in range(times):
        array.add(index, 1)


def increment_under_lock(array: SharedMemoryArray, times: int) -> None:
    """Read, modify and write the first element under the lock."""
    for _ in range(times):
        with array.array() as view:
            view[0] = view[0] + 1


def write_and_read(array: SharedMemoryArray, value: int) -> None:
    """Check what the parent wrote, then write the same value one further."""
    array.connect()
    assert array[0] == value
    array[1] = value
    array.disconnect()


def total(array: SharedMemoryArray) -> float:
    """Sum the elements, in whatever process this runs."""
    return float(array[...].sum())


def add_arrivals(inbox: Any, outbox: Any) -> None:
    """Take an array from a queue, add 1 to its first element, say what it is now."""
    array = inbox.get(timeout=30)
    outbox.put((os.getpid(), int(array.add(0, 1)), repr(array)))


def add_from_pipe(connection: Any) -> None:
    """Take an array from a pipe, add 1 to its first element, send it back."""
    array = connection.recv()
    array.add(0, 1)
    connection.send(array)
    connection.close()


def write_rows(array: SharedMemoryArray, rows: int) -> None:
    """Write each row whole, so that a torn one shows."""
    for row in range(rows):
        array[...] = np.full(array.shape, row, array.dtype)


def read_after_connect(array: SharedMemoryArray, answers: Any) -> None:
    """Read with a handle that arrives without its connection."""
    try:
        array[0]
    except NotConnectedError:
        array.connect()
        answers.put(int(array[2]))
