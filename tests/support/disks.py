"""A disk that stalls or fails, for log writers started afterwards."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from places import TESTS
from workers_logger import accepted

from ataraxis import DataLogger, LogPackage

SHIM = TESTS / "shims" / "stall.c"


class Disk:
    """The disk as writers see it, through `shims/stall.c`."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("a disk that stalls needs gcc")
        shim = where / "stall.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", shim, SHIM, "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self._stall, self._refuse = where / "stall", where / "refuse"
        self._lose = where / "lose"
        monkeypatch.setenv("LD_PRELOAD", str(shim))
        monkeypatch.setenv("STALL", str(self._stall))
        monkeypatch.setenv("REFUSE", str(self._refuse))
        monkeypatch.setenv("LOSE", str(self._lose))

    @contextmanager
    def stalled(self, seconds: float) -> Iterator[threading.Event]:
        """Stall for some time; the event is set at the end."""
        over = threading.Event()

        def end() -> None:
            self._stall.unlink()
            over.set()

        self._stall.touch()
        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            yield over
        finally:
            timer.join()

    def refusing(self) -> AbstractContextManager[None]:
        """Deny permission for every write."""
        return _existing(self._refuse)

    def losing(self) -> AbstractContextManager[None]:
        """Accept every write, and fail every sync."""
        return _existing(self._lose)


@contextmanager
def _existing(file: Path) -> Iterator[None]:
    """Create a file for the duration of the block."""
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def package(number: int) -> LogPackage:
    return LogPackage(1, number, np.frombuffer(b"%05d" % number * 40, np.uint8))


def a_logger(path: Path, **options) -> DataLogger:
    """Return a logger whose writer has written entry 0."""
    # A slot has room for one package.
    logger = DataLogger(path / "log", buffer_count=4, buffer_size=200, **options)
    logger.start()
    logger.input_queue.put(package(0))
    wait_until(lambda: logger.statistics().written == 1, 30, "a writer")
    return logger


def through_a_stall(disk: Disk, path: Path, layout: str, seconds: float) -> None:
    """Put during a stall: nothing is lost, and timeouts hold."""
    logger = a_logger(path, layout=layout)
    number, longest, late = 1, 0.0, 0
    with disk.stalled(seconds) as over:
        while not over.is_set():
            began = time.monotonic()
            try:
                logger.input_queue.put(package(number), timeout=0.1)
                number += 1
            except TimeoutError:
                late += 1
            longest = max(longest, time.monotonic() - began)
    assert late > 0
    assert longest < 1
    while number < 400:
        logger.input_queue.put(package(number))
        number += 1
    logger.stop()
    assert accepted(logger.output_directory) == [
        b"%05d" % i * 40 for i in range(number)
    ]
    logger.close()
