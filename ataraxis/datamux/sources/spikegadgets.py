"""Packets of SpikeGadgets' `.rec`, which neo 0.14 may take for shorter ones.

A packet has the samples of all channels of the hardware, unless only the channels that
were displayed were saved, and neo reckons with the channels that the header describes.
Every packet begins with one mark, which tells. Packets that the computer lost are
missing in the numbers of the others, at which neo does not look.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import RecordingError

_MARK = 0x55
_LOOKED_AT = 1000  # packets
_HEAD_END = b"</Configuration>"
_PER_CHIP = 32  # where the header does not say it
_ORDER = "_intan_hwchans_in_binary_order"  # of neo


def parsed_rec(kind: Any, path: Path) -> Any:
    """Return neo's reader of a file, with `ataraxis_packets`."""
    raw = kind(str(path))
    try:
        raw.parse_header()
    except KeyError:  # it seeks channels of the hardware that are not described
        raw = type(kind.__name__, (kind,), {_ORDER: _ascending})(str(path))
        raw.parse_header()
        raw.ataraxis_packets = Packets(raw, path, is_whole=True)
    else:
        raw.ataraxis_packets = Packets(raw, path)
    raw._raw_memmap = raw.ataraxis_packets.stored  # noqa: SLF001
    return raw


def _ascending(_raw: Any, config: Any, *_counts: int) -> list[int]:
    return sorted(int(own.attrib["hwChan"]) for trode in config for own in trode)


class Packets:
    """The packets of a file whose header neo has read; `is_whole`: of all channels."""

    def __init__(self, raw: Any, path: Path, is_whole: bool = False) -> None:
        self.stored: NDArray[np.uint8] = raw._raw_memmap  # noqa: SLF001
        self._stamp = int(raw._timestamp_byte)  # noqa: SLF001
        masks = raw._mask_channels_bytes  # noqa: SLF001
        self._places = {
            own: [int(np.flatnonzero(mask)[0]) for mask in masks[own]] for own in masks
        }
        head = _head_of(path)
        root = ElementTree.fromstring(head)
        config = {part.tag: part.attrib for part in root}
        saved = config.get("GlobalConfiguration", {}).get("saveDisplayedChanOnly")
        count = int(config["HardwareConfiguration"]["numChannels"])
        as_read = self.stored.shape[1]
        whole = as_read + 2 * (count - len(self._places.get("trodes", ())))
        content = np.memmap(path, "u1", "r")[len(head) :]
        if not content.size:
            return
        sizes = [whole, as_read] if saved == "0" else [as_read, whole]
        if is_whole:
            sizes = [whole]
        size = next((n for n in sizes if _are_marked(content, n)), 0)
        if not size:
            raise RecordingError(
                f"{path}: not packets of {' or '.join(map(str, sorted({*sizes})))} "
                f"bytes: they do not begin with {_MARK:#x}"
            )
        if size != as_read:
            channels = raw.header["signal_channels"]
            shown = channels["id"][channels["stream_id"] == "trodes"].astype(int)
            order = _order(config.get("SpikeConfiguration", {}), count, shown)
            self._places["trodes"] = [size - 2 * count + 2 * int(n) for n in order]
        self.stored = content[: len(content) // size * size].reshape(-1, size)

    def stamps(self) -> NDArray[np.uint32]:
        """Return the numbers of the packets; they are read when they are used."""
        at = self._stamp
        kind = [
            ("", "V", at),
            ("t", "<u4"),
            ("end", "V", self.stored.shape[1] - at - 4),
        ]
        numbers: NDArray[np.uint32] = self.stored.view(kind)["t"][:, 0]
        return numbers

    def rows_of(self, stream: str) -> Callable[[int, int, Any], NDArray[np.int16]]:
        """Return ``rows(start, stop, channels)`` of a stream."""
        places = self._places[stream]

        def rows(start: int, stop: int, chosen: Any) -> NDArray[np.int16]:
            part = self.stored[start:stop]
            wanted = places if chosen is None else [places[n] for n in chosen]
            first, count = min(wanted, default=0), len(wanted)
            if wanted == [*range(first, first + 2 * count, 2)]:
                beside = np.ascontiguousarray(part[:, first : first + 2 * count])
                return np.asarray(beside.view("<i2"), np.int16)
            out = np.empty((len(part), count), np.int16)
            for column, place in enumerate(wanted):
                own = np.ascontiguousarray(part[:, place : place + 2])
                out[:, column] = own.view("<i2")[:, 0]
            return out

        return rows


def _head_of(path: Path) -> bytes:
    """Return the text in front of the packets."""
    lines = []
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            if _HEAD_END in line:
                break
    return b"".join(lines)


def _are_marked(content: NDArray[np.uint8], size: int) -> bool:
    whole = len(content) // size * size
    marks = content[:whole:size]
    return bool(
        len(marks)
        and (marks[:_LOOKED_AT] == _MARK).all()
        and (marks[-_LOOKED_AT:] == _MARK).all()
    )


def _order(config: Any, count: int, channels: NDArray[Any]) -> NDArray[Any]:
    """Return the places of channels among those of the hardware.

    Chips of Intan are read in turn, each one's first channel first.
    """
    per_chip = int(config.get("chanPerChip", _PER_CHIP))
    is_intan = config.get("device") in (None, "intan")
    if not is_intan or not 0 < per_chip <= count or count % per_chip:
        return channels
    chips = count // per_chip
    return np.asarray(channels % per_chip * chips + channels // per_chip)
