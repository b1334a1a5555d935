"""`AlarmRun`: the alarms of a session: what is told, how often, by which process."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ataraxis.errors import AtaraxisError
from ataraxis.session.alarm_process import HEARTBEAT
from ataraxis.session.alarms import TEST, TEXT_SIZE, RigAlarm, RigHeartbeat
from ataraxis.session.process import Program
from ataraxis.shm.context import Context
from ataraxis.shm.process import RestartBudget, process_command
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream.inspector import Inspector
from ataraxis.stream.statistics import StreamStatistics

TRIES = 5
EVENTS_WAITING = 1000
"""How many events may wait to be looked at; more are only counted."""
MESSAGES_WAITING = 100
PATIENCE_S = 5.0
"""How long the end of a session waits for alarms on their way, s."""
_LOOK_S, _BEAT_S = 0.1, 1.0
_STALLED = 0.5
_FIRST_S = 0.1
_END = b'{"end": true}\n'


@dataclass
class _Event:
    """Something that happened."""

    kind: str
    stream: str
    text: str
    time: str


@dataclass
class _Window:
    """Events of one kind for one alarm: one is told, the others are held back."""

    ends: float = 0.0
    held: Counter[str] = field(default_factory=Counter)
    last: _Event | None = None


@dataclass
class _Message:
    """A message on its way."""

    to: int
    data: bytes
    about: str
    is_sent: bool = False


class AlarmRun:
    """The alarms and the heartbeat of a session, and the process that delivers them.

    `note` takes lines for the session's log, `streams` returns the names of those that
    are watched. With `is_test` nothing is sent but what `test` sends, once.
    """

    def __init__(
        self,
        alarms: Sequence[RigAlarm],
        heartbeat: RigHeartbeat | None,
        session: str,
        context: Context,
        note: Callable[[str], object],
        streams: Callable[[], Iterable[str]] = tuple,
        *,
        is_test: bool = False,
    ) -> None:
        self._alarms, self._heartbeat = list(alarms), heartbeat
        self._session, self._context = session, context
        self._note, self._streams = note, streams
        self._host = socket.gethostname()
        self._events: deque[_Event] = deque()
        self._overflow: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._windows: dict[tuple[int, str], _Window] = {}
        self._messages: dict[int, _Message] = {}
        self._number = self._read = 0
        self._beat_at = self._looked_at = 0.0
        self._watches: dict[str, _StreamWatch] = {}
        self._over = Latch()
        self.failures: dict[str, str] = {}
        """What was not delivered, and why the last time."""
        self._settings = json.dumps({
            "alarms": [asdict(alarm) for alarm in self._alarms],
            "heartbeat": None if heartbeat is None else asdict(heartbeat),
            "tries": 1 if is_test else TRIES, "is_beating": not is_test,
        }).encode() + b"\n"  # fmt: skip
        self._budget, self._restart_at = RestartBudget(None, 30.0, _FIRST_S), 0.0
        self.program = Program(
            "alarms",
            process_command("ataraxis.session.alarm_process:main"),
            str(context.path),
            note,
            is_reporting=True,
        )
        self._begin()
        self._thread = Thread(self._watch, "ataraxis-alarms")
        self._thread.start()

    # ---- from any thread

    def take(self, kind: str, stream: str, text: str) -> None:
        """Take an event; never waits."""
        if len(self._events) >= EVENTS_WAITING:
            with self._lock:
                self._overflow[kind] += 1
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._events.append(_Event(kind, stream, text, now))

    # ---- which events are told

    def _sort(self, *, is_last: bool = False) -> None:
        """Make messages of events, and of those held back whose time has come."""
        now = time.monotonic()
        while self._events:
            event = self._events.popleft()
            for to, alarm in enumerate(self._alarms):
                if event.kind in alarm.on:
                    self._count(to, alarm, event, now)
        with self._lock:
            overflow, self._overflow = self._overflow, Counter()
        for (to, kind), window in self._windows.items():
            if overflow[kind] and window.last is not None:
                window.held["not looked at"] += overflow[kind]
            if window.held and window.last and (is_last or now >= window.ends):
                self._tell(to, window, window.last, is_held=True)

    def _count(self, to: int, alarm: RigAlarm, event: _Event, now: float) -> None:
        window = self._windows.setdefault((to, event.kind), _Window())
        window.last = event
        if now < window.ends:
            window.held[event.stream or "the session"] += 1
        else:
            self._tell(to, window, event)

    def _tell(
        self, to: int, window: _Window, event: _Event, *, is_held: bool = False
    ) -> None:
        """Tell an event, and how many were held back; `is_held`: it is one of them."""
        count = sum(window.held.values()) - is_held
        if count:
            by = ", ".join(f"{name} {n}" for name, n in window.held.most_common(5))
            text = f"{event.text[: TEXT_SIZE // 2]}; since the last message: {by}"
            event = replace(event, text=text)
        window.held.clear()
        window.ends = time.monotonic() + self._alarms[to].again_s
        self._send(to, event, count)

    def _send(self, to: int, event: _Event, held_back: int = 0) -> None:
        beat = self._heartbeat
        label = (
            f"alarms[{to}] ({self._alarms[to].label})"
            if to != HEARTBEAT or beat is None
            else beat.label
        )
        if len(self._messages) >= MESSAGES_WAITING:
            self._fail(f"{event.kind} to {label}", "too many wait")
            return
        self._number += 1
        text = " ".join(event.text.split())[:TEXT_SIZE]
        message = {
            "number": self._number, "to": to, "session": self._session,
            "host": self._host, "kind": event.kind, "stream": event.stream,
            "text": text, "time": event.time, "held_back": held_back,
        }  # fmt: skip
        data = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        self._messages[self._number] = _Message(
            to, data + b"\n", f"{event.kind} to {label}"
        )

    # ---- the process

    def _begin(self) -> None:
        """Give its settings to a process that was just started."""
        self._read = 0
        os.set_blocking(self.program.process.stdin.fileno(), False)
        for message in self._messages.values():
            message.is_sent = False
        if not self._write(self._settings):
            raise OSError("the alarms of a rig are too many: make their texts shorter")

    def _write(self, data: bytes) -> bool:
        """Write into its input, at once or not at all; False: not now."""
        try:
            return os.write(self.program.process.stdin.fileno(), data) == len(data)
        except (BlockingIOError, BrokenPipeError):
            return False

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                self._look()
            except Exception as error:  # the alarms go on
                self._note(f"alarms: {type(error).__name__}: {error}")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= _BEAT_S:
            self._looked_at = now
            self._look_at_streams()
        self._sort()
        self._exchange()

    def _exchange(self) -> None:
        """Restart the process if it died; send what waits; read what became of it."""
        code = self.program.process.poll()
        self._read_messages()
        if code is not None:
            self._restart(code)
            return
        now = time.monotonic()
        if now - self._beat_at >= _BEAT_S and self._write(b"{}\n"):
            self._beat_at = now
        for message in self._messages.values():
            if not message.is_sent:
                message.is_sent = self._write(message.data)
                if not message.is_sent:
                    break

    def _restart(self, code: int) -> None:
        now = time.monotonic()
        if not self._restart_at:
            self._note(f"the process of the alarms died, exit code {code}")
            self._restart_at = now + self._budget.spend()
        if now < self._restart_at:
            return
        self._kill_commands()
        self._restart_at = 0.0
        try:
            self.program.restart()
            self._begin()
        except OSError as error:  # such as too many processes
            self._note(f"the process of the alarms does not start: {error}")

    def _kill_commands(self) -> None:
        """Kill what the process that has ended left running: its group."""
        with suppress(OSError):
            os.killpg(self.program.process.pid, signal.SIGKILL)

    def _read_messages(self) -> None:
        if self.program.is_closed:
            return
        output = self.program.output(self._read)
        whole = output[: output.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._handle(json.loads(line))

    def _handle(self, said: dict[str, Any]) -> None:
        if "heartbeat" in said and self._heartbeat is not None:
            label, reason = self._heartbeat.label, said["heartbeat"]
            if reason:
                self._fail(label, reason)
            else:
                self._note(f"{label}: it answers")
        if "trouble" in said and said["trouble"] in self._messages:
            about = self._messages[said["trouble"]].about
            self._note(f"{about} failed, is tried again: {said['why']}")
        if "done" in said and said["done"] in self._messages:
            self._note(f"told: {self._messages.pop(said['done']).about}")
        if "failed" in said and said["failed"] in self._messages:
            self._fail(self._messages.pop(said["failed"]).about, said["why"])

    def _fail(self, about: str, reason: str) -> None:
        self._note(f"NOT TOLD: {about}: {reason}")
        self.failures[about] = reason

    # ---- streams

    def _look_at_streams(self) -> None:
        for name in self._streams():
            try:
                found = Inspector(name, self._context).statistics()
            except (OSError, AtaraxisError):
                self._watches.pop(name, None)
                continue
            watch = self._watches.get(name)
            if watch is None or found.sent < watch.before.sent:  # made again
                self._watches[name] = _StreamWatch(found)
                continue
            for kind, text in watch.look(found):
                self.take(kind, name, text)

    # ---- a test, and the end

    def test(self, until: Latch | None = None) -> dict[str, str]:
        """Send a message in each way; return for each why it failed, or ''."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = "this is a test by 'ataraxis check': nothing is wrong"
        ways = [*range(len(self._alarms))]
        times = [alarm.timeout_s for alarm in self._alarms]
        if self._heartbeat is not None:
            ways.append(HEARTBEAT)
            times.append(self._heartbeat.timeout_s)
        self._over.set()
        self._thread.join()
        for to in ways:
            self._send(to, _Event(TEST, "", text, now))
        labels = [message.about for message in self._messages.values()]
        self._drain(max(times, default=0.0) + PATIENCE_S, until)
        self.finish()
        return {
            label.removeprefix(f"{TEST} to "): self.failures.get(label, "")
            for label in labels
        }

    def _drain(self, seconds: float, until: Latch | None) -> None:
        """Wait until no message is on its way."""
        end = time.monotonic() + seconds
        while self._messages and time.monotonic() < end:
            self._exchange()
            if self._messages and (until or Latch()).wait(_LOOK_S / 5):
                return

    def finish(self, hurry: Latch | None = None) -> list[str]:
        """Deliver what waits, for 5 s, then end the process; return what failed."""
        self._over.set()
        self._thread.join()
        if not self.program.is_closed:
            self._sort(is_last=True)
            self._drain(PATIENCE_S, hurry)
            for message in [*self._messages.values()]:
                self._fail(message.about, "it was not done when the session ended")
            self._messages.clear()
            process = self.program.process
            self._write(_END)
            with suppress(TimeoutError):
                process.wait(1.0)
            process.signal(signal.SIGKILL)
            process.wait()
            self._kill_commands()
            self.program.end()
        return [f"alarm {about}: {why}" for about, why in self.failures.items()]


class _StreamWatch:
    """Notices losses in a device, and stalls of a producer, in a stream's counters."""

    def __init__(self, found: StreamStatistics) -> None:
        self.before, self._at = found, time.monotonic()
        self._times = 0

    def look(self, found: StreamStatistics) -> Iterable[tuple[str, str]]:
        """Yield the kind and text of what happened since the last look."""
        now = time.monotonic()
        before, passed = self.before, max(now - self._at, 1e-3)
        self.before, self._at = found, now
        lost = found.device_gaps - before.device_gaps
        if lost > 0:
            yield (
                "device_loss",
                (
                    f"its device lost {lost} frames or samples before it sent them, "
                    f"{found.device_gaps} in all"
                ),
            )
        share = (found.stalled_s - before.stalled_s) / passed
        self._times = self._times + 1 if share >= _STALLED else 0
        if self._times == 2:
            slow = ", ".join(r.label for r in found.readers if r.is_gating and r.lag)
            yield (
                "stall",
                (
                    f"its producer has waited for {slow or 'its readers'} for "
                    f"{share:.0%} of the last {passed:.1f} s"
                ),
            )
