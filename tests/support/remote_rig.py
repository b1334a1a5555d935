"""Servers and clients for the tests of the remote API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datamux_rig import write_collection, write_csv

import ataraxis.datamux as dm

CODECS = ("frame", "json", "msgpack")
WHICH = {"subject": "A", "session": "1", "task": "1"}
EYES = ("eyes", "gaze", WHICH)


def folder(path: Path, rows: int = 30) -> Path:
    """A collection "eyes" of one recording; x counts."""
    write_csv(write_collection(path) / "A_1_1.csv", rows)
    return path


@contextmanager
def served(path: Path, **options: Any) -> Iterator[dm.Server]:
    """A server of the collections in a folder, in this process."""
    with dm.Server(dm.API(path, path), **options) as server:
        yield server


@contextmanager
def connected(server: Any, codec: str = "frame", **options: Any) -> Iterator[Any]:
    """A client of a server, or of a port of this machine."""
    port = server if isinstance(server, int) else server.port
    with dm.RemoteAPI("websocket", codec) as api:
        api.connect("127.0.0.1", port, **options)
        yield api


class ServeCommand:
    """``python -m ataraxis.datamux serve`` in a process, which ends with it."""

    def __init__(self, path: Path, *options: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "ataraxis.datamux", "serve",
                "-p", str(port), "--data_dir", str(path), "--meta_dir", str(path),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "serving on" not in line:
            self.process.kill()
            raise AssertionError(self.process.communicate())
        self.line = line.strip()
        self.port = int(line.partition("//")[2].split(",")[0].rpartition(":")[2])

    def __enter__(self) -> ServeCommand:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # it removes its token from the context
            try:
                self.process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """End it; return its exit code."""
        self.process.terminate()
        self.process.communicate(timeout=90)
        return self.process.returncode


def values(items: list[Any], name: str = "x") -> list[float]:
    return [item["value"][name] for item in items]


def joined(blocks: list[Any], name: str) -> np.ndarray:
    return np.concatenate([block.values[name] for block in blocks])
