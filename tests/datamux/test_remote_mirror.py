"""A remote stream mirrored into shared memory is read like a local one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from remote_rig import ServeCommand, served

from ataraxis import Consumer, Producer
from ataraxis.clock import now_ns
from ataraxis.datamux import Mirror
from ataraxis.errors import SegmentNotFound, SourceNotFound

LABELS = {
    "dims": ("mouse", "axis"),
    "coords": {"axis": ["x", "y", "z"]},
    "attrs": {"units": "mm", "rate_hz": 100.0},
}
# A mirror over a websocket that is asked for every frame warns; see the last test.
pytestmark = pytest.mark.filterwarnings("ignore:the mirror of .* loses frames")


@pytest.fixture
def there(tmp_path):
    """The context of the other machine."""
    path = tmp_path / "there"
    path.mkdir(mode=0o700)
    return path


def pose(there):
    return Producer(
        "pose", shape=(4, 3), dtype="f4", context=there, buffer_count=64, **LABELS
    )


def test_a_mirror_has_the_same_frames_and_labels(there, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir(mode=0o700)
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(there))
    with pose(there) as producer, served(tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with (
            Mirror(url, "pose", "pose2", context=here) as mirror,
            Consumer("pose2", context=here, policy="lossless") as consumer,
        ):
            assert consumer.labels == producer.labels
            wait_until(lambda: producer.subscriber_count == 1)
            for k in range(50):
                producer.send(np.full((4, 3), k, "f4"))
            for k in range(50):
                frame = consumer.receive(timeout=20)
                assert (frame.array == k).all()
                assert frame.device_sequence == k
                frame.release()
            producer.end()
            assert mirror.wait(20).reason == "completed"
            assert consumer.receive(timeout=20) is None
    with pytest.raises(SegmentNotFound):
        Consumer("pose2", context=here, timeout=0)


def test_blocks_are_mirrored_with_their_arrival_here(there, tmp_path, monkeypatch):
    """A shorter one, which a mirror cannot pass on, ends it with an error."""
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(there))
    here = tmp_path / "here"
    here.mkdir(mode=0o700)
    attrs = {"sample_rate_hz": 1000, "stamp_of": "sample"}
    daq = Producer("daq", shape=(4, 2), dims=("time", "axis"), attrs=attrs)
    with daq, served(tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with (
            Mirror(url, "daq", context=here) as mirror,
            Consumer("daq", context=here, policy="lossless") as reader,
        ):
            wait_until(lambda: daq.subscriber_count == 1)
            assert reader.labels.attrs == {**attrs, "stamp_of": "arrival"}
            before = now_ns()
            daq.send(np.zeros((4, 2)), time_ns=17)
            block = reader.read_block(4, timeout=20)
            assert before <= block.time_ns[-1] <= now_ns()
            daq.send(np.ones((1, 2)))
            end = mirror.wait(20)
            assert end.reason == "failed"
            assert "shape (1, 2)" in str(end)


@pytest.mark.parametrize("attrs", [None, {"policy": "lossless"}])
def test_a_mirror_that_should_lose_nothing_warns(attrs, there, tmp_path, monkeypatch):
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(there))
    with pose(there), served(tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}"
        here = tmp_path / "here"
        here.mkdir(mode=0o700)
        with pytest.warns(UserWarning, match=r"ataraxis\.cluster\.Mirror"):
            Mirror(url, "pose", context=here, attrs=attrs).close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Mirror(url, "pose", context=here, attrs={"policy": "latest"}).close()


def test_a_mirror_of_nothing_says_what_there_is(there, tmp_path, monkeypatch):
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(there))
    with pose(there), served(tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(SourceNotFound, match="did you mean 'pose'"):
            Mirror(url, "poze", context=tmp_path)
        with pytest.raises(ValueError, match="ws://host:port"):
            Mirror("http://x", "pose", context=tmp_path)


def test_the_commands(there, context, tmp_path, monkeypatch):
    """``serve`` there, ``mirror`` here, a consumer; Ctrl-C ends the mirror."""
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(there))
    token = tmp_path / "token"
    serve = ("-c", "frame", "--token-file", str(token))
    with pose(there) as producer, ServeCommand(tmp_path, *serve) as server:
        monkeypatch.setenv("ATARAXIS_CONTEXT", str(context))
        command = [str(Path(sys.executable).with_name("ataraxis"))]
        url = f"ws://127.0.0.1:{server.port}"
        mirror = subprocess.Popen(
            [*command, "mirror", url, "pose", "--token-file", str(token)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert re.match("mirroring 'pose'", mirror.stdout.readline())
            with Consumer("pose", policy="lossless", timeout=20) as consumer:
                wait_until(lambda: producer.subscriber_count == 1)
                producer.send(np.ones((4, 3), "f4"))
                frame = consumer.receive(timeout=20)
                assert frame.array.sum() == 12
                frame.release()
            mirror.send_signal(signal.SIGINT)
            assert mirror.wait(20) == 0
        finally:
            mirror.kill()
            mirror.communicate()
        refused = subprocess.run(
            [*command, "mirror", url, "nonsense", "--token-file", str(token)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert refused.returncode == 1
        assert "no stream 'nonsense'" in refused.stderr
        assert server.end() == 0
