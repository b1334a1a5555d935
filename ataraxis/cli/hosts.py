"""Commands of several hosts: hosts, agent, and the halves of others that ask them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ataraxis.cli.options import as_json_too, in_context, say, showing_errors
from ataraxis.shm.process import Ending

if TYPE_CHECKING:
    from ataraxis.cluster.mirror import Mirror

_TRY_S = 1.0
_LOOK_S = 0.25
_FILE = click.Path(path_type=Path, dir_okay=False)
_of_file = click.option(
    "--hosts", "file", type=_FILE, metavar="FILE",
    help="hosts.yaml of this host. [default: $ATARAXIS_HOSTS, ~/.config/ataraxis]",
)  # fmt: skip
_ADDRESS = "NAME=ADDRESS"


# ---- hosts


@click.group(invoke_without_command=True, short_help="Show the hosts of the lab.")
@in_context
@as_json_too
@click.pass_context
def hosts(asked: click.Context, context: str | None, as_json: bool) -> None:
    """Show the hosts of the lab, their clocks, the mirrors, and the edges of pipes.

    Without a command: what the agent of the context sees. `init`, `add` and `revoke`
    make and change the files of hosts.
    """
    if asked.invoked_subcommand is not None:
        return
    from ataraxis import screen
    from ataraxis.cluster.status import agent_reading

    with showing_errors():
        found = agent_reading(context)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    for table in screen.agent(found):
        screen.console().print(table)


@hosts.command(short_help="Make an authority, and the files of each host.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("addresses", nargs=-1, required=True, metavar=f"{_ADDRESS}...")
@click.option("--lab", help="Name of the lab. [default: that of DIRECTORY]")
def init(directory: Path, addresses: tuple[str, ...], lab: str | None) -> None:
    """Make DIRECTORY with the lab's authority and a folder for each host.

    Each folder holds a hosts.yaml, a certificate and its key (mode 0600): carry it to
    that host, and nowhere else. Keep the rest of DIRECTORY where only you can read it:
    it can make and revoke hosts.
    """
    from ataraxis.link.hosts import Hosts

    found = dict(map(_pair, addresses))
    with showing_errors(ValueError):
        Hosts.create(directory, lab or directory.absolute().name, found)
    for name in found:
        click.echo(
            f"{directory / name}: carry it to {name!r} ({found[name]}), then there: "
            f"ataraxis agent --hosts {name}/hosts.yaml"
        )


@hosts.command(short_help="Add a host to the lab.")
@click.argument("directory", type=click.Path(path_type=Path, exists=True))
@click.argument("address", metavar=_ADDRESS)
def add(directory: Path, address: str) -> None:
    """Add a host to the lab of DIRECTORY, as `init` made it.

    The hosts.yaml of the other hosts change too: copy them again, or add the line of
    the new host there, and restart the agents.
    """
    from ataraxis.link.hosts import Hosts

    name, place = _pair(address)
    with showing_errors(ValueError):
        Hosts.load(_any_of(directory)).add(name, place)
    click.echo(f"{directory / name}: carry it to {name!r} ({place})")


@hosts.command(short_help="Take a host's certificate back.")
@click.argument("directory", type=click.Path(path_type=Path, exists=True))
@click.argument("name")
def revoke(directory: Path, name: str) -> None:
    """Refuse the certificate of host NAME on all hosts of the lab of DIRECTORY.

    Copy the hosts.yaml of the others again: their agents see it at once. Restart them
    before a successor of the host comes.
    """
    from ataraxis.link.hosts import Hosts

    with showing_errors(ValueError):
        Hosts.load(_any_of(directory, but=name)).revoke(name)
    click.echo(f"{name!r} is revoked: copy the other hosts' hosts.yaml again")


@hosts.command(short_help="Keep nothing for a host that does not return.")
@in_context
@click.argument("name")
def forget(context: str | None, name: str) -> None:
    """Keep no frames for the mirrors of host NAME any more; they are lost to it.

    Until then streams here wait for its mirrors, on the disk and then in their rings.
    """
    from ataraxis.cluster.door import ask_agent

    with showing_errors(ValueError):
        ask_agent("forget", context=context, host=name)
    click.echo(f"nothing is kept for the mirrors of {name!r}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals or not name or not address:
        raise click.BadParameter(f"{text!r} is not {_ADDRESS}, as acq=192.0.2.10")
    return name, address


def _any_of(directory: Path, but: str = "") -> Path:
    """Return the hosts.yaml of one host of a directory that `init` made."""
    if directory.is_file():
        return directory
    found = [*sorted(directory.glob("*/hosts.yaml")), directory / "hosts.yaml"]
    for path in found:
        if path.exists() and path.parent.name != but:
            return path
    raise click.ClickException(
        f"{directory} holds no hosts.yaml of a host: give the directory that 'ataraxis "
        "hosts init' made"
    )


# ---- agent


@click.command(short_help="Serve the streams of this host to the lab.")
@in_context
@_of_file
def agent(context: str | None, file: Path | None) -> None:
    """Serve streams of the context to other hosts, and mirror theirs, until Ctrl-C.

    One agent runs in a context. Without a hosts.yaml nothing listens. If it is killed,
    nothing is lost: start it again (systemd: Restart=always).
    """
    from ataraxis.cluster.agent import Agent
    from ataraxis.link.hosts import Hosts

    with (
        showing_errors(ValueError, ImportError),
        Ending(is_last=True) as ending,
        Agent(Hosts.load(file), context=context, say=_report) as made,
    ):
        say(f"agent of host {made.name!r} listens on {made.address}")
        while not ending.first.wait(_TRY_S):
            pass


def _report(text: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {text}", is_error=True)


# ---- ls HOST:, doctor HOST


def list_host(host: str, context: str | None, as_json: bool) -> None:
    """Print the streams of another host, as ``ataraxis ls HOST:`` does."""
    from ataraxis import screen
    from ataraxis.cluster.door import ask_agent

    with showing_errors():
        rows = ask_agent("streams", context=context, timeout=20.0, host=host)
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        screen.console().print(screen.remote_streams(rows))
    else:
        click.echo(f"host {host!r} has no streams")


def examine_host(host: str, context: str | None, as_json: bool) -> None:
    """Print the checks of another host; exit code 1 if one fails."""
    from ataraxis import screen
    from ataraxis.cluster.door import ask_agent
    from ataraxis.shm.doctor import Check

    with showing_errors():
        rows = ask_agent("examine", context=context, timeout=60.0, host=host)
    found = [Check(**row) for row in rows]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        screen.console().print(screen.checks(found))
    sys.exit(any(check.verdict == "fail" for check in found))


# ---- mirror HOST:STREAM


def place_of_stream(text: str) -> tuple[str, str]:
    """Return host and stream of ``HOST:STREAM``; refuse another text."""
    host, colon, stream = text.partition(":")
    if not colon or not host or not stream:
        raise click.BadParameter(
            f"{text!r} is neither HOST:STREAM, as acq:camera, nor a URL with a stream"
        )
    return host, stream


def mirror_host(
    source: str,
    name: str | None,
    context: str | None,
    *,
    is_ending: bool,
    timeout: float | None,
    **options: Any,
) -> None:
    """Mirror ``HOST:STREAM`` until its end or Ctrl-C; detached: until its end."""
    from ataraxis.cluster.mirror import drop_mirror

    host, stream = place_of_stream(source)
    here = name or stream
    if is_ending:
        with showing_errors():
            drop_mirror(here, context=context)
        click.echo(f"the mirror {here!r} has ended")
        return
    with showing_errors(ValueError), Ending(is_last=True) as ending:
        mirror = wait_for_mirror(
            stream, host, name, context, ending.first.is_set, timeout, **options
        )
        if mirror is None:
            return
        with mirror:
            if options.get("detached"):
                click.echo(f"{source} is here as {here!r}; the agent keeps it")
                return
            click.echo(f"mirroring {source} as {here!r}")
            while not ending.first.is_set():
                try:
                    end = mirror.wait(_LOOK_S)
                except TimeoutError:
                    continue
                found = mirror.statistics()
                if end.reason != "completed":
                    raise click.ClickException(f"{source}: {end.reason}: {end.error}")
                say(f"{source} has ended: {found.frames} frames, {found.lost} lost")
                sys.exit(bool(found.lost))


def wait_for_mirror(
    stream: str,
    host: str,
    name: str | None,
    context: str | None,
    is_over: Callable[[], bool],
    timeout: float | None,
    **options: Any,
) -> Mirror | None:
    """Return a mirror once the stream is here; None: `is_over` came first."""
    from ataraxis.cluster.mirror import Mirror
    from ataraxis.errors import HostUnavailable

    end = None if timeout is None else time.monotonic() + timeout
    told = ""
    while not is_over():
        left = _TRY_S if end is None else min(end - time.monotonic(), _TRY_S)
        try:
            return Mirror(
                stream,
                host,
                name=name,
                context=context,
                timeout=max(left, 0),
                **options,
            )
        except (TimeoutError, HostUnavailable) as error:
            if left < _TRY_S or "no agent runs" in str(error):
                raise
            if not told:
                told = f"waiting for {host}:{stream}: {error}"
                say(told, is_error=True)
    return None
