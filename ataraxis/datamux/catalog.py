"""The collections and nodes that are described in a folder, and their recordings.

Each call reads the files again, so that new ones are found. A damaged file is left out
of lists with a warning, and raises when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.formats import format_of, read_stream
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.streaminghub.dfds import read_description
from ataraxis.datamux.streaminghub.util import Settings
from ataraxis.errors import ConfigError, ConfigWarning, SourceNotFound

# ---- the pattern of a collection: paths of recordings from and to attributes

_NAME = 250
_PLACE = re.compile(r"\{([^{}]*)\}")


class NamePattern:
    """The paths of recordings: ``format://`` and a path without suffix, with {groups}.

    Raises `ConfigError` if the text is invalid.

    Examples
    --------
    >>> pattern = NamePattern("csv://{subject}_{task}")
    >>> pattern.match("A_1"), pattern.match("notes")
    ({'subject': 'A', 'task': '1'}, None)
    >>> pattern.key({"subject": "A", "task": "1", "mode": "replay"})
    'A_1'
    """

    def __init__(self, text: str) -> None:
        self.format, found, self.path = text.partition("://")
        self.text = text
        self.groups: list[str] = []
        if not found or not self.format:
            raise ConfigError(
                f"pattern {text!r}: expected 'format://path', such as 'csv://{{subject}}'"
            )
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ConfigError(f"pattern {text!r}: its path must not leave its folder")
        expression, at = "", 0
        for place in _PLACE.finditer(self.path):
            name = place[1].partition(":")[0]
            expression += re.escape(self.path[at : place.start()])
            expression += self._group(name)
            at = place.end()
        self._expression = re.compile(expression + re.escape(self.path[at:]))

    def _group(self, name: str) -> str:
        if not name or not name.replace("_", "a").isalnum():
            raise ConfigError(
                f"pattern {self.text!r}: {{{name}}} is not the name of a group"
            )
        if name in self.groups:
            return f"(?P=_{self.groups.index(name)})"
        self.groups.append(name)
        return f"(?P<_{len(self.groups) - 1}>[^/]+?)"

    def match(self, key: str) -> dict[str, str] | None:
        """Return the attributes of a path without suffix; None if it does not match."""
        found = self._expression.fullmatch(key)
        if found is None:
            return None
        return {name: found[f"_{i}"] for i, name in enumerate(self.groups)}

    def key(self, attrs: Mapping[str, Any]) -> str:
        """Return the path of the recording with these attributes; others are ignored.

        Raises `SourceNotFound` if a group has no value, or one not possible in a path.
        """
        missing = [name for name in self.groups if name not in attrs]
        if missing:
            raise SourceNotFound(
                f"a recording of {self.text!r} needs attrs {self.groups}: missing "
                f"{', '.join(missing)} (found {[*attrs]})"
            )
        values = {name: str(attrs[name]) for name in self.groups}
        for name, value in values.items():
            is_odd = any(char in value for char in "/\\\0") or value in ("", ".", "..")
            if is_odd or len(value) > _NAME:
                raise SourceNotFound(
                    f"attrs[{name!r}] is {value[:200]!r}: not valid in a file's name"
                )
        return _PLACE.sub(lambda place: values[place[1].partition(":")[0]], self.path)


# ---- the catalog

_SUFFIXES = (".json", ".yaml", ".yml")


class Catalog:
    """The contents of the folders of metadata and data that `settings` name.

    If `is_confined`, it serves untrusted clients: no file outside the two folders is
    opened, and messages have names instead of paths.
    """

    def __init__(self, settings: Settings, *, is_confined: bool = False) -> None:
        self.settings = settings
        self.is_confined = is_confined
        self.data = Folder(settings.data_dir, is_confined=is_confined)
        self._meta = Folder(settings.meta_dir, is_confined=is_confined)
        self._meta_shown = "this server" if is_confined else str(settings.meta_dir)

    def node_file(self, node_id: str) -> Path | None:
        """Return the file that describes a node, if one does."""
        if not self.settings.meta_dir.is_dir():
            return None
        name = self._files("node").get(node_id)
        return None if name is None else Path(self.settings.meta_dir) / name

    # ---- collections

    def collections(self) -> list[Collection]:
        """Return every readable collection, sorted by id."""
        found = []
        for collection_id, name in self._files("collection").items():
            try:
                found.append(self._collection(collection_id, name))
            except (ConfigError, OSError) as error:
                warnings.warn(
                    f"collection {collection_id!r} is left out: {error}",
                    ConfigWarning,
                    stacklevel=4,
                )
        return found

    def collection(self, collection_id: str) -> Collection:
        """Return a collection; raise `SourceNotFound`, or `ConfigError` if damaged."""
        paths = self._files("collection")
        name = pick(paths, collection_id, "collection", self._meta_shown)
        return self._collection(collection_id, name)

    def _collection(self, collection_id: str, name: str) -> Collection:
        collection = read_description(Collection, name, self._meta)
        collection.id = collection_id
        try:
            format_of(NamePattern(collection.pattern).format)
        except ConfigError as error:
            raise ConfigError(f"{self._meta.shown(name)}: pattern: {error}") from error
        return collection

    def _files(self, kind: str) -> dict[str, str]:
        """Return files ``<id>.<kind>.json`` or ``.yaml`` by id, sorted."""
        folder = self.settings.meta_dir
        if not self._meta.is_folder():
            raise FileNotFoundError(
                2,
                "the folder of metadata does not exist; make it with 'python -m "
                "ataraxis.datamux init', or give API(meta_dir=...)",
                self._meta.shown() if self.is_confined else str(folder),
            )
        found = {}
        for file in sorted(os.listdir(folder), reverse=True):
            stem, dot, ending = file.rpartition(f".{kind}.")
            is_ours = dot and stem and f".{ending}" in _SUFFIXES
            if is_ours and self._meta.is_there(file):
                found[stem] = file  # .json takes precedence over .yaml
        return dict(sorted(found.items()))

    # ---- recordings

    def streams(self, collection_id: str) -> list[Stream]:
        """Return each stream of each recording of a collection.

        Their `attrs` are the groups of the pattern, attributes of the file, and
        ``collection``, ``id``, ``mode``. Sorted by the groups.
        """
        collection = self.collection(collection_id)
        pattern = NamePattern(collection.pattern)
        folder = self._folder(collection)
        found: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []
        for key, own in format_of(pattern.format).keys(folder):
            groups = pattern.match(key)
            if groups is not None:
                found.append((tuple(map(_natural, groups.values())), {**own, **groups}))
        listed = []
        for _, attrs in sorted(found, key=lambda item: item[0]):
            for stream_id, stream in collection.streams.items():
                listed.append(_placed(stream, collection_id, stream_id, attrs))
        return listed

    def recording(
        self, collection_id: str, stream_id: str, attrs: Mapping[str, Any]
    ) -> Recording:
        """Read one stream of one recording; raises as `DataMuxApi.recording`."""
        collection = self.collection(collection_id)
        declared = pick(
            collection.streams, stream_id, "stream", f"collection {collection_id!r}"
        )
        pattern = NamePattern(collection.pattern)
        key = pattern.key(attrs)
        folder = self._folder(collection)
        groups = pattern.match(key) or {}
        stream = _placed(declared, collection_id, stream_id, {**attrs, **groups})
        where = f"{folder.shown(key)} ({pattern.format})"
        try:
            made = format_of(pattern.format)
            return read_stream(made, folder, key, stream_id, stream, where)
        except FileNotFoundError as error:
            raise SourceNotFound(
                f"collection {collection_id!r} has no recording {groups or key!r}: "
                f"{error.filename} does not exist; list_collection_streams lists them"
            ) from error

    def _folder(self, collection: Collection) -> Folder:
        if not self.data.is_folder(collection.name):
            raise SourceNotFound(
                f"collection {collection.id!r}: its folder "
                f"{self.data.shown(collection.name)} does not exist; put the "
                "recordings there, or set data_dir"
            )
        return self.data.below(collection.name)

    # ---- nodes

    def nodes(self) -> list[Node]:
        """Return the nodes of ``*.node.json`` or ``.yaml`` files."""
        found = []
        if not self._meta.is_folder():
            return []
        for node_id, name in self._files("node").items():
            try:
                node = read_description(Node, name, self._meta)
                node.id = node_id
                found.append(node)
            except (ConfigError, OSError) as error:
                warnings.warn(
                    f"node {node_id!r} is left out: {error}",
                    ConfigWarning,
                    stacklevel=5,
                )
        return found


def pick(
    named: Mapping[str, Any] | Iterable[str], name: str, kind: str, of: str
) -> Any:
    """Return the item of a name, or raise `SourceNotFound` with the known names."""
    if isinstance(named, Mapping) and name in named:
        return named[name]
    names = [*named]
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    raise SourceNotFound(f"no {kind} {name!r} in {of}: found {shown or 'none'}{hint}")


def made(homes: Mapping[str, str], name: str, kind: str) -> Any:
    """Return an instance of the class of a name, given as ``module:Class``."""
    module, _, what = pick(homes, name, kind, "ataraxis").partition(":")
    return getattr(importlib.import_module(module), what)()


def _placed(
    stream: Stream, collection_id: str, stream_id: str, attrs: Mapping[str, Any]
) -> Stream:
    """Return a copy of a stream with the attributes of its recording."""
    placed = stream.copy()
    if placed.node is None:
        placed.node = Node(id=collection_id)
    placed.attrs.update(attrs)
    placed.attrs.update(collection=collection_id, id=stream_id, mode="replay")
    return placed


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort numbers as numbers, before words."""
    return (False, int(value), value) if value.isdecimal() else (True, 0, value)
