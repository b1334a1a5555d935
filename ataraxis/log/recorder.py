"""Recorder: streams to disk, each frame of each."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from ataraxis.errors import LoggerError
from ataraxis.log.disk_watch import DiskWatch, LowDisk
from ataraxis.log.journal_reader import JournalReader
from ataraxis.log.journal_record import Gap
from ataraxis.log.journal_writer import JournalWriter
from ataraxis.log.recording import Recording, RecordingStatistics, past_of
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Consumer


class Recorder:
    """Record streams: each into a journal of its name, labels and device stamps kept.

    Parameters
    ----------
    streams : str or iterable of str
        Names of streams.
    directory : str or Path
        Made if it is not there. What is in it stays.
    context : Context, str, Path or None
        The directory the streams live in.
    name : str
        Under which it is known to the producers: they wait for a recorder of that name
        that died, until one comes back. One recorder of a name at a time.
    durability : {'os', 'disk'}
        As for `JournalWriter`, as are other keywords (`sync_s`, `file_bytes`, ...).
    detached_timeout : float or None
        How long producers wait for this recorder if it dies, s; None: no end.
    timeout : float or None
        How long to wait for streams that are not there yet, s.
    on_loss : callable, optional
        Called with a `Gap` when frames are counted missing, from a thread.
    on_error : callable, optional
        Called with the `LoggerError` when a journal begins to refuse, from a thread.
    on_low_disk : callable, optional
        Called with `LowDisk` well before the disk is full; a warning, if not given.
    low_disk_s : float
        How well before: the free space lasts less than this at the present rate, s.

    Raises
    ------
    StreamUnavailable, TimeoutError
        A stream is not there (within `timeout`).
    LoggerError
        The directory cannot be written.

    Notes
    -----
    A lossless consumer: a producer waits for it rather than lose a frame, unless it
    was told not to wait (``on_full="drop_newest"``): then what it gave up is counted,
    and the count written into the journal. A slot is given back only after its frame
    is in a file, so that a recorder that is killed misses nothing: the next one goes
    on where it was. If the disk refuses, frames are kept in the ring, the producers
    wait, and writing is tried again until `stop`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import LogArchive, Producer
    >>> directory = tempfile.TemporaryDirectory()
    >>> camera = Producer("doc_recorded", shape=(2,), dtype="f8", dims=("axis",))
    >>> with Recorder("doc_recorded", directory.name):
    ...     for k in range(3):
    ...         _ = camera.send(np.full(2, k))
    >>> LogArchive(directory.name).read("doc_recorded").data.tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    >>> camera.unlink(); directory.cleanup()
    """

    def __init__(
        self,
        streams: str | Iterable[str],
        directory: str | os.PathLike[str],
        *,
        context: ContextLike = None,
        name: str = "recorder",
        durability: Literal["os", "disk"] = "os",
        detached_timeout: float | None = None,
        timeout: float | None = 0,
        on_loss: Callable[[Gap], object] | None = None,
        on_error: Callable[[LoggerError], object] | None = None,
        on_low_disk: Callable[[LowDisk], object] | None = None,
        low_disk_s: float = 600.0,
        **journal: Any,
    ) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"streams={names}: one or more, each once")
        self.directory = Path(directory)
        self._recordings: list[Recording] = []
        self._lock = threading.Lock()
        deadline = None if timeout is None else time.monotonic() + timeout
        consumers = []
        try:
            for stream in names:
                left = None if deadline is None else deadline - time.monotonic()
                consumer = Consumer(
                    stream,
                    context=context,
                    durable=name,
                    detached_timeout=detached_timeout,
                    timeout=None if left is None else max(left, 0),
                )
                consumers.append(consumer)
            numbers = self._numbers(names)
            self._watch = DiskWatch(self.directory, low_disk_s, on_low_disk)
            for stream, consumer in zip(names, consumers, strict=True):
                past = past_of(self.directory, stream, consumer.stream_id)
                output = JournalWriter(
                    self.directory, stream, durability=durability, **journal
                )
                self._recordings.append(
                    Recording(
                        consumer,
                        output,
                        numbers[stream],
                        past=past,
                        on_loss=on_loss,
                        on_error=on_error,
                        on_bytes=self._look,
                    )
                )
        except BaseException:
            for recording in self._recordings:
                recording.stop()
                recording.join(None)
            for consumer in consumers[len(self._recordings) :]:
                consumer.close()
            raise

    def _numbers(self, names: list[str]) -> dict[str, int]:
        """Give each stream a number of its own, that of an earlier recording if any."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LoggerError(
                f"cannot record to {self.directory}: {error}; nothing was recorded"
            ) from error
        known: dict[str, int] = {}
        if JournalReader.accepts(self.directory):
            with JournalReader(self.directory) as reader:
                for number, info in reader.sources.items():
                    known.setdefault(info.name or f"source {number}", number)
        for name in names:
            known.setdefault(name, max(known.values(), default=-1) + 1)
        return known

    def _look(self) -> None:
        with self._lock:
            self._watch.look(sum(r.nbytes for r in self._recordings))

    # ---- what it does

    @property
    def is_recording(self) -> bool:
        """Whether a stream is still recorded."""
        return any(r.is_recording for r in self._recordings)

    def statistics(self) -> dict[str, RecordingStatistics]:
        """Say of each stream how it goes."""
        return {r.name: r.statistics() for r in self._recordings}

    def check(self) -> None:
        """Raise what keeps a stream from being recorded, if anything does.

        Raises
        ------
        LoggerError
            Says which frames are safe; the others are kept in their ring.
        """
        for recording in self._recordings:
            if recording.failure is not None:
                raise recording.failure

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream has ended and is recorded; whether that is so.

        Raises
        ------
        LoggerError
            A stream cannot be recorded.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for recording in self._recordings:
            while recording.is_recording:
                self.check()
                left = 0.1
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        return False
                recording.join(left)
        self.check()
        return True

    def stop(self) -> None:
        """Record what was sent until now, close the journals, let the producers go.

        Raises
        ------
        LoggerError
            Not everything could be written: the frames that are not safe stay in their
            rings, for a recorder of the same name.
        """
        for recording in self._recordings:
            recording.stop()
        for recording in self._recordings:
            recording.join(None)
        self.check()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    def __repr__(self) -> str:
        names = ", ".join(r.name for r in self._recordings)
        return f"<Recorder of {names} to {self.directory}>"
