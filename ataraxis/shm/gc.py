"""Collection: files of a context that nobody needs any more, found and removed."""

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

# A temporary file belongs to nobody for the moment between being opened and being
# taken part in: one as young as this may still be on its way.
YOUNG_S = 60.0


@dataclass(frozen=True)
class Leftover:
    """A file that nobody takes part in."""

    name: str
    """Its name in the context."""
    kind: str
    """array, stream, ...; 'temporary'; '' if unreadable."""
    bytes: int
    """Memory it takes."""
    is_removed: bool
    """Whether it was removed; in a dry run, whether it would be."""
    reason: str
    """Why it was removed, or why not."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


def collect(context: ContextLike = None, *, is_dry: bool = False) -> list[Leftover]:
    """Remove the segments of a context that nobody takes part in.

    Parameters
    ----------
    context : Context, str, Path or None
        The directory; None is this user's own.
    is_dry : bool
        Only say what would be removed.

    Returns
    -------
    list of Leftover
        What was removed, and what was left although nobody uses it: segments that hold
        frames promised to somebody, and files that are no segments. Live ones are not
        listed.

    Notes
    -----
    Whether somebody takes part is asked of the kernel, in the same step in which the
    name goes: who attaches meanwhile keeps it.
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
    """Remove a segment if it is stale; None if it is live or gone."""
    taken = 0
    access = os.O_RDONLY if is_dry else os.O_RDWR
    try:
        with files.find(directory, context, name, access) as found:
            taken = found.status.st_blocks * 512
            header = SegmentHeader.unpack(found.page, found.status.st_size, found.path)
            kind = header.kind.name.lower()
            if anybody(found.descriptor, header.geometry.participants):
                return None
            if found.is_kept():
                return Leftover(name, kind, taken, False, _why_kept(name, header.kind))
            if is_dry:
                return Leftover(name, kind, taken, True, "nobody takes part")
            slots = header.geometry.participants
            if files.take_name(
                found.descriptor, directory, name, slots, is_forced=False
            ):
                return Leftover(name, kind, taken, True, "nobody takes part")
            return None
    except SegmentNotFound:
        return None
    except (LayoutError, OSError) as error:
        return Leftover(name, "", taken, False, f"not touched: {error}")


def _why_kept(name: str, kind: Kind) -> str:
    """Say what is in a segment that must not go, and who can take it."""
    if kind is Kind.QUEUE:
        return (
            "kept: frames that nobody has had; if they are a log's, 'ataraxis recover "
            f"DIRECTORY', else MemQ.attach({name!r}): get() takes them, unlink() drops "
            "them"
        )
    return "kept: frames are promised to a reader; start it, or 'ataraxis recover'"


def _temporary(directory: int, name: str, is_dry: bool) -> Leftover | None:
    """Remove a temporary file whose creator is gone; None if it may be alive."""
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
        why = "its creator died before it had a name"
        return Leftover(name, "temporary", status.st_blocks * 512, True, why)
    except FileNotFoundError:
        return None
    finally:
        os.close(descriptor)
