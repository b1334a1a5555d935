"""WriteBuffer: a slot to write the next frame in, as an array or as MomentumX's."""

from __future__ import annotations

import weakref
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.producer import WriteLoan
from ataraxis.errors import AlreadySent, DataOverflow, ReleasedBuffer
from ataraxis.gpu.copies import copy_from_device
from ataraxis.labels import Labels, is_blocks
from ataraxis.stream.endpoint import RAW, TYPED_LABELS, code_of


class SlotOwner(Protocol):
    """What a buffer reads of the producer whose slot it is."""

    @property
    def labels(self) -> Labels:
        """Labels of a frame of the stream."""

    @property
    def is_typed(self) -> bool:
        """Whether the stream has a dtype."""

    @property
    def buffer_count(self) -> int:
        """Slots of the ring."""

    def check_device_array(self, value: Any) -> Any:
        """Return the library of an array of a GPU; raise if it does not fit."""

    def private_array(self) -> NDArray[Any] | None:
        """Return memory for copies from a GPU; None: the slot."""


class WriteBuffer(WriteLoan):
    """The next frame before it is sent: writable memory of the stream itself.

    Made by `Producer.next_to_send`. Fill it in one of three ways: ``write`` and
    indexing, as in MomentumX; ``frame.array[...] = ...``, without a copy; or an array
    over the buffer, ``np.frombuffer(buffer, dtype)``, which has memory of its own that
    is copied when the frame is sent, since the array may outlive it. Then ``send``, or
    leave the ``with`` block. A buffer that is dropped unsent, or left by an exception,
    frees its slot: readers skip it.

    Bytes that were not written are zeros; in `array`, those of an earlier frame.
    """

    def __init__(self, producer: SlotOwner, ticket: int) -> None:
        self._producer = producer
        self._cursor = 0
        self._high = 0
        self._is_sent = False
        self._sent_size = 0
        self._kept: bytes | None = None
        # Weak: the array keeps its buffer, a cycle the garbage collector cannot see.
        self._array: weakref.ref[NDArray[Any]] | None = None
        self._stamps: tuple[int | None, int | None, int | None] = (None, None, None)

    # ---- as an array

    @property
    def array(self) -> NDArray[Any]:
        """The frame as an array of the stream's dtype and shape: a writable view.

        It becomes read-only when the frame is sent; a view of it made before does not:
        drop it. In a stream without a shape: uint8, shape (buffer_size,).
        """
        array = self._array() if self._array is not None else None
        if array is None:
            labels = self._producer.labels
            array = np.ndarray(labels.shape, labels.dtype, memoryview(self._memory))
            self._array = weakref.ref(array)
        return array

    def stamp(
        self,
        *,
        device_time: int | None = None,
        device_sequence: int | None = None,
        time_ns: int | None = None,
    ) -> None:
        """Set the stamps of the frame before it is sent; see `Producer.send`."""
        self._stamps = device_time, device_sequence, time_ns

    def copy_from(self, value: Any) -> int:
        """Copy an array of a GPU into the frame, and wait until it is there.

        Parameters
        ----------
        value : array of PyTorch, CuPy or JAX
            On a GPU, of the stream's dtype and shape; a block may be shorter.

        Returns
        -------
        int
            Bytes of the array, for `send`.

        Notes
        -----
        The GPU writes into the slot. In a stream made with ``shared=True`` or
        ``resume=True`` it writes into memory of this process, from where the frame is
        copied: a slot there may have another owner when this process has died.
        """
        self._check_unsent()
        made = self._producer.check_device_array(value)
        rows = made.layout(value)[0][:1]
        part = slice(*rows) if rows else ...
        private = self._producer.private_array()
        target = (self.array if private is None else private)[part]
        copy_from_device(made, value, target)
        if private is not None:
            self.array[part] = target
        return int(target.nbytes)

    # ---- as a file

    def write(self, data: Any) -> int:
        """Write bytes at the cursor and move it; return how many.

        Raises
        ------
        DataOverflow
            They do not fit the slot; nothing was written.
        AlreadySent
            The buffer was sent.
        """
        self._check_unsent()
        flat = _flat(data)
        self._store(self._cursor, flat)
        self._cursor += len(flat)
        return len(flat)

    def read(self, count: int | None = None) -> bytes:
        """Return all that was written, or `count` bytes from the cursor."""
        if count is None:
            self._cursor = 0
            count = self._size()
        elif count < 0:
            raise ValueError(f"count must be >= 0, got {count}")
        stop = min(self._size(), self._cursor + count)
        start = min(self._cursor, stop)
        self._cursor = stop
        return self._load(start, stop)

    def seek(self, index: int) -> int:
        """Move the cursor; return its position."""
        if not 0 <= index <= self.buffer_size:
            raise ValueError(
                f"position {index} is outside the buffer's {self.buffer_size} bytes"
            )
        self._cursor = index
        return index

    def tell(self) -> int:
        """Return the position of the cursor."""
        return self._cursor

    def truncate(self, size: int | None = None) -> int:
        """Make the data `size` bytes long; by default, end it at the cursor."""
        size = self._cursor if size is None else size
        if not 0 <= size <= self.buffer_size:
            raise ValueError(f"size must be 0 to {self.buffer_size} bytes, got {size}")
        self._clear(*sorted((size, self._high)))
        self._high = size
        return size

    def __len__(self) -> int:
        return self.buffer_size

    def __getitem__(self, index: int | slice) -> Any:
        """Return one byte as an int, or a copy of several."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self.buffer_size)
            if step == 1:
                return self._load(start, max(start, stop))
            return self._load(0, self.buffer_size)[index]
        place = self._place(index)
        return self._load(place, place + 1)[0]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        """Write one byte, or the bytes of `value` from the slice's start.

        A slice with a step takes exactly as many bytes as it has places. The cursor
        moves to the end of what was written.
        """
        if not self._is_ours:
            self._over()
        if not isinstance(index, slice):
            place = self._place(index)
            self._store(place, bytes([value]))
            self._cursor = place + 1
            return
        start, stop, step = index.indices(self.buffer_size)
        data = _flat(value)
        room = len(range(start, stop, step))
        if step == 1 and len(data) <= room:
            self._store(start, data)
            self._cursor = start + len(data)
        elif step == 1 or len(data) != room:
            raise DataOverflow(f"{len(data)} bytes do not fit the {room} of [{index}]")
        else:
            for place, byte in zip(range(start, stop, step), bytes(data), strict=True):
                self._store(place, bytes([byte]))

    # ---- the end

    def send(
        self,
        data_size: int | None = None,
        *,
        blocking: bool = True,
        release: bool = True,
    ) -> bool:
        """Send the frame; the buffer is read-only from here on.

        Parameters
        ----------
        data_size : int, optional
            How many bytes it has. By default those that were written, or the whole
            slot if `array` or the buffer's memory was used. In a stream of blocks, the
            bytes of fewer samples of `array` make a shorter block.
        blocking : bool
            Ignored; accepted as MomentumX has it.
        release : bool
            False keeps a copy of the bytes, readable here.

        Raises
        ------
        AlreadySent
            It was sent before.
        DataOverflow
            `data_size` is more than the slot holds.
        """
        self._check_unsent()
        size = self._final_size(data_size)
        if not self._was_lent and size > self._high:
            self._clear(self._high, size)
        if not release:
            self._kept = self._get(0, self.buffer_size)
        labels = self._producer.labels
        shape = self._shape_of(size)
        code = RAW if shape is None else code_of(labels.dtype)
        sign = 0 if shape is None else TYPED_LABELS
        self._send(size, code, shape or (), sign, *self._stamps)
        self._is_sent = True
        self._sent_size = size
        array = self._array() if self._array is not None else None
        if array is not None:
            array.flags.writeable = False
        return True

    def _shape_of(self, size: int) -> tuple[int, ...] | None:
        """Return the shape of so many bytes of `array`; None: they are not an array."""
        labels = self._producer.labels
        if not self._producer.is_typed or self._array is None:
            return None
        if size == labels.nbytes:
            return labels.shape
        if is_blocks(labels) and 0 <= size < labels.nbytes:
            count, rest = divmod(size, labels.nbytes // labels.shape[0])
            return None if rest else (count, *labels.shape[1:])
        return None

    def _check_unsent(self) -> None:
        if self._is_sent:
            raise AlreadySent("the buffer was sent: get another one, next_to_send()")

    def _final_size(self, data_size: int | None) -> int:
        if data_size is None:
            if self._was_lent and not self._high:
                if self._producer.is_typed:
                    return int(self._producer.labels.nbytes)
                return self.buffer_size
            return self._high
        if not 0 <= data_size <= self.buffer_size:
            raise DataOverflow(
                f"data_size {data_size}: the slot holds {self.buffer_size} bytes"
            )
        return data_size

    @property
    def data_size(self) -> int:
        """Bytes of data so far."""
        return self._size()

    @property
    def data_timestamp(self) -> int:
        """Always 0 (MomentumX)."""
        return 0

    @property
    def iteration(self) -> int:
        """Number of the frame within the stream, from 1 (MomentumX)."""
        return self._sequence + 1

    @property
    def sequence(self) -> int:
        """Number of the frame within the stream, from 0."""
        return self._sequence

    @property
    def buffer_count(self) -> int:
        """Slots of the stream."""
        return self._producer.buffer_count

    @property
    def buffer_id(self) -> int:
        """Number of the slot, iteration modulo the number of slots (MomentumX)."""
        return (self._position + 1) % self.buffer_count

    @property
    def is_sent(self) -> bool:
        """Whether it was sent."""
        return self._is_sent

    # ---- how

    def _size(self) -> int:
        return self._sent_size if self._is_sent else self._high

    def _place(self, index: int) -> int:
        place = index + self.buffer_size if index < 0 else index
        if not 0 <= place < self.buffer_size:
            raise IndexError(f"index {index} is outside {self.buffer_size} bytes")
        return place

    def _store(self, start: int, data: bytes | memoryview) -> None:
        if not self._is_ours:
            self._over()
        if start + len(data) > self.buffer_size:
            raise DataOverflow(
                f"{len(data)} bytes at {start}: the slot holds {self.buffer_size}"
            )
        if start > self._high and not self._was_lent:
            self._clear(self._high, start)
        if len(data):
            self._put(start, data)
        self._high = max(self._high, start + len(data))

    def _load(self, start: int, stop: int) -> bytes:
        if self._kept is not None:
            return self._kept[start:stop]
        data = self._get(start, stop)
        if self._was_lent or stop <= self._high:
            return data
        known = max(self._high - start, 0)
        return data[:known] + bytes(len(data) - known)

    def _over(self) -> NoReturn:
        raise ReleasedBuffer(
            "the buffer was sent, or its producer reused the slot or was closed: get "
            "another one, next_to_send()"
        )


def _flat(data: Any) -> bytes | memoryview:
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if view.c_contiguous and view.nbytes:
        return view.cast("B")
    return view.tobytes()
