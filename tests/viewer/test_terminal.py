"""`ataraxis tail` and `ataraxis hz`: a stream as lines, and no producer waits."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from view_rig import COMMAND, repeating, wait_for_reader

from ataraxis import Producer
from ataraxis.session.events import EventStream
from ataraxis.viewer.terminal import BARS, numbers_of, printable, spark

pytestmark = pytest.mark.slow


class Command:
    """A command that runs beside the test."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def output(self, timeout: float = 30) -> list[str]:
        out, problems = self.process.communicate(timeout=timeout)
        assert (self.process.returncode, problems) == (0, "")
        return out.splitlines()


def test_tail_prints_frames_until_the_stream_ends() -> None:
    with Producer("pose", shape=(3,), dtype="f4", buffer_count=64) as pose:
        with Command("tail", "pose", "--most", "0") as command:
            wait_for_reader("pose")
            for k in range(3):
                pose.send(np.array([k, k + 1, k + 2], "f4"))
            pose.end()
            lines = command.output()
        pose.unlink()
    assert len(lines) == 3
    assert "#1  float32 3  1 to 3, mean 2  ▁▅█" in lines[1]


def test_tail_prints_events_and_escapes_them() -> None:
    events = EventStream()
    with Command("tail", "events", "-n", "2", "--most", "0", "--json") as command:
        wait_for_reader("events")
        events.send("stim_on", trial=3)
        events.send("\x1b[31m", trial=4)
        first, second = (json.loads(line) for line in command.output())
    events.producer.unlink()
    assert first["text"] == 'stim_on  {"trial": 3}'
    assert second["text"].startswith("\\x1b[31m")
    assert (first["sequence"], second["sequence"], second["skipped"]) == (0, 1, 0)


def test_tail_says_what_it_does_not_show() -> None:
    with Producer("fast", 64, 256) as fast:
        with Command("tail", "fast", "-n", "2", "--most", "5") as command:
            wait_for_reader("fast")
            with repeating(lambda k: fast.send(b"x%d" % k), 0.005):
                first, second = command.output()
        fast.unlink()
    assert "bytes  b'x" in first
    assert "(+" in second


def test_hz_measures_by_the_stamps() -> None:
    with Producer("tick", shape=(), buffer_count=256) as tick:
        with Command("hz", "tick", "--interval", "0.5", "-n", "2", "--json") as command:
            wait_for_reader("tick")
            with repeating(lambda k: tick.send(1.0, time_ns=k * 4_000_000), 0.002):
                lines = [json.loads(line) for line in command.output()]
        tick.unlink()
    assert len(lines) == 2
    for line in lines:
        if line["frames"] > 1:
            assert line["mean_ms"] == pytest.approx(4.0)
            assert line["missed"] == 0
    assert sum(line["frames"] for line in lines) > 2


def test_hz_draws_the_rates_and_ends_with_ctrl_c() -> None:
    with Producer("tick", shape=(), buffer_count=256) as tick:
        with Command("hz", "tick", "--interval", "0.2") as command:
            wait_for_reader("tick")
            with repeating(lambda k: tick.send(1.0), 0.01):
                assert command.process.stdout is not None
                line = command.process.stdout.readline()
                command.process.send_signal(signal.SIGINT)
                command.output()
        tick.unlink()
    assert line.startswith("tick  ")
    assert line.rstrip()[-1] in BARS


@pytest.mark.parametrize("name", ["tail", "hz"])
def test_a_stream_that_is_not_there_is_an_error(name: str, context: Path) -> None:
    done = subprocess.run(
        [*COMMAND, name, "nothing"], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_values_in_words() -> None:
    assert numbers_of(np.array([np.nan, np.inf])) == "not a finite number"
    assert numbers_of(np.array(["a", "b"])) == "['a', 'b']"
    assert numbers_of(np.array([1, 5, 2])).startswith("1 to 5, mean 2.667")
    assert spark([]) == spark([np.nan]) == ""
    assert len(spark(np.arange(1000))) == 16
    spike = np.zeros(1000)
    spike[500] = -9
    assert BARS[0] in spark(spike), "a single extreme is seen"
    assert printable("a\n\x1b" * 50).startswith("a\\n\\x1b")
