"""Start the processes of a measurement, watch them, and read their stamps."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ataraxis.latency.load import LoadReport
from ataraxis.latency.loops import pseudo_port
from ataraxis.latency.task import (
    READY,
    RESTARTS,
    SENT,
    START_S,
    STARTED,
    LatencyTask,
    StampFile,
)
from ataraxis.pipeline.statistics import list_runs
from ataraxis.shm.context import Context
from ataraxis.shm.process import (
    ChildProcess,
    ProcessIdentity,
    ProcessOutput,
    process_command,
    spawn,
)
from ataraxis.shm.thread import Latch

LatencyPath: TypeAlias = Literal["ring", "pipe", "serial", "lsl"]

EVENTS = 10_000
WARM_UP = 1000
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}
_LOOK_S = 0.05
_END_S = 10.0

# ---- the result


@dataclass(frozen=True)
class LatencyResult:
    """The latencies of the events of one measurement."""

    path: LatencyPath
    """What was measured: 'ring', 'pipe', 'serial' or 'lsl'."""
    cpus: tuple[int, int] | None
    """CPUs of the sender and of the reader or worker; None: not pinned."""
    rate_hz: float | None
    """Events a second; None: back to back."""
    sent: int
    """How many events were sent, without those of the warm-up."""
    latency_ns: NDArray[np.int64] = field(repr=False)
    """Latency of each event that came back, in the order sent, ns."""
    late_ns: int = 0
    """How late the sender was for its schedule, at most, ns; 0 without a rate."""
    restarts: int = 0
    """How often the worker died and was started again."""
    problem: str = ""
    """Why it ended early; empty if it did not."""

    @property
    def lost(self) -> int:
        """How many events were sent and never came back."""
        return self.sent - len(self.latency_ns)

    @property
    def is_whole(self) -> bool:
        """Whether no event was lost and no process died."""
        return not (self.lost or self.restarts or self.problem)

    def percentile(self, percent: float) -> int | None:
        """Return the measured latency that so many percent do not exceed, ns.

        Of two neighbours, the larger; None if no event came back.

        Examples
        --------
        >>> result = LatencyResult("ring", None, None, 4, np.array([30, 10, 20, 40]))
        >>> result.percentile(50), result.percentile(100)
        (30, 40)
        """
        if not len(self.latency_ns):
            return None
        return int(np.percentile(self.latency_ns, percent, method="higher"))

    def as_dict(self) -> dict[str, Any]:
        """Return counts and percentiles, JSON-able."""
        found = {f"{key}_ns": self.percentile(p) for key, p in PERCENTILES.items()}
        return {
            "path": self.path, "cpus": self.cpus, "rate_hz": self.rate_hz,
            "sent": self.sent, "received": len(self.latency_ns), "lost": self.lost,
            "min_ns": self.percentile(0), **found, "max_ns": self.percentile(100),
            "late_ns": self.late_ns, "restarts": self.restarts,
            "problem": self.problem,
        }  # fmt: skip


def result_of(
    task: LatencyTask,
    path: LatencyPath,
    cpus: tuple[int, int] | None,
    warm_up: int,
    problem: str = "",
) -> LatencyResult:
    """Read the stamps of a measurement that has ended."""
    file = StampFile(task.stamps)
    sent, received = file.arrays()
    words: list[int] = file.words.tolist()
    is_back = received > 0
    # A process that was stopped between an event and its count has sent one more.
    count = max([words[SENT], *(np.flatnonzero(is_back)[-1:] + 1).tolist()])
    counted = slice(warm_up, max(count, warm_up))
    late = 0
    if task.rate_hz is not None and is_back[counted].any():
        due = words[STARTED] + np.arange(len(sent)) * (1e9 / task.rate_hz)
        late = max(0, int((sent - due)[counted][is_back[counted]].max()))
    return LatencyResult(
        path, cpus, task.rate_hz, max(count - warm_up, 0),
        (received - sent)[counted][is_back[counted]], late, words[RESTARTS], problem,
    )  # fmt: skip


# ---- the processes


class BenchProcess:
    """A process of a measurement, with its part in it."""

    def __init__(self, role: str, entry: str, *arguments: str, **options: Any) -> None:
        self.role = role
        """What it is to the user: 'the reader'."""
        self._output = ProcessOutput()
        command = process_command(f"ataraxis.latency.{entry}", *arguments)
        self.process: ChildProcess = spawn(
            command, stdout=self._output, stderr=self._output, **options
        )

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def problem(self) -> str:
        """Return why it failed; empty if it runs, or has ended in order."""
        code = self.process.poll()
        if not code:
            return ""
        if code < 0:
            name = signal.Signals(-code).name
            return f"{self.role} (process {self.process.pid}) was killed by {name}"
        last = self._output.last_lines() or [f"exit code {code}"]
        return f"{self.role} failed: {last[0]}"

    def wait(self, timeout: float) -> bool:
        """Wait for its end; False: it still runs after `timeout`, s."""
        try:
            self.process.wait(timeout)
        except TimeoutError:
            return False
        return True

    def end(self, timeout: float = _END_S) -> None:
        """End it by SIGTERM, or, if that takes longer than `timeout`, by SIGKILL."""
        self.process.signal(signal.SIGTERM)
        if not self.wait(timeout):
            self.process.signal(signal.SIGKILL)
            self.process.wait()


class LatencyBench:
    """A place to measure in, and the load under which it is measured.

    Parameters
    ----------
    load : bool
        Record a session to the disk and read the statistics of everything meanwhile.
    until : Latch, optional
        Ends what is being measured once it is set, for example by a signal handler.

    Raises
    ------
    OSError
        There is no memory or disk for it; or the load did not start.

    Notes
    -----
    A context manager: every process that measures or makes load is a process of its
    own, which ends with this one; at the end, all have ended, and the segments and the
    session are removed.

    Examples
    --------
    >>> with LatencyBench(load=False) as bench:
    ...     found = bench.measure("ring", 100)
    >>> found.sent, found.lost, found.percentile(50) > 0
    (100, 0, True)
    """

    load: LoadReport | None = None
    """The load, once the bench is closed; None without load."""

    def __init__(self, *, load: bool = True, until: Latch | None = None) -> None:
        self._until = until or Latch()
        self._stack = ExitStack()
        self._numbers = 0
        self._loaders: list[BenchProcess] = []
        self._has_load = load

    def __enter__(self) -> Self:
        try:
            place = Path(tempfile.mkdtemp(prefix=_prefix(), dir=_memory()))
            self._stack.callback(shutil.rmtree, place, ignore_errors=True)
            self._place, self._context = place, Context.create(place / "context")
            if self._has_load:
                self._start_load()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, and remove all files."""
        self._stack.close()

    # ---- the load

    def _start_load(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix=_prefix()))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        task = self._task(0, "load")
        self._stack.callback(self._end_load, directory, task)
        for role, entry, *more in (
            ("the session", "load:record", str(directory)),
            ("the inspector", "load:watch"),
        ):
            self._loaders.append(BenchProcess(role, entry, task.to_json(), *more))
        words, end = StampFile(task.stamps).words, time.monotonic() + START_S
        while not words[READY] and not self._until.is_set():
            if problem := self.load_problem():
                raise OSError(f"the load did not start: {problem}")
            if time.monotonic() > end:
                raise TimeoutError(
                    f"the load did not start within {START_S:g} s: try --no-load"
                )
            time.sleep(_LOOK_S)

    def load_problem(self) -> str:
        """Return why the load does not go on; empty if it does."""
        return next(filter(None, (p.problem() for p in self._loaders)), "")

    def _end_load(self, directory: Path, task: LatencyTask) -> None:
        problem = self.load_problem()
        for process in self._loaders:
            process.end()
        self.load = LoadReport.of(directory, StampFile(task.stamps), problem)

    # ---- measuring

    def _task(self, events: int, name: str, **options: Any) -> LatencyTask:
        path = self._place / name
        try:
            StampFile.create(path, events)
        except OSError as error:
            raise OSError(
                error.errno, f"{events:,} events need 16 bytes each in "
                f"{self._place.parent}: {error.strerror}; measure fewer"
            ) from error  # fmt: skip
        return LatencyTask(
            str(self._context.path), str(path), events, os.getpid(), **options
        )

    def measure(
        self,
        path: LatencyPath,
        events: int = EVENTS,
        *,
        rate_hz: float | None = None,
        cpus: tuple[int, int] | None = None,
        port: str | None = None,
        baud: int = 115200,
        warm_up: int = WARM_UP,
        on_start: Callable[[dict[str, int]], object] | None = None,
    ) -> LatencyResult:
        """Measure the latency of events.

        Parameters
        ----------
        path : {'ring', 'pipe', 'serial', 'lsl'}
            'ring': from a process that sends to one that receives, one way. 'pipe': to
            a plain function in a worker of a pipe, and back. The others: also to a
            device and back, a serial loop or one of LSL.
        events : int
            How many events are measured.
        rate_hz : float, optional
            Events a second; if not given, back to back: each is sent when the one
            before it has arrived.
        cpus : tuple of int, optional
            CPUs of the process that sends or calls, and of the reader or the worker.
        port, baud : optional
            The port of the serial loop; if not given, a pseudo-terminal is used.
        warm_up : int
            How many events are sent before, and not counted.
        on_start : callable, optional
            Called with the process ids of those who take part, by role.

        Returns
        -------
        LatencyResult
            Also if a process died, or the measurement was ended: what was measured so
            far, and its `problem`.

        Raises
        ------
        ValueError
            `path` is not one of these.
        """
        if path not in (known := get_args(LatencyPath)):
            raise ValueError(f"path must be one of {', '.join(known)}, got {path!r}")
        self._numbers += 1
        first, second = ((), ()) if cpus is None else ((cpus[0],), (cpus[1],))
        task = self._task(
            events + warm_up, f"stamps-{self._numbers}", rate_hz=rate_hz, cpus=first,
            worker_cpus=second, loop="" if path in ("ring", "pipe") else path,
            port=port or "", baud=baud,
        )  # fmt: skip
        try:
            problem = self._run(task, path, on_start)
            return result_of(task, path, cpus, warm_up, problem)
        finally:
            os.unlink(task.stamps)

    def _run(
        self, task: LatencyTask, path: LatencyPath, on_start: Callable[..., Any] | None
    ) -> str:
        """Run the processes of a measurement to their end; return the problem."""
        with ExitStack() as stack:
            measuring, serving = self._processes(task, path, stack)
            if on_start is not None:
                on_start({p.role: p.process.pid for p in [*measuring, *serving]})
            problem = ""
            while any(process.is_running for process in measuring):
                problem = _first_problem([*measuring, *serving])
                if problem or self._until.wait(_LOOK_S):
                    break
            # The sender first: the reader takes the rest, and ends by itself.
            for k, process in enumerate(measuring):
                process.wait(_END_S if k else 0)
                process.end()
            if not (problem or self._until.is_set()):
                problem = _first_problem(measuring)
            self._wait_for_workers()
            return problem

    def _processes(
        self, task: LatencyTask, path: LatencyPath, stack: ExitStack
    ) -> tuple[list[BenchProcess], list[BenchProcess]]:
        """Start those that measure, and those that serve them; the stack ends them."""

        def start(role: str, entry: str, *arguments: str, **more: Any) -> BenchProcess:
            process = BenchProcess(role, entry, *arguments, **more)
            stack.callback(process.end)
            return process

        if path == "ring":
            reader = LatencyTask(**{**vars(task), "cpus": task.worker_cpus})
            return [
                start("the sender", "ring:send", task.to_json()),
                start("the reader", "ring:read", reader.to_json()),
            ], []
        serving: list[BenchProcess] = []
        if path == "serial" and not task.port:

            def plug(descriptor: int) -> None:
                free = LatencyTask(**{**vars(task), "cpus": ()}).to_json()
                serving.append(
                    start(
                        "the pseudo-terminal", "loops:plug", free, str(descriptor),
                        pass_fds=(descriptor,),
                    )
                )  # fmt: skip

            port = stack.enter_context(pseudo_port(plug))
            task = LatencyTask(**{**vars(task), "port": port})
        return [start("the caller", "call:call", task.to_json())], serving

    def _wait_for_workers(self) -> None:
        """Wait until workers have ended whose caller was killed."""
        end = time.monotonic() + _END_S
        workers = [
            ProcessIdentity.of(worker.pid)
            for worker in list_runs(self._context)
            if worker.pid
        ]
        while any(worker.start and worker.is_alive() for worker in workers):
            if time.monotonic() > end:
                break
            time.sleep(_LOOK_S)


def _first_problem(processes: list[BenchProcess]) -> str:
    # A killed process explains the failures of those that waited for it.
    found = sorted(filter(None, (p.problem() for p in processes)), key=_is_failure)
    return found[0] if found else ""


def _is_failure(problem: str) -> bool:
    return " was killed by " not in problem


def _prefix() -> str:
    return f"ataraxis-latency-{os.getpid()}-"


def _memory() -> str | None:
    """Return the directory of shared memory; None: the temporary directory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
