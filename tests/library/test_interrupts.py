"""After an interrupt at any instruction, nothing hangs and a stop really stops."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    InvalidStateError,
    as_completed,
    wait,
)
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from injection import Injector
from threads import in_thread

from ataraxis import API, LogArchive, Producer, Recorder, Session, replay
from ataraxis._kernels.lock import ThreadLock
from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.timeline import Timeline
from ataraxis.shm.process import ChildProcess
from ataraxis.shm.thread import Latch, Outcome, Thread

SOON_S = 5.0


# ---- the parts: flags, threads, outcomes, children, clocks


def is_usable(flag: Latch) -> None:
    """Another thread can set the flag and wait for it, without hanging."""

    def use() -> bool:
        flag.set()
        return flag.wait(SOON_S)

    assert in_thread(use)
    assert flag.wait(0)


@pytest.mark.parametrize(
    "use",
    [Latch.set, lambda flag: flag.wait(0.001), lambda flag: (flag.set(), flag.wait())],
    ids=["set", "wait", "both"],
)
def test_a_flag_is_usable_after_an_interrupt(use: Callable[[Latch], object]) -> None:
    injector = Injector("shm/thread.py")
    count = injector.each(Latch, use, is_usable)
    assert injector.count == count >= 2


def test_one_set_wakes_all_who_wait_even_if_one_of_them_is_interrupted() -> None:
    injector = Injector("shm/thread.py")

    def prepare() -> tuple[Latch, list[Thread]]:
        flag = Latch()
        threads = [Thread(flag.wait, f"waiter {k}") for k in range(3)]
        for thread in threads:
            thread.start()
        return flag, threads

    def use(made: tuple[Latch, list[Thread]]) -> None:
        made[0].set()
        made[0].wait()

    def check(made: tuple[Latch, list[Thread]]) -> None:
        in_thread(made[0].set)
        assert all(thread.join(SOON_S) for thread in made[1])

    assert injector.each(prepare, use, check) == injector.count >= 3


def test_a_thread_that_was_interrupted_at_its_start_or_end_runs_once_and_ends() -> None:
    injector = Injector("shm/thread.py")

    def prepare() -> tuple[Thread, Latch, list[int]]:
        stop, ran = Latch(), list[int]()

        def run() -> None:
            ran.append(1)
            stop.wait()

        return Thread(run, "interrupted"), stop, ran

    def use(made: tuple[Thread, Latch, list[int]]) -> None:
        made[0].start()
        made[0].join(0.001)

    def check(made: tuple[Thread, Latch, list[int]]) -> None:
        thread, stop, ran = made
        thread.start()
        assert thread.is_alive()
        assert not thread.join(0)
        stop.set()
        assert thread.join(SOON_S)
        assert not thread.is_alive()
        assert ran == [1]

    assert injector.each(prepare, use, check) == injector.count >= 6


def test_joining_waits_for_a_thread_whose_start_was_interrupted() -> None:
    injector = Injector("shm/thread.py")

    def check(made: tuple[Thread, list[int]]) -> None:
        assert made[0].join(SOON_S)
        threads = threading.enumerate()
        assert not any(thread.name == "interrupted" for thread in threads)

    def prepare() -> tuple[Thread, list[int]]:
        ran: list[int] = []
        return Thread(lambda: ran.append(1), "interrupted"), ran

    assert injector.each(prepare, lambda made: made[0].start(), check) >= 4


def test_a_thread_tells_what_kept_it_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = Thread(print, "refused")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        thread.start()
    assert thread.join(SOON_S)
    assert not thread.is_alive()


def test_a_thread_does_not_wait_for_itself() -> None:
    found: list[bool] = []
    threads: list[Thread] = []
    threads.append(Thread(lambda: found.append(threads[0].join()), "itself"))
    threads[0].start()
    assert threads[0].join(SOON_S)
    assert found == [False]


@pytest.mark.parametrize(
    "use",
    [
        lambda outcome: outcome.result(0.001),
        lambda outcome: outcome.add_done_callback(lambda _: None),
        lambda outcome: (outcome.done(), outcome.cancelled(), outcome.running()),
    ],
    ids=["result", "callback", "look"],
)
def test_an_outcome_is_given_after_the_one_who_waits_was_interrupted(use: Any) -> None:
    injector = Injector("shm/thread.py", "concurrent/futures/_base.py", "threading.py")

    def quietly(outcome: Outcome[int]) -> None:
        with contextlib.suppress(TimeoutError):
            use(outcome)

    def check(outcome: Outcome[int]) -> None:
        in_thread(lambda: outcome.set_result(7))
        assert outcome.result(SOON_S) == 7

    assert injector.each(Outcome, quietly, check) == injector.count >= 3


def test_an_outcome_is_a_future() -> None:
    results: list[Any] = []
    outcome: Outcome[int] = Outcome()
    outcome.add_done_callback(lambda done: results.append(done.exception()))
    with pytest.raises(TimeoutError):
        outcome.result(0)
    error = KeyError("why")
    outcome.set_exception(error)
    outcome.add_done_callback(results.append)
    assert results == [error, outcome]
    with pytest.raises(KeyError, match="why"):
        outcome.result(0)
    with pytest.raises(InvalidStateError):
        outcome.set_result(1)
    assert not outcome.cancel()
    other: Outcome[int] = Outcome()
    assert other.cancel()
    assert other.cancelled()
    assert other.done()
    with pytest.raises(CancelledError):
        other.result(0)
    with pytest.raises(InvalidStateError):
        other.set_result(1)


def test_an_interrupted_cancel_leaves_those_who_answer_free() -> None:
    injector = Injector("shm/thread.py", "concurrent/futures/_base.py", "threading.py")
    results: list[str] = []

    def check(outcome: Outcome[int]) -> None:
        def answer() -> None:
            try:
                outcome.set_result(7)
            except InvalidStateError:
                results.append("given up")

        in_thread(answer)
        assert outcome.done()
        if outcome.cancelled():
            with pytest.raises(CancelledError):
                outcome.result(0)
        else:
            assert outcome.result(0) == 7

    assert injector.each(Outcome, Outcome.cancel, check) == injector.count >= 3
    assert results


@pytest.mark.parametrize("end", ["result", "error", "cancel"])
def test_an_outcome_is_waited_for_beside_others(end: str) -> None:
    outcomes: list[Outcome[int]] = [Outcome(), Outcome(), Outcome()]
    outcomes[0].set_result(0)  # before, while and after others check

    def answer() -> None:
        if end == "result":
            outcomes[1].set_result(1)
        elif end == "error":
            outcomes[1].set_exception(KeyError("why"))
        else:
            outcomes[1].cancel()

    timer = threading.Timer(0.05, answer)
    timer.start()
    first = wait(outcomes[1:], SOON_S, FIRST_COMPLETED)
    assert first.done == {outcomes[1]}
    timer.join()
    assert list(as_completed(outcomes[:2], SOON_S))
    assert wait(outcomes, 0).not_done == {outcomes[2]}


# ---- a lock between threads


def test_a_lock_is_had_by_one_thread_at_a_time() -> None:
    lock = ThreadLock()
    with lock.within(0) as is_ours:
        assert is_ours
        with lock.within(0.01) as is_ours_twice:
            assert not is_ours_twice
        with lock.within(0) as is_still_taken:  # nothing was released
            assert not is_still_taken
    waiting = lock.within(SOON_S)
    with lock.within(-1) as is_free:
        assert is_free
        thread = Thread(waiting.__enter__, "waits for the lock")
        thread.start()
    assert thread.join(SOON_S)
    with lock.within(0) as is_free:
        assert not is_free
    del waiting, thread  # dropped, in another thread than it was entered in
    wait_until(lambda: has(lock), SOON_S, "what was dropped to be given back")


def has(lock: ThreadLock) -> bool:
    with lock.within(0) as is_ours:
        return is_ours


def test_a_lock_is_given_back_whenever_its_holder_is_interrupted() -> None:
    injector = Injector("tests/library/test_interrupts.py")

    def use(lock: ThreadLock) -> None:
        with lock.within(SOON_S) as is_ours:
            len(str(is_ours))

    def check(lock: ThreadLock) -> None:
        assert in_thread(lambda: has(lock))

    assert injector.each(ThreadLock, use, check) == injector.count >= 3


@pytest.mark.parametrize("code", [0, 3, -9])
def test_the_exit_code_of_a_child_survives_an_interrupted_wait(code: int) -> None:
    injector = Injector("shm/process.py")
    end = f"raise SystemExit({code})" if code >= 0 else "os.kill(os.getpid(), 9)"

    def prepare() -> ChildProcess:
        return ChildProcess(["sh", "-c", f"exit {code}" if code >= 0 else "kill -9 $$"])

    def check(child: ChildProcess) -> None:
        assert child.wait(SOON_S) == code
        assert child.poll() == code
        assert not Path(f"/proc/{child.pid}").exists()  # no zombie

    points = injector.each(prepare, lambda child: child.wait(SOON_S), check)
    assert points == injector.count >= 5
    assert ChildProcess([sys.executable, "-c", f"import os; {end}"]).wait(60) == code


def test_a_child_that_runs_is_waited_for_within_the_timeout() -> None:
    child = ChildProcess(["sleep", "60"])
    with pytest.raises(TimeoutError, match="still runs after"):
        child.wait(0.01)
    assert child.poll() is None
    child.signal(signal.SIGTERM)
    assert child.wait(SOON_S) == -signal.SIGTERM
    child.signal(signal.SIGTERM)  # nothing: it has ended


@pytest.mark.parametrize(
    "use",
    [
        Timeline.wake,
        Timeline.pause,
        Timeline.resume,
        lambda clock: clock.seek(1.0),
        lambda clock: clock.position_s,
        lambda clock: clock.wait(0.01, clock.moves, lambda: False),
    ],
    ids=["wake", "pause", "resume", "seek", "position", "wait"],
)
def test_a_clock_goes_on_after_an_interrupt(use: Callable[[Timeline], object]) -> None:
    # Not inside a wait: those are in threads of tasks, which receive no signals.
    injector = Injector("datamux/timeline.py")

    def prepare() -> Timeline:
        clock = Timeline()
        clock.begin(0.0)
        return clock

    def check(clock: Timeline) -> None:
        in_thread(clock.wake)
        assert in_thread(lambda: clock.wait(-1.0, clock.moves, lambda: True)) is None

    assert injector.each(prepare, use, check) == injector.count >= 2


# ---- their users


def recorded(directory: Path, name: str) -> int:
    with contextlib.closing(LogArchive(directory)) as archive:
        return len(archive.read(name).data)


@pytest.mark.slow
def test_a_recorder_stops_for_real_after_an_interrupted_wait(tmp_path: Path) -> None:
    injector = Injector("log/recorder.py", "shm/thread.py")
    count = [0]

    def prepare() -> tuple[Producer, Recorder, Path]:
        count[0] += 1
        producer = Producer(f"camera{count[0]}", shape=(8,), dtype="u1")
        where = tmp_path / str(count[0])
        recorder = Recorder(producer.name, where)
        for k in range(3):
            producer.send(np.full(8, k, "u1"))
        return producer, recorder, where

    def use(made: tuple[Producer, Recorder, Path]) -> None:
        made[1].wait(0.01)
        made[1].stop()

    def check(made: tuple[Producer, Recorder, Path]) -> None:
        producer, recorder, where = made
        recorder.stop()
        assert not recorder.is_recording
        assert not producer.statistics().readers
        assert recorded(where, producer.name) == 3
        producer.unlink()

    assert injector.each(prepare, use, check) == injector.count >= 8


def test_a_task_stops_after_an_interrupted_wait() -> None:
    injector = Injector("datamux/task.py", "shm/thread.py")
    api = API()

    def prepare() -> Any:
        made = Stream("sim", frequency=100, fields={"a": Field(dtype="f32")})
        return api.simulate_stream(made, sink=[].append)

    def use(ack: Any) -> None:
        with contextlib.suppress(TimeoutError):
            ack.wait(0.001)
        ack.task.stop()

    def check(ack: Any) -> None:
        assert ack.task.stop(SOON_S)
        assert ack.wait(SOON_S).reason == "stopped"

    with api:
        assert injector.each(prepare, use, check) == injector.count >= 6


def test_a_replay_stops_after_an_interrupted_wait(tmp_path: Path) -> None:
    producer = Producer("again", shape=(2,), dtype="i8")
    with Recorder("again", tmp_path):
        for k in range(3):
            producer.send(np.full(2, k), time_ns=k * 10**9)
    producer.close()
    injector = Injector("session/playback.py", "shm/thread.py")

    def use(again: Any) -> None:
        again.wait(0.001)
        again.stop()

    def check(again: Any) -> None:
        again.close()
        assert again.is_over

    def prepare() -> Any:
        return replay(tmp_path, sync=False)

    assert injector.each(prepare, use, check) == injector.count >= 8


def test_a_session_ends_at_the_second_try_after_an_interrupted_close(
    tmp_path: Path,
) -> None:
    injector = Injector("session/session.py")
    count = [0]

    def prepare() -> Session:
        count[0] += 1
        return Session(f"s{count[0]}", directory=tmp_path)

    def check(session: Session) -> None:
        verdict = session.close()
        assert verdict.is_trusted
        assert (session.directory / "verdict.yaml").exists()

    assert injector.each(prepare, Session.close, check) == injector.count >= 8


def test_a_pipe_ends_although_those_who_waited_were_interrupted() -> None:
    from ataraxis.pipeline import Pipe, Processor

    pipe = Pipe("interrupted")
    pipe.add(Processor("absolute", func=abs))
    injector = Injector("pipeline/run.py", "shm/thread.py", "threading.py", "_base.py")
    with pipe.run() as run:
        run.wait_until_ready(60)

        def use(_: None) -> None:
            with contextlib.suppress(TimeoutError):
                run.wait(0.001)
            run.submit(-3).result(SOON_S)

        def check(_: None) -> None:
            assert in_thread(lambda: run.call(-2, timeout=SOON_S)) == 2

        assert injector.each(lambda: None, use, check) == injector.count >= 6
        run.stop(60)
    wait_until(lambda: run.state == "completed")
