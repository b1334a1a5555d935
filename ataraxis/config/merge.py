"""Saving over a file that people edit: only changed places of its text change.

Comments, order, blank lines and unchanged literals stay. The caller reads the result
back and compares it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

from ataraxis.config.convert import UNREAD, ConfigReader, ConfigWriter, ConvertOptions
from ataraxis.config.document import Document
from ataraxis.config.emitter import Emitter, flow, is_inline
from ataraxis.config.node import (
    Alias,
    Mapping,
    Scalar,
    Sequence,
    YamlNode,
    fingerprint,
    is_merge,
)

_COMMENT = re.compile(r"[ \t]+#[^\r\n]*")
Pair: TypeAlias = tuple[YamlNode, YamlNode]


class Unmergeable(Exception):
    """The old text cannot be edited in place."""


class DocumentMerge:
    """The edits that give an old document the values of a new tree."""

    def __init__(self, document: Document, path: Path) -> None:
        self._text = document.text
        self._path = path
        self._edits: list[tuple[int, int, str]] = []
        self._newline = "\r\n" if "\r\n" in document.text else "\n"
        self._emitter = Emitter(remarks=True)

    def merged_text(self, old: YamlNode, new: YamlNode) -> str:
        """Return the old text, changed where the trees differ, or `Unmergeable`."""
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            raise Unmergeable
        self._mapping(old, new)
        text, last = self._text, len(self._text) + 1
        for start, end, replacement in sorted(
            self._edits, key=lambda edit: edit[:2], reverse=True
        ):
            if start < 0 or end > last:
                raise Unmergeable
            text = text[:start] + replacement + text[end:]
            last = start
        return text

    def _same(self, old: YamlNode, new: YamlNode) -> bool:
        if old.tag != new.tag and old.tag != "!!set":
            return False
        node = self._rewritten(old, new.schema)
        return node is not None and fingerprint(node) == fingerprint(new)

    def _rewritten(self, old: YamlNode, schema: Any) -> YamlNode | None:
        """Return an old node as it would be written now; None if it does not fit."""
        reader = ConfigReader(ConvertOptions(self._path, build=False))
        value = reader.read(old, schema)
        if reader.problems or value is UNREAD:
            return None
        return ConfigWriter(self._path).write(value, schema)

    def _mapping(self, old: Mapping, new: Mapping) -> None:
        """Change the pairs of a mapping one by one."""
        schema = new.pairs[0][0].schema if new.pairs else None
        left = {self._key_mark(pair[0], schema): pair for pair in old.pairs}
        order = [pair[0] for pair in old.pairs]
        matched = [(left.pop(fingerprint(pair[0]), None), pair) for pair in new.pairs]
        kept = [pair for pair, _ in matched if pair is not None]
        places = [order.index(pair[0]) for pair in kept] if new.ordered else []
        if places != sorted(places):
            raise Unmergeable
        gone = [pair for pair in left.values() if not is_merge(pair[0])]
        if old.flow or not kept:
            if old.flow and not gone and len(kept) == len(matched):
                for pair, (_, value) in matched:
                    assert pair is not None
                    self._inline(pair[1], value)
                return
            raise Unmergeable
        for pair in gone:
            self._delete(old, pair)
        after: Pair | None = None
        pending: list[Pair] = []
        for pair, (key, value) in matched:
            if pair is None:
                pending.append((key, value))
                continue
            if after is None and pending:
                self._insert_before(pair[0], pending)
            elif after is not None:
                self._insert_after(old, after, pending)
            pending = []
            after = pair
            self._value(pair, (key, value), old.column)
        assert after is not None
        self._insert_after(old, after, pending)

    def _key_mark(self, old: YamlNode, schema: Any) -> Any:
        """Return the fingerprint of a key as it would be written now."""
        if schema is None:  # the name of a field
            return ("", "str", old.text) if isinstance(old, Scalar) else id(old)
        node = self._rewritten(old, schema)
        return id(old) if node is None else fingerprint(node)

    def _value(self, pair: Pair, new: Pair, column: int) -> None:
        """Change the value of a key that stays."""
        old_value, new_value = pair[1], new[1]
        if self._descend(old_value, new_value):
            return
        if _is_one_line(old_value) and is_inline(new_value):
            self._inline(old_value, new_value)
            return
        colon = self._text.find(":", pair[0].end) + 1
        lines = Emitter(remarks=False).pair_lines(new[0], new_value, column)
        head = lines[0][column + len(flow(new[0])) + 1 :]
        self._replace_rest(colon, old_value, [head, *lines[1:]])

    def _descend(self, old: YamlNode, new: YamlNode) -> bool:
        """Edit inside a value; return whether that was enough."""
        if self._same(old, new):
            return True
        if old.tag != new.tag:
            return False
        before = len(self._edits)
        try:
            if isinstance(old, Mapping) and isinstance(new, Mapping) and new.pairs:
                self._mapping(old, new)
                return True
            if isinstance(old, Sequence) and isinstance(new, Sequence) and new.items:
                self._sequence(old, new)
                return True
        except Unmergeable:
            del self._edits[before:]
        return False

    def _inline(self, old: YamlNode, new: YamlNode) -> None:
        """Replace a value by text on the same line."""
        if self._descend(old, new):
            return
        if old.start < 0 or old.end < old.start:
            raise Unmergeable
        space = "" if old.end > old.start else " "
        self._edits.append((old.start, old.end, space + flow(new)))

    def _replace_rest(self, start: int, old: YamlNode, lines: list[str]) -> None:
        """Replace from after a colon or dash to the end of the old value."""
        end = self._line_end(max(old.end, start))
        one_line = isinstance(old, Alias | Scalar) or _is_one_line(old)
        comment = _COMMENT.match(self._text, old.end if one_line else start)
        head = lines[0] + (comment.group() if comment else "")
        self._edits.append((start, end, self._newline.join([head, *lines[1:]])))

    def _sequence(self, old: Sequence, new: Sequence) -> None:
        """Change the items of a list: equal ones at both ends stay."""
        count = min(len(old.items), len(new.items))
        if old.flow or not old.items:
            if len(old.items) != len(new.items):
                raise Unmergeable
            for old_item, new_item in zip(old.items, new.items, strict=True):
                self._inline(old_item, new_item)
            return
        head = 0
        while head < count and self._same(old.items[head], new.items[head]):
            head += 1
        tail = 0
        while tail < count - head and self._same(
            old.items[-1 - tail], new.items[-1 - tail]
        ):
            tail += 1
        middle = min(len(old.items), len(new.items)) - tail
        for index in range(head, middle):
            self._item(old.items[index], new.items[index], old.column)
        for item in old.items[middle : len(old.items) - tail]:
            self._delete_lines(self._dash(item), item.end)
        added = new.items[middle : len(new.items) - tail]
        lines = [
            line
            for item in added
            for line in self._emitter.item_lines(item, old.column)
        ]
        if lines and middle:
            self._insert_lines(self._line_end(old.items[middle - 1].end), lines)
        elif lines:
            dash = self._dash(old.items[0])
            joined = self._newline.join([*lines, " " * old.column])
            self._edits.append((dash, dash, joined[old.column :]))

    def _item(self, old: YamlNode, new: YamlNode, column: int) -> None:
        if self._descend(old, new):
            return
        if _is_one_line(old) and is_inline(new):
            self._inline(old, new)
            return
        lines = Emitter(remarks=False).item_lines(new, column)
        head = lines[0][column + 1 :]
        self._replace_rest(self._dash(old) + 1, old, [head, *lines[1:]])

    def _dash(self, item: YamlNode) -> int:
        if item.start < 0:
            raise Unmergeable
        return self._text.rfind("-", 0, item.start)

    def _insert_after(self, old: Mapping, after: Pair, pairs: list[Pair]) -> None:
        lines = [
            line
            for key, value in pairs
            for line in self._emitter.pair_lines(key, value, old.column)
        ]
        if lines:
            end = max(after[0].end, after[1].end)
            self._insert_lines(self._line_end(end), lines)

    def _insert_lines(self, position: int, lines: list[str]) -> None:
        joined = "".join(self._newline + line for line in lines)
        # The text of an edit that ends here comes before the new lines.
        for index, (start, end, text) in enumerate(self._edits):
            if end == position and start < end and text:
                self._edits[index] = (start, end, text + joined)
                return
        self._edits.append((position, position, joined))

    def _insert_before(self, key: YamlNode, pairs: list[Pair]) -> None:
        lines = [
            line
            for new_key, value in pairs
            for line in self._emitter.pair_lines(new_key, value, key.column)
        ]
        joined = self._newline.join([*lines, " " * key.column])
        self._edits.append((key.start, key.start, joined[key.column :]))

    def _delete(self, old: Mapping, pair: Pair) -> None:
        """Remove a key with its value and the comment on its line."""
        key, value = pair
        position = old.pairs.index(pair)
        if self._begins_line(key.start):
            self._delete_lines(key.start, max(key.end, value.end))
        elif position + 1 < len(old.pairs):
            self._edits.append((key.start, old.pairs[position + 1][0].start, ""))
        else:
            raise Unmergeable

    def _delete_lines(self, start: int, end: int) -> None:
        if not self._begins_line(start):
            raise Unmergeable
        first = self._text.rfind("\n", 0, start) + 1
        last = self._text.find("\n", end)
        self._edits.append((first, last + 1 if last >= 0 else len(self._text), ""))

    def _begins_line(self, position: int) -> bool:
        line_start = self._text.rfind("\n", 0, position) + 1
        return not self._text[line_start:position].strip()

    def _line_end(self, position: int) -> int:
        """Return the end of the line, before its line break."""
        end = self._text.find("\n", position)
        end = len(self._text) if end < 0 else end
        return end - 1 if end > position and self._text[end - 1] == "\r" else end


def _is_one_line(node: YamlNode) -> bool:
    """Return whether a node of the file can be replaced within its line."""
    if isinstance(node, Scalar):
        return not node.block
    return isinstance(node, Alias) or (
        isinstance(node, Sequence | Mapping) and node.flow
    )
