from typing import Any

from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

def survey(data: Buffer, numbers: NDArray[Any]) -> tuple[int, int, int]: ...

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
