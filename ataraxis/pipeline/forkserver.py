"""`ForkServer`: a process that has imported what workers need, and forks them.

The program has one end of a socket, the server the other. A worker is a fork of the
server, which has one thread and holds nothing of any pipe; so it starts in some
milliseconds. The server ends with the program, and its workers with the server.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ataraxis.pipeline.board import clear
from ataraxis.shm.context import Context
from ataraxis.shm.process import ChildProcess, process_command

_START_S, _FORK_S, _END_S = 120.0, 30.0, 5.0
_CODE, _PID = struct.Struct("<i"), struct.Struct("<q")
_READY, _FAILED, _CLOSE = b"r", b"!", b"c"
_MOST_BYTES = 4096
_DESCRIPTORS = 6


@dataclass(eq=False)
class Forked:
    """A worker process, seen by the program, whose grandchild it is."""

    pid: int
    descriptor: int
    """A pidfd of it."""
    end: int
    """Readable once it has ended."""

    def wait(self) -> int:
        """Return its exit code, negative the number of a signal; once it has ended."""
        data = os.read(self.end, _CODE.size)
        os.close(self.end)
        if data:
            return int(_CODE.unpack(data)[0])
        # The server is gone, and the worker on its way: it ends with its parent.
        if not select.select([self.descriptor], [], [], _END_S)[0]:
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
            select.select([self.descriptor], [], [], _END_S)
        return -signal.SIGHUP


class ForkServer:
    """The program's side of a server; `fork` may be called by one thread at a time.

    Parameters
    ----------
    environment : dict
        Of the server, from its start on.
    preload : sequence of str
        Modules that it imports besides, once for all workers.
    run, context : str
        The run that it is started for: its names go with the program, from now on.

    Raises
    ------
    OSError
        It could not be started, or not import one of the modules.
    """

    def __init__(
        self,
        environment: dict[str, str],
        preload: Sequence[str],
        run: str,
        context: str,
    ) -> None:
        ours, theirs = socket.socketpair()
        program = os.pidfd_open(os.getpid())
        try:
            self._process = ChildProcess(
                process_command(
                    "ataraxis.pipeline.forkserver:start",
                    json.dumps([theirs.fileno(), program, list(preload), run, context]),
                ),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), program),
                env=environment,
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(program)
        self._socket = ours
        self._ender = weakref.finalize(self, _end, ours, self._process)
        ours.settimeout(_START_S)
        said = ours.recv(_MOST_BYTES)
        if said[:1] != _READY:
            self.close()
            why = said[1:].decode() or f"exit code {self._process.returncode}"
            raise OSError(f"the fork server could not be started: {why}")
        ours.settimeout(_FORK_S)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fork(
        self,
        environment: dict[str, str],
        run: str,
        context: str,
        numbers: tuple[int, int, int, int],
    ) -> Forked:
        """Have a worker forked, which has these descriptors: given, tells, out, err.

        It has the program's folder and module path of now, and `environment`. Raises
        `OSError` if the server is gone.
        """
        order = {"cwd": os.getcwd(), "path": sys.path, "environment": environment}
        told = written(json.dumps(order).encode())
        end, ends = os.pipe()
        name = f"{run}\n{context}".encode()
        try:
            socket.send_fds(self._socket, [name], [*numbers, told, ends])
            said, found, _, _ = socket.recv_fds(
                self._socket, _PID.size, 1, socket.MSG_CMSG_CLOEXEC
            )
            if not found:
                raise ConnectionResetError("the fork server is gone")
        except BaseException:
            os.close(end)
            raise
        finally:
            os.close(told)
            os.close(ends)
        return Forked(_PID.unpack(said)[0], found[0], end)

    def close(self) -> None:
        """End it, and wait until it has."""
        self._ender()


def _end(ours: socket.socket, process: ChildProcess) -> None:
    with suppress(OSError):
        ours.send(_CLOSE)
    ours.close()
    try:
        process.wait(_END_S)
    except TimeoutError:
        process.signal(signal.SIGKILL)
        process.wait()


def written(data: bytes) -> int:
    """Return a descriptor from which a child reads these bytes."""
    number = os.memfd_create("ataraxis-worker")
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.lseek(number, 0, os.SEEK_SET)
    return number


# ---- the server


def start(text: str) -> None:
    """Be a server, and in each fork of it a worker; told as JSON what `serve` takes."""
    # Before the first fork: each worker has it then.
    from ataraxis.pipeline.worker_main import main

    main(*serve(*json.loads(text)))


def serve(
    number: int, program: int, preload: list[str], run: str, context: str
) -> tuple[int, int, int, int]:
    """Fork workers as long as the program lives; then take away what it left.

    Returns in each worker only: what `child.main` takes.
    """
    runs = {(run, context)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=number)
    try:
        for name in preload:
            importlib.import_module(name)
    except Exception as error:
        connection.send(_FAILED + f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    # What is here now stays: a look for garbage would copy its pages in every worker.
    gc.collect()
    gc.freeze()
    with suppress(OSError):  # a program that is gone is noticed below
        connection.send(_READY)
    selector = selectors.DefaultSelector()
    selector.register(program, selectors.EVENT_READ)
    selector.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == program:
                # Killed before any worker had begun, there is nobody else to do it.
                for name, where in runs:
                    clear(name, Context.of(where))
                os._exit(0)
            if key.fd != number:
                _bury(selector, key.fd, *key.data)
                continue
            made = _fork(connection, selector, runs)
            if made is not None:
                return (*made, program)


def _fork(
    connection: socket.socket,
    selector: selectors.BaseSelector,
    runs: set[tuple[str, str]],
) -> tuple[int, int, int] | None:
    """Fork a worker: what it shall do, in it; None in the server."""
    flags = socket.MSG_CMSG_CLOEXEC
    said, found, _, _ = socket.recv_fds(connection, _MOST_BYTES, _DESCRIPTORS, flags)
    if said == _CLOSE:
        os._exit(0)
    if not said:
        # The program is about to end; its workers may ask whether it has.
        selector.unregister(connection)
        return None
    run, _, context = said.decode().partition("\n")
    runs.add((run, context))
    given, tells, out, err, told, ends = found
    server = os.getpid()
    with warnings.catch_warnings():
        # BLAS may have threads, if it was allowed to; it sees to forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(ends)
        _close_all(connection, selector)
        _become(told, out, err)
        return given, tells, server
    descriptor = os.pidfd_open(pid)
    for number in (given, tells, out, err, told):
        os.close(number)
    selector.register(descriptor, selectors.EVENT_READ, (pid, ends))
    socket.send_fds(connection, [_PID.pack(pid)], [descriptor])
    return None


def _close_all(connection: socket.socket, selector: selectors.BaseSelector) -> None:
    """Give up what is the server's: who waits for its end must see it."""
    for key in list(selector.get_map().values()):
        if key.data is not None:
            os.close(key.fd)
            os.close(key.data[1])
    selector.close()
    connection.close()


def _become(told: int, out: int, err: int) -> None:
    """Be what a fresh process would be that the program starts now."""
    os.setpgid(0, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    with open(told, "rb") as file:
        order = json.loads(file.read())
    os.chdir(order["cwd"])
    sys.path[:] = order["path"]
    os.environ.clear()
    os.environ.update(order["environment"])
    if "numpy.random" in sys.modules:
        # Python's own generator sees to forks itself.
        sys.modules["numpy.random"].seed()


def _bury(
    selector: selectors.BaseSelector, descriptor: int, pid: int, ends: int
) -> None:
    """Tell how a worker has ended."""
    selector.unregister(descriptor)
    os.close(descriptor)
    status = os.waitpid(pid, 0)[1]
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(ends, _CODE.pack(os.waitstatus_to_exitcode(status)))
    os.close(ends)
