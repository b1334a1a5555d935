"""`Plan`: the queues of a run on each host, the edges, and the workers' specifications.

A processor's input queue lies on each host that may run it. A parent on another host
puts into an *edge queue* on its own host, from where the agents of the two hosts move
the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ataraxis.pipeline.graph import (
    Graph,
    GraphNode,
    ordered_region,
    ordering_windows,
)
from ataraxis.pipeline.placement import Host, candidates
from ataraxis.pipeline.spec import WINDOW, Target, WorkerSpec
from ataraxis.shm.context import Context
from ataraxis.stream import MemQ

_MOST_PATHS = 256


@dataclass(frozen=True)
class QueueSize:
    """A queue of a run, before it is created."""

    name: str
    slots: int
    size: int
    """Payload bytes of a slot."""
    allow_pickle: bool
    participants: int

    def make(self, context: Context) -> MemQ:
        """Create it."""
        return MemQ(
            self.name,
            self.slots,
            self.size,
            allow_pickle=self.allow_pickle,
            context=context,
            participants=self.participants,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class HostEdge:
    """Values go from a queue on one host to a queue on another one."""

    name: str
    """Queue on the host `source`."""
    source: str
    to: str
    inbox: str
    """Queue on the host `to`."""
    path: tuple[str, ...]
    """Queues on `to` that what is made of a value passes, in topological order."""
    is_home: bool
    """Whether `to` is the run's own host."""
    steps: tuple[tuple[int, int], ...]
    """The ways of what is made of a value on `to`: pairs of processors that may run
    there, of which the second takes what the first makes. -1: the value itself."""


@dataclass(frozen=True)
class Plan:
    """Names, sizes and specifications of a run; creates nothing until `make_queues`."""

    graph: Graph
    run: str
    context: Context
    dead_letters: Path
    has_sink: bool
    hosts: tuple[Host, ...] = (Host("localhost"),)
    """Hosts of the engine; the first is that of the run."""
    places: dict[int, str] = field(default_factory=dict)
    """The host of each worker, by row; the run's own, if it is not here."""

    @property
    def credit(self) -> str:
        """Name of the array that changes when frames were put in order."""
        return f"{self.run}.credit"

    @property
    def end(self) -> str:
        """Name of the queue at the pipe's end."""
        return f"{self.run}.end"

    # ---- hosts

    @property
    def home(self) -> str:
        """The host of the run."""
        return self.hosts[0].name

    def host_of(self, row: int) -> str:
        """Return the host of a worker."""
        return self.places.get(row, self.home)

    def candidates(self, index: int) -> tuple[str, ...]:
        """Return the hosts that may run a processor; of -1, the run's own."""
        if index < 0:
            return (self.home,)
        return candidates(self.graph.nodes[index], self.hosts)

    def rows_of(self, index: int) -> range:
        """Return the rows of a processor's workers."""
        before = sum(node.settings.workers for node in self.graph.nodes[:index])
        return range(before, before + self.graph.nodes[index].settings.workers)

    def hosts_used(self) -> list[str]:
        """Return the hosts that run workers, that of the run first."""
        used = set(self.places.values())
        return [h.name for h in self.hosts if h.name in used or h.name == self.home]

    def readers(self, index: int, which: int) -> list[str]:
        """Return the host of each worker that reads an input queue of a processor."""
        if index < 0:
            return [self.home]
        rows = self.rows_of(index)
        if self.graph.nodes[index].inboxes > 1:
            rows = rows[which : which + 1]
        return [self.host_of(row) for row in rows]

    def readers_of(self, name: str, index: int) -> list[str]:
        """Return the host of each worker that reads the input queue of that name."""
        return self.readers(index, self._inboxes_of(index).index(name))

    def _sources(self, index: int, *, may_be: bool = False) -> set[str]:
        """Return the hosts whose processes put into a processor, or may do so."""
        found: set[str] = set()
        for k in self.graph.parents(index):
            if k < 0 or may_be:
                found.update(self.candidates(k))
            else:
                found.update(self.host_of(row) for row in self.rows_of(k))
        return found

    def _at(self, inbox: str, index: int, host: str) -> str:
        """Return the name by which processes of a host put into an input queue."""
        if host in self.candidates(index):
            return inbox
        return f"{self.run}.edge{inbox[len(self.run) :]}"

    def edges(self) -> list[HostEdge]:
        """Return all edges between hosts, for the workers where they are now."""
        found: list[HostEdge] = []
        for index, inboxes in self._all_inboxes():
            sources = self._sources(index)
            for which, inbox in enumerate(inboxes):
                readers = set(self.readers(index, which))
                for host in sorted(sources):
                    there = readers - sources if host in readers else readers
                    found += [
                        HostEdge(
                            self._at(inbox, index, host), host, to, inbox,
                            self._path(index, to), to == self.home,
                            self._steps(index, to),
                        )
                        for to in sorted(there - {host})
                    ]  # fmt: skip
        return found

    def edges_into(self, inbox: str) -> list[tuple[str, str]]:
        """Return host and name of each queue whose values go to an input queue."""
        return [(e.source, e.name) for e in self.edges() if e.inbox == inbox]

    def _path(self, index: int, host: str) -> tuple[str, ...]:
        """Return the queues on a host that what a processor makes there passes."""
        below = {k for _, k in self._steps(index, host)}
        return tuple(
            self._at(name, k, host)
            for k in (*range(len(self.graph.nodes)), -1)
            if below.intersection(self.graph.parents(k))
            for name in self._inboxes_of(k)
        )

    def _steps(self, index: int, host: str) -> tuple[tuple[int, int], ...]:
        """Return the processors that a value passes on a host, see `HostEdge.steps`."""
        if index < 0:
            return ()
        found, below = [(-1, index)], {index}
        for k in range(index + 1, len(self.graph.nodes)):
            parents = below.intersection(self.graph.parents(k))
            # Also where a worker may come later: the path of an edge never changes.
            if parents and host in self.candidates(k):
                below.add(k)
                found += [(parent, k) for parent in sorted(parents)]
        return tuple(found)

    # ---- queues

    def inboxes(self, node: GraphNode) -> tuple[str, ...]:
        """Return the names of a processor's input queues."""
        if node.processor.kind == "source" or not node.parents:
            return ()
        name = f"{self.run}.in.{node.name}"
        if node.inboxes == 1:
            return (name,)
        return tuple(f"{name}.{k}" for k in range(node.inboxes))

    def _inboxes_of(self, index: int) -> tuple[str, ...]:
        return (self.end,) if index < 0 else self.inboxes(self.graph.nodes[index])

    def _all_inboxes(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        for node in self.graph.nodes:
            yield node.index, self.inboxes(node)
        yield -1, (self.end,)

    def queues(self, host: str) -> list[QueueSize]:
        """Return the queues on a host: inboxes of what it may run, and edge queues."""
        found: list[QueueSize] = []
        for index, inboxes in self._all_inboxes():
            is_here = host in self.candidates(index)
            if is_here or host in self._sources(index, may_be=True):
                found += [
                    self._size(self._at(name, index, host), index) for name in inboxes
                ]
        return found

    def make_queues(self) -> dict[str, MemQ]:
        """Create every queue on the run's own host, or none."""
        queues: dict[str, MemQ] = {}
        try:
            for size in self.queues(self.home):
                queues[size.name] = size.make(self.context)
        except BaseException:
            for queue in queues.values():
                queue.unlink()
            raise
        return queues

    def _size(self, name: str, index: int) -> QueueSize:
        nodes = self.graph.nodes
        if index < 0:
            # Results are about as large as the inputs of the last processors.
            size = max(nodes[k].settings.buffer_size for k in self.graph.leaves())
            allow_pickle = False
        else:
            size = nodes[index].settings.buffer_size
            allow_pickle = nodes[index].settings.allow_pickle
        # Each worker may die a few times before another process cleans up after it.
        workers = sum(node.settings.workers for node in nodes)
        participants = min(1024, -(-(4 * workers + 16) // 64) * 64)
        return QueueSize(name, self._slots(index), size, allow_pickle, participants)

    def _slots(self, index: int) -> int:
        """Return the number of slots of an input queue: room for all that may wait."""
        last = self.graph.leaves() if index < 0 else [index]
        count = max(self.graph.nodes[k].settings.buffer_count for k in last)
        if index in ordered_region(self.graph):
            count = max(count, WINDOW * self._paths(index))
        workers = 1 if index < 0 else self.graph.nodes[index].settings.workers
        return count + workers

    def _paths(self, index: int) -> int:
        """Count the paths from the heads to a processor, each part of a split one."""
        counts: dict[int, int] = {}

        def paths(parents: Any) -> int:
            # At a head, a lane for values and one for calls.
            return sum(2 if k < 0 else counts[k] for k in parents)

        for node in self.graph.nodes:
            counts[node.index] = max(1, paths(node.parents)) * node.inboxes
        count = paths(self.graph.parents(index))
        if count > _MOST_PATHS:
            raise ValueError(
                f"at most {_MOST_PATHS} paths may lead to where frames are put in "
                f"order, got {count}"
            )
        return count

    # ---- specifications

    def target(self, index: int, source: int, host: str | None = None) -> Target:
        """Return how `source` (-1: the head) puts into a processor (-1: the end).

        `host` is that of the process that puts; by default the run's own.
        """
        count = len(self.graph.nodes)
        queues = tuple(
            self._at(name, index, host or self.home) for name in self._inboxes_of(index)
        )
        if index < 0:
            return Target("", count, queues, is_end=True)
        node = self.graph.nodes[index]
        settings = node.settings
        windows = ordering_windows(self.graph).get((source, index), ())
        return Target(
            node.name,
            index,
            queues,
            settings.on_full,
            settings.allow_pickle,
            settings.overlap,
            settings.split is not None,
            node.processor.key if node.inboxes > 1 else None,
            tuple((last % (count + 1), path) for last, path in windows),
            marks_calls=node.processor.kind in ("dialect", "script"),
            workers=settings.workers,
        )

    def specs(self) -> list[WorkerSpec]:
        """Return the specification of each worker, in the order of the board's rows."""
        specs: list[WorkerSpec] = []
        counted = self._counted()
        for node in self.graph.nodes:
            inboxes = self.inboxes(node)
            first = self._spec(node, counted)
            for k in range(node.settings.workers):
                inbox = inboxes[min(k, len(inboxes) - 1)] if inboxes else ""
                spec = replace(
                    first, worker=k, row=len(specs), inbox=inbox, gpu=node.gpu_of(k)
                )
                specs.append(self.moved(spec, self.host_of(spec.row)))
        return specs

    def moved(self, spec: WorkerSpec, host: str) -> WorkerSpec:
        """Return the specification of a worker on another host, and note its place."""
        self.places[spec.row] = host
        children = self.graph.nodes[spec.index].children or (-1,)
        targets = tuple(self.target(k, spec.index, host) for k in children)
        return replace(spec, host=host, targets=targets)

    def _is_counted(self, index: int) -> bool:
        """Return whether the end counts what a processor has put in order.

        For one that may be lost with its host, and goes on where results are missing.
        """
        return (
            self.has_sink
            and bool(self.graph.ordered_parents(index))
            and self.candidates(index) != (self.home,)
            and self.graph.is_counted(index)
        )

    def _counted(self) -> set[int]:
        """Return the processors all of whose numbers the end counts."""
        found: set[int] = set()
        for index in range(len(self.graph.nodes)):
            if self._is_counted(index):
                found |= {index} | self.graph.below(index)
        return found

    def _spec(self, node: GraphNode, counted: set[int]) -> WorkerSpec:
        settings, graph = node.settings, self.graph
        code = node.processor.code()
        assert code is not None
        return WorkerSpec(
            run=self.run,
            context=str(self.context.path),
            processor=node.name,
            index=node.index,
            worker=0,
            row=0,
            code=code,
            config=node.processor.config,
            inbox="",
            targets=(),
            ordered_parents=graph.ordered_parents(node.index),
            tells_gaps=(
                tells_gaps := graph.needs_every_number(node.index)
                or node.index in counted
            ),
            fills_gaps=tells_gaps and settings.drops,
            is_counted=self._is_counted(node.index),
            # The ordering window moves on when results arrive at the end.
            has_sink=self.has_sink or bool(graph.ordered_parents(-1)),
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            on_error=settings.on_error,
            attempts=settings.attempts,
            allow_pickle=settings.allow_pickle,
            dead_letters=str(self.dead_letters),
            threads=settings.threads,
        )

    def about(self) -> dict[str, Any]:
        """Return the description of the run, for its board."""
        nodes = self.graph.nodes
        return {
            "pipe": self.graph.name,
            "processors": [
                {
                    "name": node.name,
                    "workers": node.settings.workers,
                    "children": [nodes[k].name for k in node.children],
                    "inboxes": list(self.inboxes(node)),
                }
                for node in nodes
            ],
            "end": self.end,
            "hosts": [host.name for host in self.hosts],
        }
