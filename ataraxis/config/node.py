"""The tree between text and values: what a YAML document says, and where.

The parser makes these nodes with their places, the writer without; neither knows
the other. A scalar keeps its text, so that a literal is never reformatted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Node:
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
class Scalar(Node):
    """A single value: its text, and the kind of value YAML takes it for."""

    text: str = ""
    kind: str = "str"
    block: bool = False


@dataclass(slots=True, eq=False)
class Sequence(Node):
    """An ordered list of nodes; `flow` is the form with brackets."""

    items: list[Node] = field(default_factory=list)
    flow: bool = False
    block: bool = False


@dataclass(slots=True, eq=False)
class Mapping(Node):
    """Pairs of key and value in their order; `flow` is the form with braces."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    flow: bool = False
    ordered: bool = False


@dataclass(slots=True, eq=False)
class Alias(Node):
    """A reference (``*name``) to a node that is elsewhere in the document."""

    target: Node = field(default_factory=Node)


def resolved(node: Node) -> Node:
    """Follow an alias to what it means."""
    while isinstance(node, Alias):
        node = node.target
    return node


def fingerprint(node: Node) -> Any:
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
