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
        Gives the live bytes, uint8, shape (bytes,), and a function that raises if they
        are not, or since then were not, the ones that were written.
    dtype, shape : dtype, tuple of int
        What to show them as.
    """

    def __init__(
        self,
        find: Callable[[], tuple[NDArray[np.uint8], Callable[[], None]]],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self._find = find
        self._dtype = dtype
        self._shape = shape
        self._checks: list[Callable[[], None]] = []

    def __enter__(self) -> NDArray[Any]:
        chunk, check = self._find()
        chunk.flags.writeable = False
        check()
        self._checks.append(check)
        return chunk.view(self._dtype).reshape(self._shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        check = self._checks.pop()
        # An error inside may be the doing of bytes that changed; who interrupts, or
        # ends the program, is not asked to wait for that.
        if error is None or isinstance(error, Exception):
            check()
