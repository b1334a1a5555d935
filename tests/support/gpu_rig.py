"""A stream, a driver and a library of GPUs that there are not."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deadline import wait_until

from ataraxis.gpu.drivers import use_driver
from ataraxis.gpu.libraries import use_library
from ataraxis.gpu.watcher import watcher
from ataraxis.testing.gpu import FakeLibrary, FakePinDriver

# The package whose arrays those of the fake are, by their module.
PACKAGE = "ataraxis"


@contextmanager
def fake_driver(**options: bool) -> Iterator[FakePinDriver]:
    """Use a driver; at the end nothing is registered."""
    with use_driver(FakePinDriver(**options)) as driver:
        yield driver
        wait_until(lambda: not driver.registered, what="the end of every registration")


@contextmanager
def fake_library() -> Iterator[FakeLibrary]:
    """Use a library in place of PyTorch and CuPy; at the end no copy is under way."""
    with (
        FakeLibrary() as library,
        use_library("torch", library),
        use_library("cupy", library),
        use_library(PACKAGE, library),
    ):
        yield library
        library.go()
        wait_until(copies_are_over, what="the end of every copy")


def copies_are_over() -> bool:
    """Whether the watcher has given back everything."""
    found = watcher()
    return found.ended == found.begun


def in_child(function: Any) -> None:
    """Fork, and call it there; its exceptions fail the test."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(30)
    assert process.exitcode == 0
