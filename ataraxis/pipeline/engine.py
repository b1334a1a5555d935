"""`Engine`: where workers run. Four calls; `Local` is the one that is always there."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

from ataraxis.pipeline.forkserver import ForkServer, written
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.process import ChildProcess, check_can_start, process_command


@dataclass(frozen=True)
class WorkerEvent:
    """What an engine has to tell of a worker."""

    handle: Any
    """As `Engine.spawn` returned it."""
    what: Literal["output", "message", "exit"]
    data: Any
    """Of output, the bytes and whether they are errors; of a message, its dict; of an
    exit, the exit code, negative the number of the signal that killed it."""


class Engine(Protocol):
    """Starts processes, signals them and tells what becomes of them.

    Used by one thread, the run's supervisor, but for `watch`'s ``bell``.
    """

    def hosts(self) -> Sequence[str]:
        """Return the names of the hosts there are; the first is the default."""

    def spawn(self, host: str, spec: WorkerSpec) -> Any:
        """Start a worker: a handle, hashable, that `watch` names it by.

        The process ends within 1 s of the one that has called this. Raises `OSError`
        if it cannot be started.
        """

    def signal(self, handle: Any, number: int) -> None:
        """Send a signal to a worker; nothing happens if it has ended."""

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait until there is news, `bell` is readable, or `timeout` s have passed.

        `bell` is a descriptor; it is not read. -1: there is none any more, since a run
        has ended. What a worker has written comes before
        its exit, whole.
        """


# ---- `Local`: workers on this machine, each a fresh interpreter or a fork of one

Start: TypeAlias = Literal["spawn", "forkserver"]
_Four: TypeAlias = tuple[int, int, int, int]
"""Descriptors of a worker: what it is given, where it tells, its out and err."""
_Started: TypeAlias = tuple[int, int, int, Callable[[], int]]
"""The first four fields of `Child`."""
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

    pid: int
    """Its process id."""
    descriptor: int
    """A pidfd of it, for signals."""
    end: int
    """Readable once it has ended; the same, of a child of our own."""
    wait: Callable[[], int]
    """Returns its exit code, then."""
    told: int
    """Where it tells, and what it prints: out and err."""
    out: int
    err: int
    pending: bytes = b""
    open: set[int] = field(default_factory=set)
    code: int | None = None


class Local:
    """Runs workers on this machine.

    A worker depends on no ``__main__`` of the program, and is never a fork of it: a new
    interpreter, or a fork of one that did nothing but import, is told over a pipe what
    to do. Ctrl-C is the program's business alone.

    Parameters
    ----------
    start : {'spawn', 'forkserver'}
        Whether each worker is a new interpreter, some 0.3 s of a core; or a fork of a
        server, some 10 ms, which takes as long to start itself, once. The server lasts
        until `close`, through any number of runs.
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
    A context manager. A run that was given none, or ``engine="forkserver"``, has one of
    its own, and closes it.

    Examples
    --------
    >>> Local().hosts()
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
        # By the number of threads: BLAS asks for it when it is imported.
        self._servers: dict[int | None, ForkServer] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = -1

    def hosts(self) -> Sequence[str]:
        """Return this machine."""
        return ["localhost"]

    def spawn(self, host: str, spec: WorkerSpec) -> Child:
        """Start a worker; see `Engine`."""
        given = written(spec.to_bytes())
        pipes = [os.pipe() for _ in range(3)]
        (told, tells), (out, outs), (err, errs) = pipes
        try:
            start = self._fork if self._start == "forkserver" else self._spawn
            pid, descriptor, end, wait = start(spec, (given, tells, outs, errs))
        except BaseException:
            for number, _ in pipes:
                os.close(number)
            raise
        finally:
            for number in (given, tells, outs, errs):
                os.close(number)
        child = Child(pid, descriptor, end, wait, told, out, err)
        for number in (told, out, err):
            os.set_blocking(number, False)
            child.open.add(number)
            self._selector.register(number, selectors.EVENT_READ, child)
        self._selector.register(end, selectors.EVENT_READ, child)
        return child

    def _spawn(self, spec: WorkerSpec, numbers: _Four) -> _Started:
        given, tells, out, err = numbers
        process = ChildProcess(
            process_command(
                "ataraxis.pipeline.worker_main:main",
                *map(str, (given, tells, os.getpid())),
            ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(given, tells),
            env=_environment(spec.threads),
            process_group=0,
        )
        descriptor = os.pidfd_open(process.pid)
        return process.pid, descriptor, descriptor, process.wait

    def _fork(self, spec: WorkerSpec, numbers: _Four) -> _Started:
        environment, run = _environment(spec.threads), (spec.run, spec.context)
        server = self._servers.get(spec.threads)
        try:
            if server is None:
                raise ConnectionError("there is no server")
            made = server.fork(environment, *run, numbers)
        except ConnectionError:
            # None yet, or somebody has killed it.
            if server is not None:
                self._servers.pop(spec.threads).close()
            server = ForkServer(environment, self._preload, *run)
            self._servers[spec.threads] = server
            made = server.fork(environment, *run, numbers)
        return made.pid, made.descriptor, made.end, made.wait

    def signal(self, handle: Child, number: int) -> None:
        """Send a signal; see `Engine`."""
        if handle.code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle.descriptor, number)

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait for news; see `Engine`."""
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
        """Read what there is of a pipe."""
        found: list[WorkerEvent] = []
        while True:
            try:
                data = os.read(number, _CHUNK)
            except BlockingIOError:
                return found
            if not data:
                self._shut(child, number)
                return found
            if number == child.told:
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
        """Read what is left of a process that has ended, and dead_letter it."""
        found: list[WorkerEvent] = []
        self._selector.unregister(child.end)
        child.code = child.wait()
        # A process of its own may still hold the pipes: what is there now is all.
        for number in sorted(child.open):
            while number in child.open:
                more = self._read(child, number)
                found += more
                if not more:
                    break
        for number in list(child.open):
            self._shut(child, number)
        for number in (child.told, child.out, child.err, child.descriptor):
            os.close(number)
        return [*found, WorkerEvent(child, "exit", child.code)]

    def _shut(self, child: Child, number: int) -> None:
        child.open.discard(number)
        self._selector.unregister(number)

    def close(self) -> None:
        """End; there are no workers any more."""
        while self._servers:
            self._servers.popitem()[1].close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _environment(threads: int | None) -> dict[str, str]:
    """Return the environment of a worker, with its number of threads."""
    found = dict(os.environ)
    if threads is not None:
        found.update(dict.fromkeys(_THREADS, str(threads)))
    return found
