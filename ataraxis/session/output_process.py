"""The process of an output: it owns the device, logs, and is the watchdog.

It imports little, so that one that died is replaced soon.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import json
import os
import select
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.errors import (
    CorruptFrame,
    LeaseLost,
    OutputError,
    QueueEmpty,
    QueueFull,
)
from ataraxis.session.output_device import OutputDevice
from ataraxis.session.outputs import (
    ENDING,
    SAFE,
    OutputRecord,
    open_log,
    orders_of,
    pid_namespace,
)
from ataraxis.shm.context import Context
from ataraxis.shm.process import (
    Ending,
    ProcessIdentity,
    ProcessWatch,
)
from ataraxis.stream import MemQ

# ---- messages between the process and its rig, lines of text

SAFE_NOW, END = b"safe\n", b"end\n"

# ---- the process

BEATS_OF = 0.8
"""A missing beat counts after this part of ``within_ms``: the rest is for writing."""
TRIES = 3
"""How often the safe command is sent until it is answered."""
_LOOK_S, _AGAIN_S, _SOON_S = 0.25, 0.2, 0.001
_FINISH_S = 2.0
_BLIND_S = 0.005
_JUST_NS = 1_000_000


@dataclass(eq=False)
class _Command:
    """A command on its way to the device, or a message that only is logged."""

    record: OutputRecord
    data: bytes = b""
    lease: Any = None
    deadline_ns: int = 0
    tries: int = 1
    sent_ns: int | None = None
    replied_ns: int | None = None
    reply: str = ""
    is_safe: bool = False
    claim: int = 0


@dataclass
class _Controller:
    """The process that controls an output."""

    claim: int
    watch: ProcessWatch
    pid: int
    program: str
    has_beats: bool
    beat_ns: int
    lease: Any


@dataclass
class _Settings:
    """What `OutputProcess` tells its process."""

    name: str
    context: str
    attrs: dict[str, Any]
    uri: str
    command: list[str]
    reply: str | None
    timeout_ms: float
    parent: tuple[int, int]
    is_first: bool = True
    before: tuple[int, int] | None = None
    data: dict[str, bytes] = field(init=False)
    within_ns: int = field(init=False)
    timeout_ns: int = field(init=False)

    def __post_init__(self) -> None:
        commands = {**self.attrs["commands"], SAFE: self.attrs["safe"]}
        self.data = {name: text.encode("latin-1") for name, text in commands.items()}
        self.within_ns = round(self.attrs["within_ms"] * 1e6)
        self.timeout_ns = round(self.timeout_ms * 1e6)


class OutputServer:
    """Owns the device of an output; runs in a process of its own.

    One command at a time is with the device, so that the safe command never waits
    behind more than one. Orders from before the output was made safe are refused, and
    so are those of a controller that the watchdog has revoked: what a process ordered
    before it died is not sent after its death was noticed.

    The lease of an order is held until the order is logged, that of a controller's
    claim as long as it is in control: if this process dies, the next one gets them.
    """

    def __init__(self, settings: _Settings) -> None:
        self._is, self._context = settings, Context.of(settings.context)
        self._device = OutputDevice(settings.uri, settings.command)
        self._log = open_log(settings.name, settings.attrs, self._context)
        self._queue = MemQ.attach(orders_of(settings.name), context=self._context)
        self._path = self._context.path_of(orders_of(settings.name))
        self._file = self._path.stat().st_ino
        self._parent = ProcessWatch(ProcessIdentity(*settings.parent))
        self._controller: _Controller | None = None
        self._orders: deque[_Command] = deque()
        self._answers: deque[_Command] = deque()
        self._safes: list[_Command] = []
        self._rows: deque[_Command] = deque()
        self._safe_ns = 0
        self._input, self._reopen_ns = b"", 0
        self._refusal, self._is_confirmed = "", False
        self._was_late = False
        self._wake = os.pipe()

    # ---- the loop

    def run(self) -> int:
        """Serve until the rig has ended, or has died; return the exit code."""
        for descriptor in (*self._wake, sys.stdin.fileno()):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        with Ending() as ending:
            self._await_the_one_before()
            if not self._open() and self._is.is_first:
                return 1
            self._queue.sweep()  # the leases of the one before
            is_ready, code, give_up = False, 0, 0.0
            while True:
                self._check_input()
                self._take()
                self._check_controller()
                if ending.first.is_set() and not self._refusal:
                    code = 1  # so that the rig starts it again, unless it is ending
                    self._end("end", f"its process was ended by {ending.name}")
                self._exchange()
                self._serve()
                self._write_log()
                if not is_ready and self._is_settled and self._has_read:
                    if self._is.is_first and not self._is_confirmed:
                        return 1
                    is_ready = True
                    self._tell(ready=True)
                if self._is_over or code:
                    now = time.monotonic()
                    give_up = give_up or now + _FINISH_S + self._is.timeout_ms / 1000
                    if self._is_settled or now > give_up:
                        break
                self._sleep(is_ready)
            self._finish(is_last=not code)
        return code

    _is_over = False

    @property
    def _is_settled(self) -> bool:
        """Whether the fate of each safe command is known."""
        return not self._safes

    @property
    def _has_read(self) -> bool:
        """Whether the device has taken all that was written, or is gone."""
        return not self._device.is_open or not self._device.unread()

    def _sleep(self, is_ready: bool) -> None:
        """Wait until something happens, or is due."""
        poll = select.poll()
        watches = [self._wake[0], self._queue.fileno()]
        if self._controller is not None:
            watches.append(self._controller.watch.fileno())
        if not self._is_over:  # else both stay readable
            watches += [sys.stdin.fileno(), self._parent.fileno()]
        for descriptor in watches:
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        if self._device.is_open:
            self._device.register(poll)
        pause_s = self._pause_s(is_blind=-1 in watches or not is_ready)
        poll.poll(pause_s * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 512)

    def _pause_s(self, is_blind: bool) -> float:
        """Return how long nothing is due, s."""
        now = now_ns()
        left = [c.deadline_ns - now for c in (*self._answers, *self._safes)]
        # One that is over for longer has been noticed: nothing is due then.
        due = [ns / 1e9 for ns in left if ns > -_JUST_NS]
        if self._controller is not None and self._controller.has_beats:
            due.append((self._beat_due_ns(self._controller) - now) / 1e9)
        if not self._device.is_open:
            due.append((self._reopen_ns - now) / 1e9)
        if self._orders and not self._is_busy:
            due.append(_SOON_S)  # the device reads what was written before
        if self._rows:
            due.append(_SOON_S * 10)
        if is_blind:  # a sandbox without pidfds
            due.append(_BLIND_S)
        return min(max(min(due, default=_LOOK_S), 0.0005), _LOOK_S)

    def _tell(self, **message: Any) -> None:
        """Tell the rig, if it reads, and its disk is not full."""
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(message).encode() + b"\n")

    # ---- the rig, and its end

    def _check_input(self) -> None:
        """Read orders of the rig; notice its death."""
        if self._is_over:
            return
        has_ended = False
        try:
            data = os.read(sys.stdin.fileno(), 512)
            has_ended = not data
            self._input += data
        except BlockingIOError:
            pass
        while b"\n" in self._input:
            line, _, self._input = self._input.partition(b"\n")
            self._is_over |= line + b"\n" == END
            if not self._refusal:
                self._end("end", ENDING)
        # Last: a rig that ends in order may be gone once its order is read.
        if not self._is_over and (has_ended or self._parent.is_gone()):
            self._is_over = True
            self._end("watchdog", "the process of its session died")

    def _end(self, cause: str, reason: str) -> None:
        """Make the output safe, and send no more orders."""
        self._refusal = reason
        pid = self._is.parent[0] if cause == "watchdog" else os.getpid()
        self._make_safe(cause, reason if cause == "watchdog" else "", pid=pid)

    def _await_the_one_before(self) -> None:
        """Wait for the device's program of a process that died; kill it after a while.

        Its input has ended with that process.
        """
        if self._is.before is None:
            return
        before = ProcessIdentity(*self._is.before)
        end = time.monotonic() + 1.0
        while before.is_alive() and before.start:
            time.sleep(0.005)
            if time.monotonic() > end:
                with contextlib.suppress(OSError):
                    os.kill(before.pid, signal.SIGKILL)

    def _finish(self, is_last: bool) -> None:
        """Refuse what is left, write the log, close everything."""
        if is_last:
            # Unlinked first: an order that is put from now on raises in its sender.
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._file:
                    self._path.unlink()
            self._take()
        for order in (*self._orders, *self._answers):
            self._refuse(order, self._refusal or ENDING)
        end = time.monotonic() + _FINISH_S
        while self._rows and time.monotonic() < end:
            self._write_log()
            time.sleep(_SOON_S)
        if self._controller is not None and is_last:
            self._free(self._controller.lease)
        if self._rows:
            self._tell(doubt=f"{len(self._rows)} rows of its log could not be written")
        self._log.close()
        self._queue.close()
        self._device.close()

    # ---- orders

    def _take(self) -> None:
        """Take the messages in the queue."""
        found = []
        while True:
            try:
                lease = self._queue.lease(False)
            except QueueEmpty:
                break
            except CorruptFrame as error:
                self._tell(note=f"an order was damaged: {error}")
                continue
            message = _message_in(lease)
            if message is None:
                self._tell(note="its queue had a value that is not an order")
                self._free(lease)
            else:
                found.append((lease, message))
        # After a restart, a claim may come behind newer orders of its controller.
        found.sort(key=lambda one: one[1]["kind"] != "arm")
        for lease, message in found:
            self._accept(lease, message)

    def _accept(self, lease: Any, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "beat":
            controller = self._controller
            if controller is not None and controller.claim == message["claim"]:
                controller.beat_ns = max(controller.beat_ns, message["ns"])
            self._free(lease)
            return
        record = OutputRecord(
            message["command"], kind, message["ns"], None, None, "",
            message["pid"], message["program"], "", message["order"],
        )  # fmt: skip
        command = _Command(
            record, lease=lease, deadline_ns=message["until"],
            claim=message["claim"],
        )  # fmt: skip
        if kind == "arm":
            self._arm(command, message)
        elif kind == "order" and record.command == SAFE and not self._refusal:
            self._make_safe("order", "", command)
        else:
            self._orders.append(command)

    def _serve(self) -> None:
        """Pass the next order to the device, if that has taken the one before."""
        while self._orders and not self._is_busy:
            order = self._orders[0]
            refusal = self._refusal_of(order)
            if not refusal and self._device.unread():
                return
            self._orders.popleft()
            if refusal:
                self._refuse(order, refusal)
            elif order.record.cause == "release":
                self._release(order)
            else:
                order.data = self._is.data[order.record.command]
                self._device.put(order, order.data)
                self._exchange()

    @property
    def _is_busy(self) -> bool:
        """Whether a command is being written, or waits for its reply."""
        return self._device.is_writing or bool(self._answers)

    def _refusal_of(self, order: _Command) -> str:
        """Return why an order is not sent; '' if it is."""
        record, claim, now = order.record, order.claim, now_ns()
        controller = self._controller
        if self._refusal and record.cause != "release":
            return self._refusal
        if claim and (controller is None or controller.claim != claim):
            return "the watchdog has made the output safe: arm it again"
        if record.cause == "release":
            return ""
        if order.lease is not None and order.lease.attempt > 1:
            return "its process died with this order: whether it was sent is unknown"
        if record.ordered_ns <= self._safe_ns:
            return "it was ordered before the output was made safe"
        if now > order.deadline_ns:
            late = (now - order.deadline_ns) / 1e6
            return f"its timeout was over {late:.0f} ms before it could be sent"
        if record.command not in self._is.data:
            close = difflib.get_close_matches(record.command, self._is.data, 1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            return f"not a command of this output; {hint}".rstrip("; ")
        if not self._device.is_open:
            return f"{self._device.where} is gone; it is opened again once it is back"
        return ""

    def _refuse(self, order: _Command, reason: str) -> None:
        if order.sent_ns is None and self._device.is_open:
            self._device.withdraw(order)
        self._settle(order, reason)

    # ---- the controller

    def _arm(self, order: _Command, message: dict[str, Any]) -> None:
        """Make a process the controller, or refuse it."""
        before = self._controller
        refusal = self._refusal
        if before is not None and before.claim != order.record.order:
            refusal = f"process {before.pid} ({before.program}) controls it"
        if message["space"] != pid_namespace():
            refusal = (
                "the controller and the rig see different process ids, so that its "
                "death could not be noticed: run both in one container, or with one "
                "pid namespace"
            )
        if refusal:
            self._settle(order, refusal)
            return
        watch = ProcessWatch(ProcessIdentity(order.record.pid, message["start"]))
        self._controller = _Controller(
            order.record.order, watch, order.record.pid, order.record.program,
            bool(message["beats"]), now_ns(), order.lease,
        )  # fmt: skip
        order.lease = None  # held until it is revoked
        self._settle(order, "")

    def _beat_due_ns(self, controller: _Controller) -> int:
        return controller.beat_ns + round(self._is.within_ns * BEATS_OF)

    def _check_controller(self) -> None:
        """Make the output safe if its controller died, or does not beat."""
        controller = self._controller
        if controller is None:
            return
        reason, now = "", now_ns()
        if controller.watch.is_gone():
            reason = f"its controller, process {controller.pid}, died"
        elif controller.has_beats and now > self._beat_due_ns(controller):
            silent = (now - controller.beat_ns) / 1e6
            reason = (
                f"its controller, process {controller.pid}, gave no beat for "
                f"{silent:.0f} ms"
            )
        if reason:
            self._revoke()
            self._make_safe(
                "watchdog", reason, pid=controller.pid, program=controller.program,
                number=controller.claim,
            )  # fmt: skip
            self._tell(note=f"made safe: {reason}")

    def _revoke(self) -> None:
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.watch.close()
            self._free(controller.lease)

    def _release(self, order: _Command) -> None:
        self._revoke()
        self._make_safe("release", "", order)

    # ---- the safe state

    def _make_safe(
        self, cause: str, reason: str, order: _Command | None = None, *,
        pid: int = 0, program: str = "", number: int = 0, tries: int = 1,
    ) -> None:  # fmt: skip
        """Send the safe command now; orders from before are refused."""
        now = now_ns()
        self._safe_ns = max(self._safe_ns, now)
        if order is None:
            record = OutputRecord(
                SAFE, cause, now, None, None, "", pid or os.getpid(), program, reason,
                number,
            )  # fmt: skip
            order = _Command(record)
        order.is_safe, order.tries = True, tries
        order.deadline_ns = now + self._is.within_ns
        order.data = self._is.data[SAFE]
        for other in [c for c in self._current if not c.is_safe]:
            if self._device.withdraw(other):
                self._settle(other, "the output was made safe")
        if not self._device.is_open:
            where = self._device.where
            self._settle(order, f"{where} is gone; it is made safe once it is back")
            self._doubt("could not be made safe: its device is gone")
            return
        self._safes.append(order)
        self._device.put(order, order.data)
        self._exchange()

    @property
    def _current(self) -> list[_Command]:
        return self._device.keys() if self._device.is_open else []

    def _doubt(self, text: str) -> None:
        self._tell(doubt=text)

    # ---- the device

    def _open(self) -> bool:
        """Open the device, and make it safe first; return whether it is open."""
        try:
            self._device.open()
        except (OutputError, ModuleNotFoundError) as error:
            if self._is.is_first and not self._is_confirmed:
                sys.stderr.write(f"{error}\n")
            self._reopen_ns = now_ns() + round(_AGAIN_S * 1e9)
            return False
        identity = self._device.identity
        if identity is not None:
            self._tell(device=[identity.pid, identity.start])
        self._make_safe("start", "")
        return True

    def _exchange(self) -> None:
        """Write to the device, read its replies, notice what is late."""
        if not self._device.is_open:
            if now_ns() >= self._reopen_ns and self._open():
                self._tell(note=f"{self._device.where} is back")
            return
        try:
            for line in self._device.lines():
                self._answer(line)
            for command, when in self._device.pump():
                command.sent_ns = when
                if self._is.reply is None:
                    self._settle(command, "")
                else:
                    command.deadline_ns = when + self._is.timeout_ns
                    self._answers.append(command)
        except OutputError as error:
            self._lose(error)
            return
        self._check_deadlines()

    def _lose(self, error: OutputError) -> None:
        """Settle what is on its way: the device is gone."""
        on_the_way = [*self._device.keys(), *self._answers]
        self._answers.clear()
        self._device.close()
        for command in on_the_way:
            self._settle(command, str(error))
        self._reopen_ns = now_ns() + round(_AGAIN_S * 1e9)
        self._tell(note=str(error))
        self._doubt(f"lost its device: {error}")

    def _answer(self, line: str) -> None:
        """Take a line of the device: the reply to the oldest command that has none."""
        if not self._answers:
            return
        command = self._answers.popleft()
        command.replied_ns, command.reply = now_ns(), line
        pattern = self._is.reply or "*"
        is_right = fnmatch.fnmatchcase(line, pattern)
        wrong = "" if is_right else f"it replied {line!r}, {pattern!r} was expected"
        self._settle(command, wrong)

    def _check_deadlines(self) -> None:
        now = now_ns()
        while self._answers and now > self._answers[0].deadline_ns:
            command = self._answers.popleft()
            self._settle(command, f"no reply within {self._is.timeout_ms:g} ms")
        for command in self._current:
            if now <= command.deadline_ns:
                continue
            if not command.is_safe:
                self._device.withdraw(command)
                if command in self._current:
                    continue  # a part of it is written: the rest must follow
                self._settle(command, f"{self._device.where} did not take it")
            elif not self._was_late:
                self._was_late = True
                declared = f"{self._is.within_ns / 1e6:g} ms"
                self._doubt(f"has not taken the safe command within {declared}")

    def _settle(self, command: _Command, wrong: str) -> None:
        """Log a command whose fate is known."""
        if command.is_safe and command in self._safes:
            self._safes.remove(command)
        record = command.record
        reason = _joined(record.reason, wrong)
        if command.is_safe and command.sent_ns is not None:
            late_ms = (command.sent_ns - record.ordered_ns - self._is.within_ns) / 1e6
            if record.cause != "order" and late_ms > 0:
                reason = _joined(reason, f"{late_ms:.1f} ms later than declared")
                self._doubt(f"was made safe {late_ms:.1f} ms later than declared")
        command.record = OutputRecord(
            record.command, record.cause, record.ordered_ns, command.sent_ns,
            command.replied_ns, command.reply, record.pid, record.program, reason,
            record.order,
        )  # fmt: skip
        self._rows.append(command)
        if not command.is_safe or not self._device.is_open:
            return
        if not wrong:
            self._is_confirmed = True
        elif command.tries < TRIES:
            self._make_safe(
                record.cause, "again", pid=record.pid, tries=command.tries + 1
            )
        else:
            text = f"was not made safe for certain, after {TRIES} tries: {wrong}"
            self._doubt(text)
            if self._is.is_first and not self._is_confirmed:
                sys.stderr.write(f"{self._device.where}: {wrong}\n")

    # ---- the log

    def _write_log(self) -> None:
        """Write the rows that the ring has room for."""
        while self._rows:
            command = self._rows[0]
            record = command.record
            when = record.sent_ns or now_ns()
            try:
                self._log.send(record.row(), time_ns=when)
            except QueueFull:
                return
            self._rows.popleft()
            self._free(command.lease)

    def _free(self, lease: Any) -> None:
        if lease is not None:
            with contextlib.suppress(LeaseLost):
                lease.acknowledge()


_TEXTS = ("kind", "command", "program")
_NUMBERS = ("order", "ns", "until", "pid", "claim", "start", "space", "beats")
_KINDS = ("order", "arm", "beat", "release")


def _message_in(lease: Any) -> dict[str, Any] | None:
    """Return an order; None: it is something else."""
    try:
        found = lease.value
    except (ValueError, TypeError):
        return None
    if not isinstance(found, dict):
        return None
    are_texts = all(isinstance(found.get(key), str) for key in _TEXTS)
    numbers = [found.get(key) for key in _NUMBERS]
    are_numbers = all(isinstance(n, int) and 0 <= n < 1 << 63 for n in numbers)
    return found if are_texts and are_numbers and found["kind"] in _KINDS else None


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def main(text: str) -> int:
    """Run with `_Settings` in JSON."""
    with contextlib.suppress(OSError):
        # Where it is allowed: the safe command must not wait behind other programs. It
        # sleeps most of the time, and what it starts has the usual priority.
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    return OutputServer(_Settings(**json.loads(text))).run()
