"""Contexts: directories that hold segments, and are their only registry.

A context is a directory and nothing else: no daemon, no index, no lock file. Listing
the directory lists the segments; another directory is another, isolated, world.

Each use opens the directory anew, without following a link, looks at what it has
opened, and does the rest relative to that descriptor: what is checked is what is used.
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
"""What ``ataraxis context create --group`` gives a directory, to the bit."""


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
        UnsafeContext
            Other users can put files there. A `PermissionError`.

        Notes
        -----
        The default one is a directory, not a link to one and not a mount, it belongs to
        this user, and no other user and no group has a right to it. A group context
        (mode 2770) is used only where it is named.
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
            path.chmod(GROUP_MODE)
        return _checked(str(path))

    def names(self) -> list[str]:
        """List the names of the segments, sorted; reads nothing but the directory."""
        with self.opened() as directory:
            return sorted(n for n in os.listdir(directory) if not n.startswith("."))

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
        """Open the directory itself and check it; the caller closes the descriptor.

        Raises
        ------
        UnsafeContext
            It is not safe any more.
        """
        return _open_checked(str(self.path))[0]

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the directory as `open_directory` does, for the time of a ``with``."""
        directory = self.open_directory()
        try:
            yield directory
        finally:
            os.close(directory)

    def unlink(self, name: str) -> None:
        """Take away a name that was checked already.

        Raises
        ------
        FileNotFoundError
            Nothing has it.
        """
        with self.opened() as directory:
            os.unlink(name, dir_fd=directory)

    def trusts(self, status: os.stat_result, directory: int) -> bool:
        """Whether a file's owner and group are ones this context lets take part."""
        if status.st_uid == os.geteuid() or status.st_uid == 0:
            return True
        return self.is_shared_with_group and status.st_gid == os.fstat(directory).st_gid

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
    """Refuse a directory in which other users could plant or swap files."""
    directory, is_shared = _open_checked(path)
    os.close(directory)
    return _known(path, is_shared)


def _open_checked(path: str) -> tuple[int, bool]:
    """Open a directory that is safe to use; and whether it is shared with a group."""
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
    """Say why a directory is not this user's alone; '' if it is."""
    if status.st_uid != os.geteuid():
        return "it is not yours"
    if status.st_mode & 0o077:
        return "others have rights to it"
    if status.st_mode & 0o700 != 0o700:
        return "you have not every right to it"
    return ""


def _problem_of_named(status: os.stat_result) -> tuple[str, bool]:
    """Say why a directory that was asked for is not safe; and if it is a group's.

    A directory of mode 2770 was made by `Context.create`: to set that bit for a group,
    its owner must be one of its members, or root.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode == GROUP_MODE and _is_member(status.st_gid):
        return "", True
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}", False
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return "anybody may write there", False
    if mode & stat.S_IWGRP and not mode & stat.S_ISVTX:
        return (
            "its group may write there, but it is not a group context (mode 2770) of a "
            "group of yours"
        ), False
    return "", False


def _is_member(group: int) -> bool:
    """Whether this process is root, or of the group."""
    return os.geteuid() == 0 or group in (os.getegid(), *os.getgroups())


def _refused(
    path: str, status: os.stat_result | None, problem: str, is_default: bool
) -> UnsafeContext:
    """Say whose the directory is, its bits, and a way out that works."""
    if status is None:
        try:
            status = os.lstat(path)
        except OSError:
            pass
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
    """Return a user's number, with the name if this machine knows one."""
    import pwd

    try:
        return f"user {user} ({pwd.getpwuid(user).pw_name})"
    except KeyError:
        return f"user {user}"


@functools.lru_cache(maxsize=64)
def _known(path: str, shared: bool) -> Context:
    return Context(Path(path), shared)
