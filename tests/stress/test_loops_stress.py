"""Event loops, for long: 100,000 messages, 1,000 cancellations, long idle times."""

from __future__ import annotations

import asyncio
import random
import resource
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import workers_pipe as w
from test_loops import LOOPS, limited, run_in

from ataraxis import MemQ
from ataraxis.errors import QueueEmpty
from ataraxis.pipeline import Pipe, Processor

MESSAGES, CANCELS = 100_000, 1000


def feed(name: str, count: int) -> threading.Thread:
    """Put numbers into a queue, with pauses, so that the reader waits often."""

    def put() -> None:
        with MemQ.attach(name) as queue:
            for k in range(count):
                queue.put(k, timeout=120)
                if k % 97 == 0:
                    time.sleep(0.001)

    thread = threading.Thread(target=put)
    thread.start()
    return thread


@pytest.mark.parametrize("loop", LOOPS)
def test_a_getter_that_is_cancelled_again_and_again(
    loop: str, figure: Callable[..., float]
) -> None:
    """No value is lost or repeated, and all are in order."""
    count, cancels = int(figure(MESSAGES, 2000)), int(figure(CANCELS, 50))
    with MemQ("q", buffer_count=64) as queue:
        found: list[int] = []
        given_up = 0

        async def main() -> None:
            nonlocal given_up
            while given_up < cancels:  # also while nothing comes: each is cancelled
                done, _ = await limited(loop, random.random() * 1e-3, queue.get_async())
                assert not done
                given_up += 1
            given_up = 0
            thread = feed("q", count)
            while len(found) < count:
                done, value = await limited(
                    loop,
                    random.random() * 2e-3 if given_up < cancels else 60,
                    queue.get_async(),
                )
                if done:
                    found.append(value)
                else:
                    given_up += 1
            while thread.is_alive():
                await asyncio.to_thread(thread.join, 0.1) if loop != "trio" else None

        run_in(loop, main)
        assert found == list(range(count))
        assert queue.empty()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_putter_that_is_cancelled_again_and_again(
    loop: str, figure: Callable[..., float]
) -> None:
    count, cancels = int(figure(MESSAGES, 2000)), int(figure(CANCELS, 50))
    with MemQ("q", buffer_count=16) as queue:
        found: list[int] = []

        def get() -> None:
            with MemQ.attach("q") as other:
                while len(found) < count:
                    found.append(other.get(timeout=120))
                    if len(found) % 97 == 0:
                        time.sleep(0.002)

        async def main() -> int:
            k = given_up = 0
            while k < count:
                done, _ = await limited(
                    loop,
                    random.random() * 2e-3 if given_up < cancels else 60,
                    queue.put_async(k),
                )
                k += done
                given_up += not done
            return given_up

        thread = threading.Thread(target=get)
        thread.start()
        assert run_in(loop, main) > 0
        thread.join()
        assert found == list(range(count))


def test_a_select_loop(figure: Callable[..., float]) -> None:
    """A loop of `select`, whose waits are cut short a thousand times."""
    count, cancels = int(figure(MESSAGES, 2000)), int(figure(CANCELS, 50))
    with MemQ("q", buffer_count=64) as queue:
        found: list[int] = []
        cut = 0
        queue.fileno()
        with pytest.raises(QueueEmpty):
            queue.get_nowait()
        for _ in range(cancels):
            assert not select.select([queue], [], [], random.random() * 1e-3)[0]
        thread = feed("q", count)
        while len(found) < count:
            wait = random.random() * 2e-3 if cut < cancels else 60
            ready, _, _ = select.select([queue], [], [], wait)
            if not ready:
                cut += 1
                assert wait < 60
                continue
            try:
                found.append(queue.get_nowait())
            except QueueEmpty:
                continue
        thread.join()
        assert found == list(range(count))


def used() -> tuple[float, int]:
    """CPU time of this process, s, and how often its threads have woken up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_nvcsw


@pytest.mark.parametrize("loop", LOOPS)
def test_a_waiting_task_uses_less_than_a_thousandth_of_a_core(
    loop: str, figure: Callable[..., float]
) -> None:
    windows, seconds = 6, figure(10, 2)
    with MemQ("q") as queue, MemQ("r", buffer_count=2) as full:
        full.put(1)
        full.put(2)
        shares: list[float] = []
        wakes: list[float] = []

        async def measure(sleep: Callable[[float], Any]) -> None:
            await sleep(4)  # by then it checks rarely
            for _ in range(windows):
                cpu, count = used()
                await sleep(seconds)
                now_cpu, now_count = used()
                shares.append((now_cpu - cpu) / seconds)
                wakes.append((now_count - count) / seconds)

        async def main() -> None:
            if loop == "trio":
                import trio

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(queue.get_async)
                    nursery.start_soon(full.put_async, 3)
                    await measure(trio.sleep)
                    nursery.cancel_scope.cancel()
                return
            tasks = [
                asyncio.create_task(queue.get_async()),
                asyncio.create_task(full.put_async(3)),
            ]
            await measure(asyncio.sleep)
            for task in tasks:
                task.cancel()

        run_in(loop, main)
        # The best of several windows: other work on the host counts as this process.
        print(
            f"{loop}: {100 * min(shares):.3f} to {100 * max(shares):.3f} % of a core, "
            f"{max(wakes):.1f} wake-ups a second, while two wait"
        )
        assert min(shares) < 1e-3
        assert sorted(wakes)[windows // 2] < 3
        assert [full.get(), full.get()] == [1, 2]


# ---- callers of a pipe that give up


@pytest.mark.parametrize("slots", [256, 4])
def test_callers_that_give_up_at_random_moments_under_load(
    slots: int, figure: Callable[..., float]
) -> None:
    """No run fails, every other answer is right, no caller waits without an end."""
    count = int(figure(CANCELS, 50))

    async def main() -> tuple[int, int]:
        pipe = Pipe("load")
        pipe.add(Processor("a", func=w.twice, buffer_count=slots)).add(
            Processor("b", func=w.d_get_sync, buffer_count=slots)
        ).add(Processor("c", func=w.twice, workers=2, buffer_count=slots))
        loaded: list[int] = []
        run = await pipe.start(sink=loaded)
        stop = asyncio.Event()
        put = 0

        async def load() -> None:
            nonlocal put
            while not stop.is_set():
                put += await pipe.emit(put)

        async def call(k: int, patience: float | None) -> Any:
            await asyncio.sleep(random.random() * 0.5)
            try:
                async with asyncio.timeout(patience):
                    return await pipe.emit_sync(k)
            except TimeoutError:
                return "gave up"

        loader = asyncio.create_task(load())
        patient = [asyncio.create_task(call(k, None)) for k in range(count)]
        hasty = [
            asyncio.create_task(call(k, random.expovariate(50))) for k in range(count)
        ]
        answers = await asyncio.wait_for(asyncio.gather(*patient), 600)
        assert answers == [2 * (2 * k + 1) for k in range(count)]
        found = await asyncio.wait_for(asyncio.gather(*hasty), 600)
        assert all(x in ("gave up", 2 * (2 * k + 1)) for k, x in enumerate(found))
        stop.set()
        await loader
        await pipe.stop()
        assert pipe.completed
        assert sorted(loaded) == [2 * (2 * k + 1) for k in range(put)]
        assert not run._feeder._waiting
        return found.count("gave up"), run.late_answers

    gave_up, late = asyncio.run(main())
    print(f"{gave_up} of {count} gave up, {late} answers came late")
    assert gave_up
    assert late <= gave_up
