"""Windows: how far values may be ahead of the oldest one that is not in order yet.

Where several workers overtake each other, and somebody behind puts frames in order, all
that is on its way between the two is bounded: whoever starts values into such a stretch
waits until its end has come near enough. Every queue in between has room for all of it.
So nobody in a stretch ever waits for room that only a missing frame could make.
"""

from __future__ import annotations

from collections.abc import Iterator

from ataraxis.pipeline.graph import Graph

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


def stretch(graph: Graph) -> set[int]:
    """Return the processors within stretches, and those at their ends (-1: the end)."""
    found: set[int] = set()
    for ends in windows(graph).values():
        for last, path in ends:
            found.update(path)
            found.add(last)
    return found
