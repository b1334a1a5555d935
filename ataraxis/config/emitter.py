"""Text of nodes: block style, brackets for short lists, remarks beside keys.

The text is read back and compared before a file is replaced.
"""

from __future__ import annotations

import textwrap

from ataraxis.config.node import Mapping, Scalar, Sequence, YamlNode
from ataraxis.config.scalars import quoted

_STEP = 2
_WIDTH = 88
_LONGEST_KEY = 120


def document_text(root: Mapping) -> str:
    """Write a whole new document."""
    lines = Emitter(remarks=True).mapping_lines(root, 0) if root.pairs else ["{}"]
    return "\n".join(lines) + "\n"


def flow(node: YamlNode) -> str:
    """Write a node on one line."""
    prefix = f"{node.tag} " if node.tag else ""
    if isinstance(node, Scalar):
        return prefix + _scalar(node)
    if isinstance(node, Sequence):
        return f"{prefix}[{', '.join(map(flow, node.items))}]"
    assert isinstance(node, Mapping)
    pairs = (f"{_flow_key(key)}: {flow(value)}" for key, value in node.pairs)
    return f"{prefix}{{{', '.join(pairs)}}}"


def _scalar(node: Scalar) -> str:
    if node.kind == "str":
        return quoted(node.text)
    return f"!!binary '{node.text}'" if node.kind == "binary" else node.text


def _flow_key(key: YamlNode) -> str:
    text = flow(key)
    return f"? {text} " if len(text) > _LONGEST_KEY else text


def is_inline(node: YamlNode) -> bool:
    """Return whether a node is written on the line of its key."""
    if isinstance(node, Scalar):
        return not _is_literal(node)
    if isinstance(node, Sequence):
        if node.flow or not node.items:
            return True
        plain = all(isinstance(i, Scalar) and not _is_literal(i) for i in node.items)
        return plain and len(flow(node)) <= _WIDTH - 2 * _STEP
    return isinstance(node, Mapping) and (node.flow or not node.pairs)


def _is_literal(node: Scalar) -> bool:
    """Return whether a text is written as a block of lines (``|``).

    Not if a line ends in a blank, which editors remove.
    """
    lines = node.text.split("\n")
    return (
        node.kind == "str"
        and len(lines) > 1
        and bool(lines[0])
        and (bool(lines[-1]) or (len(lines) > 2 and bool(lines[-2])))
        and not any(line.startswith((" ", "\t")) for line in lines[:1])
        and all(line.isprintable() and line == line.rstrip() for line in lines)
    )


class Emitter:
    """Writes block style; with `remarks`, those of keys as comments, each only once."""

    def __init__(self, remarks: bool) -> None:
        self._remarks = remarks
        self._written: set[tuple[str, str]] = set()

    def mapping_lines(self, node: Mapping, indent: int) -> list[str]:
        """Write the pairs of a mapping as lines at a column."""
        return [
            line
            for key, value in node.pairs
            for line in self.pair_lines(key, value, indent)
        ]

    def pair_lines(self, key: YamlNode, value: YamlNode, indent: int) -> list[str]:
        """Write one key and its value."""
        key_text = flow(key)
        if len(key_text) > _LONGEST_KEY:
            pad = " " * indent
            return [f"{pad}? {key_text}", *self._lines(":", value, indent)]
        lines = self._lines(f"{key_text}:", value, indent)
        mark = (key_text, key.remark)
        if not self._remarks or not key.remark or mark in self._written:
            return lines
        self._written.add(mark)
        return _remarked(lines, key.remark, indent)

    def item_lines(self, value: YamlNode, indent: int) -> list[str]:
        """Write one item of a list."""
        return self._lines("-", value, indent)

    def _lines(self, prefix: str, node: YamlNode, indent: int) -> list[str]:
        pad = " " * indent
        if is_inline(node):
            return [f"{pad}{prefix} {flow(node)}"]
        tag = f" {node.tag}" if node.tag else ""
        if isinstance(node, Scalar):
            chomp = "" if node.text.endswith("\n") else "-"
            inner = " " * (indent + _STEP)
            lines = node.text.removesuffix("\n").split("\n")
            body = [inner + line if line else "" for line in lines]
            return [f"{pad}{prefix}{tag} |{chomp}", *body]
        if isinstance(node, Sequence):
            children = [
                line
                for item in node.items
                for line in self.item_lines(item, indent + _STEP)
            ]
        else:
            assert isinstance(node, Mapping)
            children = self.mapping_lines(node, indent + _STEP)
        if prefix == "-" and not tag and not children[0].lstrip().startswith("#"):
            children[0] = f"{pad}- {children[0].lstrip()}"
            return children
        return [f"{pad}{prefix}{tag}", *children]


def _remarked(lines: list[str], remark: str, indent: int) -> list[str]:
    """Add a comment beside the key if it fits, else above it."""
    printable = "".join(c if c.isprintable() or c == "\n" else " " for c in remark)
    words = " ".join(printable.split())
    if not words:
        return lines
    if "\n" not in printable and len(lines[0]) + len(words) + 4 <= _WIDTH:
        return [f"{lines[0]}  # {words}", *lines[1:]]
    pad = " " * indent + "# "
    paragraphs = [part for part in printable.split("\n") if part.strip()]
    wrapped = [
        line
        for part in paragraphs
        for line in textwrap.wrap(part, max(_WIDTH - len(pad), 20))
    ]
    return [*(pad + line for line in wrapped), *lines]
