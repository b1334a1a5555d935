"""`Engine`: where workers run. `Local` runs them on this machine."""

from __future__ import annotations

import json
import os
import selectors
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

from ataraxis.pipeline.board import StatusBoard
from ataraxis.pipeline.forkserver import ForkedProcess, ForkServer, memory_file
from ataraxis.pipeline.placement import Host
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.process import (
    ChildProcess,
    check_can_start,
    process_command,
    spawn,
)


@dataclass(frozen=True)
class WorkerEvent:
    """What an engine reports of a worker."""

    handle: Any
    """As `Engine.spawn` returned it."""
    what: Literal["output", "message", "exit", "lost", "found"]
    data: Any
    """Of output, the bytes and whether they are errors; of a message, its dict; of an
    exit, the exit code, or minus the number of the signal that killed it, or a text:
    why it is gone with its host. Of 'lost' and 'found', a text: its host does not
    answer, and the worker may run; it answers again, and the worker runs."""


class Engine(Protocol):
    """Starts processes, signals them and reports their output and their end.

    Used by one thread, the run's supervisor.
    """

    def hosts(self) -> Sequence[Host]:
        """Return the hosts; the first is that of the program, and the default."""

    def prepare(self, plan: Plan, board: StatusBoard) -> None:
        """Make the queues and the board of a run on its other hosts; join its edges.

        Called once for each run, before the first `spawn`, and not by the supervisor.
        The engine keeps `board` up to date with what workers elsewhere write.

        Raises
        ------
        AccessDenied
            A host does not let this one run one of the processors.
        HostUnavailable
            A host of the run cannot be reached.
        """

    def connect(self, plan: Plan) -> None:
        """Join the edges of a run again, after a worker has moved to another host."""

    def is_up(self, host: str) -> bool:
        """Return whether a worker can be started on a host now; does not wait."""

    def is_idle(self, host: str, name: str) -> bool:
        """Return whether a queue on another host has no value; does not wait.

        Values that are leased count. Asked again and again, after the last put.
        """

    def end(self, host: str, name: str, count: int) -> None:
        """Put last frames into a queue on another host, once; does not wait.

        For the first host it only ends the edges that begin at the queue: the run puts
        the last frames there itself.
        """

    def release(self, run: str) -> None:
        """Remove a run from its other hosts; all of its workers have ended."""

    def spawn(self, host: str, spec: WorkerSpec) -> Any:
        """Start a worker; return a hashable handle, which `watch` gives with events.

        The worker ends within 1 s after the process that called this. Raises `OSError`
        if it cannot be started.
        """

    def signal(self, handle: Any, number: int) -> None:
        """Send a signal to a worker; nothing happens if it has ended."""

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait for events, until `bell` is readable, or `timeout` s have passed.

        `bell` is a descriptor, which is not read; -1: the run has ended, and has closed
        it. All output of a worker comes before its exit.
        """


# ---- `Local`: workers on this machine, each a new interpreter or a fork of one

Start: TypeAlias = Literal["spawn", "forkserver"]
_Four: TypeAlias = tuple[int, int, int, int]
"""Descriptors of a worker: of its spec, its messages, its out and err."""
_CHUNK = 1 << 16
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(eq=False)
class Child:
    """A worker process."""

    process: ChildProcess | ForkedProcess
    end: int
    """The process's descriptor: readable once it has ended."""
    messages: int
    """What it reports, JSON in lines; and what it prints, out and err."""
    out: int
    err: int
    pending: bytes = b""
    open: set[int] = field(default_factory=set)


class Local:
    """Runs workers on this machine.

    A worker is a new interpreter, or a fork of one that has only imported modules. It
    is never a fork of the program, and does not import its ``__main__``. Ctrl-C reaches
    the program alone.

    Parameters
    ----------
    start : {'spawn', 'forkserver'}
        Each worker is a new interpreter, some 0.3 s of a core; or a fork of a server,
        some 10 ms. The server takes 0.3 s to start, once; it lasts until `close`,
        through any number of runs.
    preload : sequence of str
        Modules that the server imports once for all workers: those that take long.

    Raises
    ------
    ValueError
        `start` is neither; or `preload` is given without a server.
    OSError
        This program is frozen, and does not call `ataraxis.freeze_support`.

    Notes
    -----
    A context manager. A run without one, or with ``engine="forkserver"``, makes one and
    closes it.

    Examples
    --------
    >>> [host.name for host in Local().hosts()]
    ['localhost']
    >>> from ataraxis.pipeline import Pipe, Processor
    >>> pipe = Pipe("doc_local")
    >>> _ = pipe.add(Processor("absolute", func=abs, workers=2, ordered=True))
    >>> with Local("forkserver", preload=["fractions"]) as local:
    ...     for values in ([-1], [2, -3]):
    ...         with pipe.run(values, found := [], engine=local):
    ...             pass
    ...         found
    [1]
    [2, 3]
    """

    def __init__(self, start: Start = "spawn", *, preload: Sequence[str] = ()) -> None:
        if start not in get_args(Start):
            raise ValueError(f"start={start!r}: 'spawn' or 'forkserver'")
        if preload and start != "forkserver":
            raise ValueError("preload= is for start='forkserver'")
        check_can_start()
        self._start, self._preload = start, tuple(preload)
        # By the number of threads: BLAS reads it when it is imported.
        self._servers: dict[int | None, ForkServer] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = -1

    def hosts(self) -> Sequence[Host]:
        """Return this machine."""
        return [Host("localhost")]

    def prepare(self, plan: Plan, board: StatusBoard) -> None:
        """Do nothing: there is no other host."""

    def connect(self, plan: Plan) -> None:
        """Do nothing: there is no other host."""

    def is_up(self, host: str) -> bool:
        """Return True: it is this one."""
        return True

    def is_idle(self, host: str, name: str) -> bool:
        """Return True: there is no other host."""
        return True

    def end(self, host: str, name: str, count: int) -> None:
        """Do nothing: there is no other host."""

    def release(self, run: str) -> None:
        """Do nothing: there is no other host."""

    def spawn(self, host: str, spec: WorkerSpec) -> Child:
        """Start a worker; see `Engine`."""
        given = memory_file(spec.to_bytes())
        ours, theirs = zip(*(os.pipe() for _ in range(3)), strict=True)
        try:
            start = self._fork if self._start == "forkserver" else self._spawn
            process = start(spec, (given, *theirs))
        except BaseException:
            for number in ours:
                os.close(number)
            raise
        finally:
            for number in (given, *theirs):
                os.close(number)
        child = Child(process, process.descriptor, *ours)
        for number in ours:
            os.set_blocking(number, False)
            child.open.add(number)
        for number in (*ours, child.end):
            self._selector.register(number, selectors.EVENT_READ, child)
        return child

    def _spawn(self, spec: WorkerSpec, numbers: _Four) -> ChildProcess:
        given, messages, out, err = numbers
        process = spawn(
            process_command(
                "ataraxis.pipeline.worker_main:main",
                *map(str, (given, messages, os.getpid())),
            ),
            stdout=out,
            stderr=err,
            pass_fds=(given, messages),
            env=_environment(spec),
        )
        if process.descriptor < 0:
            process.signal(signal.SIGKILL)
            process.wait()
            raise OSError(
                f"process {process.pid} has no pidfd: its end would go unseen"
            )
        return process

    def _fork(self, spec: WorkerSpec, numbers: _Four) -> ForkedProcess:
        environment, run = _environment(spec), (spec.run, spec.context)
        server = self._servers.get(spec.threads)
        try:
            if server is None:
                raise ConnectionError("not started yet")
            return server.fork(environment, *run, numbers)
        except ConnectionError:  # or it was killed
            if server is not None:
                self._servers.pop(spec.threads).close()
            server = ForkServer(environment, self._preload, *run)
            self._servers[spec.threads] = server
            return server.fork(environment, *run, numbers)

    def signal(self, handle: Child, number: int) -> None:
        """Send a signal; see `Engine`."""
        handle.process.signal(number)

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait for events; see `Engine`."""
        if bell != self._bell:
            if self._bell >= 0:
                self._selector.unregister(self._bell)
            self._bell = bell
            if bell >= 0:
                self._selector.register(bell, selectors.EVENT_READ, None)
        found: list[WorkerEvent] = []
        for key, _ in self._selector.select(timeout):
            child = key.data
            if child is None:
                continue
            if key.fd == child.end:
                found += self._ended(child)
            elif key.fd in child.open:
                found += self._read(child, key.fd)
        return found

    def _read(self, child: Child, number: int) -> list[WorkerEvent]:
        """Read what a pipe holds."""
        found: list[WorkerEvent] = []
        while True:
            try:
                data = os.read(number, _CHUNK)
            except BlockingIOError:
                return found
            if not data:
                self._shut(child, number)
                return found
            if number == child.messages:
                lines = (child.pending + data).split(b"\n")
                child.pending = lines.pop()
                found += [
                    WorkerEvent(child, "message", json.loads(line)) for line in lines
                ]
            else:
                found.append(WorkerEvent(child, "output", (data, number == child.err)))
            if len(data) < _CHUNK:
                return found

    def _ended(self, child: Child) -> list[WorkerEvent]:
        """Read the rest of what a process that has ended wrote; close its pipes."""
        found: list[WorkerEvent] = []
        self._selector.unregister(child.end)
        code = child.process.wait()
        # A child of it may still hold the pipes: what they hold now is all.
        for number in sorted(child.open):
            while number in child.open:
                more = self._read(child, number)
                found += more
                if not more:
                    break
        for number in list(child.open):
            self._shut(child, number)
        for number in (child.messages, child.out, child.err):
            os.close(number)
        return [*found, WorkerEvent(child, "exit", code)]

    def _shut(self, child: Child, number: int) -> None:
        child.open.discard(number)
        self._selector.unregister(number)

    def close(self) -> None:
        """End the servers; all workers have ended."""
        while self._servers:
            self._servers.popitem()[1].close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _environment(spec: WorkerSpec) -> dict[str, str]:
    """Return the environment of a worker, with its number of threads and its GPU."""
    found = dict(os.environ)
    if spec.threads is not None:
        found.update(dict.fromkeys(_THREADS, str(spec.threads)))
    if spec.gpu is not None:
        found["CUDA_VISIBLE_DEVICES"] = spec.gpu
    return found
