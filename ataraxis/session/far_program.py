"""`FarProgram`: a program of a rig that the agent of another host runs there."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from ataraxis.cluster.door import AgentClient
from ataraxis.cluster.programs import ASK_S, END, FORGET, HURRY
from ataraxis.cluster.status import host_states
from ataraxis.errors import (
    AtaraxisError,
    HostUnavailable,
    NotConnectedError,
)
from ataraxis.session.process import MOST_FAILS, PATIENCE_S
from ataraxis.shm.context import Context
from ataraxis.shm.process import RestartBudget
from ataraxis.shm.thread import Latch, Thread

LOOK_S = 0.2
_UNKNOWN_S = 15.0
"""After its restart an agent hears of a keeper within this time, s."""
_DOOR_S = ASK_S + 10.0
_LAST_S = 5.0


def name_of_this_host(context: Context) -> str:
    """Return the name of this host in ``hosts.yaml`` of the agent here.

    Raises `HostUnavailable` if no agent runs in the context.
    """
    return host_states(context)[0].name


class FarHost:
    """Another host, asked through the agent here: a thread looks at its programs.

    Parameters
    ----------
    host : str
        Its name in ``hosts.yaml``.
    context : Context
        The context of the agent here.
    note : callable
        Takes lines for the session's log.
    """

    def __init__(
        self, host: str, context: Context, note: Callable[[str], object]
    ) -> None:
        self.host = host
        self.note = note
        self.problem = ""
        """Why it does not answer; '' if it does."""
        self.answered = time.monotonic()
        """When it answered last, monotonic s."""
        self._context = context
        self._client: AgentClient | None = None
        self._gate = threading.Lock()
        self._programs: list[FarProgram] = []
        self._over = Latch()
        self._thread: Thread | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask the agent there.

        Raises
        ------
        HostUnavailable
            It, or the agent here, does not answer.
        AccessDenied, RemoteError, ...
            It has refused.
        """
        with self._gate:
            try:
                if self._client is None:
                    self._client = AgentClient(self._context)
                found: dict[str, Any] = self._client.ask(
                    "program", _DOOR_S, host=self.host, ask={"do": do, **arguments}
                )
            except (NotConnectedError, TimeoutError, OSError) as error:
                if isinstance(error, AtaraxisError) and not isinstance(
                    error, NotConnectedError
                ):
                    raise  # refused, by words that are also of the system
                client, self._client = self._client, None
                if client is not None:
                    client.close()
                raise HostUnavailable(f"the agent here: {error}") from None
        return found

    def add(self, program: FarProgram) -> None:
        """Look at a program from now on."""
        self._programs.append(program)
        if self._thread is None:
            self._thread = Thread(self._watch, f"ataraxis-far-{self.host}")
            self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for program in list(self._programs):
                if program.is_forgotten or self._over.is_set():
                    continue
                try:
                    program.see()
                except HostUnavailable as error:
                    if not self.problem:
                        self.note(f"host {self.host!r} does not answer: {error}")
                    self.problem = str(error)
                    break
                except (AtaraxisError, OSError) as error:
                    program.fail(str(error))
                else:
                    if self.problem:
                        self.note(f"host {self.host!r} answers again")
                    self.problem, self.answered = "", time.monotonic()

    def close(self) -> None:
        """End the thread; what was not forgotten there is ended by the agents."""
        deadline = time.monotonic() + _LAST_S
        while time.monotonic() < deadline and not self.problem:
            if all(program.is_forgotten for program in self._programs):
                break
            self._over.wait(LOOK_S / 4)
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._gate:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class FarProgram:
    """A program of a rig on another host; it is looked at as a `Program`.

    It is started again there, also while that host cannot be reached from here, and by
    this object if its keeper is killed.

    Parameters
    ----------
    name : str
        Its name in the session's log.
    host : FarHost
        The other host.
    kind : str
        As of `ataraxis.cluster.programs`.
    options : dict
        What it is started with.
    away_s : float
        How long it goes on without a sign of life from here, s.
    stream : str
        A stream that it makes there: `stream_id` is of that.
    on_line : callable
        Called with each line of JSON that it prints, in a thread.
    on_failure : callable
        Called with a line when it has failed, in a thread.

    Raises
    ------
    HostUnavailable
        The host cannot be reached.
    AccessDenied
        It does not let this host run that program.
    """

    is_viewer = False

    def __init__(
        self,
        name: str,
        host: FarHost,
        kind: str,
        options: dict[str, Any],
        away_s: float,
        *,
        stream: str = "",
        on_line: Callable[[str], object] = lambda line: None,
        on_failure: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.name, self.host = name, host
        self.failure = ""
        """Why it is not started any more; empty: it is."""
        self.first_failure = ""
        """What its first failure was; it may have been started again since."""
        self.was_killed = False
        self.is_over = False
        """Whether it has ended, and is not started again."""
        self.is_forgotten = False
        """Whether the other host has nothing of it any more."""
        self.pid = 0
        """Its process id on the other host; 0: not known yet."""
        self.stream_id = ""
        """Id of its last stream there; '' before that."""
        self.is_closed = False
        self._kind, self._options, self._away_s = kind, options, away_s
        self._stream, self._on_line, self._on_failure = stream, on_line, on_failure
        self._lock = threading.Lock()
        self._orders: set[str] = set()
        self._code: int | None = None
        self._restarts = self._restarts_before = 0
        self._output, self._printed = "", b""
        self._unknown_since: float | None = None
        self._budget = RestartBudget(MOST_FAILS)
        self.found: dict[str, Any] = {}
        """What the other host has answered to its start."""
        self._begin()
        host.add(self)

    def _begin(self) -> None:
        self._id = uuid.uuid4().hex
        self._have = 0
        self.found = self.host.ask(
            "start", id=self._id, kind=self._kind, options=self._options,
            lease_s=self._away_s,
        )  # fmt: skip

    @property
    def restarts(self) -> int:
        """How many times it was started again."""
        return self._restarts_before + self._restarts

    # ---- in the thread of its host

    def see(self) -> None:
        """Ask for what it has done; raises what the other host refuses."""
        found = self.host.ask(
            "look", id=self._id, have=self._have, orders=sorted(self._orders),
            stream=self._stream,
        )  # fmt: skip
        self.stream_id = str(found.get("stream_id", "")) or self.stream_id
        if not found["is_known"]:
            self._miss("the agent there does not know it any more")
            return
        self._unknown_since = None
        for number, what, data in found["events"]:
            if number > self._have:
                self._have = number
                self._take(what, data)
        if found["problem"]:
            self._restart(str(found["problem"]))
            return
        state = found["state"]
        if state is None:
            return
        self._restarts, self._output = int(state["restarts"]), str(state["output"])
        self.was_killed = bool(state["was_killed"])
        self._code = None if state["code"] is None else int(state["code"])
        if state["failure"]:
            self.fail(str(state["failure"]))
        if state["is_over"]:
            self.is_over = True
            self._orders.add(FORGET)
        self.is_forgotten = bool(found.get("is_forgotten"))

    def _take(self, what: str, data: Any) -> None:
        if what == "note":
            self.host.note(f"{self.host.host}: {data}")
        elif what == "failure":
            self.first_failure = self.first_failure or str(data)
            self._on_failure(f"on host {self.host.host!r}: {data}")
        elif what == "start":
            with self._lock:
                self.pid, self._printed = int(data), b""
        elif what == "line":
            with self._lock:
                self._printed += data.encode() + b"\n"
            self._on_line(str(data))

    def _miss(self, problem: str) -> None:
        now = time.monotonic()
        if self.is_over:
            self.is_forgotten = True
        elif self._unknown_since is None:
            self._unknown_since = now
        elif now - self._unknown_since > _UNKNOWN_S:
            self._restart(problem)

    def _restart(self, problem: str) -> None:
        """Its keeper is gone, and so will the program be: start another one."""
        if self.is_over:
            self.is_forgotten = True
            return
        self.host.note(f"{self.name!r} on host {self.host.host!r}: {problem}")
        self._on_failure(f"on host {self.host.host!r}: {problem}")
        self._budget.spend()
        if self._budget.is_spent or (self._orders & {END} and not self._is_restarted):
            self.fail(problem)
            return
        self._unknown_since = None
        self._restarts_before += self._restarts + 1
        self._restarts = 0
        self._begin()
        self.host.note(f"{self.name!r} was started again on host {self.host.host!r}")

    @property
    def _is_restarted(self) -> bool:
        """Whether one that has to end must be started again to do so."""
        return bool(self._options.get("streams"))

    def fail(self, why: str) -> None:
        """Give it up."""
        if not self.failure:
            self.failure = f"{self.name!r} on host {self.host.host!r}: {why}"
        self._orders |= {END, FORGET}
        self.is_over = True

    # ---- as a `Program`

    def poll(self) -> int | None:
        """Return its last exit code, once it is not started again; None: it runs."""
        return (self._code or int(bool(self.failure))) if self.is_over else None

    def look(self) -> bool:
        """Return whether it runs, or will."""
        return not self.is_over

    def output(self, start: int = 0) -> bytes:
        """Return the lines of JSON that it has printed, from byte `start` on."""
        with self._lock:
            return self._printed[start:]

    def last_output(self) -> str:
        """Return the last lines that it printed, once it has ended; or its failure."""
        return self._output or self.failure

    def order(self, what: str) -> None:
        """Order something, as of `ataraxis.cluster.programs`; does not wait."""
        self._orders.add(what)

    def request_end(self) -> None:
        """Ask it to end; does not wait."""
        self._orders.add(END)

    def wait(self, hurry: Latch | None = None) -> int:
        """Wait until it has ended; give it up if its host does not answer for 30 s.

        Once `hurry` is set it is killed there.
        """
        asked = time.monotonic()
        while not self.is_over:
            if hurry is not None and hurry.is_set():
                self._orders.add(HURRY)
            now = time.monotonic()
            patience = PATIENCE_S if HURRY not in self._orders else _LAST_S
            # Its keeper kills it after 30 s; a recorder may be started again to end.
            is_silent = now - max(self.host.answered, asked) > patience
            if is_silent or now - asked > 4 * PATIENCE_S:
                self.fail(f"it did not end: {self.host.problem or 'it still runs'}")
                break
            time.sleep(LOOK_S / 4)
        return self.poll() or 0

    def end(self) -> None:
        """Wait as `wait` does, and forget it there."""
        self.wait()
        self.is_closed = True
