from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.memory import Participant
from ataraxis._kernels.turn import Turn

@disjoint_base
class ProducerKernel(Turn):
    _on_full: int
    cancel_event: Any
    def _open(
        self,
        memory: NDArray[np.uint8],
        participant: Participant,
        dtype: np.dtype[Any] | None,
        shape: tuple[int, ...],
        code: int,
        labels: int,
        source: int,
    ) -> bool: ...
    def _shut(self) -> None: ...
    def _sum_with(self, crc: Callable[[memoryview], int]) -> None: ...
    def send(
        self,
        value: Any,
        *,
        timeout: float | None = None,
        device_time: int | None = None,
        device_sequence: int | None = None,
        time_ns: int | None = None,
    ) -> bool: ...
    def _claim(self, timeout: float | None) -> int: ...
