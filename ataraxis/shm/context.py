"""Contexts: directories that hold segments, and are their only registry.

A context needs no daemon, no index and no lock file. Listing the directory lists the
segments; segments of different directories are separate.

Each use opens the directory without following a link, checks it, and does the rest
relative to that descriptor: what was checked is what is used.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ataraxis.errors import UnsafeContext
from ataraxis.shm.beneath import NO_LINKS, NO_MOUNTS, open_beneath

NAME_BYTES = 200
GROUP_MODE = 0o2770
"""Mode of directories made by ``ataraxis context create --group``."""


@dataclass(frozen=True)
class Context:
    """A directory of segments.

    Parameters
    ----------
    path : Path
        The directory. `Context.of` makes and checks it.
    is_shared_with_group : bool
        Whether its mode is 2770 (`Context.create`): every member of its group may
        attach to its segments.

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
        """Open a context; make the default one if needed.

        Parameters
        ----------
        context : Context, str, Path or None
            ``None`` is ``$ATARAXIS_CONTEXT``, or the default directory of this user.

        Returns
        -------
        Context
            A directory that is safe to use.

        Raises
        ------
        FileNotFoundError
            A named directory does not exist.
        UnsafeContext
            Other users can put files there. A `PermissionError`.

        Notes
        -----
        The default directory must not be a link or a mount, belongs to this user, and
        gives no rights to other users and groups. A group context (mode 2770) is used
        only if it is named.
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
        return _checked(path if path == _default_path() else os.path.realpath(path))

    @classmethod
    def create(cls, path: str | Path, *, group: str | int | None = None) -> Context:
        """Make a context directory.

        Parameters
        ----------
        path : str or Path
            It must not exist.
        group : str or int, optional
            Share it with this group: mode 2770, so that containers with other users
            can attach. By default mode 0700.

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
            path.chmod(GROUP_MODE)
        return _checked(str(path))

    def names(self) -> list[str]:
        """Return the sorted names of the segments; only the directory is read."""
        with self.opened() as directory:
            return sorted(n for n in os.listdir(directory) if not n.startswith("."))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the segments."""
        return iter(self.names())

    def path_of(self, name: str) -> Path:
        """Return the path of a segment; raise `ValueError` for an invalid name."""
        return self.path / checked_name(name)

    def open_directory(self) -> int:
        """Open the directory; raise `UnsafeContext` if it is not safe any more.

        The caller closes the descriptor.
        """
        return _open_checked(str(self.path))[0]

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the directory as `open_directory` does, for a ``with`` block."""
        directory = self.open_directory()
        try:
            yield directory
        finally:
            os.close(directory)

    def unlink(self, name: str) -> None:
        """Remove a name that was checked already, or raise `FileNotFoundError`."""
        with self.opened() as directory:
            os.unlink(name, dir_fd=directory)

    def trusts(self, status: os.stat_result, directory: int) -> bool:
        """Return whether this context trusts a file's owner and group."""
        if status.st_uid == os.geteuid() or status.st_uid == 0:
            return True
        return self.is_shared_with_group and status.st_gid == os.fstat(directory).st_gid

    def join(self, name: str) -> str:
        """Return the path of a name that was checked already, as text."""
        return f"{self.path}/{name}"


ContextLike: TypeAlias = Context | str | Path | None


def checked_name(name: str | bytes) -> str:
    """Return `name` as text if it can name a segment.

    Raises `TypeError`; or `ValueError` if it is empty, too long, or no plain file name.
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
    """Return why the text cannot name a segment, or None."""
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
    """Return the number of a group given by name or number, or raise `LookupError`."""
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise LookupError(f"no group named {group!r} on this machine") from None


def _default_path() -> str:
    return f"{_root()}/ataraxis-{os.geteuid()}"


def _default() -> Context:
    path = _default_path()
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return _checked(path)


@functools.cache
def _root() -> str:
    return "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()


def _checked(path: str) -> Context:
    """Refuse a directory in which other users could make or replace files."""
    directory, is_shared = _open_checked(path)
    os.close(directory)
    return _known(path, is_shared)


def _open_checked(path: str) -> tuple[int, bool]:
    """Open a directory that is safe; return whether it is shared with a group, too."""
    is_default = path == _default_path()
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if is_default:
            directory = _open_default(path, flags)
        else:
            directory = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EMFILE, errno.ENFILE):
            raise
        raise _refused(path, None, _why_not_opened(error), is_default) from None
    try:
        status = os.fstat(directory)
        if is_default:
            problem = _problem_of_default(status)
            is_shared = False
        else:
            problem, is_shared = _problem_of_named(status)
        if problem:
            raise _refused(path, status, problem, is_default)
    except BaseException:
        os.close(directory)
        raise
    return directory, is_shared


def _open_default(path: str, flags: int) -> int:
    """Open the default directory, which may be neither a link nor a mount."""
    parent, _, name = path.rpartition("/")
    above = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(above, name, flags, resolve=NO_LINKS | NO_MOUNTS)
    finally:
        os.close(above)


def _why_not_opened(error: OSError) -> str:
    return {
        errno.ELOOP: "it is a link",
        errno.ENOTDIR: "it is not a directory",
        errno.EXDEV: "another file system is mounted there",
        errno.EACCES: "it cannot be opened",
    }.get(error.errno or 0, error.strerror or str(error))


def _problem_of_default(status: os.stat_result) -> str:
    """Return why a directory is not private to this user; '' if it is."""
    if status.st_uid != os.geteuid():
        return "it is not yours"
    if status.st_mode & 0o077:
        return "others have rights to it"
    if status.st_mode & 0o700 != 0o700:
        return "you lack rights to it"
    return ""


def _problem_of_named(status: os.stat_result) -> tuple[str, bool]:
    """Return why a named directory is not safe, and whether it is a group context.

    To set mode 2770 for a group, the owner must be one of its members, or root.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode == GROUP_MODE and _is_member(status.st_gid):
        return "", True
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}", False
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return "every user may write there", False
    if mode & stat.S_IWGRP and not mode & stat.S_ISVTX:
        return (
            "its group may write there, but it is not a group context (mode 2770) of a "
            "group of yours"
        ), False
    return "", False


def _is_member(group: int) -> bool:
    """Return whether this process is root, or of the group."""
    return os.geteuid() == 0 or group in (os.getegid(), *os.getgroups())


def _refused(
    path: str, status: os.stat_result | None, problem: str, is_default: bool
) -> UnsafeContext:
    """Return an error with owner and mode of the directory, and what to do."""
    if status is None:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
    found = ""
    owner = "its owner"
    is_mine = False
    if status is not None:
        owner = _user_name(status.st_uid)
        is_mine = status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode)
        found = (
            f" (owner {owner}, group {status.st_gid}, mode "
            f"{stat.S_IMODE(status.st_mode):04o})"
        )
    way = []
    if is_mine and problem != "another file system is mounted there":
        way.append(f"run 'chmod 700 {path}' if you know every file in it")
    elif is_default:
        way.append(f"ask {owner} or root to remove it")
    if is_default:
        way.append(
            f'run export ATARAXIS_CONTEXT="$(mktemp -d -p {_root()})" and start every '
            "program of yours from that shell"
        )
    else:
        way.append(
            "name another directory, or make one for a group with 'ataraxis context "
            "create --group'"
        )
    return UnsafeContext(
        f"context {path!r} is not safe to use: {problem}{found}. " + "; or ".join(way),
    )


def _user_name(user: int) -> str:
    """Return a user's number, with the name if it is known."""
    import pwd

    try:
        return f"user {user} ({pwd.getpwuid(user).pw_name})"
    except KeyError:
        return f"user {user}"


@functools.lru_cache(maxsize=64)
def _known(path: str, shared: bool) -> Context:
    return Context(Path(path), shared)
