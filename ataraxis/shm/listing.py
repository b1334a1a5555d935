"""List the segments of a context by their headers; no process is disturbed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import Kind, SegmentHeader


@dataclass(frozen=True)
class Listed:
    """One segment, as its header describes it."""

    name: str
    """Name in the context."""
    kind: str
    """array, stream, queue, framebuffer; '' if unreadable."""
    dtype: str
    """dtype of the payload's items."""
    shape: tuple[int, ...]
    """Extents."""
    bytes: int
    """Length of the file."""
    participants: tuple[str, ...]
    """Program and pid of each participant. Empty: stale, replaced by the create."""
    problem: str
    """Why it cannot be used, or ''."""
    is_kept: bool = False
    """Whether it holds frames promised to a reader; it is never collected."""
    uuid: str = ""
    """Identity: another segment of the same name has another one."""
    content: Any = None
    """What `looks` returned for its kind; or None."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


Look: TypeAlias = Callable[[files.Found, SegmentHeader], Any]


def list_segments(
    context: ContextLike = None, looks: Mapping[Kind, Look] | None = None
) -> list[Listed]:
    """Describe every segment of a context, sorted by name.

    Damaged segments and other files are listed with their problem. `looks` are
    functions that read segments of a kind: each takes the open file and its header, and
    returns the `content`.
    """
    context = Context.of(context)
    directory = context.open_directory()
    try:
        return [
            listed
            for name in context.names()
            if (listed := _look(directory, context, name, looks or {})) is not None
        ]
    finally:
        os.close(directory)


def _look(
    directory: int, context: Context, name: str, looks: Mapping[Kind, Look]
) -> Listed | None:
    size = 0
    try:
        with files.find(directory, context, name, os.O_RDONLY) as found:
            size = found.status.st_size
            header = SegmentHeader.unpack(found.page, size, found.path)
            g = header.geometry
            text = os.pread(found.descriptor, g.labels_bytes, g.labels)
            labels = Labels.from_json(text)
            users = files.participants(found.descriptor, g.participants)
            inside = looks.get(header.kind)
            content = None if inside is None else inside(found, header)
            return Listed(
                name, header.kind.name.lower(), str(labels.dtype), labels.shape, size,
                tuple(users), "", found.is_kept(), header.uuid.hex(), content,
            )  # fmt: skip
    except SegmentNotFound:
        return None
    except (LayoutError, OSError) as error:
        return Listed(name, "", "", (), size, (), str(error))
