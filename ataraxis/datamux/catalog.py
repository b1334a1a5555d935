"""The collections and nodes that are described in a folder, and their recordings.

Files are looked at anew at each question, so that what was added is found. A file
that is damaged spoils only itself: it is left out with a warning, and asking for it
says why.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.dfds import check_all, read_json, read_node
from ataraxis.datamux.formats import format_of
from ataraxis.datamux.pattern import Pattern
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.settings import Settings
from ataraxis.errors import ConfigError, ConfigWarning, SourceNotFound

_SUFFIXES = (".json", ".yaml", ".yml")


class Catalog:
    """What a metadata folder describes.

    Parameters
    ----------
    settings : Settings
        Where metadata and data are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    # ---- collections

    def collections(self) -> list[Collection]:
        """Return every collection that can be read, sorted by id."""
        found = []
        for collection_id, path in self._files("collection").items():
            try:
                found.append(self._collection(collection_id, path))
            except (ConfigError, OSError) as error:
                warnings.warn(
                    f"collection {collection_id!r} is left out: {error}",
                    ConfigWarning,
                    stacklevel=3,
                )
        return found

    def collection(self, collection_id: str) -> Collection:
        """Return one collection.

        Raises
        ------
        SourceNotFound
            No file describes it.
        ConfigError
            Its file is damaged.
        """
        paths = self._files("collection")
        path = pick(paths, collection_id, "collection", str(self.settings.meta_dir))
        return self._collection(collection_id, path)

    def _collection(self, collection_id: str, path: Path) -> Collection:
        if path.suffix == ".json":
            collection = read_json(Collection, path)
        else:
            collection = Collection.from_yaml(path)
            check_all(collection, str(path))
        collection.id = collection_id
        try:
            format_of(Pattern(collection.pattern).format)
        except ConfigError as error:
            raise ConfigError(f"{path}: pattern: {error}") from error
        return collection

    def _files(self, kind: str) -> dict[str, Path]:
        """Files ``<id>.<kind>.json`` or ``.yaml``, by id, sorted."""
        folder = self.settings.meta_dir
        if not folder.is_dir():
            raise FileNotFoundError(
                2,
                "the folder of metadata is not there; make it with 'python -m "
                "ataraxis.datamux init', or give API(meta_dir=...)",
                str(folder),
            )
        found = {}
        for path in sorted(folder.iterdir(), reverse=True):
            stem, dot, ending = path.name.rpartition(f".{kind}.")
            if dot and stem and f".{ending}" in _SUFFIXES and path.is_file():
                found[stem] = path  # .json wins over .yaml of one id
        return dict(sorted(found.items()))

    # ---- recordings

    def streams(self, collection_id: str) -> list[Stream]:
        """Return each stream of each recording of a collection.

        Their `attrs` say which: the groups of the pattern, what the file itself says,
        and ``collection``, ``id``, ``mode``. Sorted by the groups, in order.
        """
        collection = self.collection(collection_id)
        pattern = Pattern(collection.pattern)
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
        """Read one stream of one recording.

        Raises
        ------
        SourceNotFound
            There is no such collection, stream or recording.
        RecordingError
            The file is damaged, or is not what is declared.
        """
        collection = self.collection(collection_id)
        declared = pick(
            collection.streams, stream_id, "stream", f"collection {collection_id!r}"
        )
        pattern = Pattern(collection.pattern)
        key = pattern.key(attrs)
        folder = self._folder(collection)
        groups = pattern.match(key) or {}
        stream = _placed(declared, collection_id, stream_id, {**attrs, **groups})
        try:
            columns = format_of(pattern.format).columns(folder, key, stream_id, stream)
        except FileNotFoundError as error:
            raise SourceNotFound(
                f"collection {collection_id!r} has no recording {groups or key!r}: "
                f"there is no {error.filename}; list_collection_streams says what is"
            ) from error
        return Recording.of(stream, columns, f"{folder / key} ({pattern.format})")

    def _folder(self, collection: Collection) -> Path:
        folder = self.settings.data_dir / collection.name
        if not folder.is_dir():
            raise SourceNotFound(
                f"collection {collection.id!r}: its folder {folder} is not there; put "
                "the recordings there, or set data_dir"
            )
        return folder

    # ---- nodes

    def nodes(self) -> list[Node]:
        """Return the nodes that are described by ``*.node.json`` or ``.yaml`` files."""
        found = []
        if not self.settings.meta_dir.is_dir():
            return []
        for node_id, path in self._files("node").items():
            try:
                node = read_node(path)
                node.id = node_id
                found.append(node)
            except (ConfigError, OSError) as error:
                warnings.warn(
                    f"node {node_id!r} is left out: {error}",
                    ConfigWarning,
                    stacklevel=3,
                )
        return found


def pick(
    named: Mapping[str, Any] | Iterable[str], name: str, kind: str, of: str
) -> Any:
    """Return the one of a name, or raise `SourceNotFound` with what there is."""
    if isinstance(named, Mapping) and name in named:
        return named[name]
    names = [*named]
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    raise SourceNotFound(f"no {kind} {name!r} in {of}: found {shown or 'none'}{hint}")


def made(homes: Mapping[str, str], name: str, kind: str) -> Any:
    """Make the one of a name, of those whose ``module:Class`` is given; as `pick`."""
    module, _, what = pick(homes, name, kind, "ataraxis").partition(":")
    return getattr(importlib.import_module(module), what)()


def _placed(
    stream: Stream, collection_id: str, stream_id: str, attrs: Mapping[str, Any]
) -> Stream:
    """Return a copy of a stream that says which recording it is of."""
    placed = stream.copy()
    if placed.node is None:
        placed.node = Node(id=collection_id)
    placed.attrs.update(attrs)
    placed.attrs.update(collection=collection_id, id=stream_id, mode="replay")
    return placed


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort numbers as numbers, before words."""
    return (False, int(value), value) if value.isdecimal() else (True, 0, value)
