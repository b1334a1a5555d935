"""`DeadLetterStore`: values that nobody could process, on disk, with the reason."""

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

NAME = "dead-letters"


class DeadLetterStore:
    """The dead letters of a worker: a journal, begun with the first one.

    Each entry is a dict: ``run``, ``processor``, ``worker``, ``why``, ``lane``,
    ``sequence``, and ``frame``, the bytes of a whole frame as `Frame.from_buffer` reads
    them.
    """

    def __init__(self, directory: str, run: str, processor: str, worker: int) -> None:
        self._directory = Path(directory)
        self._about = {"run": run, "processor": processor, "worker": worker}
        self._journal: JournalWriter | None = None

    def write(self, job: Job | None, why: str, data: bytes | None = None) -> str:
        """Keep a job: the directory it is in."""
        if self._journal is None:
            from ataraxis.log.journal.writer import JournalWriter

            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = f"{NAME}-{self._about['processor']}-{os.getpid()}"
            self._journal = JournalWriter(self._directory, name)
        if data is None and job is not None:
            data = _frame_of(job)
        said: dict[str, Any] = {**self._about, "why": why, "frame": data or b""}
        if job is not None:
            said.update(lane=job.lane, sequence=job.sequence)
        self._journal.log(0, said)
        self._journal.flush()
        return str(self._directory)

    def close(self) -> None:
        """End the journal, if there is one."""
        if self._journal is not None:
            self._journal.close()


@dataclass(frozen=True)
class DeadLetter:
    """A value that was not processed."""

    processor: str
    """Whose worker could not."""
    worker: int
    """Which of its workers, from 0."""
    why: str
    """What it raised, or what it did to its workers."""
    number: int
    """Number of the value at the head of the pipe; -1: not known."""
    data: bytes
    """The whole frame, as it was."""

    @property
    def value(self) -> Any:
        """The value. Raises `CorruptFrame` if its bytes have changed."""
        return Frame.from_buffer(self.data).value


class DeadLetters:
    """The dead letters of a run, read from their directory at each look.

    Parameters
    ----------
    directory : Path
        Where they are, once there is one.
    run : str
        Name of the run: letters of other runs in the directory are left out.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self.directory = directory
        self._run = run

    def __iter__(self) -> Iterator[DeadLetter]:
        """Go through them, in the order in which they were written."""
        from ataraxis.log.archive import LogArchive

        if not self.directory.is_dir():
            return
        for entry in LogArchive(self.directory):
            said = entry.value
            if said["run"] == self._run:
                yield DeadLetter(
                    said["processor"],
                    said["worker"],
                    said["why"],
                    said.get("sequence", -1),
                    bytes(said["frame"]),
                )

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<DeadLetters {len(self)} in {str(self.directory)!r}>"


def _frame_of(job: Job) -> bytes:
    from ataraxis.pipeline.inbox import data_of

    if len(job.leases) == 1:
        return data_of(job.leases[0])
    origin = Origin(job.lane, job.sequence)
    return Frame.from_value(job.value, origin=origin).to_bytes()
