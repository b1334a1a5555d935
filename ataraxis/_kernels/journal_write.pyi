from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.consumer import ConsumerHandle
from ataraxis._kernels.queue_handle import QueueHandle

OK: int
FULL: int
TORN: int

@disjoint_base
class RecordKernel:
    def _open(
        self,
        fd: int,
        index_fd: int,
        at: int,
        index_at: int,
        limit: int,
        seed: int,
        capacity: int,
    ) -> None: ...
    def _rows(
        self,
        template: bytes,
        rows: NDArray[np.uint8],
        fronts: NDArray[np.uint8] | None,
        sequence: int,
        times: NDArray[np.int64] | None,
        time: int,
        step: int,
    ) -> tuple[int, int]: ...
    def _packed(
        self, data: Any, start: int, align: int, source: int, labels: int
    ) -> tuple[int, int, int]: ...
    def _flush(self) -> int: ...
    def _limit(self, limit: int) -> None: ...
    @property
    def _error(self) -> int: ...
    @property
    def _written(self) -> tuple[int, int]: ...
    @property
    def _waiting(self) -> tuple[int, int]: ...
    @property
    def _index_at(self) -> int: ...

def crc32(data: Any, value: int = 0) -> int: ...

EMPTY: int
ENDED: int
LAPPED: int
DAMAGED: int

@disjoint_base
class RingToFile:
    def __init__(
        self, consumer: ConsumerHandle, expected: int | None = None
    ) -> None: ...
    def wait(self, timeout: float | None) -> int: ...
    def record(
        self, file: RecordKernel, source: int, labels: int
    ) -> tuple[int, int, int]: ...
    def release(self) -> None: ...
    def stand_aside(self) -> None: ...
    @property
    def is_aside(self) -> bool: ...
    def complain(self) -> None: ...
    def accept(self) -> int: ...
    @property
    def found(self) -> int | None: ...
    @property
    def expected(self) -> int | None: ...
    @property
    def held(self) -> int: ...
    @property
    def skipped(self) -> int: ...

@disjoint_base
class QueueToFile:
    def __init__(self, queue: QueueHandle) -> None: ...
    def lease(
        self, numbers: Any, most: int, timeout: float | None
    ) -> tuple[int, int, bool]: ...
    def record(self, file: RecordKernel) -> int: ...
