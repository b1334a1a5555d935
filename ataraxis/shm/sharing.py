"""The attachments of a process that all its handles share.

Two attachments of one process to one lock would deadlock each other: their handles
share one. The ends of a stream have cursors of their own, and do not.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from ataraxis.shm.header import Kind

if TYPE_CHECKING:
    from ataraxis.shm.segment import Segment

ONE_PER_PROCESS = frozenset({Kind.ARRAY})
known: weakref.WeakValueDictionary[bytes, Segment] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_forks_watched = False


def guard() -> threading.Lock:
    """Return the lock of `known`, made anew in a forked child."""
    global _forks_watched
    if not _forks_watched:
        _forks_watched = True
        os.register_at_fork(after_in_child=_forget_parent)
    return _lock


def _forget_parent() -> None:
    global _lock
    _lock = threading.Lock()
