"""One behaviour, written once, over every queue."""

from __future__ import annotations

import multiprocessing
from typing import Any

from ataraxis import MemQ
from ataraxis.testing.queues import QueueContract


class TestMemQ(QueueContract):
    def make(self, size: int) -> Any:
        return MemQ(buffer_count=size)


class TestStandardQueue(QueueContract):
    def make(self, size: int) -> Any:
        return multiprocessing.get_context("spawn").Queue(size)
