"""Pipes: every value has its result, in the order that was requested."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import programs
import pytest
import workers_pipe as w
import xarray as xr
from deadline import wait_until
from pipelines import chain
from places import PRINTED
from test_seed_array import chapter_file

from ataraxis import Consumer, Producer
from ataraxis.errors import EndOfStream, NotConnectedError, PipeError
from ataraxis.pipeline import Pipe, Processor, Worker, processor
from ataraxis.pipeline.graph import ordered_region, ordering_windows

SEED = PRINTED / "pipe_counter.txt"
DECLARATION = SEED.with_name("pipe_declaration.txt")
IMPORT = "from upipe import"


def test_a_stream_that_pauses_does_not_fail_the_pipe_it_feeds() -> None:
    found: list[int] = []
    with Producer("s", shape=(), dtype="i8", buffer_count=8) as producer:
        reader = Consumer("s", policy="lossless")
        with chain(Processor("same", func=w.same)).run(
            reader, lambda value: found.append(int(value))
        ) as run:
            for k in range(2):
                producer.send(np.int64(k))
                wait_until(lambda k=k: len(found) == k + 1, 60)
                began = time.monotonic()
                wait_until(lambda b=began: time.monotonic() - b > 0.6)
                assert run.state == "running"
            producer.end()
        reader.close()
    assert found == [0, 1]


# ---- the seed


def test_the_copies_are_the_chapter_word_for_word() -> None:
    chapter = chapter_file().with_name("upipe.md")
    text = chapter.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert blocks == [DECLARATION.read_text(encoding="utf-8")]
    code = text[text.index("    import asyncio") :]
    printed = re.sub(r"^ {4}", "", code, flags=re.MULTILINE)
    assert SEED.read_text(encoding="utf-8").split() == printed.split()


def seed_counter(limit: int) -> str:
    code = SEED.read_text(encoding="utf-8")
    assert IMPORT in code
    code = code.replace(IMPORT, "from ataraxis.pipeline import")
    return code.replace("limit = 100000", f"limit = {limit}")


def run_counter(limit: int) -> list[str]:
    # Its get_event_loop() is deprecated where no loop runs; that is the seed's own.
    warnings = "-W error -W ignore::DeprecationWarning:__main__"
    out = programs.run(seed_counter(limit), warnings=warnings, timeout=120)
    return out.splitlines()


def test_the_seeds_declaration_as_printed() -> None:
    """It is in an ``async`` function, and its processors have no code."""
    head, _, tail = seed_counter(3).partition("async def main():\n")
    main = textwrap.indent(textwrap.dedent(DECLARATION.read_text("utf-8")), "    ")
    code = f"{head}async def main():\n{main}\n{tail[tail.index('if __name__') :]}"
    lines = programs.run(
        code, warnings="-W error -W ignore::DeprecationWarning:__main__", timeout=120
    ).splitlines()
    assert "[a] a done" in lines
    assert "[b] embedded processor b completed" in lines


def test_the_seeds_counter_as_printed() -> None:
    lines = run_counter(20_000)
    for name, last in (("a", 20), ("b", 19)):  # b leaves its loop before it prints
        counts = [x for x in lines if x.startswith(f"[{name}]") and x.endswith("K")]
        assert counts == [f"[{name}] {float(k)}K" for k in range(1, last + 1)]
    assert "[a] a done" in lines
    assert "[b] embedded processor b completed" in lines
    assert "failed" not in "".join(lines)
    assert lines[-1] == "Running"


# ---- values


def test_a_chain_gives_back_everything_in_order() -> None:
    pipe = chain(Processor("a", func=w.double), Processor("b", func=w.double))
    assert list(pipe.map(range(300))) == [4 * k for k in range(300)]
    assert pipe.completed
    assert not pipe.running


@pytest.mark.parametrize("ordered", [True, False])
def test_several_workers(ordered: bool) -> None:
    pipe = chain(
        Processor("a", func=w.uneven, workers=3, ordered=ordered),
        Processor("b", func=w.same),
    )
    found = list(pipe.map(range(1000)))
    assert sorted(found) == list(range(1000))
    if ordered:
        assert found == list(range(1000))


def test_order_holds_across_parallel_stages_filters_and_generators() -> None:
    pipe = chain(
        Processor("a", func=w.uneven, workers=2, ordered=True),
        Processor("b", func=w.only_even, workers=2, ordered=True),
        Processor("c", func=w.several, workers=2, ordered=True),
    )
    found = list(pipe.map(range(600)))
    assert found == [k for k in range(0, 600, 2) for _ in range(k % 4)]


def test_one_late_value_does_not_stop_ordered_stages() -> None:
    """All others wait for it, and every queue still has room for it."""
    pipe = chain(
        Processor("a", func=w.first_late, workers=2, ordered=True),
        Processor("b", func=w.same, workers=2, ordered=True),
        Processor("c", func=w.same),
    )
    assert list(pipe.map(range(2000))) == list(range(2000))


def test_an_ordered_last_stage_needs_no_sink() -> None:
    """The ordering window moves on although no process reads the results."""
    with chain(Processor("a", func=w.same, workers=2, ordered=True)).run() as run:
        run.wait_until_ready(60)
        assert all(run.emit(k, timeout=60) for k in range(400))
        run.stop(60)


def test_what_is_dropped_before_an_ordered_stage_does_not_block_the_rest() -> None:
    pipe = chain(
        Processor("first", func=w.slow, on_full="drop_oldest", buffer_count=2),
        Processor("a", func=w.same, workers=2, ordered=True),
        Processor("b", func=w.same),
    )
    found: list[int] = []
    with pipe.run(range(300), found) as run:
        pass
    statistics = run.statistics()
    assert found == sorted(set(found))
    assert len(found) == int(statistics.received.sel(worker="first"))
    assert len(found) < 100 < max(found)
    with pytest.raises(ValueError, match="order needs on_full='block'"):
        chain(Processor("a", func=w.same, workers=2, on_full="latest"),
              Processor("b", func=w.same, workers=2, ordered=True)).graph()  # fmt: skip


def test_where_values_enter_regions_that_are_put_in_order() -> None:
    two = {"func": w.same, "workers": 2}
    a, d = Processor("a", func=w.same), Processor("d", func=w.same)
    b = Processor("b", **two)
    c = Processor("c", **two, ordered=True)
    a.add(b).add(c).add(d)
    a.add(c)
    d.add(Processor("e", **two, ordered=True))
    pipe = chain(a)
    graph = pipe.graph()
    names = [node.name for node in graph.nodes]
    A, B, C, D, E = (names.index(k) for k in "abcde")
    assert ordering_windows(graph) == {
        (A, B): ((D, (B, C)),),
        (A, C): ((D, (C,)),),
        (D, E): ((-1, (E,)),),
    }
    assert ordered_region(graph) == {B, C, D, E, -1}


def test_a_diamond() -> None:
    pipe, found = Pipe("diamond"), []
    split = pipe.add(Processor("split", func=w.same))
    merge = Processor("merge", func=w.same)
    for name, func in (("left", w.left), ("right", w.right)):
        split.add(Processor(name, func=func, workers=2, ordered=True)).add(merge)
    with pipe.run(range(500), found):
        pass
    for side in "lr":
        assert [k for s, k in found if s == side] == list(range(500))


def test_a_source_a_class_and_async_functions(capsys: pytest.CaptureFixture) -> None:
    pipe, found = Pipe("p"), []
    source = pipe.add(Processor("counting", func=w.counting))
    source.add(Processor("later", func=w.later)).add(Processor("sum", func=w.Sum))
    with pipe.run(sink=found):
        pass
    assert found == np.cumsum(range(1, 51)).tolist()
    assert f"[sum] the sum was {found[-1]}\n" in capsys.readouterr().out


def test_decorated_functions_and_closures_travel() -> None:
    plus = 3

    @processor(name="plus")
    def added(value: int) -> int:
        return value + plus

    pipe = chain(w.decorated, added)
    assert list(pipe.map(range(100))) == [3 - k for k in range(100)]
    assert (added(1), w.decorated(2)) == (4, -2)


def test_results_of_single_values() -> None:
    pipe = chain(
        Processor("a", func=w.double), Processor("b", func=w.double, workers=2)
    )
    with pipe.run() as run:
        assert [run.call(k, timeout=30) for k in range(20)] == [
            4 * k for k in range(20)
        ]
        assert run.call(np.arange(3), timeout=30).tolist() == [0, 4, 8]
        run.stop(30)
    with pytest.raises(EndOfStream, match="takes no values"):
        run.emit(1)


def test_awaited() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.double), Processor("b", func=w.only_even))
        await pipe.start()
        assert pipe.running
        answers = await asyncio.gather(*(pipe.emit_sync(k) for k in range(10)))
        assert answers == [2 * k for k in range(10)]
        assert await pipe.emit(4)
        await pipe.stop()
        assert pipe.completed

    asyncio.run(main())


# ---- the dialect


@pytest.mark.parametrize("func", [w.forward, w.plain_forward])
def test_get_and_emit(func: object) -> None:
    config = {"plus": 0}
    pipe = chain(
        Processor("forward", func=func, config=config), Processor("end", func=w.same)
    )
    assert list(pipe.map(range(200))) == list(range(200))


def test_emit_and_get_are_coroutines_in_every_way() -> None:
    pipe = chain(Processor("ways", func=w.every_way), Processor("end", func=w.same))
    found: list[object] = []
    with pipe.run(sink=found) as run:
        assert [run.emit(k) for k in range(4)] == [True] * 4
        wait_until(lambda: len(found) == 2, 60)
        run.stop(30)
    results, error = found
    assert results == (
        0, 1, 2, "slept", True, 3, "cannot reuse already awaited coroutine",
        ["RuntimeWarning", "RuntimeWarning"], "cancelled", None, "timeout",
    )  # fmt: skip
    assert error == "TypeError"


def test_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ataraxis.pipeline import Worker\n"
        "import asyncio\n"
        "async def main():\n"
        "    me = Worker()\n"
        "    await me.join()\n"
        "    while True:\n"
        "        await me.emit_sync(-await me.get_sync(None))\n"
        "asyncio.run(main())\n"
    )
    pipe = chain(Processor("script", entry=str(script)), Processor("end", func=w.same))
    assert list(pipe.map(range(10))) == [-k for k in range(10)]


def test_a_producer_without_readers_ends_in_good_order() -> None:
    pipe = chain(
        Processor("produce", func=w.produce_for_ever, buffer_count=4),
        Processor("consume", func=w.consume_few),
    )
    with pipe.run() as run:
        run.wait(60)
    assert run.state == "completed"


def test_stop_ends_sources_and_processes_the_values_inside() -> None:
    pipe, found = Pipe("p"), []
    pipe.add(Processor("endless", func=w.endless)).add(Processor("b", func=w.slow))
    run = pipe.run(sink=found)
    wait_until(lambda: len(found) > 5, what="some results")
    run.stop(60)
    assert found == list(range(len(found)))
    assert run.statistics().received.sel(worker="(end)") == len(found)
    emitted = run.statistics().emitted.sel(worker="endless")
    assert emitted == len(found)


def test_outside_of_a_worker_connect_raises() -> None:
    with pytest.raises(NotConnectedError, match="not a worker of a pipe"):
        Processor("a").open()
    with pytest.raises(NotConnectedError):
        asyncio.run(Worker("a").join())
    with pytest.raises(NotConnectedError, match="connect"):
        asyncio.run(Processor("a").emit(1))
    with (
        pytest.raises(PipeError) as caught,
        chain(Processor("x", func=w.wrong_name)).run(),
    ):
        pass
    assert "worker of processor 'x', not of 'other'" in str(caught.value.exceptions[0])


def test_data_frames_of_upipe() -> None:
    from ataraxis.pipeline import DataFrame, DType

    for value in (7, [-1, None, [2**70]], {"a": (1, 2.5)}, b"x", None):
        frame = DataFrame(value)
        assert frame.data == value
        assert DataFrame.from_byte_arr(frame.to_byte_arr()).data == value
    assert DataFrame(7, DType.U32, sequence=3).dtype == DType.U32
    block = DataFrame(np.arange(6).reshape(2, 3))
    assert block.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match=r"no frame carries a builtins\.object"):
        DataFrame(object())
    pipe = chain(Processor("framed", func=w.framed), Processor("b", func=w.as_pair))
    assert list(pipe.map([1, "two", [3]])) == [
        ("int", 1), ("str", "two"), ("list", [3]),
    ]  # fmt: skip


# ---- arrays


def labelled(blocks: int, rows: int, channels: int = 4) -> list[xr.DataArray]:
    rng = np.random.default_rng(1)
    return [
        xr.DataArray(
            rng.normal(size=(rows, channels)),
            {
                "time": np.arange(k * rows, (k + 1) * rows) / 1000,
                "channel": list("abcd"),
            },
            ("time", "channel"),
            attrs={"units": "mV"},
        )
        for k in range(blocks)
    ]


def test_labels_are_kept_along_a_chain() -> None:
    blocks = labelled(5, 10)
    found = list(chain(Processor("a", func=w.plain_array)).map(blocks))
    for before, after in zip(blocks, found, strict=True):
        assert after.dims == ("time", "channel")
        assert after.attrs == {"units": "mV"}
        xr.testing.assert_equal(after, before * 2)


def test_an_xarray_at_the_tail() -> None:
    made = xr.DataArray(np.zeros((6, 2)), dims=("time", "channel"), name="x")
    pipe = chain(Processor("a", func=w.double, workers=2, ordered=True))
    with pipe.run([np.full(2, 1.0), np.full((3, 2), 2.0), np.full(2, 3.0)], made):
        pass
    assert made.values[:, 1].tolist() == [2, 4, 4, 4, 6, 0]
    with (
        pytest.raises(PipeError) as caught,
        pipe.run([np.zeros((7, 2))], made) as run,
    ):
        run.wait(60)
    assert "6 rows along 'time'" in str(caught.value.exceptions[0])
    with pytest.raises(TypeError, match="at least one dimension"):
        pipe.run([], xr.DataArray(0.0))


@pytest.mark.parametrize("workers", [1, 2])
def test_overlap_makes_blocks_seamless(workers: int) -> None:
    blocks = labelled(20, 16)
    pipe = chain(
        Processor("a", func=w.smooth, overlap=4, workers=workers, ordered=True)
    )
    found = xr.concat(list(pipe.map(blocks)), "time")
    whole = xr.concat(blocks, "time")
    np.testing.assert_allclose(found.values, w.smooth(whole.values), atol=1e-12)
    xr.testing.assert_equal(found.time, whole.time)


def test_split_by_channel_is_joined_again() -> None:
    blocks = labelled(20, 16)
    pipe = chain(
        Processor("a", func=w.plain_array, split="channel", workers=3),
        Processor("b", func=w.same),
    )
    found = list(pipe.map(blocks))
    assert len(found) == 20
    for before, after in zip(blocks, found, strict=True):
        xr.testing.assert_equal(after, before * 2)


def test_large_arrays_take_the_detour() -> None:
    blocks = [np.full((200, 100), k, "f8") for k in range(10)]
    found = list(chain(Processor("a", func=w.double)).map(blocks))
    assert [block[0, 0] for block in found] == [2 * k for k in range(10)]


def test_batches() -> None:
    stage = Processor("a", func=w.batch, max_batch=16, max_wait=0.05)
    assert list(chain(stage).map(range(200))) == list(range(200))
    sizes = Processor("a", func=w.batch_sizes, max_batch=16, max_wait=0.2)
    found = list(chain(sizes).map(range(200)))
    assert len(found) == 200
    assert max(found) > 4
    with pytest.raises(PipeError, match="failed") as caught:
        list(chain(Processor("a", func=w.short_batch, max_batch=4)).map(range(9)))
    assert "must return one result for each" in str(caught.value.exceptions[0])


# ---- what may be dropped


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
def test_overflow_drops_and_counts(overflow: str) -> None:
    pipe, found = Pipe("p"), []
    pipe.add(Processor("counting", func=w.counting)).add(
        Processor("slow", func=w.slow, overflow=overflow, buffer_count=3)
    )
    with pipe.run(sink=found) as run:
        pass
    dropped = int(run.statistics().dropped.sel(worker="counting"))
    assert dropped > 0
    assert len(found) + dropped == 50
    assert found == sorted(found)
    if overflow != "drop_newest":
        assert found[-1] == 49


def test_overflow_as_an_error() -> None:
    pipe = Pipe("p")
    pipe.add(Processor("counting", func=w.counting)).add(
        Processor("slow", func=w.slow, on_full="raise", buffer_count=2)
    )
    with pytest.raises(PipeError) as caught, pipe.run():
        pass
    assert "QueueFull" in str(caught.value.exceptions[0])


def test_the_old_names_of_renamed_options_are_accepted(tmp_path: Path) -> None:
    old = Processor("p", func=w.same, overflow="error")
    new = Processor("p", func=w.same, on_full="raise")
    assert old.settings == new.settings
    assert new.settings.overflow == "raise"
    assert old.settings.as_dict() == {"overflow": "error"}, "the format keeps it"
    with pytest.raises(TypeError, match="old name"):
        Processor("p", func=w.same, overflow="block", on_full="block")
    with pytest.raises(ValueError, match="on_full must be one of"):
        Processor("p", func=w.same, on_full="error")
    with pytest.raises(TypeError, match="old name"):
        Pipe("p", letters=tmp_path, dead_letters=tmp_path)
    for keywords in ({"letters": tmp_path}, {"dead_letters": tmp_path}):
        pipe = Pipe("p", **keywords)
        pipe.add(Processor("absolute", func=abs, on_error="skip"))
        results = pipe.map([-1, "two"])
        assert list(results) == [1]
        assert [letter.value for letter in results.dead_letters] == ["two"]


# ---- the graph as a value


def test_a_graph_is_checked_before_anything_starts(context: Path) -> None:
    a, b = Processor("a", func=w.same), Processor("b", func=w.same)
    a.add(b).add(a)
    for pipe, message in (
        (chain(a), "cycle, a -> b -> a"),
        (Pipe("empty"), "is empty"),
        (
            chain(Processor("x", func=w.same), Processor("x", func=w.same)),
            "have the name",
        ),
        (chain(Processor("x")), "nothing to run"),
        (
            chain(
                Processor("x", func=w.same, workers=2),
                Processor("y", func=w.same, overlap=3),
            ),
            "need one worker before",
        ),
        (
            chain(Processor("x", func=w.same), Processor("y", func=w.counting)),
            "parents",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.run()
    assert list(context.iterdir()) == []
    with pytest.raises(TypeError, match="no setting colour"):
        Processor("a", func=w.same, colour=3)
    with pytest.raises(ChildProcessError, match="entry= and func="):
        Processor("a", "x.py", w.same)
    with pytest.raises(ValueError, match="at least 1"):
        Processor("a", func=w.same, workers=0)


def test_json_there_and_back() -> None:
    pipe = Pipe("there")
    a = pipe.add(Processor("a", func=w.double, config={"k": [1]}))
    b = Processor("b", func=w.Sum, workers=2, ordered=True, restart="always")
    a.add(b)
    a.add(Processor("c", entry="x.py")).add(b)
    text = pipe.to_json()
    again = Pipe.from_json(text)
    assert again.to_json() == text
    node = again.graph().nodes[again.graph().by_name["b"]]
    assert node.settings.restart.when == "always"
    local = chain(Processor("a", func=lambda value: value))
    with pytest.raises(ValueError, match="pickle"):
        Pipe.from_json(local.to_json())
    copy = Pipe.from_json(local.to_json(), allow_pickle=True)
    assert list(copy.map([1, 2])) == [1, 2]
    with pytest.raises(ValueError, match="invalid pipe JSON"):
        Pipe.from_json("[]")


def test_drawing_statistics_and_events() -> None:
    pipe, found = Pipe("p"), []
    a = pipe.add(Processor("a<b", func=w.double, workers=2))
    a.add(Processor("c", func=w.same))
    assert "a&lt;b" in pipe._repr_svg_()
    assert pipe._repr_svg_().count("<rect") == 2

    async def main() -> list[str]:
        run = await pipe.start(range(50), found)
        seen = [event.what async for event in run.events()]
        await pipe.wait_for_completion()
        return seen

    seen = asyncio.run(main())
    assert seen[-1] == "completed"
    assert seen.count("ready") == 3
    counters = pipe.execution.statistics()
    assert int(counters.received.sel(worker="c")) == 50
    assert int(counters.sent.sel(edge="a<b -> c")) == 50
    assert int(counters.latency.sel(worker="c").sum()) == 50
    assert list(counters.worker.values) == ["a<b.0", "a<b.1", "c", "(end)"]
    assert pipe.execution.progress == (50, 50)


def test_two_pipes_of_one_name_run_at_once() -> None:
    first, second = (chain(Processor("a", func=w.double)) for _ in range(2))
    with first.run() as one, second.run() as two:
        assert (one.call(1, timeout=30), two.call(2, timeout=30)) == (2, 4)
        with pytest.raises(RuntimeError, match="runs already"):
            first.run()
        one.stop(30)
        two.stop(30)


def test_settings_of_upipe() -> None:
    from ataraxis.pipeline import APIProcSettings

    stage = Processor("a", func=w.same, settings=APIProcSettings(autoscale=3))
    assert stage.settings.workers == 3
    assert sys.getsizeof(stage.settings) > 0


def test_emit_returns_false_without_room() -> None:
    pipe = chain(Processor("a", func=w.slow, buffer_count=2))
    with pipe.run() as run:
        sent = [run.emit(k, timeout=0) for k in range(50)]
        run.stop(60)
    assert sent[0]
    assert not sent[-1]
    assert int(run.statistics().received.sel(worker="a")) == sum(sent)


def test_emit_waits_for_workers_that_are_starting() -> None:
    pipe = chain(Processor("eager", func=w.eager),
                 Processor("slow", func=w.SlowStart, buffer_count=2))  # fmt: skip
    found: list[object] = []
    with pipe.run(sink=found):
        pass
    assert found == [*range(20), ("failed", 0)]


def test_an_engine_is_asked_of_each_host_and_worker() -> None:
    from ataraxis.pipeline import Local

    calls: list[str] = []

    class Watched(Local):
        def prepare(self, plan: object, board: object) -> None:
            calls.append("prepare")

        def spawn(self, host: str, spec: object) -> object:
            calls.append(host)
            return super().spawn(host, spec)  # type: ignore[arg-type]

        def release(self, run: str) -> None:
            calls.append("release")

    pipe, found = Pipe("p"), []
    # On an engine of one host, a pipe of several runs as it is.
    pipe.add(Processor("a", func=w.double)).add(
        Processor("b", func=w.double, host="there")
    )
    with Watched() as local, pipe.run(range(5), found, engine=local) as run:
        run.wait(60)
        assert run.where == {("a", 0): "localhost", ("b", 0): "localhost"}
    assert found == [0, 4, 8, 12, 16]
    assert calls == ["prepare", "localhost", "localhost", "release"]


def test_a_worker_is_told_what_it_runs_in_json() -> None:
    from ataraxis.pipeline.graph import Graph
    from ataraxis.pipeline.placement import Host, place
    from ataraxis.pipeline.plan import Plan
    from ataraxis.pipeline.spec import WorkerSpec
    from ataraxis.shm.context import Context

    pipe = Pipe("p")
    pipe.add(Processor("a", func=w.double, workers=2, ordered=True, tag="x")).add(
        Processor("b", func=lambda value: value, workers=2, key="n", config={"k": [1]})
    )
    graph = Graph.of("p", pipe._roots)
    hosts = (Host("acq"), Host("gpu", ("x",)), Host("cpu", ("x",)))
    plan = Plan(graph, "p-1", Context.of(None), Path("/letters"), True, hosts,
                place(graph, hosts))  # fmt: skip
    specs = plan.specs()
    assert [spec.host for spec in specs] == ["gpu", "cpu", "acq", "acq"]
    for spec in specs:
        data = spec.to_bytes()
        assert isinstance(json.loads(data), dict)
        assert WorkerSpec.from_bytes(data) == spec
    for wrong in (b"{}", b"[]", data.replace(b'"row":3', b'"row":"3"')):
        with pytest.raises(ValueError, match="invalid specification of a worker"):
            WorkerSpec.from_bytes(wrong)
    edges = {(e.source, e.name, e.to, e.inbox) for e in plan.edges()}
    assert ("acq", "p-1.edge.in.a", "gpu", "p-1.in.a") in edges
    assert ("gpu", "p-1.edge.in.b.0", "acq", "p-1.in.b.0") in edges
    assert len(edges) == 2 + 4
    names = [size.name for size in plan.queues("gpu")]
    assert names == ["p-1.in.a", "p-1.edge.in.b.0", "p-1.edge.in.b.1"]


def test_top_shows_pipes() -> None:
    from click.testing import CliRunner

    from ataraxis.cli import main

    with chain(Processor("stage", func=w.double, workers=2)).run() as run:
        run.call(1, timeout=60)
        table = CliRunner().invoke(main, ["top", "--once", "--interval", "0.01"])
        report = CliRunner().invoke(main, ["top", "--json", "--interval", "0.01"])
        run.stop(60)
    assert "stage.1" in table.output
    assert run.name in table.output
    assert [p["worker"] for p in json.loads(report.output)["pipes"]] == [
        "stage.0",
        "stage.1",
        "(end)",
    ]


def test_values_come_back_as_they_were() -> None:
    values = [
        -1, 2**70, True, None, 1.5, 2j, "ä", b"x", [], [1, [""]], (1, (2,)),
        {1: "a", None: [True]}, np.float32(1.5), np.datetime64("2026-01-01", "ns"),
    ]  # fmt: skip
    pipe = chain(Processor("a", func=w.as_pair))
    with pipe.run() as run:
        answers = [run.call(value, timeout=60) for value in values]
        run.stop(60)
    for value, (kind, answer) in zip(values, answers, strict=True):
        assert kind == type(value).__name__
        assert answer == value
        assert type(answer) is type(value)
