"""Programs that run here for the rig of another host: its sources and recorders.

The agent starts a *keeper* for each program, a process of its own, and is then only the
way to it: the other host asks the agent (`HostPrograms.answer`), the keeper asks it,
too, as any program of this host does (`HostPrograms.take`). Every question may be asked
again. So an agent that is killed stops no camera: its successor hears of the keeper
from the keeper. One that is not asked for within its lease ends its program.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ataraxis import errors
from ataraxis.cluster.control import HostContact
from ataraxis.cluster.door import DoorVisit
from ataraxis.datamux.catalog import Catalog
from ataraxis.datamux.registry import NODE_FILES, kinds
from ataraxis.datamux.streaminghub.dfds import read_node
from ataraxis.datamux.streaminghub.util import Settings
from ataraxis.errors import AccessDenied, AtaraxisError, HostUnavailable, SourceNotFound
from ataraxis.link.hosts import Hosts
from ataraxis.shm.context import Context, checked_name
from ataraxis.shm.process import (
    ChildProcess,
    ProcessIdentity,
    ProcessOutput,
    process_command,
    spawn,
)
from ataraxis.shm.thread import Thread
from ataraxis.stream.inspector import Inspector

SOURCE, COMMAND, RECORDER = "source", "command", "recorder"
"""Kinds of programs: a node's stream, a user's module, a recorder of streams here."""
GO, END, HURRY, FORGET = "go", "end", "hurry", "forget"
ORDERS = frozenset((GO, END, HURRY, FORGET))
"""What a keeper is told: to send, to end, to end at once, to exit once it has ended."""
LEAST_LEASE_S, MOST_LEASE_S = 1.0, 24 * 3600.0
ASK_S = 5.0
_KEEPER = "ataraxis.session.keeper:main"
_MOST, _MOST_BYTES = 256, 30_000
_QUIET_S = 10.0
_CLOSE_S, _PAUSE_S = 2.0, 0.05
_ORPHAN_S, _AGAIN_S, _RETURN_S = 600.0, 1.0, 3.0
_ID = re.compile(r"[A-Za-z0-9_.-]{1,120}")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

Report = Callable[[str], object]


class KeptProgram:
    """A program here, as its keeper has told of it; used under `HostPrograms`' lock."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.child: ChildProcess | None = None
        """Its keeper, if this agent started it."""
        self.errors: ProcessOutput | None = None
        self.began = self.told = time.monotonic()
        self.heard: float | None = None
        """When the other host asked last, monotonic s; None: not yet, of this agent."""
        self.have = 0
        """Number of the last event that the other host has."""
        self.orders: set[str] = set()
        self.state: dict[str, Any] | None = None
        """What the keeper told last."""
        self.events: list[Any] = []
        self.keeper: ProcessIdentity | None = None

    def problem(self) -> str:
        """Return why its keeper does not run; '' if it does, or starts."""
        code = None if self.child is None else self.child.poll()
        if self.keeper is None:
            if code is None and time.monotonic() - self.began < _QUIET_S * 6:
                return ""
            lines = [] if self.errors is None else self.errors.last_lines()
            return f"its keeper did not start: {' '.join(lines) or code}"
        if code is None and self.keeper.is_alive():
            return ""
        return "its keeper was killed"


class HostPrograms:
    """The programs of this host that other hosts have started.

    Parameters
    ----------
    hosts : Hosts
        What other hosts may do here.
    context : Context
        Where the programs' streams are.
    report : callable
        Called with a line of text.
    over : Event
        Set once the agent ends: rigs that lose their connection then go on.
    """

    def __init__(
        self, hosts: Hosts, context: Context, report: Report, over: threading.Event
    ) -> None:
        self._hosts, self._context, self._report = hosts, context, report
        self._gate = threading.Lock()
        self._kept: dict[str, KeptProgram] = {}
        self._children: list[ChildProcess] = []
        self._asked: dict[DoorVisit, dict[str, HostContact]] = {}
        self._threads: set[Thread] = set()
        self._over = over

    # ---- asked by another host

    def answer(self, host: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Answer a question of another host; a refusal is part of the answer."""
        try:
            if "run" not in self._hosts.rights_of(host):
                raise AccessDenied(
                    f"host {host!r} may not run at {self._hosts.me!r}: add it under "
                    f"'may:' of {self._hosts.path} there, and restart the agent"
                )
            match arguments["do"]:
                case "check":
                    return self._check(arguments["kind"], arguments["options"])
                case "start":
                    return self._start(host, arguments)
                case "look":
                    return self._look(host, arguments)
            raise ValueError(f"{arguments['do']!r} is not known here: update ataraxis")
        except (AtaraxisError, OSError, ValueError, KeyError, TypeError) as error:
            return {"refused": [type(error).__name__, str(error)[:4000]]}

    def _check(self, kind: str, options: dict[str, Any]) -> dict[str, Any]:
        """Raise unless a program may run here; return what is known of its disk."""
        name = checked_name(str(options["name"]))
        if kind == SOURCE:
            self._check_module(driver_module(str(options["node"])), f"source {name!r}")
        elif kind == COMMAND:
            module = str(options["module"])
            if not _MODULE.fullmatch(module):
                raise ValueError(f"{module!r:.80} is not the name of a module")
            self._check_module(module, f"source {name!r}")
        elif kind == RECORDER:
            for stream in options["streams"]:
                checked_name(str(stream))
            place = self._sessions()
            return {"free": shutil.disk_usage(place).free, "path": str(place)}
        else:
            raise ValueError(f"{kind!r:.40} is not a kind of program: update ataraxis")
        return {"free": None, "path": ""}

    def _sessions(self) -> Path:
        if not self._hosts.sessions:
            raise AccessDenied(
                f"host {self._hosts.me!r} records nothing for other hosts: name the "
                f"directory as 'sessions:' in {self._hosts.path} there, and restart "
                "the agent"
            )
        place = Path(self._hosts.sessions).expanduser()
        if not place.is_dir():
            raise FileNotFoundError(
                2,
                f"'sessions:' of {self._hosts.path} at host {self._hosts.me!r} is not "
                "a directory: make it, or mount its disk",
                str(place),
            )
        return place

    def _check_module(self, module: str, what: str) -> None:
        if why := self._hosts.module_refusal(module):
            raise AccessDenied(f"{what} is of module {module!r}, which is {why}")

    def _start(self, host: str, arguments: dict[str, Any]) -> dict[str, Any]:
        name, kind = str(arguments["id"]), str(arguments["kind"])
        options, lease_s = dict(arguments["options"]), float(arguments["lease_s"])
        if not _ID.fullmatch(name):
            raise ValueError(f"{name!r:.80} is not the id of a program")
        if not LEAST_LEASE_S <= lease_s <= MOST_LEASE_S:
            raise ValueError(
                f"away_s must be {LEAST_LEASE_S:g} to {MOST_LEASE_S:g} s, got {lease_s}"
            )
        found = self._check(kind, options)
        found["stream_id"] = self._stream_id(str(options["name"]))
        if kind == RECORDER:
            options["directory"] = str(self._sessions().absolute())
        about = {
            "id": name, "host": host, "kind": kind, "options": options,
            "lease_s": lease_s, "context": str(self._context.path),
        }  # fmt: skip
        with self._gate:
            if self._over.is_set():
                raise HostUnavailable("the agent ends")
            if name in self._kept:
                return found
            if len(self._kept) >= _MOST:
                raise AccessDenied(f"{_MOST} programs of other hosts run here already")
            kept = KeptProgram(host)
            kept.errors = ProcessOutput()
            # Not of the agent's session: what ends the agent's terminal ends no camera.
            kept.child = spawn(
                process_command(_KEEPER, json.dumps(about)), stderr=kept.errors,
                stdout=kept.errors, process_group=None, start_new_session=True,
            )  # fmt: skip
            kept.heard = time.monotonic()
            self._kept[name] = kept
            self._children.append(kept.child)
        self._report(f"host {host} has started {kind} {options['name']!r} here")
        return found

    def _look(self, host: str, arguments: dict[str, Any]) -> dict[str, Any]:
        name, have = str(arguments["id"]), int(arguments["have"])
        with self._gate:
            kept = self._kept.get(name)
            if kept is None or kept.host != host:
                return {"is_known": False}
            kept.heard = time.monotonic()
            kept.have = max(kept.have, have)
            kept.orders |= ORDERS & set(arguments["orders"])
            problem = kept.problem()
            found = {
                "is_known": True, "state": kept.state, "problem": problem,
                "events": [one for one in kept.events if one[0] > have],
            }  # fmt: skip
            if FORGET in kept.orders and (
                problem or (kept.state is not None and kept.state["is_over"])
            ):
                found["is_forgotten"] = True
                if problem:  # a keeper that lives forgets itself
                    del self._kept[name]
        stream = str(arguments.get("stream", ""))
        if stream:
            found["stream_id"] = self._stream_id(stream)
        return found

    def _stream_id(self, stream: str) -> str:
        """Return the id of a stream here; '' without it."""
        try:
            return Inspector(checked_name(stream), self._context).stream_id()
        except (AtaraxisError, OSError, ValueError):
            return ""

    # ---- asked by a keeper here

    def take(self, asked: dict[str, Any], visit: DoorVisit) -> dict[str, Any]:
        """Take what a keeper tells of its program, and tell it what is ordered."""
        name, host = str(asked["id"]), str(asked["host"])
        now = time.monotonic()
        with self._gate:
            kept = self._kept.get(name)
            if kept is None:  # of an agent before
                kept = self._kept[name] = KeptProgram(host)
            if kept.keeper is None or kept.keeper.pid != visit.pid:
                kept.keeper = ProcessIdentity.of(visit.pid)
            kept.state, kept.events = dict(asked["state"]), list(asked["events"])
            kept.told = now
            if "run" not in self._hosts.rights_of(kept.host):
                kept.orders.add(END)
            heard = None if kept.heard is None else now - kept.heard
            orders = sorted(kept.orders)
            if kept.state["is_over"] and FORGET in kept.orders:
                del self._kept[name]
            return {"have": kept.have, "orders": orders, "heard_s": heard}

    # ---- asked by a program of this host, about another one

    def forward(
        self, contact: HostContact, asked: dict[str, Any], visit: DoorVisit
    ) -> dict[str, Any]:
        """Ask another host, for a rig of this host; what it started ends with `visit`.

        Raises
        ------
        HostUnavailable
            It does not answer.
        AtaraxisError
            It has refused.
        """
        arguments = dict(asked["ask"])
        name = str(arguments.get("id", ""))
        with self._gate:
            if visit not in self._asked:
                self._asked[visit] = {}
                visit.at_end.append(lambda: self._end_all(visit))
            if name:
                self._asked[visit][name] = contact
        found = contact.ask("program", ASK_S, **arguments)
        if "refused" in found:
            raise _raised(*found["refused"])
        if found.get("is_forgotten") or found.get("is_known") is False:
            with self._gate:
                self._asked[visit].pop(name, None)
        return found

    def _end_all(self, visit: DoorVisit) -> None:
        """A rig of this host has gone: end what it has started on others."""
        with self._gate:
            left = self._asked.pop(visit, {})
            if not left or self._over.is_set():
                return  # the rig goes on with the next agent
            thread = Thread(self._end_others, "ataraxis-orphans", (left,))
            self._threads = {t for t in self._threads if t.is_alive()} | {thread}
        thread.start()

    def _end_others(self, left: dict[str, HostContact]) -> None:
        deadline = time.monotonic() + _ORPHAN_S
        if self._over.wait(_RETURN_S):
            return
        with self._gate:  # one that lives has come back by another connection
            back = {name for asked in self._asked.values() for name in asked}
        for name in back & left.keys():
            del left[name]
        while left and time.monotonic() < deadline:
            for name, contact in list(left.items()):
                if self._over.is_set():
                    return
                ask = {"do": "look", "id": name, "have": 0, "orders": [END, FORGET]}
                try:
                    found = contact.ask("program", ASK_S, **ask)
                except (AtaraxisError, OSError):
                    continue  # its lease ends it, if this host is not reached
                if not found.get("is_known") or found.get("is_forgotten"):
                    del left[name]
            if left and self._over.wait(_AGAIN_S):
                return

    # ---- life

    def statistics(self) -> list[dict[str, Any]]:
        """Return what runs here for other hosts, JSON-able."""
        with self._gate:
            return [
                {"id": name, "host": kept.host, "state": kept.state}
                for name, kept in self._kept.items()
            ]

    def look(self) -> None:
        """Reap keepers that have ended, and forget them after a while."""
        now = time.monotonic()
        with self._gate:
            self._children = [c for c in self._children if c.poll() is None]
            for name, kept in list(self._kept.items()):
                asked = max(kept.heard or 0.0, kept.told)
                if kept.problem() and now - asked > _ORPHAN_S:
                    del self._kept[name]

    def close(self) -> None:
        """Leave the keepers to the next agent; end the threads. `over` is set."""
        with self._gate:
            threads = list(self._threads)
            has_left = any(FORGET not in kept.orders for kept in self._kept.values())
        for thread in threads:
            thread.join(2 * ASK_S)
        deadline = time.monotonic() + (_PAUSE_S if has_left else _CLOSE_S)
        while self._children and time.monotonic() < deadline:
            self.look()
            time.sleep(_PAUSE_S)


def driver_module(node: str) -> str:
    """Return the module of the driver of a node of this host; nothing is imported.

    Raises
    ------
    ValueError
        It names a file.
    SourceNotFound
        It is neither a kind of source, nor a URI, nor a node of the catalog here.

    Examples
    --------
    >>> driver_module("sim"), driver_module("serial:///dev/ttyUSB0")
    ('ataraxis.datamux.sources.sim', 'ataraxis.datamux.sources.serial')
    """
    if node.endswith(NODE_FILES):
        raise ValueError(
            f"node {node!r} is a file: put it into the catalog of the host that runs "
            "it, and give its id"
        )
    kind = urlsplit(node).scheme if "://" in node else node
    known = kinds()
    if kind not in known:
        file = Catalog(Settings.load()).node_file(node)
        if file is None:
            raise SourceNotFound(
                f"node {node!r} is neither a kind of source ({', '.join(known)}), nor "
                "a URI, nor a node of the catalog of the host that runs it"
            )
        kind = urlsplit(read_node(file).uri or "").scheme
        if kind not in known:
            raise SourceNotFound(f"{file} has no uri of a kind of source")
    return known[kind].home.partition(":")[0]


def _raised(kind: str, text: str) -> Exception:
    """Return the exception that another host has named."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, AtaraxisError):
        return found(text)
    return errors.RemoteError(text if kind == "ValueError" else f"{kind}: {text}")
