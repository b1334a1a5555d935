"""Agent: the one process of a host that sends and receives streams of its lab."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from ataraxis.clock import boot_id, now_ns
from ataraxis.cluster.checks import RATE_BYTES, checks_here, examine_host
from ataraxis.cluster.control import CONTROL, DIAL_S, HostContact, serve_control
from ataraxis.cluster.door import AgentDoor, AgentLock, DoorVisit
from ataraxis.cluster.edges import EDGE, EdgePlan, Edges
from ataraxis.cluster.programs import HostPrograms
from ataraxis.cluster.status import (
    ENDED,
    LOST,
    HostState,
    MirrorStatistics,
    offset_fields,
)
from ataraxis.cluster.workers import WORKERS, WorkerRuns
from ataraxis.errors import (
    AccessDenied,
    AtaraxisError,
    BadMessage,
    HostUnavailable,
    SegmentExists,
    SourceNotFound,
)
from ataraxis.link.carrier import Carrier, Channel, ChannelClosed, carrier_of
from ataraxis.link.conversation import Conversation
from ataraxis.link.hosts import Hosts
from ataraxis.link.inlet_run import MIRROR, InletRun, MirrorWish
from ataraxis.link.messages import Hello, Want
from ataraxis.link.outlet_run import OpenedOutlet, OutletChannel, OutletRuns
from ataraxis.link.session import SERVED_BEAT_S, LinkSession
from ataraxis.link.spool import MirrorKey
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.doctor import Check
from ataraxis.shm.process import Ending
from ataraxis.shm.thread import Thread
from ataraxis.stream.inspector import Inspector, inspect

STATE = ".agent.json"
"""File of the context with the mirrors that come back when the agent does."""
GRACE_S = 10.0
"""A mirror of a program goes if the program does not return to a new agent in time."""
_ACCEPT_S = 0.5
_TICK_S, _LOOK_S = 1.0, 0.25
_PAGE = 200
_CHANNELS = 512


class MirrorEntry:
    """A mirror here, and what it is needed by."""

    def __init__(self, wish: MirrorWish, run: InletRun) -> None:
        self.wish, self.run = wish, run
        self.is_detached = False
        self.is_standing = False
        self.holds: dict[int, int] = {}
        """Programs that want it, and how many streams had ended before they came."""
        self.until = 0.0
        """Until when a program that was there before may return, monotonic s."""

    @property
    def is_needed(self) -> bool:
        """Whether a program, or the user, still wants it."""
        return bool(
            self.is_detached or self.is_standing or self.holds
            or time.monotonic() < self.until
        )  # fmt: skip

    def statistics(self) -> MirrorStatistics:
        """Return the numbers of `ataraxis hosts`."""
        found, run = self.run.statistics(), self.run
        return MirrorStatistics(
            name=self.wish.name, stream=self.wish.stream, host=self.wish.host,
            state=run.state, since_s=run.since_s, policy=self.wish.policy,
            is_connected=run.is_connected, is_here=run.is_here,
            is_detached=self.is_detached or self.is_standing, frames=found.frames,
            nbytes=found.nbytes, lost=found.lost, repeated=found.repeated,
            reconnects=max(found.links - 1, 0), behind_frames=found.behind,
            behind_s=run.behind_s, spooled_bytes=found.spooled_bytes,
            problem=run.problem, ended_id=run.ended[0] if run.ended else "",
        )  # fmt: skip


class Agent:
    """Serves the streams of a context to other hosts, and mirrors theirs here.

    One agent runs in a context. While it is away nothing is lost: rings here wait for
    it, and readers of mirrors wait. The next agent goes on where it was.

    Parameters
    ----------
    hosts : Hosts, str or Path, optional
        The hosts of the lab, or the path of hosts.yaml; None: as `Hosts.load`.
    context : Context, str, Path or None
        The context.
    carrier : Carrier, optional
        By default the one that `hosts` names.
    say : callable, optional
        Called with a line of text: a host comes or goes, a spool is nearly full.

    Raises
    ------
    SegmentExists
        The context has an agent; the message has its process.
    AccessDenied
        A certificate, a key or the authority is missing or not valid.
    OSError
        The address of this host cannot be listened on.

    Examples
    --------
    >>> with Agent("rig/gpu/hosts.yaml") as agent:  # doctest: +SKIP
    ...     agent.serve()
    """

    def __init__(
        self,
        hosts: Hosts | str | Path | None = None,
        *,
        context: ContextLike = None,
        carrier: Carrier | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._hosts = hosts if isinstance(hosts, Hosts) else Hosts.load(hosts)
        self._context = Context.of(context)
        self._say = say
        self._gate = threading.RLock()
        self._seeing = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._mirrors: dict[str, MirrorEntry] = {}
        self._contacts: dict[str, HostContact] = {}
        self._telling: dict[str, threading.Lock] = {}
        self._untold: set[str] = set()
        self._threads: set[Thread] = set()
        self._channels: set[Channel] = set()
        self._hold_number = 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._programs = HostPrograms(
            self._hosts, self._context, self.report, self._stop
        )
        self._lock: AgentLock | None = AgentLock(self._context)
        self._door: AgentDoor | None = None
        self._outlets: OutletRuns | None = None
        self._edges: Edges | None = None
        self._workers: WorkerRuns | None = None
        self._carrier = carrier
        self._me = Hello(
            self._hosts.lab, self._hosts.me, boot_id() or "unknown", uuid.uuid4().hex
        )
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    # ---- life

    def _start(self) -> None:
        if self._carrier is None:
            self._carrier = carrier_of(self._hosts)
        self._carrier.on_refused = self._refused
        self._carrier.listen(self._hosts.address_of(self._hosts.me))
        spool = self._hosts.spool
        self._outlets = OutletRuns(
            self._context, Path(spool.directory).expanduser(), spool.limit(),
            self.report,
        )  # fmt: skip
        self._edges = Edges(
            self._me, self._carrier, self._hosts.address_of, self._context, self.report
        )
        self._workers = WorkerRuns(
            self._me, self._hosts, self._context, self._edges, self.report
        )
        for host in self._hosts.hosts:
            if host != self._hosts.me:
                self._telling[host] = threading.Lock()
                self._contacts[host] = HostContact(
                    self._me, self._carrier, self._hosts, host, self._context,
                    self.report, self._reached,
                )  # fmt: skip
        self._restore()
        for target, name in ((self._accept, "accept"), (self._look_after, "tick")):
            thread = Thread(target, f"ataraxis-agent-{name}")
            self._threads.add(thread)
            thread.start()
        self._door = AgentDoor(self._context, self._serve)

    def serve(self) -> None:
        """Run until Ctrl-C, SIGTERM or SIGHUP, or until `close`."""
        with Ending(is_last=True) as ending:
            while not ending.first.wait(_TICK_S) and not self._stop.is_set():
                pass

    def close(self) -> None:
        """End all threads and connections. Idempotent.

        Mirrors that are wanted, here or there, stay as after a kill: they go on with
        the next agent. Nothing else is left.
        """
        self._stop.set()
        if self._door is not None:
            self._door.close()
        with self._gate:
            mirrors = list(self._mirrors.values())
            channels, contacts = list(self._channels), list(self._contacts.values())
        for entry in mirrors:
            entry.run.close(is_final=not entry.is_needed)
        self._programs.close()
        if self._workers is not None:
            self._workers.close()
        if self._edges is not None:
            self._edges.close()
        for contact in contacts:
            contact.close()
        for channel in channels:
            channel.close()
        if self._carrier is not None:
            self._carrier.close()
        for thread in list(self._threads):
            thread.join(DIAL_S + 2)
        if self._outlets is not None:
            self._outlets.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Name of this host."""
        return self._hosts.me

    @property
    def address(self) -> str:
        """Where it listens."""
        return "" if self._carrier is None else self._carrier.address

    @property
    def edges(self) -> Edges:
        """The edges that begin or end on this host."""
        assert self._edges is not None
        return self._edges

    def report(self, text: str) -> None:
        """Tell a line of text to the caller of this agent."""
        if self._say is not None:
            self._say(text)

    def _see_revocations(self) -> None:
        """Close the channels of hosts that hosts.yaml has as revoked by now."""
        with self._seeing:
            try:
                found = self._hosts.path.stat()
            except OSError:
                return  # it is being copied, or is not there any more
            version = found.st_mtime_ns, found.st_ino, found.st_size
            if version == self._version:
                return
            self._version = version
            try:
                hosts = self._hosts.renew()
            except (AtaraxisError, OSError, ValueError) as error:
                self.report(f"{self._hosts.path} is not read again: {error}")
                return
        for host in hosts:
            self.report(f"host {host} is revoked: its channels are closed")
            if self._carrier is not None:
                self._carrier.drop(host)

    def _refused(self, address: str, reason: str) -> None:
        self.report(f"refused {address}: {reason}")

    def statistics(self) -> dict[str, Any]:
        """Return hosts, mirrors here, and streams that others mirror, JSON-able."""
        return {
            "hosts": [host.as_dict() for host in self._host_states()],
            "mirrors": [one.as_dict() for one in self._mirror_statistics()],
            "streams": self._served(),
            "edges": self.edges.statistics(),
            "runs": [] if self._workers is None else self._workers.statistics(),
            "programs": self._programs.statistics(),
        }

    # ---- what comes back

    def _restore(self) -> None:
        """Make the mirrors of the agent before, and the standing ones of the file."""
        known: list[dict[str, Any]] = []
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError),
            self._context.opened() as directory,
        ):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(STATE, flags, dir_fd=directory)
            with open(descriptor, encoding="utf-8") as file:
                known = list(json.load(file)["mirrors"])
        standing = [
            MirrorWish(
                one.stream, one.host, one.name or one.stream, one.policy,
                one.on_spool_full, one.acknowledge,
            )
            for one in self._hosts.mirrors
        ]  # fmt: skip
        ended: dict[MirrorWish, tuple[str, int]] = {}
        earlier: list[tuple[MirrorWish, bool]] = []
        for row in known:
            with contextlib.suppress(TypeError, KeyError, ValueError):  # a foreign file
                wish = MirrorWish(**row["wish"])
                if row["ended"] is not None:
                    ended[wish] = str(row["ended"][0]), int(row["ended"][1])
                if not row["is_standing"]:
                    earlier.append((wish, bool(row["is_detached"])))
        for wish in standing:
            try:
                entry = self._entry(wish, is_restored=True, ended=ended.get(wish))
                entry.is_standing = True
            except (AtaraxisError, ValueError) as error:
                self.report(f"mirror {wish.name}: {error}")
        for wish, is_detached in earlier:
            try:
                entry = self._entry(wish, is_restored=True, ended=ended.get(wish))
            except (AtaraxisError, ValueError):
                continue  # its host is not in the file any more
            entry.is_detached = entry.is_detached or is_detached
            entry.until = time.monotonic() + GRACE_S
        self._save()
        with self._gate:
            # Once: what an agent before had is forgotten there, also after a reboot.
            self._untold.update(self._contacts)
        for contact in self._contacts.values():
            contact.call()

    def _save(self) -> None:
        """Write which mirrors come back; no file without any."""
        with self._gate, self._context.opened() as directory:
            rows = [
                {
                    "wish": dataclasses.asdict(e.wish), "is_detached": e.is_detached,
                    "is_standing": e.is_standing, "ended": e.run.ended,
                }
                for e in self._mirrors.values()
                if not e.is_standing or e.run.ended is not None
            ]  # fmt: skip
            if not rows:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(STATE, dir_fd=directory)
                return
            new = f"{STATE}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(new, flags, 0o600, dir_fd=directory)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump({"mirrors": rows}, file)
            os.rename(new, STATE, src_dir_fd=directory, dst_dir_fd=directory)

    # ---- mirrors here

    def _entry(
        self,
        wish: MirrorWish,
        *,
        is_restored: bool = False,
        ended: tuple[str, int] | None = None,
    ) -> MirrorEntry:
        """Return the mirror of a name; make it if there is none."""
        assert self._carrier is not None
        checked_name(wish.name)
        if wish.host == self._hosts.me:
            raise ValueError(f"{wish.host!r} is this host: its streams are here")
        address = self._hosts.address_of(wish.host)
        # Not while the other host is told which mirrors there are.
        with self._telling[wish.host], self._gate:
            entry = self._mirrors.get(wish.name)
            if entry is not None and entry.run.state != LOST:
                if entry.wish != dataclasses.replace(wish, hold=entry.wish.hold):
                    raise SegmentExists(
                        f"{wish.name!r} is a mirror of {entry.wish.host}:"
                        f"{entry.wish.stream} ({entry.wish.policy}) already: use "
                        "another name, or the same options"
                    )
                return entry
            if self._stop.is_set():
                raise HostUnavailable("the agent ends")
            if entry is not None:
                entry.run.close(is_final=True)
            self._refuse_taken(wish.name)
            run = InletRun(
                wish, self._me, self._carrier, address, self._context, self.report,
                on_end=self._save, is_restored=is_restored, ended=ended,
            )  # fmt: skip
            entry = self._mirrors[wish.name] = MirrorEntry(wish, run)
            self._contacts[wish.host].hold()
            return entry

    def _refuse_taken(self, name: str) -> None:
        """Raise `SegmentExists` if a program here sends a stream of the name."""
        try:
            producers = Inspector(name, self._context).statistics().producers
        except (AtaraxisError, OSError):
            return
        if producers:
            raise SegmentExists(
                f"a program here sends stream {name!r}: give the mirror another name"
            )

    def _drop(self, name: str) -> None:
        """End a mirror and its stream here."""
        with self._gate:
            entry = self._mirrors.pop(name, None)
            if entry is None:
                return
            self._untold.add(entry.wish.host)
        entry.run.close(is_final=True)
        self._save()
        contact = self._contacts[entry.wish.host]
        contact.let_go()
        contact.call()
        if contact.is_connected:
            thread = Thread(self._tell, f"ataraxis-tell-{contact.host}", (contact,))
            thread.start()

    def _reached(self, contact: HostContact) -> None:
        if contact.host in self._untold:
            self._tell(contact)

    def _tell(self, contact: HostContact) -> None:
        """Tell a host which mirrors of its streams are here; it forgets the others."""
        with self._telling[contact.host]:
            with self._gate:
                names = [
                    e.wish.name
                    for e in self._mirrors.values()
                    if e.wish.host == contact.host
                ]
            try:
                contact.ask("mirrors", DIAL_S, names=names)
            except (AtaraxisError, OSError):
                return  # told when it is reached the next time
            with self._gate:
                self._untold.discard(contact.host)

    def _look_after(self) -> None:
        """Keep the next streams of mirrors; drop what is not needed, once a second."""
        tick_at = time.monotonic()
        while not self._stop.wait(_LOOK_S):
            self._see_revocations()
            if self._outlets is not None:
                self._outlets.look()
            if time.monotonic() - tick_at < _TICK_S:
                continue
            tick_at = time.monotonic()
            self._programs.look()
            with self._gate:
                over = [n for n, e in self._mirrors.items() if not e.is_needed]
            for name in over:
                self._drop(name)
            if self._outlets is not None:
                self._outlets.sweep()
            for contact in self._contacts.values():
                if contact.host in self._untold:
                    contact.call()

    # ---- other hosts

    def _accept(self) -> None:
        assert self._carrier is not None
        while not self._stop.is_set():
            try:
                channel = self._carrier.accept(_ACCEPT_S)
            except (AtaraxisError, OSError) as error:
                self.report(f"a connection was not accepted: {error}")
                self._stop.wait(_ACCEPT_S)
                continue
            if channel is None:
                continue
            self._see_revocations()
            name = f"ataraxis-from-{channel.peer}"
            thread = Thread(self._meet, name, (channel,))
            with self._gate:
                is_full = len(self._channels) >= _CHANNELS
                if not is_full:
                    self._channels.add(channel)
                    self._threads.add(thread)
            if is_full:
                self.report(f"refused {channel.peer}: {_CHANNELS} channels are open")
                channel.close()
                continue
            thread.start()

    def _meet(self, channel: Channel) -> None:
        """Serve a channel that another host has dialled; its thread."""
        try:
            if channel.name == CONTROL:
                serve_control(channel, self._me, self._answer)
            elif channel.name.startswith(MIRROR):
                self._serve_mirror(channel)
            elif channel.name.startswith(EDGE):
                self.edges.serve(channel)
            elif channel.name.startswith(WORKERS) and self._workers is not None:
                self._workers.serve(channel)
            else:
                self.report(f"refused {channel.peer}: it asks for {channel.name!r}")
        except (ChannelClosed, TimeoutError):
            pass
        except (AtaraxisError, OSError, ValueError) as error:
            self.report(f"host {channel.peer}, {channel.name}: {error}")
        finally:
            channel.close()
            with self._gate:
                self._channels.discard(channel)
                self._threads = {t for t in self._threads if not t.is_current}

    def _serve_mirror(self, channel: Channel) -> None:
        assert self._outlets is not None
        session = LinkSession(
            self._me, channel.peer, time.monotonic(), beat_s=SERVED_BEAT_S
        )
        talk = Conversation(channel, session)
        try:
            early = talk.greet(DIAL_S)
        except BadMessage as error:
            talk.refuse(str(error))
            raise
        OutletChannel(talk, self._open_run, self._outlets.forget).run(early)

    def _open_run(self, key: MirrorKey, want: Want) -> OpenedOutlet | None:
        assert self._outlets is not None
        self._check_right(key.host, "read")
        return self._outlets.open(key, want)

    def _check_right(self, host: str, right: str) -> None:
        if right not in self._hosts.rights_of(host):
            raise AccessDenied(
                f"host {host!r} may not {right} at {self._hosts.me!r}: add it under "
                f"'may:' of {self._hosts.path} there, and restart the agent"
            )

    def _answer(
        self, host: str, what: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Answer a question of another host."""
        assert self._outlets is not None
        match what:
            case "mirrors":
                names = {str(name) for name in arguments["names"]}
                for run in self._outlets.runs:
                    for key in run.outlet.mirrors:
                        if key.host == host and key.mirror not in names:
                            self._outlets.forget(key)
                return {}
            case "streams":
                self._check_right(host, "read")
                return self._streams(str(arguments.get("after", "")))
            case "examine":
                self._check_right(host, "read")
                found = checks_here(host, self._hosts, self._outlets.runs)
                return {"checks": [check.as_dict() for check in found]}
            case "program":
                return self._programs.answer(host, arguments)
            case "rate":
                return {"bytes": "x" * RATE_BYTES}
        raise ValueError(f"{what!r} is not known here: update ataraxis")

    def _streams(self, after: str) -> dict[str, Any]:
        """Return a page of the streams here, by name."""
        rows: list[dict[str, Any]] = []
        for listed in inspect(self._context):
            if listed.kind != "stream" or listed.problem or listed.name <= after:
                continue
            if len(rows) == _PAGE:
                return {"streams": rows, "more": True}
            found = listed.content
            rows.append(
                {
                    "name": listed.name, "dtype": str(listed.dtype),
                    "shape": list(listed.shape), "slots": found.buffer_count,
                    "sent": found.sent, "sent_bytes": found.sent_bytes,
                    "is_ended": found.is_ended,
                }
            )  # fmt: skip
        return {"streams": rows, "more": False}

    def _served(self) -> list[dict[str, Any]]:
        """Return the streams here that others mirror."""
        if self._outlets is None:
            return []
        rows = []
        for run in self._outlets.runs:
            for key, found in run.statistics().items():
                rows.append(
                    {
                        "stream": run.stream, "stream_id": run.stream_id,
                        "host": key.host, "mirror": key.mirror,
                        "spool_bytes": run.spooled_bytes, "problem": run.problem,
                        **dataclasses.asdict(found),
                    }
                )  # fmt: skip
        return rows

    # ---- programs of this host

    def _serve(self, asked: dict[str, Any], visit: DoorVisit) -> Any:
        """Answer a program here; see `AgentClient`."""
        match asked["do"]:
            case "mirror":
                return self._mirror_for(asked, visit)
            case "release":
                return self._release(int(asked["hold"]))
            case "drop":
                self._found(asked)
                return self._drop(str(asked["name"]))
            case "wait":
                return self._wait(asked, visit)
            case "mirrors":
                return [one.as_dict() for one in self._mirror_statistics()]
            case "hosts":
                return [host.as_dict() for host in self._host_states()]
            case "statistics":
                return self.statistics()
            case "offset":
                return self._offset(str(asked["host"]))
            case "streams":
                return self._list(str(asked["host"]))
            case "examine":
                found = self._examine(str(asked["host"]))
                return [check.as_dict() for check in found]
            case "forget":
                return self._forget(str(asked["host"]))
            case "program":
                contact = self.contact(str(asked["host"]))
                return self._programs.forward(contact, asked, visit)
            case "keeper":
                return self._programs.take(asked, visit)
            case "edges":
                return self._join_edges(asked, visit)
            case "edges lost":
                gone = (str(asked[key]) for key in ("host", "run", "generation"))
                self.edges.lost(*gone)
                return None
            case "edges finish":
                return self.edges.finish(str(asked["run"]), str(asked["name"]))
            case "edges release":
                return self.edges.release(str(asked["run"]))
        raise BadMessage(f"the agent does not know {asked['do']!r}: update ataraxis")

    def _mirror_for(self, asked: dict[str, Any], visit: DoorVisit) -> dict[str, Any]:
        wish = MirrorWish(
            **{f.name: asked[f.name] for f in dataclasses.fields(MirrorWish)}
        )
        entry = self._entry(wish)
        with self._gate:
            self._hold_number += 1
            hold = self._hold_number
            if asked.get("detached"):
                entry.is_detached = True
            # A program that was there before this agent began has not seen an end yet.
            entry.holds[hold] = 0 if asked.get("again") else entry.run.ends
        visit.at_end.append(lambda: self._release(hold))
        self._save()
        return {"name": wish.name, "hold": hold}

    def _join_edges(self, asked: dict[str, Any], visit: DoorVisit) -> None:
        """Join edges of a run of a program here; they end with its connection."""
        run = str(asked["run"])
        for fields in asked["plans"]:
            self.edges.connect(EdgePlan.from_dict(fields))
        visit.at_end.append(lambda: self.edges.release(run))

    def _release(self, hold: int) -> None:
        """A program does not need its mirror any more."""
        if self._stop.is_set():
            return
        with self._gate:
            held = [e for e in self._mirrors.values() if hold in e.holds]
            for entry in held:
                entry.holds.pop(hold, None)
                entry.until = 0.0
            over = [e.wish.name for e in held if not e.is_needed]
        for name in over:
            self._drop(name)

    def _found(self, asked: dict[str, Any]) -> MirrorEntry:
        name = str(asked["name"])
        with self._gate:
            entry = self._mirrors.get(name)
            names = ", ".join(sorted(self._mirrors)) or "none"
        if entry is None:
            raise SourceNotFound(f"{name!r} is not a mirror here; mirrors: {names}")
        return entry

    def _wait(self, asked: dict[str, Any], visit: DoorVisit) -> dict[str, Any]:
        """Wait until a mirror is here, or has ended; or for some time."""
        entry, until = self._found(asked), str(asked["until"])
        ends = entry.holds.get(int(asked["hold"]), 0)
        left = min(max(float(asked["wait"]), 0.0), 30.0)
        deadline = time.monotonic() + left

        def is_done(run: InletRun) -> bool:
            if until == "now" or run.state == LOST or run.ends > ends:
                return True
            return until == "here" and run.is_here

        while not entry.run.wait(is_done, min(max(left, 0), 0.5)):
            left = deadline - time.monotonic()
            if left <= 0 or visit.is_gone() or self._stop.is_set():
                break
        found = entry.statistics().as_dict()
        if entry.run.ends > ends:
            found["is_here"] = True  # it was
            if until == "end":
                found["state"] = ENDED
        return found

    def contact(self, host: str) -> HostContact:
        """Return the control channel to another host."""
        self._hosts.address_of(host)
        if host == self._hosts.me:
            raise ValueError(f"{host!r} is this host")
        return self._contacts[host]

    def _offset(self, host: str) -> dict[str, Any]:
        contact = self.contact(host)
        found = contact.offset()
        if found is None:
            raise HostUnavailable(f"the clock of host {host!r} was not measured yet")
        return {**offset_fields(found), "round_trip_ns": contact.round_trip_ns}

    def _list(self, host: str) -> list[dict[str, Any]]:
        contact, rows, after = self.contact(host), list[dict[str, Any]](), ""
        while True:
            page = contact.ask("streams", 10.0, after=after)
            rows += page["streams"]
            if not page["more"] or not page["streams"] or len(rows) > 10_000:
                return rows
            after = str(rows[-1]["name"])

    def _forget(self, host: str) -> None:
        """Keep nothing for the mirrors of a host any more."""
        self._hosts.address_of(host)
        if self._outlets is None:
            return
        for run in self._outlets.runs:
            for key in run.outlet.mirrors:
                if key.host == host:
                    self._outlets.forget(key)

    def _mirror_statistics(self) -> list[MirrorStatistics]:
        with self._gate:
            entries = list(self._mirrors.values())
        return [entry.statistics() for entry in entries]

    def _host_states(self) -> list[HostState]:
        now, mirrors = time.monotonic(), self._mirror_statistics()
        served, local = self._served(), now_ns()
        spools = {one["stream_id"]: one["spool_bytes"] for one in served}
        states = [
            HostState(
                self._hosts.me, self.address, "here", now - self._began,
                served=len(served), spooled_bytes=sum(spools.values()),
            )
        ]  # fmt: skip
        for name, contact in self._contacts.items():
            offset = contact.offset()
            here = [one for one in mirrors if one.host == name]
            there = [one for one in served if one["host"] == name]
            problems = [contact.problem, *(one["problem"] for one in there)]
            states.append(
                HostState(
                    name, contact.address, contact.state, now - contact.since,
                    None if offset is None else offset.to_remote_ns(local) - local,
                    None if offset is None else offset.bound_at(local),
                    None if offset is None else offset.drift * 1e9,
                    len(here), len(there), sum(one.behind_frames for one in here),
                    sum(one["spooled_bytes"] for one in there),
                    "; ".join(dict.fromkeys(filter(None, problems))),
                    contact.round_trip_ns, sum(one.lost for one in here),
                )
            )  # fmt: skip
        return states

    def _examine(self, host: str) -> list[Check]:
        """Check the way to a host, for ``ataraxis doctor HOST``."""
        mirrors = [one for one in self._mirror_statistics() if one.host == host]
        return examine_host(self.contact(host), self._hosts, mirrors)
