"""Placement: which host runs each worker of a pipe."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ataraxis.pipeline.graph import Graph, GraphNode

_LOCAL = "localhost"


@dataclass(frozen=True)
class Host:
    """A host that an engine can start workers on.

    Examples
    --------
    >>> Host("gpu", ("cuda",), 16).tags
    ('cuda',)
    """

    name: str
    """Its name; of this machine alone, 'localhost'."""
    tags: tuple[str, ...] = ()
    """What it has, as ``cuda``; see ``tag=`` of `Processor`."""
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Cores that workers may use."""


def candidates(node: GraphNode, hosts: Sequence[Host]) -> tuple[str, ...]:
    """Return the hosts that may run a processor: by ``host=``, ``tag=``, or the first.

    An engine with one host runs everything there: a pipe needs no change for it.

    Raises
    ------
    ValueError
        No host has the name or the tag.
    """
    settings, names = node.settings, [host.name for host in hosts]
    if len(hosts) == 1 or settings.host == _LOCAL:
        return (names[0],)
    if settings.host is not None:
        if settings.host not in names:
            raise ValueError(
                f"processor {node.name!r} has host={settings.host!r}, which is not a "
                f"host of this engine; it has {', '.join(names)}"
            )
        return (settings.host,)
    if settings.tag is None:
        return (names[0],)
    found = tuple(host.name for host in hosts if settings.tag in host.tags)
    if not found:
        listed = "; ".join(f"{h.name}: {', '.join(h.tags) or 'none'}" for h in hosts)
        raise ValueError(
            f"processor {node.name!r} has tag={settings.tag!r}, which no host of this "
            f"engine has; their tags are {listed}"
        )
    return found


def place(graph: Graph, hosts: Sequence[Host]) -> dict[int, str]:
    """Return the host of each worker, by its row of the board.

    Workers of a processor with ``tag=`` go to the host that has the most free cores.

    Raises
    ------
    ValueError
        No host has the name or the tag of a processor.
    """
    found: dict[int, str] = {}
    load: Counter[str] = Counter()
    cores = {host.name: host.cores for host in hosts}
    for node in graph.nodes:
        allowed = candidates(node, hosts)
        for _ in range(node.settings.workers):
            host = min(allowed, key=lambda name: load[name] / cores[name])
            load[host] += 1
            found[len(found)] = host
    return found
