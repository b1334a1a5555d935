"""A YAML document: text to nodes with their lines, by the parser of ruamel.yaml.

Uses the parser and not a constructor: tags cannot run code. The reader decides what the
nodes mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ataraxis.config.limits import FILES
from ataraxis.config.node import (
    Alias,
    ConfigProblem,
    Mapping,
    Scalar,
    Sequence,
    YamlNode,
    flattened,
    merge_work,
    shown,
)
from ataraxis.config.scalars import kind_of

_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "binary")
_DEEPEST = FILES.depth
_PROBLEMS = 1000
# Raised by ruamel's parser on damaged text, besides its own YAMLError.
_PARSER_FAILURES = (ValueError, LookupError, AttributeError, TypeError, AssertionError)


@dataclass(slots=True)
class Document:
    """The nodes of a text, and their problems."""

    text: str
    dialect: str = "1.2"
    root: YamlNode | None = None
    problems: list[ConfigProblem] = field(default_factory=list)
    duplicates: list[ConfigProblem] = field(default_factory=list)


class Unreadable(Exception):
    """The text is not YAML; `problem` is the reason."""

    def __init__(self, problem: ConfigProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def decoded(data: bytes, path: str) -> str:
    """Decode the bytes of a file as UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise Unreadable(
            ConfigProblem(path, line, "", "UTF-8 text", found, "save it as UTF-8")
        ) from error


def parse(text: str, path: str, dialect: str = "1.2") -> Document:
    """Parse a text into nodes; `Unreadable` if it is not one YAML document."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    composer = _Composer(text, path, dialect)
    try:
        return composer.compose()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else composer.line
        found = str(error.problem or error.context or "damaged text")
        raise Unreadable(ConfigProblem(path, line, "", "YAML", found)) from error
    except ReaderError as error:
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        found = f"character {shown(text[position : position + 1])}"
        raise Unreadable(
            ConfigProblem(path, line, "", "printable text", found)
        ) from error
    except (YAMLError, *_PARSER_FAILURES) as error:
        found = f"damaged text: {shown(str(error))}"
        raise Unreadable(
            ConfigProblem(path, composer.line, "", "YAML", found)
        ) from error


class _Composer:
    """Makes nodes of the parser's events; ruamel's composer loses aliases."""

    def __init__(self, text: str, path: str, dialect: str) -> None:
        self.document = Document(text, dialect)
        self.path = path
        self.line = 1
        self._anchors: dict[str, YamlNode | None] = {}
        self._depth = 0
        self._merges = 0
        self._place: list[str] = []

    def compose(self) -> Document:
        """Make the document of all events."""
        from ruamel.yaml import YAML

        events = YAML(typ="safe", pure=True).parse(self.document.text)
        for event in events:
            kind = type(event).__name__
            self.line = event.start_mark.line + 1
            if kind == "DocumentStartEvent":
                if self.document.root is not None:
                    self._stop(event, "one document", "a second one ('---')")
                if event.version is not None and tuple(event.version) == (1, 1):
                    self.document.dialect = "1.1"
                self.document.root = self._node(next(events), events)
        return self.document

    def _problem(self, event: Any, expected: str, found: str, hint: str = "") -> None:
        line = event.start_mark.line + 1
        self.document.problems.append(
            ConfigProblem(self.path, line, self._field(), expected, found, hint)
        )

    def _field(self) -> str:
        """Return the path of the current node."""
        return "".join(self._place).removeprefix(".")

    def _stop(self, event: Any, expected: str, found: str) -> None:
        """Raise: the rest of the text cannot be read."""
        line = event.start_mark.line + 1
        raise Unreadable(ConfigProblem(self.path, line, "", expected, found))

    def _node(self, event: Any, events: Iterator[Any]) -> YamlNode:
        kind = type(event).__name__
        self.line = event.start_mark.line + 1
        self._depth += 1
        if self._depth > _DEEPEST:
            self._stop(event, f"at most {_DEEPEST} levels", "deeper nesting")
        anchor = str(event.anchor) if event.anchor else ""
        place = {
            "line": self.line,
            "start": event.start_mark.index,
            "column": event.start_mark.column,
        }
        node: YamlNode
        if kind == "AliasEvent":
            node = self._alias(event, anchor, place)
        else:
            if anchor:
                self._anchors[anchor] = None
            place["tag"], core = self._tag(event, kind)
            if kind == "ScalarEvent":
                node = self._scalar(event, core, place)
            elif kind == "SequenceStartEvent":
                node = self._sequence(event, events, place)
            else:
                node = self._mapping(event, events, place)
            if anchor:
                node.anchor = anchor
                self._anchors[anchor] = node
        self._depth -= 1
        return node

    def _alias(self, event: Any, anchor: str, place: dict[str, Any]) -> YamlNode:
        target = self._anchors.get(anchor)
        if target is None:
            self._stop(event, "an anchor that was defined before", f"'*{anchor}'")
        return Alias(**place, end=event.end_mark.index, target=target or YamlNode())

    def _tag(self, event: Any, kind: str) -> tuple[str, str]:
        """Return a tag as a local name to keep, and as one of YAML's types."""
        tag = str(event.tag) if event.tag is not None else ""
        if tag in ("", "!"):
            return "", "str" if tag and kind == "ScalarEvent" else ""
        core = tag.removeprefix(_CORE) if tag.startswith(_CORE) else ""
        if kind == "ScalarEvent" and core in _SCALAR_TAGS:
            return "", core
        if kind == "SequenceStartEvent" and core == "seq":
            return "", ""
        if kind == "MappingStartEvent" and core in ("map", "set"):
            return "!!set" if core == "set" else "", ""
        if tag.startswith("!") and not tag.startswith("!!"):
            return tag, ""
        name = f"!!{core}" if core else f"!<{tag}>"
        self._problem(
            event,
            "plain values",
            f"tag {shown(name)}",
            "no code runs from a file; remove the tag",
        )
        return "", ""

    def _scalar(self, event: Any, core: str, place: dict[str, Any]) -> Scalar:
        text = str(event.value)
        plain = event.style is None
        kind = core or (kind_of(text, self.document.dialect) if plain else "str")
        node = Scalar(**place, text=text, kind=kind, block=event.style in ("|", ">"))
        node.end = event.end_mark.index
        span = self.document.text[node.start : node.end]
        if plain and not text and not span.strip():
            node.start = node.end = -1
        else:
            node.end = node.start + len(span.rstrip())
        return node

    def _sequence(
        self, event: Any, events: Iterator[Any], place: dict[str, Any]
    ) -> Sequence:
        node = Sequence(
            **place, flow=bool(event.flow_style), block=not event.flow_style
        )
        while type(ahead := next(events)).__name__ != "SequenceEndEvent":
            self._place.append(f"[{len(node.items)}]")
            node.items.append(self._node(ahead, events))
            self._place.pop()
        node.end = ahead.end_mark.index if node.flow else _content_end(node, node.items)
        return node

    def _mapping(
        self, event: Any, events: Iterator[Any], place: dict[str, Any]
    ) -> Mapping:
        node = Mapping(**place, flow=bool(event.flow_style))
        seen: dict[tuple[str, str], int] = {}
        while type(ahead := next(events)).__name__ != "MappingEndEvent":
            key = self._node(ahead, events)
            self._place.append(f".{key.text}" if isinstance(key, Scalar) else "[...]")
            value = self._node(next(events), events)
            if isinstance(value, Scalar) and value.start < 0 <= key.end:
                colon = self.document.text.find(":", key.end)
                value.start = value.end = colon + 1 if colon >= 0 else -1
                value.line = key.line
            if isinstance(key, Scalar):
                name = (key.kind, key.text)
                if name in seen and key.kind != "merge":
                    self._duplicate(key, seen[name])
                seen.setdefault(name, key.line)
            self._place.pop()
            node.pairs.append((key, value))
        self._merges += merge_work(node)
        if self._merges > FILES.merged:
            self._stop(event, f"at most {FILES.merged} merged keys", "more of them")
        flattened(node)
        children = [child for pair in node.pairs for child in pair]
        node.end = ahead.end_mark.index if node.flow else _content_end(node, children)
        return node

    def _duplicate(self, key: Scalar, first: int) -> None:
        """Note a duplicate key; strict reading refuses it."""
        if len(self.document.duplicates) >= _PROBLEMS:
            return
        found, hint = f"duplicate key {shown(key.text)}", f"first on line {first}"
        self.document.duplicates.append(
            ConfigProblem(
                self.path, key.line, self._field(), "each key once", found, hint
            )
        )


def _content_end(node: YamlNode, children: list[YamlNode]) -> int:
    return max([child.end for child in children], default=node.start)
