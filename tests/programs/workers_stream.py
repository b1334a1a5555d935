"""Workers of the stream tests: they send and receive frames that check themselves.

Frame number k is an array whose every word is k, so that a torn one shows. Run by a
`Zygote` (job ``"workers_stream:name"``) or by spawn.
"""

from __future__ import annotations

import random
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

STOP = 0
SLOT, PHASE, BEAT, COUNT, LAST, FIRST, DROPPED, DONE = range(8)


def open_producer(arena: Path, name: str, words: int, **more: Any) -> Any:
    from ataraxis.stream import Producer

    return Producer(name, shape=(words,), dtype="u8", context=arena, **more)


def open_consumer(arena: Path, name: str, **more: Any) -> Any:
    from ataraxis.stream import Consumer

    return Consumer(name, context=arena, timeout=20, **more)


def send(
    arena: Path,
    board: Any,
    worker: int,
    name: str = "s",
    words: int = 64,
    slots: int = 64,
    n: int = 1 << 60,
    subscribers: int = 1,
    way: str = "mixed",
    pause: float = 0.0,
    shared: bool = False,
) -> None:
    """Send frames in every way, until the board says stop."""
    warnings.simplefilter("ignore", RuntimeWarning)
    stream = open_producer(arena, name, words, buffer_count=slots, shared=shared)
    board.set_mine(worker, SLOT, stream._segment.participant.slot)
    stream.wait_for_subscribers(subscribers, timeout=30)
    data = np.zeros(words, "u8")
    block = np.zeros((12, words), "u8")
    k = 0
    while k < n and not board[STOP]:
        chance = random.randrange(8) if way == "mixed" and not shared else 0
        if chance == 1 and k + 12 <= n:
            block[:] = np.arange(k, k + 12, dtype="u8")[:, None]
            stream.send_block(block)
            k += 12
        elif chance == 2:
            with stream.next_to_send() as frame:
                frame.array[:] = k
            k += 1
        elif chance == 3:
            frame = stream.next_to_send()
            frame.array[: words // 2] = k
            frame = stream.next_to_send()
            frame.array[:] = k
            frame.send()
            k += 1
        else:
            data[:] = worker << 32 | k if shared else k
            stream.send(data)
            k += 1
        board.set_mine(worker, COUNT, k)
        if pause:
            time.sleep(pause)
    stream.close()
    board.set_mine(worker, DONE, 1)


def check(frame: Any, last: int) -> int:
    """Check one frame against itself and the one before; its sequence."""
    array = frame.array
    low, high = int(array.min()), int(array.max())
    assert low == high, f"torn: {low} to {high} in frame {frame.sequence}"
    assert low == frame.sequence, f"frame {frame.sequence} holds {low}"
    assert frame.sequence > last, f"{frame.sequence} after {last}"
    return int(frame.sequence)


def receive(
    arena: Path,
    board: Any,
    worker: int,
    name: str = "s",
    policy: str = "lossless",
    hold: int = 0,
    linger: float = 0.0,
    start: str = "oldest",
) -> None:
    """Receive frames until the end, holding some, and check every one."""
    stream = open_consumer(arena, name, policy=policy, start=start)
    board.set_mine(worker, SLOT, stream._segment.participant.slot)
    last = -1
    held: list[tuple[Any, Any]] = []
    count = 0
    board.set_mine(worker, PHASE, 1)
    while (frame := stream.receive()) is not None:
        sequence = check(frame, last)
        if policy == "lossless" and last >= 0:
            assert sequence == last + 1, f"{sequence} after {last}"
        if last < 0:
            board.set_mine(worker, FIRST, sequence)
        last = sequence
        count += 1
        if hold:
            held.append((frame, frame.array))
            if len(held) > hold:
                old, array = held.pop(random.randrange(len(held)))
                check(old, -1)
                assert array.min() == array.max() == old.sequence
        if linger:
            time.sleep(linger)
        board.set_mine(worker, COUNT, count)
        board.set_mine(worker, LAST, last)
    for old, array in held:
        assert array.min() == array.max() == old.sequence
    joined = stream._words[4] or 0
    assert stream.received_count == count
    if last >= 0:
        assert count + stream.dropped_count == last + 1 - joined, (
            f"{count} + {stream.dropped_count} of {joined}..{last}"
        )
    board.set_mine(worker, DROPPED, stream.dropped_count)
    del frame, held
    stream.close()
    board.set_mine(worker, DONE, 1)


def receive_durable(arena: Path, board: Any, worker: int, name: str = "s") -> None:
    """Receive under a durable name; go on where the one before was killed."""
    stream = open_consumer(arena, name, durable="recorder")
    board.set_mine(worker, SLOT, stream._segment.participant.slot)
    last = board.mine(worker, LAST) - 1  # kept on the board, plus one
    while (frame := stream.receive()) is not None:
        sequence = check(frame, -1)
        assert sequence <= last + 1, f"missing: {last + 1} to {sequence - 1}"
        if sequence == last + 1:
            last = sequence
            board.set_mine(worker, LAST, last + 1)
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
        del frame
    stream.close()
    board.set_mine(worker, DONE, 1)


def receive_shared(arena: Path, board: Any, worker: int, name: str = "s") -> None:
    """Receive from several producers: each one's frames in order, without a gap."""
    stream = open_consumer(arena, name, policy="lossless")
    board.set_mine(worker, PHASE, 1)
    last: dict[int, int] = {}
    while not board[STOP]:
        try:
            frame = stream.receive(timeout=0.1)
        except TimeoutError:
            continue
        if frame is None:
            break
        array = frame.array
        value = int(array[0])
        assert (array == value).all(), f"torn: {array}"
        source, k = value >> 32, value & 0xFFFFFFFF
        assert k == 0 or last.get(source, k - 1) == k - 1, f"{k} after {last[source]}"
        last[source] = k
        board.set_mine(worker, COUNT, board.mine(worker, COUNT) + 1)
        del frame, array
    stream.close()


def beat(stop: threading.Event) -> None:
    """Keep a thread alive beside a blocked call."""
    while not stop.wait(0.01):
        pass
