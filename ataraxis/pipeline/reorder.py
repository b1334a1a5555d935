"""`Resequencer`: frames of several workers, back in the order of their numbers.

Each lane has every number once, so what is missing is known, and nothing is guessed by
time. It holds what came too early; whoever starts values on their way is kept from
running ahead by more than the window (`window`).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import Any, Generic, Protocol, TypeVar


class Numbered(Protocol):
    """What can be put in order."""

    lane: int
    sequence: int


_J = TypeVar("_J", bound=Numbered)


class Resequencer(Generic[_J]):
    """Takes frames as they come, gives them in order, each once.

    Parameters
    ----------
    words : mutable sequence of int
        Where the next number of each lane is kept: of a board, or any list.
    place_of : callable
        Returns the word of a lane.

    Examples
    --------
    >>> from types import SimpleNamespace as Frame
    >>> line = Resequencer([0], lambda lane: 0)
    >>> line.push(Frame(lane=1, sequence=1)), line.pop()
    (True, None)
    >>> line.push(Frame(lane=1, sequence=0))
    True
    >>> first = line.pop()
    >>> line.passed(first)
    >>> first.sequence, line.pop().sequence
    (0, 1)
    """

    def __init__(self, words: MutableSequence[int] | Any, place_of: Any) -> None:
        self._words = words
        self._place_of = place_of
        self._places: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._early: dict[int, dict[int, _J]] = {}

    def __len__(self) -> int:
        """How many it holds."""
        return sum(map(len, self._early.values()))

    def push(self, frame: _J) -> bool:
        """Take a frame; False if its number has passed already, or is here."""
        lane = frame.lane
        place = self._places.get(lane)
        if place is None:
            place = self._places[lane] = self._place_of(lane)
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

    def passed(self, frame: _J) -> None:
        """Say that a frame is done with, for good: kept for whoever comes after us."""
        self._words[self._places[frame.lane]] = frame.sequence + 1

    def skip(self) -> int:
        """Go on without what is missing: how many numbers were passed over."""
        skipped = 0
        for lane, early in self._early.items():
            if early:
                first = min(early)
                skipped += first - self._next[lane]
                self._next[lane] = first
        return skipped

    def held(self) -> Iterator[_J]:
        """Go through what it holds."""
        for early in self._early.values():
            yield from early.values()


# ---- `DuplicateFilter`: which numbers of a lane have been here, in little memory

_PAGE = 4096
_KEPT = 1024


class DuplicateFilter:
    """A set of (lane, sequence) that grow, more or less: a bit each.

    The last four million numbers of a lane are remembered one by one; what is older
    than that counts as seen.

    Examples
    --------
    >>> seen = DuplicateFilter()
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
