from typing_extensions import disjoint_base

from ataraxis._kernels.participants import Participant

@disjoint_base
class Will:
    def __new__(cls, participant: Participant, path: bytes) -> Will: ...
    def revoke(self) -> None: ...
