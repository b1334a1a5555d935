"""The live nodes of this machine: those that drivers find, and those that files say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ataraxis.datamux.catalog import Catalog, pick
from ataraxis.datamux.description import Node, Stream
from ataraxis.datamux.registry import BUILT_IN, kind_of, kinds
from ataraxis.datamux.source import Driver, Source
from ataraxis.errors import ConfigError, ConfigWarning, SourceNotFound

LOOK_S = 1.0


class Live:
    """Finds live nodes and opens their streams; drivers are loaded at first use.

    Parameters
    ----------
    catalog : Catalog
        Whose ``*.node.yaml`` and ``.json`` files describe further nodes.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._drivers: dict[str, Driver] = {}

    def nodes(self, timeout: float = LOOK_S) -> list[Node]:
        """Return every node; a driver that fails is left out with a warning."""
        found = {}
        for kind in kinds().values():
            if not kind.is_here:
                continue
            try:
                for node in self._driver(kind.name).nodes(timeout):
                    found[node.id] = node
            except Exception as error:  # a plug-in raises what it likes
                warnings.warn(
                    f"sources of kind {kind.name!r} are left out: "
                    f"{type(error).__name__}: {error}",
                    ConfigWarning,
                    stacklevel=3,
                )
        for node in self._catalog.nodes():
            found[node.id] = node
        return list(found.values())

    def node(self, node_id: str, timeout: float = LOOK_S) -> Node:
        """Return the node of an id.

        Raises
        ------
        SourceNotFound
            There is none; if its package is missing, what to install.
        """
        nodes = {node.id: node for node in self._catalog.nodes()}
        if node_id not in nodes and node_id in BUILT_IN and kind_of(node_id).is_here:
            found = self._driver(node_id).nodes(timeout)
            nodes.update((node.id, node) for node in found)
        if node_id not in nodes:
            nodes = {node.id: node for node in self.nodes(timeout)}
        if node_id not in nodes:
            kind = kinds().get(node_id)
            if kind is not None and not kind.is_here:
                raise SourceNotFound(
                    f"node {node_id!r} needs {kind.package}, which is not installed: "
                    f"{kind.install}"
                )
        node: Node = pick(nodes, node_id, "live node", "this machine")
        return node

    def streams(self, node_id: str, timeout: float = LOOK_S) -> list[Stream]:
        """Return the streams of a node, sorted by id; their `attrs` say which."""
        node = self.node(node_id, timeout)
        found = self._driver_of(node).streams(node, timeout)
        return [_placed(stream, node, key) for key, stream in sorted(found.items())]

    def source(self, node_id: str, stream_id: str, attrs: Mapping[str, Any]) -> Source:
        """Return the source of a stream, not opened yet."""
        node = self.node(node_id)
        return self._driver_of(node).source(node, stream_id, attrs)

    def _driver_of(self, node: Node) -> Driver:
        scheme = urlsplit(node.uri or "").scheme
        if not scheme:
            raise ConfigError(
                f"node {node.id!r} has no uri such as serial:///dev/ttyACM0: its file "
                "says what it gives and not where it is"
            )
        return self._driver(scheme)

    def _driver(self, name: str) -> Driver:
        if name not in self._drivers:
            self._drivers[name] = kind_of(name).driver()
        return self._drivers[name]


def _placed(stream: Stream, node: Node, stream_id: str) -> Stream:
    placed = stream.copy()
    placed.node = Node(id=node.id, device=node.device, uri=node.uri)
    placed.attrs.update(id=stream_id, mode="proxy", node=node.id)
    return placed
