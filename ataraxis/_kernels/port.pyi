from collections import deque
from collections.abc import Coroutine
from typing import Any

from typing_extensions import disjoint_base

from ataraxis._kernels.get import Grip
from ataraxis._kernels.parcel import ParcelKernel

@disjoint_base
class PortKernel:
    _lane: int
    _sequence: int
    _has_got: bool
    _is_quick: bool
    _job: Any
    _values: deque[Any]
    def _plug(
        self,
        board: memoryview[int],
        words: dict[str, int],
        inbox: ParcelKernel | None,
        outbox: ParcelKernel | None,
    ) -> None: ...
    def _unplug(self, is_done: bool) -> None: ...
    def _accept(self, grip: Grip) -> None: ...
    def _pay(self) -> None: ...
    def emit(
        self, value: Any, dtype: Any = None, timeout: float | None = 0.5
    ) -> bool: ...
    def get(self, timeout: float | None = 5) -> Any: ...
    def _emitting(
        self, value: Any, d_type: Any = None
    ) -> Coroutine[Any, Any, bool]: ...
    def _emitting_sync(
        self, value: Any, d_type: Any = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, bool]: ...
    def _getting(self) -> Coroutine[Any, Any, Any]: ...
    def _getting_sync(self, timeout: float | None = 5) -> Coroutine[Any, Any, Any]: ...
