from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.lock import LockHandle
from ataraxis._kernels.memory import Participant

@disjoint_base
class ArrayKernel(LockHandle):
    def _open(
        self,
        memory: NDArray[np.uint8],
        participant: Participant,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None: ...
    def _shut(self) -> None: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def add(self, index: Any, amount: Any) -> Any: ...
    def _fetch_into(self, out: NDArray[Any]) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
