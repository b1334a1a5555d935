"""Chunks: what a client does with the bytes of one, and what is said if it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import xxhash
from numpy.typing import NDArray

from ataraxis._kernels.framebuffer import ChunkKernel, turn_of, turned, widths
from ataraxis.errors import FrameBufferTimeout
from ataraxis.framebuffer.ring import Ring
from ataraxis.framebuffer.ticket import CHECKSUM_BYTES, Ticket
from ataraxis.framebuffer.view import View
from ataraxis.labels import Labels

# Covers content and length, is the same in every process, and is 64 bits: of 32, one
# stale chunk in 4e9 would pass.
digest_of: Callable[[Any], bytes] = xxhash.xxh3_64_digest
# Bytes of the vectors that hash copies while they are made; 0: the library, after.
WIDTH = next(iter(widths()), 0)
_BYTE = np.dtype(np.uint8)


class Chunks(Ring, ChunkKernel):
    """Chunks without a copy; the kernel's answers become exceptions here."""

    def view(
        self,
        chunk: Ticket | Mapping[str, Any] | int | str,
        size: int | None = None,
        checksum: bytes | None = None,
    ) -> View:
        """Lend a chunk without copying it.

        Parameters
        ----------
        chunk : int or Ticket
            Where it begins, or the ticket of an array (or the ticket's fields).
        size : int
            Its bytes; not with a ticket.
        checksum : bytes-like
            What `write` gave; not with a ticket.

        Returns
        -------
        View
            A context manager that gives a read-only, live view: of a ticket with the
            array's dtype and shape, else uint8 of shape (size,).

        Raises
        ------
        FrameBufferTimeout
            At the beginning of the ``with``: the ring came round before. At its end:
            it came round meanwhile, and what was computed is to be thrown away.
        """
        if isinstance(chunk, Ticket | Mapping):
            ticket = Ticket.of(chunk)
            labels = ticket.meaning
            self._check_size(ticket, labels)
            self._check_held(ticket)
            return self._lend(
                ticket.offset, ticket.size, ticket.digest, labels.dtype, labels.shape, 0
            )
        if size is None or checksum is None:
            raise TypeError("view() takes offset, size and checksum, or a Ticket")
        offset = self._number(chunk, True)
        count = self._number(size, False)
        return self._lend(offset, count, self._checksum(checksum), _BYTE, (count,), 1)

    def _lend(
        self,
        offset: int,
        size: int,
        checksum: bytes,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        least: int,
    ) -> View:
        def find() -> tuple[NDArray[np.uint8], Callable[[], None]]:
            capacity = self._look()[0]
            # The client may stop, or follow its key, before the block ends.
            segment = self._segment
            assert segment is not None
            if size < least or not 0 <= offset <= offset + size <= capacity:
                self._outside(offset, size)
            chunk = segment.payload[offset : offset + size]
            turn = turn_of(segment.participant, capacity, offset, size)

            def check() -> None:
                # Bytes that were right, wrong and right again: the head tells.
                if digest_of(chunk) != checksum or (
                    size and turned(segment.participant, turn)
                ):
                    self._expired(offset, size, checksum)

            return chunk, check

        return View(find, dtype, shape)

    def _check_size(self, ticket: Ticket, labels: Labels) -> None:
        """Refuse before memory is made for it what cannot be in the ring."""
        if labels.nbytes != ticket.size:
            raise ValueError(
                f"the ticket's {labels.dtype} of shape {labels.shape} has "
                f"{labels.nbytes} bytes, its chunk {ticket.size}: it was tampered with"
            )
        capacity = self._look()[0]
        if ticket.offset + ticket.size > capacity:
            self._outside(ticket.offset, ticket.size)

    def _check_held(self, ticket: Ticket) -> None:
        """Refuse a chunk that was overtaken, whatever its bytes are."""
        if ticket.size and not self._holds(ticket.position, ticket.size):
            self._expired(ticket.offset, ticket.size, ticket.digest)

    def _plain(self, data: Any) -> NDArray[np.uint8]:
        """Make contiguous bytes of what is no simple buffer, or say why not."""
        if not isinstance(data, np.ndarray):
            try:
                data = np.asarray(memoryview(data))
            except TypeError:
                raise TypeError(
                    f"bytes-like data are needed, got {type(data).__name__}: encode "
                    "text with data.encode(); put() takes arrays and lists"
                ) from None
            except RuntimeError as error:
                # NumPy cannot tell what the format means; it may well be objects.
                raise TypeError(f"perhaps Python objects: {error}") from None
        if data.dtype.hasobject:
            raise TypeError("an array of Python objects has no bytes to share")
        if not data.flags.c_contiguous:
            raise ValueError(
                "the array is not C-contiguous: give numpy.ascontiguousarray(data), or "
                "put() it"
            )
        return bytes_of(data)

    def _checksum(self, value: Any) -> bytes:
        """Make bytes of a checksum; a str is none, since nobody knows its encoding."""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise TypeError(
            f"a checksum is bytes, got {type(value).__name__}; sent as text, give "
            "bytes.fromhex(text)"
        )

    def _outside(self, offset: Any, size: Any) -> NoReturn:
        capacity = self._look()[0]
        raise ValueError(
            f"a chunk of {_shown(size)} bytes at offset {_shown(offset)} does not lie "
            f"inside the ring: sizes are 1 to {capacity}, offsets 0 to {capacity} - "
            "size, as allocate() gives them"
        )

    def _expired(self, offset: Any, size: Any, checksum: bytes) -> NoReturn:
        if len(checksum) != CHECKSUM_BYTES:
            raise FrameBufferTimeout(
                f"the checksum has {len(checksum)} bytes, write() gives "
                f"{CHECKSUM_BYTES}: it cannot be of this chunk"
            )
        now = self.statistics()
        raise FrameBufferTimeout(
            f"the chunk of {_shown(size)} bytes at offset {_shown(offset)} is no "
            "longer what was written: the ring came round first (its "
            f"{now.capacity_bytes} bytes now last {now.oldest_s:.3g} s). Read sooner, "
            "or give the server more bytes"
        )


def _shown(number: Any) -> str:
    text = repr(number)
    return text if len(text) < 40 else text[:37] + "..."


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View a C-contiguous array as its bytes, whatever its dtype."""
    return array.reshape(-1).view(np.uint8)
