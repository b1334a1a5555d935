"""MomentumX's nineteen failures of death, data and memory: here they do not happen.

The numbers are those of the study of MomentumX 2.9.1. A flaw that has its test beside
the feature it belongs to is named in that test's docstring; the others are here.
"""

from __future__ import annotations

import ast
import gc
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from places import TESTS
from programs import Program

from ataraxis.errors import LayoutError
from ataraxis.stream import Consumer, Producer, StreamExists, StreamUnavailable

LIMIT_S = 1.0


@pytest.fixture
def three() -> Iterator[Producer]:
    """A lossy stream of MomentumX's least number of buffers."""
    producer = Producer("s", 16, 3)
    yield producer
    producer.unlink()


def test_every_flaw_has_a_test() -> None:
    named: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = ast.get_docstring(node) or ""
                for numbers in re.findall(r"[Ff]laws? ([\d, and]+)", text):
                    named |= {int(n) for n in re.findall(r"\d+", numbers)}
    assert named >= set(range(1, 20)), f"no test: {set(range(1, 20)) - named}"


# ---- death


def test_readers_of_a_killed_producer_do_not_hang() -> None:
    """Flaw 1: a blocked and a new consumer get what was sent, then the end."""
    code = """
    import time
    from ataraxis.stream import Producer
    stream = Producer("s", 8, 4, True)
    stream.send(b"1")
    print("sent", flush=True)
    time.sleep(60)
    """
    with Program(code) as program:
        program.expect("sent")
        early = Consumer("s")
        assert early.receive().read() == b"1"
        ended: list[float] = []
        thread = threading.Thread(
            target=lambda: ended.append(time.monotonic()) or early.receive()
        )
        thread.start()
        wait_until(lambda: ended)
        program.process.kill()
        program.process.wait()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    late = Consumer("s")
    assert [frame.read() for frame in late] == [b"1"]
    assert not early.has_next
    assert not late.has_next
    late.close()
    early.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_dead_producers_name_is_free(number: signal.Signals, context: Path) -> None:
    """Flaw 2: whatever killed it, the name can be used at once, and nothing is left."""
    code = """
    import time
    from ataraxis.stream import Producer
    stream = Producer("s", 1000, 10)
    stream.send(b"1")
    print("sent", flush=True)
    time.sleep(60)
    """
    with Program(code) as program:
        program.expect("sent")
        with pytest.raises(StreamExists):
            Producer("s", 8, 4)
        program.process.send_signal(number)
        program.process.wait()
        Producer("s", 8, 4).unlink()
    assert os.listdir(context) == []


READER = """
import time
from ataraxis.stream import Consumer
consumer = Consumer("s", policy={policy!r}, timeout=20)
held = [consumer.receive() for _ in range({hold})]
print("here", flush=True)
time.sleep(60)
"""


def test_a_killed_reader_stalls_no_process() -> None:
    """Flaw 3: producer and other readers go on; it is not a subscriber any more."""
    stream = Producer("s", 8, 4, True)
    other = Consumer("s")
    with Program(READER.format(policy="lossless", hold=0)) as program:
        program.expect("here")
        assert stream.subscriber_count == 2
        for k in range(4):
            stream.send(str(k).encode())
            assert other.receive().read() == str(k).encode()
        assert stream.next_to_send(blocking=False) is None
        program.process.kill()
        program.process.wait()
    began = time.monotonic()
    for _ in range(100):
        assert stream.send(b"x", timeout=5)
        assert other.receive(timeout=5).read() == b"x"
    assert time.monotonic() - began < LIMIT_S
    assert stream.subscriber_count == 1
    new = Consumer("s", start="latest")
    other.close()
    for k in range(8):
        assert stream.send(str(k).encode(), timeout=5)
        assert new.receive(timeout=5).read() == str(k).encode()
    new.close()
    stream.unlink()


def test_what_a_killed_viewer_held_comes_back() -> None:
    """Flaw 4: its slots are used again, and a late joiner gets no stale frame."""
    stream = Producer("s", 8, 8)
    for _ in range(3):
        for k in range(8):
            stream.send(str(k).encode())
        with Program(READER.format(policy="lossy", hold=8)) as program:
            program.expect("here")
            # Whatever it holds: the producer of a lossy stream never waits.
            for _ in range(50):
                assert stream.send(b"more", timeout=5)
            program.process.kill()
            program.process.wait()
        wait_until(lambda: stream.subscriber_count == 0)  # looks for the dead
    skipped = stream.statistics().skipped
    for k in range(100, 116):
        assert stream.send(str(k).encode(), timeout=0)
    assert stream.statistics().skipped == skipped
    late = Consumer("s")
    assert [late.receive().read() for _ in range(8)] == [
        str(k).encode() for k in range(108, 116)
    ]
    late.close()
    stream.unlink()


def test_a_stopped_viewer_freezes_no_process() -> None:
    """Flaw 5: nothing that a stopped process holds is waited for."""
    stream = Producer("s", 8, 4)
    code = """
    from ataraxis.stream import Consumer
    consumer = Consumer("s", timeout=20)
    print("here", flush=True)
    while consumer.receive(): pass
    """
    with Program(code) as program:
        program.expect("here")
        for _ in range(40):
            program.process.send_signal(signal.SIGSTOP)
            for _ in range(12):
                assert stream.send(b"x", timeout=5)
            program.process.send_signal(signal.SIGCONT)
            assert stream.send(b"x", timeout=5)
    stream.unlink()


@pytest.mark.parametrize("end", ["consumer.receive()", "stream.next_to_send()"])
def test_handlers_run_while_a_call_waits(end: str) -> None:
    """Flaw 7: the seed's handler, which sets an event, without `cancel_event`."""
    code = f"""
    import signal, threading
    from ataraxis.stream import Consumer, Producer
    seen = threading.Event()
    stream = Producer("s", 8, 1, True)
    consumer = Consumer("s")
    stream.send(b"1") if "next_to_send" in {end!r} else None
    def handler(number, frame):
        seen.set()
        stream.send(b"2") if "receive" in {end!r} else consumer.receive().release()
    signal.signal(signal.SIGUSR1, handler)
    print("ready", flush=True)
    assert {end} is not None
    assert seen.is_set()
    stream.unlink()
    """
    with Program(code) as program:
        program.expect("ready")
        program.wait_until_asleep()
        program.process.send_signal(signal.SIGUSR1)
        program.succeed(10)


# ---- loss and wrong data


@pytest.mark.parametrize("sent", range(1, 12))
def test_three_buffers_and_a_reader_that_came_early(sent: int, three: Producer) -> None:
    """Flaw 8: what is unread is received, and then there is nothing more."""
    consumer = Consumer("s")
    for k in range(sent):
        three.send(str(k).encode())
    three.end()
    got = []
    while consumer.has_next:
        frame = consumer.receive(timeout=5)
        if frame is None:
            break
        got.append(int(frame.read()))
        assert len(got) <= sent
    assert got == list(range(sent))[-len(got) :]
    assert len(got) >= min(sent, 2)
    assert len(got) + consumer.dropped_count == sent
    assert not consumer.has_next
    assert consumer.receive() is None


def test_a_ring_overrun_before_the_first_reader() -> None:
    """Flaw 9: it begins with what is there, and misses nothing from then on."""
    stream = Producer("s", 8, 4, True)
    for k in range(11):
        assert stream.send(str(k).encode(), timeout=5)
    first, late = Consumer("s"), Consumer("s")
    for consumer in (first, late):
        begin = int(consumer.receive(timeout=5).read())
        assert begin >= 7
        for k in range(begin + 1, 11):
            assert int(consumer.receive(timeout=5).read()) == k
        assert consumer.receive(blocking=False) is None
        assert consumer.dropped_count == 0
    for k in range(11, 40):
        assert stream.send(str(k).encode(), timeout=5)
        assert [int(c.receive(timeout=5).read()) for c in (first, late)] == [k, k]
    first.close()
    late.close()
    stream.unlink()


def test_what_is_kept_of_a_sent_buffer_changes_nothing() -> None:
    """Flaw 12: not an array over it, and not the frame's own array."""
    stream = Producer("s", shape=(4,), dtype="u4", buffer_count=3)
    consumer = Consumer("s", policy="lossless")
    kept = []
    for k in range(9):
        buffer = stream.next_to_send()
        buffer[4:8] = (100 + k).to_bytes(4, "little")
        array = np.frombuffer(buffer, "u4")
        assert array.tolist() == [0, 100 + k, 0, 0]
        array[2:] = 7
        buffer[0] = k
        assert buffer.array.tolist() == [k, 100 + k, 7, 7]
        assert buffer[:16] == array.tobytes()
        buffer.send(16)
        array[:] = 9
        frame = consumer.receive()
        array[:] = 10
        assert frame.array.tolist() == [k, 100 + k, 7, 7]
        kept.append(array)
        with stream.next_to_send() as buffer:
            own = buffer.array
            own[:] = k
            assert memoryview(buffer).cast("I").tolist() == [k] * 4
        with pytest.raises(ValueError, match="read-only"):
            own[:] = 9
        assert consumer.receive().array.tolist() == [k] * 4
    assert all(array.tolist() == [10] * 4 for array in kept)
    del buffer, own, frame
    consumer.close()
    stream.unlink()


def test_stamps_are_there(three: Producer) -> None:
    """Flaw 14: a frame says when it was made; a late reader has dropped nothing."""
    before = time.monotonic_ns()
    for _ in range(1000):
        three.send(b"x")
    late = Consumer("s")
    frame = late.receive()
    assert before <= frame.data_timestamp == frame.time_ns <= time.monotonic_ns()
    assert late.dropped_count == 0


# ---- memory


def test_steps_and_bounds_are_those_of_bytes(three: Producer) -> None:
    """Flaws 15, 16: any slice is bytes' own; no cursor leaves the slot."""
    whole = bytes(range(15))
    consumer = Consumer("s")
    buffer = three.next_to_send()
    buffer.write(whole)
    buffer[15] = 15
    whole += b"\x0f"
    bounds = [None, 0, 1, 2, 5, 15, 16, 40, -1, -3, -16, -40, 1 << 62, -(1 << 62)]
    steps = [None, 1, 2, 3, -1, -2, -16, 1 << 62]
    slices = [slice(a, b, c) for a in bounds for b in bounds for c in steps]
    assert all(buffer[s] == whole[s] for s in slices)
    for position in (2**64 - 16, 2**64 - 70000, -1, 17):
        with pytest.raises((ValueError, OverflowError)):
            buffer.seek(position)
    buffer.seek(16)
    buffer.send()
    frame = consumer.receive()
    assert all(frame[s] == whole[s] for s in slices)
    assert frame[:] == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\0" * 81920, b"ATRXSHM\x01", os.urandom(9000)],
    ids=["empty", "short", "zeros", "magic", "noise"],
)
def test_a_file_that_is_not_a_stream(content: bytes, context: Path) -> None:
    """Flaw 17: it is refused, and a producer does not take it for its own."""
    path = context / "s"
    path.write_bytes(content)
    with pytest.raises(LayoutError, match="s"):
        Consumer("s")
    with pytest.raises((LayoutError, StreamExists)):
        Producer("s", 8, 4)
    assert path.read_bytes() == content
    path.unlink()


def test_a_stream_cut_short_or_of_another_version(context: Path) -> None:
    """Flaw 17: every byte of the header counts, and so does the file's length."""
    stream = Producer("s", 8, 4)
    whole = (context / "s").read_bytes()
    copy = context / "copy"
    for size in (0, 1, 63, 64, 2048, 4095, 4096, len(whole) // 2, len(whole) - 1):
        copy.write_bytes(whole[:size])
        with pytest.raises(LayoutError):
            Consumer("copy")
    for place in (0, 8, 12, 14, 16, 20, 24, 0x3FC):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        copy.write_bytes(broken)
        with pytest.raises(LayoutError):
            Consumer("copy")
    copy.unlink()
    stream.unlink()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("a\0b", 8, 4), ValueError),
        (("", 8, 4), ValueError),
        (("a/b", 8, 4), ValueError),
        (("..", 8, 4), ValueError),
        (("s", 8, 0), ValueError),
        (("s", 8, -1), ValueError),
        (("s", 8, 1 << 62), ValueError),
        (("s", -1, 4), ValueError),
        (("s", 2**62, 4), ValueError),
        (("s", 2**43, 4), OSError),
        (("s", 2**45, 1 << 30), (OSError, ValueError, OverflowError)),
    ],
)
def test_impossible_arguments(
    arguments: tuple[str, int, int], error: type[Exception], context: Path
) -> None:
    """Flaw 17: what cannot be is refused before anything is touched."""
    with pytest.raises(error):
        Producer(*arguments)
    assert os.listdir(context) == []


@pytest.fixture
def small(context: Path) -> Iterator[Path]:
    """A tmpfs of 4 MB."""
    path = context / "small"
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        path.rmdir()
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield path
    gc.collect()
    subprocess.run(["umount", path], check=True)
    path.rmdir()


def test_memory_that_is_not_there(small: Path) -> None:
    """Flaw 17: a full tmpfs is an error at once, and never a SIGBUS later."""
    with pytest.raises(OSError, match="free"):
        Producer("s", 1 << 20, 8, context=small)
    assert os.listdir(small) == []
    stream = Producer("s", 1 << 20, 3, context=small)
    (small / "rest").write_bytes(bytes(600_000))
    consumer = Consumer("s", context=small)
    for k in range(12):
        stream.send(bytes([k]) * (1 << 20))
        assert consumer.receive()[-1] == k
    consumer.close()
    stream.unlink()
    (small / "rest").unlink()


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_planted_symlink(is_dangling: bool, context: Path, tmp_path: Path) -> None:
    """Flaw 18: neither a producer nor a consumer follows it."""
    victim = tmp_path / "victim"
    if not is_dangling:
        victim.write_bytes(b"precious")
    for name in ("s", "mx.s", "mx.s.buffer.0", "mx.s.buffer.1"):
        (context / name).symlink_to(victim)
    with pytest.raises((OSError, ValueError)):
        Producer("s", 8, 4)
    with pytest.raises((OSError, ValueError)):
        Consumer("s")
    if is_dangling:
        assert not victim.exists()
    else:
        assert victim.read_bytes() == b"precious"
    for path in context.iterdir():
        path.unlink()


def test_modes_and_descriptors(context: Path) -> None:
    """Flaw 19: mode 0600; descriptors end at exec; as many for 512 buffers as for 1."""
    old = os.umask(0)
    counts = []
    try:
        for slots in (1, 512):
            before = set(os.listdir("/proc/self/fd"))
            stream = Producer("s", 8, slots)
            consumer = Consumer("s")
            assert os.listdir(context) == ["s"]
            assert stat.S_IMODE((context / "s").stat().st_mode) == 0o600
            opened = set(os.listdir("/proc/self/fd")) - before
            for number in opened:
                try:
                    target = os.readlink(f"/proc/self/fd/{number}")
                except FileNotFoundError:
                    continue  # the one that listed them
                if target.startswith(str(context)):
                    assert not os.get_inheritable(int(number))
            counts.append(len(opened))
            consumer.close()
            stream.unlink()
            del stream, consumer
            gc.collect()
    finally:
        os.umask(old)
    assert counts[0] == counts[1] <= 5
    assert np.all(np.array(counts) > 0)


def test_a_missing_stream(context: Path) -> None:
    """Flaw 17: no file, no stream: an error of its own."""
    with pytest.raises(StreamUnavailable):
        Consumer("s")
    assert os.listdir(context) == []
