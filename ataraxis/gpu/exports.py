"""Exports: DLPack as host memory or page-locked host memory; a view for a GPU.

NumPy makes the capsules. It makes versioned ones for read-only arrays since 2.1; older
ones have no read-only flag, and importers that ask for them are refused.
"""

from __future__ import annotations

import errno
from typing import Any

from numpy.typing import NDArray

from ataraxis.errors import PinError
from ataraxis.gpu.pins import Hold, Pin

CPU, CUDA_HOST = (1, 0), (3, 0)


def export(
    array: NDArray[Any],
    is_pinned: bool,
    *,
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: Any,
    copy: bool | None,
) -> Any:
    """Return the capsule of a read-only array, for its ``__dlpack__``.

    Raises
    ------
    BufferError
        The importer asks for another device, for page-locked memory that is not, or
        cannot import read-only memory; or DLPack does not have the dtype.
    """
    device = CPU if dl_device is None else tuple(map(int, dl_device))
    if device not in (CPU, CUDA_HOST):
        raise BufferError(
            f"DLPack device {device} was asked for, and this is host memory, {CPU}; "
            "to_torch(), to_cupy() and to_jax() copy to a GPU"
        )
    if device == CUDA_HOST and not is_pinned:
        raise BufferError(
            "kDLCUDAHost was asked for, and the memory is not page-locked: pin() its "
            "consumer or array first"
        )
    if device == CUDA_HOST and copy:
        raise BufferError("a copy is not page-locked: ask for kDLCPU, or for no copy")
    if stream is not None:
        raise BufferError(f"host memory has no stream, got stream={stream!r}")
    if not copy and (max_version is None or max_version[0] < 1):
        raise BufferError(
            "the importer takes no versioned DLPack, and so no read-only memory: ask "
            "for a copy (copy=True), or use to_torch(), to_cupy() or to_jax()"
        )
    if copy:
        array, copy = array.copy(), None
    try:
        capsule = array.__dlpack__(max_version=max_version)
    except TypeError as error:
        raise BufferError(f"DLPack needs NumPy 2.1 or newer: {error}") from error
    if device != CUDA_HOST:
        return capsule
    from ataraxis._kernels.dlpack import mark_pinned

    return mark_pinned(capsule)


class DeviceView:
    """Host memory that a GPU reads where it is, over the bus; for small frames.

    ``cupy.asarray(view)`` and Numba take it, by the CUDA Array Interface. It keeps the
    slot, and its pages locked: keep it until the kernels that read it are over. Nothing
    may write to it.
    """

    def __init__(self, array: NDArray[Any], hold: Hold, address: int) -> None:
        self._kept = array, hold
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address, True),
            "strides": None,
            "version": 3,
        }

    @classmethod
    def of(cls, array: NDArray[Any], pin: Pin | None, what: str) -> DeviceView:
        """Return the view of an array of a pinned mapping; `PinError` if it is not."""
        hold = None if pin is None else pin.hold()
        if pin is None or hold is None:
            raise PinError(
                errno.EINVAL, f"{what} is not pinned, so no GPU can read it: pin() it"
            )
        return cls(array, hold, pin.device_address(array.ctypes.data))
