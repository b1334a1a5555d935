from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.send import ProducerKernel

class RowsKernel(ProducerKernel):
    def _send_rows(
        self,
        rows: NDArray[Any],
        times: NDArray[np.int64],
        step_ns: int,
        device: NDArray[np.int64] | None,
        timeout: float | None,
    ) -> int: ...
