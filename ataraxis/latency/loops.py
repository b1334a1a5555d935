"""Devices that send back what they get: a serial loop, and one of LSL."""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ataraxis.datamux.block import Block
from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.sources.lsl import LslOutlet, LslSource
from ataraxis.datamux.sources.serial import SerialSource
from ataraxis.errors import SourceNotFound
from ataraxis.latency.task import START_S, LatencyTask, taking_part
from ataraxis.shm.process import is_readable

LOST_S = 1.0
"""An event that is not back after this long is lost, s."""


class DeviceLoop(Protocol):
    """A device that sends back what it gets."""

    def exchange(self, event: int) -> bool:
        """Send an event, and wait until it is back; False: it is lost."""

    def silence(self, count: int) -> str:
        """Return the message when `count` events in a row were lost."""

    def close(self) -> None:
        """Release the device."""


def loop_of(task: LatencyTask) -> DeviceLoop | None:
    """Open the loop of a task, if it has one."""
    if task.loop == "serial":
        return SerialLoop(task.port, task.baud)
    return LslLoop(f"ataraxis-latency-{os.getpid()}") if task.loop == "lsl" else None


def _is_back(source: Any, row: Any, event: int) -> bool:
    """Read until an event comes; later copies of earlier ones are dropped."""
    end = time.monotonic() + LOST_S
    while (left := end - time.monotonic()) > 0:
        if source.read_into(row, timeout=left) and row[0, 0] == event:
            return True
    return False


class SerialLoop:
    """A serial port whose output is connected to its input.

    An event is its number in a line of text, through the driver of serial boards.

    Raises `SourceNotFound` if the port cannot be opened, and `ModuleNotFoundError`
    without pyserial.
    """

    def __init__(self, port: str, baud: int = 115200) -> None:
        stream = Stream("loop", fields={"event": Field(dtype="i64")})
        self._source = SerialSource(port, stream, {"baud": str(baud)})
        self._port = port
        self._row = np.zeros((1, 1), np.int64)
        try:
            self._source.open()
        except SourceNotFound as error:
            raise SourceNotFound(
                f"{error}; give the port of a loop-back plug, or leave --serial out: "
                "a pseudo-terminal takes its place"
            ) from error

    def exchange(self, event: int) -> bool:
        """Send an event, and wait until it is back; False: it is lost."""
        self._source.command(b"%d\n" % event, timeout=0)
        return _is_back(self._source, self._row, event)

    def silence(self, count: int) -> str:
        """Return the message when `count` events in a row were lost."""
        return (
            f"serial port {self._port!r}: {count} events in a row were sent, and none "
            f"came back within {LOST_S:g} s each ({self._source.malformed} damaged "
            "lines came); connect its output to its input (pins 2 and 3 of a DE-9 "
            "plug), and give the right --baud"
        )

    def close(self) -> None:
        """Close the port."""
        self._source.close()


class LslLoop:
    """An LSL outlet of this process, and an inlet that reads it."""

    def __init__(self, name: str) -> None:
        self._stream = Stream(name, fields={"event": Field(dtype="f64")})
        self._outlet: LslOutlet | None = LslOutlet(self._stream, source_id=name)
        self._source = LslSource(name, {"source_id": name}, timeout=START_S)
        self._source.open()
        self._row = np.zeros((1, 1))
        self._time = np.zeros(1)

    def exchange(self, event: int) -> bool:
        """Send an event, and wait until it is back; False: it is lost."""
        assert self._outlet is not None
        sample = {"event": np.array([event], np.float64)}
        self._outlet.put([Block(self._stream, self._time, sample)], _never)
        return _is_back(self._source, self._row, event)

    def silence(self, count: int) -> str:
        """Return the message when `count` events in a row were lost."""
        return (
            f"LSL: {count} events in a row were sent, and none came back within "
            f"{LOST_S:g} s each; check that this machine's firewall lets LSL connect "
            "to itself"
        )

    def close(self) -> None:
        """Disconnect; the outlet is gone."""
        self._source.close()
        self._outlet = None


def _never() -> bool:
    return False


# ---- a pseudo-terminal in place of a port with a plug


@contextmanager
def pseudo_port(start: Callable[[int], object]) -> Iterator[str]:
    """Make a pseudo-terminal, and yield its path, which is opened as a serial port.

    `start` starts the process that runs `plug` with the descriptor it is given.
    """
    plug_end, port_end = os.openpty()
    try:
        tty.setraw(port_end)
        start(plug_end)
        yield os.ttyname(port_end)
    finally:
        os.close(plug_end)
        os.close(port_end)


def plug(text: str, descriptor: str) -> None:
    """Run the plug: send back all bytes at once; an entry of `ataraxis.shm.process`."""
    number = int(descriptor)
    with taking_part(text):
        while True:
            if is_readable(number, START_S) and (data := os.read(number, 4096)):
                os.write(number, data)
