"""A writer that died, and its successor: each entry once, whatever was unfinished.

The first writer is stopped where a kill would; its leases go back as those of the dead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from queue import Full
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from workers_logger import accepted

from ataraxis import DataLogger, LogPackage
from ataraxis.log.writer import EntrySink, open_sink
from ataraxis.shm.process import ChildProcess
from ataraxis.stream import MemQ
from ataraxis.stream.inspector import inspect
from ataraxis.stream.statistics import _GROWING, _QUEUE_BYTES, _READY, _TALLY_WORDS

LAYOUTS = ["npy", "journal"]


class Killed(Exception):
    """Simulates SIGKILL."""


def a_logger(path: Path, layout: str, size: int = 1024) -> DataLogger:
    return DataLogger(path, layout=layout, buffer_count=8, buffer_size=size)


def put(logger: DataLogger, number: int, size: int = 8) -> None:
    data = np.full(size, number, np.uint8)
    logger.input_queue.put(LogPackage(1, number, data), False)


def killed_at(logger: DataLogger, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the entries, and die in a method, as a process that is killed there."""

    def kill(*given: Any) -> None:
        raise Killed

    with MemQ.attach(logger._memq.name) as queue:
        sink = open_sink(logger._status, queue)
        with monkeypatch.context() as patch:
            target = sink._checkpoint if where == "end" else sink._journal
            patch.setattr(target, where, kill)
            # The frames that the sink gives back are those a killed process leaves.
            with pytest.raises(Killed):
                write_all(sink, queue)


def write_all(sink: EntrySink, queue: MemQ) -> None:
    while sink.write_from(queue, 0):
        pass


def written_by_next(logger: DataLogger) -> list[bytes]:
    """Let the next writer write the rest; return all payloads."""
    with MemQ.attach(logger._memq.name) as queue:
        sink = open_sink(logger._status, queue)
        write_all(sink, queue)
        sink.close()
        assert queue.statistics().used == 0
    return accepted(logger.output_directory)


def payload(number: int, size: int = 8) -> bytes:
    return bytes([number]) * size


def test_a_large_entry_is_not_taken_for_the_first(tmp_path, monkeypatch) -> None:
    logger = a_logger(tmp_path, "journal")
    put(logger, 1)
    written_by_next(logger)
    put(logger, 2, 5000)
    killed_at(logger, "append", monkeypatch)
    assert written_by_next(logger) == [payload(1), payload(2, 5000)]
    logger.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_entry_is_not_taken_for_another(tmp_path, monkeypatch, layout) -> None:
    logger = a_logger(tmp_path, layout)
    put(logger, 2, 5000)
    killed_at(logger, "end", monkeypatch)
    put(logger, 3, 5000)
    assert written_by_next(logger) == [payload(2, 5000), payload(3, 5000)]
    logger.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_acknowledged_entries_are_forgotten(tmp_path, monkeypatch, layout) -> None:
    """The queue is full again before the next writer starts: its checkpoint fits."""
    logger = a_logger(tmp_path, layout, 1 << 16)
    kept = fill(logger, 0)
    assert kept == len(logger._status.numbers) == 64 * 8
    killed_at(logger, "end", monkeypatch)
    assert logger._memq.statistics().used == 0
    fill(logger, kept)
    assert len(written_by_next(logger)) == 2 * kept
    logger.close()


def fill(logger: DataLogger, first: int) -> int:
    count = 0
    with suppress(Full):
        while True:
            put(logger, (first + count) % 256)
            count += 1
    return count


def die_growing(logger: DataLogger, accepted: Any) -> None:
    """Put, and be killed while adding a frame to the slot: READY became GROWING."""
    queue = logger._memq
    put(logger, 1)
    segment = queue._segment
    assert segment is not None
    g, me = segment.header.geometry, segment.participant.slot
    start = g.control + _QUEUE_BYTES + 8 * _TALLY_WORDS * g.participants
    lines = np.frombuffer(memoryview(segment.mapping)[start:], np.uint64)
    words = lines[: 8 * queue.buffer_count : 8]
    accepted.value = 1
    while True:
        put(logger, 2)
        accepted.value += 1
        # These writes are not atomic: the writer is stopped, unless it was faster.
        with held(logger.input_queue._writer):
            (mine,) = np.nonzero(words & np.uint64(0x1FFF) == me << 3 | _READY)
            words[mine] ^= np.uint64(_READY ^ _GROWING)
        if len(mine) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def held(process: ChildProcess | None) -> Iterator[None]:
    """Stop a process for a moment, if it exists."""
    if process:
        pid = process.pid
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 20)
    yield
    if process:
        os.kill(process.pid, signal.SIGCONT)


def dead_growing(logger: DataLogger) -> int:
    """Run a process that dies so; return how many entries it had put."""
    how = get_context("fork")
    accepted = how.Value("q", 0, lock=False)
    child = how.Process(target=die_growing, args=(logger, accepted))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return int(accepted.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_entries_of_a_dead_putter_are_written(tmp_path: Path, layout: str) -> None:
    """Although the writer has just checked for dead processes."""
    for attempt in range(3):
        logger = DataLogger(tmp_path / str(attempt), layout=layout)
        logger.start()
        put(logger, 9)
        wait_until(lambda w=logger: w.statistics().written == 1, 30, "a writer")
        count = dead_growing(logger)
        logger.stop()
        assert len(accepted(logger.output_directory)) == 1 + count
        logger.close()


def test_frames_before_an_unfinished_one_are_written(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path)
    count = dead_growing(logger)
    queue = logger._memq
    assert queue.qsize() == queue.statistics().waiting == count
    seen = [one.content.waiting for one in inspect() if one.name == queue.name]
    assert seen == [count]
    logger.close()
    assert len(accepted(logger.output_directory)) == count
