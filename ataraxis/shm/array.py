"""SharedMemoryArray: an n-d array in a segment, guarded by a lock that lives there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import NotConnectedError, SegmentNotFound, StaleSegment
from ataraxis.labels import Labels
from ataraxis.shm.access import Access
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.lock import Lock
from ataraxis.shm.segment import Segment

if TYPE_CHECKING:
    import xarray as xr

CONTROL_BYTES = 128


class SharedMemoryArray(Access):
    """An n-d array that several processes read and write, safely, by name.

    Make one with `create_array` or `from_xarray`, open one with `attach`; hand it to
    other processes as an argument, through a queue, or by its name. Reads give copies
    that no writer left half way; ``with array.array() as view`` lends the memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import SharedMemoryArray
    >>> with SharedMemoryArray.create_array("doc_pose", np.zeros((4, 3))) as pose:
    ...     pose[2, :] = [1, 2, 3]
    ...     pose[2].tolist()
    [1.0, 2.0, 3.0]
    """

    _segment: Segment | None
    _owned: Segment | None

    def __init__(
        self, name: str, context: Context, uuid: bytes, labels: Labels
    ) -> None:
        self._name = name
        self._context = context
        self._uuid = uuid
        self._labels = labels
        self._segment = None
        self._owned = None
        self._is_wanted = False

    # ---- making and opening

    @classmethod
    def create_array(
        cls,
        name: str,
        prototype: NDArray[Any],
        exist_ok: bool = False,
        *,
        exists_ok: bool = False,
        auto_connect: bool = True,
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        context: ContextLike = None,
        mode: int | None = None,
        group: str | int | None = None,
        participants: int = 128,
    ) -> SharedMemoryArray:
        """Make a named array with the dtype, shape and contents of a prototype.

        Parameters
        ----------
        name : str
            Its name in the context.
        prototype : ndarray
            Any shape up to 8 dimensions, any dtype without Python objects; copied.
        exist_ok, exists_ok : bool
            Replace a live array of that name; its users get `StaleSegment`. One whose
            users are all gone is replaced in any case.
        auto_connect : bool
            Whether the handle is connected at once.
        dims : sequence of str, optional
            One name per dimension.
        coords : mapping, optional
            Labels along the dimensions, as xarray has them.
        attrs : mapping, optional
            Units, rates and the like.
        context : Context, str, Path or None
            The directory it lives in; None is this user's own.
        mode : int, optional
            Permission bits; 0o600, or 0o660 in a group context.
        group : str or int, optional
            Owning group.
        participants : int
            How many processes may take part at a time.

        Returns
        -------
        SharedMemoryArray
            The creator's handle: when it is dropped, the name goes.

        Raises
        ------
        TypeError
            `prototype` is not an ndarray, or holds Python objects.
        SegmentExists
            A live segment has the name.
        OSError
            Not enough memory; nothing is left behind.
        """
        if not isinstance(prototype, np.ndarray):
            raise TypeError(
                f"prototype of {name!r} is a {type(prototype).__name__}: give a numpy "
                "array, whose dtype, shape and contents are taken"
            )
        if isinstance(dims, Labels):  # from_xarray: all of them, name too
            labels = dims
        else:
            labels = Labels(prototype.dtype, prototype.shape, dims, coords, attrs)

        def fill(segment: Segment) -> None:
            np.copyto(segment.view(labels.shape, labels.dtype), prototype)

        segment = Segment.create(
            name,
            Kind.ARRAY,
            labels,
            control_bytes=CONTROL_BYTES,
            payload_bytes=labels.nbytes,
            fill=fill,
            context=context,
            participants=participants,
            mode=mode,
            group=group,
            exist_ok=exist_ok or exists_ok,
        )
        array = cls(segment.name, segment.context, segment.header.uuid, labels)
        array._owned = segment
        if auto_connect:
            array._plug(segment)
        return array

    @classmethod
    def from_xarray(
        cls, name: str, data_array: xr.DataArray, **options: Any
    ) -> SharedMemoryArray:
        """Make an array with the values and labels of a DataArray.

        Parameters
        ----------
        name : str
            Its name in the context.
        data_array : xarray.DataArray
            Values, dims, coords and attrs are taken; copied.
        **options
            As in `create_array`.
        """
        labels = Labels.from_xarray(data_array)
        return cls.create_array(name, np.asarray(data_array), dims=labels, **options)  # type: ignore[arg-type]

    @classmethod
    def attach(
        cls, name: str, *, timeout: float | None = 0, context: ContextLike = None
    ) -> SharedMemoryArray:
        """Open the array that has the name, from any program.

        Parameters
        ----------
        name : str
            Its name in the context.
        timeout : float or None
            How long to wait for one that is not there yet, s; None waits without end.
        context : Context, str, Path or None
            The directory it lives in.

        Raises
        ------
        SegmentNotFound
            None has the name (`timeout` 0).
        TimeoutError
            None had it within `timeout`.
        LayoutError
            The file is damaged, of another version, or no array.
        """
        segment = Segment.attach(
            name, kind=Kind.ARRAY, context=context, timeout=timeout
        )
        return cls.of_segment(segment)

    @classmethod
    def of_segment(cls, segment: Segment) -> SharedMemoryArray:
        """Open the array in a segment that is attached already."""
        array = cls(segment.name, segment.context, segment.header.uuid, segment.labels)
        array._plug(segment)
        return array

    # ---- life

    def connect(self) -> None:
        """Connect the handle; nothing happens if it is connected.

        Raises
        ------
        SegmentNotFound
            The array was destroyed.
        StaleSegment
            The name now means another array.
        """
        if self.is_connected:
            return
        segment = self._owned
        if not (segment and segment.is_creator and segment.meaning_of_name() == "this"):
            self._owned = None
            segment = Segment.attach(
                self._name,
                kind=Kind.ARRAY,
                context=self._context,
                uuid=self._uuid,
            )
        self._plug(segment)

    def disconnect(self) -> None:
        """Disconnect the handle; views that were lent stay valid.

        Raises
        ------
        RuntimeError
            This thread holds the array's lock.
        """
        if self._held():
            raise RuntimeError(
                f"array {self._name!r} cannot be disconnected inside its own write "
                "section; leave the 'with' block, or release the lock, first"
            )
        self._is_wanted = False
        self._segment = None
        self._shut()
        self.__dict__.pop("_view", None)

    def destroy(self) -> None:
        """Disconnect, and take the name away; nobody can attach any more.

        Whoever is connected goes on with the memory they have. Does nothing if the
        array was destroyed already.
        """
        segment = self._owned or self._segment
        if segment is None or segment.participant.is_inherited:
            try:
                segment = Segment.attach(
                    self._name, context=self._context, uuid=self._uuid
                )
            except (SegmentNotFound, StaleSegment):
                segment = None
        self.disconnect()
        self._owned = None
        if segment is not None:
            segment.unlink()

    def __enter__(self) -> SharedMemoryArray:
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        """Disconnect; the creator also takes the name away."""
        owned = self._owned
        self.disconnect()
        if owned is not None and owned.is_creator:
            self.destroy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as name and identity, never as data."""
        described = (self._name, str(self._context.path), self._uuid)
        shape_only = Labels(self.dtype, self.shape).to_json()
        return _arrive, (*described, shape_only, self._is_wanted)

    # ---- what it is

    @property
    def name(self) -> str:
        """Its name in the context."""
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self._labels.shape

    @property
    def datatype(self) -> np.dtype[Any]:
        """Dtype of the elements (the seed's name)."""
        return self._labels.dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the elements."""
        return self._labels.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def labels(self) -> Labels:
        """dtype, shape, dims, coords and attrs."""
        return self._labels

    @property
    def context(self) -> Context:
        """The directory it lives in."""
        return self._context

    @property
    def is_connected(self) -> bool:
        """Whether the handle can read and write."""
        segment = self._segment
        return segment is not None and not segment.participant.is_inherited

    @property
    def version(self) -> int:
        """How many writes are complete."""
        return self.statistics().version

    @property
    def lock(self) -> Lock:
        """Its lock, for several steps that belong together."""
        return Lock(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows of one untorn copy."""
        return iter(self[...])

    def __repr__(self) -> str:
        return (
            f"SharedMemoryArray(name={self.name!r}, shape={self.shape}, "
            f"datatype={self.datatype}, connected={self.is_connected})"
        )

    # ---- how it stays usable

    def _plug(self, segment: Segment) -> None:
        """Connect to a segment; the kernel keeps its memory and lock from here on."""
        self._segment = segment
        self._labels = segment.labels
        self._is_wanted = True
        self._lend(segment.view(self.shape, self.dtype))
        self._open(segment.payload, segment.participant, self.dtype, self.shape)
        self._warn_recovered()

    def _is_named(self) -> bool:
        segment = self._segment
        return segment is not None and segment.meaning_of_name() == "this"

    def _revive(self) -> None:
        """Decide what a handle is worth that is shut, inherited, or unlinked."""
        segment = self._segment
        if segment is None:
            raise NotConnectedError(
                f"array {self._name!r} is not connected: call connect() first, or use "
                "'with array:'"
            )
        if segment.participant.is_inherited:
            # A forked child's copy: take part under our own name.
            self.disconnect()
            self.connect()
        elif segment.meaning_of_name() == "another":
            raise StaleSegment(
                f"the name {self._name!r} in {self._context.path} now means another "
                f"array than this handle's; attach anew with attach({self._name!r})"
            )
        elif self._segment is None:  # disconnected by another thread meanwhile
            self._revive()


def _arrive(
    name: str, directory: str, uuid: bytes, labels: bytes, is_wanted: bool
) -> SharedMemoryArray:
    """Unpickle: the handle of the same array, connected if the sender's was."""
    context = Context.of(directory)
    array = SharedMemoryArray(name, context, uuid, Labels.from_json(labels))
    if is_wanted:
        try:
            array.connect()
        except (SegmentNotFound, StaleSegment):
            # It was destroyed on the way: the first use says so.
            pass
    return array
