"""Where DataMux looks for data and metadata, and the file that remembers it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ataraxis.errors import ConfigError

FILE = ".streaminghubrc"
_KEYS = ("data_dir", "meta_dir")


@dataclass(frozen=True)
class Settings:
    """Two folders; ``$HOME/streaminghub`` both, unless said otherwise."""

    data_dir: Path
    """Holds a folder of recordings for each collection."""
    meta_dir: Path
    """Holds ``*.collection.json`` or ``.yaml`` files."""

    @classmethod
    def load(cls) -> Settings:
        """Read ``./.streaminghubrc``, else ``~/.streaminghubrc``, else the defaults.

        Raises
        ------
        ConfigError
            A file is there and is not such a file.
        """
        for folder in (Path.cwd(), Path.home()):
            path = folder / FILE
            if path.is_file():
                return cls._read(path)
        home = Path.home() / "streaminghub"
        return cls(home, home)

    @classmethod
    def _read(cls, path: Path) -> Settings:
        cure = "run 'python -m ataraxis.datamux init' to write it anew"
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}; {cure}") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected an object with {_KEYS}; {cure}")
        default = str(Path.home() / "streaminghub")
        found = [data.get(key, default) for key in _KEYS]
        for key, value in zip(_KEYS, found, strict=True):
            if not isinstance(value, str) or not value:
                raise ConfigError(
                    f"{path}: {key}: expected a folder, found {value!r}; {cure}"
                )
        return cls(*(expand(value) for value in found))

    def save(self, path: Path | None = None) -> Path:
        """Make both folders and write ``~/.streaminghubrc`` in one step; its path."""
        target = Path.home() / FILE if path is None else path
        for folder in (self.data_dir, self.meta_dir):
            folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: str(getattr(self, key)) for key in _KEYS}, indent=2)
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        draft.write_text(text + "\n", encoding="utf-8")
        os.replace(draft, target)
        return target


def expand(folder: str | Path) -> Path:
    """Return a folder with ``~`` and ``$HOME`` filled in, absolute."""
    return Path(os.path.expandvars(folder)).expanduser().absolute()
