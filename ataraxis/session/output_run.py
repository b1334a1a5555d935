"""`OutputProcess`: the process of an output, as a rig starts, watches and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ataraxis.errors import AtaraxisError, OutputError, SegmentExists
from ataraxis.session.output_process import END, SAFE_NOW
from ataraxis.session.outputs import open_log, orders_of
from ataraxis.session.process import Program
from ataraxis.session.rig import RigOutput
from ataraxis.shm.context import Context
from ataraxis.shm.process import ProcessIdentity, RestartBudget, process_command
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream import MemQ, Producer
from ataraxis.stream.inspector import Inspector

START_S = 60.0
OTHERS_S = 15.0
"""How long an earlier rig, or another program, may use the name of an output, s."""
ENDS = 3
_GRACE_S = 0.5
_FIRST_S = 0.05
"""Pause before the second restart in a row, doubled by each: the first is at once."""


class OutputProcess:
    """The process of an output, which a rig starts, watches, starts again and ends.

    `note` takes lines for the session's log, `doubt` reasons not to trust the session;
    both may be called from a thread.
    """

    def __init__(
        self,
        name: str,
        output: RigOutput,
        context: Context,
        note: Callable[[str], object],
        doubt: Callable[[str], object],
    ) -> None:
        self.name, self._context = name, context
        self._note, self._doubt = note, doubt
        self._lock = threading.Lock()
        self._over, self._is_ready, self._is_ending = Latch(), False, False
        self._read = self._starts = 0
        self._device: list[int] | None = None
        attrs = {
            "long_name": f"commands of output {name}",
            "device": output.uri or " ".join(output.command), "safe": output.safe,
            "within_ms": output.within_ms, "commands": dict(output.commands),
        }  # fmt: skip
        if output.reply is not None:
            attrs["reply"] = output.reply
        me = ProcessIdentity.of(os.getpid())
        self._options = {
            "name": name, "context": str(context.path), "attrs": attrs,
            "uri": output.uri, "command": output.command, "reply": output.reply,
            "timeout_ms": output.timeout_ms, "parent": [me.pid, me.start],
        }  # fmt: skip
        self._grace_s = _GRACE_S + output.within_ms / 1000
        self._budget = RestartBudget(None, 30.0, _FIRST_S)
        self._log = self._new_log(attrs)
        try:
            self._queue = self._new_queue()
            self.program = Program(
                name, self._command, str(context.path), note,
                end_message=END, is_reporting=True, pause_s=0.0,
            )  # fmt: skip
        except BaseException:
            self._log.close()
            raise
        self._thread = Thread(self._watch, f"ataraxis-output-{name}")

    def _new_log(self, attrs: dict[str, Any]) -> Producer:
        """Make the log, once that of a killed rig has ended and was recorded.

        The process of an output outlives its rig until the output is safe; a resumed
        session first records what it has logged.
        """
        end = time.monotonic() + OTHERS_S
        while True:
            if not self._is_used():
                with contextlib.suppress(SegmentExists):
                    return open_log(self.name, attrs, self._context)
            if time.monotonic() > end:
                raise OutputError(
                    f"output {self.name!r} needs a stream of its name in context "
                    f"{self._context.path}, which another program uses, or has left "
                    "unread: end that program ('ataraxis ls' lists it), or use "
                    "another name"
                )
            time.sleep(0.02)

    def _is_used(self) -> bool:
        """Return whether a process sends into a stream of this name."""
        try:
            return bool(Inspector(self.name, self._context).statistics().producers)
        except (OSError, AtaraxisError):
            return False

    def _new_queue(self) -> MemQ:
        """Make the queue of orders; one of a killed rig is removed, with its orders."""
        name = orders_of(self.name)
        with contextlib.suppress(AtaraxisError), MemQ.attach(
            name, context=self._context
        ) as old:  # fmt: skip
            if count := old.qsize():
                self._note(f"{count} orders to {self.name!r} of an earlier rig dropped")
        with contextlib.suppress(OSError):
            self._context.unlink(name)
        return MemQ(name, buffer_count=256, buffer_size=768, context=self._context)

    def _command(self) -> list[str]:
        """Return what is run next."""
        self._read, self._starts = 0, self._starts + 1
        options = {
            **self._options, "is_first": self._starts == 1, "before": self._device
        }  # fmt: skip
        return process_command(
            "ataraxis.session.output_process:main", json.dumps(options)
        )

    def await_ready(self, until: Latch) -> None:
        """Wait until its device is open and safe, or raise `OutputError`."""
        end = time.monotonic() + START_S
        while not self._is_ready:
            code = self.program.process.poll()
            self._read_messages()
            if code is not None:
                raise OutputError(
                    f"output {self.name!r}: {self.program.last_error()} (exit code "
                    f"{code}): connect the device, or mend rig.yaml"
                )
            if time.monotonic() > end:
                raise OutputError(
                    f"output {self.name!r} did not begin within {START_S:g} s"
                )
            if until.wait(0.01):
                raise OutputError(f"ended before output {self.name!r} was ready")
        self._thread.start()

    def _watch(self) -> None:
        """Pass its messages on; start it again when it dies."""
        while not self._over.is_set():
            try:
                code = self.program.process.wait(0.05)
            except TimeoutError:
                self._read_messages()
                continue
            with self._lock:
                if not self._over.is_set():
                    self._restart(code)

    def _restart(self, code: int) -> None:
        self._read_messages()
        error = self.program.last_error()
        self._note(f"output {self.name!r} died, exit code {code}: {error}")
        is_first = not self._budget.deaths
        pause = self._budget.spend()
        if not self._over.wait(0 if is_first else pause):
            self.program.restart()
            if self._is_ending:
                self.program.send(SAFE_NOW)

    def _read_messages(self) -> None:
        output = self.program.output(self._read)
        whole = output[: output.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            message = json.loads(line)
            self._is_ready |= "ready" in message
            if "device" in message:
                self._device = message["device"]
            if "note" in message:
                self._note(f"output {self.name!r}: {message['note']}")
            if "doubt" in message:
                self._doubt(f"output {self.name!r} {message['doubt']}")

    def request_safe(self) -> None:
        """Make the output safe now, and refuse further orders; does not wait."""
        with self._lock:
            self._is_ending = True
            self.program.send(SAFE_NOW)

    def finish(self, hurry: Latch | None = None) -> None:
        """End it: it makes the output safe, and logs what is left; repeatable."""
        self._over.set()
        self._thread.join()
        with self._lock:
            if not self.program.is_closed:
                self._end(hurry)
            self._log.close()
            self._queue.close()
            # Gone, unless the process was killed.
            with contextlib.suppress(OSError):
                self._context.unlink(orders_of(self.name))

    def _end(self, hurry: Latch | None) -> None:
        """End its process; one that dies meanwhile is started again, for this."""
        code = -1
        for left in reversed(range(ENDS)):
            self.program.request_end()
            with contextlib.suppress(TimeoutError):  # also in a hurry
                self.program.process.wait(self._grace_s)
            code = self.program.wait(hurry)
            self._read_messages()
            if code == 0 or not left or not self._is_ready:
                break
            self.program.restart()
        if code and self._is_ready:
            self._doubt(
                f"output {self.name!r} may not be safe: its process did not end in "
                f"order, exit code {code}: {self.program.last_error()}"
            )
        if died := self.program.restarts:
            self._doubt(
                f"output {self.name!r} died and was started again, {died} times"
            )
        self.program.end()
