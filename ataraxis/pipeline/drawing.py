"""The graph of a pipe as SVG, in columns from left to right."""

from __future__ import annotations

from html import escape

from ataraxis.pipeline.graph import Graph, Node

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


def _box(node: Node, x: int, y: int) -> str:
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
