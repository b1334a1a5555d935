"""SessionFolder: the directory of a session, and who writes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ataraxis.config import YamlConfig
from ataraxis.log.ownership import is_owned, own
from ataraxis.session.provenance import SessionRecord
from ataraxis.shm.context import checked_name

if TYPE_CHECKING:
    from ataraxis.session.verdict import Verdict


class SessionFolder:
    """The directory of one session; also of one that is being recorded.

    Parameters
    ----------
    path : str or Path
        The directory, as a path: a session's name in the current directory will do.

    Raises
    ------
    FileNotFoundError
        There is no session.

    Notes
    -----
    In it: ``session.yaml`` (identity, provenance, clocks), ``config.yaml`` and
    ``rig.yaml`` if they were given, ``session.log`` (what happened), a journal for each
    stream (``NAME.000000.axj``), and, once it is finished, ``verdict.yaml``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.record_path.is_file():
            found = "no session.yaml in it" if self.path.is_dir() else "no directory"
            raise FileNotFoundError(
                2, f"a session was asked for, there is {found}", str(self.path)
            )
        self._lock = -1

    @classmethod
    def create(cls, directory: str | os.PathLike[str] | None, name: str) -> Path:
        """Make the directory of a new session; returns it.

        Raises
        ------
        FileExistsError
            Something is there: nothing is ever overwritten.
        """
        path = Path(directory or ".") / checked_name(name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir() or any(path.iterdir()):
                raise FileExistsError(
                    17,
                    f"a new session {name!r} was asked for and something is there: "
                    "give another name, or resume=True to go on with one that was cut "
                    "off",
                    str(path),
                ) from None
        return path

    @property
    def record_path(self) -> Path:
        """Of ``session.yaml``."""
        return self.path / "session.yaml"

    @property
    def log_path(self) -> Path:
        """Of ``session.log``."""
        return self.path / "session.log"

    @property
    def verdict_path(self) -> Path:
        """Of ``verdict.yaml``; it is there once the session is finished."""
        return self.path / "verdict.yaml"

    def record(self) -> SessionRecord:
        """Read ``session.yaml``."""
        return SessionRecord.from_yaml(self.record_path)

    def verdict(self) -> Verdict | None:
        """Read ``verdict.yaml``; None: it was not finished."""
        from ataraxis.session.verdict import Verdict

        if not self.verdict_path.is_file():
            return None
        return Verdict.from_yaml(self.verdict_path)

    def keep_config(self, config: object, name: str = "config.yaml") -> None:
        """Keep a configuration: a `YamlConfig`, or the path of a YAML file.

        Raises
        ------
        TypeError
            It is neither.
        """
        if isinstance(config, YamlConfig):
            config.to_yaml(self.path / name)
        elif isinstance(config, (str, os.PathLike)):
            shutil.copyfile(config, self.path / name)
        else:
            raise TypeError(
                f"config={config!r}: a YamlConfig, or the path of a YAML file"
            )

    # ---- who writes it

    def own(self) -> bool:
        """Become its writer, until `release` or death; False if somebody else is."""
        descriptor = os.open(
            self.log_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        if not own(descriptor):
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def release(self) -> None:
        """Be its writer no more."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_live(self) -> bool:
        """Whether somebody writes it."""
        return self.log_path.is_file() and is_owned(self.log_path)

    def __repr__(self) -> str:
        return f"<SessionFolder {self.path}>"
