from typing import Any

from typing_extensions import disjoint_base

from ataraxis._kernels.queue_handle import QueueHandle
from ataraxis._kernels.records import RecordKernel

@disjoint_base
class Haul:
    def __init__(self, queue: QueueHandle) -> None: ...
    def lease(
        self, numbers: Any, most: int, timeout: float | None
    ) -> tuple[int, int, bool]: ...
    def record(self, file: RecordKernel) -> int: ...
