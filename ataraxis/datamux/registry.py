"""The kinds of live sources, built in or plug-ins, loaded at first use."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from ataraxis.datamux.catalog import Catalog, pick
from ataraxis.datamux.description import Node, Stream
from ataraxis.datamux.price import Price
from ataraxis.datamux.source import Driver, Source
from ataraxis.datamux.streaminghub.dfds import read_node
from ataraxis.errors import ConfigError, ConfigWarning, SourceNotFound

GROUP = "ataraxis.sources"
NODE_FILES = (".node.yaml", ".node.yml")


@dataclass(frozen=True)
class SourceKind:
    """A kind of source."""

    name: str
    """Name, also the scheme of its nodes' uri."""
    summary: str
    """What the kind reads."""
    home: str
    """``module:class`` of its driver."""
    package: str = ""
    """Module that the driver needs; empty: none."""
    install: str = ""
    """Command that installs the module."""

    @property
    def is_here(self) -> bool:
        """Whether the module is installed; nothing is imported."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def driver(self) -> Driver:
        """Load the driver."""
        module, _, name = self.home.partition(":")
        return cast(Driver, getattr(importlib.import_module(module), name)())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "is_here": self.is_here}


def _built_in(name: str, summary: str, kind: str, package: str = "") -> SourceKind:
    home = f"ataraxis.datamux.sources.{name}:{kind}"
    install = f'pip install "ataraxis[{name}]"' if package else ""
    return SourceKind(name, summary, home, package, install)


# On Linux telemetry reads /proc.
_HOST = "" if os.path.exists("/proc/stat") else "psutil"
BUILT_IN = {
    kind.name: kind
    for kind in (
        _built_in("camera", "cameras and video files", "Cameras", "cv2"),
        _built_in("recording", "recordings, played as if live", "Recorded"),
        _built_in("lsl", "the Lab Streaming Layer", "Lsl", "pylsl"),
        _built_in("serial", "boards on a serial line", "Serial", "serial"),
        _built_in("shared", "streams of ataraxis in this context", "Shared"),
        _built_in("sim", "simulated streams", "Simulated"),
        _built_in("telemetry", "this machine itself", "Telemetry", _HOST),
    )
}
"""The built-in kinds by name."""


def kinds() -> dict[str, SourceKind]:
    """Return every kind of source by name, built in or of a plug-in.

    A plug-in with a built-in name is left out with a warning.
    """
    found = dict(BUILT_IN)
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in BUILT_IN:
            warnings.warn(
                f"plug-in {point.value} is left out: {point.name!r} is built in",
                ConfigWarning,
                stacklevel=2,
            )
            continue
        of = point.dist.name if point.dist is not None else "a plug-in"
        found[point.name] = SourceKind(point.name, f"from {of}", point.value)
    return dict(sorted(found.items()))


def kind_of(name: str) -> SourceKind:
    """Return the kind of a name; raise `SourceNotFound` if it does not exist."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    return cast(SourceKind, pick(kinds(), name, "kind of source", "ataraxis sources"))


# ---- the live nodes of this machine: found by drivers, or described by files

LOOK_S = 1.0


class Live:
    """Finds live nodes and opens their streams; drivers are loaded at first use.

    The ``*.node.yaml`` and ``.json`` files of the catalog describe further nodes.
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
            except Exception as error:  # a plug-in may raise anything
                warnings.warn(
                    f"sources of kind {kind.name!r} are left out: "
                    f"{type(error).__name__}: {error}",
                    ConfigWarning,
                    stacklevel=4,
                )
        for node in self._catalog.nodes():
            found[node.id] = node
        return list(found.values())

    def node(self, node_id: str, timeout: float = LOOK_S) -> Node:
        """Return the node with an id, at a URI, or of a node file by its path.

        Raises `SourceNotFound`; if a package is missing, it names which to install.
        """
        if not self._catalog.is_confined:  # clients of a server give ids only
            if node_id.endswith(NODE_FILES):
                return read_node(Path(node_id))
            if "://" in node_id:
                return Node(id=node_id, uri=node_id)
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
        found_node: Node = pick(nodes, node_id, "live node", "this machine")
        return found_node

    def streams(self, node_id: str, timeout: float = LOOK_S) -> list[Stream]:
        """Return the streams of a node, sorted by id; their `attrs` identify them."""
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
                f"node {node.id!r} has no uri: its file must also give the address of "
                "its streams, such as uri: serial:///dev/ttyACM0"
            )
        return self._driver(scheme)

    def _driver(self, name: str) -> Driver:
        if name not in self._drivers:
            made = kind_of(name).driver()
            confine = getattr(made, "confine", None)
            if self._catalog.is_confined and confine is not None:
                confine(self._catalog.data)
            self._drivers[name] = made
        return self._drivers[name]


def opened_price(source: Source) -> Price:
    """Return the price of an open source that has no `price`, by its labels."""
    labels = source.labels
    rate = source.stream.rate_hz or 0.0
    return Price(
        bytes_s=rate * labels.nbytes, samples_hz=rate, memory_bytes=2 * labels.nbytes
    )


def check_options(driver: Driver, attrs: Mapping[str, Any], what: str) -> None:
    """Check attributes against those a driver lists in ``options``, if it does.

    Raises `ConfigError` for an unknown one, with a list of the known ones.
    """
    known: frozenset[str] | None = getattr(driver, "options", None)
    if known is None:
        return
    for name in attrs:
        if name not in known:
            close = difflib.get_close_matches(str(name), [*known], 1, 0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{what}: unknown attribute {name!r}: known are "
                f"{', '.join(map(repr, sorted(known))) or 'none'}{hint}"
            )


def _placed(stream: Stream, node: Node, stream_id: str) -> Stream:
    placed = stream.copy()
    placed.node = Node(id=node.id, device=node.device, uri=node.uri)
    placed.attrs.update(id=stream_id, mode="proxy", node=node.id)
    return placed
