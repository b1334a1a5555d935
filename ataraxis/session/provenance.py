"""Provenance: with what, where and by whom a session was recorded."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass, field

from ataraxis.clock import Anchor
from ataraxis.config import YamlConfig

PACKAGES = ("ataraxis", "numpy", "xarray")
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Provenance:
    """What is needed to know later how a session came about."""

    host: str
    """Name of the machine."""
    user: str
    """Who recorded it."""
    system: str
    """Operating system and processor."""
    processors: int
    """How many this process may use."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the packages that count."""
    command: list[str]
    """What was typed."""
    directory: str
    """Where it was typed."""
    git_commit: str = ""
    """Commit of the repository that `directory` is in; empty if there is none."""
    is_git_changed: bool = False
    """Whether tracked files there differ from that commit."""

    @classmethod
    def take(cls) -> Provenance:
        """Look at this process, its machine and its repository."""
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
    """What ``session.yaml`` says: written when the session begins."""

    name: str
    id: str = field(metadata={"help": "unique; its recorders are called session-<id>"})
    subject: str
    context: str = field(metadata={"help": "where its streams lived"})
    clock: Anchor = field(metadata={"help": "one instant on both clocks, at the start"})
    provenance: Provenance
    streams: list[str] = field(
        default_factory=list,
        metadata={"help": "each is written here before its first frame is recorded"},
    )

    ended: list[str] = field(
        default_factory=list,
        metadata={"help": "of these, the ones that have ended and are whole on disk"},
    )

    @classmethod
    def take(cls, name: str, subject: str, context: str) -> SessionRecord:
        """Write down what is known of a session that begins now."""
        return cls(
            name=name,
            id=uuid.uuid4().hex[:12],
            subject=subject,
            context=context,
            clock=Anchor.take(),
            provenance=Provenance.take(),
        )

    def mark(self, which: str, stream: str, is_there: bool) -> bool:
        """Put a stream into one of the lists, or take it out; whether that is new."""
        names: list[str] = getattr(self, which)
        if is_there == (stream in names):
            return False
        (names.append if is_there else names.remove)(stream)
        return True

    @property
    def recorder(self) -> str:
        """The name under which producers know its recorders."""
        return f"session-{self.id}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _git(*arguments: str) -> str:
    """Ask git; empty if it does not answer."""
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
