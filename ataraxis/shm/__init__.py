"""Named, typed, labelled shared memory: contexts, segments, arrays."""

from __future__ import annotations

from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.attach import attach
from ataraxis.shm.context import Context
from ataraxis.shm.lock import Lock
from ataraxis.shm.segment import Segment

__all__ = ["Context", "Lock", "Segment", "SharedMemoryArray", "attach"]
