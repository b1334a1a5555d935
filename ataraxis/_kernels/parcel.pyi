from typing import Any

from typing_extensions import disjoint_base

from ataraxis._kernels.drain import DrainKernel
from ataraxis._kernels.get import Grip

class ParcelKernel(DrainKernel):
    def _post(
        self,
        value: Any,
        code: int,
        lane: int,
        sequence: int,
        part: int,
        overlap: int,
        source: int,
        time_ns: int,
        deadline: int,
    ) -> int: ...
    def _fetch(self, deadline: int) -> Parcel | Grip | int: ...

@disjoint_base
class Parcel:
    @property
    def value(self) -> Any: ...
    @property
    def lane(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def overlap(self) -> int: ...
    @property
    def source(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def id(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    def acknowledge(self) -> bool: ...
    def give_back(self) -> bool: ...
