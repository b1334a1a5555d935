"""`Plan`: the queues of a run, their sizes, and the specification of each worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ataraxis.pipeline.graph import (
    Graph,
    GraphNode,
    ordered_region,
    ordering_windows,
)
from ataraxis.pipeline.spec import WINDOW, Target, WorkerSpec
from ataraxis.shm.context import Context
from ataraxis.stream import MemQ

_MOST_PATHS = 256


@dataclass(frozen=True)
class Plan:
    """Names, sizes and specifications of a run; creates nothing until `make_queues`."""

    graph: Graph
    run: str
    context: Context
    dead_letters: Path
    has_sink: bool

    @property
    def credit(self) -> str:
        """Name of the array that changes when frames were put in order."""
        return f"{self.run}.credit"

    @property
    def end(self) -> str:
        """Name of the queue at the pipe's end."""
        return f"{self.run}.end"

    # ---- queues

    def inboxes(self, node: GraphNode) -> tuple[str, ...]:
        """Return the names of a processor's input queues."""
        if node.processor.kind == "source" or not node.parents:
            return ()
        name = f"{self.run}.in.{node.name}"
        if node.inboxes == 1:
            return (name,)
        return tuple(f"{name}.{k}" for k in range(node.inboxes))

    def make_queues(self) -> dict[str, MemQ]:
        """Create every queue, or none."""
        queues: dict[str, MemQ] = {}
        try:
            for node in self.graph.nodes:
                settings = node.settings
                for name in self.inboxes(node):
                    queues[name] = self._queue(
                        name, node.index, settings.buffer_size, settings.allow_pickle
                    )
            # Results are about as large as the inputs of the last processors.
            last = [self.graph.nodes[k].settings for k in self.graph.leaves()]
            size = max(settings.buffer_size for settings in last)
            queues[self.end] = self._queue(self.end, -1, size, False)
        except BaseException:
            for queue in queues.values():
                queue.unlink()
            raise
        return queues

    def _queue(self, name: str, index: int, size: int, allow_pickle: bool) -> MemQ:
        # Each worker may die a few times before another process cleans up after it.
        workers = sum(node.settings.workers for node in self.graph.nodes)
        return MemQ(
            name,
            self._slots(index),
            size,
            allow_pickle=allow_pickle,
            context=self.context,
            participants=min(1024, -(-(4 * workers + 16) // 64) * 64),
        )

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

    def target(self, index: int, source: int) -> Target:
        """Return how `source` (-1: the head) puts into a processor (-1: the end)."""
        count = len(self.graph.nodes)
        if index < 0:
            return Target("", count, (self.end,), is_end=True)
        node = self.graph.nodes[index]
        settings = node.settings
        windows = ordering_windows(self.graph).get((source, index), ())
        return Target(
            node.name,
            index,
            self.inboxes(node),
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
        for node in self.graph.nodes:
            inboxes = self.inboxes(node)
            first = self._spec(node)
            for k in range(node.settings.workers):
                inbox = inboxes[min(k, len(inboxes) - 1)] if inboxes else ""
                gpu = node.gpu_of(k)
                specs.append(
                    replace(first, worker=k, row=len(specs), inbox=inbox, gpu=gpu)
                )
        return specs

    def _spec(self, node: GraphNode) -> WorkerSpec:
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
            targets=tuple(self.target(k, node.index) for k in node.children or (-1,)),
            ordered_parents=graph.ordered_parents(node.index),
            tells_gaps=(tells_gaps := graph.needs_every_number(node.index)),
            fills_gaps=tells_gaps and settings.drops,
            # The ordering window moves on when results arrive at the end.
            has_sink=self.has_sink or bool(graph.ordered_parents(-1)),
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            on_error=settings.on_error,
            attempts=settings.attempts,
            allow_pickle=settings.allow_pickle,
            dead_letters=str(self.dead_letters),
            threads=settings.threads,
            host=settings.host,
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
        }
