"""A camera before, with and after its recorder; none of its frames is missing.

At full figures 50 times each, for every `on_full`: 640 x 480 at 200 a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ataraxis import LogArchive, Recorder
from ataraxis.clock import Anchor
from ataraxis.session.verdict import judge

STRESS = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
TIMES = max(1, round(50 * STRESS))
AFTER_S = 5.0 if STRESS >= 1 else 0.5
CAMERA = """
import sys, time, warnings
import numpy as np
from ataraxis import Producer
from ataraxis.errors import QueueFull

warnings.simplefilter("ignore")
on_full, n = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()
sent = given_up = 0
with Producer("camera", shape=(480, 640), dtype="u1", on_full=on_full,
              buffer_count=40, attrs={"rate_hz": 200}) as camera:
    picture, began = np.zeros((480, 640), "u1"), time.monotonic()
    for k in range(n):
        picture[0, :8] = np.frombuffer(k.to_bytes(8, "little"), "u1")
        try:
            done = camera.send(picture)
        except QueueFull:
            done = False
        sent, given_up = sent + done, given_up + (not done)
        time.sleep(max(0, began + (k + 1) / 200 - time.monotonic()))
    refused = camera.statistics().refused
    print(sent, given_up, refused, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("on_full", ["block", "raise", "drop_newest"])
@pytest.mark.parametrize("when", ["before", "with", "after"])
@pytest.mark.parametrize("time_", range(TIMES))
def test_a_camera_is_recorded_to_the_frame(
    tmp_path: Path, on_full: str, when: str, time_: int
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", CAMERA, on_full, "100"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert program.stdin is not None
    assert program.stdout is not None

    def begin() -> None:
        assert program.stdin is not None
        program.stdin.write("go\n")

    timer = threading.Timer(AFTER_S if when == "after" else 0, begin)
    timer.start()
    if when == "before":
        timer.join()
        time.sleep(0.2)
    with Recorder("camera", tmp_path, timeout=60) as recorder:
        sent, given_up, refused = map(int, program.stdout.readline().split())
        program.stdin.write("end\n")
        recorder.wait(60)
    program.communicate()
    timer.join()
    verdict = judge(tmp_path, Anchor.take())
    found = verdict["camera"]
    with LogArchive(tmp_path) as log:
        numbers = log.read("camera").sequence.tolist()
    # Of those sent since it had joined, or was announced, none is missing.
    assert numbers == list(range(found.late, sent))
    assert found.received == sent - found.late
    lost = refused if on_full == "drop_newest" else 0
    assert given_up == lost or on_full == "raise"
    assert (found.expected, found.missing) == (sent - found.late + lost, lost)
    if when == "after":
        assert found.late == 0
    assert verdict.is_trusted == (not lost)
