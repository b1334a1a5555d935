from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ataraxis._kernels.participants import Participant

OK: int
BUSY: int
TIMEOUT: int
FULL: int
EMPTY: int
OVERFLOW: int
LOST: int

@disjoint_base
class Desk:
    @property
    def is_open(self) -> bool: ...
    def _open(
        self,
        memory: NDArray[np.uint8],
        participant: Participant,
        crc_of: Callable[..., int],
        checks: bool,
    ) -> bool: ...
    def _shut(self) -> None: ...
    def _await_idle(self, timeout: float | None) -> int: ...
    def _await_data(self, timeout: float | None) -> int: ...
    def _nudge(self) -> None: ...
    @property
    def _has_data(self) -> bool: ...
    @property
    def _has_room(self) -> bool: ...
    def _counts(self) -> tuple[int, int, int]: ...
    def _tallies(self) -> tuple[Any, ...]: ...
    @property
    def _geometry(self) -> tuple[int, int, int]: ...
    @property
    def _users(self) -> int: ...
