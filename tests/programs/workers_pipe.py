"""Functions that run in the workers of the pipeline tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.pipeline import DataFrame, DType, Processor, Worker, processor


def double(value: Any) -> Any:
    return 2 * value


def uneven(value: int) -> int:
    """Takes longer for some, so that several workers overtake each other."""
    if value % 7 == 0:
        time.sleep(0.001)
    return value


def even_side(value: int) -> int:
    """One side of a diamond: takes longer for some."""
    if value % 97 == 0:
        time.sleep(0.001)
    return 2 * value


def odd_side(value: int) -> int:
    """The other side."""
    return even_side(value) + 1


def left(value: Any) -> tuple[str, Any]:
    return ("l", value)


def right(value: Any) -> tuple[str, Any]:
    return ("r", value)


def same(value: Any) -> Any:
    return value


def only_even(value: int) -> int | None:
    return None if value % 2 else value


def several(value: int) -> Iterator[int]:
    for _ in range(value % 4):
        yield value


async def later(value: int) -> int:
    return value + 1


def plain_array(block: np.ndarray) -> np.ndarray:
    assert type(block) is np.ndarray
    return block * 2


def smooth(block: np.ndarray) -> np.ndarray:
    """A moving average over 5 samples before and with each one, along time."""
    padded = np.concatenate([np.zeros((4, *block.shape[1:])), block])
    return sum(padded[k : k + len(block)] for k in range(5)) / 5


def batch(values: list[int]) -> list[int]:
    assert isinstance(values, list)
    return [value + len(values) * 0 for value in values]


def batch_sizes(values: list[int]) -> list[int]:
    return [len(values)] * len(values)


def short_batch(values: list[int]) -> list[int]:
    return values[1:]


def counting() -> Iterator[int]:
    yield from range(50)


def endless() -> Iterator[int]:
    k = 0
    while True:
        yield k
        k += 1


class Sum:
    """Keeps the sum of its values, and prints it at the end."""

    def setup(self) -> None:
        self.sum = 0

    def process(self, value: int) -> int:
        self.sum += value
        return self.sum

    def teardown(self) -> None:
        sys.stdout.write(f"the sum was {self.sum}\n")


def fails_at_five(value: int) -> int:
    if value == 5:
        raise KeyError("five is not here")
    return value


def exits_at_five(value: int) -> int:
    if value == 5:
        sys.exit(3)
    return value


def vanishes_at_five(value: int) -> int:
    if value == 5:
        os._exit(0)
    return value


def dies_at_five(value: int) -> int:
    if value == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def hangs_at_five(value: int) -> int:
    if value == 5:
        time.sleep(3600)
    return value


def returns_an_object(value: int) -> object:
    return object()


class DiesOnce:
    """Kills its process once at each of some values, and marks that by a file."""

    directory = ""

    def process(self, value: int) -> int:
        if value % 20 == 10:
            mark = Path(os.environ["PIPE_MARKS"]) / str(value)
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return value


def slow(value: Any) -> Any:
    time.sleep(0.01)
    return value


def slow_at_first(value: int) -> int:
    if value == 0:
        time.sleep(4)
    return value


def talkative(value: int) -> int:
    print(f"line {value}")
    print("no end", end="", file=sys.stderr)
    return value


@processor(workers=2, ordered=True)
def decorated(value: int) -> int:
    return -value


# ---- the dialect


async def forward() -> None:
    me = Worker("forward")
    await me.join()
    assert me.instance_id == 0
    while True:
        value = await me.get_sync(timeout=None)
        assert await me.emit_sync(value + me.config.get("plus", 0))


def plain_forward() -> None:
    me = Processor("forward").open()
    while True:
        value = me.get(timeout=None)
        assert me.emit(value, timeout=None)


async def produce() -> None:
    me = Processor("produce")
    await me.connect()
    for k in range(200):
        while not await me.emit(k, DType.U32):
            pass


async def consume() -> None:
    me = Processor("consume")
    await me.connect()
    for k in range(200):
        assert await me.get_sync() == k


async def consume_few() -> None:
    me = Processor("consume")
    await me.connect()
    for k in range(20):
        assert await me.get_sync() == k


async def produce_for_ever() -> None:
    me = Processor("produce")
    await me.connect()
    k = 0
    while True:
        k += await me.emit(k)


async def wrong_name() -> None:
    await Processor("other").connect()


def as_pair(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


async def every_way() -> None:
    """Awaits in every way that a coroutine can be awaited."""
    import asyncio
    import collections.abc
    import warnings

    me = Processor("ways")
    await me.connect()
    results: list[Any] = []
    task = asyncio.create_task(me.get_sync(timeout=30))
    results.append(await task)
    results.append(await asyncio.wait_for(me.get_sync(30), 30))
    results += await asyncio.gather(me.get_sync(30), asyncio.sleep(0, "slept"))
    promise = me.get_sync(30)
    results.append(isinstance(promise, collections.abc.Coroutine))
    results.append(await promise)
    try:
        await promise
    except RuntimeError as error:
        results.append(str(error))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        me.get_sync(30)
        me.emit("not sent")
    results.append([w.category.__name__ for w in caught])
    me.get_sync(30).close()
    waits = asyncio.create_task(me.get_sync(30))
    await asyncio.sleep(0)
    waits.cancel()
    try:
        await waits
    except asyncio.CancelledError:
        results.append("cancelled")
    results.append(await me.get())
    try:
        await me.get_sync(0.01)
    except TimeoutError:
        results.append("timeout")
    await me.emit(value=tuple(results), d_type=None)
    try:
        await me.emit(object())
    except TypeError as error:
        await me.emit_sync(type(error).__name__, timeout=5)


def first_late(value: int) -> int:
    """Takes long for the first value, so that others are far ahead of it."""
    if value == 0:
        time.sleep(1.0)
    return value


async def eager() -> None:
    me = Processor("eager")
    await me.connect()
    failed = 0
    for k in range(20):
        while not await me.emit(k):
            failed += 1
    await me.emit_sync(("failed", failed))


class SlowStart:
    def setup(self) -> None:
        time.sleep(1.2)

    def process(self, value: Any) -> Any:
        return value


# ---- by key


def mouse_of(value: dict[str, int]) -> int:
    return value["mouse"]


def rest_of(value: int) -> int:
    return value % 7


def no_key(value: dict[str, int]) -> list[int]:
    return [value["mouse"]]


def mice(value: int) -> Iterator[dict[str, int]]:
    """Three mice of each value; of every fifth none."""
    for mouse in range(3 if value % 5 else 0):
        yield {"mouse": mouse + value % 4, "at": value}


def four(value: int) -> Iterator[dict[str, int]]:
    for k in range(4):
        yield {"value": value, "k": k, "third": k // 3}


def without_one(part: dict[str, int]) -> dict[str, int] | None:
    """Returns nothing for the second part of each odd value."""
    return None if part["k"] == 1 and part["value"] % 2 else part


class PerMouse:
    """Counts each mouse's values; takes longer for some."""

    def setup(self) -> None:
        self.counts: dict[int, int] = {}

    def process(self, value: dict[str, int]) -> dict[str, int]:
        mouse = value["mouse"]
        self.counts[mouse] = self.counts.get(mouse, 0) + 1
        if value["at"] % 7 == 0:
            time.sleep(0.001)
        return {**value, "n": self.counts[mouse], "pid": os.getpid()}


def dies_once_by_key(value: dict[str, int]) -> dict[str, int]:
    if value["at"] % 40 == 20:
        mark = Path(os.environ["PIPE_MARKS"]) / str(value["at"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return value


def framed(value: Any) -> DataFrame:
    """Constructs the data frame itself."""
    return DataFrame(value)


# ---- every dialect, for any place in a chain: each adds 1


def d_function(value: int) -> int:
    return value + 1


async def d_async_function(value: int) -> int:
    return value + 1


def d_generator(value: int) -> Iterator[int]:
    yield value + 1


class DClass:
    def process(self, value: int) -> int:
        return value + 1


async def d_get_sync() -> None:
    me = Worker()
    await me.join()
    while True:
        try:
            value = await me.get_sync()
        except TimeoutError:
            break
        while not await me.emit(value + 1, DType.U32):
            pass


async def d_awaiting() -> None:
    me = Worker()
    await me.join()
    while True:
        await me.emit_sync(await me.get_sync(timeout=None) + 1)


async def d_polling() -> None:
    me = Worker()
    await me.join()
    while True:
        value = await me.get()
        if value is None:
            continue
        while not await me.emit(value + 1):
            continue


async def d_goes_on_after_timeouts() -> None:
    me = Worker()
    await me.join()
    while True:
        try:
            value = await me.get_sync(timeout=0.05)
        except TimeoutError:
            continue
        await me.emit_sync(value + 1)


def d_plain() -> None:
    me = Processor(Worker().name).open()
    while True:
        try:
            value = me.get()
        except TimeoutError:
            break
        me.emit(value + 1, timeout=None)


D_ENTRY = """
import asyncio
from ataraxis.pipeline import Worker

async def main():
    me = Worker()
    await me.join()
    while True:
        try:
            value = await me.get_sync()
        except TimeoutError:
            break
        await me.emit(value + 1)

if __name__ == "__main__":
    asyncio.run(main())
"""


# ---- the end of the input


async def sums_up() -> None:
    """Emits after its loop, as programs of uPipe do."""
    me = Worker()
    await me.join()
    total = 0
    while True:
        try:
            total += await me.get_sync()
        except TimeoutError:
            break
    await me.emit_sync(("total", total))


def sums_up_plainly() -> None:
    me = Processor(Worker().name).open()
    total = 0
    try:
        while True:
            total += me.get()
    except TimeoutError:
        me.emit(("total", total), timeout=None)


async def swallows_everything() -> None:
    me = Worker()
    await me.join()
    while True:
        try:
            await me.emit_sync(await me.get_sync())
        except Exception:
            continue


async def emits_twice_or_never() -> None:
    me = Worker()
    await me.join()
    while True:
        value = await me.get_sync(timeout=None)
        for _ in range(value % 3):
            await me.emit(value)


async def emits_an_array_and_changes_it() -> None:
    me = Worker()
    await me.join()
    block = np.zeros(3)
    while True:
        block[:] = await me.get_sync(timeout=None)
        await me.emit(block)
        block[:] = -1


async def emits_for_ever_after_one() -> None:
    me = Worker()
    await me.join()
    first = await me.get_sync(timeout=None)
    k = 0
    while True:
        k += await me.emit(first + k)


async def counts_itself() -> None:
    me = Worker()
    await me.join()
    counts = []
    while True:
        try:
            await me.get_sync(5)
        except TimeoutError:
            break
        me.processed_counter += 1
        (queue,) = me.in_qs
        counts.append((me.processed_counter, me.received_counter, queue.exe_counter))
    (out,) = me.out_qs
    assert me._get_next_q_to_emit().name == out.name == "pipe-sink"
    await me.emit_sync(counts)


def twice(value: int) -> int:
    """Takes longer for some."""
    if value % 50 == 0:
        time.sleep(0.002)
    return 2 * value


def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fails_at_odd(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


def fails_at_five_and_two(value: int) -> float:
    if value == 2:
        return dies_at_five(5)
    return 1 / (value - 5)


# ---- functions that have a leased value, and end or use the pipe themselves


class EndsAtASignal:
    """Ends in good order by a signal, at whatever instruction that comes."""

    def setup(self) -> None:
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
        signal.setitimer(signal.ITIMER_REAL, 0.002 + os.getpid() % 50 / 5000)

    def process(self, value: int) -> int:
        return value


def takes_a_pair(value: int, config: Path | None = None) -> Any:
    """Get a second value; die once with both."""
    from ataraxis.pipeline import worker_io

    me = worker_io.current()
    assert me is not None
    try:
        second = me.get(2)
    except (TimeoutError, EOFError):
        return value
    if value == 0 and not os.path.exists(f"{me.config['died']}"):
        Path(me.config["died"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1000 * value + second


def emits_and_hangs(value: int) -> int:
    """Emit again and again, and take longer than a value may."""
    from ataraxis.pipeline import worker_io

    me = worker_io.current()
    assert me is not None
    for _ in range(12):
        time.sleep(0.3)
        me.emit(-value)
    return value


def doubles_in_place(block: Any) -> Any:
    """Change the array that was given."""
    block *= 2
    return block


def doubles_in_place_and_dies_once(block: Any) -> Any:
    """As `doubles_in_place`; the first worker that has a block of ones dies."""
    from ataraxis.pipeline import worker_io

    me = worker_io.current()
    assert me is not None
    if block[0] == 1 and not os.path.exists(me.config["died"]):
        Path(me.config["died"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    block *= 2
    return block


# ---- large values


def of_size(k: int) -> Any:
    """Return value k: an array of 100 B to 4 MB whose every element says k."""
    size = int(100 * 40_000 ** (k * 0.6180339887 % 1))
    return np.full(-(-size // 8), k)


def number_of(value: Any) -> int:
    """Return the number of a value; check that it is whole."""
    number = int(value[0])
    assert (value == number).all(), f"torn: {number}, {value.min()}, {value.max()}"
    return number


def to_the_left(value: Any) -> Any:
    number_of(value)
    return 2 * value


class ToTheRight:
    """Writes each result where it will lie."""

    def setup(self) -> None:
        from ataraxis.pipeline import worker_io

        self.me: Any = worker_io.current()

    def process(self, value: Any) -> Any:
        number_of(value)
        result = self.me.empty(value.shape, value.dtype)
        np.multiply(value, 2, out=result)
        result += 1
        return result


def is_writable(value: Any) -> bool:
    return bool(value.flags.writeable)


def passes_on_whole(value: Any) -> Any:
    number_of(value)
    return value


class Keeps:
    """Keeps views, and says at the end whether they are what they were."""

    def setup(self) -> None:
        self.kept: list[tuple[int, Any]] = []

    def process(self, value: Any) -> int:
        self.kept.append((number_of(value), value))
        return sum(number_of(view) == number for number, view in self.kept)


def forwards_in_place() -> None:
    """Send the half of an array of `empty`, then in one piece, then again."""
    me = Processor("forward").open()
    value = me.get(None)
    made = me.empty(value.shape, value.dtype)
    place = made.__array_interface__["data"][0]
    made[:] = value
    assert me.emit(made[: len(made) // 2], timeout=None)
    assert made.flags.writeable
    assert me.emit(made.reshape(2, -1), timeout=None)
    assert not made.flags.writeable
    assert me.emit(made, timeout=None)
    assert me.emit(np.array([place % 64]), timeout=None)
    assert np.array_equal(made, value)


def talks_and_fails(value: int) -> int:
    print("value", value)
    if value == 3:
        raise ValueError("not 3")
    return value


def late_at_300(value: int) -> int:
    """Takes a while, and for one value much longer."""
    time.sleep(3.0 if value == 300 else 0.002)
    return value


def second_takes_long(value: int) -> int:
    if value == 1:
        time.sleep(2.0)
    return value


def takes_a_while(value: int) -> int:
    time.sleep(0.002)
    return value
