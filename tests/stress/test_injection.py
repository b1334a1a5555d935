"""An exception wherever CPython looks for signals: nothing stays held, nothing is lost.

Each public operation is run once for each of its points, with an exception there, and
then the room is looked at as another program would see it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import queue as queues
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_pipe as w
from deadline import wait_until
from injection import Injected, Injector

from ataraxis import (
    Consumer,
    DataLogger,
    FrameBufferClient,
    FrameBufferServer,
    LogArchive,
    LogPackage,
    MemQ,
    Producer,
    SharedMemoryArray,
)
from ataraxis.pipeline import Pipe, Processor

STRESS = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
WANTED = int(10_000 * STRESS)
SOON = 5.0
Step = Callable[[], Any]


class Room:
    """Operations, and what another program sees after each."""

    def __init__(self) -> None:
        self.number = 0

    def steps(self) -> dict[str, Step]:
        """Operations by name; each may be run again and again."""
        raise NotImplementedError

    def check(self) -> None:
        """Look whether everything goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave."""

    def name(self) -> str:
        self.number += 1
        return f"name{self.number}"


class Arrays(Room):
    """A lock is free, what is written is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.array = SharedMemoryArray.create_array("array", np.zeros(10))

    def steps(self) -> dict[str, Step]:
        array = self.array

        def section() -> None:
            with array.array() as view:
                view[0] += 1

        def looked() -> None:
            with array.array(with_lock=False) as view:
                view.sum()

        def locked() -> None:
            with array.lock:
                array[1] = 2.0

        def made() -> None:
            with SharedMemoryArray.create_array(self.name(), np.zeros(3)) as other:
                try:
                    other[0] = 1
                finally:
                    other.destroy()

        return {
            "section": section,
            "unlocked section": looked,
            "lock": locked,
            "element": lambda: array.__setitem__(0, 1.0),
            "all": lambda: array.__setitem__(..., 1),
            "some": lambda: array.__setitem__([1, 2], 3.0),
            "read": lambda: array[2],
            "read some": lambda: array[[1, 2]],
            "update": lambda: array.update(lambda x: x + 1),
            "exchange": lambda: array.compare_exchange(0, 1.0, 1.0),
            "add": lambda: array.add(0, 1.0),
            "snapshot": array.snapshot,
            "write_data": lambda: array.write_data((0, 2), [1.0, 2.0]),
            "write unlocked": lambda: array.write_data(0, 1.0, with_lock=False),
            "read_data": lambda: array.read_data((0, 2), convert_output=True),
            "heal": array.heal,
            "made": made,
        }

    def check(self) -> None:
        seen = self.array.statistics()
        assert seen.owner == -1
        assert not seen.is_torn
        taken: list[bool] = []
        other = threading.Thread(target=lambda: taken.append(self._take()))
        other.start()
        other.join(SOON)
        assert taken == [True]

    def _take(self) -> bool:
        taken = self.array.lock.acquire(timeout=SOON)
        self.array.lock.release()
        return taken

    def close(self) -> None:
        self.array.destroy()


class Streams(Room):
    """A lossless reader has every frame, in order; the producer finds room."""

    def __init__(self) -> None:
        super().__init__()
        self.producer = Producer("stream", shape=(4,), dtype="f8", buffer_count=8)
        self.witness = Consumer("stream", policy="lossless")
        self.reader = Consumer("stream", policy="lossless")
        self.viewer = Consumer("stream", policy="latest")
        self.next = 0
        self.frame = np.zeros(4)

    def steps(self) -> dict[str, Step]:
        producer, reader, viewer = self.producer, self.reader, self.viewer

        def lent() -> None:
            with producer.next_to_send(timeout=SOON) as frame:
                frame.array[...] = 1

        def written() -> None:
            frame = producer.next_to_send(timeout=SOON)
            frame.write(b"12345678")
            frame.send()

        def dropped() -> None:
            frame = producer.next_to_send(timeout=SOON)
            frame.seek(8)
            del frame

        def received() -> None:
            producer.send(self.frame, timeout=SOON)
            with reader.receive(timeout=SOON) as frame:
                frame.array.sum()

        def iterated() -> None:
            producer.send(self.frame, timeout=SOON)
            for frame in reader:
                frame.value.sum()
                break

        def rows() -> None:
            producer.send_block(np.zeros((3, 4)), timeout=SOON)
            reader.read(3, timeout=SOON)

        def samples() -> None:
            producer.send_block(np.zeros((3, 4)), timeout=SOON)
            reader.read_block(3, timeout=SOON)

        def viewed() -> None:
            producer.send(self.frame, timeout=SOON)
            frame = viewer.receive(timeout=SOON)
            frame.to_xarray()

        def joined() -> None:
            with Consumer("stream", policy="lossless") as other:
                _ = other.has_next

        def made() -> None:
            with Producer(self.name(), 64, 4) as other:
                other.send(b"x")
                with Consumer(other.name) as reader:
                    reader.receive(timeout=SOON)

        return {
            "send": lambda: producer.send(self.frame, timeout=SOON),
            "send a list": lambda: producer.send([1, 2, 3, 4], timeout=SOON),
            "send rows": lambda: producer.send_block(np.zeros((3, 4)), timeout=SOON),
            "lent": lent,
            "written": written,
            "dropped": dropped,
            "receive": received,
            "for": iterated,
            "read": rows,
            "read samples": samples,
            "viewer": viewed,
            "latest": lambda: viewer.latest(2),
            "statistics": producer.statistics,
            "join": joined,
            "made": made,
        }

    def check(self) -> None:
        self._empty(self.reader)
        mark = np.full(4, 77.0)
        self._empty_witness()
        assert self.producer.send(mark, timeout=SOON)
        with self.witness.receive(timeout=SOON) as frame:
            assert frame.sequence == self.next
            assert frame.array.tolist() == mark.tolist()
        self.next += 1
        self._empty(self.reader)
        assert len(self.producer.statistics().readers) == 3

    def _empty_witness(self) -> None:
        # What the operation sent, each once and in order.
        while (frame := self.witness.receive(blocking=False)) is not None:
            assert frame.sequence == self.next
            self.next += 1

    def _empty(self, reader: Consumer) -> None:
        while reader.receive(blocking=False) is not None:
            pass

    def close(self) -> None:
        for end in (self.witness, self.reader, self.viewer):
            end.close()
        self.producer.unlink()


class Queues(Room):
    """No slot and no lease stays taken; what was put is had once, or comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = MemQ("queue", buffer_count=8, buffer_size=256)
        self.later = MemQ.attach("queue", acknowledge="task_done")

    def steps(self) -> dict[str, Step]:
        queue, later = self.queue, self.later
        large = b"x" * 1000

        def leased() -> None:
            queue.put(1)
            with queue.lease(timeout=SOON) as lease:
                assert lease.value is not None

        def dropped() -> None:
            queue.put("dropped")
            lease = queue.lease(timeout=SOON)
            del lease
            queue.get(timeout=SOON)

        def shared() -> None:
            queue.put_many([1, 2, 3])
            for _ in range(3):
                queue.lease(timeout=SOON).acknowledge()

        def larger() -> None:
            queue.put(large)
            with queue.lease(timeout=SOON) as lease:
                len(lease.value)

        def iterated() -> None:
            queue.put("value")
            for value in queue:
                len(str(value))
                break
            queue.get(timeout=SOON)

        def done() -> None:
            later.put(b"job")
            later.get(timeout=SOON)
            later.task_done()

        def made() -> None:
            with MemQ(self.name(), buffer_count=4, buffer_size=64) as other:
                other.put(b"x")
                other.get(timeout=SOON)

        def put_get(value: Any) -> Step:
            def run() -> None:
                queue.put(value)
                queue.get(timeout=SOON)

            return run

        return {
            "put many": lambda: (queue.put_many([b"1", "2", 3]), queue.get_many()),
            "get": put_get(b"bytes"),
            "get an array": put_get(np.arange(3)),
            "get a value": put_get([1, "2"]),
            "get a large one": put_get(large),
            "get many": lambda: (queue.put({"a": 1}), queue.get_many()),
            "lease": leased,
            "dropped": dropped,
            "shared": shared,
            "a large lease": larger,
            "for": iterated,
            "task_done": done,
            "statistics": queue.statistics,
            "made": made,
        }

    def check(self) -> None:
        while True:  # also of a slot that is handed out frame by frame
            try:
                self.later.task_done()
            except ValueError:
                break
        for handle in (self.queue, self.later):
            with suppress(queues.Empty):
                while True:
                    handle.lease(block=False).acknowledge()
        assert self.queue.empty()
        seen = self.queue.statistics()
        assert (seen.waiting, seen.leased) == (0, 0)
        for k in range(self.queue.buffer_count):
            self.queue.put(k, False)
        assert self.queue.full()
        assert [self.queue.get(False) for _ in range(8)] == list(range(8))

    def close(self) -> None:
        self.later.close()
        self.queue.unlink()


class FrameBuffers(Room):
    """Chunks are written and read by others."""

    def __init__(self) -> None:
        super().__init__()
        self.server = FrameBufferServer("frames", 1 << 16)
        self.server.start()
        self.client = FrameBufferClient("frames")
        self.client.start()
        self.other = FrameBufferClient("frames")
        self.other.start()
        self.data = np.arange(64, dtype="u1")

    def steps(self) -> dict[str, Step]:
        client, server, data = self.client, self.server, self.data

        def wrote() -> None:
            offset = server.allocate(64)
            checksum = client.write(offset, data)
            client.read(offset, 64, checksum)

        def viewed() -> None:
            offset = server.allocate(64)
            checksum = client.write(offset, data)
            with client.view(offset, 64, checksum) as view:
                view.sum()

        def arrays() -> None:
            client.get(client.put(np.arange(8.0)))

        def joined() -> None:
            with FrameBufferClient("frames"):
                pass

        return {
            "write and read": wrote,
            "view": viewed,
            "array": arrays,
            "join": joined,
        }

    def check(self) -> None:
        offset = self.server.allocate(64)
        checksum = self.client.write(offset, self.data)
        assert bytes(self.other.read(offset, 64, checksum)) == bytes(self.data)

    def close(self) -> None:
        self.client.stop()
        self.other.stop()
        self.server.stop()


class Logs(Room):
    """What `log` has accepted is in the log, each once."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.logger = DataLogger(self.place.name, "rig", layout="journal")
        self.logger.start()
        self.marks = 0
        self.data = np.arange(3)

    def steps(self) -> dict[str, Step]:
        logger, data = self.logger, self.data
        package = LogPackage(np.uint8(3), np.uint64(5), np.zeros(8, np.uint8))
        return {
            "log": lambda: logger.log(1, data),
            "log a number": lambda: logger.log(1, 2.5),
            "log rows": lambda: logger.log_block(2, np.zeros((4, 3))),
            "put": lambda: logger.input_queue.put(package),
            "statistics": logger.statistics,
        }

    def check(self) -> None:
        self.logger.log(9, np.array([self.marks]))
        self.marks += 1

    def close(self) -> None:
        self.logger.stop()
        with LogArchive(self.logger.output_directory) as log:
            marks = log.read(9).data.ravel().tolist()
        self.place.cleanup()
        assert marks == list(range(self.marks))


class Pipes(Room):
    """What went in comes out once, in order, also to those who wait for it."""

    def __init__(self) -> None:
        super().__init__()
        pipe = Pipe("pipe")
        pipe.add(Processor("first", func=w.same, workers=2, ordered=True)).add(
            Processor("second", func=w.same)
        )
        self.run = pipe.run()
        self.run.wait_until_ready(60)
        self.kept, self.marks = self.run.kept, 0

    def steps(self) -> dict[str, Step]:
        run, array = self.run, np.arange(3)

        def submitted() -> None:
            run.submit([1, "2"], timeout=SOON).result(SOON)

        def given_up() -> None:
            with suppress(TimeoutError):
                run.call(array, timeout=0)

        return {
            "emit": lambda: run.emit(array, timeout=SOON),
            "emit a value": lambda: run.emit({"a": 1}, timeout=SOON),
            "call": lambda: run.call(array, timeout=SOON),
            "submit": submitted,
            "given up": given_up,
            "progress": lambda: (run.progress, run.state, run.workers),
        }

    def check(self) -> None:
        self.marks += 1
        mark = f"mark {self.marks}"
        emitted: list[bool] = []  # by another thread: the way in is free
        other = threading.Thread(target=lambda: emitted.append(self.run.emit(mark)))
        other.start()
        other.join(SOON)
        assert emitted == [True]
        assert self.run.call(mark, timeout=SOON) == mark
        came: list[str] = []

        def has_come() -> bool:
            while self.kept:
                came.append(str(self.kept.popleft()))
            return mark in came

        wait_until(has_come, SOON, "the mark to come out")
        assert [value for value in came if value.startswith("mark")] == [mark]

    def close(self) -> None:
        self.run.stop(60)


ROOMS = {
    "pipe": Pipes,
    "log": Logs,
    "array": Arrays,
    "stream": Streams,
    "queue": Queues,
    "frames": FrameBuffers,
}


@pytest.fixture
def swallowed(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """Exceptions that were raised in a finalizer: Python prints them and goes on."""
    found: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: found.append(args.exc_type))
    return found


def _sweep(context: Path) -> None:
    """Take away what creations that were interrupted have left: names, descriptors.

    A bare ``descriptor = os.open(...)`` may lose what it was returning; no participant
    of a segment hangs on it.
    """
    gc.collect()
    for path in context.glob("name*"):
        path.unlink()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(context)):
                os.close(descriptor)


@pytest.mark.parametrize("kind", ROOMS.values(), ids=ROOMS)
def test_nothing_stays_held(
    kind: type[Room], context: Path, swallowed: list[type[BaseException]]
) -> None:
    room, injector, rounds = kind(), Injector(), 0
    try:
        while not rounds or injector.count < WANTED / len(ROOMS):
            for name, step in room.steps().items():
                step()
                room.check()
                points = injector.points(step)
                assert points, name
                room.check()
                for point in range(points):
                    before = injector.count
                    injector.run(step, point)
                    # Fewer points than before: another branch was taken.
                    assert injector.count > before or point >= points // 2, name
                    try:
                        room.check()
                    except BaseException as error:
                        error.add_note(f"{name}, point {point} of {points}")
                        raise
            rounds += 1
    finally:
        room.close()
        del room
        _sweep(context)
    assert injector.count >= WANTED / len(ROOMS)
    assert set(swallowed) <= {Injected, ResourceWarning}


def _repeat(step: Step) -> None:
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        step()


def _by_signal(step: Step, seconds: float) -> bool:
    """Run a step again and again until a signal handler raises.

    False: it has raised in a finalizer, where Python prints it and goes on.
    """

    def handler(*_: Any) -> None:
        raise Injected

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _repeat(step)
    except Injected:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def _by_thread(step: Step, seconds: float) -> bool:
    """The same by an exception that another thread raises in this one."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    this = ctypes.c_ulong(threading.get_ident())
    timer = threading.Timer(seconds, lambda: raise_in(this, ctypes.py_object(Injected)))
    try:
        timer.start()
        _repeat(step)
    except Injected:
        return True
    finally:
        timer.join()
    return False


@pytest.mark.parametrize("way", [_by_signal, _by_thread], ids=["signal", "thread"])
@pytest.mark.parametrize("kind", ROOMS.values(), ids=ROOMS)
def test_nothing_stays_held_whenever_it_is_interrupted(
    kind: type[Room],
    way: Callable[[Step, float], bool],
    context: Path,
    swallowed: list[type[BaseException]],
) -> None:
    chance, count, room = random.Random(3), 0, kind()
    wanted = max(len(room.steps()), WANTED // 20)
    try:
        while count < wanted:
            for name, step in room.steps().items():
                count += way(step, chance.uniform(1e-4, 2e-3))
                try:
                    room.check()
                except BaseException as error:
                    error.add_note(f"{name}, interruption {count}")
                    raise
    finally:
        room.close()
        del room
        _sweep(context)
    assert count >= wanted


def test_controls() -> None:
    """A lock in C is always given back; `acquire` and `get` lose what they returned."""
    injector, lock, box = Injector(), threading.Lock(), queues.SimpleQueue[int]()
    got: list[int] = []

    def entered() -> None:
        with lock:
            len("")

    def acquired() -> None:
        lock.acquire()
        try:
            len("")
        finally:
            lock.release()

    def taken() -> None:
        got.append(box.get())

    def held_after(step: Step) -> list[bool]:
        held = []
        for point in range(injector.points(step)):
            assert injector.run(step, point)
            held.append(lock.locked())
            if lock.locked():
                lock.release()
        return held

    assert not any(held_after(entered))
    assert any(held_after(acquired))
    box.put(0)
    lost = 0
    for point in range(injector.points(taken)):
        got.clear()
        box.put(1)
        assert injector.run(taken, point)
        lost += box.empty() and not got
        while not box.empty():
            box.get()
    assert lost
