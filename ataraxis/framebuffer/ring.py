"""What server and client share: the ring by its key, allocation, statistics."""

from __future__ import annotations

import contextlib
import hashlib
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ataraxis._kernels.framebuffer import CONTROL_BYTES, RingKernel
from ataraxis.errors import LayoutError, NotConnectedError
from ataraxis.shm import Context, Segment
from ataraxis.shm.context import ContextLike


@dataclass(frozen=True)
class FrameBufferStatistics:
    """A ring's control words; read without any lock."""

    capacity_bytes: int
    """Bytes of the ring, all of them usable."""
    chunks: int
    """Chunks allocated since it was made."""
    handed_out_bytes: int
    """Bytes allocated since it was made, skipped tails included."""
    oldest_s: float
    """Age of the oldest bytes that are still whole: how long a chunk lives at the
    present rate, the "timeout". Never too long; at most 1/128 of the ring too short.
    0 before the first allocation."""
    is_served: bool
    """Whether the server lives."""


class Ring(RingKernel):
    """What `FrameBufferServer` and `FrameBufferClient` share."""

    def _set_key(self, key: str, context: ContextLike) -> None:
        self._key = key
        self._name = name_of(key)
        self._where = context
        self._context: Context | None = None
        self._segment: Segment | None = None

    def _bind(self, segment: Segment) -> None:
        found = segment.header.geometry.control_bytes
        if found != CONTROL_BYTES or not segment.header.geometry.payload_bytes:
            raise LayoutError(
                f"{segment.context.join(segment.name)}: {found} bytes of control words "
                f"and {segment.header.geometry.payload_bytes} of ring, expected "
                f"{CONTROL_BYTES} and at least 1. Remove it if nothing uses it"
            )
        self._open(segment.payload, segment.participant)
        self._segment = segment

    def _unbind(self) -> None:
        self._segment = None
        self._shut()

    @property
    def is_started(self) -> bool:
        """Whether the handle is attached to a ring."""
        return self._segment is not None

    @property
    def name(self) -> str:
        """Name of its segment in the context: a hash of the key."""
        return self._name

    def allocate(self, size: int, *, align: int = 1) -> int:
        """Allocate the next chunk of the ring.

        Parameters
        ----------
        size : int
            Bytes, from 1 to the whole ring.
        align : int
            The offset becomes a multiple of this power of two, at most 4096.

        Returns
        -------
        int
            Offset of the chunk, which never crosses the ring's end. Later allocations
            overwrite the oldest chunks first.

        Raises
        ------
        TypeError, ValueError
            The size or alignment is impossible. Nothing is allocated.

        Notes
        -----
        Never waits; threads and processes may allocate concurrently. The bytes of all
        chunks allocated within the last ``capacity - 2 * largest chunk`` are whole.
        """
        offset, _ = self._take(size, align)
        return offset

    def _take(self, size: int, align: int) -> tuple[int, int]:
        """Allocate a chunk; return its offset, and the bytes allocated before it."""
        chunk = self._allocate(size, align)
        if chunk is None:
            capacity = self._look()[0]
            raise ValueError(
                f"cannot allocate {size} bytes aligned to {align}: a chunk has 1 to "
                f"{capacity} bytes (the ring's), and align is a power of two up to 4096"
            )
        return chunk

    def statistics(self) -> FrameBufferStatistics:
        """Read the ring's control words; `oldest_s` is how late a reader may be."""
        capacity, head, chunks, oldest, now = self._look()
        # At least 1 ns: 0 means that nothing was allocated.
        age = max(now - oldest, 1) / 1e9 if oldest else 0.0
        return FrameBufferStatistics(capacity, chunks, head, age, self._served())

    def _number(self, value: Any, is_offset: bool) -> int:
        """Return an int for a value of another type, or refuse it."""
        what = "an offset" if is_offset else "a size or alignment"
        if is_offset and isinstance(value, str):
            if value.isascii() and value.isdigit() and len(value) <= 20:
                return int(value)
            raise ValueError(f"an offset must be decimal digits, got {value[:40]!r}")
        if not isinstance(value, bool | np.bool_):
            with contextlib.suppress(TypeError):
                return operator.index(value)
        raise TypeError(f"{what} is an int, got {type(value).__name__}")

    def _not_started(self) -> NotConnectedError:
        return NotConnectedError(
            f"the frame buffer {type(self).__name__}({self._key!r}) is not started: "
            "call start(), or use 'with'"
        )


def name_of(key: str) -> str:
    """Return the segment name of a key, a hash of it.

    A key may hold slashes and be of any length, and is not visible in the context. It
    is not access control: every process of the user can open the files.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, got {type(key).__name__}: give str(key)")
    if not key:
        raise ValueError("a key must not be empty; str(uuid.uuid4()) makes one")
    text = key.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16, person=b"ataraxis-key")
    return f"framebuffer-{digest.hexdigest()}"
