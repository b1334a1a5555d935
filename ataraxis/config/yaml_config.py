"""The class that gives a dataclass its YAML file.

How text, nodes and values become each other is in the other files of this package.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

YAML_EXCLUDE_METADATA: Mapping[str, bool] = MappingProxyType({"yaml_exclude": True})
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
        from ataraxis.config import saving

        path = _yaml_path(file_path)
        saving.save(self, path)

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
        from ataraxis.config import loading

        path = _yaml_path(file_path)
        instance, noted = loading.load(cls, path, strict)
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
        from ataraxis.config.problem import ConfigProblem, config_error

        found = repr(path.suffix) if path.suffix else "no suffix"
        problem = ConfigProblem(
            str(path), None, "", "a file that ends in .yaml or .yml", found
        )
        raise config_error("not a YAML file", [problem])
    return path
