"""`check`: run a rig for a while, as a test."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ataraxis.errors import AtaraxisError
from ataraxis.log.disk_watch import caution_of
from ataraxis.session.preflight_hosts import HostsCheck, check_hosts
from ataraxis.session.rig import Rig
from ataraxis.session.session import Session
from ataraxis.session.verdict import RATE_TOLERANCE
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.thread import Latch
from ataraxis.stream.inspector import Inspector

LAG_S = 0.5


@dataclass(frozen=True)
class StreamCheck:
    """Result of one stream."""

    stream: str
    """Name of the stream."""
    rate_hz: float
    """Measured frames per second."""
    declared_hz: float | None
    """Declared frames per second; None without a rate."""
    bytes_hz: float
    """Bytes per second."""
    missing: int
    """Frames that were not recorded."""
    longest_lag_s: float
    """Longest lag of the recorder, s."""
    problem: str = ""
    """What is wrong; or ''."""


@dataclass(frozen=True)
class Preflight:
    """Result of a rig."""

    streams: tuple[StreamCheck, ...]
    """Results of the sources."""
    disk_s: float
    """Time until the disk is full, s."""
    problems: tuple[str, ...]
    """Problems of the rig as a whole."""
    notes: tuple[str, ...] = ()
    """Remarks that are not problems."""

    @property
    def is_ready(self) -> bool:
        """Whether it has no problem."""
        return not self.problems and not any(s.problem for s in self.streams)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return {**asdict(self), "is_ready": self.is_ready}


def check(
    rig: Rig | str | os.PathLike[str],
    soak: float = 10.0,
    *,
    directory: str | os.PathLike[str] = ".",
    context: ContextLike = None,
    until: Latch | None = None,
    release: Latch | None = None,
) -> Preflight:
    """Run a rig for a while, in a temporary context, and check its streams.

    A rig with parts on other hosts is run in the context of the agent here, as only
    that reaches them: under the names that it will have, and not beside a session.

    Parameters
    ----------
    rig : Rig, str or Path
        The rig, or its YAML file.
    soak : float
        Duration, s.
    directory : str or Path
        Where sessions will be recorded: the test is recorded there, and removed.
    context : Context, str, Path or None
        The context of the agent here, for a rig with parts on other hosts.
    until : Latch, optional
        Once it is set, for example by a signal handler, the check ends as not ready.
    release : Latch, optional
        Once it is set, processes that still run are killed.

    Returns
    -------
    Preflight
        Whether every source opens, rates hold within 5 %, nothing is missing, recorders
        are at most 0.5 s behind, the disk lasts as long as the rig expects, and each of
        its alarms could be told a test message. Of other hosts, before that: whether
        they are listed and answer, this one may run or read there, modules are listed,
        clocks are known, and there is a disk to record on.

    Raises
    ------
    ConfigError
        The file is not valid, or the rig contradicts itself.
    """
    rig = rig if isinstance(rig, Rig) else Rig.from_yaml(os.fspath(rig))
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    place = Path(tempfile.mkdtemp(prefix="ataraxis-check-", dir=shm))
    where = Path(tempfile.mkdtemp(prefix=".ataraxis-check-", dir=directory))
    ends = until or Latch()
    try:
        told, failed = _test_alarms(rig, Context.of(place), ends)
        # In the test no event is told.
        quiet = replace(rig, alarms=[], heartbeat=None)
        hosts = HostsCheck()
        if rig.is_placed:
            hosts = check_hosts(quiet, Context.of(context))
            quiet = hosts.rig or quiet
        if hosts.problems or hosts.sources:
            found = _refused(quiet, hosts, where)
        else:
            inside = Context.of(context if rig.is_placed else place)
            found = _tried(quiet, soak, inside, where, ends, release, hosts)
        return replace(
            found,
            problems=found.problems + failed,
            notes=(*hosts.notes, *found.notes, *told),
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(where, ignore_errors=True)


def _test_alarms(
    rig: Rig, context: Context, until: Latch
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Send a test in each way of the rig; return what was told, and what was not."""
    if not rig.alarms and rig.heartbeat is None:
        return (), ()
    from ataraxis.session.alarm_run import AlarmRun

    run = AlarmRun(
        rig.alarms, rig.heartbeat, "check", context, lambda text: None, is_test=True
    )
    found = run.test(until)
    told = [f"{label}: a test was sent" for label, why in found.items() if not why]
    failed = [f"{label}: {why}" for label, why in found.items() if why]
    return tuple(told), tuple(failed)


def _tried(
    rig: Rig,
    soak: float,
    context: Context,
    where: Path,
    until: Latch,
    release: Latch | None,
    hosts: HostsCheck,
) -> Preflight:
    problems: list[str] = []
    rates: dict[str, tuple[float, float]] = {}
    declared: dict[str, float | None] = {}
    failed = "", ""
    session, run = Session("check", directory=where, context=context), None
    try:
        run = session.start(rig, until, is_test=True)
        declared = {name: _declared(name, context) for name in rig.sources}
        until.wait(min(soak * 0.1, 1.0))  # until all sources send
        began = time.monotonic()
        before, end = _sent(rig, context), began + soak
        while run.look() and time.monotonic() < end and not until.is_set():
            until.wait(0.05)
        if until.is_set():
            problems.append(f"ended by a signal before {soak:g} s were over")
        for name, (frames, nbytes) in _sent(rig, context).items():
            seconds = max(time.monotonic() - began, 1e-3)
            frames0, nbytes0 = before.get(name, (0, 0))
            rates[name] = (frames - frames0) / seconds, (nbytes - nbytes0) / seconds
    except AtaraxisError as error:
        failed = getattr(error, "source", ""), str(error)
        if not failed[0]:
            problems.append(str(error))
    verdict = session.close(release)
    streams = []
    for name in rig.sources:
        rate, bytes_hz = rates.get(name, (0.0, 0.0))
        found = next((s for s in verdict.streams if s.name == name), None)
        is_seen = rate or (found is not None and found.host)
        if found is not None and found.rate_hz is not None and is_seen:
            rate = found.rate_hz  # as recorded: frames may be sent in bursts
        result = StreamCheck(
            name, rate, declared.get(name), bytes_hz,
            found.missing if found else 0, found.longest_lag_s if found else 0.0,
        )  # fmt: skip
        problem = _problem(result, found)
        if failed[0]:
            others = f"not checked to the end: source {failed[0]!r} failed"
            problem = failed[1] if name == failed[0] else others
        streams.append(replace(result, problem=problem))
    total = sum(s.bytes_hz for s in streams if s.stream in rig.recorded_here)
    free = shutil.disk_usage(where).free
    lasts = free / total if total else float("inf")
    if lasts < rig.expected_s:
        problems.append(
            f"the disk lasts {lasts:.0f} s at this rate and {rig.expected_s:.0f} s are "
            "expected: free space"
        )
    if run is not None:
        problems += _short_disks(rig, run.bytes_elsewhere, hosts, verdict.duration_s)
    if not failed[0]:
        problems += verdict.notes
    caution = caution_of(where.parent)
    notes = (caution,) if caution else ()
    return Preflight(tuple(streams), lasts, tuple(problems), notes)


def _short_disks(
    rig: Rig, nbytes: dict[str, int], hosts: HostsCheck, seconds: float
) -> list[str]:
    """Return which disks of other hosts are full before the rig's time is over."""
    found = []
    for host, written in nbytes.items():
        lasts = hosts.free.get(host, 0) * seconds / max(written, 1)
        if lasts < rig.expected_s:
            found.append(
                f"the disk of host {host!r} lasts {lasts:.0f} s at this rate and "
                f"{rig.expected_s:.0f} s are expected: free space there"
            )
    return found


def _refused(rig: Rig, hosts: HostsCheck, where: Path) -> Preflight:
    """Return the result of a rig that other hosts would not run."""
    streams = tuple(
        StreamCheck(
            name, 0.0, None, 0.0, 0, 0.0,
            hosts.sources.get(name, "not checked: another host does not do its part"),
        )
        for name in rig.sources
    )  # fmt: skip
    caution = caution_of(where.parent)
    return Preflight(
        streams, float("inf"), tuple(hosts.problems), (caution,) if caution else ()
    )


def _sent(rig: Rig, context: Context) -> dict[str, tuple[int, int]]:
    """Return the frames and bytes that each source has sent."""
    found = {}
    for name in rig.sources:
        try:
            statistics = Inspector(name, context).statistics()
        except FileNotFoundError:
            continue
        found[name] = statistics.sent, statistics.sent_bytes
    return found


def _declared(name: str, context: Context) -> float | None:
    """Return the rate of frames in a stream's labels, Hz."""
    from ataraxis.labels import frame_rate
    from ataraxis.stream import Consumer

    try:
        with Consumer(name, context=context, policy="latest") as reader:
            return frame_rate(reader.labels)
    except FileNotFoundError:
        return None


def _problem(found: StreamCheck, verdict: Any) -> str:
    wrong = []
    if not found.rate_hz:
        wrong.append("no frames")
    elif found.declared_hz is not None:
        off = found.rate_hz / found.declared_hz - 1
        if abs(off) > RATE_TOLERANCE:
            wrong.append(f"its rate is off by {off:+.0%}")
    if found.missing:
        wrong.append(f"{found.missing} frames missing")
    if found.longest_lag_s > LAG_S:
        wrong.append(f"its recorder was {found.longest_lag_s:.2g} s behind")
    if verdict is not None and not verdict.is_trusted and not wrong:
        wrong += verdict.notes
    return "; ".join(wrong)
