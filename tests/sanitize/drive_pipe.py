"""Work a queue, its parcels and the ports of workers inside one process, watched.

Run by tests/stress/test_sanitizers.py with a sanitized build first on the path:
``drive_pipe.py PACKAGE DIRECTORY SECONDS``. One putter, two workers, one getter, each a
port in a thread of its own; all share one mapping of each queue, so that a sanitizer,
which sees one process and one address per byte, sees every side. Value k says k in one
of several ways, and each comes out once.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

sys.meta_path[:] = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402

from ataraxis._kernels import arena, messages, queue_handle  # noqa: E402
from ataraxis._kernels import worker as sanitized  # noqa: E402
from ataraxis._kernels.queue_handle import Message  # noqa: E402
from ataraxis._kernels.worker import WorkerHandle  # noqa: E402
from ataraxis.frame import DType, Frame  # noqa: E402
from ataraxis.log.journal.writer import plain_header  # noqa: E402
from ataraxis.pipeline.frames import read, write  # noqa: E402
from ataraxis.stream import MemQ  # noqa: E402

for kernel in (sanitized, arena, queue_handle, messages):
    assert kernel.__file__.startswith(sys.argv[1]), kernel.__file__
WORKERS, SLOTS, SIZE = 2, 8, 100_000
SMALL = 1024  # wide values lie in chunks
WIDE = 9_000  # float64, longer than what is copied with the GIL
RUNNING = 1
WORDS = {
    "state": 0, "finished": 1, "emitted": 2, "edge": 3, "received": 4, "lane": 5,
    "began": 7, "last": 8, "bins": 9, "last_bin": 31, "source": 1, "busy": 42,
}  # fmt: skip


class Port(WorkerHandle):
    """Minimal hooks of a worker's handle."""

    def __init__(self, inbox: MemQ | None, outbox: MemQ | None, lane: int) -> None:
        self.taken, self.given, self._lane = inbox, outbox, lane
        self._values: deque[Any] = deque()
        self.kept: deque[Any] = deque()
        words = np.zeros(64, np.int64)
        words[0] = RUNNING
        board = words.data.cast("B").cast("q")
        self._plug(board, WORDS, inbox, outbox, lambda lane: lane + 1, False)

    def acknowledge(self) -> None:
        self._ack_deferred()

    def _accept(self, lease: Any) -> None:
        if lease is not None:  # else the frames of its slot come one by one
            self.kept.append(lease)

    def _emit(self, value: Any, dtype: Any, timeout: float | None) -> bool:
        assert self.given is not None
        code = -1 if dtype is None else int(dtype)
        origin = (self._lane, self._sequence, 0)
        went = self.given.post(value, code, origin, 1, 0, timeout)
        if went is None:
            frame = write(value, dtype, *origin, 0, 1, 0)
            went = self.given.offer(frame, timeout)
        self._sequence += went
        return bool(went)

    def _get(self, timeout: float | None) -> Any:
        assert self.taken is not None
        self._ack_deferred()
        lease = self.kept.popleft() if self.kept else self.taken.hold(timeout)
        if lease is None:
            raise TimeoutError
        value = lease.value if isinstance(lease, Message) else read(lease.data).value
        lease.acknowledge()
        return value

    async def _emit_sync_later(self, value: Any, dtype: Any, timeout: Any) -> bool:
        return self._emit(value, dtype, timeout)

    async def _get_sync_later(self, timeout: float | None) -> Any:
        return self._get(timeout)


def done(promise: Any) -> Any:
    """Run a coroutine that does not wait."""
    try:
        promise.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def value_of(k: int) -> tuple[Any, Any]:
    """Return the k-th value, and its dtype."""
    ways = (
        (k, None), (k, DType.U32), (float(k), None), (str(k), None),
        (k.to_bytes(8, "little"), None), (np.full(7, k), None), ({"k": k}, None),
        (np.full(WIDE, float(k)), None),
    )  # fmt: skip
    return ways[k % len(ways)]


def number_of(value: Any) -> int:
    """Return its number; check that an array is complete."""
    if isinstance(value, np.ndarray):
        low, high = value.min(), value.max()
        assert low == high, f"torn: {low} to {high}"
        return int(low)
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")
    return int(value["k"] if isinstance(value, dict) else value)


def drive(first: MemQ, second: MemQ, seconds: float) -> list[int]:
    failed: list[BaseException] = []
    counts = [0] * (WORKERS + 2)
    seen = set()
    deadline = time.monotonic() + seconds

    def put(me: int) -> None:
        port = Port(None, first, 1)
        while time.monotonic() < deadline and not failed:
            value, dtype = value_of(counts[me])
            assert port.emit(value, dtype, 20)
            counts[me] += 1
        for _ in range(WORKERS):
            assert port.emit(None, None, 20)

    def work(me: int) -> None:
        port = Port(first, second, me + 1)
        value: Any = 0
        while value is not None and not failed:
            if counts[me] % 3 == 0:
                value = port.get(20)
                assert port.emit(value, None, 20)
            elif counts[me] % 3 == 1:
                value = done(port._getting_sync(20))
                assert done(port._emitting_sync(value, None, 20))
            else:
                value = serve(port)
            counts[me] += 1
        port._unplug(True)

    def serve(port: Port) -> Any:
        """Pass a value on as a plain function's worker does."""
        port.acknowledge()
        value = port.next_value()
        if value is NotImplemented:
            value = port._get(20)
            assert port.emit(value, None, 20)
        elif value is None or not port.emit_result(value):
            message = port.message(value)
            assert port.emit(value, None, 20)
            message.acknowledge()
        return value

    def get(me: int) -> None:
        port, left = Port(second, None, 0), WORKERS
        while left and not failed:
            value = port.get(20)
            if value is None:
                left -= 1
                continue
            k = number_of(value)
            assert k not in seen, f"{k} came twice"
            seen.add(k)
            counts[me] += 1
        port._unplug(True)

    def run(job: Any, me: int) -> None:
        try:
            job(me)
        except BaseException as error:
            failed.append(error)

    jobs = [get, *[work] * WORKERS, put]
    threads = [threading.Thread(target=run, args=pair) for pair in
               zip(jobs, range(WORKERS + 2), strict=True)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    assert seen == set(range(counts[-1])), "some are lost"
    return counts


def share(queue: MemQ, seconds: float) -> int:
    """Put one by one and in rows, into slots that are shared, while another drains."""
    queue.share_slots()
    deadline = time.monotonic() + seconds
    total = 0
    failed: list[BaseException] = []

    def drain() -> None:
        buffer, expected = bytearray(1 << 18), 0
        try:
            while True:
                end, frames = queue.drain_into(buffer, timeout=20, acknowledge=False)
                at = 0
                for _ in range(frames):
                    frame = Frame.from_buffer(buffer, at)
                    if frame.source == 9:
                        queue.acknowledge_drained()
                        return
                    assert int(frame.array[0]) == expected
                    expected += 1
                    at += -(-frame.nbytes // 64) * 64
                assert at == end
                queue.acknowledge_drained()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=drain)
    thread.start()
    while time.monotonic() < deadline and not failed:
        queue.put(np.array([total, 0]), timeout=20)
        rows = np.stack([np.arange(total + 1, total + 100), np.zeros(99, int)], 1)
        header = plain_header(1, rows.dtype, (2,))
        assert header is not None
        queue.put_rows(rows.view(np.uint8), header, total, 1, 20)
        total += 100
    queue.put(b"end", source=9, timeout=20)
    thread.join()
    if failed:
        raise failed[0]
    return total


def main(directory: str, seconds: float) -> None:
    for size in (SIZE, SMALL):
        first = MemQ("first", SLOTS, size, context=directory)
        second = MemQ("second", SLOTS, size, context=directory)
        counts = drive(first, second, seconds)
        print("got, worked, worked, put:", counts)
        assert all(counts), "a thread starved"
        if size == SMALL:
            assert first.arena is not None, "no frame was in a chunk"
        assert first.arena_bytes == second.arena_bytes == 0
        first.unlink()
        second.unlink()
    shared = MemQ("shared", SLOTS, 4096, context=directory)
    print("shared:", share(shared, seconds / 3))
    shared.unlink()
    print("done")


if __name__ == "__main__":
    main(sys.argv[2], float(sys.argv[3]))
