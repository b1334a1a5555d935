"""Targets of the processes that the configuration tests kill; started by spawn."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ataraxis.config import YamlConfig


@dataclass
class Plan(YamlConfig):
    """A configuration large enough that a torn write would show."""

    name: str = "a"
    steps: list[int] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def plan(name: str) -> Plan:
    """Make one of the two plans that the writer alternates between."""
    size = 150 if name == "a" else 40
    notes = {f"{name}{number}": "text " * 20 for number in range(size)}
    return Plan(name, list(range(size)), notes)


def write_for_ever(path: str) -> None:
    """Write both plans in turn until killed; says when the first is done."""
    whole_write = os.write
    # Short writes are legal; many of them make the time to be killed in long.
    os.write = lambda descriptor, data: whole_write(descriptor, data[:1])
    turn = 0
    while True:
        plan("ab"[turn % 2]).to_yaml(Path(path))
        if turn == 0:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        turn += 1


if __name__ == "__main__":
    write_for_ever(sys.argv[1])
