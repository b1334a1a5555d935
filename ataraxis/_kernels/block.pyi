from typing import Any

from typing_extensions import Buffer

from ataraxis._kernels.put import PutKernel

class BlockKernel(PutKernel):
    def _put_rows(
        self, rows: Any, template: Buffer, stamp: int, step: int, deadline: int
    ) -> tuple[int, int]: ...
