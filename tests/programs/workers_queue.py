"""Workers of the queue tests; run by spawn, fork, forkserver or a `Zygote`.

Each frame has a number. A ledger (plain bytes in a file, which survive the process that
writes them) records of each whether its put began, returned, and how often it was got.
"""

from __future__ import annotations

import mmap
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STOP, GO = 0, 1
SLOT, PHASE, BEAT, COUNT, TORN = range(5)
BEGUN, PUT, GOT = range(3)
EACH = 1 << 22  # numbers of a putter
BIG = 3000


def echo(questions: Any, answers: Any) -> None:
    """Answer each value with itself until None comes."""
    while (value := questions.get(timeout=30)) is not None:
        answers.put(value)


def use_inherited(questions: Any, answers: Any) -> None:
    """Use handles that a fork has copied, without their being passed."""
    echo(questions, answers)
    questions.close()
    answers.close()


def get_one(queue: Any) -> None:
    """Get a value, and end without closing."""
    assert queue.get(timeout=30) == "a"


def open_ledger(path: str | Path, putters: int = 4) -> NDArray[np.uint8]:
    """Open the ledger, shape (3, putters * EACH); shared by all processes."""
    count = 3 * putters * EACH
    with open(path, "a+b") as file:
        file.truncate(count)
        memory = mmap.mmap(file.fileno(), count)
    return np.frombuffer(memory, np.uint8).reshape(3, -1)


def value_of(number: int) -> NDArray[np.uint32]:
    """A frame that checks itself: large or small, every word the same."""
    words = BIG if number % 97 == 13 else 1 + number % 5
    return np.full(words, number, np.uint32)


def number_of(value: NDArray[np.uint32]) -> int:
    number = int(value[0])
    assert (value == number).all(), f"torn: {value}"
    assert len(value) == len(value_of(number))
    return number


def put(
    arena: Path, board: Any, worker: int, ledger: str, name: str = "q", n: int = EACH
) -> None:
    """Put numbered frames in every way, until the board says stop."""
    from ataraxis import MemQ

    queue = MemQ.attach(name, context=arena, timeout=20)
    assert queue._segment is not None
    board.set_mine(worker, SLOT, queue._segment.participant.slot)
    if worker % 2:
        queue.share_slots()
    words = open_ledger(ledger)
    first = worker * EACH
    k = int(words[BEGUN, first : first + EACH].sum())
    while k < n and not board[STOP]:
        many = random.choice((1, 1, 1, 7))
        numbers = range(first + k, first + min(k + many, n))
        words[BEGUN, numbers.start : numbers.stop] = 1
        if many == 1:
            queue.put(value_of(numbers[0]), timeout=30)
        else:
            values = [value_of(number) for number in numbers]
            queue.put_many(values, timeout=30, pack=random.random() < 0.5)
        words[PUT, numbers.start : numbers.stop] = 1
        k += len(numbers)
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
    queue.close()


def get(
    arena: Path,
    board: Any,
    worker: int,
    ledger: str,
    name: str = "q",
    way: str = "lease",
) -> None:
    """Get frames, note each, and then acknowledge it."""
    from ataraxis import MemQ
    from ataraxis.frame import Frame

    queue = MemQ.attach(name, context=arena, timeout=20)
    assert queue._segment is not None
    board.set_mine(worker, SLOT, queue._segment.participant.slot)
    buffer = bytearray(1 << 16)
    words = open_ledger(ledger)
    while not board[GO]:
        chosen = way if way != "mixed" else random.choice(("lease", "drain"))
        try:
            if chosen == "get":
                words[GOT, number_of(queue.get(timeout=0.05))] += 1
            elif chosen == "lease":
                with queue.lease(timeout=0.05) as lease:
                    words[GOT, number_of(lease.value)] += 1
            else:
                end, frames = queue.drain_into(buffer, timeout=0.05, acknowledge=False)
                at = 0
                for _ in range(frames):
                    frame = Frame.from_buffer(buffer, at)
                    words[GOT, number_of(frame.array)] += 1
                    at += -(-frame.nbytes // 64) * 64
                assert at == end
                queue.acknowledge_drained()
        except TimeoutError:
            continue
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
    queue.close()


def hold(arena: Path, board: Any, worker: int, name: str = "q", many: int = 1) -> None:
    """Lease frames and sit on them."""
    from ataraxis import MemQ

    queue = MemQ.attach(name, context=arena, timeout=20)
    assert queue._segment is not None
    board.set_mine(worker, SLOT, queue._segment.participant.slot)
    held = [queue.lease(timeout=20) for _ in range(many)]
    board.set_mine(worker, PHASE, 1)
    while not board[STOP]:
        time.sleep(0.001)
    del held


def crash(arena: Path, board: Any, worker: int, way: str, name: str = "q") -> None:
    """Do one thing with a queue that comes past the crash point."""
    from ataraxis import MemQ

    queue = MemQ.attach(name, context=arena, timeout=20)
    assert queue._segment is not None
    board.set_mine(worker, SLOT, queue._segment.participant.slot)
    board.set_mine(worker, PHASE, 1)
    if way == "put":
        queue.put(np.full(3, 100, np.uint32), timeout=20)
    elif way == "grow":
        queue.share_slots()
        for number in (100, 101):
            queue.put(np.full(3, number, np.uint32), timeout=20)
    elif way == "put_many":
        for _ in range(4):
            queue.put(np.full(3, 100, np.uint32), timeout=20)
            queue.get_many()
    elif way == "large":
        queue._is_without_arena = True
        queue.put(np.full(BIG, 100, np.uint32), timeout=20)
    elif way == "chunk":
        queue.put(np.full(BIG, 100, np.uint32), timeout=20)
    elif way == "chunk_again":
        queue.get(timeout=20)
        queue.put(np.full(BIG, 100, np.uint32), timeout=20)
    elif way == "chunk_view":
        lease = queue.lease(timeout=20)
        lease.acknowledge()
        del lease
    elif way in ("get", "large_get"):
        queue.get(timeout=20)
    elif way == "wait":
        while not queue.empty():
            queue.get_nowait()
        queue.get(timeout=0.2)
    elif way == "wait_over":
        time.sleep(0.05)
        queue.get_many(timeout=20)
        queue.get(timeout=20)
    elif way == "sweep":
        queue.sweep()
        queue.get(timeout=20)
    board.set_mine(worker, COUNT, 1)
    queue.close()
