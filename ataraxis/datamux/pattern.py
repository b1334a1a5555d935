"""The pattern of a collection: paths of recordings to attributes and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ataraxis.errors import ConfigError, SourceNotFound

_PLACE = re.compile(r"\{([^{}]*)\}")


class Pattern:
    """Where recordings are, as ``csv://ses-{session}/{stream}``.

    Parameters
    ----------
    text : str
        ``format://`` and a path without suffix; ``{group}`` stands for a value.

    Raises
    ------
    ConfigError
        It is no pattern.

    Examples
    --------
    >>> pattern = Pattern("csv://{subject}_{task}")
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
            raise ConfigError(f"pattern {text!r}: its path must stay in its folder")
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
                f"pattern {self.text!r}: {{{name}}} is no name of a group"
            )
        if name in self.groups:
            return f"(?P=_{self.groups.index(name)})"
        self.groups.append(name)
        return f"(?P<_{len(self.groups) - 1}>[^/]+?)"

    def match(self, key: str) -> dict[str, str] | None:
        """Return the attributes of a path without suffix; None if it is not ours."""
        found = self._expression.fullmatch(key)
        if found is None:
            return None
        return {name: found[f"_{i}"] for i, name in enumerate(self.groups)}

    def key(self, attrs: Mapping[str, Any]) -> str:
        """Return the path of the recording that has these attributes.

        Others than the pattern's groups are ignored.

        Raises
        ------
        SourceNotFound
            A group has no value, or one that cannot be in a path.
        """
        missing = [name for name in self.groups if name not in attrs]
        if missing:
            raise SourceNotFound(
                f"a recording of {self.text!r} is given by {self.groups}: attrs has no "
                f"{', '.join(missing)} (found {[*attrs]})"
            )
        values = {name: str(attrs[name]) for name in self.groups}
        for name, value in values.items():
            if not value or "/" in value or "\\" in value or value in (".", ".."):
                raise SourceNotFound(
                    f"attrs[{name!r}] is {value!r}: not a part of a file's name"
                )
        return _PLACE.sub(lambda place: values[place[1].partition(":")[0]], self.path)
