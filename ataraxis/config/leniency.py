"""What ``strict=False`` converts: only where the meaning cannot be mistaken.

Everything converted here is reported as a warning by the reader.
"""

from __future__ import annotations

from typing import Any

from ataraxis.config import leaf
from ataraxis.config.literal import kind_of, parse_float
from ataraxis.config.node import Scalar


def read_leniently(node: Scalar, annotation: Any, dialect: str) -> Any:
    """Read a scalar of another kind as the type, or ``None`` when it is not one."""
    if node.kind == "null":
        return None
    if annotation is str:
        return node.text
    if annotation is int and node.kind == "float":
        value = parse_float(node.text)
        return int(value) if value.is_integer() else None
    for kind in (kind_of(node.text), "str"):
        other = Scalar(line=node.line, text=node.text, kind=kind)
        try:
            return leaf.read_leaf(other, annotation, False, dialect)
        except leaf.Mismatch:
            continue
    return None
