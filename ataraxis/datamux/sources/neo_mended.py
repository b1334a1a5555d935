"""What readers of neo 0.14 leave wrong: samples as zeros, files and threads left open.

Plexon: the last block is given as zeros, and blocks of unequal lengths at wrong
places. TDT: samples that a cut file lacks are given as zeros. Each is mended by the
reader's own index of blocks, which it keeps to itself.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import RecordingError

OPTIONS: dict[str, dict[str, Any]] = {
    "PlexonRawIO": {"progress_bar": False},  # its bar leaves a thread
}
"""Options of readers."""


def folder_argument(name: str, path: Path) -> Path:
    """Return what a reader of folders takes: of a block of TDT, a file in it."""
    if name == "TdtRawIO":
        return next((own for own in sorted(path.glob("*.[tT][sS][qQ]"))), path)
    return path


def check_whole(raw: Any, path: Path) -> None:
    """Raise `RecordingError` if a reader would give zeros for samples not there.

    Also warns of channels that it left out, and closes the reader's files when it is
    not used any more.
    """
    weakref.finalize(raw, _close, vars(raw))
    for empty in getattr(raw, "_empty_ncs", ()):
        warnings.warn(f"{empty} has no samples: left out", RuntimeWarning, stacklevel=2)
    for segment, channels in getattr(raw, "_sigs_index", {}).items():
        for channel, index in channels.items():
            there = len(raw._sigs_data_buf[segment][channel])  # noqa: SLF001
            needed = int((index["offset"] + (index["size"] - 10) * 4).max(initial=0))
            if needed > there:
                raise RecordingError(
                    f"{path}: cut: its index needs {needed} bytes of samples, found "
                    f"{there}"
                )


def _close(kept: dict[str, Any]) -> None:
    for file in kept.get("_nsx_fids", {}).values():
        file.close()


def reader_of_blocks(
    raw: Any, number: int
) -> Callable[[int, int, Any], NDArray[Any]] | None:
    """Return ``rows(start, stop, channels)`` of a reader that has to be mended."""
    if type(raw).__name__ != "PlexonRawIO":
        return None
    header = raw.header
    own = header["signal_streams"][number]["id"]
    channels = header["signal_channels"][header["signal_channels"]["stream_id"] == own]
    kept = raw._data_blocks[5]  # noqa: SLF001
    blocks = [kept[int(channel)] for channel in channels["id"]]
    edges = [np.append(0, np.cumsum(each["size"] // 2)) for each in blocks]

    def rows(start: int, stop: int, chosen: Any) -> NDArray[Any]:
        numbers = range(len(blocks)) if chosen is None else chosen
        out = np.empty((stop - start, len(numbers)), np.int16)
        for column, channel in enumerate(numbers):
            edge = edges[channel]
            first = int(np.searchsorted(edge, start, "right")) - 1
            last = int(np.searchsorted(edge, stop, "left"))
            for at in range(first, last):
                place = int(blocks[channel]["pos"][at])
                begin, end = max(start, edge[at]), min(stop, edge[at + 1])
                stored = raw._memmap[  # noqa: SLF001
                    place + 2 * (begin - edge[at]) : place + 2 * (end - edge[at])
                ]
                out[begin - start : end - start, column] = stored.view(np.int16)
        return out

    return rows
