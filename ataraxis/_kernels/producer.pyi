from collections.abc import Callable
from typing import Any, Self, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.memory import Participant
from ataraxis._kernels.ring import Endpoint

_L = TypeVar("_L", bound=WriteLoan)

@disjoint_base
class ProducerHandle(Endpoint):
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
    def _leave(self) -> None: ...
    def _shut(self) -> None: ...
    def _take_short(self, counts_samples: bool) -> None: ...
    def _sum_with(self, crc: Callable[[memoryview], int]) -> None: ...
    def send(
        self,
        value: Any,
        *,
        timeout: float | None = None,
        device_time: int | None = None,
        device_sequence: int | None = None,
        time_ns: int | None = None,
        casting: str | None = None,
    ) -> bool: ...
    def _lend(self, kind: type[_L], timeout: float | None) -> _L | int: ...
    def _send_rows(
        self,
        rows: NDArray[Any],
        times: NDArray[np.int64],
        step_ns: int,
        device: NDArray[np.int64] | None,
        timeout: float | None,
    ) -> int: ...

@disjoint_base
class WriteLoan:
    def __new__(
        cls, producer: ProducerHandle, ticket: int, *args: Any, **kwargs: Any
    ) -> Any: ...
    @property
    def buffer_size(self) -> int: ...
    @property
    def _position(self) -> int: ...
    @property
    def _sequence(self) -> int: ...
    @property
    def _is_ours(self) -> bool: ...
    @property
    def _was_lent(self) -> bool: ...
    @property
    def _memory(self) -> SlotView: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def _put(self, offset: int, data: bytes | memoryview) -> None: ...
    def _clear(self, start: int, stop: int) -> None: ...
    def _get(self, start: int, stop: int) -> bytes: ...
    def _send(
        self,
        bytes: int,
        code: int,
        shape: tuple[int, ...],
        labels: int,
        device_time: int | None,
        device_sequence: int | None,
        time_ns: int | None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None: ...

@final
class SlotView:
    def __new__(cls, loan: WriteLoan) -> SlotView: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
