"""`ForkServer`: a process that has imported what workers need, and forks them.

The program and the server share a socket. A worker is a fork of the server, which has
one thread and nothing open of any pipe; it starts in some milliseconds. The server ends
with the program, and its workers with the server.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ataraxis.pipeline.board import clear
from ataraxis.shm.context import Context
from ataraxis.shm.process import ChildProcess, is_readable, process_command, spawn

_START_S, _FORK_S, _END_S = 120.0, 30.0, 5.0
_CODE, _PID = struct.Struct("<i"), struct.Struct("<q")
_READY, _FAILED, _CLOSE = b"r", b"!", b"c"
_MOST_BYTES = 4096
_DESCRIPTORS = 6


@dataclass(eq=False)
class ForkedProcess:
    """A worker that the server forked; a `ChildProcess` of the program's grandchild."""

    pid: int
    pidfd: int
    descriptor: int
    """Readable once it has ended: the server writes its exit code."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def wait(self) -> int:
        """Return its exit code, negative the number of a signal; once it has ended."""
        data = os.read(self.descriptor, _CODE.size)
        os.close(self.descriptor)
        if not data and not is_readable(self.pidfd, _END_S):
            # The server has died, and the worker should have ended with its parent.
            self.signal(signal.SIGKILL)
            is_readable(self.pidfd, _END_S)
        os.close(self.pidfd)
        self.pidfd = -1
        return int(_CODE.unpack(data)[0]) if data else -signal.SIGHUP


class ForkServer:
    """The program's end of a server; `fork` is for one thread at a time.

    Parameters
    ----------
    environment : dict
        Of the server.
    preload : sequence of str
        Modules that it imports, once for all workers.
    run, context : str
        The run that it is started for: the server removes its names if the program is
        killed.

    Raises
    ------
    OSError
        It could not be started, or could not import one of the modules.
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
            self._process = spawn(
                process_command(
                    "ataraxis.pipeline.forkserver:start",
                    json.dumps([theirs.fileno(), program, list(preload), run, context]),
                ),
                pass_fds=(theirs.fileno(), program),
                env=environment,
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
        answer = ours.recv(_MOST_BYTES)
        if answer[:1] != _READY:
            self.close()
            why = answer[1:].decode() or f"exit code {self._process.code}"
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
    ) -> ForkedProcess:
        """Fork a worker, with these descriptors: its spec, messages, out and err.

        It gets the program's current folder and module path, and `environment`. Raises
        `OSError` if the server has ended.
        """
        state = {"cwd": os.getcwd(), "path": sys.path, "environment": environment}
        state_file = memory_file(json.dumps(state).encode())
        end, ends = os.pipe()
        name = f"{run}\n{context}".encode()
        try:
            socket.send_fds(self._socket, [name], [*numbers, state_file, ends])
            pid, found, _, _ = socket.recv_fds(
                self._socket, _PID.size, 1, socket.MSG_CMSG_CLOEXEC
            )
            if not found:
                raise ConnectionResetError("the fork server has ended")
        except BaseException:
            os.close(end)
            raise
        finally:
            os.close(state_file)
            os.close(ends)
        return ForkedProcess(_PID.unpack(pid)[0], found[0], end)

    def close(self) -> None:
        """Wait until it has ended."""
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


def memory_file(data: bytes) -> int:
    """Return a descriptor from which a child reads these bytes."""
    number = os.memfd_create("ataraxis-worker")
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.lseek(number, 0, os.SEEK_SET)
    return number


# ---- the server


def start(text: str) -> None:
    """Run a server, and in each fork of it a worker; `text` is `serve`'s arguments."""
    # Before the first fork: imported once for all workers.
    from ataraxis.pipeline.worker_main import main

    main(*serve(*json.loads(text)))


def serve(
    number: int, program: int, preload: list[str], run: str, context: str
) -> tuple[int, int, int, int]:
    """Fork workers as long as the program lives; then remove the names that it left.

    Returns in workers only, with the arguments of `worker_main.main`.
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
    # A garbage collection would copy the pages of these objects in every worker.
    gc.collect()
    gc.freeze()
    with suppress(OSError):  # the end of the program is noticed below
        connection.send(_READY)
    selector = selectors.DefaultSelector()
    selector.register(program, selectors.EVENT_READ)
    selector.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == program:
                # If it was killed before any worker began, only the server can do it.
                for name, where in runs:
                    clear(name, Context.of(where))
                os._exit(0)
            if key.fd != number:
                _report_end(selector, key.fd, *key.data)
                continue
            made = _fork(connection, selector, runs)
            if made is not None:
                return (*made, program)


def _fork(
    connection: socket.socket,
    selector: selectors.BaseSelector,
    runs: set[tuple[str, str]],
) -> tuple[int, int, int] | None:
    """Fork a worker: return its descriptors and parent there, None in the server."""
    flags = socket.MSG_CMSG_CLOEXEC
    request, found, _, _ = socket.recv_fds(connection, _MOST_BYTES, _DESCRIPTORS, flags)
    if request == _CLOSE:
        os._exit(0)
    if not request:
        # The program is about to end; `program` shows when it has.
        selector.unregister(connection)
        return None
    run, _, context = request.decode().partition("\n")
    runs.add((run, context))
    given, messages, out, err, state, ends = found
    server = os.getpid()
    with warnings.catch_warnings():
        # BLAS may have threads; it handles forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(ends)
        _close_all(connection, selector)
        _reset(state, out, err)
        return given, messages, server
    descriptor = os.pidfd_open(pid)
    for number in (given, messages, out, err, state):
        os.close(number)
    selector.register(descriptor, selectors.EVENT_READ, (pid, ends))
    socket.send_fds(connection, [_PID.pack(pid)], [descriptor])
    return None


def _close_all(connection: socket.socket, selector: selectors.BaseSelector) -> None:
    """Close the server's descriptors, whose end shows other processes the server's."""
    for key in list(selector.get_map().values()):
        if key.data is not None:
            os.close(key.fd)
            os.close(key.data[1])
    selector.close()
    connection.close()


def _reset(state: int, out: int, err: int) -> None:
    """Reset what was inherited from the server: output, folder, path, environment."""
    os.setpgid(0, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    with open(state, "rb") as file:
        found = json.loads(file.read())
    os.chdir(found["cwd"])
    sys.path[:] = found["path"]
    os.environ.clear()
    os.environ.update(found["environment"])
    if "numpy.random" in sys.modules:  # Python's own generator does so at a fork
        sys.modules["numpy.random"].seed()


def _report_end(
    selector: selectors.BaseSelector, descriptor: int, pid: int, ends: int
) -> None:
    """Write the exit code of a worker that has ended, for `ForkedProcess.wait`."""
    selector.unregister(descriptor)
    os.close(descriptor)
    status = os.waitpid(pid, 0)[1]
    with suppress(BrokenPipeError):  # the program has closed it
        os.write(ends, _CODE.pack(os.waitstatus_to_exitcode(status)))
    os.close(ends)
