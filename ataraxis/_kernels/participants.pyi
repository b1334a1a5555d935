from typing_extensions import disjoint_base

from ataraxis._kernels.mapping import Mapping

@disjoint_base
class Participant:
    def __new__(
        cls,
        mapping: Mapping,
        descriptor: int,
        dev: int,
        ino: int,
        path: bytes,
        kind: int,
        slots: int,
        control: int,
        role: int,
        label: bytes,
        home: bytes | None = None,
    ) -> Participant: ...
    @property
    def slot(self) -> int: ...
    @property
    def is_inherited(self) -> bool: ...
    @property
    def recoveries(self) -> int: ...
    @property
    def descriptor(self) -> int: ...
    def take_recovered(self) -> int: ...
    def sweep(self) -> int: ...

def byte_held(descriptor: int, slot: int) -> int: ...
def anybody(descriptor: int, slots: int) -> int: ...
def unlink(
    descriptor: int, directory: int, name: bytes, slots: int, force: bool
) -> int: ...
