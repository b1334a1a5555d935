from collections.abc import Sequence

from typing_extensions import disjoint_base

from ataraxis._kernels.receive import ConsumerKernel

@disjoint_base
class Bell:
    @property
    def count(self) -> int: ...
    def ring(self) -> None: ...

def wait_any(
    consumers: Sequence[ConsumerKernel], bell: Bell, seen: int, seconds: float
) -> list[bool]: ...
