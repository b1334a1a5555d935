"""`Seen`: which numbers of a lane have been here, in little memory."""

from __future__ import annotations

_PAGE = 4096
_KEPT = 1024


class Seen:
    """A set of (lane, sequence) that grow, more or less: a bit each.

    The last four million numbers of a lane are remembered one by one; what is older
    than that counts as seen.

    Examples
    --------
    >>> seen = Seen()
    >>> [seen.add(1, 7), seen.add(1, 5), seen.add(1, 7), seen.add(2, 7)]
    [True, True, False, True]
    """

    def __init__(self) -> None:
        self._pages: dict[int, dict[int, bytearray | None]] = {}
        self._oldest: dict[int, int] = {}

    def add(self, lane: int, sequence: int) -> bool:
        """Remember a number; False if it was here before."""
        pages = self._pages.setdefault(lane, {})
        number, bit = divmod(sequence, _PAGE)
        if number < self._oldest.get(lane, 0):
            return False
        page = pages.get(number, b"")
        if page is None:
            return False
        if isinstance(page, bytes):
            page = pages[number] = bytearray(_PAGE // 8 + 2)
            if len(pages) > _KEPT:
                oldest = min(pages)
                del pages[oldest]
                self._oldest[lane] = oldest + 1
        at, mask = bit >> 3, 1 << (bit & 7)
        if page[at] & mask:
            return False
        page[at] |= mask
        # How many of the page there are; a full one needs no bits.
        count = int.from_bytes(page[-2:], "little") + 1
        if count == _PAGE:
            pages[number] = None
        else:
            page[-2:] = count.to_bytes(2, "little")
        return True
