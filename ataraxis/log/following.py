"""Following a log that is being written: sleep until it grows, end with its writer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from ataraxis._kernels.memory import watch_open, watch_wait
from ataraxis.frame import Frame
from ataraxis.log.selection import LogSource

LONGEST_SLEEP_S = 0.5
CHUNK = 4096


def follow(
    source: LogSource, timeout: float | None, start: int, *, verify: bool = True
) -> Iterator[Frame]:
    """Iterate over the entries of a log, those to come included.

    Parameters
    ----------
    source : LogSource
        The log.
    timeout : float or None
        Longest wait for the next entry, s; then it ends.
    start : int
        Number of the first entry.
    verify : bool
        Whether checksums are looked at.
    """
    directory = source.path if source.path.is_dir() else source.path.parent
    watch = watch_open(os.fsencode(directory), True)
    since = time.monotonic()
    try:
        while True:
            # Asked before looking: what is written before it ends is seen by the look.
            was_live = source.is_live
            source.refresh()
            if start < len(source):
                stop = min(len(source), start + CHUNK)
                yield from source.frames(source.pick(range(start, stop)), verify=verify)
                start, since = stop, time.monotonic()
                continue
            # And after it: a writer that was between two files has the next one now.
            if not was_live and not source.is_live:
                return
            left = LONGEST_SLEEP_S
            if timeout is not None:
                left = min(left, since + timeout - time.monotonic())
                if left <= 0:
                    return
            if watch < 0 or watch_wait(watch, int(left * 1e9)) < 0:
                time.sleep(min(left, 0.02))
    finally:
        if watch >= 0:
            os.close(watch)
