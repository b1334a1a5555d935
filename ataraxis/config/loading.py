"""A file to an instance: parse, read, build, and raise all problems as one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ataraxis.config import construction, document
from ataraxis.config.node import Mapping, Node, resolved
from ataraxis.config.problem import ConfigProblem, config_error
from ataraxis.config.reader import UNREAD, Reader, Settings, described
from ataraxis.config.schema import fields_of, require_dataclass, type_name


def load(cls: Any, path: Path, strict: bool) -> tuple[Any, list[ConfigProblem]]:
    """Read an instance, and what a lax reading let pass.

    Raises
    ------
    ConfigError
        The file does not fit.
    FileNotFoundError
        There is no such file.
    """
    require_dataclass(cls)
    title = f"{path.name} does not fit {cls.__name__}"
    try:
        text = document.decoded(path.read_bytes(), str(path))
        dialect = "1.2" if strict else "1.1"
        parsed = document.parse(text, str(path), dialect)
    except document.Unreadable as error:
        raise config_error(title, [error.problem]) from error
    reader = Reader(Settings(path, dialect=parsed.dialect, lax=not strict))
    (reader.problems if strict else reader.warnings).extend(parsed.duplicates)
    reader.problems.extend(parsed.problems)
    root = _root_mapping(parsed.root, cls, path, reader)
    instance = None
    if root is not None:
        instance = _read_root(reader, root, cls, path)
    if reader.problems:
        raise config_error(title, reader.problems) from reader.failure
    assert instance is not UNREAD
    return instance, sorted(reader.warnings, key=lambda problem: problem.line or 0)


def _root_mapping(
    root: Node | None, cls: Any, path: Path, reader: Reader
) -> Mapping | None:
    """Check that the document is a mapping at all."""
    if root is not None and isinstance(resolved(root), Mapping) and not root.tag:
        return resolved(root)  # type: ignore[return-value]
    found = "an empty file" if root is None else described(root)
    if root is not None and root.tag:
        found = f"tag '{root.tag}'"
    line = root.line if root is not None else 1
    expected = f"the fields of {cls.__name__} (a mapping)"
    reader.problems.append(ConfigProblem(str(path), line, "", expected, found))
    return None


def _read_root(reader: Reader, root: Mapping, cls: Any, path: Path) -> Any:
    """Read the fields, let the class add the excluded ones, and build."""
    before = len(reader.problems)
    values = construction.read_fields(reader, root, cls, "")
    for schema in fields_of(cls).values():
        if schema.required and not schema.excluded and schema.name not in values:
            construction.note_missing(reader, root, schema, "", before)
    if reader.problems:
        return UNREAD
    values = cls.restore_excluded_fields(values, path)
    for schema in fields_of(cls).values():
        if schema.required and schema.excluded and schema.name not in values:
            expected = type_name(schema.type)
            hint = f"give it in {cls.__name__}.restore_excluded_fields"
            problem = ConfigProblem(
                str(path), root.line, schema.name, expected, "no value", hint
            )
            reader.problems.append(problem)
    if reader.problems:
        return UNREAD
    return construction.build(reader, root, cls, values, "")
