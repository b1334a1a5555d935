"""`Frame`: a header and a payload, the one unit of data everywhere.

How each kind of payload is laid out is in `_values`, `_arrays` and `_tree`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, DataOverflow
from ataraxis.frame._arrays import read_array_payload, view
from ataraxis.frame._header import (
    CRC_AT,
    HEADER_BYTES,
    PLAIN,
    WORD,
    DType,
    Header,
    Origin,
    check_ranges,
    corrupt,
    crc32,
    read_fields,
)
from ataraxis.frame._values import decode, encode
from ataraxis.labels import Labels, whole

if TYPE_CHECKING:
    import xarray as xr
    from typing_extensions import Buffer

# ---- `Payload`: the reading half of a frame, from bytes to values, arrays and labels


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Payload(Header):
    """A header with the bytes it announces, and what they mean.

    Examples
    --------
    >>> Payload(dtype=DType.U8, shape=(2,), parts=(memoryview(b"ab"),)).array
    array([97, 98], dtype=uint8)
    """

    parts: tuple[memoryview, ...] = ()
    """The payload in pieces, bytes."""
    interned: Labels | None = None
    """The labels that `labels_id` names, if the reader gave them."""
    allow_pickle: bool = False
    """Whether `value` may read a pickle."""
    verify: bool = True
    """Whether `value` and `array` look at each bool and character of an array."""

    @property
    def payload(self) -> memoryview:
        """The payload as read-only bytes; a view, a copy only if it is in pieces."""
        if len(self.parts) == 1:
            return self.parts[0]
        return memoryview(b"".join(self.parts))

    @property
    def value(self) -> Any:
        """The value, read anew at each use; arrays are read-only views.

        Raises `CorruptFrame` if the payload is not what the header says, or holds what
        this reader does not take: a pickle, an unregistered type.
        """
        if self.dtype == DType.ND_ARR and self.labels_id:
            return self.array
        try:
            return decode(
                self.dtype,
                self.shape,
                self.payload,
                allow_pickle=self.allow_pickle,
                pickled=self.pickled,
                verify=self.verify,
            )
        except CorruptFrame as error:
            raise self._located(error) from error

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The payload as a read-only array of `shape`; a view, never a copy.

        Of raw bytes, a uint8 array of shape (payload_bytes,). Raises `TypeError` for a
        payload that is no array, `ValueError` if its dtype is in labels that were not
        given to `from_buffer`, `CorruptFrame` as `value` does.
        """
        dtype, shape, payload = self._layout()
        try:
            return view(payload, dtype, shape, verify=self.verify)
        except CorruptFrame as error:
            raise self._located(error) from error

    @property
    def labels(self) -> Labels | None:
        """The labels: those given to `from_buffer`, or the payload's own, or None."""
        if self.interned is not None or self.labels_id or self.dtype != DType.ND_ARR:
            return self.interned
        try:
            return read_array_payload(self.payload, self.shape).labels
        except CorruptFrame as error:
            raise self._located(error) from error

    def _layout(self) -> tuple[np.dtype[Any], tuple[int, ...], memoryview]:
        """Say of what dtype and shape which bytes are."""
        payload = self.payload
        if self.dtype in PLAIN:
            return PLAIN[self.dtype][0], self.shape, payload
        if self.dtype == DType.RAW:
            return np.dtype("u1"), (len(payload),), payload
        if self.dtype != DType.ND_ARR:
            raise TypeError(f"the frame holds {self.dtype.name}, no array: use value.")
        if not self.labels_id:
            try:
                block = read_array_payload(payload, self.shape)
            except CorruptFrame as error:
                raise self._located(error) from error
            return block.labels.dtype, self.shape, block.data
        if self.interned is None:
            raise ValueError(
                f"the dtype of this array is in labels {self.labels_id} of its stream"
                " or file: pass labels= to from_buffer."
            )
        return self.interned.dtype, self.shape, payload

    def _located(self, error: CorruptFrame) -> CorruptFrame:
        """Say in which frame the payload is wrong."""
        return CorruptFrame(
            f"payload of frame {self.sequence} of source {self.source}: {error}"
        )

    def to_xarray(self, name: str | None = None) -> xr.DataArray:
        """Return the array with its labels, without copying it.

        Parameters
        ----------
        name : str, optional
            Name of the result; that of the labels if not given.

        Returns
        -------
        xarray.DataArray
            A read-only view of `array`. Without labels its dims are ``dim_0, ...``.

        Examples
        --------
        >>> from ataraxis.frame import Frame
        >>> Frame.from_value(np.zeros((2, 3))).to_xarray().dims
        ('dim_0', 'dim_1')
        """
        array = self.array
        labels = self.labels or Labels(array.dtype, array.shape)
        return labels.to_xarray(array, name)


# ---- the frame

RELEASE_BYTES = 2**16


_NOTHING = object()


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Frame(Payload):
    """One unit of data: what it is, when and where it was made, and its bytes.

    Made by `from_value` or `from_buffer`; ``Frame(value)``, which uPipe has as
    ``DataFrame(value)``, is the former. It holds the bytes of the array it was made of,
    or of the buffer it was read from, without copying them. Its fields are those of
    `Header` and `Payload`.

    Examples
    --------
    >>> frame = Frame.from_value({"mouse": 7, "xyz": np.zeros(3)}, sequence=4)
    >>> again = Frame.from_buffer(frame.to_bytes())
    >>> again.sequence, again.value["mouse"]
    (4, 7)
    >>> Frame([-1, None]).data
    [-1, None]
    """

    def __init__(
        self,
        value: Any = _NOTHING,
        d_type: DType | int | None = None,
        /,
        **fields: Any,
    ) -> None:
        """Make a frame of a value, as `from_value`; or, without one, of its fields."""
        if value is _NOTHING:
            super().__init__(**fields)
        else:
            made = type(self).from_value(value, d_type, **fields)
            self.__dict__.update(made.__dict__)

    @property
    def data(self) -> Any:
        """The value: uPipe's name of `value`."""
        return self.value

    @classmethod
    def from_value(
        cls,
        value: Any,
        dtype: DType | int | None = None,
        *,
        sequence: int = 0,
        time_ns: int | None = None,
        source: int = 0,
        device_time: int | None = None,
        device_sequence: int | None = None,
        origin: Origin | tuple[int, ...] | None = None,
        labels_id: int = 0,
        checksum: bool = True,
        allow_pickle: bool = False,
        end_of_stream: bool = False,
        session_event: bool = False,
    ) -> Frame:
        """Make a frame of a value.

        Parameters
        ----------
        value : object
            bool, None, int of any size, float, complex, str, bytes; lists, tuples and
            dicts of these at most 64 deep; NumPy arrays and scalars without Python
            objects, at most 8-d; xarray DataArrays; registered types. These come back
            as they are.
        dtype : DType, optional
            How to send it, if not as itself: a number as ``DType.U32`` comes back as
            int. Never loses anything but the precision of F16, F32 and C64 numbers.
        sequence : int, optional
            Number within the stream, u64.
        time_ns : int, optional
            Monotonic time, ns; now if not given.
        source : int, optional
            Source id, u32.
        device_time, device_sequence : int, optional
            The source's own time, in its own ticks, i64 or u64, and counter, u64.
        origin : Origin, optional
            ``(source, sequence, part, attempt)`` of the input it was made from.
        labels_id : int, optional
            Entry of interned labels that describe the array; its payload is then the
            array's bytes alone.
        checksum : bool, optional
            Whether the bytes after the header get a checksum.
        allow_pickle : bool, optional
            Whether what nothing else carries may be pickled.
        end_of_stream, session_event : bool, optional
            Flags of the header.

        Returns
        -------
        Frame
            Holds a view of a contiguous array or of bytes, a copy of anything else.

        Raises
        ------
        TypeError
            No frame carries such a value.
        ValueError
            The value nests too deep or does not fit `dtype`; a number does not fit its
            field.

        Examples
        --------
        >>> Frame.from_value(np.arange(3, dtype="u1"), time_ns=0).to_bytes()[-3:].hex()
        '000102'
        """
        encoded = encode(
            value,
            None if dtype is None else DType(dtype),
            interned=bool(labels_id),
            allow_pickle=allow_pickle,
        )
        # A payload of a subclass or of two dimensions is bytes all the same.
        parts = tuple(
            memoryview(part).cast("B").toreadonly()
            for part in encoded.parts
            if memoryview(part).nbytes
        )
        unsigned = isinstance(device_time, np.unsignedinteger)
        if device_time is not None:
            device_time = whole(device_time, "device_time")
            device_sequence = whole(device_sequence or 0, "device_sequence")
            unsigned = unsigned or device_time >= 2**63
        elif device_sequence is not None:
            raise ValueError("device_sequence goes with device_time: give both.")
        frame = cls(
            dtype=encoded.dtype,
            shape=encoded.shape,
            payload_bytes=sum(map(len, parts)),
            sequence=whole(sequence, "sequence"),
            time_ns=now_ns() if time_ns is None else whole(time_ns, "time_ns"),
            source=whole(source, "source"),
            labels_id=whole(labels_id, "labels_id"),
            device_time=device_time,
            device_sequence=device_sequence,
            device_unsigned=unsigned,
            origin=None if origin is None else Origin(*map(int, origin)),
            checksum=bool(checksum),
            end_of_stream=bool(end_of_stream),
            session_event=bool(session_event),
            pickled=encoded.pickled,
            parts=parts,
            allow_pickle=allow_pickle,
        )
        check_ranges(frame)
        return frame

    @classmethod
    def from_buffer(
        cls,
        buffer: Buffer,
        offset: int = 0,
        *,
        allow_pickle: bool = False,
        seed: int = 0,
        verify: bool = True,
        labels: Labels | None = None,
    ) -> Frame:
        """Read a frame, also one that a stranger wrote.

        Parameters
        ----------
        buffer : bytes-like
            Holds the whole frame from `offset` on; what follows it is not looked at.
        offset : int, optional
            Where the frame begins, byte.
        allow_pickle : bool, optional
            Whether `value` may read a pickle, which runs whatever code is in it.
        seed : int, optional
            What the header's CRC goes on from: ``crc32(uuid)`` in a journal.
        verify : bool, optional
            Whether the checksum of the payload is looked at, and each bool and
            character of an array. The header is always checked.
        labels : Labels, optional
            What the frame's labels id names, for arrays whose dtype is in them.

        Returns
        -------
        Frame
            Its payload is a view of `buffer`, which it keeps alive; a copy if `buffer`
            is not contiguous.

        Raises
        ------
        CorruptFrame
            Anything at all is wrong: names the byte, what was found and expected. What
            the payload's own structure hides is found by `value` and `array`.

        Examples
        --------
        >>> data = bytearray(Frame.from_value("hello").to_bytes())
        >>> data[-1] ^= 1
        >>> Frame.from_buffer(data)
        Traceback (most recent call last):
        ataraxis.errors.CorruptFrame: checksum at byte 52: found 0x..., expected 0x....
        """
        whole = memoryview(buffer)
        if not whole.c_contiguous or not whole.nbytes:
            whole = memoryview(whole.tobytes())
        whole = whole.cast("B").toreadonly()
        # The constructor of a frozen dataclass sets each field by a call.
        frame = object.__new__(cls)
        fields = frame.__dict__
        fields.update(read_fields(whole, offset, seed))
        fields.update(interned=labels, allow_pickle=allow_pickle, verify=verify)
        start = offset + HEADER_BYTES
        end = start + frame.extension_bytes + frame.payload_bytes
        if verify and frame.checksum:
            stored = WORD.unpack_from(whole, offset + CRC_AT)[0]
            computed = crc32(whole[start:end])
            if stored != computed:
                raise corrupt(
                    offset + CRC_AT, "checksum", f"{stored:#010x}", f"{computed:#010x}"
                )
        fields["parts"] = (whole[start + frame.extension_bytes : end],)
        return frame

    def to_bytes(self, *, seed: int = 0) -> bytes:
        """Return the whole frame as bytes: a copy.

        Examples
        --------
        >>> len(Frame.from_value(None).to_bytes())
        64
        """
        data = bytearray(self.nbytes)
        self.encode_into(data, seed=seed)
        return bytes(data)

    to_byte_arr = to_bytes

    @classmethod
    def from_byte_arr(cls, arr: Buffer, allow_pickle: bool = False) -> Frame:
        """Read a frame that `to_byte_arr` wrote: uPipe's name of `from_buffer`.

        Examples
        --------
        >>> Frame.from_byte_arr(Frame.from_value([-1, None]).to_byte_arr()).value
        [-1, None]
        """
        return cls.from_buffer(arr, allow_pickle=allow_pickle)

    def encode_into(self, buffer: Buffer, offset: int = 0, *, seed: int = 0) -> int:
        """Write the whole frame: the only copy its payload takes.

        Parameters
        ----------
        buffer : writable bytes-like
            Contiguous; `nbytes` of it from `offset` on are written.
        offset : int, optional
            Where the frame shall begin, byte.
        seed : int, optional
            What the header's CRC goes on from: ``crc32(uuid)`` in a journal.

        Returns
        -------
        int
            Bytes written.

        Raises
        ------
        DataOverflow
            The frame is longer than the buffer.

        Notes
        -----
        The header is written last. Pieces above 64 KiB are copied with the GIL
        released.

        Examples
        --------
        >>> Frame.from_value(b"abc").encode_into(bytearray(100), 8)
        67
        """
        target = memoryview(buffer).cast("B")
        size = self.nbytes
        if not 0 <= offset <= len(target) - size:
            raise DataOverflow(
                f"the frame has {size} bytes and {len(target) - offset} are free from"
                f" byte {offset}: take a larger slot, or send less at a time."
            )
        start = offset + HEADER_BYTES
        extensions = self.extensions()
        at = start + len(extensions)
        target[start:at] = extensions
        for part in self.parts:
            _copy(target[at : at + len(part)], part)
            at += len(part)
        crc = crc32(target[start:at]) if self.checksum else 0
        self.write(target, offset, crc=crc, seed=seed)
        return size

    def __repr__(self) -> str:
        """Say what is in it, not all of it."""
        return (
            f"<Frame {self.sequence} of source {self.source}: {self.dtype.name}"
            f"{list(self.shape) if self.shape else ''}, {self.payload_bytes} bytes>"
        )


def _copy(target: memoryview, part: memoryview) -> None:
    """Copy bytes; NumPy releases the GIL, which pays from 64 KiB on."""
    if len(part) < RELEASE_BYTES:
        target[:] = part
    else:
        np.copyto(np.frombuffer(target, "u1"), np.frombuffer(part, "u1"))


def frame_size(
    value: Any,
    dtype: DType | int | None = None,
    *,
    device_stamp: bool = False,
    origin: bool = False,
    labels_id: int = 0,
    allow_pickle: bool = False,
) -> int:
    """Return how many bytes the frame of a value has.

    Parameters
    ----------
    value, dtype, labels_id, allow_pickle
        As for `Frame.from_value`.
    device_stamp, origin : bool, optional
        Whether the frame shall have these extensions.

    Returns
    -------
    int
        Bytes, header included. Contiguous arrays are not copied to find out.

    Examples
    --------
    >>> frame_size(np.zeros((1080, 1440), "u1"), device_stamp=True) - 1080 * 1440
    80
    """
    return Frame.from_value(
        value,
        dtype,
        device_time=0 if device_stamp else None,
        origin=(0, 0) if origin else None,
        labels_id=labels_id,
        allow_pickle=allow_pickle,
    ).nbytes
