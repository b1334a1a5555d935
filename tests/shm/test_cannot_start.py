"""Programs that the library starts and that fail at once: reported, and bounded."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until

from ataraxis import DataLogger, Session
from ataraxis.errors import LoggerError, PipeError
from ataraxis.pipeline import Pipe, Processor
from ataraxis.session.process import MOST_FAILS, Program

WORDS = "no module named nonsense"
SOON_S = 20.0
PYTHON = sys.executable


@pytest.fixture
def broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """An interpreter that says why it ends, and how often it was started."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    end = getattr(request, "param", "exit 7")
    script = f"#!/bin/sh\necho x >> {calls}\necho first >&2\necho {WORDS} >&2\n{end}\n"
    python.write_text(script)
    python.chmod(0o755)
    calls.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    return calls


def starts(calls: Path) -> int:
    return calls.read_text().count("x")


@pytest.mark.parametrize(
    ("broken", "how"),
    [("exit 7", "exit code 7"), ("kill -9 $$", "killed by signal 9"), ("exit 0", "0")],
    indirect=["broken"],
)
def test_a_writer_that_cannot_start_is_told_and_stop_returns(
    broken: Path, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = DataLogger(tmp_path, "rig", layout="journal")
    logger.start()
    logger.log(1, np.arange(3))
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(LoggerError) as caught:
            logger.stop(timeout=SOON_S)
        for text in (how, WORDS, "tried 3 times", "1 frames wait", str(broken.parent)):
            assert text in str(caught.value)
    assert time.monotonic() - began < SOON_S
    assert starts(broken) == 3
    with pytest.raises(LoggerError, match="cannot be started"):
        logger.log(1, np.arange(3))
    # Once the cause is gone, what was accepted is written.
    monkeypatch.setattr(sys, "executable", PYTHON)
    logger.start()
    logger.stop(timeout=60)
    assert logger.statistics().written == 1
    logger.close()


@pytest.mark.parametrize("mode", [0o644, None], ids=["not executable", "not there"])
def test_an_interpreter_that_is_none_is_told_at_once(
    tmp_path: Path, mode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    if mode is not None:
        python.write_text("x")
        python.chmod(mode)
    monkeypatch.setattr(sys, "executable", str(python))
    logger = DataLogger(tmp_path, "rig")
    with pytest.raises(LoggerError, match="cannot be started") as caught:
        logger.start()
    assert str(python) in str(caught.value)
    monkeypatch.undo()
    logger.close()


def test_a_program_that_fails_at_each_start_is_given_up(context: Path) -> None:
    lines: list[str] = []
    command = ["sh", "-c", f"echo {WORDS} >&2; exit 3"]
    program = Program("probe", command, str(context), lines.append, pause_s=0.0)
    wait_until(lambda: not program.look(), SOON_S)
    assert program.restarts == MOST_FAILS - 1
    assert WORDS in program.failure
    assert "exit code 3" in program.failure
    assert not program.look()
    program.end()


def test_a_session_whose_recorder_cannot_start_ends_and_says_so(
    broken: Path, tmp_path: Path
) -> None:
    session = Session("s", directory=tmp_path / "place")
    session.record("camera", process=True)
    wait_until(lambda: starts(broken) == MOST_FAILS, SOON_S)
    began = time.monotonic()
    verdict = session.close()
    assert time.monotonic() - began < SOON_S
    assert starts(broken) <= MOST_FAILS + 2  # the last two: to finish
    assert not verdict.is_trusted
    assert WORDS in " ".join(verdict["camera"].notes)


def test_a_worker_that_cannot_start_says_its_last_words(broken: Path) -> None:
    pipe = Pipe("broken")
    pipe.add(Processor("absolute", func=abs))
    run = pipe.run([1])
    with pytest.raises(PipeError) as caught:
        run.wait(60)
    assert WORDS in str(caught.value.exceptions[0])
    assert starts(broken) < 20


def test_a_fork_server_that_cannot_start_is_told(broken: Path) -> None:
    pipe = Pipe("broken")
    pipe.add(Processor("absolute", func=abs))
    run = pipe.run([1], engine="forkserver")
    with pytest.raises(PipeError) as caught:
        run.wait(60)
    assert "fork server could not be started" in str(caught.value.exceptions[0])
