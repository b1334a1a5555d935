"""How an array in shared memory is read and written, in numpy's and the seed's ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ataraxis.shm.casting import fit
from ataraxis.shm.index import SeedIndex, seed_index
from ataraxis.shm.section import Section
from ataraxis.shm.state import State

if TYPE_CHECKING:
    import xarray as xr


class Access(State):
    """Reading and writing; `SharedMemoryArray` adds names and life."""

    # ---- reading

    def read_data(
        self,
        index: SeedIndex,
        *,
        convert_output: bool = False,
        with_lock: bool = True,
    ) -> Any:
        """Read an element, or some, as a copy (the seed's name; or use ``array[i]``).

        Parameters
        ----------
        index : int or tuple
            ``i``, ``(start,)`` or ``(start, stop)``, as the seed has them; slices,
            ``...`` and index arrays as numpy has them.
        convert_output : bool
            Give Python values: a number or a list.
        with_lock : bool
            False reads whatever is there, also in the middle of somebody's write.

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
        """Read by any of numpy's index forms, under the lock."""
        self._check_not_torn()
        if not self._acquire(None):
            raise TimeoutError("lock")
        try:
            self._check_not_torn()
            return _copied(self._view[index])
        except IndexError as error:
            raise self._bad_index(index, error) from error
        finally:
            self._release()

    def snapshot(self) -> xr.DataArray:
        """Copy the whole array, labelled and frozen, never torn.

        Returns
        -------
        xarray.DataArray
            A copy with dims, coords and attrs. For a bare ndarray use ``array[...]``.

        Raises
        ------
        OwnerDied
            A writer died half way.

        Notes
        -----
        Writers are not held up: a copy that one came across is made again, and only
        after several tries, or while somebody holds the lock, does it wait.
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
            Dimension to label, list of labels, or slice of labels (both ends in).

        Returns
        -------
        numpy scalar or ndarray

        Raises
        ------
        KeyError
            No such dimension or label; close ones are named.

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
            What others write shows up in it, also half way; `snapshot` is the frozen
            one. Stays valid for as long as it is kept.
        """
        self._guard_or_revive()
        return self._labels.to_xarray(_read_only(self._view))

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Give a live, read-only view, or an untorn copy with ``copy=True``."""
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

    # ---- writing

    def write_data(
        self,
        index: SeedIndex,
        data: Any,
        with_lock: bool = True,
        *,
        casting: str | None = None,
    ) -> None:
        """Write an element, or some (the seed's name; or use ``array[i] = x``).

        Parameters
        ----------
        index : int or tuple
            As in `read_data`.
        data : array-like
            Broadcast to what `index` selects.
        with_lock : bool
            False writes at once, also into the middle of somebody's work.
        casting : str, optional
            Not given, values that would change are refused. "unsafe" allows all;
            "same_kind", "safe" and the others are numpy's rules.

        Raises
        ------
        IndexError, ValueError
            `index` or `data` does not fit; nothing was written.
        """
        plain = seed_index(index, self._labels.shape)
        value = fit(data, self._labels.dtype, casting, self._what(index))
        if with_lock:
            self[plain] = value
        else:
            self._guard_or_revive()
            self._assign(plain, value)
            self._changed_unlocked()

    def _write(self, index: Any, value: Any) -> None:
        """Write by any of numpy's index forms, in a write section."""
        value = fit(value, self._dtype_at(index), None, self._what(index))
        with Section(self, is_locked=True, is_dirty=False) as view:
            self._store(index, value)
            if index is Ellipsis or _is_whole(index, view):
                self._heal()

    def _store(self, index: Any, value: NDArray[Any]) -> None:
        """Write under the lock; numpy refuses an index or a shape before it writes."""
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
        """Lend the memory itself.

        Parameters
        ----------
        with_lock : bool
            True holds the lock meanwhile and lends a writable view. False takes no
            lock and lends a read-only one.

        Returns
        -------
        Section
            A context manager that gives an ndarray of the array's shape and dtype; a
            view, no copy.

        Notes
        -----
        Entering waits for the lock without end. All that is written inside becomes
        visible to locked readers at once, when the section ends.

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
            Gets a copy of ``array[index]``, returns what replaces it. If it raises,
            nothing changes. Runs with the lock held: keep it short.
        index : any of numpy's
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
            new = function(_copied(self._view[index]))
            value = fit(new, self._dtype_at(index), casting, self._what(index))
            self._store(index, value)
            return _copied(self._view[index])

    def compare_exchange(self, index: Any, expected: Any, desired: Any) -> bool:
        """Write `desired` if the element equals `expected`, atomically.

        Parameters
        ----------
        index : int or tuple of int
            One element.
        expected, desired : scalar
            What it must be, and what it becomes.

        Returns
        -------
        bool
            Whether it was written.

        Raises
        ------
        OwnerDied
            A writer died half way.
        """
        value = fit(desired, self._dtype_at(index), None, self._what(index))
        with Section(self, is_locked=True, is_dirty=False):
            self._check_not_torn()
            if not np.all(self._view[index] == expected):
                return False
            self._store(index, value)
            return True

    def _add(self, index: Any, amount: Any) -> Any:
        """Add for every dtype and index that the kernel leaves to numpy."""
        what = self._what(index)
        step = fit(amount, self._labels.dtype, None, what)
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
        """Name the array, and say how labels are looked up if one was given."""
        hint = ""
        if isinstance(index, str) and self._labels.dtype.names is None:
            dim = self._labels.dims[-1] if self._labels.dims else "dim"
            hint = f". Labels are read with sel(), such as sel({dim}={index!r})"
        return IndexError(f"{self._what(index)}: {error}{hint}")

    def _dtype_at(self, index: Any) -> np.dtype[Any]:
        """Return the dtype that `index` selects: another one for names of fields."""
        dtype = self._labels.dtype
        if dtype.names is None or not isinstance(index, str | list):
            return dtype
        names = [index] if isinstance(index, str) else index
        if not names or not all(name in dtype.names for name in names):
            return dtype
        return dtype[index].base

    def _what(self, index: Any) -> str:
        return f"array {self._name!r}[{index!r}]"


def _copied(value: Any) -> Any:
    """Make a scalar or an array that shares nothing with shared memory."""
    if isinstance(value, np.ndarray | np.void):
        return value.copy()
    return value


def _read_only(view: NDArray[Any]) -> NDArray[Any]:
    view = view.view()
    view.flags.writeable = False
    return view


def _is_whole(index: Any, view: NDArray[Any]) -> bool:
    """Whether a plain slice or full tuple of slices covers everything."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(p, slice) for p in parts) or len(parts) > view.ndim:
        return False
    sizes = view.shape[: len(parts)]
    spans = [range(*p.indices(n)) for p, n in zip(parts, sizes, strict=True)]
    return all(len(span) == n for span, n in zip(spans, sizes, strict=True))
