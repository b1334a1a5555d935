"""`Output`: what a worker prints, forwarded in whole lines that say whose they are."""

from __future__ import annotations

import sys
from contextlib import suppress


class Output:
    """Forwards the standard output and error of a worker; nothing is lost.

    Parameters
    ----------
    processor : str
        Whose worker it is.
    worker, workers : int
        Which, and of how many.
    """

    def __init__(self, processor: str, worker: int, workers: int) -> None:
        self._prefix = f"[{processor}] " if workers == 1 else f"[{processor}.{worker}] "
        self._rest = {False: b"", True: b""}

    def write(self, data: bytes, is_error: bool) -> None:
        """Take what came; the last line is kept until it is whole."""
        lines = (self._rest[is_error] + data).split(b"\n")
        self._rest[is_error] = lines.pop()
        self._show(lines, is_error)

    def close(self) -> None:
        """Show lines that never became whole."""
        for is_error, rest in self._rest.items():
            if rest:
                self._show([rest], is_error)
                self._rest[is_error] = b""

    def _show(self, lines: list[bytes], is_error: bool) -> None:
        stream = sys.stderr if is_error else sys.stdout
        if stream is None or not lines:
            return
        text = "".join(
            f"{self._prefix}{line.decode(errors='backslashreplace')}\n"
            for line in lines
        )
        # The program may have closed it.
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()
