"""`Output`: commands to a device of a rig, from any process, and their log."""

from __future__ import annotations

import contextlib
import difflib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream, OutputError, PutTimeout, SegmentNotFound
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.process import ProcessIdentity
from ataraxis.stream import Consumer, MemQ, Producer

# ---- the log of an output: a stream, which the session records

NAME_SIZE, REPLY_SIZE, REASON_SIZE = 32, 64, 200
SAFE = "safe"
ENDING = "the rig is ending"
"""Why orders are not sent any more at the end of a rig."""
OUTPUT_ROW = np.dtype(
    [
        ("command", f"U{NAME_SIZE}"), ("cause", "U16"), ("ordered_ns", "i8"),
        ("sent_ns", "i8"), ("replied_ns", "i8"), ("reply", f"U{REPLY_SIZE}"),
        ("pid", "i8"), ("program", f"U{NAME_SIZE}"), ("reason", f"U{REASON_SIZE}"),
        ("order", "i8"),
    ]
)  # fmt: skip
"""One command, when its fate is known; a time is 0 if it did not happen."""
_SLOTS = 1024


@dataclass(frozen=True)
class OutputRecord:
    """One command to an output, as it is logged; times are monotonic ns."""

    command: str
    """Name of the command; ``safe``: the safe state; empty for ``arm``."""
    cause: str
    """``order``; ``arm`` and ``release`` of a controller; ``watchdog``; ``start`` of
    the output's process, or of its device, and ``end`` of the rig."""
    ordered_ns: int
    """When it was ordered; of a watchdog, when it noticed."""
    sent_ns: int | None
    """Before its last byte was written: every reply is later. None: it was not sent."""
    replied_ns: int | None
    """When its reply arrived; None: none did, or none is declared."""
    reply: str
    """The reply."""
    pid: int
    """Process that ordered it; of a watchdog, the process that it watched."""
    program: str
    """Program of that process."""
    reason: str
    """Why it was not sent, or not as declared; of a watchdog, what happened."""
    order: int
    """Number of the order; random."""

    @classmethod
    def of(cls, row: Any) -> OutputRecord:
        """Read a row of `OUTPUT_ROW`."""
        return cls(
            str(row["command"]), str(row["cause"]), int(row["ordered_ns"]),
            int(row["sent_ns"]) or None, int(row["replied_ns"]) or None,
            str(row["reply"]), int(row["pid"]), str(row["program"]),
            str(row["reason"]), int(row["order"]),
        )  # fmt: skip

    def row(self) -> np.ndarray[Any, Any]:
        """Return it as one row of `OUTPUT_ROW`, shape (); long texts are cut."""
        return np.array(
            (
                self.command, self.cause, self.ordered_ns, self.sent_ns or 0,
                self.replied_ns or 0, self.reply, self.pid, self.program, self.reason,
                self.order,
            ),
            OUTPUT_ROW,
        )  # fmt: skip


def open_log(name: str, attrs: dict[str, Any], context: ContextLike) -> Producer:
    """Make the log of an output, or join it; raises as `Producer`."""
    return Producer(
        name, shape=(), dtype=OUTPUT_ROW, buffer_count=_SLOTS, shared=True,
        context=context, attrs=attrs, on_full="raise",
    )  # fmt: skip


def orders_of(name: str) -> str:
    """Return the name of the queue of an output's orders."""
    return f"{name}.orders"


def pid_namespace() -> int:
    """Return the namespace of this process's id; 0: unknown."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


# ---- the end that orders

_TIMEOUT_S = 5.0


class Output:
    r"""Send commands to an output of the rig that runs in a context.

    Parameters
    ----------
    name : str
        Name of the output in ``rig.yaml``.
    controller : bool
        Be its controller, as `arm` does; leaving the ``with`` block releases it.
    beats : bool
        As for `arm`.
    context : Context, str, Path or None
        Context of the rig; by default ``$ATARAXIS_CONTEXT``, as its programs have it.
    timeout : float or None
        How long to wait for the rig, s.

    Raises
    ------
    SegmentNotFound, TimeoutError
        No rig with this output runs in the context (within `timeout`).
    OutputError
        The name means something else, or another process controls the output.

    Notes
    -----
    Several processes and threads may send; commands are written one after the other.
    Each is logged in the session's stream of that name: `OutputRecord`.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis import Session
    >>> from ataraxis.session.rig import Rig, RigOutput
    >>> valve = RigOutput("close\n", command=["cat"], commands={"open": "open\n"})
    >>> directory = tempfile.TemporaryDirectory()
    >>> with Session("s", directory=directory.name) as session:
    ...     run = session.start(Rig(outputs={"doc_valve": valve}))
    ...     with Output("doc_valve", controller=True) as output:
    ...         done = output.send("open", wait=True)
    >>> done.cause, done.sent_ns > done.ordered_ns
    ('order', True)
    >>> session.verdict["doc_valve"].received  # start, arm, open, release, end
    5
    >>> directory.cleanup()
    """

    def __init__(
        self,
        name: str,
        *,
        controller: bool = False,
        beats: bool = False,
        context: ContextLike = None,
        timeout: float | None = 0.0,
    ) -> None:
        self.name = name
        self._context = Context.of(context)
        self._lock = threading.RLock()
        self._claim = 0
        self._log = self._follow(timeout)
        try:
            self._queue = MemQ.attach(
                orders_of(name), context=self._context, timeout=timeout
            )
            self._file = _inode(self._context.path_of(orders_of(name)))
            if controller:
                self.arm(beats=beats)
        except BaseException:
            self.close()
            raise

    def _follow(self, timeout: float | None) -> Consumer:
        """Read the output's log from now on."""
        log = Consumer(
            self.name, policy="lossy", start="latest", context=self._context,
            timeout=timeout,
        )  # fmt: skip
        attrs = log.labels.attrs
        if log.labels.dtype != OUTPUT_ROW or "commands" not in attrs:
            log.close()
            raise OutputError(
                f"{self.name!r} in context {self._context.path} is a stream, not an "
                "output: give the name of an output of rig.yaml"
            )
        self.commands: dict[str, str] = {SAFE: attrs["safe"], **attrs["commands"]}
        self.within_ms = float(attrs["within_ms"])
        self._pid, self._program = os.getpid(), Path(sys.argv[0]).name[:NAME_SIZE]
        return log

    # ---- commands

    def send(
        self, command: str, *, wait: bool = False, timeout: float = _TIMEOUT_S
    ) -> OutputRecord:
        """Send a command, by its name in ``rig.yaml``; ``safe`` overtakes all others.

        Parameters
        ----------
        command : str
            Its name.
        wait : bool
            Wait until it was sent, and answered if a reply is declared. Else return as
            soon as the order is in shared memory, where it survives this process.
        timeout : float
            Longest time until it is sent, s: after that it is not sent any more. Also
            the longest wait.

        Returns
        -------
        OutputRecord
            What is logged of it; without `wait`, as far as it is known.

        Raises
        ------
        ValueError
            The output has no such command.
        OutputError
            It was not sent, or was not answered as declared; the rig has ended; or this
            process was the controller, and the watchdog has made the output safe.
        TimeoutError
            Its fate is not known within `timeout`.

        Notes
        -----
        Once a rig is ending, orders are logged and not sent: `sent_ns` is None.
        """
        if command not in self.commands:
            close = difflib.get_close_matches(str(command), self.commands, 1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"output {self.name!r} has no command {command!r}: it has "
                f"{', '.join(self.commands)}. {hint}".rstrip(". ")
            )
        with self._lock:
            self._look()
            record = self._put("order", command, timeout, claim=self._claim)
            if not wait:
                return record
            return self._checked(self._result(record, timeout), timeout)

    def _put(
        self, kind: str, command: str, timeout: float, **more: Any
    ) -> OutputRecord:
        """Put an order into the queue."""
        now, order = now_ns(), random.SystemRandom().getrandbits(62) + 1
        message = {
            "kind": kind, "command": command, "order": order, "ns": now,
            "until": now + round(timeout * 1e9), "pid": self._pid,
            "program": self._program, "claim": 0, "start": 0, "space": 0,
            "beats": False, **more,
        }  # fmt: skip
        try:
            self._queue.put(message, timeout=timeout)
        except PutTimeout as error:
            raise OutputError(
                f"output {self.name!r} takes no orders, {command or kind!r} was not "
                f"sent: {error}. Its log cannot be written if the disk is full"
            ) from error
        if _inode(self._context.path_of(orders_of(self.name))) != self._file:
            raise OutputError(
                f"output {self.name!r} has ended with its rig, {command or kind!r} was "
                "not sent: start the rig, and make another Output"
            )
        return OutputRecord(
            command, kind, now, None, None, "", self._pid, self._program, "", order
        )

    def _rows(self, timeout: float) -> Iterator[OutputRecord]:
        """Yield the rows of the log; raise `OutputError` if a watchdog revoked us."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                frame = self._log.receive(timeout=max(left, 0))
            except (TimeoutError, EndOfStream):
                return
            if frame is None:
                return
            with frame:
                found = OutputRecord.of(frame.array[()])
            if found.cause == "watchdog" and found.order == self._claim:
                self._claim = 0
                raise OutputError(
                    f"output {self.name!r} was made safe by its watchdog: "
                    f"{found.reason}. This process controls it no more: arm() it again"
                )
            yield found

    def _look(self) -> None:
        """Read what was logged meanwhile; join again in a forked child."""
        if self._pid != os.getpid():
            self._claim = 0  # it is the parent's
            self._log = self._follow(0)
        for _ in self._rows(0):
            pass

    def _result(self, record: OutputRecord, timeout: float) -> OutputRecord:
        for found in self._rows(timeout):
            if found.order == record.order:
                return found
        if self._log.is_ended:
            reason = "its rig has ended"
            return replace(record, reason=reason)
        raise TimeoutError(
            f"output {self.name!r}: what became of {record.command or record.cause!r} "
            f"is not known after {timeout:g} s; it is not sent any more"
        )

    def _checked(self, found: OutputRecord, timeout: float) -> OutputRecord:
        """Return a record, or raise what is wrong with it."""
        if found.reason and found.reason != ENDING:
            what = "was not sent" if found.sent_ns is None else "was sent"
            raise OutputError(
                f"output {self.name!r}: {found.command or found.cause!r} {what}: "
                f"{found.reason}"
            )
        return found

    # ---- the controller

    @property
    def is_armed(self) -> bool:
        """Whether this process is its controller, as far as it has read the log."""
        return bool(self._claim)

    def arm(self, *, beats: bool = False, timeout: float = _TIMEOUT_S) -> None:
        """Be the controller: if this process dies, the output is made safe.

        Parameters
        ----------
        beats : bool
            It is also made safe if `beat` is not called within ``within_ms`` of the
            rig: then a controller that hangs is noticed, too.
        timeout : float
            Longest wait, s.

        Raises
        ------
        OutputError
            Another process controls it, or this one cannot be watched.
        TimeoutError
            The output's process does not answer.
        """
        with self._lock:
            self._look()
            if self._claim:
                return
            me = ProcessIdentity.of(self._pid)
            record = self._put(
                "arm", "", timeout, beats=beats, start=me.start, space=pid_namespace()
            )
            self._checked(self._result(record, timeout), timeout)
            self._claim = record.order

    def beat(self) -> None:
        """State that the controller works; raises as `send`."""
        with self._lock:
            self._look()
            if self._claim:
                self._put("beat", "", self.within_ms / 1000, claim=self._claim)

    def release(self, timeout: float = _TIMEOUT_S) -> None:
        """Be its controller no more; the output is made safe."""
        with self._lock:
            self._look()
            claim, self._claim = self._claim, 0
            if claim:
                record = self._put("release", SAFE, timeout, claim=claim)
                self._checked(self._result(record, timeout), timeout)

    def close(self) -> None:
        """Release it, and leave the rig."""
        try:
            with contextlib.suppress(OutputError, TimeoutError, SegmentNotFound):
                self.release()
        finally:
            self._log.close()
            if hasattr(self, "_queue"):
                self._queue.close()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "armed" if self._claim else "not armed"
        return f"<Output {self.name!r}, {state}>"


def _inode(path: Path) -> int:
    """Return which file has a name; 0: none has."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0
