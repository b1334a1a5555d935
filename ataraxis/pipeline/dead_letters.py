"""`Letters`: values that nobody could process, on disk, with the reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ataraxis.frame import Frame, Origin

if TYPE_CHECKING:
    from ataraxis.log.journal.writer import JournalWriter
    from ataraxis.pipeline.inbox import Job

NAME = "dead-letters"


class Letters:
    """The dead letters of a worker: a journal, begun with the first one.

    Each entry is a dict: ``processor``, ``worker``, ``why``, ``lane``, ``sequence``,
    and ``frame``, the bytes of a whole frame as `Frame.from_buffer` reads them.
    """

    def __init__(self, directory: str, processor: str, worker: int) -> None:
        self._directory = Path(directory)
        self._about = {"processor": processor, "worker": worker}
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


def _frame_of(job: Job) -> bytes:
    from ataraxis.pipeline.inbox import data_of

    if len(job.leases) == 1:
        return data_of(job.leases[0])
    origin = Origin(job.lane, job.sequence)
    return Frame.from_value(job.value, origin=origin).to_bytes()
