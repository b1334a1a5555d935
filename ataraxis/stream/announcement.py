"""Announcements: durable readers that wait for a stream that does not exist yet.

A reader of an absent stream locks a file in the context, *then* looks for the stream. A
producer publishes its name, *then* looks for announcements. So at least one of the two
sees the other, and the producer can wait for the reader before its first frame. The
file is in a folder of the stream's name, so that a producer lists no other names.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ataraxis.errors import AtaraxisError
from ataraxis.shm.context import GROUP_MODE, Context, ContextLike, checked_name
from ataraxis.shm.files import is_owned, own

PREFIX = ".await-"
_NEW = ".new"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST = 4096
_TRIES = 100
_PAUSE_S = 0.0005
_LONGEST_S = 0.005


@dataclass(frozen=True)
class Announced:
    """A live announcement, as a producer reads it."""

    path: str
    """Its file."""
    durable: str
    """The reader's durable name."""
    is_alive: bool = True
    """Whether its process lives; one that is kept may be dead."""
    detached_timeout: float | None = None
    """How long producers wait for a reader that died, s; None: forever."""


class Announcement:
    """Announce that a durable reader will read a stream from its first frame.

    The producer that makes the stream waits for the reader to join, see
    ``Producer(join_timeout=)``. The announcement ends with `withdraw` or its process;
    one that is kept ends with `withdraw`, or `forget`: if its process dies, producers
    keep the frames from the first one on.

    Parameters
    ----------
    stream : str
        Name of the stream.
    durable : str
        The reader's durable name.
    context : Context, str, Path or None
        The directory the stream will live in.
    is_kept : bool
        Whether it stays when its process dies.
    detached_timeout : float or None
        How long producers then wait for the reader, s; None: forever.

    Examples
    --------
    >>> with Announcement("doc_awaited", "recorder"):
    ...     [one.durable for one in announced("doc_awaited")]
    ['recorder']
    >>> announced("doc_awaited")
    []
    """

    def __init__(
        self,
        stream: str,
        durable: str,
        context: ContextLike = None,
        *,
        is_kept: bool = False,
        detached_timeout: float | None = None,
    ) -> None:
        self._context = Context.of(context)
        sweep(self._context)
        self._folder = f"{PREFIX}{checked_name(stream)}"
        self._name = uuid.uuid4().hex
        self._descriptor = -1
        about: dict[str, object] = {"durable": durable}
        if is_kept:
            about |= {"is_kept": True, "detached_timeout": detached_timeout}
        text = json.dumps(about).encode()
        with self._context.opened() as directory:
            for left in reversed(range(_TRIES)):
                try:
                    self._announce(directory, text)
                    break
                except FileNotFoundError:  # another process removed the empty folder
                    if not left:
                        raise
        if is_kept:  # instead of one that a dead process has left
            forget(stream, durable, self._context)

    def _announce(self, directory: int, text: bytes) -> None:
        is_shared = self._context.is_shared_with_group
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700, dir_fd=directory)
            if is_shared:
                os.chmod(self._folder, GROUP_MODE, dir_fd=directory)
        folder = os.open(self._folder, _FOLDER, dir_fd=directory)
        new = f"{self._name}{_NEW}"
        try:
            mode = 0o660 if is_shared else 0o600
            descriptor = os.open(new, _MAKE, mode, dir_fd=folder)
            try:
                own(descriptor)
                os.write(descriptor, text)
                os.rename(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.close(descriptor)
                _unlink(new, folder)
                raise
            self._descriptor = descriptor
        finally:
            os.close(folder)

    def withdraw(self) -> None:
        """End the announcement. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                with self._context.opened() as directory:
                    _unlink(f"{self._folder}/{self._name}", directory)
                    _remove_empty(self._folder, directory)
            except OSError:
                pass  # the context is gone, and the file with it
            finally:
                os.close(descriptor)

    def __enter__(self) -> Announcement:
        return self

    def __exit__(self, *exc: object) -> None:
        self.withdraw()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.withdraw()


def announced(stream: str, context: ContextLike = None) -> list[Announced]:
    """List the live announcements for a stream; remove those of dead processes."""
    return [one for one in _announced(stream, context) if one.is_alive]


def forget(stream: str, durable: str, context: ContextLike = None) -> None:
    """Remove the announcements of a durable name that dead processes have left."""
    place = Context.of(context)
    for one in _announced(stream, place):
        if one.durable == durable and not one.is_alive:
            with contextlib.suppress(OSError), place.opened() as directory:
                _unlink(f"{PREFIX}{stream}/{os.path.basename(one.path)}", directory)
                _remove_empty(f"{PREFIX}{stream}", directory)


def _announced(stream: str, context: ContextLike) -> list[Announced]:
    place = Context.of(context)
    with place.opened() as directory:
        return _announced_in(f"{PREFIX}{stream}", directory, place)


def sweep(context: ContextLike = None) -> None:
    """Remove the announcements of processes that died."""
    place = Context.of(context)
    with place.opened() as directory:
        for name in os.listdir(directory):
            if name.startswith(PREFIX):
                _announced_in(name, directory, place)


def _announced_in(name: str, directory: int, context: Context) -> list[Announced]:
    """List the announcements in a folder; remove the folder if it has none."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=directory)
    except OSError:  # the common case: no reader waits for the stream
        return []
    found = []
    try:
        if not context.trusts(os.fstat(folder), directory):
            return []
        names = os.listdir(folder)
        for one in names:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                # Suppressed: withdrawn meanwhile, or not a valid announcement.
                read = _read(one, folder, context)
                if read is not None:
                    about, is_alive = read
                    timeout = about.get("detached_timeout")
                    found.append(
                        Announced(
                            context.join(f"{name}/{one}"), str(about["durable"]),
                            is_alive, None if timeout is None else float(timeout),
                        )
                    )  # fmt: skip
    finally:
        os.close(folder)
    if not found:
        _remove_empty(name, directory)
    return found


def _read(
    name: str, directory: int, context: Context
) -> tuple[dict[str, Any], bool] | None:
    """Read an announcement, and whether its process lives.

    None if it died, and the file removed, unless it is kept.
    """
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not context.trusts(status, directory):
            return None
        is_alive = is_owned(descriptor)
        if not is_alive and name.endswith(_NEW):
            return None  # another process is writing it
        about: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            about = dict(json.loads(os.read(descriptor, _MOST)))
        if not is_alive and about.get("is_kept") is not True:
            _unlink(name, directory)
            return None
        return about, is_alive
    finally:
        os.close(descriptor)


def wait_for_announced(
    stream: str,
    context: ContextLike,
    timeout: float,
    *,
    has_joined: Callable[[str], bool],
    keep_for: Callable[[str, float | None], object],
) -> None:
    """Wait until the announced readers have joined; called by the producer.

    The stream is published already. A reader that has not joined within `timeout`, s,
    is named in a warning. `has_joined` takes a durable name: whether its reader has
    joined; `keep_for` also how long to keep the frames for one that has not, s.
    """
    every = _announced(stream, context)
    alive = {one.durable for one in every if one.is_alive}
    for one in every:
        if one.durable not in alive and not has_joined(one.durable):
            with contextlib.suppress(AtaraxisError):  # it has returned, and joined
                keep_for(one.durable, one.detached_timeout)
    deadline, pause = time.monotonic() + timeout, _PAUSE_S
    while alive:
        names = [one.durable for one in announced(stream, context)]
        waiting = [name for name in names if not has_joined(name)]
        if not waiting:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_S)
    for name in dict.fromkeys(waiting) if alive else ():
        try:
            keep_for(name, None)
        except AtaraxisError as error:
            if has_joined(name):
                continue
            effect = f"frames cannot be kept for it: {error}"
        else:
            effect = "frames are kept for it"
        warnings.warn(
            f"stream {stream!r}: reader {name!r} was announced and has not joined "
            f"within {timeout:g} s; {effect}",
            RuntimeWarning,
            stacklevel=4,
        )


def _unlink(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _remove_empty(folder: str, directory: int) -> None:
    """Remove a folder if it is empty."""
    with contextlib.suppress(OSError):
        os.rmdir(folder, dir_fd=directory)
