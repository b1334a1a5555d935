"""Find and remove the files of a context that no process uses any more."""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from dataclasses import dataclass
from typing import Any

from ataraxis._kernels.memory import anybody
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import MAX_PARTICIPANTS, Kind, SegmentHeader
from ataraxis.shm.segment import TEMPORARY

# A temporary file has no participant between being opened and being attached: a file
# younger than this may be in use.
YOUNG_S = 60.0


@dataclass(frozen=True)
class Leftover:
    """A file that no process is attached to."""

    name: str
    """Name in the context."""
    kind: str
    """array, stream, ...; 'temporary'; '' if unreadable."""
    bytes: int
    """Memory that it takes."""
    is_removed: bool
    """Whether it was removed; in a dry run, whether it would be."""
    reason: str
    """Why it was removed, or why not."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


def collect(context: ContextLike = None, *, is_dry: bool = False) -> list[Leftover]:
    """Remove the segments of a context that no process is attached to.

    Parameters
    ----------
    context : Context, str, Path or None
        The directory; None is the user's default.
    is_dry : bool
        Return what would be removed, and remove nothing.

    Returns
    -------
    list of Leftover
        What was removed, and what was left although unused: segments with frames that
        are promised to a reader, and files that are not segments.

    Notes
    -----
    The check for participants and the removal of the name are one step: a process that
    attaches meanwhile keeps the name.
    """
    context = Context.of(context)
    directory = context.open_directory()
    try:
        found = [_segment(directory, context, name, is_dry) for name in context.names()]
        found += [
            _temporary(directory, name, is_dry)
            for name in sorted(os.listdir(directory))
            if name.startswith(TEMPORARY)
        ]
    finally:
        os.close(directory)
    return [leftover for leftover in found if leftover is not None]


def _segment(
    directory: int, context: Context, name: str, is_dry: bool
) -> Leftover | None:
    """Remove a segment if it is stale; None if it is live or does not exist."""
    taken = 0
    access = os.O_RDONLY if is_dry else os.O_RDWR
    try:
        with files.find(directory, context, name, access) as found:
            taken = found.status.st_blocks * 512
            header = SegmentHeader.unpack(found.page, found.status.st_size, found.path)
            kind = header.kind.name.lower()
            if anybody(found.descriptor, header.geometry.participants):
                return None
            is_alone = header.kind is Kind.ARENA and not _has_queue(context, name)
            if found.is_kept() and not is_alone:
                return Leftover(name, kind, taken, False, _why_kept(name, header.kind))
            slots = header.geometry.participants
            if is_alone and not is_dry:
                context.unlink(name)
                return Leftover(name, kind, taken, True, "its queue is gone")
            if is_dry or files.take_name(
                found.descriptor, directory, name, slots, is_forced=False
            ):
                return Leftover(name, kind, taken, True, "no process is attached")
            return None
    except SegmentNotFound:
        return None
    except (LayoutError, OSError) as error:
        return Leftover(name, "", taken, False, f"not touched: {error}")


def _has_queue(context: Context, arena: str) -> bool:
    """Return whether the queue of an arena, named before the last '~', still exists."""
    return arena.rpartition("~")[0] in context.names()


def _why_kept(name: str, kind: Kind) -> str:
    """Return why a segment is kept, and what takes its frames."""
    if kind is Kind.ARENA:
        return "kept: it holds frames of its queue, and goes with it"
    if kind is Kind.QUEUE:
        return (
            "kept: undelivered frames; if they are a log's, 'ataraxis recover "
            f"DIRECTORY', else MemQ.attach({name!r}): get() takes them, unlink() drops "
            "them"
        )
    return "kept: frames are promised to a reader; start it, or 'ataraxis recover'"


def _temporary(directory: int, name: str, is_dry: bool) -> Leftover | None:
    """Remove a temporary file whose creator has ended; None if it may be alive."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        is_young = time.time() - status.st_mtime < YOUNG_S
        if not stat.S_ISREG(status.st_mode) or is_young:
            return None
        if anybody(descriptor, MAX_PARTICIPANTS) != 0:
            return None
        if not is_dry:
            os.unlink(name, dir_fd=directory)
        why = "its creator died before it got a name"
        return Leftover(name, "temporary", status.st_blocks * 512, True, why)
    except FileNotFoundError:
        return None
    finally:
        os.close(descriptor)
