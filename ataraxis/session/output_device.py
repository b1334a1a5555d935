"""`OutputDevice`: the device of an output, written to and read without waiting."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ataraxis.clock import now_ns
from ataraxis.errors import OutputError
from ataraxis.log.optional import need
from ataraxis.shm.process import (
    ChildProcess,
    ProcessIdentity,
    is_readable,
    spawn,
)

OPTIONS = {"baud": "115200"}
"""Options of a port, with their defaults."""
ENDS_S = 2.0
"""How long a program may take to end after its input has ended, s."""
_LONGEST = 4096
_BYTES = 65536
_SOON_S = 0.02


def problems_of_uri(uri: str) -> list[str]:
    """Return what is wrong with the URI of a port.

    Examples
    --------
    >>> problems_of_uri("serial:///dev/ttyUSB0?baud=115200")
    []
    >>> problems_of_uri("serial:///dev/ttyUSB0?bauds=9600")
    ["unknown option 'bauds'; did you mean 'baud'?"]
    """
    parts = urlsplit(uri)
    if parts.scheme != "serial" or not parts.path:
        return [f"{uri!r}: expected serial:///dev/ttyUSB0?baud=115200"]
    found = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {[*OPTIONS]}"
            found.append(f"unknown option {name!r}; {hint}")
        elif not value.isdigit() or not int(value):
            found.append(f"{name} must be a number, got {value!r}")
    return found


class OutputDevice:
    r"""A serial port, or a program that reads its standard input.

    Commands are written one after the other, each as a whole. `OutputError` is raised
    once the device is gone: close it, and open it again.

    Parameters
    ----------
    uri : str
        Of a port, such as ``serial:///dev/ttyUSB0?baud=115200``; or ''.
    command : sequence of str
        The program, without a `uri`.

    Examples
    --------
    >>> device = OutputDevice("", ["cat"])
    >>> device.open()
    >>> device.put("first", b"V1\n"); [key for key, _ in device.pump()]
    ['first']
    >>> is_readable(device.descriptor, 60)
    True
    >>> device.lines()
    ['V1']
    >>> device.close()
    """

    def __init__(self, uri: str, command: Sequence[str]) -> None:
        parts = urlsplit(uri)
        self._path, self._command = unquote(parts.path), [*command]
        self._baud = int({**OPTIONS, **dict(parse_qsl(parts.query))}["baud"])
        what = f"program {self._command[0]!r}" if command else ""
        self.where = what or f"serial port {self._path!r}"
        """What it is, for messages."""
        self._port: Any = None
        self._child: ChildProcess | None = None
        self._in = self._out = -1
        self._waiting: deque[list[Any]] = deque()
        self._rest = b""

    # ---- opening

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._out >= 0

    @property
    def descriptor(self) -> int:
        """Readable when it has answered, or is gone; -1: it cannot be read."""
        return self._in

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process of its program; None: it is a port, or not open."""
        return None if self._child is None else ProcessIdentity.of(self._child.pid)

    def open(self) -> None:
        """Open the port exclusively, or start the program; raise `OutputError`."""
        self.close()
        try:
            if self._command:
                self._start()
            else:
                serial = need("serial", "serial", "a serial port")
                self._port = serial.Serial(
                    self._path, self._baud, timeout=0, write_timeout=0, exclusive=True
                )
                self._in = self._out = self._port.fileno()
        except (OSError, ValueError, termios.error) as error:
            raise OutputError(f"cannot open {self.where}: {error}") from error
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    def _start(self) -> None:
        child = spawn(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._child = child
        self._in, self._out = child.stdout.fileno(), child.stdin.fileno()

    def close(self) -> None:
        """Close it; a program ends with its input, or is killed after 2 s."""
        port, self._port = self._port, None
        child, self._child = self._child, None
        self._in = self._out = -1
        self._waiting.clear()
        self._rest = b""
        if port is not None:
            with contextlib.suppress(OSError, termios.error):
                port.close()
        if child is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
            try:
                child.wait(ENDS_S)
            except TimeoutError:
                child.signal(signal.SIGKILL)
                child.wait()
            child.stdout.close()

    # ---- writing

    def put(self, key: Any, data: bytes) -> None:
        """Write a command after those that are being written, by `pump`."""
        self._waiting.append([key, data, 0])

    def withdraw(self, key: Any) -> bool:
        """Withdraw a command; return False if a part of it was written."""
        for entry in self._waiting:
            if entry[0] is key and not entry[2]:
                self._waiting.remove(entry)
                return True
        return False

    @property
    def is_writing(self) -> bool:
        """Whether commands wait to be written."""
        return bool(self._waiting)

    def keys(self) -> list[Any]:
        """Return the keys of the commands that wait to be written."""
        return [entry[0] for entry in self._waiting]

    def register(self, poll: select.poll) -> None:
        """Make a `poll` return once it has answered, can be written to, or is gone."""
        is_one = self._in == self._out
        writing = select.POLLOUT if self._waiting else 0
        poll.register(self._in, select.POLLIN | (writing if is_one else 0))
        if not is_one:
            poll.register(self._out, writing)

    def unread(self) -> int:
        """Return how many written bytes the device has not taken yet."""
        kind = termios.FIONREAD if self._command else termios.TIOCOUTQ
        try:
            found = fcntl.ioctl(self._out, kind, struct.pack("i", 0))
        except OSError:
            return 0
        return int(struct.unpack("i", found)[0])

    def pump(self) -> list[tuple[Any, int]]:
        """Write as much as the device takes; return what was written to its end.

        Each command with the monotonic time, ns, of before its last byte was written,
        so that every reply is later.
        """
        done = []
        while self._waiting:
            entry = self._waiting[0]
            key, data, at = entry
            when = now_ns()
            try:
                entry[2] += os.write(self._out, data[at:])
            except BlockingIOError:
                break
            except OSError as error:
                raise self._gone(error) from error
            if entry[2] == len(data):
                self._waiting.popleft()
                done.append((key, when))
        return done

    def _gone(self, error: OSError | str) -> OutputError:
        if self._child is not None:
            with contextlib.suppress(TimeoutError):
                error = f"it ended, exit code {self._child.wait(_SOON_S)}"
        return OutputError(f"{self.where} is gone: {error}")

    # ---- reading

    def lines(self) -> list[str]:
        """Return the lines that have arrived, without white space around them."""
        if self._in < 0:
            return []
        while is_readable(self._in, 0):
            try:
                data = os.read(self._in, _BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._gone(error) from error
            if not data:
                raise self._gone("it has closed its output")
            self._rest += data
        if not is_writable(self._out):
            raise self._gone("it has closed its input")
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest[-_LONGEST:]
        return [text for line in lines if (text := line.decode("latin-1").strip())]


def is_writable(descriptor: int) -> bool:
    """Return whether the other end of a descriptor is there."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    return not poll.poll(0)
