"""A view of this test's context: its process, and a page that is a program."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from deadline import wait_until
from websockets.sync.client import ClientConnection, connect

from ataraxis.viewer import bundle

COMMAND = [sys.executable, "-W", "error", "-c", "from ataraxis.cli import main; main()"]


class ViewProcess:
    """A process of ``ataraxis view``."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "view", "--no-open", "--json", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.url = json.loads(line)["url"]
        parts = urlsplit(self.url)
        self.port, self.pid = parts.port, self.process.pid
        self.token = parse_qs(parts.query)["token"][0]
        self.origin = f"http://127.0.0.1:{self.port}"

    def ask(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers and body of the answer."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        line.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for key, value in {"Host": f"127.0.0.1:{self.port}", **headers}.items():
            line.putheader(key, value)
        line.endheaders()
        answer = line.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        line.close()
        return found

    @contextmanager
    def page(self) -> Iterator[PageProgram]:
        """Open a page that is a program of the test."""
        url = f"ws://127.0.0.1:{self.port}/socket?token={self.token}"
        with connect(url, origin=self.origin, compression=None, max_size=None) as line:
            yield PageProgram(line)

    def memory(self) -> int:
        """Return the bytes of memory that it has."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) * 1024

    def stop(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        _, problems = self.process.communicate(timeout=20)
        assert problems == ""
        return self.process.returncode

    def __enter__(self) -> ViewProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class PageProgram:
    """A page without a browser: it reads bundles, and acknowledges them or not."""

    def __init__(self, line: ClientConnection) -> None:
        self.line = line
        self.parts: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.bundles = 0

    def show(self, panel: int, stream: str, kind: str = "traces", **more: Any) -> None:
        self.send(op="show", panel=panel, stream=stream, kind=kind, **more)

    def send(self, **message: Any) -> None:
        self.line.send(json.dumps(message))

    def take(self, timeout: float = 10, *, acknowledges: bool = True) -> bool:
        """Take one bundle; return False if none came within `timeout`, s."""
        try:
            data = self.line.recv(timeout=timeout)
        except TimeoutError:
            return False
        head, parts = bundle.decode(data)
        self.bundles += 1
        self.parts += [p for p in parts if p["kind"] != bundle.STATE]
        for part in parts:
            if part["kind"] == bundle.STATE:
                self.state.update(part["state"])
        if acknowledges:
            self.send(op="ack", tick=head["tick"])
        return True

    def take_on(self) -> None:
        """Take bundles without an end, and acknowledge none."""
        while True:
            self.take(acknowledges=False)

    def take_until(self, condition: Any, timeout: float = 20) -> None:
        """Take bundles until a condition is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.take(timeout=0.5)
            assert time.monotonic() < deadline, "waited in vain"

    def of(self, panel: int) -> list[dict[str, Any]]:
        """Return the parts of a panel so far."""
        return [part for part in self.parts if part["panel"] == panel]


def readers_of(stream: str) -> list[str]:
    """Return the labels of the readers of a stream."""
    from ataraxis.stream.inspector import Inspector

    return [reader.label for reader in Inspector(stream).statistics().readers]


def wait_for_reader(stream: str, label: str = "view") -> None:
    wait_until(lambda: label in readers_of(stream), 15, f"reader {label} of {stream}")


# ---- what is shown


@contextmanager
def repeating(step: Callable[[int], object], period_s: float) -> Iterator[None]:
    """Call a function from a thread, again and again."""
    is_over = threading.Event()

    def run() -> None:
        k = 0
        while not is_over.is_set():
            step(k)
            k += 1
            is_over.wait(period_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def probe_block(k: int, channels: int, samples: int = 300) -> np.ndarray:
    """A block with waves and some spikes."""
    t = (np.arange(samples) + k * samples) / 30_000
    rng = np.random.default_rng(k)
    wave = 60 * np.sin(2 * np.pi * 3 * t[:, None] + np.arange(channels) / 20)
    block = wave + rng.normal(0, 12, (samples, channels))
    for channel in rng.integers(0, channels, channels // 8):
        at = rng.integers(0, samples - 20)
        block[at : at + 20, channel] -= 350 * np.exp(-((np.arange(20) - 6) ** 2) / 12)
    return block.astype("i2")


def picture(k: int) -> np.ndarray:
    """A picture of a mouse in an arena."""
    y, x = np.mgrid[:480, :640]
    light = np.where(((y - 240) / 222) ** 2 + ((x - 320) / 285) ** 2 < 1, 170, 40)
    mouse = np.hypot(y - 240 - 90 * np.sin(k / 40), x - 320 - 150 * np.cos(k / 30))
    return (
        (light - 160 * np.exp(-((mouse / 24) ** 2)).clip(0, 1))
        .clip(0, 255)
        .astype("u1")
    )
