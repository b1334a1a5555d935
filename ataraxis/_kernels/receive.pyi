from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.lend import Frame, Lender
from ataraxis._kernels.memory import Participant

OK: int
BUSY: int
TIMEOUT: int
FULL: int
EMPTY: int
ENDED: int
OVERFLOW: int
LAPPED: int

@disjoint_base
class ConsumerKernel(Lender):
    cancel_event: Any
    _verifies: bool
    def _open(
        self,
        memory: NDArray[np.uint8],
        participant: Participant,
        dtype: np.dtype[Any] | None,
        policy: int,
        from_oldest: bool,
        durable: int,
    ) -> bool: ...
    def receive(
        self,
        blocking: bool = True,
        *,
        timeout: float | None = None,
        minimum_ts: int | None = None,
    ) -> Frame | None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __next__(self) -> Frame: ...
    def _await(self, timeout: float | None) -> int: ...
    @property
    def _has_next(self) -> bool: ...
    @property
    def _is_live(self) -> bool: ...
    def _read_into(
        self,
        out: NDArray[Any],
        times: NDArray[np.int64] | None,
        start: int,
        timeout: float | None,
    ) -> tuple[int, int]: ...
    def _latest_into(self, out: NDArray[Any], times: NDArray[np.int64]) -> int: ...
    @property
    def _words(self) -> tuple[int, int, int, int, int | None]: ...
