"""Rig: the sources, recorders, pipes and viewers of an experiment; ``rig.yaml``."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from ataraxis.config import YamlConfig
from ataraxis.datamux.registry import BUILT_IN, NODE_FILES, check_options
from ataraxis.errors import ConfigError
from ataraxis.session.alarms import RigAlarm, RigHeartbeat
from ataraxis.session.events import EVENTS
from ataraxis.session.output_device import problems_of_uri
from ataraxis.session.outputs import NAME_SIZE, SAFE
from ataraxis.shm.context import checked_name


@dataclass
class RigPulses:
    """A recorded line with one pulse for each frame of a source."""

    stream: str = field(metadata={"help": "stream that has the line"})
    line: str | int = field(metadata={"help": "channel or field, by name or number"})


@dataclass
class RigSource:
    """A live source, which a separate process passes into a stream."""

    node: str = field(
        default="",
        metadata={
            "help": "as 'ataraxis sources' lists them; a URI; or a *.node.yaml file"
        },
    )
    stream: str = field(default="", metadata={"help": "stream of the node"})
    attrs: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "options of the kind of source"}
    )
    samples: int | None = field(
        default=None, metadata={"help": "samples per frame; 1 by default"}
    )
    buffer_s: float = field(
        default=2.0, metadata={"units": "s", "help": "capacity of the ring"}
    )
    patience_s: float | None = field(
        default=None,
        metadata={"units": "s", "help": "wait for a lost source; without end"},
    )
    command: list[str] = field(
        default_factory=list,
        metadata={"help": "your program that makes the stream, instead of a node"},
    )
    pulses: RigPulses | None = field(
        default=None, metadata={"help": "a line that counts and times its frames"}
    )
    host: str | None = field(
        default=None, metadata={"help": "host of hosts.yaml that runs it, or has it"}
    )
    mirror: Literal["lossless", "latest", "none"] = field(
        default="lossless",
        metadata={"help": "which frames of another host's stream come here"},
    )
    away_s: float = field(
        default=600.0,
        metadata={"units": "s", "help": "on another host, it runs on alone so long"},
    )

    @property
    def is_started(self) -> bool:
        """Whether the rig starts it; else it is a stream that its host has."""
        return bool(self.node or self.command)


@dataclass
class RigRecorder:
    """Streams that are recorded, and how durably."""

    streams: list[str] = field(
        default_factory=list,
        metadata={"help": "empty: every source of the rig; or of its host"},
    )
    durability: Literal["os", "disk"] = "disk"
    process: bool = field(
        default=True,
        metadata={"help": "a separate process, restarted when it dies"},
    )
    host: str | None = field(
        default=None,
        metadata={"help": "host of hosts.yaml that records its own streams"},
    )


@dataclass
class RigStep:
    """One processor of a pipe."""

    name: str
    function: str = field(metadata={"help": "module:function, as Python imports it"})
    workers: int = 1
    ordered: bool = False
    host: str | None = field(
        default=None, metadata={"help": "host of hosts.yaml that runs it"}
    )
    tag: str | None = field(
        default=None, metadata={"help": "hosts that have this tag run it"}
    )


@dataclass
class RigPipe:
    """Functions in worker processes that take every frame of a stream."""

    stream: str
    steps: list[RigStep]
    event: str | None = field(
        default=None, metadata={"help": "name of the events of its results"}
    )


@dataclass
class RigViewer:
    """A program that reads streams; it is restarted if it ends before the rig."""

    command: list[str]


@dataclass
class RigOutput:
    """A device that takes commands, and the state to which a watchdog brings it."""

    safe: str = field(metadata={"help": "command that makes it safe, with line end"})
    uri: str = field(default="", metadata={"help": "serial:///dev/ttyUSB0?baud=115200"})
    command: list[str] = field(
        default_factory=list,
        metadata={"help": "your program that reads commands, instead of a uri"},
    )
    commands: dict[str, str] = field(
        default_factory=dict, metadata={"help": "by name, what is written"}
    )
    within_ms: float = field(
        default=50.0, metadata={"units": "ms", "help": "safe after so long at most"}
    )
    reply: str | None = field(
        default=None, metadata={"help": "pattern of the line that answers a command"}
    )
    timeout_ms: float = field(
        default=1000.0, metadata={"units": "ms", "help": "longest wait for a reply"}
    )


@dataclass
class Rig(YamlConfig):
    """A rig: its parts by name of stream, pipe, viewer and output.

    Examples
    --------
    >>> rig = Rig({"probe": RigSource("sim", "spikes", samples=100)})
    >>> rig.problems(), rig.recorded
    ([], {'probe': 'disk'})
    """

    sources: dict[str, RigSource] = field(default_factory=dict)
    recorders: list[RigRecorder] = field(default_factory=lambda: [RigRecorder()])
    pipes: dict[str, RigPipe] = field(default_factory=dict)
    viewers: dict[str, RigViewer] = field(default_factory=dict)
    outputs: dict[str, RigOutput] = field(default_factory=dict)
    alarms: list[RigAlarm] = field(default_factory=list)
    heartbeat: RigHeartbeat | None = field(
        default=None, metadata={"help": "a URL that is asked while the session lives"}
    )
    expected_s: float = field(
        default=3600.0, metadata={"units": "s", "help": "time the disk must last"}
    )

    @property
    def recorded(self) -> dict[str, Literal["os", "disk"]]:
        """Names of the streams to record, and how durably."""
        return {name: recorder.durability for name, recorder in self._recorder_of()}

    @property
    def recorded_here(self) -> list[str]:
        """Names of the streams that no other host records."""
        return [n for r, names in self.recordings() if r.host is None for n in names]

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts of its sources and recorders; others are this host's."""
        found = [source.host for source in self.sources.values()]
        found += [recorder.host for recorder in self.recorders]
        return list(dict.fromkeys(host for host in found if host is not None))

    @property
    def is_placed(self) -> bool:
        """Whether a part of it is placed on a host, so that it needs an agent."""
        steps = [step for pipe in self.pipes.values() for step in pipe.steps]
        return bool(self.hosts) or any(
            step.host is not None or step.tag is not None for step in steps
        )

    def on(self, me: str) -> Rig:
        """Return the rig as a host of its runs it: what is on that is local.

        Raises `ConfigError` if a stream of that host should get another name.
        """
        for name, source in self.sources.items():
            if source.host == me and not source.is_started and source.stream != name:
                raise ConfigError(
                    f"sources.{name}: host {me!r} is this one, where its stream "
                    f"{source.stream!r} keeps its name: name the source so"
                )
        sources = {
            name: replace(source, host=None) if source.host == me else source
            for name, source in self.sources.items()
            if source.host != me or source.is_started
        }
        recorders = []
        for recorder, names in self.recordings():
            is_mine = recorder.host in (None, me)
            host = None if is_mine else recorder.host
            recorders.append(replace(recorder, host=host, streams=names))
        return replace(self, sources=sources, recorders=recorders)

    def recordings(self) -> list[tuple[RigRecorder, list[str]]]:
        """Return the recorders, each with the names of its streams."""
        found = dict(self._recorder_of())
        return [
            (recorder, names)
            for recorder in self.recorders
            if (names := [name for name, by in found.items() if by is recorder])
        ]

    def _recorder_of(self) -> list[tuple[str, RigRecorder]]:
        return [
            (name, recorder)
            for recorder in self.recorders
            for name in recorder.streams or self._all_of(recorder)
        ]

    def _all_of(self, recorder: RigRecorder) -> list[str]:
        """Return what a recorder without a list records."""
        if recorder.host is not None:
            return [n for n, s in self.sources.items() if s.host == recorder.host]
        away = {
            name
            for other in self.recorders
            if other.host is not None
            for name in other.streams or self._all_of(other)
        }
        return [name for name in self.sources if name not in away]

    def problems(self) -> list[str]:
        """Return contradictions; streams of other programs may be named."""
        found = []
        for name in [*self.sources, *self.recorded, *self.pipes, *self.outputs]:
            try:
                checked_name(name)
            except ValueError as error:
                found.append(str(error))
        for name, pipe in self.pipes.items():
            if not pipe.steps:
                found.append(f"pipes.{name}: it has no steps")
            found += [
                f"pipes.{name}: {step.function!r} is not module:function"
                for step in pipe.steps
                if step.function.count(":") != 1
            ]
            found += [
                f"pipes.{name}: {step.name!r} has host and tag: give one of them"
                for step in pipe.steps
                if step.host is not None and step.tag is not None
            ]
        for name, source in self.sources.items():
            found += _problems_of(name, source)
        found += self._problems_of_places()
        found += [
            f"viewers.{name}: its command is empty"
            for name, viewer in self.viewers.items()
            if not viewer.command
        ]
        for name, output in self.outputs.items():
            found += _problems_of_output(name, output)
            if name in self.sources or name == EVENTS:
                found.append(
                    f"outputs.{name}: another stream of the rig has this name, and the "
                    "output's log needs it"
                )
        return found

    def _problems_of_places(self) -> list[str]:
        """Return what is wrong with what is mirrored, and what is recorded where."""
        found = []
        named: dict[str, set[str | None]] = {}
        for recorder in self.recorders:
            for name in recorder.streams:
                named.setdefault(name, set()).add(recorder.host)
                source = self.sources.get(name)
                if recorder.host is None or source is None:
                    continue
                if source.host != recorder.host:
                    found.append(
                        f"recorders: host {recorder.host!r} records its own streams, "
                        f"and source {name!r} is on "
                        + (f"host {source.host!r}" if source.host else "this one")
                        + ": give that recorder the host of its sources, or none"
                    )
                elif not source.is_started and source.stream != name:
                    found.append(
                        f"recorders: {name!r} is the stream {source.stream!r} on host "
                        f"{source.host!r}: name it so in both places"
                    )
        found += [
            f"recorders: {name!r} is recorded on several hosts: name it once"
            for name, hosts in named.items()
            if len(hosts) > 1
        ]
        reads = [(name, "a recorder") for name in self.recorded_here]
        reads += [(p.stream, f"pipe {name!r}") for name, p in self.pipes.items()]
        for name, who in reads:
            source = self.sources.get(name)
            if source is not None and source.host and source.mirror != "lossless":
                found.append(
                    f"sources.{name}.mirror: {source.mirror}: {who} here needs every "
                    "frame: leave it out, or give that the host of the source"
                )
        return found


_PYTHON = re.compile(r"python(3(\.\d+)?)?")


def module_of(command: list[str]) -> tuple[str, list[str]]:
    """Return module and arguments of a command ``[python, -m, MODULE, ...]``.

    Raises `ValueError` if it is another one.

    Examples
    --------
    >>> module_of(["python", "-m", "mylab.camera", "--gain", "3"])
    ('mylab.camera', ['--gain', '3'])
    """
    is_python = bool(command) and _PYTHON.fullmatch(os.path.basename(command[0]))
    if is_python and len(command) > 2 and command[1] == "-m":
        return command[2], command[3:]
    raise ValueError(
        f"{' '.join(command)!r} is not 'python -m MODULE ...': another host runs "
        "modules only, which its hosts.yaml must list"
    )


def _problems_of_output(name: str, output: RigOutput) -> list[str]:
    """Return what is wrong with an output, as far as known without opening it."""
    found = []
    if bool(output.uri) == bool(output.command):
        found.append("give a uri or a command, one of them")
    elif output.uri:
        found += problems_of_uri(output.uri)
    if SAFE in output.commands:
        found.append(f"commands.{SAFE}: the name is that of the safe command")
    for key, text in {SAFE: output.safe, **output.commands}.items():
        if not text:
            found.append(f"{key}: it is empty")
        elif output.command and not text.endswith("\n"):
            found.append(f'{key}: {text!r}: a program reads lines: end it by "\\n"')
        if not key or len(key) > NAME_SIZE:
            found.append(f"{key!r}: a name must have 1 to {NAME_SIZE} characters")
        if any(ord(character) > 255 for character in text):
            found.append(f"{key}: {text!r}: each character is one byte, up to \\xff")
    for key, value in (
        ("within_ms", output.within_ms),
        ("timeout_ms", output.timeout_ms),
    ):
        if not 0 < value < math.inf:
            found.append(f"{key}: must be more than 0 ms, got {value!r}")
    return [f"outputs.{name}: {text}" for text in found]


def _problems_of(name: str, source: RigSource) -> list[str]:
    """Return what is wrong with a source, as far as known without opening it."""
    where = f"sources.{name}"
    if source.host is None and source.mirror != "lossless":
        return [f"{where}.mirror: only the stream of another host is mirrored"]
    if source.host is not None and not 1 <= source.away_s <= 86400:
        return [f"{where}.away_s: must be 1 to 86400 s, got {source.away_s!r}"]
    if source.command:
        if source.node or source.stream or source.attrs:
            return [f"{where}: give command, or node, stream and attrs, not both"]
        if source.host is not None:
            try:
                module_of(source.command)
            except ValueError as error:
                return [f"{where}.command: {error}"]
        return []
    if source.host is not None and source.stream and not source.node:
        if source.attrs:
            return [f"{where}: attrs are for a node: the stream is there already"]
        if source.mirror == "none":
            return [f"{where}.mirror: none: nothing starts it, and nothing reads it"]
        return []
    if source.host is not None and source.node.endswith(NODE_FILES):
        return [
            f"{where}.node: {source.node!r} is a file here: put it into the catalog of "
            f"host {source.host!r}, and give its id"
        ]
    if not source.node or not source.stream:
        return [f"{where}: node and stream, or a command, are missing"]
    scheme = urlsplit(source.node).scheme or source.node
    kind = BUILT_IN.get(scheme)
    if kind is None or not kind.is_here:
        return []  # checked by the source's process
    try:
        check_options(kind.driver(), source.attrs, f"{where}.attrs")
    except ConfigError as error:
        return [str(error)]
    return []
