"""`Local`: workers on this machine, each a fresh interpreter."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from ataraxis.pipeline.engine import News
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.child import python_command

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

    process: subprocess.Popen[bytes]
    told: int
    descriptor: int
    pending: bytes = b""
    open: set[int] = field(default_factory=set)
    code: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


class Local:
    """Runs workers on this machine.

    A worker depends on no start method and no ``__main__`` of the program: it is a new
    interpreter, told over a pipe what to do. Ctrl-C is the program's business alone.

    Examples
    --------
    >>> Local().hosts()
    ['localhost']
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell = -1

    def hosts(self) -> Sequence[str]:
        """Return this machine."""
        return ["localhost"]

    def spawn(self, host: str, spec: WorkerSpec) -> Child:
        """Start a worker; see `Engine`."""
        given = _written(spec.to_bytes())
        told, tells = os.pipe()
        environment = dict(os.environ)
        if spec.threads is not None:
            environment.update(dict.fromkeys(_THREADS, str(spec.threads)))
        try:
            process = subprocess.Popen(
                python_command(
                    "from ataraxis.pipeline.child import main; "
                    f"main({given}, {tells}, {os.getpid()})"
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(given, tells),
                env=environment,
                process_group=0,
            )
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(given)
            os.close(tells)
        child = Child(process, told, os.pidfd_open(process.pid))
        for number in (told, *map(_number, (process.stdout, process.stderr))):
            os.set_blocking(number, False)
            child.open.add(number)
            self._selector.register(number, selectors.EVENT_READ, child)
        self._selector.register(child.descriptor, selectors.EVENT_READ, child)
        return child

    def signal(self, handle: Child, number: int) -> None:
        """Send a signal; see `Engine`."""
        if handle.code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle.descriptor, number)

    def watch(self, timeout: float | None, bell: int) -> list[News]:
        """Wait for news; see `Engine`."""
        if bell != self._bell:
            if self._bell >= 0:
                self._selector.unregister(self._bell)
            self._bell = bell
            if bell >= 0:
                self._selector.register(bell, selectors.EVENT_READ, None)
        found: list[News] = []
        for key, _ in self._selector.select(timeout):
            child = key.data
            if child is None:
                continue
            if key.fd == child.descriptor:
                found += self._ended(child)
            elif key.fd in child.open:
                found += self._read(child, key.fd)
        return found

    def _read(self, child: Child, number: int) -> list[News]:
        """Read what there is of a pipe."""
        found: list[News] = []
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
                found += [News(child, "message", json.loads(line)) for line in lines]
            else:
                is_error = number == _number(child.process.stderr)
                found.append(News(child, "output", (data, is_error)))
            if len(data) < _CHUNK:
                return found

    def _ended(self, child: Child) -> list[News]:
        """Read what is left of a process that has ended, and bury it."""
        found: list[News] = []
        # A process of its own may still hold the pipes: what is there now is all.
        for number in sorted(child.open):
            while number in child.open:
                more = self._read(child, number)
                found += more
                if not more:
                    break
        for number in list(child.open):
            self._shut(child, number)
        self._selector.unregister(child.descriptor)
        child.code = child.process.wait()
        for stream in (child.process.stdout, child.process.stderr):
            if stream is not None:
                stream.close()
        os.close(child.told)
        os.close(child.descriptor)
        return [*found, News(child, "exit", child.code)]

    def _shut(self, child: Child, number: int) -> None:
        child.open.discard(number)
        self._selector.unregister(number)

    def close(self) -> None:
        """End; there are no workers any more."""
        self._selector.close()


def _number(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()


def _written(data: bytes) -> int:
    """Return a descriptor from which a child reads these bytes."""
    number = os.memfd_create("ataraxis-worker")
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.lseek(number, 0, os.SEEK_SET)
    return number
