"""`ataraxis latency`: every event is counted, failures are told, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from commands import Command
from deadline import wait_until

from ataraxis.cli import main
from ataraxis.cli.latency import INTERRUPTED
from ataraxis.clock import now_ns
from ataraxis.latency import LatencyBench, LatencyResult, call, picture
from ataraxis.latency.bench import result_of
from ataraxis.latency.task import SENT, EventSchedule, LatencyTask, StampFile
from ataraxis.pipeline.statistics import list_runs
from ataraxis.shm.thread import Latch

SHM = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
TWO = len(os.sched_getaffinity(0)) > 1
KEYS = {
    "path", "cpus", "rate_hz", "sent", "received", "lost", "min_ns", "p50_ns",
    "p99_ns", "p99_9_ns", "max_ns", "late_ns", "restarts", "problem",
}  # fmt: skip


def left(pid: int) -> list[str]:
    """What a bench of a process has left in shared memory."""
    return [str(path) for path in SHM.glob(f"ataraxis-latency-{pid}-*")]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sessions are recorded: in the end nothing is there, or in memory."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    assert left(os.getpid()) == []
    assert list(path.iterdir()) == []


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["latency", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout if code == 0 else done.output


def run_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("--json", *arguments))
    return found


# ---- events are counted


@pytest.mark.slow
def test_ring_and_pipe_under_load_pinned_and_not() -> None:
    found = run_json("--only", "ring", "--only", "pipe", "--events", "150")
    pinnings = [None, sorted(os.sched_getaffinity(0))[:2]] if TWO else [None]
    results = found["results"]
    assert [(r["path"], r["cpus"]) for r in results] == [
        (path, cpus) for path in ("ring", "pipe") for cpus in pinnings
    ]
    for result in results:
        assert result.keys() == KEYS
        assert (result["sent"], result["received"], result["lost"]) == (150, 150, 0)
        assert 0 < result["min_ns"] <= result["p50_ns"] <= result["p99_ns"]
        assert result["p99_ns"] <= result["p99_9_ns"] <= result["max_ns"]
    assert (found["events"], found["rate_hz"], found["notes"]) == (150, None, [])
    assert found["load"]["recorded"] == found["load"]["sent"] > 0
    assert found["load"]["looks"] > 0
    assert found["machine"]["load_average"] >= 0
    assert found["load"]["problem"] == ""


def test_the_table_states_the_load_and_the_warm_up() -> None:
    text = run(
        "--only", "ring", "--events", "100", "--rate", "2000", "--no-load", "--no-pin"
    )
    for words in ("ring to reader", "p99.9, us", "1,000 that are not counted",
                  "2000 a second", "us late", "no load", "load average"):  # fmt: skip
        assert words in text
    assert "LOST" not in text


def test_percentiles_are_those_of_the_raw_data() -> None:
    with LatencyBench(load=False) as bench:
        result = bench.measure("ring", 500, rate_hz=5000.0, warm_up=20)
    assert bench.load is None
    assert result.latency_ns.dtype == np.int64
    assert result.latency_ns.shape == (500,)
    for percent in (0, 50, 99, 99.9, 100):
        expected = np.percentile(result.latency_ns, percent, method="higher")
        assert result.percentile(percent) == expected
    assert result.as_dict()["p99_9_ns"] == result.percentile(99.9)
    assert result.late_ns >= 0
    assert result.is_whole


def test_no_event_no_percentile() -> None:
    result = LatencyResult("ring", None, None, 3, np.zeros(0, np.int64))
    assert (result.percentile(50), result.lost) == (None, 3)
    assert not result.is_whole


def test_a_serial_loop_by_a_pseudo_terminal() -> None:
    pytest.importorskip("serial")
    (result,) = run_json(
        "--only", "serial", "--events", "50", "--no-load", "--no-pin"
    )["results"]  # fmt: skip
    assert (result["received"], result["lost"], result["problem"]) == (50, 0, "")


def test_a_loop_of_lsl() -> None:
    pytest.importorskip("pylsl")
    with LatencyBench(load=False) as bench:
        result = bench.measure("lsl", 30, warm_up=5)
    assert (result.sent, result.lost, result.problem) == (30, 0, "")


class Lossy:
    """A loop that loses some events."""

    def __init__(self, lost: set[int]) -> None:
        self.lost = lost

    def exchange(self, event: int) -> bool:
        return event not in self.lost

    def silence(self, count: int) -> str:
        return f"{count} in a row"

    def close(self) -> None:
        pass


def exchanged(path: Path, loop: Lossy, events: int) -> LatencyTask:
    StampFile.create(path, events)
    task = LatencyTask("", str(path), events, 0)
    call._exchange(task, StampFile(path), lambda k, timeout: k, loop)
    return task


def test_a_lost_event_is_counted(tmp_path: Path) -> None:
    task = exchanged(tmp_path / "stamps", Lossy({1, 7, 8, 12}), 20)
    result = result_of(task, "serial", None, 2)
    assert (result.sent, result.lost, len(result.latency_ns)) == (18, 3, 15)
    with pytest.raises(TimeoutError, match="3 in a row"):
        exchanged(tmp_path / "others", Lossy({5, 6, 7}), 20)


def test_a_schedule_keeps_its_times() -> None:
    schedule = EventSchedule(1000.0)
    began = schedule.begin()
    for k in range(20):
        schedule.wait(k)
        assert now_ns() - began >= k * 1_000_000


# ---- deaths


def when(bench: LatencyBench, sent: int, then: Callable[[dict[str, int]], object]):
    """Do something to the processes once so many events were sent."""

    def act(pids: dict[str, int]) -> None:
        words = StampFile(bench._place / "stamps-1").words
        wait_until(lambda: words[SENT] >= sent, 30, "events")
        then(pids)

    return act


def kill(role: str) -> Callable[[dict[str, int]], None]:
    return lambda pids: os.kill(pids[role], signal.SIGKILL)


@pytest.mark.parametrize(
    ("path", "role"),
    [("ring", "the reader"), ("ring", "the sender"), ("pipe", "the caller")],
)
def test_a_killed_process_is_reported(path: Any, role: str) -> None:
    with LatencyBench(load=False) as bench:
        result = bench.measure(
            path, 100_000, rate_hz=1000.0, warm_up=10,
            on_start=when(bench, 50, kill(role)),
        )  # fmt: skip
    assert f"{role} (process " in result.problem
    assert "was killed by SIGKILL" in result.problem
    assert 30 <= len(result.latency_ns) < 100_000
    assert not result.is_whole


def test_a_killed_worker_is_counted_and_its_event_is_not_lost() -> None:
    def kill_worker(pids: dict[str, int]) -> None:
        (worker,) = (run for run in list_runs(bench._context) if run.worker == "answer")
        os.kill(worker.pid, signal.SIGKILL)

    with LatencyBench(load=False) as bench:
        result = bench.measure(
            "pipe", 300, rate_hz=500.0, warm_up=0,
            on_start=when(bench, 20, kill_worker),
        )  # fmt: skip
    assert (result.sent, result.lost, result.problem) == (300, 0, "")
    assert result.restarts == 1
    assert not result.is_whole


def test_a_killed_session_is_reported() -> None:
    with LatencyBench() as bench:
        session = bench._loaders[0]
        os.kill(session.process.pid, signal.SIGKILL)
        wait_until(lambda: not session.is_running, 10, "the end of the session")
    assert bench.load is not None
    assert "the session (process " in bench.load.problem
    assert "SIGKILL" in bench.load.problem


# ---- Ctrl-C


def test_a_bench_is_ended_by_a_latch() -> None:
    until = Latch()
    with LatencyBench(load=False, until=until) as bench:
        result = bench.measure(
            "ring", 100_000, rate_hz=2000.0, warm_up=10,
            on_start=when(bench, 100, lambda pids: until.set()),
        )  # fmt: skip
    # What was sent until then has all arrived.
    assert 90 <= result.sent == len(result.latency_ns) < 100_000
    assert result.problem == ""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["ring", "pipe"])
def test_ctrl_c_prints_what_was_measured(path: str, temporary: Path) -> None:
    arguments = ("--only", path, "--rate", "500", "--events", "200000", "--no-pin")
    with Command("latency", *arguments, "--json") as running:
        pid = running.process.pid
        running.expect(" ...")
        wait_until(lambda: _sent(pid) > 1050, 60, "events after the warm-up")
        for _ in range(3):  # as the impatient do
            running.process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        code, said = running.end()
    assert code == INTERRUPTED, said
    found = json.loads(next(line for line in said.splitlines() if line[0] == "{"))
    assert found["notes"] == ["ended by SIGINT: these are the events until then"]
    (result,) = found["results"]
    assert 50 <= result["sent"] < 200_000
    assert (result["lost"], result["problem"]) == (0, "")
    assert found["load"]["problem"] == ""
    assert "Traceback" not in said
    assert left(pid) == []


def _sent(pid: int) -> int:
    for folder in left(pid):
        if (path := Path(folder) / "stamps-1").exists() and path.stat().st_size:
            return StampFile(path).words[SENT]
    return 0


# ---- what cannot be measured is said, with what to do


def test_a_port_that_does_not_exist() -> None:
    said = run("--serial", "/dev/ttyNONE", code=1)
    assert "'/dev/ttyNONE' does not exist" in said
    assert "loop-back plug" in said


@pytest.mark.slow
def test_a_port_that_sends_nothing_back() -> None:
    pytest.importorskip("serial")
    device, port = os.openpty()
    tty.setraw(port)
    try:
        with LatencyBench(load=False) as bench:
            result = bench.measure("serial", 50, warm_up=0, port=os.ttyname(port))
    finally:
        os.close(device)
        os.close(port)
    assert "none came back within 1 s" in result.problem
    assert "pins 2 and 3" in result.problem
    assert (result.sent, result.lost) == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pin", "0"], "expected two CPUs"),
        (["--pin", "0,9999"], "CPU 9999 is not available"),
        (["--pin", "0,0", "--no-pin"], "not both"),
        (["--only", "ring", "--serial", "/dev/null"], "--only leaves serial out"),
        (["--picture", "tail.jpg"], "must end in .png"),
        (["--picture", "/nowhere/tail.png"], "cannot write into '/nowhere'"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], words: str) -> None:
    if "tail" in arguments[-1]:
        pytest.importorskip("matplotlib")
    done = CliRunner().invoke(main, ["latency", *arguments])
    assert done.exit_code in (1, 2)
    assert words in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("matplotlib", ["--picture", "tail.png"], "plot"),
        ("pylsl", ["--lsl"], "lsl"),
        ("serial", ["--only", "serial"], "serial"),
    ],
)
def test_a_missing_package_is_named(
    module: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f'pip install "ataraxis[{extra}]"' in run(*arguments, code=1)


def test_an_unknown_path_is_refused() -> None:
    with (
        LatencyBench(load=False) as bench,
        pytest.raises(ValueError, match="ring, pipe, serial, lsl, got 'moon'"),
    ):
        bench.measure("moon")  # type: ignore[arg-type]


# ---- the picture


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "tail.png"
    text = run(
        "--only", "ring", "--events", "100", "--no-load", "--no-pin",
        "--picture", str(path),
    )  # fmt: skip
    assert f"picture: {path}" in text
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_tail_has_its_ends() -> None:
    latency_ns = np.random.default_rng(1).integers(1, 10**9, 100_000)
    found, share = picture.tail(latency_ns)
    assert len(found) < 500
    assert (found[0], found[-1]) == (latency_ns.min(), latency_ns.max())
    assert share[-1] == pytest.approx(1e-5)
    for ns, part in zip(found, share, strict=True):
        assert part == pytest.approx(np.mean(latency_ns >= ns))
    assert picture.tail(latency_ns[:0])[0].shape == (0,)
