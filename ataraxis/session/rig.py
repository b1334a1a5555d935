"""Rig: the sources, recorders, pipes and viewers of an experiment; ``rig.yaml``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from ataraxis.config import YamlConfig
from ataraxis.datamux.registry import BUILT_IN, check_options
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


@dataclass
class RigRecorder:
    """Streams that are recorded, and how durably."""

    streams: list[str] = field(
        default_factory=list, metadata={"help": "empty: every source of the rig"}
    )
    durability: Literal["os", "disk"] = "disk"
    process: bool = field(
        default=True,
        metadata={"help": "a separate process, restarted when it dies"},
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
            for name in recorder.streams or self.sources
        ]

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
    if source.command:
        if source.node or source.stream or source.attrs:
            return [f"{where}: give command, or node, stream and attrs, not both"]
        return []
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
