"""Open a segment of any kind."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from ataraxis.errors import LayoutError
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment

# By name, so that rooms above this one are imported only when needed. Each class has a
# method of_segment(segment).
_OPENERS: dict[int, tuple[str, str]] = {
    Kind.ARRAY: ("ataraxis.shm.array", "SharedMemoryArray"),
    Kind.FRAMEBUFFER: ("ataraxis.framebuffer.client", "FrameBufferClient"),
    Kind.STREAM: ("ataraxis.stream", "Consumer"),
    Kind.QUEUE: ("ataraxis.stream", "MemQ"),
}


def attach(name: str, *, timeout: float | None = 0, context: ContextLike = None) -> Any:
    """Open an array, a stream, a queue or a frame buffer by its name.

    Parameters
    ----------
    name : str
        Name in the context.
    timeout : float or None
        How long to wait for the name, s; None waits without end.
    context : Context, str, Path or None
        Its directory; None is the user's default.

    Returns
    -------
    SharedMemoryArray, FrameBufferClient, Consumer, MemQ
        Connected.

    Raises
    ------
    SegmentNotFound, TimeoutError
        The name does not exist (within `timeout`).
    LayoutError
        The file is damaged, of another version, or of a kind this release cannot open.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import SharedMemoryArray, attach
    >>> with SharedMemoryArray.create_array("doc_attach", np.arange(3)):
    ...     attach("doc_attach")[...].tolist()
    [0, 1, 2]
    """
    segment = Segment.attach(name, timeout=timeout, context=context)
    kind = segment.header.kind
    if kind not in _OPENERS:
        raise LayoutError(
            f"segment {name!r} is a {kind.name.lower()}, which this release of "
            "ataraxis cannot open; use the one that created it"
        )
    return _opener(kind).of_segment(segment)


@functools.cache
def _opener(kind: Kind) -> Any:
    """Import the class that opens a kind."""
    module, name = _OPENERS[kind]
    return getattr(importlib.import_module(module), name)
