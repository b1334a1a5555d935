"""`Frame`: a header and a payload, laid out by `_values`, `_arrays` and `_tree`."""

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

# ---- `Payload`: from bytes to values, arrays and labels


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Payload(Header):
    """A header and its payload, decoded on use."""

    parts: tuple[memoryview, ...] = ()
    """The payload in pieces, bytes."""
    interned: Labels | None = None
    """The labels that `labels_id` names, if the reader gave them."""
    allow_pickle: bool = False
    """Whether `value` may read a pickle."""
    verify: bool = True
    """Whether `value` and `array` check each bool and character of an array."""

    @property
    def payload(self) -> memoryview:
        """The payload as read-only bytes: a view, or a copy if it is in pieces."""
        if len(self.parts) == 1:
            return self.parts[0]
        return memoryview(b"".join(self.parts))

    @property
    def value(self) -> Any:
        """The value, decoded at each use; arrays are read-only views.

        Raises `CorruptFrame` if the payload does not fit the header, or holds a pickle
        or an unregistered type that this reader does not accept.
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

        Raw bytes are uint8 of shape (payload_bytes,). Raises `TypeError` for a payload
        that is not an array, `ValueError` if its dtype is in labels that were not given
        to `from_buffer`, `CorruptFrame` as `value` does.
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
        """Return dtype, shape and bytes of the array."""
        payload = self.payload
        if self.dtype in PLAIN:
            return PLAIN[self.dtype][0], self.shape, payload
        if self.dtype == DType.RAW:
            return np.dtype("u1"), (len(payload),), payload
        if self.dtype != DType.ND_ARR:
            raise TypeError(
                f"the frame holds {self.dtype.name}, not an array: use value."
            )
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
        """Return the error with the frame's sequence and source."""
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
        """
        array = self.array
        labels = self.labels or Labels(array.dtype, array.shape)
        return labels.to_xarray(array, name)


# ---- the frame

RELEASE_BYTES = 2**16
_NOTHING = object()


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Frame(Payload):
    """One unit of data: its bytes, their type, and when and where they were made.

    Made by `from_value` or `from_buffer`; ``Frame(value)``, uPipe's
    ``DataFrame(value)``, is the former. It views the array it was made of, or the
    buffer it was read from. Its fields are those of `Header` and `Payload`.

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
        """Make a frame of a value, as `from_value`; without a value, of its fields."""
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
            objects, at most 8-d; xarray DataArrays; registered types. Each is decoded
            to an equal value of the same type.
        dtype : DType, optional
            Type to send it as, by default its own: a number as ``DType.U32`` comes back
            as int. Only F16, F32 and C64 lose precision.
        sequence : int, optional
            Number within the stream, u64.
        time_ns : int, optional
            Monotonic time, ns; by default now.
        source : int, optional
            Source id, u32.
        device_time, device_sequence : int, optional
            The source's own time, in its own ticks, i64 or u64, and counter, u64.
        origin : Origin, optional
            ``(source, sequence, part, attempt)`` of the input it was made from.
        labels_id : int, optional
            Entry of interned labels that describe the array; its payload is then only
            the array's bytes.
        checksum : bool, optional
            Whether the bytes after the header get a checksum.
        allow_pickle : bool, optional
            Allow pickle for values without a native encoding.
        end_of_stream, session_event : bool, optional
            Flags of the header.

        Returns
        -------
        Frame
            Holds a view of a contiguous array or of bytes, a copy of other values.

        Raises
        ------
        TypeError
            Frames cannot carry the value.
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
        # Also parts of other formats and dimensions become flat bytes.
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
        """Read a frame, also from an untrusted buffer.

        Parameters
        ----------
        buffer : bytes-like
            Holds the whole frame from `offset` on; bytes after it are ignored.
        offset : int, optional
            Byte at which the frame begins.
        allow_pickle : bool, optional
            Whether `value` may read a pickle, which runs the code in it.
        seed : int, optional
            Start value of the header's CRC: ``crc32(uuid)`` in a journal.
        verify : bool, optional
            Check the payload's checksum, and each bool and character of an array. The
            header is always checked.
        labels : Labels, optional
            The labels of the frame's labels id, for arrays whose dtype is in them.

        Returns
        -------
        Frame
            Its payload is a view of `buffer`, which it keeps alive; a copy if `buffer`
            is not contiguous.

        Raises
        ------
        CorruptFrame
            The header or checksum is wrong; names the byte, what was found and what was
            expected. The structure of the payload is checked by `value` and `array`.

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
        # Faster than the constructor, which sets each field of a frozen class by call.
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
        """Read a frame: uPipe's name of `from_buffer`."""
        return cls.from_buffer(arr, allow_pickle=allow_pickle)

    def encode_into(self, buffer: Buffer, offset: int = 0, *, seed: int = 0) -> int:
        """Write the whole frame; copies the payload once.

        Parameters
        ----------
        buffer : writable bytes-like
            Contiguous; `nbytes` of it from `offset` on are written.
        offset, seed : int, optional
            As for `from_buffer`.

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

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("encoded", self)

    def __repr__(self) -> str:
        return (
            f"<Frame {self.sequence} of source {self.source}: {self.dtype.name}"
            f"{list(self.shape) if self.shape else ''}, {self.payload_bytes} bytes>"
        )


def _copy(target: memoryview, part: memoryview) -> None:
    """Copy bytes; from 64 KiB on with NumPy, which releases the GIL."""
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
    """Return the number of bytes of the frame of a value, header included.

    Parameters
    ----------
    value, dtype, labels_id, allow_pickle
        As for `Frame.from_value`; a contiguous array is not copied.
    device_stamp, origin : bool, optional
        Whether the frame has these extensions.

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
