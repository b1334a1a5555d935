"""An instance to a file: write, merge into the old text, check, and replace.

Nothing touches the disk until the new text has been read back and found equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ataraxis.config import document, emitter, storage
from ataraxis.config.node import Mapping, Node, fingerprint
from ataraxis.config.problem import ConfigProblem, config_error
from ataraxis.config.reader import Reader, Settings
from ataraxis.config.revision import Revision, Unmergeable
from ataraxis.config.schema import require_dataclass
from ataraxis.config.writer import Writer

_MARK = b"\xef\xbb\xbf"


def save(instance: Any, path: Path) -> None:
    """Write an instance to a file.

    Raises
    ------
    ConfigError
        A value does not fit; nothing was written.
    OSError
        The file cannot be written; the old one is as it was.
    """
    cls = type(instance)
    require_dataclass(cls)
    tree = _tree(instance, cls, path)
    old = storage.read_bytes(path)
    text, is_kept = (None, True) if old is None else _merged(old, tree, cls, path)
    if text is None:
        text = emitter.document_text(tree)
        if not _says(text, tree, cls, path):
            found = "a value that does not come back from its own file"
            problem = ConfigProblem(str(path), None, "", f"a {cls.__name__}", found)
            raise config_error(f"{cls.__name__} cannot be written", [problem])
    data = text.encode("utf-8")
    if old is not None and old.startswith(_MARK):
        data = _MARK + data
    if old is not None and not is_kept and old.strip():
        storage.keep_copy(path, old)
    storage.replace_bytes(path, data)


def _tree(instance: Any, cls: type, path: Path) -> Mapping:
    """Make the nodes of an instance; all that do not fit are one error."""
    writer = Writer(path)
    node = writer.write(instance, cls)
    if writer.problems or not isinstance(node, Mapping):
        raise config_error(f"{cls.__name__} cannot be written", writer.problems)
    return node


def _merged(
    old: bytes, tree: Mapping, cls: type, path: Path
) -> tuple[str | None, bool]:
    """Edit the old text; tell whether all of the old file is kept in the new."""
    try:
        text = document.decoded(old, str(path))
        parsed = document.parse(text, str(path))
    except document.Unreadable:
        return None, False
    if parsed.root is None or parsed.problems or parsed.duplicates:
        return None, False
    if parsed.dialect != "1.2":
        return None, False
    fitted = _fits(parsed.root, cls, path)
    try:
        revised = Revision(parsed, path).revised(parsed.root, tree)
    except Unmergeable:
        return None, False
    if not _says(revised, tree, cls, path):
        return None, False
    return revised, fitted


def _fits(root: Node, cls: type, path: Path) -> bool:
    """Tell whether the old file reads as the class."""
    reader = Reader(Settings(path, build=False))
    reader.read(root, cls)
    return not reader.problems


def _says(text: str, tree: Mapping, cls: type, path: Path) -> bool:
    """Read a text back, and compare it with what it should say."""
    try:
        parsed = document.parse(text, str(path))
    except document.Unreadable:
        return False
    if parsed.root is None or parsed.problems or parsed.duplicates:
        return False
    reader = Reader(Settings(path, build=False))
    value = reader.read(parsed.root, cls)
    if reader.problems:
        return False
    again = Writer(path).write(value, cls)
    return again is not None and fingerprint(again) == fingerprint(tree)
