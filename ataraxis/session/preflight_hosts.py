"""`check_hosts`: what other hosts would say to a rig, before it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ataraxis.errors import AtaraxisError
from ataraxis.session.events import refuse_a_second
from ataraxis.session.rig import Rig, RigSource, module_of
from ataraxis.shm.context import Context

if TYPE_CHECKING:  # it imports the cluster
    from ataraxis.session.far_program import FarHost

_EXAMINE_S = 60.0


@dataclass
class HostsCheck:
    """What was found of the other hosts of a rig."""

    problems: list[str] = field(default_factory=list)
    """What is wrong with a host as a whole."""
    sources: dict[str, str] = field(default_factory=dict)
    """What is wrong with a source."""
    notes: list[str] = field(default_factory=list)
    """Remarks that are not problems."""
    free: dict[str, int] = field(default_factory=dict)
    """Free bytes where a host would record."""
    rig: Rig | None = None
    """The rig as this host runs it, once that is known."""


def check_hosts(rig: Rig, context: Context) -> HostsCheck:
    """Ask the other hosts of a rig whether they would do their parts.

    Parameters
    ----------
    rig : Rig
        The rig; it need not contradict itself.
    context : Context
        The context of the agent here.
    """
    from ataraxis.session.far_program import FarHost, name_of_this_host

    found = HostsCheck()
    if wrong := rig.problems():
        found.problems += wrong
        return found
    try:
        refuse_a_second("check", context)
        rig = found.rig = rig.on(name_of_this_host(context))
    except (AtaraxisError, OSError) as error:
        found.problems.append(str(error))
        return found
    for name in rig.hosts:
        host = FarHost(name, context, lambda text: None)
        try:
            _check_host(host.host, context, found)
            if not found.problems:
                _check_parts(rig, host, context, found)
        except (AtaraxisError, OSError) as error:
            found.problems.append(f"host {name!r}: {error}")
        finally:
            host.close()
    return found


def _check_host(host: str, context: Context, found: HostsCheck) -> None:
    """Check the way to a host, and its clock, as ``ataraxis doctor HOST`` does."""
    from ataraxis.cluster.door import ask_agent

    checks = ask_agent("examine", context=context, timeout=_EXAMINE_S, host=host)
    for check in checks:
        text = f"host {host!r}: {check['name']}: {check['found']}"
        is_unknown = check["name"] == "clock" and "not measured" in check["found"]
        if check["verdict"] == "fail" or is_unknown:
            found.problems.append(f"{text}: {check['advice']}")
        elif check["verdict"] == "warn":
            found.notes.append(f"{text}: {check['advice']}")
        elif check["name"] == "clock":
            found.notes.append(text)


def _check_parts(rig: Rig, host: FarHost, context: Context, found: HostsCheck) -> None:
    """Check the rights, modules and disks of a host for what is placed there."""
    from ataraxis.cluster.programs import COMMAND, RECORDER, SOURCE

    options: dict[str, Any]
    for recorder, names in rig.recordings():
        if recorder.host == host.host:
            options = {"name": "check", "streams": names}
            try:
                answer = host.ask("check", kind=RECORDER, options=options)
            except (AtaraxisError, OSError) as error:
                found.problems.append(f"recorder on host {host.host!r}: {error}")
            else:
                found.free[host.host] = int(answer["free"])
    for name, source in rig.sources.items():
        if source.host != host.host:
            continue
        kind, options = SOURCE, {"name": name, "node": source.node}
        if source.command:
            kind = COMMAND
            options = {"name": name, "module": module_of(source.command)[0]}
        try:
            if source.is_started:
                host.ask("check", kind=kind, options=options)
            if source.mirror != "none":
                _check_stream(name, source, host.host, context, found)
        except (AtaraxisError, OSError) as error:
            found.sources[name] = str(error)


def _check_stream(
    name: str, source: RigSource, host: str, context: Context, found: HostsCheck
) -> None:
    """Check that streams of a host may be read, and that one of them is there."""
    from ataraxis.cluster.door import ask_agent

    streams = ask_agent("streams", context=context, timeout=15.0, host=host)
    if source.is_started:
        return
    if source.stream not in [one["name"] for one in streams if not one["is_ended"]]:
        found.sources[name] = (
            f"host {host!r} has no stream {source.stream!r}: start its program there, "
            f"or see 'ataraxis ls {host}:'"
        )
