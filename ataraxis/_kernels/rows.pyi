from typing import Any

from numpy.typing import NDArray

from ataraxis._kernels.send import ProducerKernel

class RowsKernel(ProducerKernel):
    def _send_rows(
        self, rows: NDArray[Any], time_ns: int, step_ns: int, timeout: float | None
    ) -> int: ...
