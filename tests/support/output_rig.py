"""A simulated device of an output, a rig with it, and controllers that are killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ataraxis import LogArchive
from ataraxis.session.outputs import OutputRecord
from ataraxis.session.rig import Rig, RigOutput

DEVICE = """
import sys, time
mode = sys.argv[2]
while line := sys.stdin.readline():
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic_ns()} {line.strip()}\\n")
    if line.startswith("V") and mode == "replies":
        print("ok", line.strip(), flush=True)
    elif mode == "refuses":
        print("ok" if line == "V0\\n" else "ERR 3", flush=True)
"""


@dataclass
class Device:
    """A program that writes down the lines that it gets, with monotonic stamps."""

    path: Path
    mode: str = "silent"
    _read: int = 0
    _lines: list[tuple[int, str]] = field(default_factory=list)

    def output(self, **more: Any) -> RigOutput:
        """Return the output of a rig with this device."""
        command = [sys.executable, "-u", "-c", DEVICE, str(self.path), self.mode]
        commands = {"open": "V1\n", "close": "V2\n"}
        return RigOutput("V0\n", command=command, commands=commands, **more)

    def rig(self, **more: Any) -> Rig:
        """Return a rig of this output alone."""
        return Rig(outputs={"valve": self.output(**more)})

    def lines(self) -> list[tuple[int, str]]:
        """Return stamps and lines."""
        if self.path.exists():
            with open(self.path, "rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(end)
            for row in whole.decode().splitlines():
                when, _, line = row.partition(" ")
                self._lines.append((int(when), line))
        return self._lines

    def commands(self) -> list[str]:
        """Return the lines."""
        return [line for _, line in self.lines()]


def records(directory: Path, name: str = "valve") -> list[OutputRecord]:
    """Read what a session has recorded of an output."""
    archive = LogArchive(directory)
    try:
        return [OutputRecord.of(row) for row in archive.read(name).data]
    finally:
        archive.close()
