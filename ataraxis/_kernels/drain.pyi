from typing import Any

from typing_extensions import disjoint_base

from ataraxis._kernels.get import GetKernel

@disjoint_base
class DrainKernel(GetKernel):
    def _drain(
        self, buffer: Any, at: int, seed: int, keeps: bool, deadline: int
    ) -> tuple[int, int, int, bytes | None, int | None]: ...
    def _release_drained(self, done: bool, first: int) -> int: ...
    @property
    def _drained(self) -> int: ...
