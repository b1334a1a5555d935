"""SharedMemoryArray: an n-d array in a segment, guarded by a lock in that segment."""

from __future__ import annotations

import math
import operator
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ataraxis._kernels import lock as status_of
from ataraxis._kernels.array import ArrayKernel
from ataraxis.errors import (
    LayoutError,
    LockRecovered,
    NotConnectedError,
    OwnerDied,
    SegmentNotFound,
    StaleSegment,
)
from ataraxis.gpu.exports import export
from ataraxis.gpu.pins import Pin
from ataraxis.labels import Labels, align, fit, is_data_array, labels_at, unmasked
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.lock import Lock, Section
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import end_daemon
from ataraxis.shm.waiting import (
    ARRAY_BIT,
    ARRAY_EVENT,
    ARRAY_LOCK,
    NOTHING,
    EventWord,
    until,
)

if TYPE_CHECKING:
    import xarray as xr

# ---- the index forms of the seed: an int, ``(start,)`` or ``(start, stop)``

SeedIndex: TypeAlias = (
    "int | tuple[int] | tuple[int, int] | slice | EllipsisType | NDArray[Any]"
)


def seed_index(index: Any, shape: tuple[int, ...]) -> Any:
    """Turn an index of `read_data` and `write_data` into an index of NumPy.

    Parameters
    ----------
    index : int, tuple, slice, Ellipsis or ndarray
        An int is one element (of a 1-d array) or one row. ``(start,)`` is everything
        from `start` on, ``(start, stop)`` ends before `stop`; negative numbers count
        from the end. Slices, ``...`` and index arrays are NumPy's.
    shape : tuple of int
        Shape of the array.

    Raises
    ------
    IndexError
        Out of range; nothing is clipped.
    ValueError
        Not one of the forms, or `start` after `stop`.
    """
    if isinstance(index, slice | np.ndarray) or index is Ellipsis:
        return index
    if not shape:
        raise IndexError(f"index {index!r}: a 0-d array has no elements to number")
    size = shape[0]
    if not isinstance(index, tuple):
        return _whole(index, size, size - 1)
    if len(index) == 1:
        return slice(_whole(index[0], size, size), size)
    if len(index) != 2:
        raise ValueError(
            f"index {index!r} has {len(index)} numbers: give (start,) or (start, "
            "stop), or index the array itself, array[...], for numpy's forms"
        )
    start, stop = (_whole(i, size, size) for i in index)
    if start > stop:
        raise ValueError(f"index {index!r}: start {start} lies after stop {stop}")
    return slice(start, stop)


def _whole(value: Any, size: int, last: int) -> int:
    """Return a position 0..last for an integer that may count from the end."""
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"index {value!r} is a truth value, not a position")
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(
            f"index {value!r} is a {type(value).__name__}: give an int, (start,) or "
            "(start, stop)"
        ) from None
    position = number + size if number < 0 else number
    if not 0 <= position <= last:
        raise IndexError(f"index {number} is out of range for {size} elements")
    return position


# ---- the control words of an array


_WAYS = "Convert it yourself, or allow it with write_data(..., casting='unsafe')"


@dataclass(frozen=True)
class ArrayStatistics:
    """The control words of an array; read without the lock."""

    version: int
    """Number of complete writes."""
    is_torn: bool
    """Whether a writer died half way and the data were not healed since."""
    recoveries: int
    """Times the lock was taken from an owner that had died."""
    torn: int
    """Times data were left half written."""
    torn_pid: int
    """Process that last died half way; 0 without one."""
    owner: int
    """Participant slot that holds the lock; -1 if free."""


class ChangeEvent(EventWord):
    """A write into an array, for an event loop that waits for it."""

    def __init__(self, array: SharedMemoryArray, segment: Segment, since: int) -> None:
        super().__init__(segment, ARRAY_EVENT, ARRAY_LOCK, ARRAY_BIT)
        self._array, self._since = array, since

    def is_ready(self) -> bool:
        """Return whether the array has changed; raise if it was destroyed."""
        try:
            self._array.wait_for_change(0, since=self._since)
        except TimeoutError:
            return False
        return True


# ---- values and views


def _copied(value: Any) -> Any:
    """Copy an array out of shared memory; scalars already are copies."""
    if isinstance(value, np.ndarray | np.void):
        return value.copy()
    return value


def _read_only(view: NDArray[Any]) -> NDArray[Any]:
    view = view.view()
    view.flags.writeable = False
    return view


def _is_whole(index: Any, view: NDArray[Any]) -> bool:
    """Return whether a slice or a tuple of slices covers everything."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(p, slice) for p in parts) or len(parts) > view.ndim:
        return False
    sizes = view.shape[: len(parts)]
    spans = [range(*p.indices(n)) for p, n in zip(parts, sizes, strict=True)]
    return all(len(span) == n for span, n in zip(spans, sizes, strict=True))


# ---- the array

CONTROL_BYTES = 128


class SharedMemoryArray(ArrayKernel):
    """An n-d array that several processes read and write, safely, by name.

    Make one with `create_array` or `from_xarray`, open one with `attach`; pass it to
    other processes as an argument, through a queue, or by its name. Reads return
    copies that are never half written; ``with array.array() as view`` gives a view.

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
        self._connects_on_arrival = True

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
            Name in the context.
        prototype : ndarray
            Any shape up to 8 dimensions, any dtype without Python objects; copied.
        exist_ok, exists_ok : bool
            Replace a live array of that name; its users get `StaleSegment`. An array
            whose users have all ended is replaced in any case.
        auto_connect : bool
            Whether the handle connects itself in the processes that it is sent to; the
            creator's is connected.
        dims, coords, attrs : sequence of str, mapping, mapping, optional
            Names of the dimensions, labels along them, units and the like: `Labels`.
        context : Context, str, Path or None
            Directory of the array; None is the user's default.
        mode, group : int or str, optional
            Permission bits, 0o600 or 0o660 in a group context, and owning group.
        participants : int
            Largest number of processes that are attached at a time.

        Returns
        -------
        SharedMemoryArray
            The creator's handle: when it is dropped, the name is removed.

        Raises
        ------
        TypeError
            `prototype` is not an ndarray, or holds Python objects.
        SegmentExists
            A live segment has the name.
        OSError
            Not enough memory; nothing was created.
        """
        if not isinstance(prototype, np.ndarray):
            raise TypeError(
                f"prototype of {name!r} is a {type(prototype).__name__}: give a numpy "
                "array, whose dtype, shape and contents are taken"
            )
        unmasked(prototype, f"array {name!r}")
        if isinstance(dims, Labels):  # of `from_xarray`: dims, coords and attrs
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
        array._plug(segment)
        array._connects_on_arrival = auto_connect
        return array

    @classmethod
    def from_xarray(
        cls, name: str, data_array: xr.DataArray, **options: Any
    ) -> SharedMemoryArray:
        """Make an array with the values and labels of a DataArray.

        Parameters
        ----------
        name : str
            Name in the context.
        data_array : xarray.DataArray
            Its values, dims, coords and attrs are copied.
        **options
            As in `create_array`.
        """
        labels = Labels.from_xarray(data_array)
        return cls.create_array(name, np.asarray(data_array), dims=labels, **options)  # type: ignore[arg-type]

    @classmethod
    def attach(
        cls, name: str, *, timeout: float | None = 0, context: ContextLike = None
    ) -> SharedMemoryArray:
        """Open an array by its name, from any program.

        Parameters
        ----------
        name : str
            Name in the context.
        timeout : float or None
            How long to wait for an array of that name, s; None waits without end.
        context : Context, str, Path or None
            Directory of the array.

        Raises
        ------
        SegmentNotFound, TimeoutError
            No array has the name (within `timeout`).
        LayoutError
            The file is damaged, of another version, or not an array.
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
        """Disconnect the handle; its views stay valid.

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
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()
        self._segment = None
        self._shut()
        self.__dict__.pop("_view", None)

    def destroy(self) -> None:
        """Disconnect, and remove the name: no process can attach any more.

        Connected processes keep the memory. Does nothing if the array was destroyed
        already.
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
        """Disconnect; the creator also removes the name."""
        owned = self._owned
        self.disconnect()
        if owned is not None and owned.is_creator:
            self.destroy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle name and identity, not the data."""
        described = (self._name, str(self._context.path), self._uuid)
        shape_only = Labels(self.dtype, self.shape).to_json()
        is_wanted = self._is_wanted and self._connects_on_arrival
        return _arrive, (*described, shape_only, is_wanted)

    # ---- properties

    @property
    def name(self) -> str:
        """Name in the context."""
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
        """Directory of the array."""
        return self._context

    @property
    def is_connected(self) -> bool:
        """Whether the handle can read and write."""
        segment = self._segment
        return segment is not None and not segment.participant.is_inherited

    @property
    def version(self) -> int:
        """Number of complete writes."""
        return self.statistics().version

    @property
    def lock(self) -> Lock:
        """Lock of the array, for several steps that belong together."""
        return Lock(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows of one untorn copy."""
        return iter(self[...])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("array", self)

    def __repr__(self) -> str:
        return (
            f"SharedMemoryArray(name={self.name!r}, shape={self.shape}, "
            f"datatype={self.datatype}, connected={self.is_connected})"
        )

    # ---- connecting

    def _plug(self, segment: Segment) -> None:
        """Connect to a segment, whose memory and lock the kernel keeps."""
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
        """Reconnect a handle inherited by fork; raise if it cannot be used."""
        end_daemon()
        segment = self._segment
        if segment is None:
            raise NotConnectedError(
                f"array {self._name!r} is not connected: call connect() first, or use "
                "'with array:'"
            )
        if segment.participant.is_inherited:
            # A forked child's copy: it needs a participant slot of its own.
            self.disconnect()
            if not self._connects_on_arrival:
                self._connects_on_arrival = True  # once connect() is called
                self._revive()
            self.connect()
        elif segment.meaning_of_name() == "another":
            raise StaleSegment(
                f"the name {self._name!r} in {self._context.path} now means another "
                f"array than this handle's; attach again with attach({self._name!r})"
            )
        elif self._segment is None:  # disconnected by another thread meanwhile
            self._revive()

    # ---- statuses of the kernel become exceptions here, and only here

    _name: str
    _labels: Labels
    _view: NDArray[Any]

    def _lend(self, view: NDArray[Any]) -> None:
        """Keep the live view, for indices that the kernel does not know."""
        self._view = view

    def wait_for_change(
        self, timeout: float | None = None, *, since: int | None = None
    ) -> int:
        """Wait until a write is complete.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s. ``None`` waits without end, ``0`` only looks.
        since : int, optional
            A `version` read before: returns at once if it is not the current one. By
            default the current version.

        Returns
        -------
        int
            The current version.

        Raises
        ------
        TimeoutError
            Nothing changed within `timeout`.
        StaleSegment
            The array was destroyed.

        Notes
        -----
        Sleeps in the kernel with the GIL released; Ctrl-C ends the wait.
        """
        if since is None:
            since = self.statistics().version
        end = math.inf if timeout is None else time.monotonic() + timeout
        status = self._wait_change(since, timeout)
        while status == status_of.RETIRED and self._is_named():
            # A process tried to take the name of a live array and is giving it back, or
            # the word RETIRED was damaged.
            time.sleep(0.001)
            left = end - time.monotonic()
            if left <= 0:
                status = status_of.TIMEOUT
            else:
                status = self._wait_change(since, None if timeout is None else left)
        if status != status_of.OK:
            self._fail(status)
        return self.statistics().version

    async def wait_for_change_async(
        self, timeout: float | None = None, *, since: int | None = None
    ) -> int:
        """Wait until a write is complete, awaited; otherwise as `wait_for_change`.

        In asyncio, uvloop or, with ``ataraxis[trio]``, trio. One thread of this process
        sleeps for all waits.
        """
        if since is None:
            since = self.statistics().version

        def look() -> Any:
            try:
                return self.wait_for_change(0, since=since)
            except TimeoutError:
                return NOTHING

        version = await until(look, self.change_event(since), timeout=timeout)
        if version is NOTHING:
            self._fail(status_of.TIMEOUT)
        return int(version)

    def change_event(self, since: int | None = None) -> ChangeEvent:
        """Return what `ataraxis.shm.waiting.until` waits for: the next write.

        Parameters
        ----------
        since : int, optional
            A `version` read before; by default the current one.
        """
        version = self.statistics().version if since is None else since
        return ChangeEvent(self, self._attached_segment(), version)

    def _attached_segment(self) -> Segment:
        self._guard_or_revive()
        assert self._segment is not None
        return self._segment

    def statistics(self) -> ArrayStatistics:
        """Read the array's control words."""
        version, health, recoveries, torn, pid, owner = self._guard_or_revive()
        return ArrayStatistics(version, bool(health), recoveries, torn, pid, owner)

    def heal(self) -> None:
        """Declare the data whole again after a writer died half way.

        Check and correct them first, in ``with array.array() as view``. Writing the
        whole array heals it, too.
        """
        with Section(self, is_locked=True):
            self._heal()

    # ---- calls of the kernel

    def _guard_or_revive(self) -> tuple[int, int, int, int, int, int]:
        self._ready()
        words = self._guard()
        assert words is not None
        return words

    def _check_not_torn(self) -> None:
        if self._guard_or_revive()[1]:
            self._fail(status_of.TORN)

    def _fail(self, status: int) -> None:
        """Turn a status of the kernel into its exception; the only place that does."""
        end_daemon()
        name = self._name
        if status == status_of.DAMAGED:
            raise LayoutError(
                f"array {name!r} was damaged: {self._damage}. Copy the data with "
                "array.array(with_lock=False), and make the array again under another "
                "name"
            )
        if status == status_of.TORN and self.statistics().torn_pid == 0:
            raise OwnerDied(
                f"array {name!r}: the lock had another owner when it was released: "
                "its word was damaged, and two processes may have written at a time. "
                "Check the data with 'with array.array() as view', then call heal(); "
                "or write the whole array"
            )
        if status == status_of.TORN:
            pid = self.statistics().torn_pid
            raise OwnerDied(
                f"array {name!r}: process {pid} died in the middle of a write, and "
                "data may be half written. Check them with 'with array.array() as "
                "view', then call heal(); or write the whole array"
            )
        if status == status_of.OVERFLOW:
            raise OverflowError(
                f"array {name!r}: the sum does not fit {self._labels.dtype}; nothing "
                "was changed"
            )
        if status == status_of.RETIRED:
            raise StaleSegment(
                f"array {name!r} was destroyed: no other process can attach to it"
            )
        raise TimeoutError(
            f"array {name!r}: no write was completed within the timeout (version still "
            f"{self.statistics().version}). Pass since= to include writes made before "
            "this call"
        )

    def _warn_recovered(self) -> None:
        """Warn once of a lock that was taken from a dead owner."""
        part = self._participant
        count = part.take_recovered() if part is not None else 0
        if count:
            warnings.warn(
                f"the lock of array {self._name!r} was recovered from a process that "
                f"died holding it ({count}x); its data are "
                + ("half written, see OwnerDied" if self._is_torn() else "whole"),
                LockRecovered,
                stacklevel=4,
            )

    def _is_torn(self) -> bool:
        words = self._guard()
        return words is not None and bool(words[1])

    # ---- reading

    def read_data(
        self,
        index: SeedIndex,
        *,
        convert_output: bool = False,
        with_lock: bool = True,
    ) -> Any:
        """Read elements as a copy; the seed's name for ``array[i]``.

        Parameters
        ----------
        index : int or tuple
            ``i``, ``(start,)`` or ``(start, stop)``; slices, ``...`` and index arrays
            of NumPy.
        convert_output : bool
            Return a Python number or list.
        with_lock : bool
            False reads at once, also in the middle of another process's write.

        Returns
        -------
        numpy scalar, ndarray, or Python value
            A copy.

        Raises
        ------
        IndexError, ValueError
            `index` is out of range, or not one of the forms.
        OwnerDied
            A writer died half way (with the lock).
        """
        plain = seed_index(index, self._labels.shape)
        if with_lock:
            output = self[plain]
        else:
            self._guard_or_revive()
            output = _copied(self._view[plain])
        if not convert_output:
            return output
        return output.tolist()

    def _read(self, index: Any) -> Any:
        """Read with any index of NumPy, under the lock."""
        self._check_not_torn()
        with Lock(self):
            self._check_not_torn()
            try:
                return _copied(self._view[index])
            except IndexError as error:
                raise self._bad_index(index, error) from error

    def snapshot(self) -> xr.DataArray:
        """Copy the whole array with its labels, never half written.

        Returns
        -------
        xarray.DataArray
            A copy with dims, coords and attrs. ``array[...]`` is a plain ndarray.

        Raises
        ------
        OwnerDied
            A writer died half way.

        Notes
        -----
        Writers do not wait for it. A copy during which a write began is made again; it
        waits only after several tries, or while the lock is held.
        """
        return self._labels.to_xarray(self._copy())

    def _copy(self) -> NDArray[Any]:
        out = np.empty(self._labels.shape, self._labels.dtype)
        self._fetch_into(out)
        return out

    def sel(self, **labels: Any) -> Any:
        """Read by labels instead of positions, as a copy.

        Parameters
        ----------
        **labels
            Dimension to label, list of labels, or slice of labels (ends included).

        Returns
        -------
        numpy scalar or ndarray

        Raises
        ------
        KeyError
            No such dimension or label; similar ones are named.

        Examples
        --------
        >>> import numpy as np
        >>> from ataraxis import SharedMemoryArray
        >>> with SharedMemoryArray.create_array(
        ...     "doc_sel", np.eye(3), dims=("mouse", "axis"), coords={"axis": [*"xyz"]}
        ... ) as pose:
        ...     pose.sel(axis="y").tolist()
        [0.0, 1.0, 0.0]
        """
        whole = self._copy()
        for dim, label in labels.items():
            self._labels.position(dim, label)
        index = {d: self._labels.position(d, label) for d, label in labels.items()}
        kept = 0
        for dim in self._labels.dims:
            position = index.get(dim, slice(None))
            whole = whole[(slice(None),) * kept + (position,)]
            kept += not isinstance(position, int)
        return whole

    def to_xarray(self) -> xr.DataArray:
        """View the array with its labels: live, read-only, no copy.

        Returns
        -------
        xarray.DataArray
            Shows writes of other processes, also half way; `snapshot` is a copy. It
            stays valid as long as it is referenced.
        """
        self._guard_or_revive()
        return self._labels.to_xarray(_read_only(self._view))

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return a live, read-only view; with ``copy=True`` a copy, as `snapshot`."""
        self._guard_or_revive()
        wanted = self._labels.dtype if dtype is None else np.dtype(dtype)
        if copy or (copy is None and wanted != self._labels.dtype):
            return self._copy().astype(wanted, copy=False)
        if wanted != self._labels.dtype:
            raise ValueError(
                f"array {self._name!r} is {self._labels.dtype}: {wanted} needs a copy, "
                "and copy=False forbids one"
            )
        return _read_only(self._view)

    # ---- for a GPU

    _pin: Pin | None = None

    def pin(self) -> Pin:
        """Lock the array's pages for copies to and from GPUs, which are then faster.

        Returns
        -------
        Pin
            Also a context manager: its end unlocks them. So do `disconnect`, `destroy`
            and the program's end. The pages are locked once for all handles of this
            process.

        Raises
        ------
        GpuUnavailable
            No GPU, no driver, or neither cuda-bindings (``ataraxis[gpu]``) nor PyTorch
            nor CuPy is installed.
        PinError
            The memory cannot be locked: too much, or not permitted.
        """
        mapping = self._attached_segment().mapping
        if self._pin is None:
            what = f"array {self._name!r}"
            self._pin = Pin(mapping, mapping.address, len(mapping), what)
        return self._pin.begin()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export a live, read-only view by DLPack; ``copy=True``: an untorn copy.

        ``dl_device=(3, 0)`` (kDLCUDAHost) states that the memory is page-locked; the
        array must be pinned.
        """
        self._guard_or_revive()
        pin = self._pin
        return export(
            self._copy() if copy else _read_only(self._view),
            pin is not None and pin.is_pinned,
            stream=stream, max_version=max_version, dl_device=dl_device, copy=copy,
        )  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return kDLCPU: it is host memory, whether pinned or not."""
        return (1, 0)

    # ---- writing

    def write_data(
        self,
        index: SeedIndex,
        data: Any,
        with_lock: bool = True,
        *,
        casting: str | None = None,
    ) -> None:
        """Write elements; the seed's name for ``array[i] = x``.

        Parameters
        ----------
        index : int or tuple
            As in `read_data`.
        data : array-like
            Broadcast to what `index` selects.
        with_lock : bool
            False writes at once, also in the middle of another process's write.
        casting : str, optional
            By default values that would change are refused. "unsafe" allows all;
            "same_kind", "safe" and the others are rules of NumPy.

        Raises
        ------
        IndexError, ValueError
            `index` or `data` does not fit; nothing was written.
        """
        plain = seed_index(index, self._labels.shape)
        value = self._fitted(data, plain, casting, index)
        if (
            isinstance(plain, slice)
            and value.ndim
            and value.size
            and not range(*plain.indices(len(self._view)))
        ):
            raise IndexError(
                f"{self._what(index)} selects none of {len(self._view)} elements, "
                f"and {value.size} were given"
            )
        if with_lock:
            self[plain] = value
        else:
            self._guard_or_revive()
            try:
                self._assign(plain, value)
            finally:
                self._changed_unlocked()

    def _write(self, index: Any, value: Any) -> None:
        """Write with any index of NumPy, in a write section."""
        value = self._fitted(value, index)
        with Section(self, is_locked=True, is_dirty=False) as view:
            self._store(index, value)
            if index is Ellipsis or _is_whole(index, view):
                self._heal()

    def _store(self, index: Any, value: NDArray[Any]) -> None:
        """Write under the lock; NumPy checks index and shape before it writes."""
        is_first = self._mark_dirty()
        try:
            self._assign(index, value)
        except (IndexError, TypeError, ValueError):
            if is_first:
                self._unmark_dirty()
            raise

    def _assign(self, index: Any, value: NDArray[Any]) -> None:
        try:
            self._view[index] = value
        except ValueError as error:
            raise ValueError(f"{self._what(index)}: {error}") from error
        except IndexError as error:
            raise self._bad_index(index, error) from error

    def array(self, *, with_lock: bool = True) -> Section:
        """Return a section that gives a view of the memory.

        Parameters
        ----------
        with_lock : bool
            True holds the lock meanwhile; the view is writable. False takes no lock;
            the view is read-only.

        Returns
        -------
        Section
            A context manager that gives an ndarray of the array's shape and dtype; a
            view, not a copy.

        Notes
        -----
        Entering waits for the lock without end. Readers that take the lock see all
        writes of the section at once, when it ends.

        Examples
        --------
        >>> import numpy as np
        >>> from ataraxis import SharedMemoryArray
        >>> with SharedMemoryArray.create_array("doc_with", np.arange(3)) as numbers:
        ...     with numbers.array() as view:
        ...         view *= 2
        ...     numbers[...].tolist()
        [0, 2, 4]
        """
        return Section(self, is_locked=with_lock)

    def update(
        self, function: Callable[[Any], Any], index: Any = ..., *, casting: Any = None
    ) -> Any:
        """Replace elements by a function of them, atomically.

        Parameters
        ----------
        function : callable
            Takes a copy of ``array[index]``, returns the new values. If it raises,
            nothing changes. It runs with the lock held: keep it short.
        index : index of NumPy
            Which elements; all by default.
        casting : str, optional
            As in `write_data`.

        Returns
        -------
        numpy scalar or ndarray
            The new values, a copy.

        Raises
        ------
        OwnerDied
            A writer died half way.
        """
        with Section(self, is_locked=True, is_dirty=False):
            self._check_not_torn()
            value = self._fitted(function(_copied(self._view[index])), index, casting)
            self._store(index, value)
            return _copied(self._view[index])

    def compare_exchange(self, index: Any, expected: Any, desired: Any) -> bool:
        """Write `desired` if the element equals `expected`, atomically.

        Parameters
        ----------
        index : int or tuple of int
            One element.
        expected, desired : scalar
            Its old value, and its new one.

        Returns
        -------
        bool
            Whether it was written.

        Raises
        ------
        OwnerDied
            A writer died half way.
        """
        value = self._fitted(desired, index)
        expected = self._aligned(expected, index)
        with Section(self, is_locked=True, is_dirty=False):
            self._check_not_torn()
            if not np.all(self._view[index] == expected):
                return False
            self._store(index, value)
            return True

    def _add(self, index: Any, amount: Any) -> Any:
        """Add, for dtypes and indices that the kernel leaves to NumPy."""
        what = self._what(index)
        amount = self._aligned(amount, index)
        step = fit(amount, self._labels.dtype, None, what, _WAYS)
        integers = self._labels.dtype.kind in "iu"

        def sum_of(old: Any) -> Any:
            if not integers:
                return old + step
            exact = np.asarray(old).astype(object) + step.astype(object)
            limits = np.iinfo(self._labels.dtype)
            if np.any(exact > limits.max) or np.any(exact < limits.min):
                raise OverflowError(f"{what}: the sum does not fit {limits.dtype}")
            return np.asarray(exact, self._labels.dtype)

        return self.update(sum_of, index)

    def _bad_index(self, index: Any, error: IndexError) -> IndexError:
        """Return the error with the name of the array and, for labels, a hint."""
        hint = ""
        if isinstance(index, str) and self._labels.dtype.names is None:
            dim = self._labels.dims[-1] if self._labels.dims else "dim"
            hint = f". Labels are read with sel(), such as sel({dim}={index!r})"
        return IndexError(f"{self._what(index)}: {error}{hint}")

    def _fitted(
        self, value: Any, index: Any, casting: Any = None, asked: Any = None
    ) -> NDArray[Any]:
        """Bring a value into the labels and the dtype that `index` selects, or raise.

        Errors show the index `asked`, if given.
        """
        dtype = self._labels.dtype
        if type(value) is np.ndarray and value.dtype == dtype and not dtype.names:
            return value
        what = self._what(index if asked is None else asked)
        value = self._aligned(value, index)
        return fit(value, self._dtype_at(index), casting, what, _WAYS)

    def _aligned(self, value: Any, index: Any) -> Any:
        """Bring a DataArray into the order of the dims and labels of `index`."""
        if not is_data_array(value):
            return value
        labels, what = self._labels, self._what(index)
        if self._dtype_at(index) != labels.dtype:
            index = ...  # names of fields: of every element
        found = labels_at(index, labels.shape, labels.dims, labels.coords)
        if found is None:
            raise TypeError(
                f"{what}: a DataArray needs an index that keeps each dimension apart; "
                "give .values to write by position"
            )
        return align(value, *found, what, may_broadcast=True)

    def _dtype_at(self, index: Any) -> np.dtype[Any]:
        """Return the dtype that `index` selects; names of fields select another."""
        dtype = self._labels.dtype
        if dtype.names is None or not isinstance(index, str | list):
            return dtype
        names = [index] if isinstance(index, str) else index
        if not names or not all(name in dtype.names for name in names):
            return dtype
        return dtype[index].base

    def _what(self, index: Any) -> str:
        return f"array {self._name!r}[{index!r}]"


def _arrive(
    name: str, directory: str, uuid: bytes, labels: bytes, is_wanted: bool
) -> SharedMemoryArray:
    """Unpickle a handle of the same array, connected if the sender's was."""
    context = Context.of(directory)
    array = SharedMemoryArray(name, context, uuid, Labels.from_json(labels))
    if is_wanted:
        # One that was destroyed on the way raises when it is used.
        with suppress(SegmentNotFound, StaleSegment):
            array.connect()
    return array
