"""Transforms that run on a server: names in a registry, never code from a client."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick

GROUP = "ataraxis.transforms"
Transform = Callable[[Block], Block]


class Transforms:
    """Functions of a block by name: given to the server, or of plug-ins.

    Parameters
    ----------
    given : mapping of str to callable
        Each takes a `Block` and returns one.

    Examples
    --------
    >>> Transforms({"first": lambda block: block[:1]}).names()
    ['first']
    """

    def __init__(self, given: Mapping[str, Transform] | None = None) -> None:
        self._given = dict(given or {})

    def names(self) -> list[str]:
        """Return the names: given ones, and those of installed plug-ins."""
        points = importlib.metadata.entry_points(group=GROUP)
        return sorted({*self._given, *(point.name for point in points)})

    def find(self, name: str) -> Transform:
        """Return the function of a name.

        Raises
        ------
        SourceNotFound
            There is none.
        """
        if name in self._given:
            return self._given[name]
        for point in importlib.metadata.entry_points(group=GROUP):
            if point.name == name:
                loaded: Transform = point.load()
                return loaded
        missing: Any = pick(self.names(), name, "transform", "this server")
        raise AssertionError(missing)
