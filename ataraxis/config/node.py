"""The tree between text and values: what a YAML document says, and where.

The parser makes these nodes with their places, the writer without; neither knows
the other. A scalar keeps its text, so that a literal is never reformatted. A problem is
noted at the place of its node.
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
        Line in the file, from 1; 0 for a node that comes from no file.
    start, end : int
        Span of the node in the text, in characters; ``-1`` when it has none.
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
    """A single value: its text, and the kind of value YAML takes it for."""

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
    """Its pairs with those that ``<<`` merges in, once they were found."""


@dataclass(slots=True, eq=False)
class Alias(YamlNode):
    """A reference (``*name``) to a node that is elsewhere in the document."""

    target: YamlNode = field(default_factory=YamlNode)


def resolved(node: YamlNode) -> YamlNode:
    """Follow an alias to what it means."""
    while isinstance(node, Alias):
        node = node.target
    return node


def flattened(node: Mapping) -> list[tuple[YamlNode, YamlNode]]:
    """List the pairs of a mapping, with those that ``<<`` merges in after its own.

    They are found once: what a mapping merges in stands before it in a document, so
    that each is found from those that were found already.
    """
    if node.merged is not None:
        return node.merged
    sources: list[Mapping] = []
    own: list[tuple[YamlNode, YamlNode]] = []
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.kind == "merge":
            target = resolved(value)
            items = target.items if isinstance(target, Sequence) else [target]
            sources += [s for s in map(resolved, items) if isinstance(s, Mapping)]
        else:
            own.append((key, value))
    names = {_name(key) for key, _ in own}
    for source in sources:
        for key, value in flattened(source):
            if _name(key) not in names:
                names.add(_name(key))
                own.append((key, value))
    node.merged = own
    return own


def merge_work(node: Mapping) -> int:
    """Return how many pairs `flattened` looks at, of mappings that are flattened."""
    work = 0
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.kind == "merge":
            target = resolved(value)
            items = target.items if isinstance(target, Sequence) else [target]
            for source in map(resolved, items):
                if isinstance(source, Mapping):
                    work += 1 + len(source.merged or source.pairs)
    return work


def _name(key: YamlNode) -> Any:
    """Identify a key; a key that is no scalar is only itself."""
    key = resolved(key)
    return (key.kind, key.text) if isinstance(key, Scalar) else id(key)


def fingerprint(node: YamlNode) -> Any:
    """Reduce a written node to a hashable value; equal values mean equal nodes.

    The order of a mapping counts only where the type says so.
    """
    node = resolved(node)
    if isinstance(node, Scalar):
        return (node.tag, node.kind, node.text)
    if isinstance(node, Sequence):
        return (node.tag, tuple(fingerprint(item) for item in node.items))
    assert isinstance(node, Mapping)
    pairs = tuple((fingerprint(key), fingerprint(item)) for key, item in node.pairs)
    return (node.tag, "map", pairs if node.ordered else frozenset(pairs))


# ---- one thing wrong with a configuration, and the error that carries all of them

# Nothing here reads a file: readers and writers collect problems and raise once.

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """Where a configuration does not fit, and how.

    Parameters
    ----------
    path : str
        The file.
    line : int or None
        Line in the file, from 1; ``None`` when a value could not be written.
    field : str
        Path of the field, as ``cameras[1].fps``; empty for the whole file.
    expected : str
        What the dataclass asks for.
    found : str
        What is there.
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
        """Say it on one line, as compilers do."""
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        what = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {what}expected {self.expected}, found {self.found}{hint}"


def config_error(title: str, problems: Iterable[ConfigProblem]) -> ConfigError:
    """Make the one error of many problems, in the order of their lines."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    return ConfigError("\n".join([title, *map(str, ordered)]), ordered)


def shown(value: object) -> str:
    """Quote a value for a message, shortened so that it stays one line."""
    try:
        text = repr(value)
    except Exception as error:  # a message about a value must not fail on it
        text = f"<{type(error).__name__} in repr>"
    text = " ".join(text.split())
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 3] + "..."
    return text


def did_you_mean(word: str, choices: abc.Sequence[str]) -> str:
    """Offer the nearest choice, or nothing when none is near."""
    import difflib

    folded = {choice.casefold(): choice for choice in reversed(choices)}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else ""
