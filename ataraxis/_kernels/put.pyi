from collections.abc import Iterable
from typing import Any

from typing_extensions import disjoint_base

from ataraxis._kernels.desk import Desk

@disjoint_base
class PutKernel(Desk):
    _packs: bool
    def put(
        self,
        obj: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        source: int = 0,
        time_ns: int | None = None,
        device_time: int | None = None,
        device_sequence: int | None = None,
    ) -> None: ...
    def _put_frame(self, frame: bytes, numbered: bool, deadline: int) -> int: ...
    def _put_ticket(
        self, name: bytes, payload: int, numbered: bool, deadline: int
    ) -> int: ...
    def _put_many(
        self,
        values: Iterable[Any],
        pack: bool,
        deadline: int,
        source: int,
        time_ns: int | None,
    ) -> tuple[int, int]: ...
