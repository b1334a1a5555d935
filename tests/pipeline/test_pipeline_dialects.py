"""Every place in a chain, every dialect, every input and output: each value once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import programs
import pytest
import workers_pipe as w
from pipelines import chain

from ataraxis.errors import EndOfInput, EndOfStream
from ataraxis.pipeline import (
    DataFrame,
    DType,
    Local,
    MemQ,
    MemQueue,
    Pipe,
    Processor,
    register_data_type,
    types,
)

DIALECTS = {
    "function": w.d_function,
    "async function": w.d_async_function,
    "generator": w.d_generator,
    "class": w.DClass,
    "get_sync": w.d_get_sync,
    "awaiting": w.d_awaiting,
    "polling": w.d_polling,
    "after time-outs": w.d_goes_on_after_timeouts,
    "plain get": w.d_plain,
    "entry": None,
}
PLACES = {"alone": (0, 1), "first": (0, 2), "middle": (1, 3), "last": (1, 2)}


def pipe_of(dialect: str, place: str, directory: Path) -> Pipe:
    at, length = PLACES[place]
    stages = [Processor(f"plain{k}", func=w.same) for k in range(length)]
    if dialect == "entry":
        script = directory / "entry.py"
        script.write_text(w.D_ENTRY)
        stages[at] = Processor("it", entry=str(script))
    else:
        stages[at] = Processor("it", func=DIALECTS[dialect])
    return chain(*stages)


@pytest.mark.parametrize("place", PLACES)
def test_every_value_once(place: str, tmp_path: Path) -> None:
    expected = list(range(1, 51))
    with Local("forkserver") as local:
        for dialect in DIALECTS:
            pipe = pipe_of(dialect, place, tmp_path)
            assert list(pipe.map(range(50), engine=local)) == expected, dialect
            assert pipe.completed, dialect
            assert asyncio.run(_mixed(pipe, local)) == (expected, expected), dialect
            assert pipe.completed, dialect


async def _mixed(pipe: Pipe, local: Local) -> tuple[list[int], list[int]]:
    """Callers and values for the sink, at the same time."""
    found: list[int] = []
    await pipe.start(sink=found, engine=local)

    async def feed() -> None:
        for k in range(50):
            while not await pipe.emit(k):
                pass

    async def call(k: int) -> int:
        return await pipe.emit_sync(k)

    fed = asyncio.create_task(feed())
    answers = await asyncio.gather(*(call(k) for k in range(50)))
    await fed
    await pipe.stop()
    return found, answers


@pytest.mark.parametrize("func", [w.sums_up, w.sums_up_plainly])
def test_the_code_after_the_loop_runs(func: object) -> None:
    pipe = chain(Processor("sum", func=func))
    assert list(pipe.map(range(10))) == [("total", 45)]
    assert pipe.completed


def test_a_loop_that_swallows_every_exception_ends_too() -> None:
    pipe = chain(Processor("a", func=w.swallows_everything))
    assert list(pipe.map(range(5))) == list(range(5))
    assert pipe.completed


def test_the_end_of_the_input_is_an_end_and_a_timeout() -> None:
    assert issubclass(EndOfInput, EndOfStream)
    assert issubclass(EndOfInput, TimeoutError)
    assert str(EndOfInput("nothing is left")) == "nothing is left"


def test_a_caller_gets_all_results_of_its_value() -> None:
    """As with a generator: a list of several, None for none."""
    for stages in (
        [Processor("a", func=w.emits_twice_or_never)],
        [Processor("a", func=w.emits_twice_or_never), Processor("b", func=w.same)],
        [Processor("a", func=w.emits_twice_or_never), Processor("b", func=w.d_plain)],
    ):
        plus = int(stages[-1].undecorated is w.d_plain)
        with chain(*stages).run() as run:
            assert run.call(3, timeout=60) is None
            assert run.call(4, timeout=60) == 4 + plus
            assert run.call(5, timeout=60) == [5 + plus] * 2
            run.stop(60)


def test_an_emitted_value_is_a_copy() -> None:
    with chain(Processor("a", func=w.emits_an_array_and_changes_it)).run() as run:
        assert run.call(7, timeout=60).tolist() == [7, 7, 7]
        run.stop(60)


def test_a_worker_that_never_gets_again_answers_and_continues() -> None:
    found: list[int] = []
    run = chain(Processor("a", func=w.emits_for_ever_after_one)).run(sink=found)
    first = run.call(10, timeout=60)
    run.terminate()
    assert first == list(range(10, 10 + len(first)))
    assert found == list(range(10 + len(first), 10 + len(first) + len(found)))


# ---- names of uPipe


def test_counters_and_queues_of_a_worker() -> None:
    pipe = chain(Processor("count", func=w.counts_itself))
    (counts,) = pipe.map(range(4))
    # It adds to what it has emitted, which is nothing before the end.
    assert counts == [(k, k, k) for k in range(1, 5)]


def test_terminate_may_be_awaited() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.d_polling))
        assert not pipe.pending_termination
        await pipe.start()
        assert await pipe.sink_q.get() is None
        assert await pipe.emit_sync(1) == 2
        assert await pipe.emit(5)
        while (value := await pipe.sink_q.get()) is None:
            await asyncio.sleep(0.01)
        assert value == 6
        assert not pipe.pending_termination
        assert await pipe.terminate() is None
        assert pipe.pending_termination
        assert not pipe.running
        await pipe.wait_for_completion()
        with pytest.raises(EndOfStream, match="was terminated"):
            await pipe.emit(1)

    asyncio.run(main())


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def to_byte_array(self) -> bytes:
        return bytes([self.x])

    @staticmethod
    def from_byte_array(data: memoryview) -> Point:
        return Point(data[0])


def test_types_of_upipe() -> None:
    assert types.APIProcSettings(autoscale=3).autoscale == 3
    assert DType.CUSTOM_TYPE_START == 100
    assert DType.CUSTOM_TYPE_END == DType.CUSTOM_TYPE_START + 100
    assert DType.UNKNOWN is DType.PICKLED
    assert {d.name for d in DType}.isdisjoint({"CUSTOM_TYPE_START", "CUSTOM_100"})
    code = register_data_type(Point)
    assert register_data_type(Point) is code
    frame = DataFrame(Point(7))
    assert frame.dtype == code
    assert DataFrame.from_byte_arr(frame.to_byte_arr()).data.x == 7
    with pytest.raises(TypeError, match=r"to_byte_array.* is missing"):
        register_data_type(Path)
    with pytest.raises(TypeError, match="give cls, encode"):
        register_data_type(101)
    with pytest.raises(ValueError, match="is registered as"):
        register_data_type(Point, DType.CUSTOM_TYPE_START + 51)


def test_a_queue_of_so_many_bytes() -> None:
    assert MemQueue is MemQ
    with MemQ("sized", size=64_000) as queue:
        assert 30 < queue.buffer_count < 64
        queue.put(np.arange(3))
        assert queue.get().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="size must be at least 1"):
        MemQ("none", size=0)


# ---- programs like the examples of uPipe, with the import changed

FORWARDER = """
    import asyncio
    from ataraxis import pipeline as upipe
    from ataraxis.pipeline import DType, Pipe, Processor, Worker, types

    async def count():
        me = Worker()
        await me.join()
        k = 1
        while True:
            if await me.emit(k, DType.U32):
                if k == me.config["limit"]:
                    break
                k += 1
        print("counted", k)

    async def check():
        me = Worker("check")
        await me.join()
        while True:
            try:
                value = await me.get_sync()
            except TimeoutError:
                print("end")
                break
            queue = me.in_qs[0]
            if value != queue.exe_counter:
                raise BrokenPipeError(f"{value} is not {queue.exe_counter}")
            if value == me.config["limit"]:
                break
        print("checked", value)

    async def gather():
        me = Worker("gather")
        await me.join()
        n = 0
        while True:
            try:
                await me.get_sync()
            except TimeoutError:
                break
            n += 1
        print("gathered", n)

    async def plus_one():
        me = Worker("plus_one")
        await me.join()
        while True:
            value = await me.get()
            if value is None:
                continue
            while not await me.emit(value + 1):
                continue

    async def annotate():
        me = Worker()
        await me.join()
        while True:
            message = await me.get_sync(timeout=float("inf"))
            message["seen"] = message.get("seen", 0) + 1
            await me.emit(message, DType.JSON)

    async def images():
        import numpy as np
        me = Worker("images")
        await me.join()
        block = np.arange(10_000, dtype="u1").reshape(100, 100)
        for _ in range(100):
            while not await me.emit(block, DType.ND_ARR):
                pass

    async def shapes():
        me = Worker("shapes")
        await me.join()
        n = 0
        while True:
            try:
                block = await me.get_sync()
            except TimeoutError:
                break
            n += block.shape == (100, 100) and int(block.sum()) == 1273080
        print("blocks", n)

    config = {"limit": 3000}
"""

PROGRAMS = {
    "a counter and a reader that checks": (
        """
        a = Processor("count", func=count, config=config)
        pipe = Pipe("plus-one")
        pipe.add(a).add(Processor("check", func=check, config=config))
        await pipe.start()
        await pipe.wait_for_completion()
        """,
        {"[count] counted 3000", "[check] checked 3000"},
    ),
    "two children": (
        """
        a = Processor("count", func=count, config=config)
        a.add(Processor("gather", func=gather))
        pipe = Pipe("fan")
        pipe.add(a).add(Processor("check", func=check, config=config))
        await pipe.start()
        await pipe.wait_for_completion()
        """,
        {"[count] counted 3000", "[check] checked 3000", "[gather] gathered 3000"},
    ),
    "two producers and several readers": (
        """
        several = types.APIProcSettings(autoscale=3, host="localhost")
        c = Processor("gather", func=gather, settings=several)
        pipe = Pipe("double")
        pipe.add(Processor("a", func=count, config=config)).add(c)
        pipe.add(Processor("b", func=count, config=config)).add(c)
        await pipe.start()
        await pipe.wait_for_completion()
        """,
        {"[a] counted 3000", "[b] counted 3000", "sum 6000"},
    ),
    "a value goes round through the program": (
        """
        pipe = Pipe("plus")
        pipe.add(upipe.Processor("plus_one", func=plus_one))
        await pipe.load()
        await pipe.start()
        assert await pipe.sink_q.get() is None
        value = 0
        while pipe.running:
            value = await pipe.emit_sync(value, timeout_ms=-1)
            if value == 300:
                break
        await pipe.terminate()
        await pipe.wait_for_completion()
        print("round", value)
        """,
        {"round 300"},
    ),
    "messages through three models": (
        """
        pipe = Pipe("models")
        first, second, third = [Processor(n, func=annotate) for n in "abc"]
        pipe.add(first).add(second).add(third)
        await pipe.start()
        print(await pipe.emit_sync({"item_id": "42"}))
        await pipe.terminate()
        """,
        {"{'item_id': '42', 'seen': 3}"},
    ),
    "images": (
        """
        pipe = Pipe("streamer")
        host = types.APIProcSettings(host="localhost")
        images_ = Processor("images", func=images)
        pipe.add(images_).add(Processor("shapes", func=shapes, settings=host))
        await pipe.start()
        await pipe.wait_for_completion()
        """,
        {"[shapes] blocks 100"},
    ),
    "a thread emits": (
        """
        from threading import Thread

        def emit(pipe):
            for k in range(500):
                while not asyncio.run(pipe.emit(k)):
                    pass
            pipe.execution.stop(wait=False)

        pipe = Pipe("emit-pipe")
        pipe.add(Processor("gather", func=gather))
        await pipe.start()
        thread = Thread(target=emit, args=(pipe,))
        thread.start()
        await pipe.wait_for_completion()
        thread.join()
        """,
        {"[gather] gathered 500"},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_upipe(name: str) -> None:
    body, expected = PROGRAMS[name]
    lines = programs.run(_program(body), timeout=120).splitlines()
    if "sum 6000" in expected:
        gathered = [int(x.split()[-1]) for x in lines if " gathered " in x]
        assert len(gathered) == 3
        lines.append(f"sum {sum(gathered)}")
    assert expected <= set(lines)


def _program(body: str) -> str:
    import textwrap

    main = textwrap.indent(textwrap.dedent(body), "    ")
    return (
        textwrap.dedent(FORWARDER)
        + "\nasync def main():\n"
        + main
        + '\nif __name__ == "__main__":\n    asyncio.run(main())\n'
    )


def test_scripts_of_upipe(tmp_path: Path) -> None:
    """`entry=` is a path from where the program runs, and has its own ``__main__``."""
    (tmp_path / "it.py").write_text(w.D_ENTRY)
    code = """
        import asyncio
        from ataraxis.pipeline import Pipe, Processor

        async def main():
            pipe = Pipe("scripts")
            pipe.add(Processor("a", entry="./it.py")).add(Processor("b", entry="it.py"))
            await pipe.start()
            print(await asyncio.gather(*(pipe.emit_sync(k) for k in range(5))))
            await pipe.stop()

        asyncio.run(main())
    """
    assert programs.run(code, cwd=tmp_path, timeout=60) == "[2, 3, 4, 5, 6]\n"
