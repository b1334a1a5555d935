"""Checks of the way between two hosts, for ``ataraxis doctor HOST``."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ataraxis.clock import now_ns
from ataraxis.cluster.control import HostContact
from ataraxis.cluster.status import MirrorStatistics
from ataraxis.errors import AtaraxisError
from ataraxis.labels import frame_rate
from ataraxis.link.certificates import read_certificate
from ataraxis.link.hosts import Hosts
from ataraxis.link.outlet_run import OutletRun
from ataraxis.shm.doctor import Check

RATE_BYTES = 1 << 20
"""Bytes of an answer to the question for the rate."""
RING_S = 2.0
"""A ring shorter than this does not bridge the restart of an agent, s."""
_REACH_S = 5.0
_TRIES = 8
_SLOW = 10e6
_DAYS = 30
_WIDE_NS = 1_000_000
_NEAR_FULL = 0.8


def examine_host(
    contact: HostContact, hosts: Hosts, mirrors: Sequence[MirrorStatistics]
) -> list[Check]:
    """Check reach, certificate, clock and rate of a host, its spool, and mirrors here.

    Parameters
    ----------
    contact : HostContact
        The host.
    hosts : Hosts
        Has this host's certificate.
    mirrors : sequence of MirrorStatistics
        The mirrors here of its streams.
    """
    checks = [_certificate(hosts)]
    began = time.monotonic()
    try:
        far = contact.ask("examine", _REACH_S)["checks"]
    except (AtaraxisError, OSError) as error:
        advice = (
            f"is 'ataraxis agent' running there, with this lab's hosts.yaml? Does "
            f"{contact.address} lead there, and does a firewall let it pass?"
        )
        return [*checks, Check("reach", "fail", str(error), advice)]
    found = (
        f"{contact.address} answered after {(time.monotonic() - began) * 1e3:.3g} ms"
    )
    checks += [Check("reach", "ok", found), _clock(contact), _rate(contact)]
    for fields in far:
        verdict: Literal["ok", "warn"] = "ok" if fields["verdict"] == "ok" else "warn"
        found, advice = str(fields["found"]), str(fields["advice"])
        checks.append(Check(str(fields["name"]), verdict, found, advice))
    return checks + [_mirror(one) for one in mirrors]


def _certificate(hosts: Hosts) -> Check:
    try:
        facts = read_certificate(hosts.certificate_path)
    except (AtaraxisError, ImportError) as error:
        return Check("certificate", "warn", str(error), "see the message")
    left = facts.not_after - datetime.datetime.now(datetime.UTC)
    found = f"of {facts.name!r}, expires in {left.days} days"
    advice = (
        f"make a new one where 'hosts init' ran: 'ataraxis hosts add DIR {hosts.me}=..."
    )
    if left.days < 0:
        return Check("certificate", "fail", found, advice)
    return Check("certificate", "warn" if left.days < _DAYS else "ok", found,
                 advice if left.days < _DAYS else "")  # fmt: skip


def _clock(contact: HostContact) -> Check:
    deadline = time.monotonic() + 2
    while (offset := contact.offset()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if offset is None:
        return Check("clock", "warn", "not measured yet", "try again in some seconds")
    bound = offset.bound_at(now_ns())
    found = (
        f"{offset.offset_ns / 1e9:+.6f} s, known to {bound / 1e3:.3g} us, drift "
        f"{offset.drift * 1e6:+.3g} ppm"
    )
    if bound > _WIDE_NS:
        advice = "the way is slow, or one of the hosts is busy: use a wired network"
        return Check("clock", "warn", found, advice)
    return Check("clock", "ok", found)


def _rate(contact: HostContact) -> Check:
    began = time.monotonic()
    try:
        for _ in range(_TRIES):
            contact.ask("rate", _REACH_S)
    except (AtaraxisError, OSError) as error:
        return Check("rate", "warn", str(error), "see the message")
    rate = _TRIES * RATE_BYTES / (time.monotonic() - began)
    found = f"{rate / 1e6:.3g} MB/s or more"
    if rate < _SLOW:
        return Check("rate", "warn", found, "a camera needs more: use a wired network")
    return Check("rate", "ok", found)


def _mirror(one: MirrorStatistics) -> Check:
    what = f"mirror {one.name}"
    found = f"{one.state}, {one.frames:,} frames, {one.behind_frames:,} behind"
    if one.state in ("lost", "disconnected") or one.problem:
        return Check(what, "warn", f"{found}; {one.problem}", "see 'ataraxis hosts'")
    return Check(what, "ok", found)


# ---- asked by another host


def checks_here(host: str, hosts: Hosts, runs: Sequence[OutletRun]) -> list[Check]:
    """Check what this host does for the mirrors of another one: disk and rings."""
    spool = hosts.spool
    place = Path(spool.directory).expanduser()
    while not place.exists() and place != place.parent:
        place = place.parent
    used = sum(run.spooled_bytes for run in runs)
    free, limit = shutil.disk_usage(place).free, spool.limit()
    found = f"{used:,} of {limit:,} bytes used, {free:,} free on its disk"
    checks = [Check("its spool", "ok", found)]
    if used >= _NEAR_FULL * limit or free < limit - used:
        advice = "make room there, or change 'spool:' in its hosts.yaml"
        checks = [Check("its spool", "warn", found, advice)]
    mine = [r for r in runs if any(key.host == host for key in r.outlet.mirrors)]
    return checks + [_ring(run) for run in mine]


def _ring(run: OutletRun) -> Check:
    """Check that a ring bridges the restart of an agent."""
    consumer, what = run.consumer, f"ring of {run.stream}"
    rate = None if consumer is None else frame_rate(consumer.labels)
    if consumer is None or not rate:
        return Check(what, "ok", "its rate is not known")
    seconds = consumer.buffer_count / rate
    found = f"{consumer.buffer_count} slots, {seconds:.2g} s"
    if seconds >= RING_S:
        return Check(what, "ok", found)
    advice = (
        f"its producer waits when the agent there restarts: make it with "
        f"buffer_seconds={RING_S:g}"
    )
    return Check(what, "warn", found, advice)
