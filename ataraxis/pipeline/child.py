"""The main program of a worker process: start, work, say how it went, leave."""

from __future__ import annotations

import ctypes
import inspect
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from ataraxis.errors import EndOfStream
from ataraxis.pipeline.board import PID, Board
from ataraxis.pipeline.leftovers import clear
from ataraxis.pipeline.port import Port
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.pipeline.work import Work
from ataraxis.shm.context import Context

_PR_SET_PDEATHSIG = 1
FAILED = 70
"""Exit code after an exception, which was told before."""


def main(given: int, told: int, parent: int, program: int = -1) -> None:
    """Be a worker: read what to do from `given`, tell the program through `told`.

    `parent` is the process that has started this one; if that is not the program
    itself, `program` is a pidfd of it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(given, "rb") as file:
        spec = WorkerSpec.from_bytes(file.read())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        board = Board.attach(spec.run, spec.context)
        board.words[board.of_worker(spec.row) + PID] = os.getpid()
        _end_with(parent, spec, program)
        port = Port(spec, board, told)
    except OSError:
        # Whoever was quicker has taken names away already.
        if os.getppid() != parent:
            _orphaned(spec, program)
        raise
    try:
        _work(spec, port)
        port.acknowledge()
    except BaseException as error:
        _leave(port, error)
    _flush()
    # Before the last frame is acknowledged: whoever is killed in between has ended.
    port.tell("done", ended=port.has_ended)
    port.close(is_done=True)
    _flush()


def _work(spec: WorkerSpec, port: Port) -> None:
    """Run the function to its end; what ends it in good order ends here."""
    try:
        function = spec.code.load()
        if spec.code.kind in ("map", "source"):
            Work(function, spec, port).run()
            return
        # One that gets and emits itself may never connect.
        port.say_ready()
        made: Any = function()
        if inspect.iscoroutine(made):
            import asyncio

            asyncio.run(made)
    except EndOfStream:
        pass
    except SystemExit as error:
        if error.code not in (None, 0):
            raise


def _leave(port: Port, error: BaseException) -> None:
    """Say what went wrong, and end without a word of the interpreter's own."""
    if isinstance(error, SystemExit):
        port.tell("exit", text=f"sys.exit({error.code!r})")
    else:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        port.tell(
            "error",
            type=type(error).__name__,
            text=f"{error}{notes}",
            traceback=_told(error),
        )
    with suppress(Exception):
        port.close(is_done=False)
    _flush()
    os._exit(FAILED)


def _told(error: BaseException) -> str:
    """Write a traceback, without the frames of this library above the user's."""
    steps = error.__traceback__
    while steps is not None and steps.tb_next is not None:
        if "/ataraxis/pipeline/" not in steps.tb_frame.f_code.co_filename:
            break
        steps = steps.tb_next
    return "".join(traceback.format_exception(type(error), error, steps))


def _end_with(parent: int, spec: WorkerSpec, program: int) -> None:
    """End with the process that started this one, and take the run's names along."""
    signal.signal(signal.SIGHUP, lambda *_: _orphaned(spec, program))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the program that started this worker is gone")


def _orphaned(spec: WorkerSpec, program: int) -> NoReturn:
    """End without a parent; if that was a fork server alone, the run goes on."""
    if program < 0 or select.select([program], [], [], 0)[0]:
        _clear(spec)
    os._exit(FAILED)


def _clear(spec: WorkerSpec) -> NoReturn:
    """Take away every name of a run whose program is gone; each worker does."""
    clear(spec.run, Context.of(spec.context))
    os._exit(FAILED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
