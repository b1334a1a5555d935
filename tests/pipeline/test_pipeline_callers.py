"""Callers: giving up does not affect others; all get the cause of a failure."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest
import workers_pipe as w
from deadline import wait_until
from pipelines import chain

from ataraxis.errors import EndOfStream, PipeError, ProcessorError
from ataraxis.pipeline import Processor


def test_a_cancelled_caller_does_not_affect_others() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.sleeps))
        run = await pipe.start()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pipe.emit_sync(0.4), 0.05)
        task = asyncio.create_task(pipe.emit_sync(0.2))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pipe.emit_sync(0) == 0
        assert run.late_answers == 2
        assert "2 late answers dropped" in repr(run)
        await pipe.stop()
        assert pipe.completed

    asyncio.run(main())


def test_a_timeout_of_a_call_does_not_affect_others() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.sleeps))
        await pipe.start()
        with pytest.raises(TimeoutError, match="did not answer within 50 ms"):
            await pipe.emit_sync(0.4, timeout_ms=50)
        assert await pipe.emit_sync(0, timeout_ms=60_000) == 0
        await pipe.stop()

    asyncio.run(main())


def test_a_thread_that_gives_up_does_not_affect_others() -> None:
    with chain(Processor("a", func=w.sleeps)).run() as run:
        run.wait_until_ready(60)
        with pytest.raises(TimeoutError, match=r"did not answer within 0\.05 s"):
            run.call(0.4, timeout=0.05)
        future = run.submit(0.1)
        assert future.cancel()
        assert run.call(0, timeout=60) == 0
        with pytest.raises(CancelledError):
            future.result(0)
        assert run.late_answers == 2
        run.stop(60)
    assert run.state == "completed"


def test_terminate_raises_in_callers_that_wait() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.sleeps))
        await pipe.start()
        with pytest.raises(TimeoutError):
            await pipe.emit_sync(3600, timeout_ms=100)
        waits = asyncio.create_task(pipe.emit_sync(1))
        await asyncio.sleep(0.05)
        await pipe.terminate()
        with pytest.raises(EndOfStream, match="was terminated"):
            await waits
        await asyncio.wait_for(pipe.wait_for_completion(), 10)
        assert not pipe.completed
        with pytest.raises(EndOfStream, match="was terminated"):
            await pipe.emit_sync(1)

    asyncio.run(main())


def test_a_full_pipe_does_not_block_the_event_loop() -> None:
    """Callers wait for room in the loop: a cancelled one has put nothing."""

    async def main() -> None:
        pipe = chain(Processor("a", func=w.sleeps, buffer_count=2))
        run = await pipe.start()
        assert await pipe.emit_sync(0) == 0
        first = asyncio.create_task(pipe.emit_sync(1.0))
        await asyncio.sleep(0.05)
        callers = [asyncio.create_task(pipe.emit_sync(0)) for _ in range(50)]
        before = threading.active_count()
        await asyncio.sleep(0.1)
        assert threading.active_count() <= before + 1  # the one that sleeps for all
        for caller in callers[5:]:
            caller.cancel()
        _, pending = await asyncio.wait(callers[5:], timeout=5)
        assert not pending
        assert await first == 1.0
        assert await asyncio.gather(*callers[:5]) == [0] * 5
        await pipe.stop()
        assert run.progress[0] <= 12  # the 45 that gave up early put nothing

    asyncio.run(main())


def test_a_source_that_waits_for_room_does_not_block_a_caller() -> None:
    """A put that may wait does not hold the lock of the feeder."""

    async def main() -> None:
        pipe = chain(Processor("a", func=w.sleeps, buffer_count=2))
        await pipe.start([0.3] * 20, [])
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        worst = 0.0
        task = asyncio.create_task(pipe.emit_sync(0))
        for _ in range(20):
            before = loop.time()
            await asyncio.sleep(0.01)
            worst = max(worst, loop.time() - before)
        task.cancel()
        await pipe.terminate()
        assert worst < 0.25

    asyncio.run(main())


# ---- the cause


def test_every_later_caller_gets_the_cause() -> None:
    async def main() -> None:
        pipe = chain(Processor("a", func=w.fails_at_five))
        await pipe.start()
        with pytest.raises(PipeError, match="five is not here"):
            await pipe.emit_sync(5)
        with pytest.raises(PipeError, match="five is not here"):
            await pipe.wait_for_completion()
        for _ in range(2):
            with pytest.raises(PipeError, match="processor 'a', worker 0: KeyError"):
                await pipe.emit_sync(1)
            with pytest.raises(PipeError, match="five is not here"):
                await pipe.emit(1)
        run = pipe.execution
        with pytest.raises(PipeError) as caught:
            run.call(1, timeout=1)
        assert caught.value.exceptions[0].processor == "a"
        with pytest.raises(PipeError):
            run.submit(1)

    asyncio.run(main())


def test_the_supervisor_fails_the_run_with_what_it_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = chain(Processor("a", func=w.same)).run()
    assert run.call(1, timeout=60) == 1

    def broken() -> None:
        raise SystemExit("an internal bug")

    run._supervisor.do(broken)
    with pytest.raises(PipeError, match="its supervisor raised SystemExit: an"):
        run.wait(30)
    with pytest.raises(PipeError, match="an internal bug"):
        run.call(2, timeout=30)
    assert run.state == "failed"


def test_a_step_of_the_end_that_raises_is_reported_and_the_others_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = chain(Processor("a", func=w.same)).run()
    assert run.call(1, timeout=60) == 1

    def close() -> None:
        real()
        raise OSError("no more descriptors")

    real = run._collector.close
    monkeypatch.setattr(run._collector, "close", close)
    run.stop(wait=False)
    with pytest.raises(PipeError, match="its end raised OSError: no more descriptors"):
        run.wait(30)


@pytest.mark.parametrize("where", ["source", "sink"])
def test_sys_exit_in_a_source_or_a_sink_fails_the_pipe(where: str) -> None:
    def source() -> object:
        yield 1
        if where == "source":
            sys.exit("enough")
        yield 2

    def sink(value: int) -> None:
        if where == "sink":
            sys.exit("enough")

    with (
        pytest.raises(PipeError, match=f"the {where} of the pipe raised .*enough"),
        chain(Processor("a", func=w.same)).run(source(), sink),
    ):
        pass


def test_a_future_that_its_owner_has_set_is_left_alone() -> None:
    with chain(Processor("a", func=w.sleeps)).run() as run:
        futures: list[Future] = [run.submit(0.05), run.submit(0.05)]
        futures[0].set_result("mine")
        futures[1].set_running_or_notify_cancel()
        assert run.call(0, timeout=60) == 0
        run.stop(60)
    assert futures[0].result(0) == "mine"


def test_a_caller_gets_an_error_if_its_value_went_to_the_dead_letters(
    tmp_path: Path,
) -> None:
    pipe = chain(
        Processor("a", func=w.fails_at_odd, on_error="skip"),
        Processor("b", func=w.double),
        dead_letters=tmp_path / "letters",
    )
    with pipe.run() as run:
        with pytest.raises(ProcessorError, match="went to the dead letters"):
            run.call(3, timeout=60)
        assert run.call(4, timeout=60) == 8
        run.stop(60)
    (letter,) = run.dead_letters
    assert (letter.value, letter.processor, letter.why) == (3, "a", "ValueError: odd")


def test_callers_that_give_up_while_others_wait() -> None:
    """Every second one gives up; every other answer is right."""

    async def main() -> None:
        pipe = chain(Processor("a", func=w.double), Processor("b", func=w.same))
        run = await pipe.start()

        async def call(k: int) -> int | None:
            try:
                async with asyncio.timeout(0.001 * (k % 7) if k % 2 else None):
                    return await pipe.emit_sync(k)
            except TimeoutError:
                return None

        answers = await asyncio.gather(*(call(k) for k in range(200)))
        assert answers[::2] == [2 * k for k in range(0, 200, 2)]
        assert all(a in (None, 2 * k) for k, a in enumerate(answers))
        given_up = answers.count(None)
        assert given_up
        await pipe.stop()
        assert run.late_answers <= given_up
        assert not run._feeder._waiting

    asyncio.run(main())


def test_a_caller_that_waits_for_an_answer_when_the_pipe_fails() -> None:
    run = chain(Processor("a", func=w.dies_at_five, restart="never")).run()
    futures = [run.submit(k) for k in (1, 5, 2)]
    wait_until(lambda: all(f.done() for f in futures), 60, "an answer for every caller")
    assert futures[0].result() == 1
    for future in futures[1:]:
        with pytest.raises(PipeError, match="killed by SIGKILL"):
            future.result()
