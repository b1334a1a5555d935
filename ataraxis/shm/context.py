"""Contexts: directories that hold segments, and are their only registry.

A context is a directory and nothing else: no daemon, no index, no lock file. Listing
the directory lists the segments; another directory is another, isolated, world.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

NAME_BYTES = 200


@dataclass(frozen=True)
class Context:
    """A directory of segments.

    Parameters
    ----------
    path : Path
        The directory. `Context.of` makes and checks it; this only names it.
    is_shared_with_group : bool
        Whether the directory is one of mode 2770 (`Context.create`), whose segments
        every member of its group may attach.

    Examples
    --------
    >>> from ataraxis.shm import Context
    >>> Context.of(None).names()  # doctest: +SKIP
    ['pose']
    """

    path: Path
    is_shared_with_group: bool = False

    @classmethod
    def of(cls, context: ContextLike) -> Context:
        """Open a context, and make the default one if it is not there yet.

        Parameters
        ----------
        context : Context, str, Path or None
            ``None`` is ``$ATARAXIS_CONTEXT`` or a directory of this user alone.

        Returns
        -------
        Context
            A directory that is safe to use.

        Raises
        ------
        FileNotFoundError
            A named directory does not exist.
        PermissionError
            Somebody else could put files there.
        """
        if isinstance(context, Context):
            return context
        if context is None:
            context = os.environ.get("ATARAXIS_CONTEXT") or None
        if context is None:
            return _default()
        path = os.path.abspath(os.fsdecode(context))
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f"context {path!r} is not a directory; make it with "
                f"'mkdir -m 700 {path}', or 'ataraxis context create' for a group"
            )
        return _checked(path)

    @classmethod
    def create(cls, path: str | Path, *, group: str | int | None = None) -> Context:
        """Make a context directory.

        Parameters
        ----------
        path : str or Path
            Must not exist yet.
        group : str or int, optional
            Share it with this group: mode 2770, so that containers with other users
            can take part. Without it, mode 0700.

        Returns
        -------
        Context
            The new, empty context.

        Raises
        ------
        FileExistsError
            `path` exists.
        """
        path = Path(path).absolute()
        path.mkdir(mode=0o700)
        if group is not None:
            os.chown(path, -1, group_id(group))
            path.chmod(0o2770)
        return _checked(str(path))

    def names(self) -> list[str]:
        """List the names of the segments, sorted; reads nothing but the directory."""
        return sorted(n for n in os.listdir(self.path) if not n.startswith("."))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the segments."""
        return iter(self.names())

    def path_of(self, name: str) -> Path:
        """Return where the segment `name` is, or would be; checks the name.

        Raises
        ------
        ValueError
            `name` cannot be a file's name here.
        """
        return self.path / checked_name(name)

    def open_directory(self) -> int:
        """Open the directory itself; the caller closes the descriptor."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(str(self.path), flags)

    def trusts(self, status: os.stat_result) -> bool:
        """Whether a file's owner and group are ones this context lets take part."""
        if status.st_uid == os.geteuid() or status.st_uid == 0:
            return True
        return self.is_shared_with_group and status.st_gid == self.path.stat().st_gid

    def join(self, name: str) -> str:
        """Return the path of a name that was checked already, as text."""
        return f"{self.path}/{name}"


ContextLike: TypeAlias = Context | str | Path | None


def checked_name(name: str | bytes) -> str:
    """Return `name` as text, or say why it cannot name a segment.

    Raises
    ------
    TypeError
        Neither text nor bytes.
    ValueError
        Empty, too long, or not a plain file name.
    """
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        raise TypeError(f"a segment's name is a str, got {type(name).__name__}")
    if what := _problem(name):
        shown = name if len(name) < 60 else name[:57] + "..."
        raise ValueError(f"segment name {shown!r} cannot be used: {what}")
    return name


@functools.lru_cache(maxsize=256)
def _problem(name: str) -> str | None:
    """Say why the text cannot name a segment, or None."""
    what = None
    if not name:
        what = "it is empty"
    elif "/" in name or "\\" in name:
        what = "it contains a slash: give a directory as context="
    elif "\0" in name or not name.isprintable():
        what = "it contains a character that cannot be printed"
    elif name.startswith(".") or ".." in name:
        what = "it starts with a dot or contains '..'"
    elif len(os.fsencode(name)) > NAME_BYTES:
        what = f"it has {len(os.fsencode(name))} bytes, at most {NAME_BYTES} fit"
    return what


def group_id(group: str | int) -> int:
    """Return the number of a group given by name or number.

    Raises
    ------
    LookupError
        No such group.
    """
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise LookupError(f"no group named {group!r} on this machine") from None


def _default() -> Context:
    path = f"{_root()}/ataraxis-{os.geteuid()}"
    try:
        return _checked(path)
    except FileNotFoundError:
        Path(path).mkdir(mode=0o700, exist_ok=True)
        return _checked(path)


@functools.cache
def _root() -> str:
    return "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()


def _checked(path: str) -> Context:
    """Refuse a directory in which somebody else could plant or swap files."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return _checked(os.path.realpath(path, strict=True))
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"context {path!r} is not a directory")
    shared = bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
    problem = None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        problem = "anybody may write there"
    elif mode & stat.S_IWGRP and not shared and not mode & stat.S_ISVTX:
        problem = "its group may write there, but it is not a group context (mode 2770)"
    elif status.st_uid not in (os.geteuid(), 0) and not shared:
        problem = f"it belongs to user {status.st_uid}"
    if problem:
        raise PermissionError(
            f"context {path!r} is not safe to use: {problem} (mode {mode:04o}). "
            f"Use 'chmod 700 {path}', another directory, or "
            "'ataraxis context create --group'"
        )
    return _known(path, shared)


@functools.lru_cache(maxsize=64)
def _known(path: str, shared: bool) -> Context:
    return Context(Path(path), shared)
