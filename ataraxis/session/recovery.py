"""`finish_sessions`: finish sessions whose process was killed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis.errors import AtaraxisError, LayoutError
from ataraxis.log.journal.input import InputFile
from ataraxis.log.journal.page import files_of
from ataraxis.log.recorder import Recorder
from ataraxis.log.recovery import recover
from ataraxis.session.directory import SessionFolder, SessionLog, SessionRecord
from ataraxis.session.rig import Rig
from ataraxis.session.verdict import StreamVerdict, Verdict, judge
from ataraxis.shm.context import Context, ContextLike
from ataraxis.stream.announcement import announced, sweep
from ataraxis.stream.inspector import inspect
from ataraxis.stream.statistics import StreamStatistics

PATIENCE_S = 5.0
_LOOK_S = 0.02


@dataclass(frozen=True)
class FinishedSession:
    """A session that was finished by recovery."""

    path: Path
    """Its directory."""
    frames: dict[str, int]
    """Frames written now, of each stream whose ring still existed."""
    verdict: Verdict
    """Verdict of the session."""
    problem: str = ""
    """Why it could not be finished; the rings stay as they are."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return {
            "session": str(self.path),
            "frames": self.frames,
            "is_trusted": self.verdict.is_trusted,
            "problem": self.problem,
        }


def finish_sessions(
    directory: str | os.PathLike[str], *, context: ContextLike = None
) -> list[FinishedSession]:
    """Finish the sessions in a directory whose process was killed.

    Parameters
    ----------
    directory : str or Path
        Directory of a session, or of sessions.
    context : Context, str, Path or None
        Context of its streams; by default that of the session.

    Returns
    -------
    list of FinishedSession
        The sessions that were finished now; others are recorded now, or are finished.

    Notes
    -----
    It writes the frames that the rings keep for the dead recorder, counts all, and
    writes ``verdict.yaml``. It may be killed and run again.

    Examples
    --------
    >>> finish_sessions("/tmp/no_such_session")
    []
    """
    place = Path(directory)
    folders = [p.parent for p in sorted(place.glob("**/session.yaml"))]
    found = [_finish(SessionFolder(path), context) for path in folders]
    return [one for one in found if one is not None]


def _finish(folder: SessionFolder, context: ContextLike) -> FinishedSession | None:
    about = folder.record()
    waiting = _waiting(about, context)
    if (folder.verdict_path.exists() and not waiting) or not folder.own():
        return None
    place = _place(about, context)
    if place is not None:
        wait_until_detached(about, place)
        waiting = _waiting(about, context)
    try:
        log = SessionLog(folder.log_path, about.clock)
        try:
            return _finished(folder, about, waiting, context, log)
        finally:
            log.close()
    finally:
        folder.release()


def _finished(
    folder: SessionFolder,
    about: SessionRecord,
    waiting: dict[str, StreamStatistics],
    context: ContextLike,
    log: SessionLog,
) -> FinishedSession:
    place = _place(about, context)
    log.write("recovery: the process of the session has died")
    frames: dict[str, int] = {}
    tracked: list[StreamVerdict] = []
    problem = ""
    for name, stream in waiting.items():
        known = StreamVerdict(name)
        behind = [r.lag for r in stream.readers if r.label == about.recorder]
        known.longest_lag = max(behind, default=0)
        try:
            with Recorder(name, folder.path, context=place, name=about.recorder) as one:
                for late in _rest_of_mirror(folder, name, place):
                    known.doubt(late)
            frames[name] = one.statistics()[name].frames
            known.notes.append(f"{frames[name]} frames were written by recovery")
            log.write(f"recovery: {frames[name]} frames of {name!r} written")
        except (AtaraxisError, OSError) as error:
            problem = f"{name}: {error}"
            known.doubt(str(error))
        tracked.append(known)
    tracked += [StreamVerdict(name) for name in about.streams if name not in waiting]
    with suppress(FileNotFoundError):
        recover(folder.path)
    elsewhere = [
        StreamVerdict(
            name, host=where.partition(":")[0], path=where.partition(":")[2],
            is_trusted=False, notes=[f"recorded elsewhere: its verdict is in {where}"],
        )
        for name, where in about.elsewhere.items()
    ]  # fmt: skip
    verdict = judge(
        folder.path, about.clock, tracked=tracked, elsewhere=elsewhere,
        notes=["the process of the session was killed; recovery finished it"],
    )  # fmt: skip
    known_ends = {*waiting, *about.ended, *about.elsewhere, *_ended(folder.path)}
    _doubt_the_rest(verdict, known_ends)
    verdict.to_yaml(folder.verdict_path)
    log.write(f"recovery: session {about.name!r}: {verdict}")
    return FinishedSession(folder.path, frames, verdict, problem)


def _rest_of_mirror(
    folder: SessionFolder, name: str, context: Context | None
) -> list[str]:
    """Wait until a source of another host is here to its end, and end its mirror.

    Returns why it is not. Its program was ended there with the rig's process; a ring
    that was full has room again, now that it is recorded.
    """
    path = folder.path / "rig.yaml"
    if context is None or not path.is_file():
        return []
    source = Rig.from_yaml(path).sources.get(name)
    if source is None or source.host is None:
        return []
    from ataraxis.session.far_source import RigMirror

    mirror = RigMirror(name, source.host, name, source.mirror, context)
    late = mirror.finish("" if source.is_started else None)
    return [late] if late else []


def _ended(directory: Path) -> set[str]:
    """Return the streams that were recorded to their end."""
    found = set()
    for name, paths in files_of(directory).items():
        try:
            file = InputFile(paths[-1])
        except LayoutError:
            continue
        close = file.records.close
        if close is not None and close.get("has_ended"):
            found |= {str(s.get("name", name)) for s in file.records.sources.values()}
        file.close()
    return found


def _doubt_the_rest(verdict: Verdict, known: set[str]) -> None:
    """Doubt streams whose ring was removed: their last frames are unknown."""
    for stream in verdict.streams:
        if stream.name not in known:
            verdict.is_trusted = False
            stream.doubt(
                "its ring was removed: what was sent after the last frame is unknown"
            )


def wait_until_detached(about: SessionRecord, context: Context) -> None:
    """Wait until the recorders of a killed session have ended, as they do at once."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and _is_recording(about, context):
        time.sleep(_LOOK_S)
    sweep(context)


def _is_recording(about: SessionRecord, context: Context) -> bool:
    """Return whether a recorder of the session reads a stream, or is announced."""
    return any(
        one.durable == about.recorder
        for name in about.streams
        for one in announced(name, context)
    ) or any(
        r.label == about.recorder and not r.is_detached
        for listed in inspect(context)
        if isinstance(listed.content, StreamStatistics)
        for r in listed.content.readers
    )


def _place(about: SessionRecord, context: ContextLike) -> Context | None:
    try:
        return Context.of(about.context if context is None else context)
    except OSError:
        return None


def _waiting(about: SessionRecord, context: ContextLike) -> dict[str, StreamStatistics]:
    """Return the streams that keep frames for the session's recorder."""
    place = _place(about, context)
    if place is None:
        return {}
    return {
        listed.name: listed.content
        for listed in inspect(place)
        if isinstance(listed.content, StreamStatistics)
        and any(
            r.label == about.recorder and r.is_detached for r in listed.content.readers
        )
    }
