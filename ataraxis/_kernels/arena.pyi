from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

from ataraxis._kernels.memory import Participant

def control_bytes(chunks: int, participants: int) -> int: ...
def describe(
    control: NDArray[Any] | NDArray[np.uint8],
    chunks: int,
    bytes: int,
    participants: int,
) -> None: ...
def chunk_bytes(bytes: int) -> int: ...

@disjoint_base
class Arena:
    def __new__(cls, memory: NDArray[np.uint8], participant: Participant) -> Arena: ...
    @property
    def capacity(self) -> int: ...
    @property
    def used(self) -> int: ...
    def sweep(self) -> int: ...

@final
class Chunk(Buffer):
    def __len__(self) -> int: ...
