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


class Announcement:
    """Announce that a durable reader will read a stream from its first frame.

    The producer that makes the stream waits for the reader to join, see
    ``Producer(join_timeout=)``. The announcement ends with `withdraw` or its process.

    Parameters
    ----------
    stream : str
        Name of the stream.
    durable : str
        The reader's durable name.
    context : Context, str, Path or None
        The directory the stream will live in.

    Examples
    --------
    >>> with Announcement("doc_awaited", "recorder"):
    ...     [one.durable for one in announced("doc_awaited")]
    ['recorder']
    >>> announced("doc_awaited")
    []
    """

    def __init__(self, stream: str, durable: str, context: ContextLike = None) -> None:
        self._context = Context.of(context)
        sweep(self._context)
        self._folder = f"{PREFIX}{checked_name(stream)}"
        self._name = uuid.uuid4().hex
        self._descriptor = -1
        text = json.dumps({"durable": durable}).encode()
        with self._context.opened() as directory:
            for left in reversed(range(_TRIES)):
                try:
                    self._announce(directory, text)
                    break
                except FileNotFoundError:  # another process removed the empty folder
                    if not left:
                        raise

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
    """List the live announcements in a folder; remove the folder if it has none."""
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
                text = _read(one, folder, context)
                if text is not None:
                    durable = str(json.loads(text)["durable"])
                    found.append(Announced(context.join(f"{name}/{one}"), durable))
    finally:
        os.close(folder)
    if not found:
        _remove_empty(name, directory)
    return found


def _read(name: str, directory: int, context: Context) -> bytes | None:
    """Read a live announcement; None, and the file removed, if its process died."""
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not context.trusts(status, directory):
            return None
        if not is_owned(descriptor):
            if not name.endswith(_NEW):  # else another process is writing it
                _unlink(name, directory)
            return None
        return os.read(descriptor, _MOST)
    finally:
        os.close(descriptor)


def wait_for_announced(
    stream: str,
    context: ContextLike,
    timeout: float,
    *,
    has_joined: Callable[[str], bool],
    keep_for: Callable[[str], object],
) -> None:
    """Wait until the announced readers have joined; called by the producer.

    The stream is published already. A reader that has not joined within `timeout`, s,
    is named in a warning. `has_joined` and `keep_for` take a durable name: whether its
    reader has joined, and to keep the frames for one that has not.
    """
    deadline, pause = time.monotonic() + timeout, _PAUSE_S
    while True:
        names = [one.durable for one in announced(stream, context)]
        waiting = [name for name in names if not has_joined(name)]
        if not waiting:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_S)
    for name in dict.fromkeys(waiting):
        try:
            keep_for(name)
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
