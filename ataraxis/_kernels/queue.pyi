from typing import Any

import numpy as np
from numpy.typing import NDArray

def control_bytes(slots: int, participants: int) -> int: ...
def describe(
    control: NDArray[Any] | NDArray[np.uint8],
    slots: int,
    stride: int,
    lease_ns: int,
    participants: int,
) -> None: ...
def note_large(control: NDArray[Any] | NDArray[np.uint8]) -> None: ...
def has_larges(control: NDArray[Any] | NDArray[np.uint8]) -> bool: ...
