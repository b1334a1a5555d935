"""LogContract: the behaviour of every layout of logs, as tests for a new layout."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ataraxis.log.archive import LogArchive
    from ataraxis.log.selection import LogSource

ONSET_US = 1_700_000_000_000_000


class Entry(NamedTuple):
    """One entry of a log."""

    source: int
    """Number of its source, 0 to 255."""
    stamp: int
    """Time, in the unit of the log."""
    payload: bytes
    """Content."""


class LogContract:
    """Tests of a layout that `LogArchive` reads.

    Subclass it in a test module and implement `write`; pytest runs the inherited tests.

    Examples
    --------
    >>> from ataraxis.log import JournalWriter
    >>> class TestJournal(LogContract):
    ...     def write(self, directory, entries):
    ...         with JournalWriter(directory) as journal:
    ...             for entry in entries:
    ...                 journal.log(entry.source, entry.payload, time_ns=entry.stamp)
    ...         return directory
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     TestJournal().test_entries_have_numbers(Path(directory))
    """

    def write(self, directory: Path, entries: list[Entry]) -> Path:
        """Write entries behind existing ones; return the path of the log.

        They are sorted by stamp; some stamps are equal.
        """
        raise NotImplementedError

    # ---- shared by the tests

    def entries(self, count: int = 60, start: int = 10) -> list[Entry]:
        """Make entries of three sources, of one size per source."""
        chance = random.Random(count + start)
        made, stamp = [], start
        for k in range(count):
            stamp += chance.randrange(3)
            source = chance.choice((3, 7, 200))
            made.append(
                Entry(source, stamp, (source * 1000 + k).to_bytes(source % 5 + 3))
            )
        return made

    def open(self, path: Path) -> tuple[LogArchive, LogSource]:
        """Return the archive of a log, and its backend."""
        from ataraxis.log.archive import LogArchive, open_source

        return LogArchive(path), open_source(path)

    def found(self, archive: LogArchive, numbers: Any) -> list[Entry]:
        """Read entries by their numbers."""
        selection = archive.select(numbers=np.asarray(numbers, np.int64))
        return [
            Entry(frame.source, time, bytes(frame.payload))
            for frame, time in zip(
                archive.entries(numbers=selection.numbers), selection.time.tolist(),
                strict=True,
            )
        ]  # fmt: skip

    def of_sources(self, entries: list[Entry]) -> dict[int, list[Entry]]:
        """Group entries by source, in their order."""
        return {
            source: [entry for entry in entries if entry.source == source]
            for source in sorted({entry.source for entry in entries})
        }

    # ---- the tests

    def test_every_entry_is_there_once(self, tmp_path: Path) -> None:
        """All are read back with source, stamp and bytes, in order per source."""
        entries = self.entries()
        archive, _ = self.open(self.write(tmp_path, entries))
        found = self.found(archive, range(len(archive)))
        assert len(archive) == len(entries)
        assert self.of_sources(found) == self.of_sources(entries)
        assert sorted(archive.sources) == sorted({entry.source for entry in entries})
        assert archive.problems == []
        archive.close()

    def test_entries_have_numbers(self, tmp_path: Path) -> None:
        """Numbers start at 0; negative ones count from the end."""
        archive, _ = self.open(self.write(tmp_path, self.entries()))
        whole = [bytes(frame.payload) for frame in archive]
        assert [bytes(archive[k].payload) for k in range(len(whole))] == whole
        assert bytes(archive[-1].payload) == whole[-1]
        assert [bytes(frame.payload) for frame in archive[5:50:7]] == whole[5:50:7]
        numbers = [9, 3, 3, 41]
        assert [e.payload for e in self.found(archive, numbers)] == [
            whole[k] for k in numbers
        ]
        for wrong in (len(whole), -len(whole) - 1):
            _raises(IndexError, partial(archive.__getitem__, wrong))
        archive.close()

    def test_sequences_count_within_a_source(self, tmp_path: Path) -> None:
        """Sequence numbers of each source count from 0."""
        archive, _ = self.open(self.write(tmp_path, self.entries()))
        for source in archive.sources:
            found = archive.select(source)
            assert found.sequence.tolist() == list(range(len(found)))
        archive.close()

    def test_entries_are_found_by_source_and_time(self, tmp_path: Path) -> None:
        """A range of time includes its start but not its stop; both are optional."""
        entries = self.entries()
        archive, _ = self.open(self.write(tmp_path, entries))
        chance = random.Random(1)
        last = entries[-1].stamp
        for _ in range(40):
            source = chance.choice((None, 3, 7, 200, 99))
            start = chance.choice((None, chance.randrange(last + 5)))
            stop = chance.choice((None, chance.randrange(last + 5)))
            found = archive.select(source, start, stop)
            wanted = [
                entry
                for entry in entries
                if source in (None, entry.source)
                and (start is None or entry.stamp >= start)
                and (stop is None or entry.stamp < stop)
            ]
            assert sorted(self.found(archive, found.numbers)) == sorted(wanted)
            assert np.all(np.diff(found.numbers) > 0)
            part = found[2:5]
            assert part.numbers.tolist() == found.numbers[2:5].tolist()
        archive.close()

    def test_what_is_alike_is_one_array(self, tmp_path: Path) -> None:
        """Entries of a source are read as rows, in any order; other kinds raise."""
        entries = self.entries()
        archive, _ = self.open(self.write(tmp_path, entries))
        for source, own in self.of_sources(entries).items():
            block = archive.read(source)
            rows = [np.frombuffer(entry.payload, "u1") for entry in own]
            assert np.array_equal(block.data, np.stack(rows))
            assert block.time.tolist() == [entry.stamp for entry in own]
            numbers = archive.select(source).numbers[::-1]
            again = archive.read(numbers=numbers)
            assert np.array_equal(again.data, block.data[::-1])
        _raises(ValueError, archive.read)
        _raises(ValueError, lambda: archive.read(3, start=10**9))
        archive.close()

    def test_batches_are_everything_once(self, tmp_path: Path) -> None:
        """Workers that open the log themselves read every entry once."""
        entries = self.entries()
        path = self.write(tmp_path, entries)
        archive, _ = self.open(path)
        for n in (1, 4, 7, 1000):
            batches = archive.batches(n)
            assert len(batches) <= n
            assert all(len(batch) for batch in batches)
            found = []
            for batch in batches:
                worker, _ = self.open(path)
                found += self.found(worker, batch)
                worker.close()
            assert sorted(found) == sorted(entries)
        own = self.of_sources(entries)[7]
        parts = [archive.read(numbers=batch).data for batch in archive.batches(3, 7)]
        assert sum(map(len, parts)) == len(own)
        archive.close()

    def test_extents_are_the_entries_of_a_source(self, tmp_path: Path) -> None:
        """Ranges of numbers, in order and not adjacent."""
        archive, source = self.open(self.write(tmp_path, self.entries()))
        for number in (*archive.sources, 99):
            ranges = source.extents(number)
            numbers = [k for first, last in ranges.tolist() for k in range(first, last)]
            assert numbers == archive.select(number).numbers.tolist()
            assert np.all(ranges[:, 0] < ranges[:, 1])
            assert np.all(ranges[1:, 0] > ranges[:-1, 1])
        source.close()
        archive.close()

    def test_what_is_added_has_numbers_behind(self, tmp_path: Path) -> None:
        """Existing numbers do not change when entries are added."""
        first, more = self.entries(40), self.entries(30, start=10**4)
        path = self.write(tmp_path, first)
        archive, _ = self.open(path)
        known = self.found(archive, range(40))
        assert not archive.refresh()
        assert self.write(tmp_path, more) == path
        assert archive.refresh()
        assert len(archive) == 70
        assert self.found(archive, range(40)) == known
        rest = self.found(archive, range(40, 70))
        assert self.of_sources(rest) == self.of_sources(more)
        archive.close()

    def test_messages_count_from_the_onset(self, tmp_path: Path) -> None:
        """LogArchiveReader's methods: stamps are UTC, batches are of messages."""
        onset = Entry(7, 0, ONSET_US.to_bytes(8, "little"))
        entries = [Entry(7, 1000 * k, b"%03d" % k) for k in range(1, 30)]
        archive, source = self.open(self.write(tmp_path, [onset, *entries]))
        scale = 1000 if source.unit == "ns" else 1
        assert archive.onset_timestamp_us == ONSET_US
        assert archive.message_count == len(entries)
        stamps, payloads = archive.read_all_messages()
        assert stamps.tolist() == [ONSET_US + e.stamp // scale for e in entries]
        assert [bytes(payload) for payload in payloads] == [e.payload for e in entries]
        (batch,) = archive.get_batches(4)
        assert [bytes(m.payload) for m in archive.iter_messages(batch[5:8])] == [
            entry.payload for entry in entries[5:8]
        ]
        archive.close()
        source.close()


def _raises(kind: type[Exception], call: Callable[[], Any]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")
