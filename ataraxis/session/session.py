"""Session: one experiment, one directory."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ataraxis.clock import now_ns
from ataraxis.errors import NotConnectedError, SegmentExists, StreamUnavailable
from ataraxis.log.recorder import Recorder, RecordingStatistics
from ataraxis.session.directory import SessionFolder, SessionLog, SessionRecord
from ataraxis.session.events import EVENTS, EventStream, refuse_a_second
from ataraxis.session.recorder import RecorderProcess, RecorderProxy
from ataraxis.session.recovery import wait_until_detached
from ataraxis.session.stream_recorder import SessionLoss, StreamRecorder
from ataraxis.session.verdict import StreamVerdict, Verdict, judge
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.thread import Latch, Thread

if TYPE_CHECKING:
    from ataraxis.session.alarm_run import AlarmRun
    from ataraxis.session.alarms import RigAlarm, RigHeartbeat
    from ataraxis.session.rig import Rig
    from ataraxis.session.rig_run import RigRun

LOOK_S = 0.2
SOON_S = 0.02


class Session:
    """Record an experiment: streams, events, configuration, and a verdict.

    Parameters
    ----------
    name : str
        Name of the session, and of its directory.
    directory : str or Path, optional
        Where the session's directory is made; by default the current directory.
    subject : str
        Subject of the recording.
    config : YamlConfig, str or Path, optional
        Kept as ``config.yaml``: an instance, or a YAML file.
    context : Context, str, Path or None
        Directory of the streams.
    durability : {'os', 'disk'}
        Recorded frames survive the end of every process, or also a loss of power.
    resume : bool
        Continue a session of that name whose process was killed.
    on_loss : callable, optional
        As `on_loss` takes it.
    alarms : sequence of RigAlarm, optional
        As `add_alarms` takes them.

    Raises
    ------
    FileExistsError
        The directory exists and is not empty; nothing is overwritten.
    SegmentExists
        A session is being recorded in this context.

    Notes
    -----
    Recording is done by threads of this process, or by separate processes
    (``record(..., process=True)``), which are restarted when they die. Producers wait
    for it unless configured otherwise. If this process is killed, the rings keep what
    was sent, and ``ataraxis recover DIRECTORY`` finishes the session without a loss.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import Producer
    >>> directory = tempfile.TemporaryDirectory()
    >>> camera = Producer("doc_cam", shape=(4, 6), dtype="u1", dims=("y", "x"))
    >>> with Session("m42_day3", directory=directory.name, subject="m42") as s:
    ...     s.record("doc_cam")
    ...     for k in range(3):
    ...         _ = s.event("stim_on", trial=k)
    ...         _ = camera.send(np.full((4, 6), k, "u1"))
    >>> s.verdict.is_trusted, s.verdict["doc_cam"].received
    (True, 3)
    >>> camera.unlink(); directory.cleanup()
    """

    verdict: Verdict | None = None
    """Verdict; None before the end."""

    def __init__(
        self,
        name: str,
        *,
        directory: str | os.PathLike[str] | None = None,
        subject: str = "",
        config: Any = None,
        context: ContextLike = None,
        durability: Literal["os", "disk"] = "os",
        resume: bool = False,
        on_loss: Callable[[SessionLoss], object] | None = None,
        alarms: Sequence[RigAlarm] = (),
    ) -> None:
        self.name = checked_name(name)
        self.context = Context.of(context)
        self._durability = durability
        self._on_loss = [on_loss] if on_loss is not None else []
        self._stream_recorders: dict[str, StreamRecorder | RecorderProxy] = {}
        self._recorders: list[RecorderProcess] = []
        self._runs: list[RigRun] = []
        self._alarms: list[AlarmRun] = []
        self._doubts: list[str] = []
        self._elsewhere: list[StreamVerdict] = []
        self._lock = threading.RLock()
        self._is_over = Latch()
        refuse_a_second(self.name, self.context)
        self._folder, self._about = self._begin(directory, subject, resume)
        try:
            if config is not None:
                self._folder.keep_config(config)
            self._log = SessionLog(self._folder.log_path, self._about.clock)
            verb = "resumed" if resume else "begun"
            self._log.write(
                f"session {self.name!r} {verb}, context {self.context.path}"
            )
            if resume:
                wait_until_detached(self._about, self.context)
                self._finish_events()
            self._events = EventStream(
                self.context,
                {
                    "session": self.name,
                    "directory": str(self.directory.absolute()),
                    "begun_ns": self._about.clock.monotonic_ns,
                },
            )
        except BaseException:
            self._folder.release()
            raise
        self._watcher = Thread(self._watch, f"ataraxis-session-{self.name}")
        self.record(EVENTS)
        self._watcher.start()
        if alarms:
            try:
                self.add_alarms(alarms)
            except BaseException:
                self.close()
                raise

    def _finish_events(self) -> None:
        """Write the events that the killed process left in its ring."""
        with contextlib.suppress(StreamUnavailable), Recorder(
            EVENTS, self._folder.path, context=self.context,
            name=self._about.recorder,
        ):  # fmt: skip
            pass

    def _begin(
        self, directory: str | os.PathLike[str] | None, subject: str, resume: bool
    ) -> tuple[SessionFolder, SessionRecord]:
        """Make the directory, or resume one; become its writer."""
        if resume:
            folder = SessionFolder(Path(directory or ".") / self.name)
            if folder.verdict_path.exists():
                raise FileExistsError(
                    17, "the session is finished and cannot be resumed: choose "
                    "another name for a new one", str(folder.path),
                )  # fmt: skip
            if not folder.own():
                raise SegmentExists(f"{folder.path} is recorded by another process")
            return folder, folder.record()
        path = SessionFolder.create(directory, self.name)
        about = SessionRecord.take(self.name, subject, str(self.context.path))
        about.to_yaml(path / "session.yaml")
        folder = SessionFolder(path)
        folder.own()
        return folder, about

    # ---- what is recorded

    @property
    def directory(self) -> Path:
        """Directory of the session."""
        return self._folder.path

    @property
    def streams(self) -> list[str]:
        """Names of its streams, including those that do not exist yet."""
        return list(self._stream_recorders)

    def record(
        self,
        *streams: str,
        timeout: float | None = None,
        durability: Literal["os", "disk"] | None = None,
        process: bool = False,
    ) -> None:
        """Record streams from now on, or from when they are made.

        Parameters
        ----------
        *streams : str
            Names. A stream that is recorded already is left as it is.
        timeout : float or None
            How long to wait for each stream, s; None: it is recorded from when it is
            made, and not trusted if it never was.
        durability : {'os', 'disk'}, optional
            By default that of the session.
        process : bool
            Record in a separate process, which is restarted without a loss when it
            dies. It waits for the streams: `timeout` is ignored.

        Raises
        ------
        TimeoutError, StreamUnavailable
            A stream did not exist within `timeout`.
        LoggerError
            The directory cannot be written.
        """
        with self._lock:
            self._check()
            new = [n for n in streams if checked_name(n) not in self._stream_recorders]
            if process and new:
                self._record_apart(new, durability or self._durability)
                return
            for stream in new:
                self._promise(stream)
                track = StreamRecorder(
                    stream, self.directory, self.context, self._about.recorder,
                    say=self._log.write, on_loss=self._lose, on_end=self._end,
                    on_alarm=self.alarm,
                    durability=durability or self._durability,
                    is_known=stream in self._about.ended,
                )  # fmt: skip
                try:
                    track.begin(timeout or 0)
                except BaseException as error:
                    if timeout is not None or not isinstance(error, StreamUnavailable):
                        track.withdraw()
                        self._promise(stream, is_kept=False)
                        raise
                    self._log.write(f"waiting for {stream!r}")
                self._stream_recorders[stream] = track

    def _record_apart(self, streams: list[str], durability: str) -> None:
        """Record streams in a separate process."""
        for stream in streams:
            self._promise(stream)
        number = len(self._recorders) + 1
        recorder = RecorderProcess(
            "recorder" if number == 1 else f"recorder-{number}", streams,
            self.directory, self.context, self._about.recorder, durability,
            say=self._log.write, on_loss=self._lose, on_end=self._end,
            on_alarm=self.alarm,
        )  # fmt: skip
        self._recorders.append(recorder)
        self._stream_recorders.update(recorder.tracks)

    @property
    def recorders(self) -> dict[str, int]:
        """Process ids of the recorders that are separate processes."""
        return {r.name: r.program.process.pid for r in self._recorders}

    def _promise(self, stream: str, is_kept: bool = True) -> None:
        """Note in session.yaml that a stream is recorded, for recovery."""
        if self._about.mark("streams", stream, is_kept):
            self._about.to_yaml(self._folder.record_path)

    def _end(self, stream: str, is_ended: bool) -> None:
        """Note in session.yaml that a stream has ended, for recovery."""
        if self._about.mark("ended", stream, is_ended):
            try:
                self._about.to_yaml(self._folder.record_path)
            except OSError as error:  # recovery reads the journal's end instead
                self._log.write(f"session.yaml cannot be written: {error}")

    @property
    def subject(self) -> str:
        """Subject of the recording."""
        return self._about.subject

    def keep_place(self, streams: Sequence[str], host: str, path: str) -> None:
        """Note in session.yaml which host records streams, and where."""
        with self._lock:
            self._about.elsewhere.update(dict.fromkeys(streams, f"{host}:{path}"))
            self._about.to_yaml(self._folder.record_path)
        self._log.write(f"host {host!r} records {', '.join(streams)} in {path}")

    def add_verdicts(self, verdicts: Sequence[StreamVerdict]) -> None:
        """Add the verdicts of streams that another host has recorded."""
        self._elsewhere += verdicts

    def lose(self, loss: SessionLoss) -> None:
        """Tell those who want to be told of a loss; of a recorder elsewhere."""
        self._log.write(
            f"LOST {loss.count} frames of {loss.stream!r} at {loss.first}: "
            f"{loss.reason}"
        )
        self._lose(loss)

    def event(self, name: str, /, *, time_ns: int | None = None, **data: Any) -> int:
        """Record an event.

        Parameters
        ----------
        name, time_ns, **data
            As for `EventStream.send`, which other processes use: ``trial=3``.

        Returns
        -------
        int
            Time of the event, monotonic ns.
        """
        self._check()
        return self._events.send(name, time_ns=time_ns, **data)

    def note(self, text: str) -> None:
        """Write a line into the session's log."""
        self._check()
        self._log.write(text)

    def on_loss(self, callback: Callable[[SessionLoss], object]) -> None:
        """Call a function with each `SessionLoss`, from a thread, at once."""
        self._on_loss.append(callback)

    def add_alarms(
        self, alarms: Sequence[RigAlarm], heartbeat: RigHeartbeat | None = None
    ) -> None:
        """Tell a person from now on what goes wrong, as ``alarms`` of a rig does.

        Parameters
        ----------
        alarms : sequence of RigAlarm
            Ways, and what is told by each.
        heartbeat : RigHeartbeat, optional
            A URL that is asked while this session lives.

        Raises
        ------
        OSError
            The process that delivers them cannot be started.
        """
        from ataraxis.session.alarm_run import AlarmRun

        self._check()
        run = AlarmRun(
            alarms, heartbeat, self.name, self.context, self._log.write,
            lambda: self.streams,
        )  # fmt: skip
        self._alarms.append(run)

    def alarm(self, kind: str, stream: str, text: str) -> None:
        """Tell those who want to be told of this kind; never waits."""
        for run in self._alarms:
            run.take(kind, stream, text)

    def _lose(self, loss: SessionLoss) -> None:
        self.alarm(
            "loss", loss.stream,
            f"{loss.count} frames from {loss.first} on are missing: {loss.reason}",
        )  # fmt: skip
        for callback in self._on_loss:
            try:
                callback(loss)
            except Exception as error:  # the recording goes on
                self._log.write(f"on_loss: {type(error).__name__}: {error}")

    def statistics(self) -> dict[str, RecordingStatistics]:
        """Return the statistics of each stream."""
        return {
            name: track.statistics() for name, track in self._stream_recorders.items()
        }

    # ---- a rig

    def start(
        self,
        rig: Rig | str | os.PathLike[str],
        until: Latch | None = None,
        *,
        is_test: bool = False,
    ) -> RigRun:
        """Start the sources, pipes and viewers of a rig, and record its streams.

        Once `until` is set, for example by a signal handler, its waits end. With
        `is_test`, other hosts remove what they have recorded.

        Raises
        ------
        ConfigError
            The file is not valid, or the rig contradicts itself; nothing was started.
        HostUnavailable
            A part of it is placed on a host, and no agent runs here.
        SourceFailed
            A source gave no stream, or its host does not run it.
        """
        from ataraxis.session.rig_run import RigRun

        self._check()
        run = RigRun(self, rig, until, is_test=is_test)
        self._runs.append(run)
        return run

    def run(
        self, rig: Rig | str | os.PathLike[str], duration: float | None = None
    ) -> None:
        """Run a rig until its sources end, `duration` s are over, or Ctrl-C."""
        self.start(rig).wait(duration)

    # ---- the watcher, and the end

    def _pause_s(self) -> float:
        """Return how long to sleep: producers wait for announced recorders."""
        is_waiting = any(
            track.is_waiting for track in list(self._stream_recorders.values())
        )
        return SOON_S if is_waiting else LOOK_S

    def _watch(self) -> None:
        while not self._is_over.wait(self._pause_s()):
            for track in list(self._stream_recorders.values()):
                with self._lock:
                    if not self._is_over.is_set():
                        track.look()
            for recorder in list(self._recorders):
                with self._lock:
                    if not self._is_over.is_set():
                        recorder.look()

    def doubt(self, reason: str) -> None:
        """Record a reason not to trust the session."""
        if reason not in self._doubts:
            self._log.write(f"not to be trusted: {reason}")
            self._doubts.append(reason)

    def close(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> Verdict:
        """End the session: record, count and judge all that was sent until now.

        Parameters
        ----------
        release : Latch, optional
            With it, while the disk refuses writes, the recorders try again and the
            producers wait until it is set, for example by a signal handler. Then the
            producers are released, programs that still run are killed, and the verdict
            names the frames that are not on disk.
        on_refusal : callable
            Called with a line if the disk refuses writes.

        Returns
        -------
        Verdict
            Also written to ``verdict.yaml``.
        """
        with self._lock:
            if self.verdict is not None:
                return self.verdict
            for run in self._runs:
                run.stop(release)
            ended = now_ns()
            self._is_over.set()
            self._events.close()
            for recorder in self._recorders:
                recorder.request_end(is_patient=release is not None)
            for recorder in self._recorders:
                recorder.finish(release, on_refusal)
            tracked = [
                track.stop(release, on_refusal)
                for track in self._stream_recorders.values()
            ]
            tracked += [
                StreamVerdict(name, is_trusted=False, notes=[
                    "recorded until the session was cut off; not since it was resumed"
                ])
                for name in self._about.streams
                if name not in self._stream_recorders and name not in self._about.ended
            ]  # fmt: skip
        self._watcher.join()
        for run in self._runs:
            run.forget_killed()
        not_told = [text for alarms in self._alarms for text in alarms.finish(release)]
        verdict = judge(
            self.directory, self._about.clock, tracked=tracked, doubts=self._doubts,
            notes=not_told, elsewhere=self._elsewhere, ended_ns=ended,
        )  # fmt: skip
        try:
            verdict.to_yaml(self._folder.verdict_path)
        except OSError as error:
            verdict.is_trusted = False
            verdict.notes.append(
                f"verdict.yaml could not be written: {error}; make room, then run "
                f"'ataraxis recover {self.directory}'"
            )
        self._log.write(f"session {self.name!r} ended: {verdict.headline}")
        self._log.close()
        self._folder.release()
        # Last: after an interrupt the next call repeats all steps.
        self.verdict = verdict
        return verdict

    def report(
        self, path: str | os.PathLike[str] | None = None, *, verify: bool = False
    ) -> Path:
        """Write what was recorded, and whether it is whole, as one HTML file.

        Parameters
        ----------
        path : str or Path, optional
            The file; by default ``report.html`` in the session's directory.
        verify : bool, optional
            Read and check every byte first, instead of using the verdict.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError
            The session is still recording.
        """
        if self.verdict is None:
            raise ValueError(
                f"session {self.name!r} is recording: close it before its report, or "
                "look at it with ataraxis.view()"
            )
        return self._folder.report(path, verify=verify)

    def _check(self) -> None:
        if self._is_over.is_set():
            raise NotConnectedError(f"session {self.name!r} has ended: make another")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """End it; an exception becomes a doubt, a doubt a warning."""
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self.doubt(f"ended by {type(error).__name__}: {error}")
        verdict = self.close()
        if error is None and not verdict.is_trusted:
            text = f"session {self.name!r} is not to be trusted: {verdict}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("session", self)

    def __repr__(self) -> str:
        state = "over" if self._is_over.is_set() else "recording"
        return (
            f"<Session {self.name!r}, {state}, {len(self._stream_recorders)} streams>"
        )
