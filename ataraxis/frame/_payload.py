"""`Payload`: the reading half of a frame, from bytes to values, arrays and labels.

How each kind of payload is laid out is in `_values`, `_arrays` and `_tree`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis.errors import CorruptFrame
from ataraxis.frame._arrays import read_block, view
from ataraxis.frame._codes import PLAIN, DType
from ataraxis.frame._header import Header
from ataraxis.frame._values import decode
from ataraxis.labels import Labels

if TYPE_CHECKING:
    import xarray as xr


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
            return read_block(self.payload, self.shape).labels
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
                block = read_block(payload, self.shape)
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
