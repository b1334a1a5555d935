"""`YamlConfig`: loads a dataclass from a YAML file and saves it.

The other files of this package convert text, nodes and values.
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
from ataraxis.errors import ConfigWarning

YAML_EXCLUDE_METADATA: abc.Mapping[str, bool] = MappingProxyType({"yaml_exclude": True})
"""Metadata of a field that is not kept in the file."""


class YamlConfig:
    """A dataclass that is stored in a YAML file which people may edit.

    Inherit from it and decorate with `dataclasses.dataclass`, frozen or not. Values are
    written and read by the types of the fields. Reading returns an equal instance, or
    raises an error that names each place where the file does not fit.

    Notes
    -----
    ``field(metadata={"units": "s", "help": "exposure of each frame"})`` is written as
    a comment in a new file. A field with ``metadata=YAML_EXCLUDE_METADATA`` is not
    written; if it is required, override `restore_excluded_fields`.

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

        An existing file keeps its comments, order, mode bits and the text of unchanged
        values. A reader, also after a kill at any moment, finds the whole old file or
        the whole new one. An old file that does not fit the class is kept as ``.bak``.

        Parameters
        ----------
        file_path : str or Path
            The file; ends in ``.yaml`` or ``.yml``. Missing folders are made.

        Raises
        ------
        ConfigError
            The suffix is another, or a value does not fit its annotation or YAML.
            ``errors`` lists all of them; the old file is unchanged.
        OSError
            The file cannot be written; the old one is unchanged.

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
        _save(self, _yaml_path(file_path))

    @classmethod
    def from_yaml(cls, file_path: str | Path, *, strict: bool = True) -> Self:
        r"""Read an instance from a file.

        Parameters
        ----------
        file_path : str or Path
            The file; ends in ``.yaml`` or ``.yml``.
        strict : bool
            ``False`` reads files of ataraxis-data-structures, as YAML 1.1, where ``no``
            is false. Unknown and duplicate keys are ignored; a value of another type
            is converted if its meaning is clear, else kept unchanged; each is a
            `ConfigWarning`. Tags that would run code are still refused.

        Raises
        ------
        ConfigError
            The file does not fit. ``errors`` lists every problem with file, line,
            field, what was expected and found, and a hint.
        FileNotFoundError
            The file does not exist.

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
        instance, noted = _load(cls, _yaml_path(file_path), strict)
        for problem in noted:
            warnings.warn(str(problem), ConfigWarning, stacklevel=2)
        return instance  # type: ignore[no-any-return]

    @classmethod
    def restore_excluded_fields(
        cls, data: dict[Any, Any], file_path: Path
    ) -> dict[Any, Any]:
        """Return the values of a file with those of the excluded fields added.

        Override it in a class with a required field marked `YAML_EXCLUDE_METADATA`;
        `from_yaml` calls it before it makes the instance.

        Parameters
        ----------
        data : dict
            Field name to value, as read.
        file_path : Path
            The file that was read.

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
    """Return the path of a YAML file, or refuse its suffix."""
    path = Path(file_path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        found = repr(path.suffix) if path.suffix else "no suffix"
        expected = "a file that ends in .yaml or .yml"
        problem = ConfigProblem(str(path), None, "", expected, found)
        raise config_error("not a YAML file", [problem])
    return path


# ---- saving: the new text is read back and compared before the file is replaced

_MARK = b"\xef\xbb\xbf"


def _save(instance: Any, path: Path) -> None:
    """Write an instance to a file; raises as `YamlConfig.to_yaml`."""
    cls = type(instance)
    require_dataclass(cls)
    tree = _tree(instance, cls, path)
    old = storage.read_bytes(path)
    text, is_kept = (None, True) if old is None else _merged(old, tree, cls, path)
    if text is None:
        text = emitter.document_text(tree)
        if not _reads_back_as(tree, text, cls, path):
            found = "a value that is not read back equal"
            problem = ConfigProblem(str(path), None, "", f"a {cls.__name__}", found)
            raise config_error(f"{cls.__name__} cannot be written", [problem])
    data = text.encode("utf-8")
    if old is not None and old.startswith(_MARK):
        data = _MARK + data
    if old is not None and not is_kept and old.strip():
        storage.keep_copy(path, old)
    storage.replace_bytes(path, data)


def _tree(instance: Any, cls: type, path: Path) -> Mapping:
    """Return the nodes of an instance; all that do not fit are one error."""
    writer = ConfigWriter(path)
    node = writer.write(instance, cls)
    if writer.problems or not isinstance(node, Mapping):
        raise config_error(f"{cls.__name__} cannot be written", writer.problems)
    return node


def _merged(
    old: bytes, tree: Mapping, cls: type, path: Path
) -> tuple[str | None, bool]:
    """Return the old text, edited, and whether the old file fits the class."""
    try:
        parsed = document.parse(document.decoded(old, str(path)), str(path))
        if parsed.problems or parsed.duplicates or parsed.dialect != "1.2":
            return None, False
        if parsed.root is None:
            return None, False
        text = DocumentMerge(parsed, path).merged_text(parsed.root, tree)
    except (document.Unreadable, Unmergeable):
        return None, False
    if not _reads_back_as(tree, text, cls, path):
        return None, False
    reader = ConfigReader(ConvertOptions(path, build=False))
    reader.read(parsed.root, cls)
    return text, not reader.problems


def _reads_back_as(tree: Mapping, text: str, cls: type, path: Path) -> bool:
    """Return whether a text is read as the values of a tree."""
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


# ---- loading: parse, read, build, and raise all problems as one error


def _load(cls: Any, path: Path, strict: bool) -> tuple[Any, list[ConfigProblem]]:
    """Return an instance, and the warnings of a lax reading."""
    require_dataclass(cls)
    title = f"{path.name} does not fit {cls.__name__}"
    try:
        text = document.decoded(storage.read_whole(path), str(path))
        parsed = document.parse(text, str(path), "1.2" if strict else "1.1")
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
    """Return the document's mapping; note a problem if it is not one."""
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
    values = convert.read_fields(reader, root, cls, "")
    if reader.problems:
        return UNREAD
    values = cls.restore_excluded_fields(values, path)
    for schema in fields_of(cls).values():
        if schema.required and schema.excluded and schema.name not in values:
            expected = type_name(schema.type)
            hint = f"give it in {cls.__name__}.restore_excluded_fields"
            reader.refuse(root, schema.name, expected, "no value", hint)
    if reader.problems:
        return UNREAD
    return convert.build(reader, root, cls, values, "")
