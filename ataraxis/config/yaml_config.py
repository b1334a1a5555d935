"""`YamlConfig`: the class that gives a dataclass its YAML file, and its load and save.

How text, nodes and values become each other is in the other files of this package.
"""

from __future__ import annotations

import warnings
from collections import abc
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from ataraxis.config import convert, document, emitter, storage
from ataraxis.config.convert import (
    UNREAD,
    ConfigReader,
    ConfigWriter,
    ConvertOptions,
    described,
)
from ataraxis.config.merge import DocumentMerge, Unmergeable
from ataraxis.config.node import (
    ConfigProblem,
    Mapping,
    YamlNode,
    config_error,
    fingerprint,
    resolved,
)
from ataraxis.config.schema import fields_of, require_dataclass, type_name

YAML_EXCLUDE_METADATA: abc.Mapping[str, bool] = MappingProxyType({"yaml_exclude": True})
"""Metadata of a field that is not kept in the file."""


class YamlConfig:
    """A dataclass that is kept in a YAML file which people may edit.

    Inherit from it and decorate with `dataclasses.dataclass`, frozen or not. The types
    of the fields decide how each value is written, and reading gives back an equal
    instance or says where the file does not fit.

    Notes
    -----
    ``field(metadata={"units": "s", "help": "exposure of each frame"})`` is written as
    a comment in a new file. A field with ``metadata=YAML_EXCLUDE_METADATA`` is not
    kept; if it is required, override `restore_excluded_fields`.

    Examples
    --------
    >>> import tempfile
    >>> from dataclasses import dataclass, field
    >>> from pathlib import Path
    >>> @dataclass
    ... class Camera(YamlConfig):
    ...     name: str = "left"
    ...     exposure: float = field(default=0.01, metadata={"units": "s"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "camera.yaml"
    ...     Camera("right").to_yaml(path)
    ...     print(path.read_text(encoding="utf-8"), end="")
    ...     Camera.from_yaml(path)
    name: right
    exposure: 0.01  # [s]
    Camera(name='right', exposure=0.01)
    """

    __slots__ = ()

    def to_yaml(self, file_path: str | Path) -> None:
        """Write the instance to a file, in one step.

        A file that is there keeps its comments, order, mode bits and the text of every
        value that did not change. A reader, or a kill at any moment, meets the old
        file or the new one, whole. An old file that does not read as this class is
        kept beside the new one as ``.bak``.

        Parameters
        ----------
        file_path : str or Path
            Where to; ends in ``.yaml`` or ``.yml``. Missing folders are made.

        Raises
        ------
        ConfigError
            The suffix is another, or a value does not fit its annotation or cannot be
            held by YAML. ``errors`` lists all of them; the old file is as it was.
        OSError
            The file cannot be written; the old one is as it was.

        Examples
        --------
        >>> import tempfile
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Rig(YamlConfig):
        ...     cameras: int
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Rig(2).to_yaml(f"{folder}/rig.yml")
        ...     Rig.from_yaml(f"{folder}/rig.yml")
        Rig(cameras=2)
        """
        path = _yaml_path(file_path)
        _save(self, path)

    @classmethod
    def from_yaml(cls, file_path: str | Path, *, strict: bool = True) -> Self:
        r"""Read an instance from a file.

        Parameters
        ----------
        file_path : str or Path
            The file; ends in ``.yaml`` or ``.yml``.
        strict : bool
            ``False`` reads files of ataraxis-data-structures: in YAML 1.1, where ``no``
            is false. Unknown and duplicate keys are left out, a value of another type
            is converted where its meaning is plain and else kept as it stands; each is
            a `ConfigWarning`. Tags that would run code are refused all the same.

        Returns
        -------
        YamlConfig
            A new instance of the class.

        Raises
        ------
        ConfigError
            The file does not fit. ``errors`` lists every problem with file, line,
            field, what was expected and found, and a hint.
        FileNotFoundError
            There is no such file.

        Examples
        --------
        >>> import tempfile
        >>> from dataclasses import dataclass
        >>> from pathlib import Path
        >>> @dataclass
        ... class Rig(YamlConfig):
        ...     cameras: int = 1
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rig.yaml"
        ...     _ = path.write_text("cameras: two\n", encoding="utf-8")
        ...     try:
        ...         Rig.from_yaml(path)
        ...     except ValueError as error:
        ...         print(error.errors[0].line, error.errors[0].field)
        1 cameras
        """
        path = _yaml_path(file_path)
        instance, noted = _load(cls, path, strict)
        from ataraxis.errors import ConfigWarning

        for problem in noted:
            warnings.warn(str(problem), ConfigWarning, stacklevel=2)
        return instance  # type: ignore[no-any-return]

    @classmethod
    def restore_excluded_fields(
        cls, data: dict[Any, Any], file_path: Path
    ) -> dict[Any, Any]:
        """Give the values of the fields that are not kept in the file.

        Override it in a class that has a required field marked with
        `YAML_EXCLUDE_METADATA`; `from_yaml` calls it before it makes the instance.

        Parameters
        ----------
        data : dict
            Field name to value, as read.
        file_path : Path
            The file that was read.

        Returns
        -------
        dict
            The same with the missing values added.

        Examples
        --------
        >>> from dataclasses import dataclass, field
        >>> @dataclass
        ... class Tracker(YamlConfig):
        ...     file_path: Path = field(metadata=YAML_EXCLUDE_METADATA)
        ...     jobs: int = 0
        ...     @classmethod
        ...     def restore_excluded_fields(cls, data, file_path):
        ...         return {**data, "file_path": file_path}
        >>> Tracker.restore_excluded_fields({"jobs": 3}, Path("t.yaml"))["jobs"]
        3
        """
        return data


def _yaml_path(file_path: str | Path) -> Path:
    """Check the name of a file."""
    path = Path(file_path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        from ataraxis.config.node import ConfigProblem, config_error

        found = repr(path.suffix) if path.suffix else "no suffix"
        problem = ConfigProblem(
            str(path), None, "", "a file that ends in .yaml or .yml", found
        )
        raise config_error("not a YAML file", [problem])
    return path


# ---- an instance to a file: write, merge into the old text, check, and replace

# Nothing touches the disk until the new text has been read back and found equal.

_MARK = b"\xef\xbb\xbf"


def _save(instance: Any, path: Path) -> None:
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
    writer = ConfigWriter(path)
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
        revised = DocumentMerge(parsed, path).revised(parsed.root, tree)
    except Unmergeable:
        return None, False
    if not _says(revised, tree, cls, path):
        return None, False
    return revised, fitted


def _fits(root: YamlNode, cls: type, path: Path) -> bool:
    """Tell whether the old file reads as the class."""
    reader = ConfigReader(ConvertOptions(path, build=False))
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
    reader = ConfigReader(ConvertOptions(path, build=False))
    value = reader.read(parsed.root, cls)
    if reader.problems:
        return False
    again = ConfigWriter(path).write(value, cls)
    return again is not None and fingerprint(again) == fingerprint(tree)


# ---- a file to an instance: parse, read, build, and raise all problems as one error


def _load(cls: Any, path: Path, strict: bool) -> tuple[Any, list[ConfigProblem]]:
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
        text = document.decoded(storage.read_whole(path), str(path))
        dialect = "1.2" if strict else "1.1"
        parsed = document.parse(text, str(path), dialect)
    except document.Unreadable as error:
        raise config_error(title, [error.problem]) from error
    reader = ConfigReader(ConvertOptions(path, dialect=parsed.dialect, lax=not strict))
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
    root: YamlNode | None, cls: Any, path: Path, reader: ConfigReader
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


def _read_root(reader: ConfigReader, root: Mapping, cls: Any, path: Path) -> Any:
    """Read the fields, let the class add the excluded ones, and build."""
    before = len(reader.problems)
    values = convert.read_fields(reader, root, cls, "")
    for schema in fields_of(cls).values():
        if schema.required and not schema.excluded and schema.name not in values:
            convert.note_missing(reader, root, schema, "", before)
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
    return convert.build(reader, root, cls, values, "")
