from typing import Any

import numpy as np
from numpy.typing import NDArray

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
