"""The sources of the logs at a path, one node per stream or source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis.log.archive import open_source
from ataraxis.log.journal.page import files_of
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.selection import LogSource, SourceInfo
from ataraxis.log.series import Series


@dataclass(frozen=True)
class LogNode:
    """One source of a log."""

    name: str
    """Name of its stream; ``source_7`` if it has none."""
    info: SourceInfo
    """Number, name and labels."""
    log: LogSource
    """The log it is in."""
    journal: str | None
    """The journal it is in, if it is one."""
    home: Nodes
    """The open nodes it belongs to."""

    def series(self, **options: Any) -> Series:
        """Open it; the options are those of `Series`."""
        series = Series(self.log, self.info, **options)
        self.home.opened.append(series)
        return series


class Nodes(Sequence[LogNode]):
    """The nodes at a path, open until `close`; with `name`, of this journal only.

    Raises `FileNotFoundError` if the path has no log.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self._logs: list[LogSource] = []
        self._nodes: list[LogNode] = []
        self.opened: list[Series] = []
        """Series to close with it."""
        self._name = name
        if name is None and not JournalReader.accepts(self.path):
            self._add(open_source(path), None, False)
            return
        journals = list(files_of(self.path, name)) if self.path.exists() else []
        if not journals:
            open_source(path, name)  # raises
        for journal in journals:
            self._add(open_source(path, journal), journal, len(journals) > 1)

    def _add(
        self, log: LogSource, journal: str | None, is_one_of_several: bool
    ) -> None:
        self._logs.append(log)
        sources = {
            number: info
            for number, info in log.sources.items()
            if info.labels is not None or len(log.extents(number))
        }
        for number, info in sources.items():
            own = info.name or f"source_{number}"
            if is_one_of_several and journal is not None:
                if len(sources) == 1:
                    own = info.name or journal
                elif info.name is None:
                    own = f"{journal}/{own}"
            own = own.strip("/") or f"source_{number}"
            if any(node.name == own for node in self._nodes):
                own = f"{own}_{number}" if journal is None else f"{journal}/{own}"
            self._nodes.append(LogNode(own, info, log, journal, self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Nodes, (self.path, self._name)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, key: Any) -> Any:
        return self._nodes[key]

    def find(self, source: int | str | None = None) -> LogNode:
        """Return one by name or number; without either, the only one.

        Raises `ValueError` if there are several, `KeyError` if it does not exist; the
        message lists them.
        """
        if source is None:
            found = self._nodes
        elif isinstance(source, str):
            wanted = source.strip("/")
            found = [n for n in self._nodes if wanted in (n.name, n.info.name)][:1]
        else:
            found = [node for node in self._nodes if node.info.number == source]
        if len(found) == 1:
            return found[0]
        names = [node.name for node in self._nodes]
        if len(found) > 1:
            raise ValueError(
                f"{self.path} has several sources {names}: choose one with "
                f"source={names[0]!r}, or open all with xarray.open_datatree()"
            )
        if source is None:
            raise ValueError(f"{self.path} is a log without entries")
        raise KeyError(f"{self.path} has no source {source!r}: it has {names}")

    def close(self) -> None:
        """Close all files; what was read stays valid."""
        for series in self.opened:
            series.close()
        for log in self._logs:
            log.close()
