"""The seed of a journal whose first page is lost, from the frames themselves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ataraxis.frame import HEADER_BYTES, crc32
from ataraxis.frame import MAGIC as FRAME_MAGIC
from ataraxis.log.journal_page import PAGE

_ENOUGH = 64
_ALIGN = 64


def seed_of_frames(data: Any) -> int | None:
    """Find what the header CRCs of most frames of a file go on from.

    A CRC is linear: that of a header differs from the CRC without a seed by something
    that depends on the seed alone, and can be undone.

    Parameters
    ----------
    data : bytes-like
        The file, its first page included.

    Returns
    -------
    int or None
        The seed that two headers or more agree on; None: there are none.
    """
    columns = _response()
    seeds: Counter[int] = Counter()
    for at in _magics(memoryview(data)):
        head = bytes(data[at : at + HEADER_BYTES])
        stored = int.from_bytes(head[60:], "little")
        seeds[_undone(stored ^ crc32(head[:60]), columns)] += 1
        seed, count = seeds.most_common(1)[0]
        if count >= _ENOUGH:
            return seed
    if not seeds:
        return None
    seed, count = seeds.most_common(1)[0]
    return seed if count >= 2 else None


def _magics(view: memoryview) -> Any:
    """Say where headers may begin."""
    step = 2**20
    for start in range(PAGE, len(view) - HEADER_BYTES + 1, step):
        words = np.frombuffer(
            view[start : start + min(step, (len(view) - start) // _ALIGN * _ALIGN)],
            "<u4",
        )
        found = np.flatnonzero(
            words[:: _ALIGN // 4] == int.from_bytes(FRAME_MAGIC, "little")
        )
        yield from (start + int(k) * _ALIGN for k in found)


def _response() -> list[tuple[int, int]]:
    """Say what each bit of a seed does to the CRC of 60 bytes, solved for the bits.

    Pairs of a pivot bit's column and the seed bits it is made of.
    """
    nothing = crc32(bytes(60), 0)
    rows: list[tuple[int, int]] = []
    for bit in range(32):
        effect, made = crc32(bytes(60), 1 << bit) ^ nothing, 1 << bit
        for other, how in rows:
            if effect ^ other < effect:
                effect, made = effect ^ other, made ^ how
        rows.append((effect, made))
        rows.sort(reverse=True)
    return rows


def _undone(effect: int, rows: list[tuple[int, int]]) -> int:
    seed = 0
    for column, made in rows:
        if effect ^ column < effect:
            effect, seed = effect ^ column, seed ^ made
    return seed
