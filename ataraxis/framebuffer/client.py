"""FrameBufferClient: reads and writes the chunks of a frame buffer."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import xxhash
from numpy.typing import NDArray

from ataraxis._kernels.framebuffer import ChunkKernel, turn_of, turned, widths
from ataraxis.errors import FrameBufferTimeout, SegmentNotFound
from ataraxis.framebuffer.ring import Ring
from ataraxis.framebuffer.ticket import CHECKSUM_BYTES, Ticket
from ataraxis.labels import Labels, unmasked
from ataraxis.shm import Context, Segment
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind

if TYPE_CHECKING:
    import xarray as xr

# ---- view: a chunk without a copy, checked before and after its use


class View:
    """A chunk of a frame buffer for the length of a ``with`` block, without a copy.

    Made by ``FrameBufferClient.view``. Results of the block are valid only if it ends
    without `FrameBufferTimeout`: the bytes may change meanwhile. `find` returns the
    live bytes, uint8, shape (bytes,), and a function that raises if they are not, or
    were not since then, the bytes that were written.
    """

    def __init__(
        self,
        find: Callable[[], tuple[NDArray[np.uint8], Callable[[], None]]],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self._find = find
        self._dtype = dtype
        self._shape = shape
        self._checks: list[Callable[[], None]] = []

    def __enter__(self) -> NDArray[Any]:
        chunk, check = self._find()
        chunk.flags.writeable = False
        check()
        self._checks.append(check)
        return chunk.view(self._dtype).reshape(self._shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        check = self._checks.pop()
        # Bytes that changed may have caused an exception; an interrupt or exit of the
        # program does not wait for the check.
        if error is None or isinstance(error, Exception):
            check()


# ---- checksums and bytes of chunks

# 64 bits over content and length: with 32, one stale chunk in 4e9 would pass.
digest_of: Callable[[Any], bytes] = xxhash.xxh3_64_digest
# Bytes of the vectors that hash a copy while it is made; 0: the library hashes after.
WIDTH = next(iter(widths()), 0)
_BYTE = np.dtype(np.uint8)


def _shown(number: Any) -> str:
    text = repr(number)
    return text if len(text) < 40 else text[:37] + "..."


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a view of the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)


# ---- the client

__all__ = ["FrameBufferClient", "FrameBufferTimeout"]

PAUSE_S = 0.02


class FrameBufferClient(Ring, ChunkKernel):
    """Read and write the chunks of the frame buffer that has the key.

    Parameters
    ----------
    key : str
        The server's.
    timeout : float or None
        How long `start` waits for a server that is not started yet, s; None: forever.
    context : Context, str, Path or None
        The directory it lives in; None is this user's own.

    Notes
    -----
    Threads may share a client. Its death affects no other handle. When another server
    takes over the key, the client follows to the new ring.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import FrameBufferClient, FrameBufferServer
    >>> with FrameBufferServer("doc client", 1 << 16), FrameBufferClient(
    ...     "doc client"
    ... ) as client:
    ...     ticket = client.put(np.arange(6).reshape(2, 3), dims=("y", "x"))
    ...     client.get(ticket).tolist()
    ...     with client.view(ticket) as image:
    ...         int(image.sum())
    [[0, 1, 2], [3, 4, 5]]
    15
    """

    def __init__(
        self, key: str, *, timeout: float | None = 0, context: ContextLike = None
    ) -> None:
        self._set_key(key, context)
        self._timeout = timeout
        self._hash_by(digest_of, WIDTH)

    @classmethod
    def of_segment(cls, segment: Segment) -> FrameBufferClient:
        """Open the frame buffer in a segment that is attached already."""
        client = cls(segment.name)
        client._name = segment.name
        client._context = client._where = segment.context
        client._bind(segment)
        return client

    # ---- life

    def start(self) -> None:
        """Attach to the ring; does nothing if attached.

        Raises
        ------
        SegmentNotFound, TimeoutError
            No server serves the key (within `timeout`).
        LayoutError
            The file is damaged, or of another version.
        """
        if self._segment is not None:
            return
        self._context = context = Context.of(self._where)
        left = self._timeout
        deadline = None if left is None else time.monotonic() + left
        while True:
            try:
                self._attach(context, left)
            except (SegmentNotFound, TimeoutError) as error:
                raise self._unserved(context, type(error)) from None
            if self._served():
                return
            # A killed server's ring: poll until it is replaced.
            self._unbind()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                kind = TimeoutError if self._timeout else SegmentNotFound
                raise self._unserved(context, kind)
            time.sleep(PAUSE_S if left is None else min(left, PAUSE_S))

    def _attach(self, context: Context, timeout: float | None) -> None:
        self._bind(
            Segment.attach(
                self._name, kind=Kind.FRAMEBUFFER, context=context, timeout=timeout
            )
        )

    def stop(self) -> None:
        """Detach from the ring; views stay valid."""
        self._unbind()

    def __enter__(self) -> FrameBufferClient:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "started" if self.is_started else "not started"
        return f"<FrameBufferClient of {self._name}, {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the key; the other process calls `start`."""
        where = self._context or self._where
        path = where.path if isinstance(where, Context) else where
        return _unpickle, (self._key, self._name, self._timeout, path and str(path))

    # ---- arrays

    def put(
        self,
        array: Any,
        *,
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        align: int = 64,
    ) -> Ticket:
        """Allocate a chunk and copy an array into it.

        Parameters
        ----------
        array : array-like or DataArray
            Any dtype without Python objects. A DataArray brings its own labels.
        dims, coords, attrs : sequence of str, mapping, mapping, optional
            Names of the dimensions, labels along them, units and the like: `Labels`.
        align : int
            As in `allocate`.

        Returns
        -------
        Ticket
            For `get` in any process; valid until the ring overwrites the chunk.

        Raises
        ------
        FrameBufferTimeout
            The chunk was overwritten while the array was copied: the ring is too small.
        """
        values, text = _described(array, dims, coords, attrs)
        if not values.nbytes:
            return Ticket(0, 0, digest_of(b"").hex(), 0, text)
        offset, position = self._take(values.nbytes, align)
        checksum = self.write(offset, bytes_of(values))
        ticket = Ticket(offset, values.nbytes, checksum.hex(), position, text)
        self._check_held(ticket)
        return ticket

    def get(self, ticket: Ticket | str | bytes | Mapping[str, Any]) -> NDArray[Any]:
        """Copy the array of a ticket out, and check the copy.

        Parameters
        ----------
        ticket : Ticket, or its JSON or fields
            The ticket that `put` returned, here or in another process.

        Returns
        -------
        ndarray
            A copy, of the dtype and shape that was put.

        Raises
        ------
        FrameBufferTimeout
            The chunk was overwritten before.
        TypeError, ValueError
            It is not a ticket of this ring.
        """
        ticket = Ticket.of(ticket)
        labels = ticket.meaning
        self._check_size(ticket, labels)
        self._check_held(ticket)
        array = np.empty(labels.shape, labels.dtype)
        if not ticket.size:
            return array
        self.read_into(ticket.offset, ticket.size, ticket.digest, bytes_of(array))
        return array

    def get_xarray(
        self, ticket: Ticket | str | bytes | Mapping[str, Any]
    ) -> xr.DataArray:
        """Copy the array of a ticket out, with dims, coords and attrs; as `get`."""
        ticket = Ticket.of(ticket)
        return ticket.meaning.to_xarray(self.get(ticket))

    # ---- attaching again

    def _revive(self, writes: bool) -> None:
        """Follow the key to another server's ring, if there is one."""
        if self._segment is None:
            raise self._not_started()
        # A forked child must attach itself.
        is_inherited = self._segment.participant.is_inherited
        meaning = "another" if is_inherited else self._segment.meaning_of_name()
        if meaning == "this" or self._context is None:
            return
        if writes:
            try:
                self._attach(self._context, 0)
            except SegmentNotFound:
                raise self._unserved(self._context, SegmentNotFound) from None
        elif meaning == "another":
            # Suppressed: the server stopped; the attached ring can still be read.
            with contextlib.suppress(SegmentNotFound):
                self._attach(self._context, 0)

    def _unserved(self, context: Context, kind: type[OSError]) -> OSError:
        waited = (
            f" (waited {self._timeout} s)" if issubclass(kind, TimeoutError) else ""
        )
        return kind(
            f"no server serves the frame buffer {self._key!r} in {context.path}{waited}"
            ". Start FrameBufferServer(key, size) first, wait with timeout=, or give "
            "the right context="
        )

    # ---- chunks without a copy, and errors

    def view(
        self,
        chunk: Ticket | Mapping[str, Any] | int | str,
        size: int | None = None,
        checksum: bytes | None = None,
    ) -> View:
        """Return a view of a chunk, without copying it.

        Parameters
        ----------
        chunk : int or Ticket
            Its offset, or the ticket of an array (or the ticket's fields).
        size : int
            Its bytes; not with a ticket.
        checksum : bytes-like
            As `write` returned it; not with a ticket.

        Returns
        -------
        View
            A context manager that gives a read-only, live view: of a ticket with the
            array's dtype and shape, else uint8 of shape (size,).

        Raises
        ------
        FrameBufferTimeout
            At the start of the ``with`` block: the chunk was overwritten before. At its
            end: it was overwritten meanwhile; discard what was computed.
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
                # The head detects bytes that changed and were restored.
                if digest_of(chunk) != checksum or (
                    size and turned(segment.participant, turn)
                ):
                    self._expired(offset, size, checksum)

            return chunk, check

        return View(find, dtype, shape)

    def _check_size(self, ticket: Ticket, labels: Labels) -> None:
        """Raise before allocating memory for an array that cannot be in the ring."""
        if labels.nbytes != ticket.size:
            raise ValueError(
                f"the ticket's {labels.dtype} of shape {labels.shape} has "
                f"{labels.nbytes} bytes, its chunk {ticket.size}: it was changed"
            )
        capacity = self._look()[0]
        if ticket.offset + ticket.size > capacity:
            self._outside(ticket.offset, ticket.size)

    def _check_held(self, ticket: Ticket) -> None:
        """Raise if the ring has overtaken the chunk, even if its bytes are equal."""
        if ticket.size and not self._holds(ticket.position, ticket.size):
            self._expired(ticket.offset, ticket.size, ticket.digest)

    def _plain(self, data: Any) -> NDArray[np.uint8]:
        """Return the contiguous bytes of an array or buffer, or refuse it."""
        if not isinstance(data, np.ndarray):
            try:
                data = np.asarray(memoryview(data))
            except TypeError:
                raise TypeError(
                    f"bytes-like data are needed, got {type(data).__name__}: encode "
                    "text with data.encode(); put() takes arrays and lists"
                ) from None
            except RuntimeError as error:
                # NumPy does not know the format, which may be of Python objects.
                raise TypeError(f"perhaps Python objects: {error}") from None
        if data.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be shared as bytes")
        if not data.flags.c_contiguous:
            raise ValueError(
                "the array is not C-contiguous: give numpy.ascontiguousarray(data), or "
                "put() it"
            )
        return bytes_of(data)

    def _checksum(self, value: Any) -> bytes:
        """Return a checksum as bytes; a str is refused, its encoding is unknown."""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise TypeError(
            f"a checksum is bytes, got {type(value).__name__}; sent as text, give "
            "bytes.fromhex(text)"
        )

    def _outside(self, offset: Any, size: Any) -> NoReturn:
        capacity = self._look()[0]
        raise ValueError(
            f"a chunk of {_shown(size)} bytes at offset {_shown(offset)} is not inside "
            f"the ring: sizes are 1 to {capacity}, offsets 0 to {capacity} - size, as "
            "allocate() returns them"
        )

    def _expired(self, offset: Any, size: Any, checksum: bytes) -> NoReturn:
        if len(checksum) != CHECKSUM_BYTES:
            raise FrameBufferTimeout(
                f"the checksum has {len(checksum)} bytes, expected {CHECKSUM_BYTES} as "
                "write() returns them"
            )
        now = self.statistics()
        raise FrameBufferTimeout(
            f"the chunk of {_shown(size)} bytes at offset {_shown(offset)} was "
            f"overwritten: the ring's {now.capacity_bytes} bytes last "
            f"{now.oldest_s:.3g} s at this rate. Read sooner, or give the server more "
            "bytes"
        )


def _unpickle(
    key: str, name: str, timeout: float | None, path: str | None
) -> FrameBufferClient:
    client = FrameBufferClient(key, timeout=timeout, context=path)
    client._name = name  # noqa: SLF001
    return client


def _described(
    array: Any,
    dims: Sequence[str] | None,
    coords: Mapping[str, Any] | None,
    attrs: Mapping[str, Any] | None,
) -> tuple[NDArray[Any], str]:
    """Return a contiguous array, and its labels as JSON."""
    if hasattr(array, "to_dataset") and hasattr(array, "coords"):
        if dims is not None or coords is not None or attrs is not None:
            raise TypeError("a DataArray brings its own dims, coords and attrs")
        labels = Labels.from_xarray(array)
        text = labels.to_json().decode()
        return np.ascontiguousarray(array.values).reshape(labels.shape), text
    values = unmasked(array, "a frame buffer")
    if coords is None and attrs is None:
        names = None if dims is None else tuple(dims)
        text = _plain_labels(values.dtype, values.shape, names)
    else:
        labels = Labels(values.dtype, values.shape, dims, coords, attrs)
        text = labels.to_json().decode()
    return np.ascontiguousarray(values).reshape(values.shape), text


@functools.lru_cache(maxsize=64)
def _plain_labels(
    dtype: np.dtype[Any], shape: tuple[int, ...], dims: tuple[str, ...] | None
) -> str:
    return Labels(dtype, shape, dims).to_json().decode()
