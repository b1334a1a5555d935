"""Dead letters: values that could not be processed, in a journal with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ataraxis.frame import Frame, Origin

if TYPE_CHECKING:
    from ataraxis.log.journal.writer import JournalWriter
    from ataraxis.pipeline.inbox import Job


class DeadLetterStore:
    """Writes the dead letters of a worker to a journal, created with the first one.

    Each entry is a dict: ``run``, ``processor``, ``worker``, ``why``, ``lane``,
    ``sequence``, and ``frame``, the bytes of a whole frame as `Frame.from_buffer` reads
    them.
    """

    def __init__(self, directory: str, run: str, processor: str, worker: int) -> None:
        self._directory = Path(directory)
        self._about = {"run": run, "processor": processor, "worker": worker}
        self._journal: JournalWriter | None = None

    def write(self, job: Job | None, why: str, data: bytes | None = None) -> str:
        """Write a job, or the bytes of a frame; return the directory."""
        if data is None and job is not None:
            data = _frame_of(job)
        entry: dict[str, Any] = {**self._about, "why": why, "frame": data or b""}
        if job is not None:
            entry.update(lane=job.lane, sequence=job.sequence)
        self.keep(entry)
        return str(self._directory)

    def keep(self, entry: dict[str, Any]) -> None:
        """Write an entry as it is, also one of another host."""
        if self._journal is None:
            from ataraxis.log.journal.writer import JournalWriter

            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = f"dead-letters-{self._about['processor']}-{os.getpid()}"
            self._journal = JournalWriter(self._directory, name)
        self._journal.log(0, entry)
        self._journal.flush()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _frame_of(job: Job) -> bytes:
    from ataraxis.pipeline.inbox import data_of

    if len(job.leases) == 1:
        return data_of(job.leases[0])
    origin = Origin(job.lane, job.sequence)
    return Frame.from_value(job.value, origin=origin).to_bytes()


@dataclass(frozen=True)
class DeadLetter:
    """A value that was not processed."""

    processor: str
    """The processor that could not process it."""
    worker: int
    """Which of its workers, from 0."""
    why: str
    """The exception, or how the value ended its workers."""
    number: int
    """Number of the value at the head of the pipe; -1: not known."""
    data: bytes
    """The whole frame, as it was."""

    @property
    def value(self) -> Any:
        """The value. Raises `CorruptFrame` if its bytes have changed."""
        return Frame.from_buffer(self.data).value


class DeadLetters:
    """The dead letters of a run, read from their directory at each use.

    Parameters
    ----------
    directory : Path
        Where they are stored; it exists once there is one.
    run : str
        Name of the run: those of other runs in the directory are ignored.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self.directory = directory
        self._run = run

    def __iter__(self) -> Iterator[DeadLetter]:
        """Iterate over them, in the order in which they were written."""
        from ataraxis.log.archive import LogArchive

        if not self.directory.is_dir():
            return
        for entry in LogArchive(self.directory):
            fields = entry.value
            if fields["run"] == self._run:
                yield DeadLetter(
                    fields["processor"],
                    fields["worker"],
                    fields["why"],
                    fields.get("sequence", -1),
                    bytes(fields["frame"]),
                )

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<DeadLetters {len(self)} in {str(self.directory)!r}>"
