"""JournalWriter: frames into files, many at a time."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ataraxis._kernels.journal_write import OK
from ataraxis.clock import now_ns
from ataraxis.frame import Frame
from ataraxis.log.journal_output import JournalOutput
from ataraxis.log.journal_rows import RowTemplates
from ataraxis.log.journal_sync import Syncer


class JournalWriter(JournalOutput):
    """Write frames into a journal: append-only files that survive their writer.

    Parameters
    ----------
    directory : str or Path
        Made if it is not there. Files that are there are never touched: a second
        writer of the same name goes on with the next number.
    name : str
        Of the journal: files are called ``name.000000.axj``.
    durability : {'os', 'disk'}
        What is promised of entries after `flush`: that they survive the death of every
        process, or after `sync_s` or `sync_bytes` also the loss of power.
    sync_s : float
        With 'disk': an entry is on the disk this long after it was logged, s, if the
        disk is not slower than that.
    sync_bytes : int
        With 'disk': `log` waits rather than have more than this not on the disk.
    file_bytes : int
        A file is not begun an entry in behind this byte; the next file is.
    buffer_bytes : int
        Entries are collected up to this before they are written; `flush` writes now.
    checksum : bool
        Whether entries get a checksum, besides that of their header.
    about : dict, optional
        Small JSON that goes into the first page of each file, up to some 3 KiB.

    Raises
    ------
    LoggerError
        The files cannot be made or written: says what is safe.

    Notes
    -----
    Any thread may use it. A forked copy must not. One process writes one file; several
    writers of one name write files of their own, and a reader takes them together.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.log.archive import LogArchive
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log(7, np.arange(3.0), time_ns=5)
    ...         _ = journal.log_block(8, np.eye(3), time_ns=6, step_ns=1)
    ...     archive = LogArchive(directory)
    ...     len(archive), archive[0].array, archive.read(8).data.shape
    (4, array([0., 1., 2.]), (3, 3))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str = "journal",
        *,
        durability: Literal["os", "disk"] = "os",
        sync_s: float = 1.0,
        sync_bytes: int = 2**26,
        file_bytes: int = 2**30,
        buffer_bytes: int = 2**18,
        checksum: bool = True,
        about: dict[str, Any] | None = None,
    ) -> None:
        if durability not in ("os", "disk"):
            raise ValueError(f"durability={durability!r}: 'os' or 'disk'")
        if sync_s <= 0 or sync_bytes <= 0:
            raise ValueError("sync_s and sync_bytes are above 0")
        self._rows_of = RowTemplates(checksum)
        self._next: dict[int, int] = {}
        super().__init__(Path(directory), name, about or {}, file_bytes, buffer_bytes)
        if durability == "disk":
            self._follow(Syncer(weakref.ref(self), sync_s, sync_bytes))

    # ---- what goes in

    def log(
        self,
        source: int,
        value: Any,
        *,
        time_ns: int | None = None,
        sequence: int | None = None,
        device_time: int | None = None,
        device_sequence: int | None = None,
    ) -> int:
        """Log one value as an entry: whatever a frame takes.

        Parameters
        ----------
        source : int
            Number of the source, 0 to 2**32 - 2.
        value : object
            As for `Frame.from_value`. Copied.
        time_ns : int, optional
            Monotonic time, ns; now, if not given.
        sequence : int, optional
            Number within the source; the next one, if not given.
        device_time, device_sequence : int, optional
            The source's own time, in its own ticks, and counter.

        Returns
        -------
        int
            Its sequence.

        Raises
        ------
        LoggerError
            It could not be written, and was not accepted.
        TypeError
            No frame carries such a value.

        Notes
        -----
        Accepted into the buffer: safe after `flush`, or once the buffer was full.
        """
        source = self._checked(source)
        with self._lock:
            own = self._next.get(source, 0) if sequence is None else sequence
            frame = Frame.from_value(
                value,
                sequence=own,
                time_ns=time_ns,
                source=source,
                device_time=device_time,
                device_sequence=device_sequence,
                checksum=self._rows_of.checksum,
            )
            data = frame.to_bytes()
            while (status := self._packed(data, 0, 1, -1, -1)[2]) != OK:
                self._go_on(status, "this entry was not accepted")
            self._next[source] = own + 1
        self._paced()
        return own

    def log_block(
        self,
        source: int,
        block: ArrayLike,
        *,
        time_ns: int | NDArray[np.int64] | None = None,
        step_ns: int = 0,
        sequence: int | None = None,
        device_time: NDArray[Any] | None = None,
        device_sequence: NDArray[Any] | None = None,
    ) -> int:
        """Log each row of an array as one entry, in one call.

        Parameters
        ----------
        source : int
            Number of the source.
        block : ndarray
            Shape (n, ...), any dtype without Python objects. Copied.
        time_ns : int or int64 array of shape (n,), optional
            Monotonic time of the first row, or of each, ns; now, if not given.
        step_ns : int
            Time from row to row, ns, if `time_ns` is one number.
        sequence : int, optional
            Of the first row; the next one of the source, if not given.
        device_time, device_sequence : arrays of shape (n,), optional
            The source's own time, int64 or uint64, and counter of each row.

        Returns
        -------
        int
            Sequence of the first row.

        Raises
        ------
        LoggerError
            Not all could be written: the message says how many rows were accepted.
        """
        source = self._checked(source)
        with self._lock:
            rows = self._rows_of.encode(
                source, block, device_time, device_sequence, self.labels_id
            )
            n = len(rows.data)
            first = self._next.get(source, 0) if sequence is None else sequence
            times, start = None, now_ns()
            if isinstance(time_ns, np.ndarray):
                times = np.ascontiguousarray(time_ns, np.int64)
                if times.shape != (n,):
                    raise ValueError(f"time_ns has shape {times.shape}, not ({n},)")
            elif time_ns is not None:
                start = int(time_ns)
            done = 0
            while done < n:
                count, status = self._rows(
                    rows.template,
                    rows.data[done:],
                    None if rows.fronts is None else rows.fronts[done:],
                    first + done,
                    None if times is None else times[done:],
                    start + done * step_ns,
                    step_ns,
                )
                done += count
                self._next[source] = first + done
                if status != OK:
                    self._go_on(status, f"{done} of {n} rows were accepted")
        self._paced()
        return first

    def append(
        self,
        frames: Any,
        *,
        align: int = 64,
        source: int | None = None,
        labels: int | None = None,
    ) -> int:
        """Log frames that are encoded already: their bytes are copied as they are.

        Parameters
        ----------
        frames : bytes-like
            Frames of `ataraxis.frame` back to back, each beginning `align` bytes
            aligned to the first. Frames without a checksum keep none.
        align : int
            1 for frames without anything between them.
        source, labels : int, optional
            Replace the numbers in the headers: `labels` is what `labels_id` gave.

        Returns
        -------
        int
            How many frames there were.

        Raises
        ------
        ValueError
            Some of it is no frame; what came before was logged.
        """
        data = memoryview(frames).cast("B")
        done = at = 0
        with self._lock:
            self._ready()
            while at < len(data):
                own = -1 if source is None else self._checked(source)
                count, at, status = self._packed(
                    data, at, align, own, -1 if labels is None else labels
                )
                done += count
                if status != OK:
                    self._go_on(status, f"{done} of these frames were accepted")
                elif at < len(data):
                    raise ValueError(
                        f"no frame begins at byte {at} of {len(data)}; the {done} "
                        "before it were logged"
                    )
        self._paced()
        return done

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<JournalWriter {self.name!r} in {self.directory}, {state}>"
