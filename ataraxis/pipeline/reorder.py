"""`Resequencer`: puts the frames of several workers back into order.

Each lane has every number once, so a missing frame is known without a timeout. Frames
that come early are kept; the ordering window (`Outbox.in_window`) limits how many.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Any, Generic, Protocol, TypeVar


class Numbered(Protocol):
    """A frame that can be put in order."""

    lane: int
    sequence: int


_J = TypeVar("_J", bound=Numbered)


class Resequencer(Generic[_J]):
    """Takes frames as they come, returns them in order, each once.

    Parameters
    ----------
    words : mutable sequence of int
        Holds the next number of each lane: the words of a board, or any list.
    word_of : callable
        Returns the index of a lane's word.

    Examples
    --------
    >>> from types import SimpleNamespace as Frame
    >>> frames = Resequencer([0], lambda lane: 0)
    >>> frames.push(Frame(lane=1, sequence=1)), frames.pop()
    (True, None)
    >>> frames.push(Frame(lane=1, sequence=0))
    True
    >>> first = frames.pop()
    >>> frames.finish(first)
    >>> first.sequence, frames.pop().sequence
    (0, 1)
    """

    def __init__(
        self, words: MutableSequence[int] | Any, word_of: Callable[[int], int]
    ) -> None:
        self._words = words
        self._word_of = word_of
        self._places: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._early: dict[int, dict[int, _J]] = {}

    def __len__(self) -> int:
        """Return how many frames it holds."""
        return sum(map(len, self._early.values()))

    def push(self, frame: _J) -> bool:
        """Take a frame; False if its number was returned already, or is here."""
        lane = frame.lane
        place = self._places.get(lane)
        if place is None:
            place = self._places[lane] = self._word_of(lane)
            self._next[lane] = self._words[place]
            self._early[lane] = {}
        early = self._early[lane]
        if frame.sequence < self._next[lane] or frame.sequence in early:
            return False
        early[frame.sequence] = frame
        return True

    def pop(self) -> _J | None:
        """Return the next frame of a lane that has it, or None."""
        for lane, early in self._early.items():
            if early:
                frame = early.pop(self._next[lane], None)
                if frame is not None:
                    self._next[lane] += 1
                    return frame
        return None

    def finish(self, frame: _J) -> None:
        """Store that a frame is done, for the next process of this worker."""
        self._words[self._places[frame.lane]] = frame.sequence + 1

    def skip_done(self, first_missing: Callable[[int], int]) -> bool:
        """Continue after numbers that will not come; return whether there were any.

        `first_missing` returns the first number of a lane that may come.
        """
        has_moved = False
        for lane, early in self._early.items():
            if early:
                first = min(first_missing(lane), min(early))
                has_moved |= first > self._next[lane]
                self._next[lane] = max(first, self._next[lane])
        return has_moved

    def skip(self) -> None:
        """Continue without the missing numbers."""
        for lane, early in self._early.items():
            if early:
                self._next[lane] = min(early)


# ---- `DuplicateFilter`: which numbers of a lane were seen, in little memory

_PAGE = 4096
_KEPT = 1024


class DuplicateFilter:
    """A set of (lane, sequence), for sequences that mostly grow: a bit each.

    The last four million numbers of a lane are kept; older ones count as seen.

    Examples
    --------
    >>> seen = DuplicateFilter()
    >>> [seen.add(1, 7), seen.add(1, 5), seen.add(1, 7), seen.add(2, 7)]
    [True, True, False, True]
    """

    def __init__(self) -> None:
        self._pages: dict[int, dict[int, bytearray | None]] = {}
        self._oldest: dict[int, int] = {}

    def first_missing(self, lane: int) -> int:
        """Return the smallest number of a lane that was not added.

        Examples
        --------
        >>> seen = DuplicateFilter()
        >>> _ = [seen.add(1, k) for k in (0, 1, 3)]
        >>> seen.first_missing(1), seen.first_missing(2)
        (2, 0)
        """
        pages = self._pages.get(lane, {})
        number = self._oldest.get(lane, 0)
        while number in pages:
            page = pages[number]
            if page is not None:
                for at, bits in enumerate(page[:-2]):
                    if bits != 0xFF:
                        free = (~bits & (bits + 1)).bit_length() - 1
                        return number * _PAGE + 8 * at + free
            number += 1
        return number * _PAGE

    def add(self, lane: int, sequence: int) -> bool:
        """Add a number; False if it was added before."""
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
        # The last two bytes count the numbers of the page; a full one needs no bits.
        count = int.from_bytes(page[-2:], "little") + 1
        if count == _PAGE:
            pages[number] = None
        else:
            page[-2:] = count.to_bytes(2, "little")
        return True
