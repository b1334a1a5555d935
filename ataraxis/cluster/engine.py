"""Cluster: an engine of pipes whose workers run on the hosts of a lab."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ataraxis import errors
from ataraxis.clock import boot_id, boottime, now_ns
from ataraxis.cluster.board_words import BoardWords, write_words
from ataraxis.cluster.control import DIAL_S
from ataraxis.cluster.dispatch import Dispatch, DispatchLine
from ataraxis.cluster.door import AgentClient
from ataraxis.cluster.edges import EdgePlan
from ataraxis.cluster.status import HostState, host_states
from ataraxis.cluster.workers import LEAST_LEASE_S, MOST_LEASE_S, TURN_S, WORKERS
from ataraxis.errors import AtaraxisError, BadMessage, HostUnavailable
from ataraxis.link.carrier import Carrier, carrier_of
from ataraxis.link.conversation import Conversation
from ataraxis.link.hosts import Hosts
from ataraxis.link.messages import Ask, Hello, Reply
from ataraxis.link.session import Backoff, LinkSession
from ataraxis.pipeline.board import StatusBoard
from ataraxis.pipeline.dead_letters import DeadLetterStore
from ataraxis.pipeline.engine import Local, Start, WorkerEvent
from ataraxis.pipeline.placement import Host
from ataraxis.pipeline.plan import Plan
from ataraxis.pipeline.spec import WorkerSpec
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.thread import Thread

GRACE_S = 2.0
"""After the lease of a silent host, until its workers are taken for ended, s."""
_PREPARE_S = 15.0
_RELEASE_S = 3.0
_PLANS = 50


@dataclass(eq=False)
class RemoteWorker:
    """A worker on another host: the handle of `Cluster.spawn`."""

    host: str
    number: int
    spec: WorkerSpec


class RunContact:
    """A run's channel to the agent of another host, dialled again while it lasts.

    Parameters
    ----------
    cluster : Cluster
        Takes the events.
    host : str
        The other host.
    plan : Plan
        The run.
    board : StatusBoard
        Its board here.
    """

    def __init__(
        self, cluster: Cluster, host: str, plan: Plan, board: StatusBoard
    ) -> None:
        self.host = host
        self._cluster, self._plan, self._board = cluster, plan, board
        self._words = BoardWords(board)
        self._credit = SharedMemoryArray.attach(plan.credit, context=plan.context)
        self._letters: DeadLetterStore | None = None
        self._gate = threading.Lock()
        self._line = DispatchLine()
        self._epoch = self._generation = ""
        self.workers: dict[int, RemoteWorker] = {}
        self._idle: dict[str, bool] = {}
        self.is_ready = False
        """Whether the run is prepared there, and the channel lives."""
        self.refusal: Exception | None = None
        """What the other host has answered to the run as a whole."""
        self.problem = "it was not reached yet"
        self._silent_since: float | None = None
        self._is_closed = False
        self._is_gone = threading.Event()
        self._wake = threading.Event()
        self.changed = threading.Event()
        self.thread = Thread(self._run, f"ataraxis-workers-{host}")
        self.thread.start()

    # ---- for the supervisor

    def order(self, what: str, /, **fields: Any) -> None:
        """Send an order; carried out once, also if the channel breaks."""
        with self._gate:
            self._line.put(what, **fields)

    def spawn(self, number: int, spec: WorkerSpec) -> RemoteWorker:
        """Order a worker; what is wrong with it is told as its exit."""
        with self._gate:
            if not self.is_ready:
                raise HostUnavailable(f"host {self.host!r}: {self.problem}")
            worker = self.workers[number] = RemoteWorker(self.host, number, spec)
            # Before it: marks of values that have killed workers.
            changed = self._words.changed()
            if spec.is_resumed:
                changed += self._words.lanes_of(spec.index)
            if changed:
                self._line.put("words", words=changed)
            self._line.put("spawn", worker=number, spec=spec.to_bytes().decode())
        return worker

    def is_idle(self, name: str) -> bool:
        """Return whether a queue there has no value left, as far as was told."""
        with self._gate:
            if name not in self._idle:
                self._idle[name] = False
                self._line.put("idle", name=name)
            return self._idle[name]

    def connect(self) -> None:
        """Tell the other host of its edges again, and of what is written here."""
        with self._gate:
            self._set_words()
            if self.is_ready:
                self._line.put("connect", plans=self._plans())

    def release(self) -> None:
        """Let the other host remove the run."""
        if self._epoch and self._silent_since is None:
            self.order("release")
            self._is_gone.wait(_RELEASE_S)

    def close(self) -> None:
        """End the channel and its thread."""
        self._is_closed = True
        self._wake.set()
        self.thread.join(DIAL_S + 2)
        self._credit.disconnect()
        if self._letters is not None:
            self._letters.close()

    # ---- the thread

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_closed:
            try:
                self._talk_once(backoff)
            except (AtaraxisError, OSError, ValueError, KeyError, TypeError) as error:
                self.problem = str(error)
                if isinstance(error, errors.AccessDenied):
                    self._refuse(error)
            self._disconnected()
            if self._is_closed or self.refusal is not None:
                break
            now = time.monotonic()
            self._wake.wait(backoff.failed(now) - now)
        self._is_gone.set()

    def _refuse(self, error: Exception) -> None:
        self.refusal = error
        self.changed.set()
        self._forget(str(error))

    def _disconnected(self) -> None:
        """Note that the other host is silent; give its workers up after the lease."""
        now = boottime()
        if self.is_ready:
            self.is_ready = False
            self._tell_all("lost", f"host {self.host!r}: {self.problem}")
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since >= self._cluster.lease_s + GRACE_S and self._epoch:
            silent = now - self._silent_since
            # One that was frozen, and lives, ends the run when it hears this name.
            self._epoch = f"given up {uuid.uuid4().hex}"
            self._forget(
                f"its host {self.host!r} was silent for {silent:.1f} s: {self.problem}"
            )

    def _forget(self, why: str) -> None:
        """All workers there are gone: take back what they had, then tell of them."""
        if not self.workers:
            return
        self._cluster.take_back(self.host, self._generation)
        with self._gate:
            workers, self.workers = list(self.workers.values()), {}
        for worker in workers:
            self._cluster.tell(WorkerEvent(worker, "exit", why))

    def _tell_all(self, what: Any, text: str) -> None:
        for worker in list(self.workers.values()):
            self._cluster.tell(WorkerEvent(worker, what, text))

    def _talk_once(self, backoff: Backoff) -> None:
        cluster = self._cluster
        address = cluster.lab.address_of(self.host)
        name = f"{WORKERS}{self._plan.run}"
        channel = cluster.carrier.dial(address, self.host, name, DIAL_S)
        session = LinkSession(cluster.me, self.host, time.monotonic())
        talk = Conversation(channel, session)
        try:
            waiting = list(talk.greet(DIAL_S))
            if not self._attach(talk, waiting):
                return
            backoff.succeeded()
            self._exchange(talk, waiting)
        finally:
            talk.close()

    def _attach(self, talk: Conversation, waiting: list[Any]) -> bool:
        """Ask whether the run is there; return whether this channel is for it."""
        talk.send(Ask(0, "attach", {"epoch": self._epoch}))
        deadline = time.monotonic() + DIAL_S
        while not waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"host {self.host!r} did not answer 'attach'")
            talk.send()
            talk.receive(TURN_S)
            waiting += talk.messages()
        reply = waiting.pop(0)
        if not isinstance(reply, Reply):
            raise BadMessage(f"expected an answer, got {type(reply).__name__}")
        if reply.error:
            raise _exception(*reply.error.partition(": ")[::2])
        epoch = str(reply.result.get("epoch", ""))
        if not epoch:
            self._forget(
                f"host {self.host!r} does not have the run any more: its agent was "
                "restarted, or the lease of its workers was over"
            )
            self._epoch = ""
            return False
        with self._gate:
            if epoch != self._epoch:
                self._line, self._idle = DispatchLine(), {}
                self._line.put("prepare", **self._layout())
            else:
                self._line.begin()
            is_known, self._epoch = epoch == self._epoch, epoch
        self._silent_since = None
        if is_known:
            self.is_ready = True
            self.problem = ""
            self._tell_all("found", f"host {self.host!r} answers")
        return True

    def _layout(self) -> dict[str, Any]:
        """Return what the other host needs to make its part of the run."""
        plan = self._plan
        self._set_words()
        return {
            "specs": [
                spec.to_bytes().decode()
                for spec in plan.specs()
                if spec.host == self.host
            ],
            "lease_s": self._cluster.lease_s,
            "queues": [size.as_dict() for size in plan.queues(self.host)],
            "about": plan.about(),
            "now": now_ns(),
            "words": self._words.whole(),
            "plans": self._plans(),
        }

    def _plans(self) -> list[dict[str, Any]]:
        found = edge_plans(self._plan)
        return [p.as_dict() for p in found if self.host in (p.source, p.to)]

    def _set_words(self) -> None:
        plan = self._plan
        there = {
            node.index
            for node in plan.graph.nodes
            if any(plan.host_of(row) == self.host for row in plan.rows_of(node.index))
        }
        self._words.set_others(there)

    def _exchange(self, talk: Conversation, waiting: list[Any]) -> None:
        while not self._is_closed:
            for message in waiting:
                with self._gate:
                    news = self._line.take(message)
                if news is not None and not self._hear(news):
                    return
            with self._gate:
                if not self._line.waiting and (changed := self._words.changed()):
                    self._line.put("words", words=changed)
                due = self._line.due()
            talk.send(*due)
            talk.receive(TURN_S)
            waiting = list(talk.messages())

    def _hear(self, news: Dispatch) -> bool:
        """Act on what the other host tells; False: the run is gone there."""
        fields, cluster = news.fields, self._cluster
        match news.what:
            case "prepared":
                self.is_ready, self.problem = True, ""
                cluster.cores[self.host] = int(fields["cores"])
                self._generation = str(fields["generation"])
                self.changed.set()
            case "refused":
                self._refuse(_exception(fields["type"], fields["text"]))
                return False
            case "words":
                shift = now_ns() - int(fields["now"])
                if write_words(self._board, fields["words"], shift):
                    self._credit.add(0, 1)
            case "letter":
                self._keep_letter(fields)
            case "idle":
                self._idle[str(fields["name"])] = True
            case "connected":
                pass
            case "gone":
                self._is_gone.set()
                self.problem = str(fields["why"])
                if self.is_ready:
                    self.is_ready = False
                    self._forget(f"host {self.host!r} has removed it: {self.problem}")
                self._epoch = ""
                return False
            case _:
                self._hear_worker(news)
        return True

    def _hear_worker(self, news: Dispatch) -> None:
        fields, cluster = news.fields, self._cluster
        worker = self.workers.get(int(fields["worker"]))
        if worker is None:
            return
        match news.what:
            case "output":
                data = base64.b64decode(fields["data"]), bool(fields["is_error"])
                cluster.tell(WorkerEvent(worker, "output", data))
            case "message":
                message = dict(fields["message"])
                if "path" in message:
                    message["path"] = str(self._plan.dead_letters)
                cluster.tell(WorkerEvent(worker, "message", message))
            case "exit" | "failed":
                with self._gate:
                    self.workers.pop(worker.number, None)
                code = fields.get("code")
                if news.what == "failed":
                    code = f"host {self.host!r} has not started it: {fields['text']}"
                cluster.tell(WorkerEvent(worker, "exit", code))

    def _keep_letter(self, fields: dict[str, Any]) -> None:
        """Write a dead letter where those of this host are."""
        if self._letters is None:
            self._letters = DeadLetterStore(
                str(self._plan.dead_letters), self._plan.run, self.host, 0
            )
        self._letters.keep({**fields, "frame": base64.b64decode(fields["frame"])})


class Cluster:
    """Runs the workers of pipes on the hosts of a lab.

    ``Processor(host=)`` and ``Processor(tag=)`` say where; all others run on this host.
    The pipe itself needs no change: without a cluster, all of it runs here.

    Parameters
    ----------
    hosts : Hosts, str or Path, optional
        The hosts of the lab, or the path of hosts.yaml; None: as `Hosts.load`.
    context : Context, str, Path or None
        The context of the agent here; pipes must use the same one.
    lease_s : float
        After this time without a sign of life from this host, others end its workers,
        s. Their values are taken back 2 s later, and a worker is started again there,
        once the host is back, or on another host with the tag.
    start : {'spawn', 'forkserver'}
        How workers on this host are started; see `Local`. Others use a fork server.
    carrier : Carrier, optional
        By default the one that `hosts` names.

    Raises
    ------
    HostUnavailable
        No agent runs in the context.

    Notes
    -----
    A context manager. It runs one pipe at a time, any number of them in turn. Each
    other host must list this one under ``may:`` with the right ``run``, and the modules
    of the functions under ``modules:``.

    Examples
    --------
    >>> with Cluster("rig/acq/hosts.yaml") as cluster:  # doctest: +SKIP
    ...     with pipe.run(frames, results, engine=cluster) as run:
    ...         print(run.where)
    """

    def __init__(
        self,
        hosts: Hosts | str | Path | None = None,
        *,
        context: ContextLike = None,
        lease_s: float = 10.0,
        start: Start = "spawn",
        carrier: Carrier | None = None,
    ) -> None:
        if not LEAST_LEASE_S <= lease_s <= MOST_LEASE_S:
            raise ValueError(
                f"lease_s must be {LEAST_LEASE_S} to {MOST_LEASE_S:g} s, got {lease_s}"
            )
        self.lab = hosts if isinstance(hosts, Hosts) else Hosts.load(hosts)
        """The hosts of the lab."""
        self.lease_s = float(lease_s)
        """How long workers elsewhere go on without a sign of life from here, s."""
        self._context = Context.of(context)
        AgentClient(self._context).close()  # it must be there
        self.me = Hello(
            self.lab.lab, self.lab.me, boot_id() or "unknown", uuid.uuid4().hex
        )
        """What this program says of itself to other hosts."""
        self.carrier = carrier_of(self.lab) if carrier is None else carrier
        """Dials the other hosts."""
        self.cores: dict[str, int] = {}
        """Cores of other hosts, as they have told."""
        self._local = Local(start)
        self._own_lab: Any = None
        self._contacts: dict[str, RunContact] = {}
        self._plan: Plan | None = None
        self._board: StatusBoard | None = None
        self._client: AgentClient | None = None
        self._gate = threading.Lock()
        self._number = 0
        self._problem: Exception | None = None
        self._events: deque[WorkerEvent] = deque()
        self._heard, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)
        os.set_blocking(self._heard, False)
        self._epoll = select.epoll()
        self._epoll.register(self._heard, select.EPOLLIN)
        self._bell = -1

    @classmethod
    def from_dask(
        cls, client: Any, *, context: ContextLike = None, lease_s: float = 10.0
    ) -> Cluster:
        """Return a cluster whose other hosts are the workers of a dask client.

        An agent is started beside each worker, and one here. They have certificates of
        a lab that is made for it, and go on when dask dies. Hosts are 'client' and
        'dask-0', 'dask-1' ...; their tags are the ``resources`` of the workers. The
        agents end when the cluster is closed, and when they have not heard of it for
        two minutes; with a longer lease, for a minute more than that.

        Parameters
        ----------
        client : distributed.Client
            Of any cluster: ``SSHCluster``, ``SLURMCluster`` of dask-jobqueue, ... All
            of its workers that are there now are used.
        context : Context, str, Path or None
            The context here, without an agent.
        lease_s : float
            As for `Cluster`.

        Raises
        ------
        AccessDenied
            The scheduler is on another host, and is not reached by TLS.
        HostUnavailable
            The client has no workers, or an agent did not start.

        Examples
        --------
        >>> client = Client(SLURMCluster(...))  # doctest: +SKIP
        >>> with Cluster.from_dask(client) as cluster:  # doctest: +SKIP
        ...     pipe.run(frames, results, engine=cluster).wait()
        """
        from ataraxis.cluster.dask_start import DaskLab

        lab = DaskLab(client, context=context, lease_s=lease_s)
        try:
            made = cls(lab.hosts, context=context, lease_s=lease_s)
        except BaseException:
            lab.close()
            raise
        made._own_lab = lab
        return made

    # ---- hosts

    def hosts(self) -> Sequence[Host]:
        """Return the hosts of the lab; this one is the first."""
        mine = self.lab.me_host
        found = [Host(self.lab.me, tuple(mine.tags))]
        for name, host in self.lab.hosts.items():
            if name != self.lab.me:
                found.append(Host(name, tuple(host.tags), self.cores.get(name, 1)))
        return found

    def states(self) -> list[HostState]:
        """Return the state of each host, as the agent here sees it."""
        return host_states(self._context)

    def statistics(self) -> dict[str, Any]:
        """Return hosts and edges of the agent here, JSON-able."""
        with AgentClient(self._context) as client:
            found: dict[str, Any] = client.ask("statistics")
        return found

    # ---- as an `Engine`

    def prepare(self, plan: Plan, board: StatusBoard) -> None:
        """Make the run on its other hosts; see `Engine`."""
        if self._plan is not None:
            raise RuntimeError(
                f"this cluster runs {self._plan.run!r}: wait for its end, or make "
                "another Cluster"
            )
        self._plan, self._board, self._problem = plan, board, None
        self._events.clear()
        try:
            others = plan.hosts_used()[1:]
            if not others:
                return
            if plan.context.path != self._context.path:
                raise ValueError(
                    f"the pipe has the context {plan.context.path}, and the cluster "
                    f"that of the agent, {self._context.path}: give both the same"
                )
            self._client = AgentClient(self._context)
            self._epoll.register(self._client, select.EPOLLRDHUP)
            # Each edge is dialled by its end: its beginning is there before.
            self._connect_here(is_beginning=True)
            for host in others:
                self._contacts[host] = RunContact(self, host, plan, board)
            deadline = time.monotonic() + _PREPARE_S
            for contact in self._contacts.values():
                contact.changed.wait(max(deadline - time.monotonic(), 0))
                if contact.refusal is not None:
                    raise contact.refusal
                if not contact.is_ready:
                    address = self.lab.address_of(contact.host)
                    raise HostUnavailable(
                        f"host {contact.host!r} at {address} did not prepare the pipe "
                        f"within {_PREPARE_S:g} s: {contact.problem}. 'ataraxis doctor "
                        f"{contact.host}' finds out what is wrong"
                    )
            self._connect_here()
        except BaseException:
            self.release(plan.run)
            raise

    def _connect_here(self, *, is_beginning: bool = False) -> None:
        assert self._plan is not None
        assert self._client is not None
        mine = self.lab.me
        plans = [
            p.as_dict()
            for p in edge_plans(self._plan)
            if p.source == mine or (p.to == mine and not is_beginning)
        ]
        with self._gate:
            for start in range(0, len(plans), _PLANS):
                part = plans[start : start + _PLANS]
                self._client.ask("edges", run=self._plan.run, plans=part)

    def connect(self, plan: Plan) -> None:
        """Join the edges again, after a worker has moved; see `Engine`."""
        if self._client is not None:
            self._connect_here()
        for contact in self._contacts.values():
            contact.connect()

    def take_back(self, host: str, generation: str) -> None:
        """Have every host take back what a host had: its workers are gone.

        A host that has begun another `generation` meanwhile is left alone.
        """
        plan, client = self._plan, self._client
        if plan is None or client is None:
            return
        try:
            with self._gate:
                client.ask("edges lost", run=plan.run, host=host, generation=generation)
        except (AtaraxisError, OSError) as error:
            self._problem = error
            self._ring()
        for contact in list(self._contacts.values()):
            if contact.host != host:
                contact.order("lost", host=host, generation=generation)

    def is_up(self, host: str) -> bool:
        """Return whether a worker can be started on a host now; see `Engine`."""
        if host == self.lab.me:
            return True
        contact = self._contacts.get(host)
        if contact is None and self._plan is not None and self._board is not None:
            # Another host with the tag: it is prepared when it is needed.
            self._contacts[host] = RunContact(self, host, self._plan, self._board)
        return contact is not None and contact.is_ready

    def is_idle(self, host: str, name: str) -> bool:
        """Return whether a queue on another host is empty; see `Engine`."""
        contact = self._contacts.get(host)
        return contact is None or contact.is_idle(name)

    def end(self, host: str, name: str, count: int) -> None:
        """Put last frames into a queue on another host; see `Engine`."""
        contact = self._contacts.get(host)
        if host == self.lab.me:
            plan, client = self._plan, self._client
            if plan is not None and client is not None:
                with self._gate:
                    client.ask("edges finish", run=plan.run, name=name)
        elif contact is not None:
            contact.order("end", name=name, count=count)

    def spawn(self, host: str, spec: WorkerSpec) -> Any:
        """Start a worker; see `Engine`."""
        if host == self.lab.me:
            return self._local.spawn(host, spec)
        self._number += 1
        return self._contacts[host].spawn(self._number, spec)

    def signal(self, handle: Any, number: int) -> None:
        """Send a signal to a worker; see `Engine`."""
        if not isinstance(handle, RemoteWorker):
            self._local.signal(handle, number)
        elif (contact := self._contacts.get(handle.host)) is not None:
            contact.order("signal", worker=handle.number, number=int(number))

    def tell(self, event: WorkerEvent) -> None:
        """Add an event of a worker elsewhere; from any thread."""
        self._events.append(event)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._ringer, b"\0")

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait for events; see `Engine`."""
        if bell != self._bell:
            with contextlib.suppress(OSError):  # the run has closed it
                if self._bell >= 0:
                    self._epoll.unregister(self._bell)
            self._bell = bell
            if bell >= 0:
                self._epoll.register(bell, select.EPOLLIN)
        found = self._local.watch(timeout, self._epoll.fileno())
        with contextlib.suppress(BlockingIOError):
            while os.read(self._heard, 4096):
                pass
        self._check_agent()
        while self._events:
            found.append(self._events.popleft())
        return found

    def _check_agent(self) -> None:
        """Fail the run, once, if the agent here has ended: it had values of the run."""
        client = self._client
        if client is not None and client.is_gone:
            self._problem = HostUnavailable(
                f"the agent of this host (process {client.pid}) has ended, and with it "
                "the edges of the pipe: start the agent again, then the pipe"
            )
        problem, self._problem = self._problem, None
        if problem is not None:
            self._client = None
            if client is not None:
                client.close()
            raise problem

    def release(self, run: str) -> None:
        """Remove a run from its other hosts; see `Engine`."""
        contacts = list(self._contacts.values())
        for contact in contacts:
            contact.release()
        for contact in contacts:
            contact.close()
        self._contacts = {}
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(AtaraxisError, OSError):
                client.ask("edges release", run=run)
            client.close()
        self._plan = self._board = None

    def close(self) -> None:
        """End it; its pipes have ended. Idempotent."""
        if self._heard < 0:
            return
        self.release("")
        self._epoll.close()
        os.close(self._heard)
        os.close(self._ringer)
        self._heard = self._ringer = -1
        self._local.close()
        self.carrier.close()
        if self._own_lab is not None:
            self._own_lab.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster of lab {self.lab.lab!r}, hosts {', '.join(self.lab.hosts)}>"


def edge_plans(plan: Plan) -> list[EdgePlan]:
    """Return the edges of a run, as agents connect them."""
    return [
        EdgePlan(plan.run, **dataclasses.asdict(edge), ends=0) for edge in plan.edges()
    ]


def _exception(kind: str, text: str) -> Exception:
    """Return the exception that another host has named."""
    found = getattr(errors, str(kind), None)
    if isinstance(found, type) and issubclass(found, Exception):
        with contextlib.suppress(TypeError):
            return found(str(text))
    return errors.RemoteError(f"{kind}: {text}")
