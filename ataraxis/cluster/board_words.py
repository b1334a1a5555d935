"""Words of a status board that another host's board shall have, too.

A run has a board on each of its hosts. A word has one writer, on one host: the words of
a worker, and the lanes that its processor puts in order, are written where it runs; all
others on the run's own host.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ataraxis.errors import BadMessage
from ataraxis.pipeline.board import (
    BEGAN_NS,
    HOST,
    LANES,
    LAST_NS,
    MOST_LANES,
    PROCESSOR,
    RESTARTS,
    STATE,
    TAKEN,
    WORKER,
    StatusBoard,
)

Pairs = list[list[int]]


class BoardWords:
    """The words that were changed since the last look, of those that a side writes.

    Parameters
    ----------
    board : StatusBoard
        The board of this host.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._mine = np.zeros(len(board.array), np.bool_)
        self._last = board.array.copy()

    def set_mine(self, rows: Iterable[int], lanes: Iterable[int]) -> None:
        """Send the words of these workers, and the lanes of these processors."""
        board, mine = self._board, np.zeros_like(self._mine)
        for row in rows:
            first = board.of_worker(row)
            mine[first : first + WORKER] = True
            mine[[first + RESTARTS, first + HOST]] = False
        for index in lanes:
            first = board.of_processor(index) + LANES
            mine[first : first + 2 * MOST_LANES] = True
        self._mine = mine

    def set_others(self, lanes: Iterable[int]) -> None:
        """Send what the run's own host writes: all but these lanes, and hosts."""
        board, mine = self._board, np.zeros_like(self._mine)
        mine[[STATE, TAKEN]] = True
        mine[board.of_worker(0) + HOST :: WORKER] = True
        mine[board.of_processor(0) : board.of_worker(0)] = True
        for index in lanes:
            first = board.of_processor(index) + LANES
            mine[first : first + 2 * MOST_LANES] = False
        self._mine = mine

    def changed(self) -> Pairs:
        """Return index and value of each word that was changed."""
        found = self._board.array.copy()
        where = np.flatnonzero((found != self._last) & self._mine)
        self._last = found
        return [[int(k), int(found[k])] for k in where]

    def lanes_of(self, index: int) -> Pairs:
        """Return the words of the lanes that a processor puts in order."""
        first = self._board.of_processor(index) + LANES
        words = self._board.words[first : first + 2 * MOST_LANES].tolist()
        return [[first + k, value] for k, value in enumerate(words) if any(words)]

    def whole(self) -> Pairs:
        """Return index and value of every word that is not 0, those of others too."""
        found = self._board.array.copy()
        return [[int(k), int(found[k])] for k in np.flatnonzero(found)]


def write_words(board: StatusBoard, pairs: Pairs, shift_ns: int = 0) -> bool:
    """Write words of another host; return whether a lane has moved.

    Parameters
    ----------
    board : StatusBoard
        The board of this host.
    pairs : list of [int, int]
        Index and value of each word.
    shift_ns : int
        What is added to words that hold a time, ns: the other host's clock is another.

    Raises
    ------
    BadMessage
        A word is outside of the board, or not an integer.
    """
    words, has_moved = board.words, False
    first_row, first_processor = board.of_worker(0), board.of_processor(0)
    # From the end: the number of a new lane is there before the lane.
    for pair in reversed(pairs):
        at, value = pair
        if type(at) is not int or type(value) is not int or not 0 <= at < len(words):
            raise BadMessage(f"{pair!r:.60} is not a word of the board")
        if at >= first_row:
            if value and (at - first_row) % WORKER in (BEGAN_NS, LAST_NS):
                value += shift_ns
        elif at >= first_processor:
            has_moved |= (at - first_processor) % PROCESSOR >= LANES
        words[at] = value
    return has_moved
