"""Processes that a program starts: entries, and programs that are frozen."""

from __future__ import annotations

import gc
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
import workers_pipe as w
from deadline import wait_until

from ataraxis import DataLogger
from ataraxis.pipeline import Local, Pipe, Processor
from ataraxis.shm import process
from ataraxis.shm.pyinstaller import hook_directories

HOOKS = Path(hook_directories()[0])
RUNTIME_HOOK = HOOKS / "rthooks" / "pyi_rth_ataraxis.py"


def test_an_entry_is_a_function_of_ataraxis() -> None:
    command = process.process_command("os:system", "true")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'os:system' is not an entry of ataraxis" in done.stderr


@pytest.mark.parametrize(
    ("platform", "name"),
    [("win32", "Windows"), ("darwin", "macOS"), ("freebsd14", "freebsd14")],
)
def test_an_import_on_another_system_names_it(platform: str, name: str) -> None:
    printed = programs.run(f"""
        import sys
        sys.platform = {platform!r}
        try:
            from ataraxis.stream import Producer
        except ImportError as error:
            print(error, "numpy" in sys.modules)
    """)
    assert printed == (
        f"ataraxis runs on Linux only: this is {name}. Use a Linux machine, a "
        "container, or WSL 2 False\n"
    )


def test_without_a_python_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="does not know its Python"):
        process.process_command("ataraxis.log.writer:main")


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A frozen program, whose executable notes how it was started."""
    calls, application = tmp_path / "calls", tmp_path / "application"
    application.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexit 1\n')
    application.chmod(0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(application))
    return calls


def test_a_frozen_program_that_cannot_be_told_apart_starts_nothing(
    frozen: Path, tmp_path: Path
) -> None:
    logger = DataLogger(tmp_path, "rig", layout="journal")
    with pytest.raises(OSError, match=r"call ataraxis\.freeze_support\(\) first"):
        logger.start()
    logger.stop(timeout=10)
    pipe = Pipe("p")
    pipe.add(Processor("a", func=w.same))
    for start in (lambda: list(pipe.map([1])), pipe.run, Local):
        with pytest.raises(OSError, match="this program is frozen"):
            start()
    assert not frozen.exists()


def test_a_frozen_program_is_started_with_the_entry(
    frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, process.MARK, False, raising=False)
    monkeypatch.setattr(sys, "argv", [sys.executable])
    process.freeze_support()  # started by a user: it returns
    command = process.process_command("ataraxis.log.writer:main", "path")
    assert command[1:] == [process.FLAG, "ataraxis.log.writer:main", "path"]


@pytest.mark.parametrize("by", ["freeze_support", "the hook of PyInstaller"])
def test_a_copy_of_a_frozen_program_runs_the_entry_alone(by: str) -> None:
    called = "runpy.run_path(sys.argv.pop())"
    if by == "freeze_support":
        called = "sys.argv.pop(); import ataraxis; ataraxis.freeze_support()"
    code = f"""
        import runpy, sys, types
        sys.frozen = True
        module = types.ModuleType("ataraxis.entry")
        module.main = lambda *arguments: print("entered with", arguments, sys.argv[1:])
        sys.modules["ataraxis.entry"] = module
        {called}
        print("the main program")
    """
    hook = str(RUNTIME_HOOK)
    entered = programs.run(code, process.FLAG, "ataraxis.entry:main", "a", "b", hook)
    assert entered == "entered with ('a', 'b') ['a', 'b']\n"
    assert programs.run(code, "--own-option", hook) == "the main program\n"


def test_the_words_of_the_hook_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    text = RUNTIME_HOOK.read_text()
    assert json.dumps(process.FLAG) in text
    assert json.dumps(process.MARK) in text
    monkeypatch.setattr(sys, process.MARK, False, raising=False)
    monkeypatch.setattr(sys, "argv", ["application", "--help"])
    runpy.run_path(str(RUNTIME_HOOK))
    assert getattr(sys, process.MARK)
    assert (HOOKS / "hook-ataraxis.py").exists()
    assert RUNTIME_HOOK.name in (HOOKS / "rthooks.dat").read_text()


def test_in_a_program_that_is_not_frozen_nothing_happens() -> None:
    code = """
        import ataraxis
        ataraxis.freeze_support()
        print("the main program")
    """
    assert programs.run(code, process.FLAG, "ataraxis.log.writer:main", "x") == (
        "the main program\n"
    )
    # The old folder of a source tree hides nothing: modules are found where they are.
    command = process.process_command("ataraxis.log.writer:main")
    assert re.search(r"sys\.path\[:\] = \[", command[2])
    assert np.__name__ == "numpy"


def test_a_child_that_was_dropped_while_it_ran_is_reaped() -> None:
    dropped = [process.spawn(["/bin/sleep", "0.1"]).pid for _ in range(3)]
    gc.collect()

    def is_gone() -> bool:
        process.spawn([sys.executable, "-c", ""]).wait(60)
        return not any(Path(f"/proc/{pid}").exists() for pid in dropped)

    wait_until(is_gone, 30)


def test_an_exit_code_is_kept_when_two_threads_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = process.spawn([sys.executable, "-c", "raise SystemExit(7)"])
    ask = os.waitid

    def another_first(*arguments: int) -> object:
        monkeypatch.setattr(os, "waitid", ask)
        wait_until(lambda: child.poll() is not None, 60)
        return ask(*arguments)

    monkeypatch.setattr(os, "waitid", another_first)
    assert child.poll() == 7
    assert child.code == 7


def test_an_identity_of_a_process_that_has_ended_is_not_alive() -> None:
    """Also one that was asked for when the process had ended already."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    living = process.ProcessIdentity.of(child.pid)
    assert living.start > 0
    assert living.is_alive()
    assert not process.ProcessIdentity(
        child.pid, 0
    ).is_alive()  # that one had ended before
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = process.ProcessIdentity.of(child.pid)
    assert not zombie.is_alive()
    child.communicate()
    gone = process.ProcessIdentity.of(child.pid)
    assert zombie.start == gone.start == 0
    assert not any(each.is_alive() for each in (living, zombie, gone))


def test_an_identity_lives_where_that_cannot_be_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ataraxis.shm.process._start_of", lambda pid: None)
    assert process.ProcessIdentity.of(os.getpid()).is_alive()
    assert not process.ProcessIdentity(2**22 + 1, 0).is_alive()  # no pid is so large
