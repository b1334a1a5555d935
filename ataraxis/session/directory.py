"""SessionFolder: the directory of a session, and its writer."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ataraxis.clock import Anchor, now_ns
from ataraxis.config import YamlConfig
from ataraxis.log.modes import FILE_MODE, make_folder
from ataraxis.shm.context import checked_name
from ataraxis.shm.files import is_owned, own

if TYPE_CHECKING:
    from ataraxis.session.verdict import Verdict

# ---- the origin of a session

PACKAGES = ("ataraxis", "numpy", "xarray")
_PATIENCE_S = 5.0
_REPORT = "ataraxis.viewer.report"


@dataclass(frozen=True)
class Provenance:
    """The origin of a session: machine, user, software."""

    host: str
    """Name of the machine."""
    user: str
    """Name of the user."""
    system: str
    """Operating system and processor."""
    processors: int
    """Processors that this process may use."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the main packages."""
    command: list[str]
    """Command line of the program."""
    directory: str
    """Current directory of the program."""
    git_commit: str = ""
    """Commit of the repository of `directory`; empty without one."""
    is_git_changed: bool = False
    """Whether tracked files differ from that commit."""

    @classmethod
    def take(cls) -> Provenance:
        """Describe this process, its machine and its repository."""
        packages = {}
        for name in PACKAGES:
            try:
                packages[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        commit = _git("rev-parse", "HEAD")
        return cls(
            host=socket.gethostname(),
            user=_user(),
            system=platform.platform(),
            processors=len(os.sched_getaffinity(0)),
            python=platform.python_version(),
            packages=packages,
            command=list(sys.argv),
            directory=os.getcwd(),
            git_commit=commit,
            is_git_changed=bool(
                commit and _git("status", "--porcelain", "--untracked-files=no")
            ),
        )


@dataclass
class SessionRecord(YamlConfig):
    """Contents of ``session.yaml``, written when the session begins."""

    name: str
    id: str = field(metadata={"help": "unique; its recorders are called session-<id>"})
    subject: str
    context: str = field(metadata={"help": "context of its streams"})
    clock: Anchor = field(metadata={"help": "one instant on both clocks, at the start"})
    provenance: Provenance
    streams: list[str] = field(
        default_factory=list,
        metadata={"help": "each is written here before its first frame is recorded"},
    )

    ended: list[str] = field(
        default_factory=list,
        metadata={"help": "those of streams that have ended and are whole on disk"},
    )
    elsewhere: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "streams that another host records: host and directory"},
    )

    @classmethod
    def take(cls, name: str, subject: str, context: str) -> SessionRecord:
        """Make the record of a session that begins now."""
        return cls(
            name=name,
            id=uuid.uuid4().hex[:12],
            subject=subject,
            context=context,
            clock=Anchor.take(),
            provenance=Provenance.take(),
        )

    def mark(self, which: str, stream: str, is_there: bool) -> bool:
        """Add a stream to one of the lists, or remove it; return whether it changed."""
        names: list[str] = getattr(self, which)
        if is_there == (stream in names):
            return False
        (names.append if is_there else names.remove)(stream)
        return True

    @property
    def recorder(self) -> str:
        """Name of its recorders, as readers of the streams."""
        return f"session-{self.id}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _git(*arguments: str) -> str:
    """Return the output of git; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# ---- the directory


class SessionFolder:
    """The directory of one session, also while it is recorded.

    Parameters
    ----------
    path : str or Path
        The directory.

    Raises
    ------
    FileNotFoundError
        It does not exist, or is not the directory of a session.

    Notes
    -----
    It contains ``session.yaml`` (identity, provenance, clocks), ``config.yaml`` and
    ``rig.yaml`` if given, ``session.log``, a journal for each stream
    (``NAME.000000.axj``), and, once it is finished, ``verdict.yaml``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.record_path.is_file():
            what = "no session.yaml in it" if self.path.is_dir() else "no directory"
            raise FileNotFoundError(2, f"not a session: {what}", str(self.path))
        self._lock = -1

    @classmethod
    def create(cls, directory: str | os.PathLike[str] | None, name: str) -> Path:
        """Make the directory of a new session, and return it.

        Raises
        ------
        FileExistsError
            It exists and is not empty: nothing is overwritten.
        """
        path = Path(directory or ".") / checked_name(name)
        try:
            make_folder(path, exist_ok=False)
        except FileExistsError:
            if not path.is_dir() or any(path.iterdir()):
                raise FileExistsError(
                    17,
                    f"session {name!r} cannot be made: its directory is not empty. "
                    "Choose another name, or pass resume=True to continue a session "
                    "that was cut off",
                    str(path),
                ) from None
        return path

    @property
    def record_path(self) -> Path:
        """Path of ``session.yaml``."""
        return self.path / "session.yaml"

    @property
    def log_path(self) -> Path:
        """Path of ``session.log``."""
        return self.path / "session.log"

    @property
    def verdict_path(self) -> Path:
        """Path of ``verdict.yaml``, which exists once the session is finished."""
        return self.path / "verdict.yaml"

    def record(self) -> SessionRecord:
        """Read ``session.yaml``."""
        return SessionRecord.from_yaml(self.record_path)

    def verdict(self) -> Verdict | None:
        """Read ``verdict.yaml``; None: the session is not finished."""
        from ataraxis.session.verdict import Verdict

        if not self.verdict_path.is_file():
            return None
        return Verdict.from_yaml(self.verdict_path)

    def report(
        self, path: str | os.PathLike[str] | None = None, *, verify: bool = False
    ) -> Path:
        """Write what it holds, and whether it is whole, as one HTML file.

        Parameters and result are those of `ataraxis.report`: by default the file is
        ``report.html`` in the directory.
        """
        # By its name, as the room of pictures is above that of sessions.
        written: Path = importlib.import_module(_REPORT).report(
            self.path, path, verify=verify
        )
        return written

    def keep_config(self, config: object, name: str = "config.yaml") -> None:
        """Write a `YamlConfig`, or copy a YAML file, into the directory."""
        if isinstance(config, YamlConfig):
            config.to_yaml(self.path / name)
        elif isinstance(config, (str, os.PathLike)):
            shutil.copyfile(config, self.path / name)
        else:
            raise TypeError(
                "config must be a YamlConfig or the path of a YAML file, got "
                f"{config!r}"
            )

    # ---- the writer

    def own(self) -> bool:
        """Become its writer, until `release`; return False if another process is."""
        descriptor = os.open(
            self.log_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE
        )
        if not own(descriptor):
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def release(self) -> None:
        """Stop being its writer."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_live(self) -> bool:
        """Whether a process writes it."""
        return self.log_path.is_file() and is_owned(self.log_path)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("folder", self)

    def __repr__(self) -> str:
        return f"<SessionFolder {self.path}>"


# ---- the log of a session


class SessionLog:
    r"""Appends lines to ``session.log``; each is in the file when `write` returns.

    `clock` converts monotonic to wall time.
    """

    def __init__(self, path: Path, clock: Anchor) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Write one line: UTC, monotonic ns, and the text without line breaks."""
        now = now_ns()
        wall = str(self._clock.to_datetime64(now))[:23]
        # If the disk is full the line is lost, and the session goes on.
        with self._lock, contextlib.suppress(OSError):
            if not self._file.closed:
                self._file.write(f"{wall}Z {now} {' '.join(text.split())}\n")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
