"""A peer of streams: how it is made, sends an array, and hands a message out.

A peer is made in the parent, so that both sides know its names; `sender` and `receiver`
run in their processes. A sender always starts from its own array; a receiver ends with
something that can be read in place: zero-copy peers are not made to copy.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from stream_race import Plan

_numbers = itertools.count()


class Peer:
    """One way from a process to another."""

    name: str
    address: int  # of the array that is sent
    root: ClassVar[str] = "/dev/shm"
    needs: ClassVar[str | None] = None  # the module it comes from
    package: ClassVar[str | None] = None  # and its distribution

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.id = f"axb{os.getpid()}x{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix="axbench-", dir=self.root))
        self.made()

    def made(self) -> None:
        """Prepare what both sides share."""

    def sender(self) -> Callable[[np.ndarray], Any]:
        raise NotImplementedError

    def receiver(self, spinning: bool) -> Callable[[], Any]:
        raise NotImplementedError

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def version(cls) -> str | None:
        """Return the version; None if it is not installed."""
        if cls.needs is None:
            return ""
        try:
            importlib.import_module(cls.needs)
            return importlib.metadata.version(cls.package or cls.needs)
        except ImportError:
            return None


def patiently(make: Callable[[], Any], *errors: type[BaseException]) -> Any:
    """Try until the other side is there; the sample's deadline ends it."""
    while True:
        try:
            return make()
        except errors:
            time.sleep(0.002)


class Ataraxis(Peer):
    name = "ataraxis"
    needs = "ataraxis.stream"
    package = "ataraxis"

    def sender(self):
        from ataraxis import Producer

        shape = (max(self.plan.size // 8, 1),)
        self.stream = Producer(
            self.id, shape=shape, dtype="u8", sync=True, context=self.folder,
            buffer_count=self.slots(),
        )  # fmt: skip
        return self.stream.send

    def slots(self) -> int | None:
        """Leave the number of slots to the library."""
        return self.plan.slots if self.plan.kind == "first use" else None

    def receiver(self, spinning):
        from ataraxis import Consumer

        self.stream = Consumer(self.id, context=self.folder, timeout=10)
        receive = self.stream.receive
        if not spinning:
            return receive

        def spin():
            while (frame := receive(False)) is None:
                pass
            return frame

        return spin


class AtaraxisLoan(Ataraxis):
    name = "ataraxis, next_to_send"

    def sender(self):
        super().sender()
        lend, copy = self.stream.next_to_send, np.copyto

        def send(data):
            with lend() as frame:
                copy(frame.array, data)

        return send


class AtaraxisBlocks(Ataraxis):
    name = "ataraxis, blocks"
    rows = 1024


OURS = [Ataraxis, AtaraxisLoan, AtaraxisBlocks]
