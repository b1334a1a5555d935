"""`Plan`: what a graph needs to run: queues, their sizes, what each worker is told."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ataraxis.pipeline.graph import Graph, GraphNode, ordered_region, windows
from ataraxis.pipeline.spec import WINDOW, Target, WorkerSpec
from ataraxis.shm.context import Context
from ataraxis.stream import MemQ

_MOST_WAYS = 256


@dataclass(frozen=True)
class Plan:
    """Names, sizes and specifications of a run; nothing is made yet."""

    graph: Graph
    run: str
    context: Context
    letters: Path
    has_taker: bool

    @property
    def credit(self) -> str:
        """Name of the array whose change says that frames were put in order."""
        return f"{self.run}.credit"

    @property
    def end(self) -> str:
        """Name of the queue at the pipe's end."""
        return f"{self.run}.end"

    @staticmethod
    def letters_of(run: str, given: Any) -> Path:
        """Return where dead letters go."""
        if given is not None:
            return Path(given).resolve()
        return Path(tempfile.gettempdir()) / f"ataraxis-letters-{run}"

    # ---- queues

    def inboxes(self, node: GraphNode) -> tuple[str, ...]:
        """Return the names of a processor's input queues."""
        if node.processor.kind == "source" or not node.parents:
            return ()
        names = f"{self.run}.in.{node.name}"
        if node.inboxes == 1:
            return (names,)
        return tuple(f"{names}.{k}" for k in range(node.inboxes))

    def make_queues(self) -> dict[str, MemQ]:
        """Make every queue; all or none."""
        made: dict[str, MemQ] = {}
        try:
            for node in self.graph.nodes:
                for name in self.inboxes(node):
                    made[name] = self._queue(name, node.index, node.settings)
            made[self.end] = self._queue(self.end, -1, None)
        except BaseException:
            for queue in made.values():
                queue.unlink()
            raise
        return made

    def _queue(self, name: str, index: int, settings: Any) -> MemQ:
        if settings is None:
            # Results are as large as what the last processors have, more or less.
            last = [self.graph.nodes[k].settings for k in self.graph.leaves()]
            size = max(said.buffer_size for said in last)
        else:
            size = settings.buffer_size
        # Each worker may have died a few times before somebody cleans up after it.
        workers = sum(node.settings.workers for node in self.graph.nodes)
        return MemQ(
            name,
            self.slots(index),
            size,
            allow_pickle=bool(settings and settings.allow_pickle),
            context=self.context,
            participants=min(1024, -(-(4 * workers + 16) // 64) * 64),
        )

    def slots(self, index: int) -> int:
        """Return how many slots an input queue has: room for all that waits in it."""
        last = self.graph.leaves() if index < 0 else [index]
        wanted = max(self.graph.nodes[k].settings.buffer_count for k in last)
        if index in ordered_region(self.graph):
            wanted = max(wanted, WINDOW * self._ways(index))
        workers = 1 if index < 0 else self.graph.nodes[index].settings.workers
        return wanted + workers

    def _ways(self, index: int) -> int:
        """Count the ways from the heads to a processor, parts of a split each."""
        counts: dict[int, int] = {}
        for node in self.graph.nodes:
            # A lane for values, one for calls.
            counts[node.index] = sum(2 if k < 0 else counts[k] for k in node.parents)
            counts[node.index] = max(1, counts[node.index]) * node.inboxes
        last = self.graph.leaves() if index < 0 else self.graph.nodes[index].parents
        ways = sum(2 if k < 0 else counts[k] for k in last)
        if ways > _MOST_WAYS:
            raise ValueError(
                f"{ways} ways lead to one that puts frames in order: at most "
                f"{_MOST_WAYS}"
            )
        return ways

    # ---- specifications

    def target(self, index: int, source: int) -> Target:
        """Return how `source` (-1: the head) puts into a processor (-1: the end)."""
        count = len(self.graph.nodes)
        ends = tuple(
            (last % (count + 1), path)
            for last, path in windows(self.graph).get((source, index), ())
        )
        if index < 0:
            return Target("", count, (self.end,), is_end=True)
        node = self.graph.nodes[index]
        said = node.settings
        return Target(
            node.name,
            index,
            self.inboxes(node),
            said.on_full,
            said.allow_pickle,
            said.overlap,
            said.split is not None,
            node.processor.key if node.inboxes > 1 else None,
            ends,
            marks_calls=node.processor.kind in ("dialect", "script"),
        )

    def specs(self) -> list[WorkerSpec]:
        """Return what each worker is told, in the order of the board's rows."""
        specs: list[WorkerSpec] = []
        for node in self.graph.nodes:
            inboxes = self.inboxes(node)
            first = self._spec(node)
            for k in range(node.settings.workers):
                inbox = inboxes[min(k, len(inboxes) - 1)] if inboxes else ""
                specs.append(replace(first, worker=k, row=len(specs), inbox=inbox))
        return specs

    def _spec(self, node: GraphNode) -> WorkerSpec:
        said = node.settings
        code = node.processor.code()
        assert code is not None
        targets = [self.target(k, node.index) for k in node.children]
        if not node.children:
            targets.append(self.target(-1, node.index))
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
            targets=tuple(targets),
            resequences=self.graph.resequences(node.index),
            tells_gaps=(tells := self.graph.needs_every_number(node.index)),
            fills=tells and said.drops,
            has_taker=self.has_taker,
            max_batch=said.max_batch,
            max_wait=said.max_wait,
            on_error=said.on_error,
            attempts=said.attempts,
            allow_pickle=said.allow_pickle,
            letters=str(self.letters),
            threads=said.threads,
            host=said.host,
            ordered_parents=self.graph.ordered_parents(node.index),
        )

    def about(self) -> dict[str, Any]:
        """Describe the run, for its board."""
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
        }
