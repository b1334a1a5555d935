"""The graph of a pipe as a value: processors and edges, checked; its JSON and SVG."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from ataraxis.errors import GpuUnavailable
from ataraxis.gpu.drivers import visible_gpus
from ataraxis.pipeline.function import Code
from ataraxis.pipeline.partition import Key
from ataraxis.pipeline.processors import Processor
from ataraxis.pipeline.settings import ProcessorSettings

VERSION = 1


@dataclass(frozen=True)
class GraphNode:
    """A processor's place in a graph."""

    processor: Processor
    index: int
    parents: tuple[int, ...] = ()
    """Processors whose output it receives; -1 is the head of the pipe."""
    children: tuple[int, ...] = ()
    """Processors that receive its output."""

    @property
    def name(self) -> str:
        """The processor's name."""
        return self.processor.name

    @property
    def settings(self) -> ProcessorSettings:
        """The processor's settings."""
        settings = self.processor.settings
        return settings.with_gpus(len(self.gpus)) if settings.has_gpu else settings

    @cached_property
    def gpus(self) -> list[str]:
        """The GPUs that its workers may have: read once, as the graph is made."""
        return visible_gpus()

    def gpu_of(self, worker: int) -> str | None:
        """Return the GPU of a worker, as CUDA names it; None: it has not its own.

        Raises `GpuUnavailable` if the one that was asked for is missing.
        """
        wanted, found = self.settings.gpu, self.gpus
        if wanted is None or wanted is False:
            return None
        if wanted is True and found:
            return found[worker % len(found)]
        if wanted is not True and wanted < len(found):
            return found[wanted]
        raise GpuUnavailable(
            f"processor {self.name!r}: gpu={wanted!r} was asked for, and CUDA shows "
            f"{len(found)} GPUs (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES')!r}): install the driver "
            "(nvidia-smi shows it), or leave out gpu="
        )

    @property
    def inboxes(self) -> int:
        """How many input queues it has: one for all workers, or one for each."""
        is_shared = self.settings.split is None and self.processor.key is None
        return 1 if is_shared else self.settings.workers

    @property
    def is_parallel(self) -> bool:
        """Whether its results may overtake each other."""
        return self.settings.workers > 1

    @property
    def keeps_order(self) -> bool:
        """Whether its results are put in order further on."""
        return self.settings.ordered or self.settings.split is not None


@dataclass(frozen=True)
class Graph:
    """Processors, each after all of its parents."""

    name: str
    nodes: tuple[GraphNode, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, roots: Iterable[Processor]) -> Graph:
        """Return the checked graph of the first processors, `roots`.

        Raises
        ------
        ValueError
            The graph is empty or has a cycle; two processors have one name, one has no
            code, or settings contradict each other. Lists all problems.
        """
        roots = list(roots)
        if not roots:
            raise ValueError(f"pipe {name!r} is empty: call pipe.add(Processor(...))")
        order = _ordered(name, roots)
        index = {id(p): k for k, p in enumerate(order)}
        parents: list[list[int]] = [[] for _ in order]
        for p in roots:
            parents[index[id(p)]].append(-1)
        for p in order:
            for child in p.children:
                parents[index[id(child)]].append(index[id(p)])
        nodes = tuple(
            GraphNode(p, k, tuple(parents[k]), tuple(index[id(c)] for c in p.children))
            for k, p in enumerate(order)
        )
        graph = cls(name, nodes, {node.name: node.index for node in nodes})
        if problems := graph.problems():
            raise ValueError(f"pipe {name!r} cannot run: " + "; ".join(problems))
        return graph

    def problems(self) -> list[str]:
        """Return all problems, in words."""
        names = [node.name for node in self.nodes]
        found = [
            f"two processors have the name {name!r}: rename one"
            for name in sorted({n for n in names if names.count(n) > 1})
        ]
        for node in self.nodes:
            found += self._problems_of(node)
        return found

    def _problems_of(self, node: GraphNode) -> list[str]:
        found, settings, kind = [], node.settings, node.processor.kind
        cuts_blocks = bool(settings.overlap or settings.split)
        is_map = kind == "map"
        if kind is None:
            found.append(f"{node.name!r} has nothing to run: give func= or entry=")
        if kind == "source" and node.parents != (-1,):
            found.append(f"{node.name!r} is a source and cannot have parents")
        if (settings.ordered or cuts_blocks) and not is_map:
            found.append(
                f"{node.name!r}: ordered=, split= and overlap= are for functions of a "
                "value"
            )
        if node.processor.key is not None:
            if not is_map:
                found.append(f"{node.name!r}: key= is for functions of a value")
            if cuts_blocks:
                found.append(
                    f"{node.name!r}: key= cannot be combined with overlap= or split=, "
                    "which distribute blocks themselves"
                )
        loses_order = (
            settings.ordered
            or self.ordered_parents(node.index)
            or (
                self.needs_every_number(node.index)
                and not self.emits_in_order(node.index)
            )
        )
        if settings.drops and loses_order:
            found.append(
                f"{node.name!r}: order needs on_full='block' from where values are "
                "distributed to where they are in order again; drop before that"
            )
        if cuts_blocks:
            found += [
                f"{node.name!r}: overlap= and split= need one worker before them, and "
                f"{self.nodes[k].name!r} has several: put a processor with one worker "
                "between them"
                for k in node.parents
                if k >= 0 and self.nodes[k].is_parallel
            ]
        if settings.split and node.is_parallel:
            found += [
                f"{self.nodes[k].name!r} follows split= of {node.name!r} and needs "
                "workers=1, where the parts are joined"
                for k in node.children
                if self.nodes[k].is_parallel
            ]
        return found

    def parallel_heads(self) -> list[str]:
        """Return the first processors, if all get every value and one is also the last.

        Each value then has several results: ``pipe.add(a); pipe.add(b)`` does this, and
        looks like a chain.
        """
        heads = [
            node
            for node in self.nodes
            if -1 in node.parents and node.processor.kind == "map"
        ]
        has_leaf = any(not node.children for node in heads)
        return [node.name for node in heads] if len(heads) > 1 and has_leaf else []

    # ---- order

    def leaves(self) -> list[int]:
        """Return the last processors."""
        return [node.index for node in self.nodes if not node.children]

    def parents(self, index: int) -> Sequence[int]:
        """Return the parents of a processor; of -1, the end, the last processors."""
        return self.leaves() if index < 0 else self.nodes[index].parents

    def ordered_parents(self, index: int) -> tuple[int, ...]:
        """Return the parents whose frames a processor (-1: the end) puts in order."""
        nodes = self.nodes
        if index >= 0 and (
            nodes[index].is_parallel or nodes[index].processor.kind != "map"
        ):
            return ()
        return tuple(
            k
            for k in self.parents(index)
            if k >= 0 and nodes[k].is_parallel and nodes[k].keeps_order
        )

    def emits_in_order(self, index: int) -> bool:
        """Return whether a processor (-1: the head) emits each lane in order."""
        if index < 0 or self.nodes[index].processor.kind != "map":
            return True  # it numbers its values itself
        node = self.nodes[index]
        ordered = self.ordered_parents(index)
        return not node.is_parallel and all(
            k in ordered or self.emits_in_order(k) for k in node.parents
        )

    def needs_every_number(self, index: int) -> bool:
        """Return whether frames are put in order further on, which needs every gap."""
        return any(self.ordered_parents(k) for k in self.below(index))

    def below(self, index: int) -> set[int]:
        """Return the processors, and -1, the end, that what one makes passes."""
        below: set[int] = set()
        waiting = [index]
        while waiting:
            children = self.nodes[waiting.pop()].children or (-1,)
            waiting += [k for k in children if k >= 0 and k not in below]
            below.update(children)
        return below

    def is_counted(self, index: int) -> bool:
        """Return whether each number that a processor has done can arrive at the end.

        So it is if all that follows are functions of whole values, which tell gaps.
        """
        nodes = [self.nodes[k] for k in {index} | self.below(index) if k >= 0]
        return all(n.processor.kind == "map" and n.inboxes == 1 for n in nodes)

    # ---- JSON

    def to_json(self) -> str:
        """Return it as JSON; functions without a module as cloudpickle in base64."""
        processors = []
        for node in self.nodes:
            code = node.processor.code()
            assert code is not None
            fields: dict[str, Any] = {"name": node.name, **code.as_dict()}
            if node.processor.key is not None:
                fields["key"] = node.processor.key.as_dict()
            if node.processor.config:
                fields["config"] = node.processor.config
            fields["settings"] = node.settings.as_dict()
            fields["parents"] = [
                self.nodes[k].name if k >= 0 else None for k in node.parents
            ]
            processors.append(fields)
        whole = {"ataraxis-pipe": VERSION, "name": self.name, "processors": processors}
        return json.dumps(whole, indent=1)


def read_json(text: str, *, allow_pickle: bool = False) -> tuple[str, list[Processor]]:
    """Return the name and the roots of a graph that `Graph.to_json` has written.

    Raises
    ------
    ValueError
        `text` is not such JSON, or holds a pickle, which runs code when it is read
        (`allow_pickle` false).
    """
    try:
        whole = json.loads(text)
        if whole.get("ataraxis-pipe") != VERSION:
            raise ValueError(f"expected ataraxis-pipe {VERSION}")
        made, roots = {}, []
        for fields in whole["processors"]:
            name = fields["name"]
            code = Code.from_dict(fields)
            key = Key.from_dict(fields["key"]) if "key" in fields else None
            is_pickled = code.pickle or (key and key.code and key.code.pickle)
            if is_pickled and not allow_pickle:
                what = "function" if code.pickle else "key="
                raise ValueError(
                    f"the {what} of {name!r} is a pickle, which runs code when it is "
                    "read: call from_json(text, allow_pickle=True) if you trust it, or "
                    "put the function into a module"
                )
            settings = ProcessorSettings.from_dict(fields.get("settings", {}))
            made[name] = p = Processor.of_code(
                name, code, settings, fields.get("config", {}), key
            )
            for parent in fields["parents"]:
                if parent is None:
                    roots.append(p)
                else:
                    made[parent].add(p)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"invalid pipe JSON: {error!r}") from error
    return whole["name"], roots


def _ordered(name: str, roots: list[Processor]) -> list[Processor]:
    """Return all processors, parents first; `ValueError` names a cycle."""
    order: list[Processor] = []
    done: set[int] = set()
    path: list[Processor] = []

    def visit(p: Processor) -> None:
        if p in path:
            ring = [*path[path.index(p) :], p]
            raise ValueError(
                f"pipe {name!r} has a cycle, " + " -> ".join(q.name for q in ring)
            )
        if id(p) in done:
            return
        path.append(p)
        for child in reversed(p.children):
            visit(child)
        path.pop()
        done.add(id(p))
        order.append(p)

    for root in reversed(roots):
        visit(root)
    return order[::-1]


# ---- the graph of a pipe as SVG, in columns from left to right

_WIDE, _HIGH, _GAP, _STEP = 150, 44, 60, 24
_STYLE = 'font-family="sans-serif" font-size="13"'
_BOX = 'fill="#eef3fb" stroke="#4a6fa5" stroke-width="1.5" rx="6"'
_LINE = 'fill="none" stroke="#4a6fa5" stroke-width="1.5" marker-end="url(#arrow)"'


def svg(graph: Graph) -> str:
    """Return the graph as SVG: processors as boxes, edges as arrows.

    Examples
    --------
    >>> from ataraxis.pipeline import Pipe, Processor
    >>> pipe = Pipe("p")
    >>> _ = pipe.add(Processor("a", func=abs)).add(Processor("b", func=abs))
    >>> svg(pipe.graph()).count("<rect")
    2
    """
    places = _places(graph)
    width = max(x for x, _ in places.values()) + _WIDE + 10
    height = max(y for _, y in places.values()) + _HIGH + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f"{_STYLE}>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a6fa5"/>'
        "</marker></defs>",
    ]
    for node in graph.nodes:
        for k in node.children:
            parts.append(_edge(places[node.index], places[k]))
    parts += [_box(node, *places[node.index]) for node in graph.nodes]
    return "".join([*parts, "</svg>"])


def _places(graph: Graph) -> dict[int, tuple[int, int]]:
    """Return the position of each processor, in a column after all of its parents."""
    column: dict[int, int] = {}
    for node in graph.nodes:
        column[node.index] = 1 + max(
            (column[k] for k in node.parents if k >= 0), default=-1
        )
    filled: dict[int, int] = {}
    places = {}
    for index, at in column.items():
        row = filled.get(at, 0)
        filled[at] = row + 1
        places[index] = (10 + at * (_WIDE + _GAP), 10 + row * (_HIGH + _STEP))
    return places


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x0, y0 = start[0] + _WIDE, start[1] + _HIGH // 2
    x1, y1 = end[0], end[1] + _HIGH // 2
    middle = (x0 + x1) // 2
    return f'<path d="M{x0} {y0}C{middle} {y0} {middle} {y1} {x1} {y1}" {_LINE}/>'


def _box(node: GraphNode, x: int, y: int) -> str:
    settings = node.settings
    notes = [f"{settings.workers} workers"] * node.is_parallel
    notes += ["ordered"] * settings.ordered
    notes += [f"split {settings.split}"] * bool(settings.split)
    text = (
        f'<text x="{x + _WIDE // 2}" y="{y + (18 if notes else 27)}" '
        f'text-anchor="middle">{escape(node.name)}</text>'
    )
    if notes:
        text += (
            f'<text x="{x + _WIDE // 2}" y="{y + 35}" text-anchor="middle" '
            f'font-size="10" fill="#555">{escape(", ".join(notes))}</text>'
        )
    return f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" {_BOX}/>{text}'


# ---- the ordering window: how far values may be ahead of the oldest unordered one

# Between a processor with several workers and the place where its results are put in
# order, the number of values is limited: a value enters such a region only while it is
# within the window of the oldest value that has not left it. Every queue of the region
# has room for a whole window. So no put in a region waits for room that only a missing
# frame could make.

WindowEnd = tuple[int, tuple[int, ...]]
"""Where frames are put in order (-1: the end), and the processors on the way there."""


def ordering_windows(graph: Graph) -> dict[tuple[int, int], tuple[WindowEnd, ...]]:
    """Return, for each edge by which values enter a region, where the region ends."""
    found: dict[tuple[int, int], list[WindowEnd]] = {}
    for last in (*range(len(graph.nodes)), -1):
        for k in graph.ordered_parents(last):
            for edge, path in _entrances(graph, k, ()):
                found.setdefault(edge, []).append((last, path))
    return {edge: tuple(ends) for edge, ends in found.items()}


def _entrances(
    graph: Graph, index: int, path: tuple[int, ...]
) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Yield the edges by which values enter a region, and the paths from there."""
    path = (index, *path)
    for source in graph.nodes[index].parents:
        if graph.emits_in_order(source):
            yield (source, index), path
        else:
            yield from _entrances(graph, source, path)


def ordered_region(graph: Graph) -> set[int]:
    """Return the processors in regions, and those at their ends (-1: the end)."""
    found: set[int] = set()
    for ends in ordering_windows(graph).values():
        for last, path in ends:
            found.update(path)
            found.add(last)
    return found
