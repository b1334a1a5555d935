"""View: a chunk without a copy, checked again when one is done with it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class View:
    """Lend a chunk of a frame buffer for the length of a ``with`` block.

    Made by ``FrameBufferClient.view``. What is computed inside counts only if the block
    ends without `FrameBufferTimeout`: the bytes may change under it.

    Parameters
    ----------
    find : callable
        Gives the live bytes, uint8, shape (bytes,).
    check : callable
        Raises if they are not the ones that were written.
    dtype, shape : dtype, tuple of int
        What to show them as.
    """

    def __init__(
        self,
        find: Callable[[], NDArray[np.uint8]],
        check: Callable[[NDArray[np.uint8]], None],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self._find = find
        self._check = check
        self._dtype = dtype
        self._shape = shape
        self._lent: list[NDArray[np.uint8]] = []

    def __enter__(self) -> NDArray[Any]:
        chunk = self._find()
        chunk.flags.writeable = False
        self._check(chunk)
        self._lent.append(chunk)
        return chunk.view(self._dtype).reshape(self._shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        chunk = self._lent.pop()
        # An error inside may be the doing of bytes that changed; who interrupts, or
        # ends the program, is not asked to wait for that.
        if error is None or isinstance(error, Exception):
            self._check(chunk)
