"""`Supervisor`: one thread that starts workers and restarts those that die."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ataraxis.clock import now_ns
from ataraxis.errors import ProcessorError
from ataraxis.pipeline.board import BEGAN_NS, LANE, PID, RESTARTS, SEQUENCE, StatusBoard
from ataraxis.pipeline.engine import Engine, WorkerEvent
from ataraxis.pipeline.graph import GraphNode
from ataraxis.pipeline.settings import Restart
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.process import RestartBudget
from ataraxis.shm.thread import Thread

# ---- `Event`: something that happened in a run, see `Run.events`

What: TypeAlias = Literal[
    "spawned", "ready", "exited", "restarted", "hung", "redelivered", "dead letter",
    "corrupt", "dropped", "error", "lost", "found", "processor finished", "stopping",
    "completed", "failed", "terminated",
]  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    what: What
    time_ns: int
    """When, monotonic ns."""
    processor: str = ""
    """Whose worker it concerns; '': the pipe."""
    worker: int = -1
    """Which of its workers, from 0; -1: none of them."""
    text: str = ""
    """Details, in a line."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


# ---- `PrintedLines`: what a worker prints, forwarded in whole lines with its name


class PrintedLines:
    """Forwards the standard output and error of a worker; nothing is lost.

    Parameters
    ----------
    processor : str
        Whose worker it is.
    worker, workers : int
        Which, and of how many.
    """

    def __init__(self, processor: str, worker: int, workers: int) -> None:
        self._prefix = f"[{processor}] " if workers == 1 else f"[{processor}.{worker}] "
        self._rest = {False: b"", True: b""}
        self.last = ""
        """The last line of its error channel."""

    def write(self, data: bytes, is_error: bool) -> None:
        """Show whole lines; the rest waits until it is a line."""
        lines = (self._rest[is_error] + data).split(b"\n")
        self._rest[is_error] = lines.pop()
        self._show(lines, is_error)

    def close(self) -> None:
        """Show the rest."""
        for is_error, rest in self._rest.items():
            if rest:
                self._show([rest], is_error)
                self._rest[is_error] = b""

    def _show(self, lines: list[bytes], is_error: bool) -> None:
        if is_error and (filled := [line for line in lines if line.strip()]):
            self.last = filled[-1].decode(errors="backslashreplace")
        stream = sys.stderr if is_error else sys.stdout
        if stream is None or not lines:
            return
        text = "".join(
            f"{self._prefix}{line.decode(errors='backslashreplace')}\n"
            for line in lines
        )
        # The program may have closed it.
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


# ---- the supervisor

_KILL_S = 5.0
_PLACE_S = 0.05


@dataclass(eq=False)
class WorkerSlot:
    """A worker, through all of its processes."""

    spec: WorkerSpec
    node: GraphNode
    handle: Any = None
    is_ready: bool = False
    is_done: bool = False
    has_ended: bool = False
    is_hung: bool = False
    is_lost: bool = False
    """Whether its host does not answer: the worker may run, or be gone."""
    report: dict[str, Any] | None = None
    """Its message about its end, an error or an exit."""
    due: float | None = None
    """When it is restarted, monotonic s."""
    output: PrintedLines | None = None
    policy: Restart = field(init=False)
    """What its death means."""
    budget: RestartBudget = field(init=False)

    def __post_init__(self) -> None:
        is_map = self.spec.code.kind == "map"
        default = Restart("on-failure" if is_map else "never")
        self.policy = policy = self.node.settings.restart or default
        self.budget = RestartBudget(policy.limit, policy.window_s, policy.backoff_s)


class Supervisor:
    """Starts the workers of a run, and restarts those that die.

    Parameters
    ----------
    workers : list of WorkerSlot
        The workers.
    engine : Engine
        Starts them.
    board : StatusBoard
        Where they write their state.
    tell : callable
        Takes every `Event`.
    sweep : callable
        Gives back the values of a dead process, before another one is started: that one
        gets the oldest values first, which others may be waiting for.
    on_ready : callable
        Called once, when every worker takes part.
    on_finished : callable
        Called with each processor whose workers have all ended in good order.
    on_over : callable
        Called last, with all errors.
    place : callable
        Called with the specification of a worker whose host has gone; returns it for
        the host where it can be started now, or None: there is none yet.
    on_turn : callable
        Called each time that something has happened; returns within what time it wants
        to be called again, s, or None.
    """

    def __init__(
        self,
        workers: list[WorkerSlot],
        engine: Engine,
        board: StatusBoard,
        tell: Callable[[Event], None],
        sweep: Callable[[], None],
        on_ready: Callable[[], None],
        on_finished: Callable[[int], None],
        on_over: Callable[[list[ProcessorError]], None],
        place: Callable[[WorkerSpec], WorkerSpec | None],
        on_turn: Callable[[], float | None],
    ) -> None:
        self._workers = workers
        self._engine = engine
        self._board = board
        self._tell = tell
        self._sweep = sweep
        self._on_ready, self._on_finished = on_ready, on_finished
        self._on_over, self._place, self._on_turn = on_over, place, on_turn
        self._next_turn: float | None = None
        self._by_handle: dict[Any, WorkerSlot] = {}
        self._errors: list[ProcessorError] = []
        self._kills: Counter[tuple[int, int, int]] = Counter()
        self._poisons: Counter[int] = Counter()
        self._is_over = False
        self._is_told_ready = False
        self.is_stopping = False
        self._gate, self._has_ended = threading.Lock(), False
        self._commands: deque[Callable[[], None]] = deque()
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)
        # It lives as long as the workers, which end with the thread that started them.
        self.thread = Thread(self._run, "ataraxis-pipe")

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def do(self, command: Callable[[], None]) -> None:
        """Run a command in the thread, soon; nothing happens after its end."""
        with self._gate:
            if self._has_ended:
                return
            self._commands.append(command)
            with suppress(BlockingIOError):
                os.write(self._ringer, b"\0")

    def finish(self, error: ProcessorError | None = None) -> None:
        """End now, whatever the workers do; from the thread, or through `do`."""
        if error is not None:
            self._errors.append(error)
        self._is_over = True

    # ---- the thread

    def _run(self) -> None:
        try:
            self._guarded(self._supervise)
            self._guarded(self._dismiss)
        finally:
            try:
                self._on_over(self._errors)
            finally:
                with self._gate:
                    self._has_ended = True
                    os.close(self._ringer)
                    os.close(self._bell)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Take a step; what it raises fails the run."""
        try:
            step()
        except BaseException as error:
            text = f"its supervisor raised {type(error).__name__}: {error}"
            failure = ProcessorError(text)
            failure.worker = -1
            failure.__cause__ = error
            self._errors.append(failure)

    def _supervise(self) -> None:
        for slot in self._workers:
            self._spawn(slot)
        while not self._is_over:
            self._turn(self._patience())

    def _turn(self, timeout: float | None) -> None:
        for event in self._engine.watch(timeout, self._bell):
            self._handle(event)
        while self._commands:
            self._commands.popleft()()
            os.read(self._bell, 1)
        now = time.monotonic()
        for slot in self._workers:
            if slot.due is not None and slot.due <= now and not self._is_over:
                self._respawn(slot, now)
        self._look_for_hangs()
        self._next_turn = None if self._is_over else self._on_turn()

    def _respawn(self, slot: WorkerSlot, now: float) -> None:
        """Start a worker again, on a host that is there; else try again later."""
        spec = self._place(slot.spec)
        if spec is None:
            slot.due = now + _PLACE_S
            return
        slot.due, slot.spec = None, spec
        self._spawn(slot)

    def _patience(self) -> float | None:
        """Return how long the thread may wait, s; None: without a limit."""
        waits = [h.due - time.monotonic() for h in self._workers if h.due is not None]
        limits = [
            h.node.settings.hang_timeout
            for h in self._workers
            if h.node.settings.hang_timeout is not None and h.handle is not None
        ]
        waits += [limit / 4 for limit in limits]
        if self._next_turn is not None:
            waits.append(self._next_turn)
        return max(0.0, min(waits)) if waits else None

    def _spawn(self, slot: WorkerSlot) -> None:
        spec = slot.spec
        slot.report, slot.is_hung, slot.is_lost = None, False, False
        slot.handle = self._engine.spawn(spec.host, spec)
        self._by_handle[slot.handle] = slot
        slot.output = PrintedLines(
            spec.processor, spec.worker, slot.node.settings.workers
        )
        self._note("restarted" if spec.generation else "spawned", slot, spec.host)

    def _dismiss(self) -> None:
        """Kill every worker, and wait for their ends."""
        for handle in list(self._by_handle):
            self._engine.signal(handle, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_S
        while True:
            # Once in any case: the engine drops the bell.
            left = [slot for slot in self._by_handle.values() if not slot.is_lost]
            for event in self._engine.watch(0.5 if left else 0, -1):
                slot = self._by_handle[event.handle]
                if event.what == "output" and slot.output is not None:
                    slot.output.write(*event.data)
                elif event.what == "exit":
                    self._forget(slot, event.handle)
            # Those of a host that does not answer end with their lease.
            if not left or time.monotonic() > deadline:
                return

    # ---- events of workers

    def _handle(self, event: WorkerEvent) -> None:
        slot = self._by_handle.get(event.handle)
        if slot is None:
            return
        if event.what == "output":
            assert slot.output is not None
            slot.output.write(*event.data)
        elif event.what == "message":
            self._handle_message(slot, event.data)
        elif event.what in ("lost", "found"):
            slot.is_lost = event.what == "lost"
            self._note(event.what, slot, event.data)
        else:
            self._forget(slot, event.handle)
            self._ended(slot, event.data)

    def _forget(self, slot: WorkerSlot, handle: Any) -> None:
        del self._by_handle[handle]
        slot.handle = None
        self._board.words[self._board.of_worker(slot.spec.row) + PID] = 0
        if slot.output is not None:
            slot.output.close()

    def _handle_message(self, slot: WorkerSlot, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "ready":
            if not slot.is_ready:
                slot.is_ready = True
                self._note("ready", slot)
            self._check_ready()
        elif kind == "done":
            slot.is_done, slot.has_ended = True, bool(message["ended"])
        elif kind in ("error", "exit"):
            slot.report = message
        elif kind == "dead letter":
            self._note("dead letter", slot, f"{message['text']} ({message['path']})")
        elif kind == "corrupt":
            self._note("corrupt", slot, message["text"])

    def _check_ready(self) -> None:
        if not self._is_told_ready and all(
            h.is_ready or h.is_done for h in self._workers
        ):
            self._is_told_ready = True
            self._on_ready()

    def _ended(self, slot: WorkerSlot, code: int | str) -> None:
        """Act on the end of a process; a text states why it is gone with its host."""
        if slot.is_done:
            when = slot.policy.when
            if when == "always" and not slot.has_ended and not self.is_stopping:
                slot.is_done = False
                self._restart(slot, "its function returned")
                return
            self._note("exited", slot)
            self._check_ready()
            index = slot.node.index
            if all(h.is_done for h in self._workers if h.node.index == index):
                self._note("processor finished", slot, worker=-1)
                self._on_finished(index)
            return
        self._sweep()
        error = self._error_of(slot, code)
        is_user = (slot.report or {}).get("kind") == "error"
        self._note("error" if is_user else "exited", slot, str(error))
        if is_user and slot.node.settings.on_error != "restart":
            self.finish(error)
            return
        self._mark_poison(slot, is_killer=isinstance(code, int))
        if slot.policy.when == "never":
            self.finish(error)
        elif isinstance(code, str):
            # Not the processor's fault: neither its value nor its budget pays for it.
            slot.due = time.monotonic()
            slot.spec = replace(
                slot.spec, generation=slot.spec.generation + 1, is_resumed=True
            )
        else:
            self._restart(slot, str(error), error)

    def _mark_poison(self, slot: WorkerSlot, *, is_killer: bool) -> None:
        """Count the deaths of workers that the value of this one has caused."""
        words = self._board.words
        row = self._board.of_worker(slot.spec.row)
        lane, sequence = words[row + LANE], words[row + SEQUENCE]
        words[row + LANE] = words[row + BEGAN_NS] = 0
        if not lane or not is_killer:
            return
        index = slot.node.index
        key = (index, lane, sequence)
        self._kills[key] += 1
        if self._kills[key] == slot.node.settings.attempts:
            self._board.add_poison(index, lane, sequence, self._poisons[index])
            self._poisons[index] += 1

    def _restart(
        self, slot: WorkerSlot, why: str, error: ProcessorError | None = None
    ) -> None:
        """Restart a worker after a while, or fail the run if its budget is spent."""
        budget = slot.budget
        if budget.is_spent:
            if error is not None:
                why = str(error).partition(": ")[2]
            text = (
                f"{why}; it was restarted {budget.deaths} times within "
                f"{budget.window_s:g} s, and restart= allows {budget.limit}"
            )
            failure = self._error(slot.spec.processor, slot.spec.worker, text)
            if error is not None:
                failure.remote_traceback = error.remote_traceback
            self.finish(failure)
            return
        slot.due = time.monotonic() + budget.spend()
        self._board.words[self._board.of_worker(slot.spec.row) + RESTARTS] += 1
        slot.spec = replace(slot.spec, generation=slot.spec.generation + 1)

    def _look_for_hangs(self) -> None:
        now = now_ns()
        for slot in self._workers:
            limit = slot.node.settings.hang_timeout
            if limit is None or slot.handle is None or slot.is_hung or slot.is_lost:
                continue
            row = self._board.of_worker(slot.spec.row)
            began = self._board.words[row + BEGAN_NS]
            if began and now - began > limit * 1e9:
                slot.is_hung = True
                self._note("hung", slot, f"more than {limit:g} s with one value")
                self._engine.signal(slot.handle, signal.SIGKILL)

    # ---- errors and events

    def _error_of(self, slot: WorkerSlot, code: int | str) -> ProcessorError:
        report = slot.report or {}
        name, worker = slot.spec.processor, slot.spec.worker
        if report.get("kind") == "error":
            text = f"{report['type']}: {report['text']}"
            if report["value"]:
                text += f"; with {report['value']}"
            if report["place"]:
                text += f"; at {report['place']}"
            error = self._error(name, worker, text + report["notes"])
            error.remote_traceback = report["traceback"]
            error.add_note(f"In the worker:\n{report['traceback']}")
            return error
        if isinstance(code, str):
            what = code
        elif slot.is_hung:
            limit = slot.node.settings.hang_timeout
            what = f"it took more than hang_timeout={limit:g} s with one value"
        elif report:
            what = f"it called {report['text']}"
        elif code < 0:
            killer = f"signal {-code}"
            with suppress(ValueError):
                killer = signal.Signals(-code).name
            what = f"it was killed by {killer}"
        else:
            what = f"its process ended with exit code {code}, without having finished"
            if slot.output is not None and slot.output.last:
                what += f"; the last line of its errors: {slot.output.last}"
        return self._error(name, worker, what)

    @staticmethod
    def _error(processor: str, worker: int, text: str) -> ProcessorError:
        error = ProcessorError(f"processor {processor!r}, worker {worker}: {text}")
        error.processor, error.worker = processor, worker
        return error

    def _note(
        self, what: What, slot: WorkerSlot, text: str = "", worker: int | None = None
    ) -> None:
        number = slot.spec.worker if worker is None else worker
        self._tell(Event(what, now_ns(), slot.spec.processor, number, text))
