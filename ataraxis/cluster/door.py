"""Door: programs of this host ask their agent by a Unix socket in the context.

One request a line, as JSON, and one answer a line. A connection that has asked for
something that must end with it (a mirror) stays open; its end gives that back, however
the program ended. The socket is in the context's directory, mode 0600, and each
connection must come from the agent's user.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from ataraxis import errors
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.files import own
from ataraxis.shm.thread import Thread

SOCKET = ".agent"
"""Name of the socket in the context; names with a dot are not listed as segments."""
LOCK = ".agent.lock"
"""Name of the file whose lock the agent of a context holds; its content is the pid."""
REQUEST_BYTES = 64 << 10
"""Longest request."""
ANSWER_BYTES = 32 << 20
"""Longest answer."""
_MOST = 256
_CHUNK = 64 << 10
_SLICE_S = 0.5
_SEND_S = 10.0
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

Serve = Callable[[dict[str, Any], "DoorVisit"], Any]


# ---- one agent in a context


class AgentLock:
    """The right to be the agent of a context; released by `release` or its process.

    Raises
    ------
    SegmentExists
        Another process is the agent of this context; the message has its pid.

    Examples
    --------
    >>> lock = AgentLock(Context.of(None))
    >>> lock.release()
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._descriptor = -1
        with context.opened() as directory:
            while self._descriptor < 0:
                self._descriptor = self._taken(directory)

    def _taken(self, directory: int) -> int:
        """Return a descriptor that has the lock; -1: try again."""
        descriptor = os.open(LOCK, _LOCK_FLAGS, 0o600, dir_fd=directory)
        try:
            if not own(descriptor):
                pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                raise errors.SegmentExists(
                    f"context {self._context.path} has an agent already, process "
                    f"{pid or 'unknown'}: use that one, end it, or give --context"
                )
            # An agent that ended meanwhile has removed the file that was opened.
            there = None
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(LOCK, dir_fd=directory, follow_symlinks=False)
            here = os.fstat(descriptor)
            if there is None or (there.st_dev, there.st_ino) != (
                here.st_dev,
                here.st_ino,
            ):
                os.close(descriptor)
                return -1
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def release(self) -> None:
        """Remove the file and release the lock. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            with contextlib.suppress(OSError):
                self._context.unlink(LOCK)
        finally:
            os.close(descriptor)


def agent_pid(context: ContextLike = None) -> int | None:
    """Return the pid of the agent of a context; None without one.

    Examples
    --------
    >>> agent_pid() is None
    True
    """
    try:
        with contextlib.closing(_connected(Context.of(context), 1.0)) as line:
            return _peer(line)[0]
    except errors.HostUnavailable:
        return None


# ---- the agent's side


class DoorVisit:
    """One connection of a program: who it is, and what ends with it."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self._line = line
        self.pid = pid
        """The program's process."""
        self.at_end: list[Callable[[], object]] = []
        """Called once the program has gone, in the order of their addition."""

    def is_gone(self) -> bool:
        """Return whether the program has closed its end."""
        poll = select.poll()
        poll.register(self._line, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))


class AgentDoor:
    """Answers the requests of programs, each connection in a thread of its own.

    Parameters
    ----------
    context : Context
        Where the socket is made. The caller has the `AgentLock`, so that a socket that
        is there belonged to an agent that died.
    serve : callable
        Called with the request and the `DoorVisit`; returns what JSON can hold. What
        it raises is raised in the program that asked.
    """

    def __init__(self, context: Context, serve: Serve) -> None:
        self._context, self._serve = context, serve
        self._lines: set[socket.socket] = set()
        self._gate = threading.Lock()
        self._threads: set[Thread] = set()
        self._is_closed = False
        self._listener = _bound(context)
        self._thread = Thread(self._accept, "ataraxis-door")
        self._thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                line, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._is_closed or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                time.sleep(0.05)  # too many open files, or the like
                continue
            self._admit(line)

    def _admit(self, line: socket.socket) -> None:
        try:
            pid, user = _peer(line)
            with self._gate:
                is_full = len(self._lines) >= _MOST
            if user not in (os.geteuid(), 0):
                refusal = errors.AccessDenied(
                    f"the agent serves its own user, not {user}"
                )
            elif is_full:
                refusal = errors.AccessDenied(
                    f"the agent serves {_MOST} programs already"
                )
            else:
                thread = Thread(self._visit, f"ataraxis-door-{pid}", (line, pid))
                with self._gate:
                    self._lines.add(line)
                    self._threads.add(thread)
                thread.start()
                return
            line.settimeout(1.0)
            line.sendall(_refused(refusal))
            with contextlib.suppress(BlockingIOError):
                # A request that is left unread would take the answer back.
                line.recv(REQUEST_BYTES, socket.MSG_DONTWAIT)
        except (OSError, RuntimeError):
            pass  # the program has gone, or no thread can be started
        with self._gate:
            self._lines.discard(line)
        line.close()

    def _visit(self, line: socket.socket, pid: int) -> None:
        visit = DoorVisit(line, pid)
        try:
            line.settimeout(None)
            pending = bytearray()
            while (request := _next_line(line, pending, REQUEST_BYTES)) is not None:
                answer = self._answer(request, visit)
                line.settimeout(_SEND_S)
                line.sendall(answer)
                line.settimeout(None)
        except errors.BadMessage as error:
            with contextlib.suppress(OSError):
                line.settimeout(1.0)
                line.sendall(_refused(error))
        except OSError:
            pass  # the program has gone
        finally:
            with self._gate:
                self._lines.discard(line)
                self._threads = {t for t in self._threads if not t.is_current}
            line.close()
            for call in visit.at_end:
                with contextlib.suppress(OSError, RuntimeError):
                    call()

    def _answer(self, request: bytes, visit: DoorVisit) -> bytes:
        try:
            asked = json.loads(request)
            if not isinstance(asked, dict) or not isinstance(asked.get("do"), str):
                raise errors.BadMessage("a request is a JSON object with the text 'do'")
            answer = json.dumps({"ok": self._serve(asked, visit)}).encode()
            if len(answer) > ANSWER_BYTES:
                raise errors.BadMessage(
                    f"the answer has {len(answer)} bytes, at most {ANSWER_BYTES} fit"
                )
        except (errors.AtaraxisError, OSError) as error:
            return _refused(error)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return _refused(errors.BadMessage(f"{type(error).__name__}: {error}"))
        return answer + b"\n"

    def close(self) -> None:
        """End every connection and remove the socket. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._context.unlink(SOCKET)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        with self._gate:
            lines, threads = list(self._lines), list(self._threads)
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def _bound(context: Context) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with context.opened() as directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET, dir_fd=directory)
            # By the descriptor: an address of a Unix socket has 107 bytes at most.
            made.bind(f"/proc/self/fd/{directory}/{SOCKET}")
            os.chmod(SOCKET, 0o600, dir_fd=directory)  # before it listens
        made.listen(64)
    except BaseException:
        made.close()
        raise
    return made


def _peer(line: socket.socket) -> tuple[int, int]:
    """Return pid and user of the other side."""
    size = struct.calcsize("3i")
    pid, user, _ = struct.unpack(
        "3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, user


def _refused(error: Exception) -> bytes:
    what = {"type": type(error).__name__, "message": str(error)}
    return json.dumps({"error": what}).encode() + b"\n"


def _next_line(line: socket.socket, pending: bytearray, most: int) -> bytes | None:
    """Return the next line without its end; None at the end of the connection."""
    at = 0
    while (stop := pending.find(b"\n", at)) < 0:
        at = len(pending)
        if at > most:
            raise errors.BadMessage(f"a line has more than {most} bytes")
        chunk = line.recv(_CHUNK)
        if not chunk:
            return None
        pending += chunk
    if stop > most:
        raise errors.BadMessage(f"a line has more than {most} bytes")
    found = bytes(pending[:stop])
    del pending[: stop + 1]
    return found


# ---- the program's side


class AgentClient:
    """A connection to the agent of a context, for one thread at a time.

    Parameters
    ----------
    context : Context, str, Path or None
        The context.
    timeout : float
        How long to wait for the agent to take the connection, s.

    Raises
    ------
    HostUnavailable
        No agent runs in the context.
    """

    def __init__(self, context: ContextLike = None, timeout: float = 5.0) -> None:
        self._line = _connected(Context.of(context), timeout)
        self._pending = bytearray()
        self.pid = _peer(self._line)[0]
        """The agent's process."""

    def ask(self, do: str, timeout: float = 10.0, **arguments: Any) -> Any:
        """Ask the agent to do something, and return its answer.

        Parameters
        ----------
        do : str
            What, see `Agent`.
        timeout : float
            How long to wait for the answer, s.
        **arguments
            What JSON can hold.

        Raises
        ------
        TimeoutError
            It did not answer in time. The connection is of no use after that.
        NotConnectedError
            The agent has ended.
        AtaraxisError, OSError
            What the agent raised.
        """
        request = json.dumps({"do": do, **arguments}).encode() + b"\n"
        if len(request) > REQUEST_BYTES:
            raise ValueError(f"{do}: the request has {len(request)} bytes, too many")
        try:
            self._line.settimeout(timeout)
            with contextlib.suppress(BrokenPipeError):  # it has refused: read why
                self._line.sendall(request)
            answer = _next_line(self._line, self._pending, ANSWER_BYTES)
        except TimeoutError:
            raise TimeoutError(
                f"the agent (process {self.pid}) has not answered {do!r} within "
                f"{timeout:g} s"
            ) from None
        except OSError as error:
            raise self._ended(f": {error}") from None
        return self._found(answer)

    def _ended(self, why: str = "") -> errors.NotConnectedError:
        return errors.NotConnectedError(
            f"the agent (process {self.pid}) has ended{why}"
        )

    def _found(self, answer: bytes | None) -> Any:
        if answer is None:
            raise self._ended()
        found = json.loads(answer)
        if "error" in found:
            raise _raised(found["error"])
        return found["ok"]

    def begin(self, do: str) -> None:
        """Ask the agent without waiting; `answer` has what it says.

        One question at a time: the next one after the answer.

        Raises
        ------
        NotConnectedError
            The agent has ended.
        """
        try:
            self._line.settimeout(0.0)
            self._line.sendall(json.dumps({"do": do}).encode() + b"\n")
        except OSError as error:
            raise self._ended(f": {error}") from None

    def answer(self, wait: float = 0.0, most: int = ANSWER_BYTES) -> Any:
        """Return the answer to what `begin` has asked; None: it is not there yet.

        Parameters
        ----------
        wait : float
            How long to wait for it, s.
        most : int
            Longest answer, bytes.

        Raises
        ------
        BadMessage
            The answer is longer.
        NotConnectedError
            The agent has ended.
        AtaraxisError, OSError
            What the agent raised.
        """
        try:
            self._line.settimeout(wait)
            answer = _next_line(self._line, self._pending, most)
        except (BlockingIOError, TimeoutError):
            return None
        except OSError as error:
            raise self._ended(f": {error}") from None
        return self._found(answer)

    def wait_for_end(self) -> None:
        """Wait until the agent ends, or `close` is called by another thread."""
        with contextlib.suppress(OSError):
            self._line.settimeout(None)
            while self._line.recv(_CHUNK):
                pass

    def close(self) -> None:
        """Disconnect; what was asked by this connection alone ends. From any thread."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def ask_agent(
    do: str, *, context: ContextLike = None, timeout: float = 10.0, **arguments: Any
) -> Any:
    """Ask the agent of a context one thing; see `AgentClient`.

    Examples
    --------
    >>> ask_agent("hosts")
    Traceback (most recent call last):
    ...
    ataraxis.errors.HostUnavailable: no agent runs in context ...
    """
    with AgentClient(context) as client:
        return client.ask(do, timeout, **arguments)


def _connected(context: Context, timeout: float) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        line.settimeout(timeout)
        with context.opened() as directory:
            try:
                there = os.stat(SOCKET, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISSOCK(there.st_mode) or there.st_uid not in (
                    os.geteuid(),
                    0,
                ):
                    raise errors.AccessDenied(
                        f"{context.join(SOCKET)} is not the socket of an agent of this "
                        "user; remove it"
                    )
                _connect(line, f"/proc/self/fd/{directory}/{SOCKET}", timeout)
            except (FileNotFoundError, ConnectionRefusedError):
                raise errors.HostUnavailable(
                    f"no agent runs in context {context.path}: start it with 'ataraxis "
                    "agent --hosts FILE' (and the same --context)"
                ) from None
    except BaseException:
        line.close()
        raise
    return line


def _connect(line: socket.socket, path: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return line.connect(path)
        except BlockingIOError:  # many programs connect at this moment
            if time.monotonic() > deadline:
                raise TimeoutError(f"the agent does not answer at {path}") from None
            time.sleep(0.01)


_BUILT_IN = {"TimeoutError": TimeoutError, "FileNotFoundError": FileNotFoundError}


def _raised(what: Any) -> Exception:
    """Return the exception that an answer names; `RemoteError` for an unknown one."""
    kind, message = str(what.get("type")), str(what.get("message"))
    found = getattr(errors, kind, None) or _BUILT_IN.get(kind)
    if isinstance(found, type) and issubclass(found, Exception):
        with contextlib.suppress(TypeError):
            return found(message)
    return errors.RemoteError(f"{kind}: {message}")
