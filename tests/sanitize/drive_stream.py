"""Work a stream's kernels hard inside one process, for a sanitizer to watch.

Run by tests/stress/test_sanitizers.py with a sanitized build first on the path:
``drive_stream.py PACKAGE DIRECTORY SECONDS``. All ends share one mapping, so that a
sanitizer, which sees one process and one address per byte, sees every side. Frame k is
an array whose every word is k, so that a torn one shows, too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

sys.meta_path[:] = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402

from ataraxis._kernels import ring as sanitized  # noqa: E402
from ataraxis._kernels import snapshot  # noqa: E402
from ataraxis._kernels.consumer import (  # noqa: E402
    ENDED,
    LAPPED,
    OK,
    ConsumerHandle,
)
from ataraxis._kernels.memory import Participant  # noqa: E402
from ataraxis._kernels.producer import ProducerHandle, WriteLoan  # noqa: E402
from ataraxis.stream import Producer  # noqa: E402

assert sanitized.__file__.startswith(sys.argv[1]), sanitized.__file__
WORDS, SLOTS = 8, 8
WIDE = 12000  # longer than what is copied with the GIL
TYPE = np.dtype("u8")
LOSSLESS, LOSSY, LATEST = 0, 1, 2


class Ends:
    """Minimal hooks of both handles."""

    def _revive(self) -> NoReturn:
        raise ConnectionError

    def _fail(self, status: int, count: int = 0) -> NoReturn:
        raise TimeoutError(status)

    def _dtype_of(self, code: int) -> np.dtype[Any]:
        return TYPE

    def _over(self, *frame: Any) -> NoReturn:
        raise AssertionError("over")

    def _corrupt(self, frame: Any) -> NoReturn:
        raise AssertionError("corrupt")

    def _stalled(self, seconds: float) -> None:
        assert seconds < 60, "the reader does not read"


class Sender(Ends, ProducerHandle):
    cancel_event = None


class Receiver(Ends, ConsumerHandle):
    cancel_event = None

    def _drained(self) -> None:
        """As `Consumer`: called at the end of the stream."""


class Buffer(WriteLoan):
    def _over(self) -> NoReturn:
        raise AssertionError("over")


class Stream:
    """One segment, one mapping of it, any number of handles."""

    def __init__(self, name: str, words: int, shared: bool, directory: str) -> None:
        self.words = words
        self.first = Producer(
            name, shape=(words,), dtype=TYPE, buffer_count=SLOTS, shared=shared,
            context=directory,
        )  # fmt: skip
        assert self.first._segment is not None
        self.segment = self.first._segment

    def part(self) -> Participant:
        status = os.fstat(self.segment.participant.descriptor)
        path = os.fsencode(self.segment.context.path / self.segment.name)
        geometry = self.segment.header.geometry
        part = Participant(
            self.segment.mapping, os.open(path, os.O_RDWR | os.O_CLOEXEC),
            status.st_dev, status.st_ino, path, self.segment.header.kind,
            geometry.participants, geometry.control, 0, b"another", path,
        )  # fmt: skip
        assert part.slot >= 0
        return part

    def sender(self) -> Sender:
        end = Sender()
        assert end._open(
            self.segment.payload, self.part(), TYPE, (self.words,), 4, 1, 0
        )
        return end

    def receiver(self, policy: int) -> Receiver:
        end, part = Receiver(), self.part()
        snapshot.label(part, b"reader")
        assert end._open(self.segment.payload, part, TYPE, policy, True, -1)
        return end


def send(stream: Stream, end: ProducerHandle, k: int) -> int:
    """Send a frame, a block, or a loan; return the next number."""
    if k % 3 == 0:
        rows = np.repeat(np.arange(k, k + 3, dtype=TYPE)[:, None], stream.words, 1)
        stamps = np.arange(2 * 3, dtype="i8").reshape(3, 2) + k
        assert end._send_rows(rows, stamps[:, 0].copy(), 1, stamps, 20) == 3
        return k + 3
    if k % 7 == 0:
        loan = end._lend(Buffer, 20)
        assert isinstance(loan, Buffer)
        value = np.full(stream.words, k, TYPE)
        loan._clear(0, 64)
        if k % 2:
            np.frombuffer(loan, TYPE)[:] = value
        loan._put(0, value)
        loan._send(value.nbytes, 4, (stream.words,), 1, k, k, None)
        return k + 1
    assert end.send(np.full(stream.words, k, TYPE), timeout=20)
    return k + 1


def check(array: np.ndarray[Any, Any]) -> int:
    low, high = int(array.min()), int(array.max())
    assert low == high, f"torn: {low} to {high}"
    return low


def gate(stream: Stream, end: Receiver, k: int) -> int:
    """Every frame, in order; sometimes as rows, sometimes held for a while."""
    if k % 5 == 0:
        out = np.empty((4, stream.words), TYPE)
        times = np.empty(4, np.int64)
        done, status = end._read_into(out, times, 0, 20)
        got = [check(out[row]) for row in range(done)]
        assert status in (OK, ENDED), status
    else:
        frames = [end.receive(timeout=20), end.receive(timeout=20)]
        got = [check(f.array) for f in frames if f is not None]
        if None not in frames:
            assert frames[0].sequence + 1 == frames[1].sequence
        frames.reverse()
        del frames
    assert got == list(range(got[0], got[0] + len(got))) if got else True
    assert not got or k in (0, got[0]), f"{got} after {k - 1}"
    return got[-1] + 1 if got else -1


def watch(stream: Stream, end: Receiver, k: int) -> int:
    """Receive available frames; hold one by a view while others are sent."""
    frame = end.receive(timeout=20)
    if frame is None:
        return -1
    view = frame.array
    first = check(view)
    assert first == frame.sequence
    for _ in range(k % 4):
        other = end.receive(blocking=False)
        if other is not None:
            assert check(other.array) > first
    frame.release()
    assert check(view) == first
    return k + 1


def check_samples(
    out: np.ndarray[Any, Any], frames: np.ndarray[Any, Any], count: int, is_end: bool
) -> None:
    """Compare samples with the numbers of their frames; `is_end`: they end with one."""
    numbers = frames[:, 1].repeat(frames[:, 2])
    cut = numbers[len(numbers) - count :] if is_end else numbers[:count]
    assert (out[:count] == cut).all(), f"torn: {out[:count]} of {cut}"


def cut(stream: Stream, end: Receiver, k: int) -> int:
    """Read samples, frames as blocks, up to a loss; each once and in order."""
    out = np.empty((k % 5 + 1) * stream.words // 2 + k % 3, TYPE)
    frames, state = np.empty((len(out), 3), np.int64), np.zeros(4, np.int64)
    status = end._read_samples(out, frames, state, stream.words, True, 20)
    done, used, first, lost = state.tolist()
    if status == ENDED and not done:
        return -1
    assert status in (OK, LAPPED, ENDED), status
    frames = frames[:used]
    frames[0, 2] -= first
    check_samples(out, frames, done, False)
    assert (np.diff(frames[:, 1]) == 1).all(), "a loss inside"
    assert lost >= 0
    return k + 1


def look(stream: Stream, end: Receiver, k: int) -> int:
    """Read the newest rows and the statistics; join and leave; sweep."""
    out, frames = np.empty(5 * stream.words // 2, TYPE), np.empty((4, 3), np.int64)
    count, used = end._latest_into(out, frames, stream.words, True)
    if stream.first.is_shared:  # sequences are not the numbers that are sent
        assert not count or check(out[-min(count, stream.words) :]) >= 0
    else:
        check_samples(out[len(out) - count :], frames[4 - used :], count, True)
    part = stream.segment.participant
    snapshot.words(part), snapshot.readers(part), snapshot.producers(part)
    joiner = stream.receiver(k % 3)
    joiner.receive(blocking=False)
    joiner._shut()
    part.sweep()
    return k + 1


def drive(stream: Stream, senders: int, seconds: float) -> list[int]:
    failed: list[BaseException] = []
    done: list[int] = []
    deadline = time.monotonic() + seconds
    lookers = threading.Event()

    def run(job: Callable[[Stream, Any, int], int], end: Any) -> None:
        me, k = len(done), 0
        done.append(0)
        is_sender = job is send
        try:
            while k >= 0 and not failed:
                if is_sender and time.monotonic() > deadline:
                    break
                if job is look and time.monotonic() > deadline:
                    break
                k = job(stream, end, k)
                done[me] += 1
            if is_sender:
                lookers.wait(20)
            end._shut()
        except BaseException as error:
            failed.append(error)

    ends: list[tuple[Any, Any]] = [(look, stream.receiver(LATEST))]
    if senders == 1:
        ends += [(gate, stream.receiver(LOSSLESS)) for _ in range(2)]
        ends += [(watch, stream.receiver(p)) for p in (LOSSY, LOSSY, LATEST)]
        ends += [(cut, stream.receiver(p)) for p in (LOSSLESS, LOSSY)]
        ends += [(send, stream.first)]
    else:
        ends += [(several, stream.receiver(p)) for p in (LOSSLESS, LOSSY, LATEST)]
        ends += [(send, stream.sender()) for _ in range(senders)]
    threads = [threading.Thread(target=run, args=pair) for pair in ends]
    for thread in threads:
        thread.start()
    threads[0].join()
    lookers.set()
    if senders > 1:
        stream.first.end()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return done


def several(stream: Stream, end: Receiver, k: int) -> int:
    """Frames of several senders: whole ones."""
    frame = end.receive(timeout=20)
    if frame is None:
        return -1
    check(frame.array)
    return k + 1


def main(directory: str, seconds: float) -> None:
    for name, words, senders in (
        ("one", WORDS, 1),
        ("wide", WIDE, 1),
        ("two", WORDS, 2),
    ):
        stream = Stream(name, words, senders > 1, directory)
        done = drive(stream, senders, seconds / 3)
        print(name, done)
        assert all(done), "a thread starved"
        stream.first.unlink()
    print("done")


if __name__ == "__main__":
    main(sys.argv[2], float(sys.argv[3]))
