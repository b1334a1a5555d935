"""Pipes whose workers raise, exit, hang, are killed; whose frames are damaged."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import programs
import pytest
import workers_pipe as w
from deadline import wait_until
from pipelines import chain

from ataraxis.errors import PipeError, ProcessorError
from ataraxis.frame import Frame
from ataraxis.log.archive import LogArchive
from ataraxis.pipeline import Pipe, Processor, Restart
from ataraxis.pipeline.reorder import Resequencer
from ataraxis.pipeline.run import Run
from ataraxis.shm.context import Context

QUICK = Restart(limit=None, backoff_s=0.01)
# Longer than a busy machine lets a process wait for its turn.
HANG_S = 3.0


def error_of(pipe: Pipe, source: object = range(10)) -> ProcessorError:
    with pytest.raises(PipeError, match="pipe 'p' failed") as caught:
        list(pipe.map(source))
    assert not pipe.completed
    assert pipe.execution.state == "failed"
    with pytest.raises(PipeError):
        pipe.execution.wait()
    (error,) = caught.value.exceptions
    return error


def worker_of(run: Run, name: str, worker: int = 0) -> int | None:
    """The pid of a worker that takes part; None: the run has ended."""
    run.wait_until_ready(60)
    wait_until(
        lambda: run.workers[name, worker] or run.state != "running", 60, "a process"
    )
    return run.workers[name, worker]


# ---- a clear error


def test_an_exception_comes_with_its_traceback() -> None:
    error = error_of(chain(Processor("a", func=w.fails_at_five)))
    assert (error.processor, error.worker) == ("a", 0)
    assert "KeyError: 'five is not here'" in str(error)
    assert 'raise KeyError("five is not here")' in error.remote_traceback
    assert "in fails_at_five" in error.remote_traceback
    assert "worker_main.py" not in error.remote_traceback.splitlines()[1]


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (w.exits_at_five, r"it called sys\.exit\(3\)"),
        (w.vanishes_at_five, "exit code 0, without having finished"),
        (w.dies_at_five, "killed by SIGKILL"),
        (w.returns_an_object, "no frame carries a builtins.object"),
    ],
)
def test_without_restarts_a_death_is_an_error(func: object, message: str) -> None:
    error = error_of(chain(Processor("a", func=func, restart="never")))
    with pytest.raises(ProcessorError, match=message):
        raise error


def test_the_error_of_a_wrong_type_names_the_processor() -> None:
    error = error_of(chain(Processor("a", func=w.returns_an_object)))
    assert "processor 'a' returned: object" in str(error)


def test_a_hanging_worker_is_killed() -> None:
    stage = Processor("a", func=w.hangs_at_five, hang_timeout=HANG_S, restart="never")
    assert "hang_timeout=3 s" in str(error_of(chain(stage)))


def test_a_wait_for_room_does_not_count_for_hang_timeout() -> None:
    pipe = chain(
        Processor("a", func=w.same, hang_timeout=HANG_S, restart="never"),
        Processor("b", func=w.slow_at_first, buffer_count=2),
    )
    assert list(pipe.map(range(20))) == list(range(20))


def test_a_source_or_a_sink_that_raises() -> None:
    def source() -> object:
        yield 1
        raise OSError("unplugged")

    assert "source of the pipe raised OSError" in str(
        error_of(chain(Processor("a", func=w.same)), source())
    )

    def sink(value: int) -> None:
        raise OSError("disk full")

    pipe = chain(Processor("a", func=w.same))
    with pytest.raises(PipeError) as caught, pipe.run(range(10), sink):
        pass
    assert "sink of the pipe raised OSError: disk full" in str(
        caught.value.exceptions[0]
    )


def test_a_caller_that_waits_gets_the_error() -> None:
    run = chain(Processor("a", func=w.fails_at_five)).run()
    assert run.call(4, timeout=60) == 4
    with pytest.raises(PipeError):
        run.call(5, timeout=60)
    with pytest.raises(PipeError):
        run.wait(60)


def test_a_module_that_the_worker_cannot_import() -> None:
    pipe = Pipe.from_json(
        chain(Processor("a", func=w.same)).to_json().replace("workers_pipe", "nowhere")
    )
    assert "No module named 'nowhere'" in str(error_of(pipe))


# ---- again


def test_the_values_of_a_killed_worker_are_redelivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPE_MARKS", str(tmp_path))
    restart = Restart(limit=None, backoff_s=0.01)
    pipe = chain(
        Processor("a", func=w.DiesOnce, workers=2, ordered=True, restart=restart),
        Processor("b", func=w.same),
    )
    assert list(pipe.map(range(100))) == list(range(100))
    assert len(list(tmp_path.iterdir())) == 5
    assert int(pipe.execution.statistics().restarts.sum()) == 5
    restarts = [e for e in pipe.execution.history if e.what == "restarted"]
    assert {e.processor for e in restarts} == {"a"}


def test_a_restarted_worker_continues_after_the_last_finished_value() -> None:
    """In order; a finished value that comes again is not taken a second time."""
    values = [SimpleNamespace(lane=3, sequence=k) for k in range(4)]
    words = [0, 0]
    first = Resequencer(words, lambda lane: 1)
    for value in (values[1], values[0]):
        assert first.push(value)
    assert [first.pop(), first.pop(), first.pop()] == [values[0], values[1], None]
    first.finish(values[0])
    assert words == [0, 1]
    again = Resequencer(words, lambda lane: 1)
    assert not again.push(values[0])
    assert again.push(values[2])
    assert again.pop() is None
    assert again.push(values[1])
    assert [again.pop(), again.pop(), again.pop()] == [values[1], values[2], None]


@pytest.mark.parametrize("victim", ["a", "merge"])
def test_kills_from_outside_lose_nothing_and_repeat_nothing(victim: str) -> None:
    restart = Restart(limit=None, backoff_s=0.01)
    pipe, found = Pipe("p"), []
    split = pipe.add(Processor("split", func=w.same, restart=restart))
    merge = Processor("merge", func=w.same, restart=restart)
    for name, func in (("a", w.left), ("b", w.right)):
        split.add(
            Processor(name, func=func, workers=2, ordered=True, restart=restart)
        ).add(merge)
    with pipe.run(range(3000), found) as run:
        for k in range(3):
            kill_when_busy(run, victim, found, k + 1)
    assert int(run.statistics().restarts.sum()) >= 1
    for side in "lr":
        assert [k for s, k in found if s == side] == list(range(3000))


def kill_when_busy(run: Run, victim: str, found: list, nth: int) -> None:
    """Kill a worker after some more results, and wait until it is restarted."""
    enough = len(found) + 50
    pid = worker_of(run, victim)
    wait_until(lambda: len(found) > enough or run.state != "running", 60, "results")
    if run.state == "running" and pid:
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: (
                int(run.statistics().restarts.sum()) >= nth or run.state != "running"
            ),
            60,
            "a restart",
        )


def test_too_many_restarts_are_an_error() -> None:
    restart = Restart(limit=1, backoff_s=0.01)
    stage = Processor("a", func=w.dies_at_five, restart=restart, attempts=9)
    assert "restarted 1 times" in str(error_of(chain(stage)))


def test_always_starts_a_function_again_that_has_returned() -> None:
    restart = Restart("always", limit=None, backoff_s=0.01)
    pipe = chain(
        Processor("produce", func=w.produce, restart=restart),
        Processor("b", func=w.same),
    )
    found: list[int] = []
    run = pipe.run(sink=found)
    wait_until(lambda: len(found) >= 450, 60, "three rounds")
    run.stop(60)
    assert found[:450] == [*range(200), *range(200), *range(50)]


# ---- dead letters


def letters(directory: Path) -> list[dict]:
    return [entry.value for entry in LogArchive(directory)]


@pytest.mark.parametrize("func", [w.dies_at_five, w.hangs_at_five])
def test_a_value_that_kills_three_workers_is_a_dead_letter(
    func: object, tmp_path: Path
) -> None:
    limit = HANG_S if func is w.hangs_at_five else None
    stage = Processor("a", func=func, restart=QUICK, hang_timeout=limit, ordered=True)
    pipe = chain(stage, Processor("b", func=w.same), dead_letters=tmp_path / "letters")
    assert list(pipe.map(range(10))) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    (letter,) = letters(tmp_path / "letters")
    assert letter["processor"] == "a"
    assert "killed 3 workers" in letter["why"]
    assert Frame.from_buffer(letter["frame"]).value == 5
    assert int(pipe.execution.statistics().dead_letters.sum()) == 1
    assert any(e.what == "dead letter" for e in pipe.execution.history)


def test_on_error_skip_makes_a_dead_letter(tmp_path: Path) -> None:
    stage = Processor(
        "a", func=w.fails_at_five, on_error="skip", workers=2, ordered=True
    )
    pipe = chain(stage, dead_letters=tmp_path / "letters")
    assert list(pipe.map(range(10))) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    (letter,) = letters(tmp_path / "letters")
    assert "KeyError" in letter["why"]


def test_on_error_restart_tries_again_before_a_dead_letter(tmp_path: Path) -> None:
    stage = Processor("a", func=w.fails_at_five, on_error="restart", restart=QUICK)
    pipe = chain(stage, dead_letters=tmp_path / "letters")
    assert list(pipe.map(range(10))) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(letters(tmp_path / "letters")) == 1


@pytest.mark.parametrize("at", [70, -1], ids=["in the origin", "in the value"])
def test_a_corrupt_frame_is_a_dead_letter_and_the_queue_continues(
    at: int, tmp_path: Path, context: Path
) -> None:
    pipe, found = Pipe("p", dead_letters=tmp_path / "letters"), []
    gate = tmp_path / "gate"

    def hold(value: int) -> int:
        import time

        while not gate.exists():
            time.sleep(0.005)
        return value

    a = pipe.add(Processor("a", func=hold))
    a.add(Processor("b", func=w.uneven, workers=2, ordered=True)).add(
        Processor("c", func=w.same)
    )
    with pipe.run(range(20), found) as run:
        wait_until(lambda: run.progress[0] == 20, 60, "all values to be in")
        path = context / f"{run.name}.in.a"
        frame = Frame.from_value(7).to_bytes()
        damage(path, b"AXF1\x15", 12, at, len(frame))
        gate.touch()
    assert len(found) == 19
    assert found == sorted(found)
    assert int(run.statistics().corrupt.sel(worker="a")) == 1
    (letter,) = letters(tmp_path / "letters")
    assert "CorruptFrame" in letter["why"]
    assert letter["frame"][:4] == b"AXF1"


def damage(path: Path, mark: bytes, which: int, at: int, length: int) -> None:
    """Flip a bit of a frame in a queue's file: the `which`-th that begins so."""
    data = path.read_bytes()
    start = -1
    for _ in range(which + 1):
        start = data.index(mark, start + 1)
    size = 64 + int.from_bytes(data[start + 8 : start + 16], "little")
    where = start + (at if at >= 0 else size + at)
    with open(path, "r+b") as file:
        file.seek(where)
        file.write(bytes([data[where] ^ 4]))


# ---- pickles


def test_a_pickle_is_refused_unless_allowed() -> None:
    class Thing:
        def __init__(self, value: int) -> None:
            self.value = value

    def made(value: int) -> object:
        from fractions import Fraction

        return Fraction(value, 3)

    def text_of(value: object) -> str:
        return str(value)

    pipe = chain(Processor("a", func=made), Processor("b", func=text_of))
    assert "no frame carries a fractions.Fraction" in str(error_of(pipe))
    pipe = chain(
        Processor("a", func=made), Processor("b", func=text_of, allow_pickle=True)
    )
    assert list(pipe.map([1, 2])) == ["1/3", "2/3"]


# ---- the end of everything


def test_terminate_is_immediate_and_leaves_nothing(context: Path) -> None:
    pipe = chain(Processor("a", func=w.endless), Processor("b", func=w.slow))
    run = pipe.run()
    run.wait_until_ready(60)
    pids = list(run.workers.values())
    pipe.terminate()
    assert run.state == "terminated"
    # Not 0: a signal to pid 0 would reach this program.
    assert run.workers == {("a", 0): None, ("b", 0): None}
    assert not pipe.completed
    assert list(context.iterdir()) == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    pipe.terminate()
    run.wait(1)


PARENT = """
import sys, time
from ataraxis.pipeline import Pipe, Processor
import workers_pipe as w
pipe = Pipe("p")
pipe.add(Processor("a", func=w.endless)).add(
    Processor("b", func=w.slow, workers=2)).add(Processor("c", func=w.hangs_at_five))
run = pipe.run()
if sys.argv[1] == "ready":
    run.wait_until_ready(60)
print(*run.workers.values(), flush=True)
input()
"""


@pytest.mark.parametrize("when", ["ready", "starting"])
def test_workers_end_with_their_program(when: str, context: Path) -> None:
    with programs.Program(PARENT, when) as program:
        assert program.process.stdout is not None
        program.process.stdout.readline()
        # Killed before any: see the next test.
        wait_until(lambda: children_of(program.pid), 10, "a worker")
        pids = children_of(program.pid)
        assert len(pids) == 4 or when == "starting"
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), 1.0 if when == "ready" else 10)
    wait_until(lambda: not Context.of(None).names(), 10, "no names")


ALL_DIE = """
import os, signal
from ataraxis.pipeline import Pipe, Processor
import workers_pipe as w
pipe = Pipe("p")
pipe.add(Processor("a", func=w.endless)).add(Processor("b", func=w.slow))
run = pipe.run()
run.wait_until_ready(60)
for pid in run.workers.values():
    os.kill(pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_pipe_removes_the_names_of_a_run_that_was_killed_as_a_whole(
    context: Path,
) -> None:
    with programs.Program(ALL_DIE) as program:
        program.process.wait(60)
    assert any(path.name.endswith(".in.b") for path in context.iterdir())
    other = chain(Processor("a", func=w.same))
    with other.run() as run:
        assert {path.name[: len(run.name)] for path in context.iterdir()} == {run.name}
        run.stop(60)
    assert list(context.iterdir()) == []


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_a_program_that_ends_without_waiting_leaves_nothing(context: Path) -> None:
    code = PARENT.replace("input()", "")
    with programs.Program(code, "ready") as program:
        program.succeed(60)
    assert list(context.iterdir()) == []


def test_output_comes_in_whole_lines_with_a_prefix(
    capfd: pytest.CaptureFixture,
) -> None:
    list(chain(Processor("a", func=w.talkative, workers=2)).map(range(300)))
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert sorted(line.partition("] ")[2] for line in lines) == sorted(
        f"line {k}" for k in range(300)
    )
    assert {line[:5] for line in lines} <= {"[a.0]", "[a.1]"}
    assert err.count("no end") == 300


def test_results_need_no_sink() -> None:
    pipe = chain(Processor("a", func=w.same))
    with pipe.run(np.arange(5)):
        pass
    assert pipe.completed


# ---- a value that a worker has leased is acknowledged by its result alone


def test_a_worker_that_ends_in_good_order_loses_no_value() -> None:
    stage = Processor("p", func=w.EndsAtASignal, restart=Restart("always", None, 60, 0))
    results: list[int] = []
    with chain(stage).run(sink=results) as run:
        fed = 0
        while int(run.statistics().restarts[0]) < 15:
            fed += run.emit(fed, timeout=1)
        wait_until(lambda: len(results) > fed - 300, 60)
        got = list(results)
        run.terminate()
    assert set(range(max(got))) - set(got) == set()


def test_a_function_that_gets_a_value_itself_loses_none(tmp_path: Path) -> None:
    stage = Processor("p", func=w.takes_a_pair, config={"died": str(tmp_path / "died")})
    results: list[int] = []
    with chain(stage).run(range(8), results) as run:
        run.wait(60)
    found = sorted(n for pair in results for n in ((pair // 1000, pair % 1000)))
    assert (tmp_path / "died").exists()
    assert set(found) == set(range(8))


def test_an_emit_of_the_function_is_no_progress_of_its_value() -> None:
    stage = Processor(
        "p", func=w.emits_and_hangs, hang_timeout=1.0, attempts=1, on_error="skip"
    )
    with chain(stage, Processor("q", func=w.same)).run([1], []) as run:
        run.wait(60)
    assert "hung" in [event.what for event in run.history]


def test_a_function_may_change_the_array_that_it_is_given(tmp_path: Path) -> None:
    with chain(Processor("p", func=w.doubles_in_place)).run() as run:
        assert run.call(np.arange(3.0), timeout=60).tolist() == [0, 2, 4]
        run.stop()
    for keywords in ({"overlap": 2}, {"config": {"died": str(tmp_path / "died")}}):
        func = w.doubles_in_place if "overlap" in keywords else None
        func = func or w.doubles_in_place_and_dies_once
        results: list[np.ndarray] = []
        blocks = [np.ones(4), np.ones(4), np.ones(4)]
        with chain(Processor("p", func=func, **keywords)).run(blocks, results) as run:
            run.wait(60)
        assert [r.tolist() for r in results] == [[2.0] * 4] * 3
