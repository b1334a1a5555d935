"""A peer of streams: how it is created, sends an array, and returns a message.

A peer is created in the parent, so that both sides know its names; `sender` and
`receiver` run in their processes. A sender starts from its own array; a receiver
returns memory that can be read in place: zero-copy peers are not made to copy.
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
    """One way to send arrays from one process to another."""

    name: str
    address: int  # of the array to send
    root: ClassVar[str] = "/dev/shm"
    needs: ClassVar[str | None] = None  # the module it comes from
    package: ClassVar[str | None] = None  # the distribution of the module

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.id = f"axb{os.getpid()}x{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix="axbench-", dir=self.root))
        self.made()

    def made(self) -> None:
        """Prepare objects that both sides share."""

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


def retry(make: Callable[[], Any], *errors: type[BaseException]) -> Any:
    """Retry until the other side exists; the sample's deadline ends the wait."""
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
        """Let the library choose the number of slots."""
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
        claim, copy = self.stream.next_to_send, np.copyto

        def send(data):
            with claim() as frame:
                copy(frame.array, data)

        return send


class AtaraxisBlocks(Ataraxis):
    name = "ataraxis, blocks"
    rows = 1024


OURS = [Ataraxis, AtaraxisLoan, AtaraxisBlocks]
