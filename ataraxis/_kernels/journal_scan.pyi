from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

GOOD: int
LOST: int
BROKEN: int
CUT: int
DATA: int
CONTROL: int
DAMAGE: int

def list_entries(
    data: Any, start: int, stop: int, seed: int, stride: int, out: Any, verify: bool
) -> tuple[int, int]: ...
def list_runs(
    data: Any, start: int, stop: int, seed: int, out: Any
) -> tuple[int, int]: ...
def good_runs(data: Any, seed: int, start: int, size: int) -> int: ...
def check_entries(data: Any, table: Any) -> int: ...
def gather(data: Any, table: Any, out: NDArray[np.uint8], verify: bool) -> int: ...
def device_stamps(data: Any, table: Any, out: NDArray[np.int64]) -> int: ...
def summarize_frames(data: Buffer, numbers: NDArray[Any]) -> tuple[int, int, int]: ...

@disjoint_base
class Package:
    def __init__(
        self,
        source_id: Any,
        timestamp: Any = None,
        data: Any = None,
        *,
        time_stamp: Any = None,
        acquisition_time: Any = None,
        serialized_data: Any = None,
    ) -> None: ...
    @property
    def source(self) -> int: ...
    @property
    def stamp(self) -> int: ...
    @property
    def payload(self) -> NDArray[Any]: ...
