"""Workers that a server forks: as those that are spawned, through every death."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import programs
import pytest
import workers_pipe as w
from deadline import wait_until
from pipelines import chain
from test_pipeline import seed_counter
from test_pipeline_deaths import PARENT, alive, children_of

from ataraxis.errors import PipeError, ProcessorError
from ataraxis.pipeline import Local, Processor, Restart
from ataraxis.shm.context import Context

QUICK = Restart(limit=None, backoff_s=0.01)


def server_of(local: Local) -> int:
    (server,) = local._servers.values()
    return server.pid


# ---- the same


def test_the_seeds_counter_with_forked_workers() -> None:
    code = seed_counter(20_000)
    assert code.count("pipe.start()") == 1
    code = code.replace("pipe.start()", "pipe.start(engine='forkserver')")
    warnings = "-W error -W ignore::DeprecationWarning:__main__"
    lines = programs.run(code, warnings=warnings, timeout=120).splitlines()
    assert "[a] a done" in lines
    assert "[b] embedded processor b completed" in lines
    assert lines[-1] == "Running"


def test_workers_are_children_of_a_server_that_lasts_until_it_is_closed() -> None:
    pipe = chain(
        Processor("a", func=w.uneven, workers=2, ordered=True),
        Processor("b", func=lambda value: (value, os.getppid())),
    )
    with Local("forkserver") as local:
        servers = set()
        for _ in range(3):
            with pipe.run(range(100), found := [], engine=local):
                pass
            assert [k for k, _ in found] == list(range(100))
            servers |= {parent for _, parent in found}
        assert servers == {server_of(local)}
        tasks = os.listdir(f"/proc/{server_of(local)}/task")
        assert len(tasks) == 1, "a fork of several threads may never get a lock"
        assert children_of(server_of(local)) == []
    assert not alive(servers.pop())


def test_a_run_may_have_a_server_of_its_own() -> None:
    pipe, found = chain(Processor("a", func=lambda _: os.getppid())), []
    with pipe.run(range(2), found, engine="forkserver"):
        assert os.getpid() not in found
    assert not alive(found[0])


def test_what_a_worker_has_is_of_the_moment_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def about(_: object) -> tuple[object, ...]:
        import sys

        import numpy as np

        names = "PIPE_MARKS", "OPENBLAS_NUM_THREADS"
        values = [os.environ.get(name) for name in names]
        group = os.getpgid(0) == os.getpid()
        number = np.random.randint(2**60)  # noqa: NPY002 - what forks would share
        return os.getcwd(), sys.path[-1], values, group, number

    numbers = []
    with Local("forkserver") as local:
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            monkeypatch.chdir(tmp_path / folder)
            monkeypatch.setenv("PIPE_MARKS", folder)
            monkeypatch.syspath_prepend(str(tmp_path))
            monkeypatch.setattr("sys.path", [*__import__("sys").path, folder])
            pipe = chain(Processor("a", func=about, threads=1))
            with pipe.run([None], found := [], engine=local):
                pass
            cwd, last, values, group, number = found[0]
            assert cwd == str(tmp_path / folder)
            assert last == folder
            assert values == [folder, "1"]
            assert group
            numbers.append(number)
        several = chain(Processor("a", func=about, threads=2))
        with several.run([None], found := [], engine=local):
            pass
        assert found[0][2][1] == "2"
        assert len(local._servers) == 2
    assert len(set(numbers)) == 2, "forks have drawn the same random numbers"


def test_output_comes_in_whole_lines_with_a_prefix(
    capfd: pytest.CaptureFixture,
) -> None:
    pipe = chain(Processor("a", func=w.talkative, workers=2))
    with pipe.run(range(100), engine="forkserver"):
        pass
    out, err = capfd.readouterr()
    assert sorted(line.partition("] ")[2] for line in out.splitlines()) == sorted(
        f"line {k}" for k in range(100)
    )
    assert err.count("no end") == 100


# ---- deaths


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (w.fails_at_five, "KeyError: 'five is not here'"),
        (w.exits_at_five, r"it called sys\.exit\(3\)"),
        (w.vanishes_at_five, "exit code 0, without having finished"),
        (w.dies_at_five, "killed by SIGKILL"),
    ],
)
def test_how_a_worker_ended_is_known(func: object, message: str) -> None:
    pipe = chain(Processor("a", func=func, restart="never"))
    with (
        pytest.raises(PipeError) as caught,
        pipe.run(range(10), engine="forkserver") as run,
    ):
        run.wait(60)
    (error,) = caught.value.exceptions
    with pytest.raises(ProcessorError, match=message):
        raise error


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_nothing_is_lost_after_a_kill(victim: str) -> None:
    pipe, found = (
        chain(
            Processor("a", func=w.uneven, workers=2, ordered=True, restart=QUICK,
                      attempts=100),
            Processor("b", func=w.same, restart=QUICK, attempts=100),
        ),
        [],
    )  # fmt: skip
    with Local("forkserver") as local:
        with pipe.run(range(4000), found, engine=local) as run:
            run.wait_until_ready(60)
            for k in range(3):
                enough = len(found) + 100
                wait_until(
                    lambda n=enough: len(found) > n or run.state != "running", 60
                )
                if run.state != "running":
                    break
                pid = run.workers["a", 0] if victim == "worker" else server_of(local)
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    wait_until(
                        lambda n=k: (
                            int(run.statistics().restarts.sum()) > n
                            or run.state != "running"
                        ),
                        60,
                    )
        assert int(run.statistics().restarts.sum()) >= 1
    assert found == list(range(4000))


@pytest.mark.parametrize("when", ["ready", "starting"])
def test_server_and_workers_end_with_their_program(when: str, context: Path) -> None:
    code = PARENT.replace("pipe.run()", "pipe.run(engine='forkserver')")
    with programs.Program(code, when) as program:
        assert program.process.stdout is not None
        program.process.stdout.readline()
        wait_until(lambda: children_of(program.pid), 10, "a server")
        (server,) = children_of(program.pid)
        pids = [server, *children_of(server)]
        assert len(pids) == 5 or when == "starting"
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), 1.0 if when == "ready" else 60)
    wait_until(lambda: not Context.of(None).names(), 60, "no names")


def test_a_program_that_closes_nothing_leaves_nothing(context: Path) -> None:
    code = PARENT.replace("pipe.run()", "pipe.run(engine=Local('forkserver'))")
    code = code.replace("import Pipe", "import Local, Pipe").replace("input()", "")
    with programs.Program(code, "ready") as program:
        program.succeed(60)
    assert list(context.iterdir()) == []


# ---- refusals


def test_what_is_no_way_to_start_is_refused(context: Path) -> None:
    with pytest.raises(ValueError, match="start='fork': 'spawn' or 'forkserver'"):
        Local("fork")
    with pytest.raises(ValueError, match="preload= is for start='forkserver'"):
        Local(preload=["numpy"])
    with pytest.raises(ValueError, match="start='thread'"):
        chain(Processor("a", func=w.same)).run(engine="thread")
    assert list(context.iterdir()) == []


def test_a_module_that_is_not_there_to_be_loaded_before() -> None:
    pipe = chain(Processor("a", func=w.same))
    with (
        Local("forkserver", preload=["nowhere"]) as local,
        pytest.raises(PipeError) as caught,
        pipe.run([1], engine=local) as run,
    ):
        run.wait(60)
    assert "No module named 'nowhere'" in str(caught.value.exceptions[0])
