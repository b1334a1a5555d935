"""Control: a private copy of a stream's control words, as layout.h draws them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

# Where layout.h has the words, in bytes of the control block; a test compares them.
STREAM = {
    "slots": 0, "stride": 8, "capacity": 16, "control_stride": 24, "participants": 32,
    "flags": 36, "tail": 128, "sent": 256, "sent_bytes": 264, "last_ns": 272,
    "stalled_ns": 280, "stalled_since_ns": 288, "refused": 296, "skipped": 304,
    "gaps": 312, "producers": 384, "readers": 512, "durables": 640, "drained": 648,
}  # fmt: skip
READER = {
    "cursor": 0, "policy": 8, "owner": 12, "received": 16, "dropped": 24, "joined": 32,
    "detached_ns": 40, "timeout_ns": 48, "last_ns": 56, "name": 64,
}  # fmt: skip
STREAM_BYTES, READER_BYTES, DURABLES = 1280, 128, 16
COUNTS = (
    "tail", "sent", "sent_bytes", "last_ns", "stalled_ns", "stalled_since_ns",
    "refused", "skipped", "gaps", "drained",
)  # fmt: skip
_GATING, _DETACHED = 1, 2
Entry: TypeAlias = tuple[Any, ...]


class Control:
    """A private copy of a control block; nothing it says changes any more.

    Parameters
    ----------
    words : list of int
        The block as 64-bit words, up to the end of the readers' lines.
    names : list of bytes
        The name in each reader's line.
    participants : int
        How many may take part.
    """

    def __init__(self, words: list[int], names: list[bytes], participants: int) -> None:
        self._words = words
        self._names = names
        self._participants = participants

    def word(self, name: str) -> int:
        """Return a 64-bit word of the stream."""
        return self._words[STREAM[name] // 8]

    def half(self, name: str) -> int:
        """Return a 32-bit word of the stream."""
        return _half(self._words, STREAM[name])

    def members(self, name: str) -> list[int]:
        """Participants whose bit is set."""
        first = STREAM[name] // 8
        return [
            slot
            for slot in range(self._participants)
            if self._words[first + slot // 64] >> slot % 64 & 1
        ]

    def readers(self, is_alive: Callable[[int], bool]) -> list[Entry]:
        """Readers without a durable name, that live."""
        return [
            self._entry(slot, slot, False)
            for slot in self.members("readers")
            if is_alive(slot)
        ]

    def durables(self, is_alive: Callable[[int], bool]) -> list[Entry]:
        """Durable readers, here or away."""
        found = []
        for k in range(DURABLES):
            if not self.word("durables") >> k & 1:
                continue
            line = self._participants + k
            owner = _half(self._words, self._start(line) + READER["owner"])
            slot = owner - 1 if 0 < owner <= self._participants else None
            entry = self._entry(line, slot, True)
            if entry[2] == _GATING and (slot is None or not is_alive(slot)):
                # Dead, and nobody has noticed yet: away since now.
                entry = (None, True, _DETACHED, *entry[3:8], 1 << 63, *entry[9:])
            found.append(entry)
        return found

    def _start(self, line: int) -> int:
        return STREAM_BYTES + line * READER_BYTES

    def _entry(self, line: int, slot: int | None, is_durable: bool) -> Entry:
        """Return a reader's line in the order of `survey.readers`."""
        start = self._start(line)
        cursor, received, dropped, joined, detached, timeout = (
            self._words[(start + READER[name]) // 8]
            for name in (
                "cursor", "received", "dropped", "joined", "detached_ns", "timeout_ns"
            )
        )  # fmt: skip
        policy = _half(self._words, start + READER["policy"])
        name = self._names[line].split(b"\0")[0]
        return (
            slot, is_durable, cursor & 3, cursor >> 2, policy, received, dropped,
            joined, detached, timeout, name,
        )  # fmt: skip


def _half(words: list[int], offset: int) -> int:
    """Return a 32-bit word of a little-endian file."""
    return words[offset // 8] >> offset % 8 * 8 & 0xFFFFFFFF
