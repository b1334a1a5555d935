"""Workers that run here for the pipe of another host; its agent's part of a run.

The other host orders over a channel ``workers RUN``; see `RunContact` for its side. A
run has queues, a board and workers here, as a run of this host. If the other host is
silent for the lease of the run, its workers are ended and all of it is removed: so no
worker runs twice while its host is cut off.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.clock import boottime, now_ns
from ataraxis.cluster.board_words import BoardWords, write_words
from ataraxis.cluster.control import DIAL_S
from ataraxis.cluster.dispatch import Dispatch, DispatchLine
from ataraxis.cluster.edges import MOST_PROCESSORS, EdgePlan, Edges
from ataraxis.errors import (
    AccessDenied,
    AtaraxisError,
    BadMessage,
    HostUnavailable,
)
from ataraxis.link.carrier import Channel, ChannelClosed
from ataraxis.link.conversation import Conversation
from ataraxis.link.hosts import Hosts
from ataraxis.link.messages import Ask, Hello, Reply
from ataraxis.link.session import BEAT_S, LinkSession
from ataraxis.log.archive import LogArchive
from ataraxis.pipeline.board import StatusBoard, reap_dead_runs
from ataraxis.pipeline.engine import Child, Local
from ataraxis.pipeline.frames import last_frame
from ataraxis.pipeline.plan import QueueSize
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import Context, checked_name
from ataraxis.shm.thread import Thread
from ataraxis.stream import MemQ

WORKERS = "workers "
"""The name of a channel begins with this; the name of the run follows."""
TURN_S = 0.01
"""How often a side looks for what it has to send, s."""
LEAST_LEASE_S, MOST_LEASE_S = 0.5, 24 * 3600.0
_ASKS = 5
"""How often within a lease the other host is asked for a sign of life, at least."""
_TICK_S = 0.05
_KILL_S = 5.0
_SLICE_S = 0.25
_MOST_WAITING = 2000
_MOST_QUEUES, _MOST_SLOTS, _MOST_SLOT_BYTES = 4096, 1 << 20, 1 << 30
_MOST_WORKERS = 1024
_UNPREPARED_S = 30.0
"""The lease of a run that is not prepared, or was refused."""

Report = Callable[[str], object]


class RunHere:
    """A run of another host: its queues, its board and its workers here.

    Parameters
    ----------
    run : str
        Its name.
    host : str
        The host that orders.
    hosts : Hosts
        What that host may do here.
    context : Context
        Where queues and board are.
    edges : Edges
        The edges of this host.
    on_gone : callable
        Called with this once it is removed, in its thread.
    report : callable
        Called with a line of text.
    """

    def __init__(
        self,
        run: str,
        host: str,
        hosts: Hosts,
        context: Context,
        edges: Edges,
        on_gone: Callable[[RunHere], object],
        report: Report,
    ) -> None:
        self.run, self.host = checked_name(run), host
        self.epoch = uuid.uuid4().hex
        """Another one each time that the run begins here."""
        self.line = DispatchLine()
        self.gate = threading.Lock()
        """Held by who uses `line` or `heard`."""
        self.heard = boottime()
        """When this host has sent what the other one has heard last, s since boot."""
        self.is_over = False
        self._hosts, self._context, self._edges = hosts, context, edges
        self._on_gone, self._report = on_gone, report
        self._lease_s = _UNPREPARED_S
        self._orders: deque[Dispatch] = deque()
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)
        os.set_blocking(self._bell, False)
        self._local: Local | None = None
        self._board: StatusBoard | None = None
        self._words: BoardWords | None = None
        self._credit: SharedMemoryArray | None = None
        self._queues: dict[str, MemQ] = {}
        self._letters = Path(tempfile.gettempdir()) / (
            f"ataraxis-letters-{run}-{hosts.me}"
        )
        self._letters_told = 0
        self._children: dict[Child, tuple[int, WorkerSpec]] = {}
        self._rows: set[int] = set()
        self._lanes: set[int] = set()
        self._idle: set[str] = set()
        self._threads: list[Thread] = []
        self._why = ""
        # Workers end with the thread that starts them.
        self.thread = Thread(self._run, f"ataraxis-run-{run}")
        self.thread.start()

    # ---- for other threads

    def take(self, order: Dispatch) -> None:
        """Take an order of the other host; carried out in the run's thread."""
        self._orders.append(order)
        self._ring()

    def end(self, why: str) -> None:
        """End the workers and remove everything, soon; from any thread."""
        self._why = self._why or why
        self._ring()

    @property
    def ask_s(self) -> float:
        """How often the other host is asked for a sign of life, s."""
        return min(self._lease_s / _ASKS, BEAT_S)

    @property
    def is_ending(self) -> bool:
        """Whether it is being removed."""
        return bool(self._why)

    def statistics(self) -> dict[str, Any]:
        """Return the numbers of this run, JSON-able."""
        return {
            "run": self.run, "host": self.host, "workers": len(self._children),
            "heard_s": boottime() - self.heard, "lease_s": self._lease_s,
        }  # fmt: skip

    def _ring(self) -> None:
        with suppress(BlockingIOError, OSError):
            os.write(self._ringer, b"\0")

    # ---- the thread

    def _run(self) -> None:
        try:
            self._local = Local("forkserver")
            while not self._why:
                self._turn()
        except Exception as error:
            self._why = f"{type(error).__name__}: {error}"
        finally:
            try:
                self._remove()
            finally:
                self._on_gone(self)
                os.close(self._bell)
                os.close(self._ringer)

    def _turn(self) -> None:
        assert self._local is not None
        for event in self._local.watch(_TICK_S, self._bell):
            self._tell(event.handle, event.what, event.data)
        with suppress(BlockingIOError):
            os.read(self._bell, 4096)
        while self._orders and not self._why:
            order = self._orders.popleft()
            try:
                self._obey(order)
            except (AtaraxisError, OSError, ValueError, KeyError, TypeError) as error:
                self._fail(order, error)
        for name in list(self._idle):
            with suppress(TimeoutError):
                self._queues[name].join(0)
                self._idle.discard(name)
                self._put("idle", name=name)
        silent = boottime() - self.heard
        if silent >= self._lease_s:
            self._why = (
                f"host {self.host!r} was silent for {silent:.1f} s, and the lease of "
                f"its workers is {self._lease_s:g} s"
            )

    def _put(self, what: str, /, **fields: Any) -> None:
        with self.gate:
            self.line.put(what, **fields)

    def _fail(self, order: Dispatch, error: Exception) -> None:
        """Tell the other host that an order was not carried out."""
        why = {"type": type(error).__name__, "text": str(error)}
        if order.what == "spawn":
            self._put("failed", worker=order.fields.get("worker"), **why)
        else:
            self._put("refused", **why)
        self._report(f"run {self.run} of {self.host}: {order.what}: {error}")

    def _obey(self, order: Dispatch) -> None:
        fields = order.fields
        match order.what:
            case "prepare":
                self._prepare(fields)
            case "spawn":
                self._spawn(int(fields["worker"]), self._spec_of(fields["spec"]))
            case "signal":
                for child, (worker, _) in self._children.items():
                    if worker == fields["worker"] and self._local is not None:
                        self._local.signal(child, _signal_of(fields["number"]))
            case "words":
                self._write(fields["words"])
            case "idle":
                self._idle.add(self._known(fields["name"]))
            case "end":
                self._end(self._known(fields["name"]), int(fields["count"]))
            case "connect":
                for plan in fields["plans"]:
                    self._connect(plan)
                self._put("connected")
            case "lost":
                gone = str(fields["host"]), self.run, str(fields["generation"])
                self._edges.lost(*gone)
            case "release":
                self._why = "it has ended"
            case _:
                raise BadMessage(f"{order.what!r} is not an order: update ataraxis")

    # ---- orders

    def _prepare(self, fields: dict[str, Any]) -> None:
        for text in fields["specs"]:
            self._spec_of(text)
        lease_s = float(fields["lease_s"])
        if not LEAST_LEASE_S <= lease_s <= MOST_LEASE_S:
            raise ValueError(
                f"lease_s must be {LEAST_LEASE_S} to {MOST_LEASE_S:g} s, got {lease_s}"
            )
        sizes = [_queue_size(each) for each in fields["queues"]]
        if len(sizes) > _MOST_QUEUES:
            raise ValueError(f"a run has at most {_MOST_QUEUES} queues here")
        for size in sizes:
            if not size.name.startswith(f"{self.run}."):
                raise AccessDenied(f"queue {size.name!r} is not of run {self.run!r}")
            if size.allow_pickle:
                self._allow_functions(f"queue {size.name!r} has allow_pickle=True")
        about = _about_of(fields["about"])
        reap_dead_runs(self._context)
        for size in sizes:
            self._queues[size.name] = size.make(self._context)
        self._board = StatusBoard.create(self.run, about, self._context)
        self._credit = SharedMemoryArray.create_array(
            f"{self.run}.credit", np.zeros(1, np.int64), context=self._context
        )
        write_words(self._board, fields["words"], int(fields["now"]) - now_ns())
        self._words = BoardWords(self._board)
        for plan in fields["plans"]:
            self._connect(plan)
        self._lease_s = lease_s
        generation = self._edges.generation(self.run)
        cores = len(os.sched_getaffinity(0))
        self._put("prepared", cores=cores, generation=generation)

    def _connect(self, fields: dict[str, Any]) -> None:
        plan = EdgePlan.from_dict(fields)
        if plan.run != self.run or self._hosts.me not in (plan.source, plan.to):
            raise AccessDenied(f"edge {plan.name!r} is not of run {self.run!r} here")
        self._known(plan.name if plan.source == self._hosts.me else plan.inbox)
        self._edges.connect(plan)

    def _spec_of(self, text: str) -> WorkerSpec:
        """Return a specification that may run here, with this host's own places."""
        spec = WorkerSpec.from_bytes(text.encode())
        if spec.run != self.run:
            raise AccessDenied(f"the worker is of run {spec.run!r}, not {self.run!r}")
        for what, code in spec.codes():
            self._check_code(what, code.name, code.entry)
        if spec.allow_pickle or any(t.allow_pickle for t in spec.targets):
            self._allow_functions(f"processor {spec.processor!r} has allow_pickle=True")
        if self._board is not None:
            for name in (spec.inbox, *(q for t in spec.targets for q in t.queues)):
                if name:
                    self._known(name)
        return replace(
            spec, context=str(self._context.path), dead_letters=str(self._letters),
            is_foreign=not self._hosts.functions,
        )  # fmt: skip

    def _check_code(self, what: str, name: str, entry: str) -> None:
        hosts = self._hosts
        if entry:
            raise AccessDenied(
                f"{what} is the script {entry!r}: host {hosts.me!r} runs functions of "
                "modules only; put it into a function, and its module under 'modules:'"
            )
        if not name:
            self._allow_functions(f"{what} has a function without a module")
            return
        module = name.partition(":")[0]
        if why := hosts.module_refusal(module):
            raise AccessDenied(f"{what} is {name!r}, and module {module!r} is {why}")

    def _allow_functions(self, what: str) -> None:
        if not self._hosts.functions:
            raise AccessDenied(
                f"{what}, which is sent as a pickle: any code. Host "
                f"{self._hosts.me!r} takes it only with 'functions: true' in "
                f"{self._hosts.path}; put the function into a module, and that under "
                "'modules:'"
            )

    def _known(self, name: object) -> str:
        if not isinstance(name, str) or name not in self._queues:
            raise AccessDenied(f"{name!r:.80} is not a queue of run {self.run!r} here")
        return name

    def _spawn(self, worker: int, spec: WorkerSpec) -> None:
        if self._local is None or self._board is None or self._words is None:
            raise HostUnavailable(f"run {self.run!r} is not prepared here")
        if (
            not 0
            <= spec.row
            < sum(each["workers"] for each in self._board.about["processors"])
        ):
            raise ValueError(f"the run has no worker in row {spec.row}")
        self._rows.add(spec.row)
        if spec.ordered_parents or spec.fills_gaps:
            self._lanes.add(spec.index)
        self._words.set_mine(self._rows, self._lanes)
        with self._lease_kept(self._local):
            child = self._local.spawn("localhost", spec)
        self._children[child] = (worker, spec)

    @contextmanager
    def _lease_kept(self, local: Local) -> Iterator[None]:
        """End the workers at the end of the lease, while this thread waits."""
        is_done = threading.Event()

        def keep() -> None:
            while not is_done.wait(_TICK_S):
                if self._why or boottime() - self.heard >= self._lease_s:
                    for child in self._children:
                        local.signal(child, signal.SIGKILL)
                    return

        thread = Thread(keep, f"ataraxis-lease-{self.run}")
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()

    def _write(self, pairs: list[list[int]]) -> None:
        if self._board is None or self._credit is None:
            return
        if write_words(self._board, pairs):
            self._credit.add(0, 1)  # wakes who waits for the ordering window

    def _end(self, name: str, count: int) -> None:
        """Put last frames into a queue; a thread goes on if it has no room."""
        self._edges.finish(self.run, name)
        queue, frame = self._queues[name], last_frame()
        while count and queue.offer(frame, 0):
            count -= 1
        if not count:
            return

        def later() -> None:
            left = count
            with suppress(Exception):  # the end of the run closes the queue
                while left:
                    left -= queue.offer(frame, _SLICE_S)

        thread = Thread(later, f"ataraxis-last-{self.run}")
        self._threads.append(thread)
        thread.start()

    # ---- what workers do

    def _tell(self, child: Child, what: str, data: Any) -> None:
        """Tell the other host what a worker does."""
        worker, _ = self._children[child]
        if what == "output":
            with self.gate:
                is_full = self.line.waiting > _MOST_WAITING
            if not is_full:  # the other host is away: what is printed is not kept
                text = base64.b64encode(data[0]).decode()
                self._put("output", worker=worker, data=text, is_error=data[1])
        elif what == "message":
            if data["kind"] in ("dead letter", "corrupt"):
                self._send_letters()
            self._put("message", worker=worker, message=data)
        else:
            for queue in self._queues.values():
                queue.sweep()
            self._send_words()
            del self._children[child]
            self._put("exit", worker=worker, code=data)

    def send_words(self) -> None:
        """Add the words that have changed to the line, unless some are on their way."""
        with self.gate:
            is_behind = self.line.waiting > 0
        if not is_behind:
            self._send_words()

    def _send_words(self) -> None:
        with self.gate:
            if self._words is not None and not self.is_over:
                changed = self._words.changed()
                if changed:
                    self.line.put("words", now=now_ns(), words=changed)

    def _send_letters(self) -> None:
        """Send the dead letters that were written since the last time."""
        if not self._letters.is_dir():
            return
        entries = [entry.value for entry in LogArchive(self._letters)]
        for entry in entries[self._letters_told :]:
            frame = base64.b64encode(bytes(entry["frame"])).decode()
            self._put("letter", **{**entry, "frame": frame})
        self._letters_told = len(entries)

    # ---- the end

    def _remove(self) -> None:
        """End the workers, then remove edges, queues and board."""
        local = self._local
        if local is not None:
            for child in self._children:
                local.signal(child, signal.SIGKILL)
            deadline = time.monotonic() + _KILL_S
            while self._children and time.monotonic() < deadline:
                for event in local.watch(_TICK_S, -1):
                    if event.what == "exit":
                        self._children.pop(event.handle, None)
        with suppress(AtaraxisError, OSError):
            if self._board is not None:
                self._edges.fence(self.run)
            self._edges.release(self.run)
        with self.gate:
            self.is_over = True
            self._words = None
        for queue in self._queues.values():
            with suppress(AtaraxisError, OSError):
                queue.unlink()
        if self._credit is not None:
            with suppress(AtaraxisError, OSError):
                self._credit.disconnect()
                self._credit.destroy()
        if self._board is not None:
            with suppress(AtaraxisError, OSError):
                self._board.close()
        shutil.rmtree(self._letters, ignore_errors=True)
        for thread in self._threads:
            thread.join(2 * _SLICE_S)
        if local is not None:
            local.watch(0, -1)
            local.close()
        self._put("gone", why=self._why)
        self._report(f"run {self.run} of {self.host}: {self._why}")


def _queue_size(fields: Any) -> QueueSize:
    size = QueueSize(**fields)
    numbers = (size.slots, size.size, size.participants)
    is_good = all(type(n) is int for n in numbers) and (
        0 < size.slots <= _MOST_SLOTS
        and 0 <= size.size <= _MOST_SLOT_BYTES
        and 0 < size.participants <= _MOST_WORKERS
        and size.slots * size.size <= _MOST_SLOT_BYTES
        and isinstance(size.allow_pickle, bool)
    )
    if not is_good:
        raise ValueError(f"{fields!r:.200} is not a queue that is made here")
    checked_name(size.name)
    return size


def _about_of(about: Any) -> dict[str, Any]:
    rows = about["processors"]
    is_good = isinstance(rows, list) and len(rows) <= MOST_PROCESSORS
    for row in rows if is_good else []:
        count = row["workers"]
        is_good = is_good and type(count) is int and 0 < count <= _MOST_WORKERS
    if not is_good or len(json.dumps(about)) > 1 << 20:
        raise ValueError("the description of the run is not one")
    found: dict[str, Any] = about
    return found


def _signal_of(number: object) -> int:
    if number not in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        raise AccessDenied(f"signal {number!r:.20} is not sent to workers")
    assert isinstance(number, int)
    return number


def _prove(run: RunHere, session: LinkSession, asked: deque[tuple[int, float]]) -> None:
    """Begin the lease of a run again, as of what the other host has heard from here.

    That this host hears the other one does not count: a cable may be out in one
    direction, and the other host measures from what it has heard.
    """
    now = boottime()
    if not asked or now - asked[-1][1] >= run.ask_s:
        asked.append((session.ask(time.monotonic()), now))
    while len(asked) > 1 and asked[0][0] < session.proven:
        asked.popleft()
    if asked[0][0] == session.proven:
        run.heard = max(run.heard, asked[0][1])


class WorkerRuns:
    """All runs of other hosts here; `serve` is for a channel of one of them.

    Parameters
    ----------
    me : Hello
        What this agent says of itself.
    hosts : Hosts
        What other hosts may do here.
    context : Context
        Where queues and boards are.
    edges : Edges
        The edges of this host.
    report : callable
        Called with a line of text.
    """

    def __init__(
        self,
        me: Hello,
        hosts: Hosts,
        context: Context,
        edges: Edges,
        report: Report,
    ) -> None:
        self._me, self._hosts, self._context = me, hosts, context
        self._edges, self._report = edges, report
        self._gate = threading.Lock()
        self._runs: dict[tuple[str, str], RunHere] = {}
        self._is_closed = False
        edges.on_fence = self.fence

    def fence(self, run: str, why: str) -> None:
        """End the workers of a run now; from any thread."""
        with self._gate:
            found = [each for each in self._runs.values() if each.run == run]
        for each in found:
            each.end(why)

    def statistics(self) -> list[dict[str, Any]]:
        """Return the numbers of each run, JSON-able."""
        with self._gate:
            return [run.statistics() for run in self._runs.values()]

    def close(self) -> None:
        """End the workers of all runs and remove them."""
        with self._gate:
            self._is_closed = True
            runs = list(self._runs.values())
        for run in runs:
            run.end("the agent ends")
        for run in runs:
            run.thread.join(2 * _KILL_S)

    def serve(self, channel: Channel) -> None:
        """Carry out the orders of another host until its channel ends."""
        talk = Conversation(
            channel, LinkSession(self._me, channel.peer, time.monotonic())
        )
        try:
            waiting = list(talk.greet(DIAL_S))
            run: RunHere | None = None
            asked = deque[tuple[int, float]]()
            while True:
                for message in waiting:
                    if run is None:
                        run = self._attach(talk, message, channel)
                        if run is None:
                            return
                    else:
                        with run.gate:
                            order = run.line.take(message)
                        if order is not None:
                            run.take(order)
                if run is not None:
                    _prove(run, talk.session, asked)
                    run.send_words()
                    with run.gate:
                        due, is_over = run.line.due(), run.is_over
                    talk.send(*due)
                    if is_over and not self._has(run):
                        return
                talk.send()
                talk.receive(TURN_S)
                waiting = list(talk.messages())
        except BadMessage as error:
            talk.refuse(str(error))
        except (ChannelClosed, TimeoutError):
            pass
        finally:
            talk.close()

    def _has(self, run: RunHere) -> bool:
        with self._gate:
            return self._runs.get((run.host, run.run)) is run

    def _attach(
        self, talk: Conversation, message: Any, channel: Channel
    ) -> RunHere | None:
        """Answer the first message: which run it is about, and whether it is here."""
        if not isinstance(message, Ask) or message.what != "attach":
            raise BadMessage("the first message of a run must be 'attach'")
        host, name = channel.peer, channel.name.removeprefix(WORKERS)
        try:
            if "run" not in self._hosts.rights_of(host):
                raise AccessDenied(
                    f"host {host!r} may not run at {self._hosts.me!r}: add it under "
                    f"'may:' of {self._hosts.path} there, and restart the agent"
                )
            with self._gate:
                if self._is_closed:
                    raise HostUnavailable("the agent ends")
                run = self._runs.get((host, name))
                if run is not None and run.is_ending:
                    raise HostUnavailable(f"run {name!r} is being removed here")
                epoch = str(message.arguments.get("epoch", ""))
                if run is None and not epoch:
                    run = self._runs[host, name] = RunHere(
                        name, host, self._hosts, self._context, self._edges,
                        self._gone, self._report,
                    )  # fmt: skip
        except (AtaraxisError, ValueError) as error:
            talk.send(Reply(0, error=f"{type(error).__name__}: {error}"[:4000]))
            return None
        if run is None or (epoch and epoch != run.epoch):
            if run is not None:
                run.end(f"host {host!r} has given it up")
            talk.send(Reply(0, {"epoch": ""}))
            return None
        with run.gate:
            run.line.begin()
        talk.send(Reply(0, {"epoch": run.epoch}))
        return run

    def _gone(self, run: RunHere) -> None:
        with self._gate:
            if self._runs.get((run.host, run.run)) is run:
                del self._runs[run.host, run.run]
