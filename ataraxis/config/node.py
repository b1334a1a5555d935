"""The nodes of a YAML document, between text and values; problems and their places.

The parser makes nodes with places, the writer without. A scalar keeps its text, so that
a literal is not reformatted.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ataraxis.errors import ConfigError


@dataclass(slots=True, eq=False)
class YamlNode:
    """A piece of a document.

    Parameters
    ----------
    line : int
        Line in the file, from 1; 0 for a node that is not from a file.
    start, end : int
        Span of the node in the text, in characters; ``-1`` if it has none.
    column : int
        Column of the first character, from 0.
    tag : str
        A local tag such as ``!Camera``, which chooses a member of a union.
    schema : object
        The annotation a written node was made for.
    remark : str
        Comment to write beside a key.
    """

    line: int = 0
    start: int = -1
    end: int = -1
    column: int = 0
    tag: str = ""
    schema: Any = None
    remark: str = ""
    anchor: str = ""


@dataclass(slots=True, eq=False)
class Scalar(YamlNode):
    """A single value: its text, and its kind in YAML."""

    text: str = ""
    kind: str = "str"
    block: bool = False


@dataclass(slots=True, eq=False)
class Sequence(YamlNode):
    """An ordered list of nodes; `flow` is the form with brackets."""

    items: list[YamlNode] = field(default_factory=list)
    flow: bool = False
    block: bool = False


@dataclass(slots=True, eq=False)
class Mapping(YamlNode):
    """Pairs of key and value in their order; `flow` is the form with braces."""

    pairs: list[tuple[YamlNode, YamlNode]] = field(default_factory=list)
    flow: bool = False
    ordered: bool = False
    merged: list[tuple[YamlNode, YamlNode]] | None = None
    """Its pairs with those that ``<<`` merges in: the cache of `flattened`."""


@dataclass(slots=True, eq=False)
class Alias(YamlNode):
    """A reference (``*name``) to another node of the document."""

    target: YamlNode = field(default_factory=YamlNode)


def resolved(node: YamlNode) -> YamlNode:
    """Return the node that an alias refers to, or the node itself."""
    while isinstance(node, Alias):
        node = node.target
    return node


def is_merge(key: YamlNode) -> bool:
    """Return whether a key is ``<<``."""
    return isinstance(key, Scalar) and key.kind == "merge"


def _merge_sources(node: Mapping) -> list[Mapping]:
    """List the mappings that ``<<`` merges in."""
    found: list[YamlNode] = []
    for key, value in node.pairs:
        if is_merge(key):
            target = resolved(value)
            found += target.items if isinstance(target, Sequence) else [target]
    return [s for s in map(resolved, found) if isinstance(s, Mapping)]


def flattened(node: Mapping) -> list[tuple[YamlNode, YamlNode]]:
    """List the pairs of a mapping, then those that ``<<`` merges in.

    Cached: a mapping's sources come before it in a document.
    """
    if node.merged is not None:
        return node.merged
    own = [pair for pair in node.pairs if not is_merge(pair[0])]
    names = {_name(key) for key, _ in own}
    for source in _merge_sources(node):
        for key, value in flattened(source):
            if _name(key) not in names:
                names.add(_name(key))
                own.append((key, value))
    node.merged = own
    return own


def merge_work(node: Mapping) -> int:
    """Return how many pairs `flattened` reads, if its sources are cached."""
    return sum(1 + len(s.merged or s.pairs) for s in _merge_sources(node))


def _name(key: YamlNode) -> Any:
    """Return the identity of a key; a key that is not a scalar equals only itself."""
    key = resolved(key)
    return (key.kind, key.text) if isinstance(key, Scalar) else id(key)


def fingerprint(node: YamlNode) -> Any:
    """Return a hashable value of a written node, equal for equal nodes.

    The order of a mapping counts only if `Mapping.ordered` is set.
    """
    node = resolved(node)
    if isinstance(node, Scalar):
        return (node.tag, node.kind, node.text)
    if isinstance(node, Sequence):
        return (node.tag, tuple(fingerprint(item) for item in node.items))
    assert isinstance(node, Mapping)
    pairs = tuple((fingerprint(key), fingerprint(item)) for key, item in node.pairs)
    return (node.tag, "map", pairs if node.ordered else frozenset(pairs))


# ---- problems of a configuration, collected and raised as one error

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A place where a configuration does not fit its dataclass.

    Parameters
    ----------
    path : str
        The file.
    line : int or None
        Line in the file, from 1; ``None`` if a value could not be written.
    field : str
        Path of the field, as ``cameras[1].fps``; empty for the whole file.
    expected : str
        The type or value that the dataclass needs.
    found : str
        The value in the file.
    hint : str
        What to do, as ``did you mean 'fps'?``; may be empty.

    Examples
    --------
    >>> print(ConfigProblem("rig.yaml", 3, "fps", "float", "str 'fast'"))
    rig.yaml:3: fps: expected float, found str 'fast'
    """

    path: str
    line: int | None
    field: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        what = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {what}expected {self.expected}, found {self.found}{hint}"


def config_error(title: str, problems: Iterable[ConfigProblem]) -> ConfigError:
    """Return one error of all problems, in the order of their lines."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    return ConfigError("\n".join([title, *map(str, ordered)]), ordered)


def shown(value: object) -> str:
    """Return the repr of a value for a message, shortened to one line."""
    try:
        text = repr(value)
    except Exception as error:  # a message must not fail
        text = f"<{type(error).__name__} in repr>"
    text = " ".join(text.split())
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 3] + "..."
    return text


def did_you_mean(word: str, choices: abc.Sequence[str]) -> str:
    """Return a hint with the closest choice, or "" if none is close."""
    import difflib

    folded = {choice.casefold(): choice for choice in reversed(choices)}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else ""
