"""A recorder that was there first has a stream from its first frame on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from deadline import wait_until

from ataraxis import Consumer, Producer, Recorder, Session
from ataraxis.log.verification import verify
from ataraxis.stream.announcement import PREFIX, Announcement, announced

N = 40


def send(name: str = "cam", n: int = N, **options: object) -> Producer:
    producer = Producer(name, shape=(), dtype="i8", buffer_count=4, **options)  # type: ignore[arg-type]
    for k in range(n):
        producer.send(k)
    return producer


# A process of its own may take longer to start than a producer waits for it: kept for.
# Beside other work, it may also read late.
@pytest.mark.filterwarnings("ignore:stream .* has waited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:stream .* was announced:RuntimeWarning")
@pytest.mark.parametrize("process", [False, True])
def test_a_session_that_waits_misses_none_of_the_first_frames(
    tmp_path: Path, context: Path, process: bool
) -> None:
    with Session("s", directory=tmp_path) as s:
        s.record("cam", "other", process=process)
        for _ in range(3):  # made again, it begins at its first frame again
            send().close()
            wait_until(lambda: not (context / "cam").exists(), 20, "all of it")
        send("other").close()
    for name, times in (("cam", 3), ("other", 1)):
        verdict = s.verdict[name]
        assert verdict.is_trusted, s.verdict
        assert verdict.expected == verdict.received == N * times
        assert verdict.late == 0


def test_streams_of_one_recorder_may_come_in_any_order(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    made: list[Producer] = []

    def make() -> None:
        for name in reversed(names):
            began = time.monotonic()
            made.append(send(name))
            assert time.monotonic() - began < 1.9

    wait_until(lambda: True, 1, "")
    maker = threading.Timer(0.2, make)
    maker.start()
    with Recorder(names, tmp_path, timeout=20):
        maker.join()
        for producer in made:
            producer.close()
    assert [s.received for s in verify(tmp_path).sources] == [N] * 3
    assert len(made) == 3


def test_a_reader_that_joins_late_is_named_and_kept_for(tmp_path: Path) -> None:
    with Announcement("cam", "slow"):
        began = time.monotonic()
        with pytest.warns(RuntimeWarning, match="'slow' was announced"):
            producer = Producer("cam", 8, 4, join_timeout=0.2)
        assert 0.15 < time.monotonic() - began < 2
    for k in range(4):
        producer.send(b"%d" % k)
    with pytest.raises(TimeoutError):
        producer.send(b"4", timeout=0.05)
    assert "slow" in [r.label for r in producer.statistics().readers]
    with Consumer("cam", durable="slow") as reader:
        assert reader.receive(timeout=5).read() == b"0"
    producer.unlink()


def test_a_dead_reader_that_was_announced_is_not_waited_for(context: Path) -> None:
    code = (
        "from ataraxis.stream.announcement import Announcement; import time\n"
        "kept = Announcement('cam', 'dead'); print('up', flush=True); time.sleep(60)"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"up\n"
    assert [one.durable for one in announced("cam")] == ["dead"]
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    program.stdout.close()
    assert [p.name for p in context.iterdir() if p.name.startswith(PREFIX)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Producer("cam", 8, 4, join_timeout=60).unlink()
    assert not list(context.iterdir())


def test_an_announcement_for_another_stream_keeps_no_frames() -> None:
    with Announcement("other", "recorder"):
        began = time.monotonic()
        Producer("cam", 8, 4, join_timeout=60).unlink()
        assert time.monotonic() - began < 30


def test_an_interrupted_wait_leaves_no_stream(context: Path) -> None:
    with Announcement("cam", "never"):
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            Producer("cam", 8, 4, join_timeout=60)
        timer.join()
        (left,) = context.iterdir()
        assert left.name.startswith(PREFIX)


def test_a_recorder_that_gives_up_leaves_no_announcement(
    tmp_path: Path, context: Path
) -> None:
    with pytest.raises(TimeoutError, match="'cam' did not appear"):
        Recorder("cam", tmp_path, timeout=0.1)
    with pytest.raises(FileNotFoundError):
        Recorder("cam", tmp_path)
    s = Session("s", directory=tmp_path)
    s.record("cam")
    assert any(p.name.startswith(PREFIX) for p in context.iterdir())
    s.close()
    assert not list(context.iterdir())
    assert "never existed" in s.verdict["cam"].notes[0]


@pytest.mark.parametrize("other", [True, False])
def test_frames_given_up_before_it_joined_are_not_missing(
    tmp_path: Path, other: bool
) -> None:
    with Producer("cam", 8, 4, on_full="drop_newest") as cam:
        slow = Consumer("cam", policy="lossless")
        for _ in range(9):
            cam.send(b"x")
        assert cam.statistics().refused == 5
        if not other:
            slow.close()
        for _ in range(2 if other else 1):  # stopped, and back
            with Recorder("cam", tmp_path) as recorder:
                if not other:
                    wait_until(lambda r=recorder: r.statistics()["cam"].frames, 20, "x")
                cam.send(b"y")
        slow.close()
    (report,) = verify(tmp_path).sources
    assert report.missing == (2 if other else 0)
