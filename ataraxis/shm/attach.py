"""Which class opens which kind of segment."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from ataraxis.errors import LayoutError
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment

# By name, so that nothing above this room is imported before it is asked for. Each has
# a class method of_segment(segment).
_OPENERS: dict[int, tuple[str, str]] = {
    Kind.ARRAY: ("ataraxis.shm.array", "SharedMemoryArray"),
    Kind.FRAMEBUFFER: ("ataraxis.framebuffer.client", "FrameBufferClient"),
    Kind.STREAM: ("ataraxis.stream", "Consumer"),
    Kind.QUEUE: ("ataraxis.stream", "MemQ"),
}


def attach(name: str, *, timeout: float | None = 0, context: ContextLike = None) -> Any:
    """Open whatever has the name: an array, a stream, a queue, a frame buffer.

    Parameters
    ----------
    name : str
        Its name in the context.
    timeout : float or None
        How long to wait for one that is not there yet, s; None waits without end.
    context : Context, str, Path or None
        The directory it lives in; None is this user's own.

    Returns
    -------
    SharedMemoryArray, FrameBufferClient, Consumer, MemQ
        Connected.

    Raises
    ------
    SegmentNotFound
        Nothing has the name (`timeout` 0).
    TimeoutError
        Nothing had it within `timeout`.
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
    """Return the class that opens a kind, imported when it is first asked for."""
    module, name = _OPENERS[kind]
    return getattr(importlib.import_module(module), name)
