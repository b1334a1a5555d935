"""Queues, streams and arrays in event loops: asyncio, uvloop, trio, select."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import re
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from places import ROOT
from programs import Program

from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray
from ataraxis.errors import NotConnectedError, QueueEmpty
from ataraxis.shm import waiting

LOOPS = ("asyncio", "uvloop", "trio")


def run_in(loop: str, main: Callable[[], Any]) -> Any:
    """Run a coroutine function in a loop; skip if it is not installed."""
    if loop == "asyncio":
        return asyncio.run(main())
    module = pytest.importorskip(loop, reason=f"{loop} is not installed")
    if loop == "trio":
        pytest.importorskip("anyio", reason="anyio is not installed")
        return module.run(main)
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        return runner.run(main())


async def limited(loop: str, seconds: float, coroutine: Any) -> tuple[bool, Any]:
    """Await for a limited time; return whether it was done, and the result."""
    if loop == "trio":
        trio = importlib.import_module("trio")
        with trio.move_on_after(seconds):
            return True, await coroutine
        return False, None
    try:
        async with asyncio.timeout(seconds):
            return True, await coroutine
    except TimeoutError:
        return False, None


# ---- awaited


@pytest.mark.parametrize("loop", LOOPS)
def test_get_and_put(loop: str) -> None:
    with MemQ("q", buffer_count=4) as ours, MemQ.attach("q") as theirs:
        putter = threading.Thread(
            target=lambda: [theirs.put(k, timeout=30) for k in range(500)]
        )

        async def get() -> list[int]:
            return [await ours.get_async(timeout=30) for _ in range(500)]

        async def put() -> None:
            for k in range(500):
                await ours.put_async(k, timeout=30)

        putter.start()
        assert run_in(loop, get) == list(range(500))
        putter.join()
        found: list[int] = []
        getter = threading.Thread(
            target=lambda: found.extend(theirs.get(timeout=30) for _ in range(500))
        )
        getter.start()
        run_in(loop, put)
        getter.join()
        assert found == list(range(500))


@pytest.mark.parametrize("loop", LOOPS)
def test_waits_end_in_time_and_by_cancelling(loop: str) -> None:
    array = SharedMemoryArray.create_array("a", np.zeros(3))
    with (
        MemQ("q", buffer_count=2) as queue,
        Producer("s", 8, 4) as producer,
        Consumer("s") as consumer,
    ):

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await queue.get_async(timeout=0.02)
            with pytest.raises(TimeoutError):
                await consumer.receive_async(timeout=0.02)
            with pytest.raises(TimeoutError):
                await array.wait_for_change_async(0.02)
            for wait in (
                queue.get_async,
                consumer.receive_async,
                array.wait_for_change_async,
            ):
                assert await limited(loop, 0.02, wait()) == (False, None)
            await queue.put_async(1)
            await queue.put_async(2)
            with pytest.raises(TimeoutError):
                await queue.put_async(3, timeout=0.02)
            assert await limited(loop, 0.02, queue.put_async(3)) == (False, None)
            assert [await queue.get_async(), await queue.get_async()] == [1, 2]
            assert queue.empty()

        run_in(loop, main)
        producer.unlink()
    array.disconnect()
    array.destroy()
    assert waiting._sleepers == [] or all(not s.entries for s in waiting._sleepers)


@pytest.mark.parametrize("loop", LOOPS)
def test_changes_of_an_array(loop: str) -> None:
    array = SharedMemoryArray.create_array("a", np.zeros(3))
    other = SharedMemoryArray.attach("a")
    seen: list[int] = []

    def write() -> None:
        for _ in range(20):
            wait_until(lambda: len(seen) == array.version, 30, "the wait for a change")
            array.add(0, 1)

    async def main() -> None:
        version = 0
        while version < 20:
            version = await other.wait_for_change_async(30, since=version)
            seen.append(version)

    thread = threading.Thread(target=write)
    thread.start()
    run_in(loop, main)
    thread.join()
    assert seen == list(range(1, 21))
    other.disconnect()
    array.disconnect()
    array.destroy()


@pytest.mark.parametrize("loop", LOOPS)
def test_frames_and_the_end_of_a_stream(loop: str) -> None:
    producer, consumer = Producer("s", 8, 4), Consumer("s", policy="lossless")

    def send() -> None:
        for k in range(200):
            producer.send(str(k).encode(), timeout=30)
        producer.end()

    async def main() -> list[int]:
        found = []
        async for frame in consumer:
            with frame:
                found.append(int(frame.read()))
        return found

    thread = threading.Thread(target=send)
    thread.start()
    assert run_in(loop, main) == list(range(200))
    thread.join()
    consumer.close()
    producer.close()


def test_a_loan_that_takes_long_is_not_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot that is being written is not a frame yet."""
    looks = []
    receive = Consumer._try_receive
    monkeypatch.setattr(
        Consumer, "_try_receive", lambda self: (looks.append(1), receive(self))[1]
    )
    with Producer("s", 8, 4) as producer, Consumer("s") as consumer:

        async def main() -> bytes:
            loan = producer.next_to_send()
            task = asyncio.create_task(consumer.receive_async())
            await asyncio.sleep(0.5)
            loan.write(b"late")
            loan.send()
            return (await asyncio.wait_for(task, 10)).read()

        assert asyncio.run(main()) == b"late"
        assert len(looks) < 25
        producer.unlink()


def test_more_than_one_call_can_wait_for() -> None:
    queues = [MemQ(buffer_count=2) for _ in range(150)]

    async def main() -> list[int]:
        tasks = [asyncio.create_task(q.get_async()) for q in queues]
        await asyncio.sleep(0.1)
        assert len(waiting._sleepers) == 2
        for k, queue in enumerate(queues):
            queue.put(k)
        return await asyncio.wait_for(asyncio.gather(*tasks), 30)

    assert asyncio.run(main()) == list(range(150))
    for queue in queues:
        queue.close()


def test_the_death_of_a_producer_is_noticed() -> None:
    code = """
        from ataraxis import Producer
        producer = Producer("s", 8, 4)
        print("here", flush=True)
        input()
    """
    with Program(code) as program:
        program.expect("here")
        consumer = Consumer("s", timeout=10)

        async def main() -> object:
            task = asyncio.create_task(consumer.receive_async())
            await asyncio.sleep(0.2)
            program.process.kill()
            return await asyncio.wait_for(task, 10)

        assert asyncio.run(main()) is None
    consumer.close()


def test_closing_ends_a_wait() -> None:
    with MemQ("q") as keeper:
        queue = MemQ.attach("q")

        async def main() -> None:
            task = asyncio.create_task(queue.get_async())
            await asyncio.sleep(0.1)
            queue.close()
            with pytest.raises(NotConnectedError):
                await asyncio.wait_for(task, 10)

        asyncio.run(main())
        assert keeper.empty()


def test_without_futex_waitv_it_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = waiting._System()
    made.can_sleep = False
    monkeypatch.setattr(waiting, "_made", made)
    with MemQ("q", buffer_count=4) as queue:

        async def main() -> int:
            task = asyncio.create_task(queue.get_async())
            await asyncio.sleep(0.05)
            queue.put(7)
            return await asyncio.wait_for(task, 10)

        assert asyncio.run(main()) == 7


def test_trio_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    monkeypatch.setitem(__import__("sys").modules, "anyio", None)
    with (
        MemQ("q") as queue,
        pytest.raises(ImportError, match=r"pip install 'ataraxis\[trio\]'"),
    ):
        trio.run(queue.get_async)


def test_a_forked_child_waits_by_itself() -> None:
    with MemQ("q", buffer_count=4) as queue:

        async def one() -> int:
            task = asyncio.create_task(queue.get_async())
            await asyncio.sleep(0.05)
            queue.put(7)
            return await asyncio.wait_for(task, 10)

        assert asyncio.run(one()) == 7
        pid = os.fork()
        if not pid:
            try:
                os._exit(0 if asyncio.run(one()) == 7 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- descriptors


def is_readable(number: int, timeout: float = 0) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def test_the_descriptor_of_a_queue() -> None:
    with MemQ("q", buffer_count=8) as queue, MemQ.attach("q") as other:
        number = queue.fileno()
        assert queue.fileno() == number
        assert is_readable(number)  # until the first check
        with pytest.raises(QueueEmpty):
            queue.get_nowait()
        assert not is_readable(number)
        other.put(1)
        other.put(2)
        assert is_readable(number, 10)
        assert queue.get_nowait() == 1
        assert is_readable(number)  # there is another one
        assert queue.get_nowait() == 2
        with pytest.raises(QueueEmpty):
            queue.get_nowait()
        assert not is_readable(number)
        with pytest.raises(TimeoutError):
            queue.get(timeout=0.01)
        other.put(3)
        assert is_readable(number, 10)
        assert queue.get(timeout=10) == 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_the_descriptor_of_a_consumer() -> None:
    with Producer("s", 8, 4) as producer:
        consumer = Consumer("s", policy="lossless")
        number = consumer.fileno()
        assert consumer.receive(blocking=False) is None
        assert not is_readable(number)
        producer.send(b"one")
        assert is_readable(number, 10)
        assert consumer.receive(blocking=False).read() == b"one"
        assert consumer.receive(blocking=False) is None
        assert not is_readable(number)
        loan = producer.next_to_send()  # being written: not ready yet
        looks = 0
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            if is_readable(number, 0.1):
                looks += 1
                assert consumer.receive(blocking=False) is None
        assert looks < 10
        loan.write(b"two")
        loan.send()
        assert is_readable(number, 10)
        assert consumer.receive(blocking=False).read() == b"two"
        producer.end()
        assert consumer.receive(blocking=False) is None
        assert is_readable(number, 10)
        assert consumer.is_ended
        del consumer
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_add_reader_of_a_loop() -> None:
    """One message per call, as in a QSocketNotifier's slot."""
    with MemQ("q", buffer_count=8) as queue, MemQ.attach("q") as other:
        found: list[int] = []

        async def main() -> None:
            done = asyncio.Event()

            def take() -> None:
                try:
                    found.append(queue.get_nowait())
                except QueueEmpty:
                    if len(found) == 100:
                        done.set()

            asyncio.get_running_loop().add_reader(queue.fileno(), take)
            thread = threading.Thread(
                target=lambda: [other.put(k, timeout=30) for k in range(100)]
            )
            thread.start()
            await asyncio.wait_for(done.wait(), 30)
            thread.join()
            asyncio.get_running_loop().remove_reader(queue.fileno())

        asyncio.run(main())
        assert found == list(range(100))


def test_the_offsets_are_those_of_the_kernels() -> None:
    source = ROOT / "ataraxis"
    text = (source / "_kernels" / "include" / "layout.h").read_text()

    def offset(struct: str, field: str) -> int:
        return int(re.search(rf"offsetof\({struct}, {field}\) == (\d+)", text)[1])

    assert offset("ax_stream", "data") == waiting.STREAM_DATA
    assert offset("ax_queue", "data") == waiting.QUEUE_DATA
    assert offset("ax_queue", "space") == waiting.QUEUE_SPACE
    assert offset("ax_event", "sleepers") == waiting.SLEEPERS
    assert offset("ax_guard", "event") == waiting.ARRAY_EVENT
    assert offset("ax_guard", "lock") == waiting.ARRAY_LOCK
    bit = int(re.search(r"#define AX_LOCK_CHANGE (0x\w+)u", text)[1], 16)
    assert bit == 1 << waiting.ARRAY_BIT


def test_who_waits_does_not_use_the_processor() -> None:
    with MemQ("q") as queue:

        async def main() -> float:
            task = asyncio.create_task(queue.get_async())
            await asyncio.sleep(1)
            before = time.process_time()
            await asyncio.sleep(2)
            used = time.process_time() - before
            task.cancel()
            return used / 2

        # The stress test measures this; a polling loop would use several per cent.
        assert asyncio.run(main()) < 0.02
