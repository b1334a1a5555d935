"""The graph of a pipe as a value: processors, edges, what is wrong with them; JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

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
    """Processors whose output it has; the pipe itself is -1."""
    children: tuple[int, ...] = ()
    """Processors that have its output."""

    @property
    def name(self) -> str:
        """The processor's name."""
        return self.processor.name

    @property
    def settings(self) -> ProcessorSettings:
        """The processor's settings."""
        return self.processor.settings

    @property
    def inboxes(self) -> int:
        """How many input queues it has: one for all workers, or one each."""
        is_shared = self.settings.split is None and self.processor.key is None
        return 1 if is_shared else self.settings.workers

    @property
    def is_parallel(self) -> bool:
        """Whether what it emits may overtake what it emitted before."""
        return self.settings.workers > 1

    @property
    def keeps_order(self) -> bool:
        """Whether those who have its output shall have it in order."""
        return self.settings.ordered or self.settings.split is not None


@dataclass(frozen=True)
class Graph:
    """Processors in an order in which each comes after all of its parents."""

    name: str
    nodes: tuple[GraphNode, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, roots: Iterable[Processor]) -> Graph:
        """Walk from the roots down, and check everything.

        Raises
        ------
        ValueError
            There is nothing, a cycle, two processors of one name, one without code, or
            settings that do not go together. All problems are named at once.
        """
        roots = list(roots)
        if not roots:
            raise ValueError(f"pipe {name!r} is empty: pipe.add(Processor(...))")
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
        made = cls(name, nodes, {node.name: node.index for node in nodes})
        if problems := made.problems():
            raise ValueError(f"pipe {name!r} cannot run: " + "; ".join(problems))
        return made

    def problems(self) -> list[str]:
        """Say everything that is wrong."""
        found = []
        names = [node.name for node in self.nodes]
        for name in sorted({n for n in names if names.count(n) > 1}):
            found.append(f"two processors have the name {name!r}: rename one")
        for node in self.nodes:
            found += self._problems_of(node)
        return found

    def _problems_of(self, node: GraphNode) -> list[str]:
        found, said, kind = [], node.settings, node.processor.kind
        if kind is None:
            found.append(f"{node.name!r} has nothing to run: give func= or entry=")
        is_map = kind == "map"
        if kind == "source" and node.parents != (-1,):
            found.append(f"{node.name!r} takes no value, but has parents")
        if (said.ordered or said.split or said.overlap) and not is_map:
            found.append(
                f"{node.name!r}: ordered=, split= and overlap= are for functions of a "
                "value"
            )
        if node.processor.key is not None:
            if not is_map:
                found.append(f"{node.name!r}: key= is for functions of a value")
            if said.overlap or said.split:
                found.append(
                    f"{node.name!r}: key= goes with neither overlap= nor split=, which "
                    "share blocks out in ways of their own"
                )
        if said.drops and (
            said.ordered
            or self.resequences(node.index)
            or (
                self.needs_every_number(node.index)
                and not self.emits_in_order(node.index)
            )
        ):
            found.append(
                f"{node.name!r}: order needs on_full='block' from where values are "
                "shared out to where they are in order again; drop before that"
            )
        if said.overlap or said.split:
            for k in node.parents:
                if k >= 0 and self.nodes[k].settings.workers > 1:
                    found.append(
                        f"{node.name!r}: overlap= and split= need one worker before "
                        f"them, and {self.nodes[k].name!r} has several: put a "
                        "processor of one worker between them"
                    )
        if node.keeps_order and node.is_parallel:
            for k in node.children:
                if said.split and self.nodes[k].settings.workers > 1:
                    found.append(
                        f"{self.nodes[k].name!r} follows split= of {node.name!r} and "
                        "needs workers=1, where the parts are joined"
                    )
        return found

    def parallel_heads(self) -> list[str]:
        """Return the first processors that all have every value and join nowhere.

        As many results of each value come out: what ``pipe.add(a); pipe.add(b)`` makes,
        which looks like a chain.
        """
        heads = [
            node
            for node in self.nodes
            if -1 in node.parents and node.processor.kind == "map"
        ]
        has_leaf = any(not node.children for node in heads)
        return [node.name for node in heads] if len(heads) > 1 and has_leaf else []

    # ---- order

    def resequences(self, index: int) -> bool:
        """Whether a processor (-1: whoever has the results) puts frames in order."""
        if index >= 0 and self.nodes[index].settings.workers > 1:
            return False
        if index >= 0 and self.nodes[index].processor.kind != "map":
            return False
        before = self.leaves() if index < 0 else self.nodes[index].parents
        return any(
            k >= 0 and self.nodes[k].is_parallel and self.nodes[k].keeps_order
            for k in before
        )

    def ordered_parents(self, index: int) -> tuple[int, ...]:
        """Return whose frames a processor (-1: the end) puts in order."""
        if not self.resequences(index):
            return ()
        before = self.leaves() if index < 0 else self.nodes[index].parents
        nodes = self.nodes
        return tuple(
            k
            for k in before
            if k >= 0 and nodes[k].is_parallel and nodes[k].keeps_order
        )

    def emits_in_order(self, index: int) -> bool:
        """Whether what a processor (-1: the head) emits comes in order of its lanes."""
        if index < 0 or self.nodes[index].processor.kind != "map":
            return True  # it numbers what it emits itself
        node = self.nodes[index]
        ordered = self.ordered_parents(index)
        return not node.is_parallel and all(
            k in ordered or self.emits_in_order(k) for k in node.parents
        )

    def needs_every_number(self, index: int) -> bool:
        """Whether somebody below puts frames in order, and so must know of gaps."""
        waiting, seen = [*self.nodes[index].children], set()
        if not self.nodes[index].children and self.resequences(-1):
            return True
        while waiting:
            k = waiting.pop()
            if k in seen:
                continue
            seen.add(k)
            if self.resequences(k):
                return True
            waiting += self.nodes[k].children
            if not self.nodes[k].children and self.resequences(-1):
                return True
        return False

    def leaves(self) -> list[int]:
        """Return those without children."""
        return [node.index for node in self.nodes if not node.children]

    # ---- JSON

    def to_json(self) -> str:
        """Write it; functions that cannot be imported go as cloudpickle, base64."""
        processors = []
        for node in self.nodes:
            code = node.processor.code()
            assert code is not None
            said: dict[str, Any] = {"name": node.name, "kind": code.kind}
            for key in ("name", "entry"):
                if getattr(code, key):
                    said["function" if key == "name" else key] = getattr(code, key)
            if code.pickle:
                said["pickle"] = base64.b64encode(code.pickle).decode()
            if node.processor.key is not None:
                said["key"] = node.processor.key.as_dict()
            if node.processor.config:
                said["config"] = node.processor.config
            said["settings"] = node.settings.as_dict()
            said["parents"] = [
                self.nodes[k].name if k >= 0 else None for k in node.parents
            ]
            processors.append(said)
        whole = {"ataraxis-pipe": VERSION, "name": self.name, "processors": processors}
        return json.dumps(whole, indent=1)


def read_json(text: str, *, allow_pickle: bool = False) -> tuple[str, list[Processor]]:
    """Read what `Graph.to_json` wrote: the name, and the roots.

    Raises
    ------
    ValueError
        It is no such text, or holds a pickle, which runs code when it is read
        (`allow_pickle` false).
    """
    try:
        whole = json.loads(text)
        if whole.get("ataraxis-pipe") != VERSION:
            raise ValueError(f"expected ataraxis-pipe {VERSION}")
        made, roots = {}, []
        for said in whole["processors"]:
            pickle = base64.b64decode(said.get("pickle", ""))
            key = Key.from_dict(said["key"]) if "key" in said else None
            is_pickled = pickle or (key and key.code and key.code.pickle)
            if is_pickled and not allow_pickle:
                what = "function" if pickle else "key="
                raise ValueError(
                    f"the {what} of {said['name']!r} is a pickle, which runs code "
                    "when it is read: from_json(text, allow_pickle=True) if you trust "
                    "it, or have the function in a module"
                )
            code = Code(
                said["kind"], said.get("function", ""), pickle, said.get("entry", "")
            )
            settings = ProcessorSettings.from_dict(said.get("settings", {}))
            made[said["name"]] = p = Processor.of_code(
                said["name"], code, settings, said.get("config", {}), key
            )
            for parent in said["parents"]:
                if parent is None:
                    roots.append(p)
                else:
                    made[parent].add(p)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no pipe in JSON: {error!r}") from error
    return whole["name"], roots


def _ordered(name: str, roots: list[Processor]) -> list[Processor]:
    """Return all processors, parents first; refuse a cycle, naming it."""
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
    """Draw processors as boxes, and edges as arrows.

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
    """Give each processor a column behind all of its parents."""
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
    said = node.settings
    notes = [f"{said.workers} workers"] * (said.workers > 1)
    notes += ["ordered"] * said.ordered + [f"split {said.split}"] * bool(said.split)
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


# ---- windows: how far values may be ahead of the oldest one that is not in order yet

# Where several workers overtake each other, and somebody behind puts frames in order,
# all that is on its way between the two is bounded: whoever starts values into such a
# stretch waits until its end has come near enough. Every queue in between has room for
# all of it. So nobody in a stretch ever waits for room that only a missing frame could
# make.

End = tuple[int, tuple[int, ...]]
"""Who puts frames in order (-1: the end), and through which processors they go."""


def windows(graph: Graph) -> dict[tuple[int, int], tuple[End, ...]]:
    """Return, of each edge by which values enter a stretch, where the stretches end."""
    found: dict[tuple[int, int], list[End]] = {}
    for last in (*range(len(graph.nodes)), -1):
        for k in graph.ordered_parents(last):
            for edge, path in _entrances(graph, k, ()):
                found.setdefault(edge, []).append((last, path))
    return {edge: tuple(ends) for edge, ends in found.items()}


def _entrances(
    graph: Graph, index: int, path: tuple[int, ...]
) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Go from a processor of a stretch up to where values enter it, every way."""
    path = (index, *path)
    for source in graph.nodes[index].parents:
        if graph.emits_in_order(source):
            yield (source, index), path
        else:
            yield from _entrances(graph, source, path)


def ordered_region(graph: Graph) -> set[int]:
    """Return the processors within stretches, and those at their ends (-1: the end)."""
    found: set[int] = set()
    for ends in windows(graph).values():
        for last, path in ends:
            found.update(path)
            found.add(last)
    return found
