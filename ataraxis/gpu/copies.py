"""Copies between slots and GPUs: begun here, given back by the watcher."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from ataraxis.gpu.libraries import library
from ataraxis.gpu.pins import Hold
from ataraxis.gpu.watcher import watcher


def copy_to_device(
    name: str, array: NDArray[Any], hold: Hold | None, device: Any, stream: Any
) -> Any:
    """Begin to copy an array to a device; return the device's array.

    Parameters
    ----------
    name : str
        The library: 'torch', 'cupy' or 'jax'.
    array : ndarray
        C-contiguous. It, and what it is a view of, is kept until the copy is over.
    hold : Hold, optional
        Keeps its pages locked as long.
    device, stream : object
        As the library has them.
    """
    made = library(name)
    kept = [array, hold]
    try:
        result, event = made.put(array, device, stream)
        if event is None:
            return result
        watcher().keep(event, kept)
    except BaseException:
        # Nothing that was begun may read the slot after it was given back.
        with suppress(Exception):
            made.synchronize(device)
        raise
    return result


def copy_from_device(made: Any, value: Any, target: NDArray[Any]) -> None:
    """Copy an array of a library into host memory, and wait until it is there."""
    event = None
    try:
        event = made.copy_back(value, target)
        if event is not None:
            event.wait()
    except BaseException:
        # Not a byte may come after a caller went on.
        with suppress(Exception):
            made.synchronize(getattr(value, "device", None))
        raise
