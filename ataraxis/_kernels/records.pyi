from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

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
