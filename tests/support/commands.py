"""Commands of the command line that are told to end by signals, and what they leave."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from deadline import wait_until

from ataraxis import Producer, Recorder
from ataraxis.log.archive import LogArchive
from ataraxis.session import Rig, SessionFolder
from ataraxis.session.rig import RigRecorder, RigSource
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream.inspector import Inspector

COMMANDS = ("record", "run", "proxy", "replay", "serve", "check")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAITED_S = 1.0
ENDS_S = 30.0
# Waits until handlers are there, so that a signal meets the command and not Python.
START = """
import sys
sys.argv[0] = "ataraxis"
from ataraxis.shm import process
enter = process.Ending.__enter__
def entered(self):
    made = enter(self)
    print("it heeds signals", file=sys.stderr, flush=True)
    return made
process.Ending.__enter__ = entered
from ataraxis.cli import main
main()
"""


class Camera:
    """A producer in this process that sends all the time, and measures its waits."""

    def __init__(self, name: str = "camera", *, hz: float = 200.0) -> None:
        self.producer = Producer(
            name, shape=(16,), dtype="u1", buffer_count=8, on_stall=lambda *_: None
        )
        self.longest_s, self.sent = 0.0, 0
        self._pause, self._over = 1 / hz, Latch()
        self._thread = Thread(self._run, "camera")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            began = time.monotonic()
            try:
                self.producer.send(np.full(16, self.sent % 256, "u1"), timeout=60)
            except TimeoutError:
                pass
            else:
                self.sent += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def goes_on(self) -> bool:
        before = self.sent
        state = self.producer.statistics()
        wait_until(lambda: self.sent > before + 2, 10, f"the camera to go on, {state}")
        return True

    def close(self) -> None:
        self._over.set()
        assert self._thread.join(70)
        self.producer.unlink()


class Command:
    """A command that runs; killed at the end of the ``with``."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
            env={**os.environ, **environment},
        )  # fmt: skip
        self.said = ""

    def expect(self, text: str, timeout: float = 60.0) -> None:
        """Wait until it has said something on its error channel."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        end = time.monotonic() + timeout
        while text not in self.said:
            assert time.monotonic() < end, f"never said {text!r}: {self.said}"
            if select.select([descriptor], [], [], 0.1)[0]:
                found = os.read(descriptor, 65536).decode()
                assert found, f"ended without {text!r}: {self.said}"
                self.said += found

    def end(self, timeout: float = ENDS_S) -> tuple[int, str]:
        """Wait for its end: exit code, and all it said."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out + self.said + err

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def session_of(directory: Path) -> Path:
    """Record something that can be replayed for 60 s."""
    producer = Producer("again", shape=(2,), dtype="i8")
    with Recorder("again", directory):
        for k in range(3):
            producer.send(np.full(2, k), time_ns=20 * k * 10**9)
    producer.unlink()
    return directory


def rig_of(directory: Path, *, process: bool = False) -> Path:
    """Write a rig of one simulated source."""
    recorder = RigRecorder(["probe"], process=process)
    path = directory / "rig.yaml"
    Rig({"probe": RigSource("sim", "ramp", samples=50)}, [recorder]).to_yaml(path)
    return path


def arguments_of(command: str, place: Path) -> list[str]:
    """Return what a command is called with; it lasts until it is told to end."""
    if command == "record":
        return ["record", "camera", "-o", str(place / "log")]
    if command == "run":
        return ["run", str(rig_of(place)), "--name", "s", "-o", str(place)]
    if command == "proxy":
        return ["proxy", "sim", "sine", "-o", str(place / "log")]
    if command == "replay":
        return ["replay", str(session_of(place / "log"))]
    if command == "serve":
        return ["serve", "-p", "0"]
    return ["check", str(rig_of(place)), "--soak", "60", "-o", str(place)]


@contextlib.contextmanager
def upstream(command: str) -> Iterator[Camera | None]:
    """Lend a camera to a command that records one."""
    camera = Camera() if command == "record" else None
    try:
        yield camera
    finally:
        if camera is not None:
            camera.close()


def ended_in_order(
    command: str, number: int, times: int, after_s: float, place: Path
) -> float:
    """Send a command a signal so often, after some time; how long its end took, s."""
    began = 0.0
    with upstream(command) as camera:
        with Command(*arguments_of(command, place)) as running:
            running.expect("it heeds signals")
            time.sleep(after_s)
            began = time.monotonic()
            for k in range(times):
                time.sleep(0.02 * k)
                running.process.send_signal(number)
            code, said = running.end()
            took = time.monotonic() - began
        assert code in (0, 1), said
        assert "Traceback" not in said, said
        if camera is not None:
            assert camera.goes_on()
            assert camera.longest_s < WAITED_S, said
            assert not Inspector("camera").statistics().readers, said
    _reads_back(command, times, code, said, place)
    return took


def _reads_back(command: str, times: int, code: int, said: str, place: Path) -> None:
    """Whether what was written is whole, and is what the command says."""
    if command == "record" and (place / "log").exists():
        with contextlib.closing(LogArchive(place / "log")) as archive:
            count = len(archive.read("camera").data) if archive.sources else 0
        told = re.search(r"camera: (\d+) frames recorded", said)
        assert told is not None, said
        assert int(told[1]) == count
        assert (code == 0) is ("not on the disk" not in said), said
    if command == "proxy" and (place / "log").exists() and "sine: " in said:
        with contextlib.closing(LogArchive(place / "log")) as archive:
            assert "sine" in {source.name for source in archive.sources.values()}
    if command == "run" and (place / "s").exists():
        verdict = SessionFolder(place / "s").verdict()
        assert verdict is not None, said
        assert code == (not verdict.is_trusted), said
    if command == "check":
        left = {path.name for path in place.iterdir()}
        assert left == {"rig.yaml"}, said
        assert code == 1, said
    if command == "serve" and times == 1:
        assert code == 0, said


def unlink_what_may_stay(context: Path) -> None:
    """Remove streams whose frames no reader has read: their names stay by intent."""
    for name in ("again", "sine", "sine.clock"):
        with contextlib.suppress(FileNotFoundError):
            (context / name).unlink()
