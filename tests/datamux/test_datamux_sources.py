"""Live sources: they keep the contract, give what is sent, and report losses."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from datamux_rig import drained
from deadline import wait_until

import ataraxis.datamux as dm
from ataraxis import Consumer, Producer
from ataraxis.clock import now_ns
from ataraxis.datamux import STAMP, Field, Node, Recording, Stream
from ataraxis.datamux.registry import kinds
from ataraxis.datamux.simulation import Faults, Simulation
from ataraxis.datamux.sources import telemetry
from ataraxis.datamux.sources.recording import RecordedSource
from ataraxis.datamux.sources.serial import Wire
from ataraxis.datamux.sources.sim import Simulated, SimulatedSource, simulation_of
from ataraxis.datamux.sources.telemetry import ProcHost
from ataraxis.errors import (
    ConfigError,
    ConfigWarning,
    DataOverflow,
    EndOfStream,
    SourceLost,
    SourceNotFound,
)
from ataraxis.testing import check_source


@pytest.fixture
def api(tmp_path):
    with dm.API(tmp_path, tmp_path) as api:
        yield api


@contextlib.contextmanager
def repeating(step: Callable[[int], object], pause: float = 0.002) -> Iterator[None]:
    """Call again and again from a thread, until the block is left."""
    over = threading.Event()

    def run() -> None:
        for i in itertools.count():
            if over.wait(pause):
                return
            step(i)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ---- the contract, over every kind


@pytest.mark.parametrize(
    "name", ["sine", "noise", "spikes", "ramp", "camera", "events"]
)
def test_simulated_sources_keep_the_contract(name):
    driver = Simulated()
    (node,) = driver.nodes(0)
    check_source(lambda: driver.source(node, name, {"seed": 3}))


def test_a_stream_of_shared_memory_keeps_the_contract(api):
    with Producer("eeg", shape=(3,), dtype="f4", dims=("channel",)) as producer:
        with repeating(lambda i: producer.send(np.full(3, i, "f4"))):
            check_source(lambda: api._live.source("shared", "eeg", {"policy": "lossy"}))
        producer.unlink()


@pytest.mark.parametrize("has_psutil", [True, False])
@pytest.mark.parametrize("name", ["cpu", "memory", "network", "disk"])
def test_telemetry_keeps_the_contract(api, name, has_psutil, monkeypatch):
    if has_psutil:
        pytest.importorskip("psutil")
    else:
        monkeypatch.setattr(telemetry, "host", ProcHost)
    check_source(lambda: api._live.source("telemetry", name, {"sample_rate_hz": 100}))


def test_proc_says_what_psutil_says():
    psutil = pytest.importorskip("psutil")
    host = ProcHost()
    assert host.cpu_count() == psutil.cpu_count()
    ours, theirs = host.virtual_memory(), psutil.virtual_memory()
    assert ours.used + ours.available == theirs.total
    before, seen, after = (
        psutil.net_io_counters(), host.net_io_counters(), psutil.net_io_counters()
    )  # fmt: skip
    assert seen.bytes_recv <= after.bytes_recv  # psutil includes the loopback
    assert before.bytes_sent >= 0
    busy = [host.cpu_percent() for _ in range(2)][1]
    assert all(0 <= share <= 100 for share in busy)


def test_a_recording_keeps_the_contract():
    stream = Stream("x", frequency=1000, fields={"v": Field(dtype="i16")})
    found = Recording.of(stream, {"v": np.arange(30_000, dtype="i2")})
    check_source(lambda: RecordedSource(found))


def test_a_recording_is_played_in_time_and_ends(api):
    stream = Stream("x", frequency=100, fields={"v": Field(dtype="i16")})
    found = Recording.of(stream, {"v": np.arange(500)})
    source = RecordedSource(found, speed=10, start=1.0, stop=4.0)
    out, stamps = np.zeros((64, 1), "i2"), np.zeros(64, STAMP)
    seen, device = [], []
    began = time.monotonic()
    source.open()
    with contextlib.suppress(EndOfStream):
        while True:
            got = source.read_into(out, stamps, timeout=5)
            seen += out[:got, 0].tolist()
            device += stamps["device_s"][:got].tolist()
    assert time.monotonic() - began > 0.29
    assert seen == list(range(100, 400))
    assert device == [k / 100 for k in range(100, 400)]
    source.close()
    with pytest.raises(SourceNotFound, match="path"):
        api.open_source("recording", "x")


def test_simulated_streams_have_the_size_that_was_asked_for(api):
    probe = api.open_source("sim", "probe", {"channels": 3, "sample_rate_hz": 2000})
    assert probe.labels.shape == (3,)
    assert probe.stream.rate_hz == 2000
    out = np.zeros((10, 3), "i2")
    got = probe.read_into(out, timeout=5)
    chunk = next(simulation_of("probe", {"channels": 3, "rate_hz": 2000}).chunks())
    assert (chunk.block.array[:got] == out[:got]).all()
    probe.close()
    for stream, attrs in (
        ("events", {"rate_hz": 5}), ("camera", {"channels": 2}),
        ("sine", {"shape": [3]}), ("camera", {"shape": [3, 0]}),
        ("sine", {"rate_hz": 0}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be|must have|above"):
            api.open_source("sim", stream, attrs)


def test_a_serial_board_keeps_the_contract(board):
    stream = adc()
    with repeating(lambda i: board.write(f"{i},{i % 256},{i},{-i}\n".encode())):
        check_source(lambda: board.source(stream, counter="u1"))


def test_a_video_keeps_the_contract(video):
    check_source(lambda: video.source(), samples=3)


def test_lsl_keeps_the_contract(outlet):
    pushed = outlet("contract")
    with repeating(lambda i: pushed.push_chunk(np.full((5, 2), i, "f4"))):
        check_source(lambda: lsl_source("contract"))


class Liar(SimulatedSource):
    """Breaks the contract in one way."""

    def __init__(self, lie: str) -> None:
        (node,) = Simulated().nodes(0)
        super().__init__(Simulated().source(node, "sine", {})._simulation)
        self.lie = lie

    def read_into(self, out, stamps=None, *, timeout=None):
        if self.lie == "never refuses" and self._chunks is None:
            return 0
        if self.lie == "takes all" and (not len(out) or out.shape[1:] != (4,)):
            return 0
        n = super().read_into(out, stamps, timeout=timeout)
        if self.lie == "no stamps" and stamps is not None:
            stamps["time_ns"] = 0
        if self.lie == "the future" and stamps is not None:
            stamps["time_ns"][:n] = now_ns() + 10**12
        return n + 100 if self.lie == "too many" else n


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("never refuses", "must raise NotConnectedError"),
        ("takes all", "must raise"),
        ("no stamps", "time_ns is not set"),
        ("the future", "in the future"),
        ("too many", "read_into returned"),
    ],
)
def test_the_contract_finds_a_source_that_breaks_it(lie, message):
    with pytest.raises(AssertionError, match=message):
        check_source(lambda: Liar(lie))


# ---- the API


def test_nodes_and_streams_are_listed(api):
    nodes = {node.id: node for node in api.list_live_nodes()}
    assert {"sim", "shared"} <= set(nodes)
    assert set(nodes["sim"].outputs) >= {"sine", "camera", "events"}
    streams = {s.id: s for s in api.list_live_streams("sim")}
    assert streams["sine"].attrs["mode"] == "proxy"
    assert streams["sine"].node.id == "sim"
    assert streams["camera"].labels().shape == (48, 64)
    with pytest.raises(SourceNotFound, match=r"no live node 'sym'.*mean 'sim'"):
        api.list_live_streams("sym")
    with pytest.raises(SourceNotFound, match=r"no stream 'sin'.*mean 'sine'"):
        api.proxy_live_stream("sim", "sin", {}, queue.Queue())


def test_a_live_stream_is_passed_on_until_it_is_stopped(api):
    sink = queue.Queue()
    ack = api.proxy_live_stream("sim", "sine", {"seed": 1}, sink)
    first = sink.get(timeout=10)
    assert set(first["value"]) == {"ch0", "ch1", "ch2", "ch3"}
    assert first["index"]["t"] == 0.0
    assert api.stop_task(ack.randseq).status
    items, end = drained(sink)
    assert end.reason == "stopped"
    times = [item["index"]["t"] for item in items]
    np.testing.assert_allclose(np.diff([0.0, *times]), 1e-3, atol=1e-9)


def test_a_source_that_comes_back_is_read_on_with_the_reason(api):
    sink = queue.Queue()
    attrs = {"faults": {"lost_after_s": 0.15}}
    ack = api.proxy_live_stream("sim", "sine", attrs, sink)
    wait_until(lambda: len(ack.task.statistics().reconnects) >= 2)
    api.stop_task(ack.randseq)
    assert "SourceLost" in ack.task.statistics().reconnects[0]
    items, end = drained(sink)
    assert end.reason == "stopped"
    assert sum(item["value"]["ch0"] == 0.0 for item in items[:1000]) >= 2


def test_a_source_that_stays_away_is_lost_and_says_so(api):
    sink = queue.Queue()
    attrs = {"faults": Faults(lost_after_s=0.1)}
    ack = api.proxy_live_stream("sim", "ramp", attrs, sink, patience=0)
    items, end = drained(sink)
    assert items
    assert (end.reason, type(end.error)) == ("lost", SourceLost)
    assert "went away" in str(ack.error)
    ack = api.proxy_live_stream("sim", "ramp", {}, sink)  # the next call works
    assert sink.get(timeout=10)


def test_shared_memory_goes_through_with_stamps_and_labels(api):
    attrs = {"units": "uV", "rate_hz": 50}
    coords = {"channel": ["C3", "C4"]}
    made = Producer(
        "eeg", shape=(2,), dtype="i2", dims=("channel",), coords=coords, attrs=attrs
    )
    with made as producer:
        listed = {s.id: s for s in api.list_live_streams("shared")}
        assert [*listed["eeg"].fields] == ["C3", "C4"]
        assert (listed["eeg"].unit, listed["eeg"].rate_hz) == ("uV", 50)
        sink = queue.Queue()
        ack = api.proxy_live_stream(
            "shared", "eeg", {}, sink, deliver="block", use_relative_ts=False
        )
        for i in range(100):
            row = np.array([i, -i], "i2")
            producer.send(row, device_time=i * 20_000_000, device_sequence=1000 + i)
        producer.end()
        blocks, end = drained(sink)
        assert end.reason == "completed"
        assert ack.task.is_done or ack.wait(5)
    whole = np.concatenate([b.array for b in blocks])
    assert whole[:, 0].tolist() == [*range(100)]
    times = np.concatenate([b.t for b in blocks])
    np.testing.assert_allclose(times, np.arange(100) * 0.02)
    numbers = np.concatenate([b.index["device_sequence"] for b in blocks])
    assert numbers.tolist() == [*range(1000, 1100)]


def test_shared_memory_that_is_not_there_or_holds_bytes(api):
    with pytest.raises(SourceNotFound, match="gone"):
        api.proxy_live_stream("shared", "gone", {}, queue.Queue())
    with Producer("raw", 64, 4) as producer:
        assert api.list_live_streams("shared") == []
        with pytest.raises(ValueError, match="holds bytes"):
            api.open_source("shared", "raw")
        producer.unlink()


def test_telemetry_counts_what_it_could_not_look_at(api):
    pytest.importorskip("psutil")
    with pytest.raises(ValueError, match="rate_hz"):
        api.open_source("telemetry", "cpu", {"rate_hz": 0})
    source = api.open_source("telemetry", "memory", {"sample_rate_hz": 1000})
    out = np.zeros((1, 3))
    assert source.read_into(out, timeout=5) == 1
    assert (out[0, :2] > 0).all()
    began = now_ns()
    wait_until(lambda: now_ns() - began > 20_000_000)
    assert source.read_into(out, timeout=5) == 1
    assert source.lost >= 15
    source.close()


# ---- serial


def adc(dtype: str = "i16") -> Stream:
    return Stream(
        "adc",
        fields={"a": Field(dtype=dtype), "b": Field(dtype=dtype)},
        index={"t": Field("time", dtype="u32", unit="ms")},
    )


class Board:
    """The other end of a pty."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)

    def write(self, data: bytes) -> None:
        os.write(self.master, data)

    def source(self, stream: Stream, **options: str):
        from ataraxis.datamux.sources.serial import SerialSource

        return SerialSource(self.path, stream, options)

    def close(self) -> None:
        for descriptor in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def board():
    pytest.importorskip("serial")
    board = Board()
    yield board
    board.close()


def read(source, n: int, **options):
    """Read n samples: values and stamps."""
    out = np.zeros((n, *source.labels.shape), source.labels.dtype)
    stamps = np.zeros(n, dm.STAMP)
    got = 0
    deadline = now_ns() + 10 * 10**9
    while got < n:
        got += source.read_into(out[got:], stamps[got:], timeout=0.05)
        assert now_ns() < deadline
    return out, stamps


def test_lines_of_a_board_with_its_own_clock_and_counter(board):
    source = board.source(adc(), counter="u1")
    source.open()
    board.write(b"10,254,1,-1\r\n20,255,2,-2\n30,0,3,-3\nhalf")
    board.write(b" a line\n40,3,4,-4\n50,x,5,-5\n60,4,6\n70,5,7,-7\n")
    out, stamps = read(source, 5)
    assert out[:, 0].tolist() == [1, 2, 3, 4, 7]
    np.testing.assert_allclose(stamps["device_s"], [0.01, 0.02, 0.03, 0.04, 0.07])
    assert stamps["device_sequence"].tolist() == [254, 255, 0, 3, 5]
    assert (source.lost, source.malformed) == (3, 2)
    source.close()


def test_lines_that_are_read_together_are_told_apart_by_device_time(board):
    """B4: they had one stamp, and nothing could select by time."""
    source = board.source(adc(), counter="u1")
    source.open()
    sent = now_ns()
    # 10 ms apart by the device's clock, ms; it is reset before the last two.
    lines = [f"{t},{k},1,1\n" for k, t in enumerate([10, 20, 30, 40, 5, 15])]
    board.write("".join(lines).encode())
    _, stamps = read(source, 6)
    arrived = now_ns()
    host = stamps["time_ns"]
    assert np.diff(host[[0, 1, 2, 3]]).tolist() == [10**7] * 3
    assert host[5] - host[4] == 10**7 - 1
    assert host[3] < host[4], "before the reset is before what came after it"
    assert sent <= host[5] <= arrived
    # The next ones never come before those that are there, however their clock runs.
    board.write(b"5000,6,1,1\n6000,7,1,1\n")
    _, later = read(source, 2)
    assert host[5] < later["time_ns"][0] < later["time_ns"][1] <= now_ns()
    source.close()


@pytest.mark.parametrize("check", ["none", "sum", "xor"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_frames_of_bytes_find_their_way_back(check, order):
    wire = Wire(adc(), {"protocol": "frames", "check": check, "order": order})
    sign = "<" if order == "little" else ">"

    def frame(t: int, a: int, b: int) -> bytes:
        body = struct.pack(f"{sign}Ihh", t, a, b)
        total = sum(body) & 255
        for_xor = 0
        for byte in body:
            for_xor ^= byte
        tail = {"none": b"", "sum": bytes([total]), "xor": bytes([for_xor])}[check]
        return b"\xaa\x55" + body + tail

    stream = b"noise\xaa" + frame(1, 2, -3) + frame(4, 5, -6) + frame(7, 8, -9)[:5]
    rows, malformed = [], 0
    for at in range(0, len(stream), 3):  # however it is cut
        made = wire.take(stream[at : at + 3])
        rows += made.rows
        malformed += made.malformed
    assert rows == [(0.001, -1, (2, -3)), (0.004, -1, (5, -6))]
    assert malformed == 0
    if check != "none":
        broken = bytearray(frame(1, 2, 3))
        broken[4] ^= 0xFF
        wire.reset()
        made = wire.take(bytes(broken) + frame(4, 5, 6))
        assert [row[2] for row in made.rows] == [(5, 6)]
        assert made.malformed >= 1


def test_any_bytes_are_survived_and_counted():
    rng = np.random.default_rng(0)
    for protocol in ("lines", "frames"):
        wire = Wire(adc(), {"protocol": protocol, "check": "sum"})
        for _ in range(200):
            wire.take(rng.integers(0, 256, 997, np.uint8).tobytes())
        assert len(wire._rest) < 70_000


def test_commands_and_replies_are_stamped_while_samples_flow(board, api, tmp_path):
    node = Node(uri=f"serial://{board.path}?counter=u2", outputs={"adc": adc()})
    node.to_yaml(tmp_path / "board.node.yaml")
    assert "board" in {found.id for found in api.list_live_nodes()}
    sink = queue.Queue()
    ack = api.proxy_live_stream("board", "adc", {}, sink)

    def step(i: int) -> None:
        board.write(f"{i},{i},{i % 100},0\n".encode())
        if i == 20:
            board.write(b"unasked\n")

    def answer() -> None:
        assert os.read(board.master, 64) == b"R1\n"
        board.write(b"R1 done\n")

    with repeating(step):
        for _ in range(25):
            sink.get(timeout=10)
        answering = threading.Thread(target=answer)
        answering.start()
        found = ack.task.source.command(b"R1\n", timeout=10)
        answering.join()
        assert found.reply == b"R1 done"
        assert found.sent_ns <= found.replied_ns <= now_ns()
        assert ack.task.source.command(b"X\n", timeout=0).reply is None
    with pytest.raises(TimeoutError, match="no reply"):
        ack.task.source.command(b"Y\n", timeout=0.05)
    assert ack.task.statistics().lost == 0
    api.stop_task(ack.randseq)


def test_a_board_that_is_pulled_out_is_lost(board, api, tmp_path):
    node = Node(uri=f"serial://{board.path}", outputs={"adc": adc()})
    node.to_yaml(tmp_path / "board.node.yaml")
    sink = queue.Queue()
    api.proxy_live_stream("board", "adc", {}, sink, patience=0.05)
    board.write(b"1,2,3\n")
    assert sink.get(timeout=10)["value"] == {"a": 2, "b": 3}
    board.close()
    _, end = drained(sink)
    assert end.reason == "lost"
    assert board.path in str(end.error)
    with pytest.raises(SourceNotFound, match="cannot open serial port"):
        api.open_source("board", "adc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "morse"}, "got 'morse'"),
        ({"sync": "zz"}, "sync or counter"),
        ({"counter": "f4"}, "u1, u2, u4 or u8"),
        ({"colour": "red"}, "unknown option 'colour'"),
        ({"protocol": "frames", "sync": ""}, "need sync"),
    ],
    ids=str,
)
def test_an_invalid_protocol_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Wire(adc(), options)


# ---- camera


class Video:
    def __init__(self, path) -> None:
        cv2 = pytest.importorskip("cv2")
        self.path = str(path)
        writer = cv2.VideoWriter(
            self.path, cv2.VideoWriter_fourcc(*"MJPG"), 50, (32, 24)
        )
        for i in range(20):
            writer.write(np.full((24, 32, 3), 10 * i, np.uint8))
        writer.release()

    def source(self):
        from ataraxis.datamux.sources.camera import CameraSource

        return CameraSource(self.path)


@pytest.fixture
def video(tmp_path):
    return Video(tmp_path / "a.avi")


def test_a_video_gives_its_pictures_in_time(video, api, tmp_path):
    Node(uri=f"camera://{video.path}").to_yaml(tmp_path / "film.node.yaml")
    (stream,) = api.list_live_streams("film")
    assert (stream.id, stream.rate_hz) == ("frames", 50.0)
    sink = queue.Queue()
    began = now_ns()
    api.proxy_live_stream("film", "frames", {}, sink, deliver="block")
    blocks, end = drained(sink)
    assert now_ns() - began >= 19 * 20_000_000
    assert end.reason == "completed"
    pictures = np.concatenate([b.values["frame"] for b in blocks])
    assert pictures.shape == (20, 24, 32, 3)
    expected = 10 * np.arange(20)
    np.testing.assert_allclose(pictures.mean(axis=(1, 2, 3)), expected, atol=3)
    times = np.concatenate([b.t for b in blocks])
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-6)


def test_a_camera_that_is_not_there(tmp_path):
    pytest.importorskip("cv2")
    from ataraxis.datamux.sources.camera import CameraSource

    with pytest.raises(SourceNotFound, match="gives no image"):
        CameraSource(str(tmp_path / "none.avi")).open()


# ---- LSL


def lsl_source(name: str, **options):
    from ataraxis.datamux.sources.lsl import LslSource

    return LslSource(name, **options)


@pytest.fixture
def outlet():
    pylsl = pytest.importorskip("pylsl")

    def make(name: str, rate: float = 100.0, kind: str = "float32", count: int = 2):
        info = pylsl.StreamInfo(name, "EEG", count, rate, kind, f"id-{name}")
        channels = info.desc().append_child("channels")
        for label in [*"ABCD"][:count]:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", "uV")
        return pylsl.StreamOutlet(info)

    return make


def test_an_outlet_keeps_values_raw_times_labels_and_offsets(outlet):
    pushed = outlet("raw", kind="int32")
    source = lsl_source("raw")
    source.open()
    wait_until(pushed.have_consumers)
    assert [*source.stream.fields] == ["A", "B"]
    assert source.stream.fields["A"].unit == "uV"
    t = 1000 + np.arange(500) / 100
    values = np.arange(1000, dtype="i4").reshape(500, 2)
    pushed.push_chunk(values, t.tolist())
    out, stamps = read(source, 500)
    np.testing.assert_array_equal(out, values)
    np.testing.assert_array_equal(stamps["device_s"], t)
    assert source.lost == 0
    (offset,) = source.offsets
    pylsl = pytest.importorskip("pylsl")  # which has the same clock here
    before, lsl_s, after = now_ns(), pylsl.local_clock(), now_ns()
    apart = round(lsl_s * 1e9) - (before + after) // 2 - offset.offset_ns
    assert abs(apart) <= offset.bound_ns + (after - before)
    assert 0 < offset.bound_ns < 100_000_000
    assert 0 <= after - offset.measured_ns < 60 * 10**9
    # A gap of 30 samples in the times of a regular stream.
    pushed.push_chunk(values[:10], (1000 + (530 + np.arange(10)) / 100).tolist())
    read(source, 10)
    assert source.lost == 30
    source.close()


def test_text_from_an_outlet(outlet):
    pushed = outlet("marks", rate=0, kind="string", count=1)
    source = lsl_source("marks")
    source.open()
    wait_until(pushed.have_consumers)
    pushed.push_sample(["go µ"])
    out, _ = read(source, 1)
    assert out.tolist() == [["go µ"]]
    source.close()


def test_text_that_is_too_long_is_not_cut(outlet):
    pushed = outlet("novel", rate=0, kind="string", count=1)
    source = lsl_source("novel")
    source.open()
    wait_until(pushed.have_consumers)
    pushed.push_sample(["x" * 257])
    with pytest.raises(DataOverflow, match="257 characters is too long: at most 256"):
        read(source, 1)
    source.close()


def test_two_outlets_of_one_name_are_distinct(outlet, api):
    pylsl = pytest.importorskip("pylsl")
    made = [
        pylsl.StreamOutlet(
            pylsl.StreamInfo("twin", "EEG", 1, 0, "float32", f"twin-{k}")
        )
        for k in range(2)
    ]
    with pytest.raises(
        SourceNotFound, match=r"2 LSL streams are called 'twin'"
    ) as caught:
        lsl_source("twin").open()
    for k, pushed in enumerate(made):
        uid = pushed.get_info().uid()
        assert f"source_id='twin-{k}'" in str(caught.value)
        assert uid in str(caught.value)
        for source in (
            lsl_source("twin", wanted={"source_id": f"twin-{k}"}),
            lsl_source("twin", wanted={"uid": uid}),
            lsl_source(f"twin-{k}"),
        ):
            source.open()
            wait_until(pushed.have_consumers)
            pushed.push_sample([float(k)])
            assert read(source, 1)[0].tolist() == [[k]]
            source.close()


def test_an_outlet_described_as_streaminghub_does_keeps_its_names():
    pylsl = pytest.importorskip("pylsl")
    info = pylsl.StreamInfo("hub", "gaze", 2, 0, "float32", "id-hub")
    described = {
        "fields": {"lx": ("left x", "mm"), "ly": ("left y", "mm")},
        "index": {"ts": ("when it was seen", "ms")},
    }
    for part, children in described.items():
        node = info.desc().append_child(part)
        for name, (description, unit) in children.items():
            child = node.append_child(name)
            child.append_child_value("name", name)
            child.append_child_value("description", description)
            child.append_child_value("dtype", "f32")
            child.append_child_value("unit", unit)
    pushed = pylsl.StreamOutlet(info)
    source = lsl_source("hub")
    source.open()
    stream = source.stream
    assert [*stream.fields] == ["lx", "ly"]
    assert stream.fields["ly"].description == "left y"
    assert stream.fields["ly"].unit == "mm"
    assert stream.time == "ts"
    assert stream.index["ts"].unit == "s"  # what LSL gives
    wait_until(pushed.have_consumers)
    pushed.push_sample([1.0, 2.0])
    assert read(source, 1)[0].tolist() == [[1, 2]]
    source.close()


def test_an_outlet_that_is_not_there(api):
    pytest.importorskip("pylsl")
    with pytest.raises(SourceNotFound, match="is its program running"):
        lsl_source("missing", timeout=0.1).open()
    with pytest.raises(SourceNotFound, match="both kinds of quotes"):
        lsl_source("a'b\"c").open()


def test_an_outlet_that_dies_is_lost_and_found_again(outlet, api):
    pushed = outlet("phoenix")
    sink = queue.Queue()
    attrs = {"source_id": "id-phoenix"}
    ack = api.proxy_live_stream("lsl", "phoenix", attrs, sink, patience=30)
    wait_until(pushed.have_consumers)
    pushed.push_chunk(np.ones((3, 2), "f4"))
    assert sink.get(timeout=10)["value"] == {"A": 1.0, "B": 1.0}
    del pushed
    again = outlet("phoenix")
    wait_until(lambda: ack.task.statistics().reconnects, 30)
    wait_until(again.have_consumers)
    again.push_chunk(np.full((3, 2), 2, "f4"))
    wait_until(lambda: sink.qsize() >= 5)
    assert [sink.get()["value"]["A"] for _ in range(5)] == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert "SourceLost" in ack.task.statistics().reconnects[0]
    api.stop_task(ack.randseq)


def test_a_recording_is_published_and_read_back(api):
    pytest.importorskip("pylsl")
    fields = {name: Field(dtype="i16", unit="mV") for name in ("I", "II")}
    stream = Stream("published", frequency=1000, fields=fields)
    values = np.arange(600, dtype="i2")
    recording = dm.Recording.of(stream, {"I": values, "II": -values})
    outlet = dm.LslOutlet(stream, source_id="ours")
    source = lsl_source("ours")
    source.open()
    assert outlet.wait_for_consumers(10)
    ack = api.replay(recording, outlet, block=50)
    out, stamps = read(source, 600)
    np.testing.assert_array_equal(out[:, 1], -values)
    blocks = stamps["device_s"].reshape(12, 50)
    np.testing.assert_allclose(np.diff(blocks, axis=1), 1e-3, atol=1e-9)
    assert source.stream.fields["II"].unit == "mV"
    assert ack.wait(10).reason == "completed"
    source.close()


# ---- kinds and plug-ins


def test_kinds_are_listed_on_the_command_line():
    code = "from ataraxis.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "sources", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    )
    found = {kind["name"]: kind for kind in json.loads(done.stdout)}
    assert {"camera", "lsl", "serial", "shared", "sim", "telemetry"} <= set(found)
    assert found["lsl"]["install"] == 'pip install "ataraxis[lsl]"'
    assert found["sim"]["is_here"]
    command[-1:] = []
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Lab Streaming Layer" in done.stdout


PLUG_IN = """
from ataraxis.datamux import Faults, Field, Node, Simulation, Stream
from ataraxis.datamux.sources.sim import SimulatedSource

class Thermometers:
    def nodes(self, timeout):
        return [Node(id="oven", uri="thermo://1")]
    def streams(self, node, timeout):
        fields = {"T": Field(dtype="f32", unit="degC")}
        index = {"t": Field(unit="s")}
        return {"T": Stream("T", frequency=500, fields=fields, index=index)}
    def source(self, node, stream_id, attrs):
        return SimulatedSource(Simulation(self.streams(node, 0)[stream_id]))

class Broken:
    def nodes(self, timeout):
        raise RuntimeError("no bus")
"""


def test_a_plug_in_is_found_by_its_entry_point_and_a_broken_one_left_out(
    api, tmp_path, monkeypatch
):
    (tmp_path / "thermo_plug_in.py").write_text(PLUG_IN)
    info = tmp_path / "thermo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thermo\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[ataraxis.sources]\n"
        "thermo = thermo_plug_in:Thermometers\n"
        "broken = thermo_plug_in:Broken\n"
        "sim = thermo_plug_in:Broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(ConfigWarning, match="is built in"):
        assert kinds()["thermo"].summary == "from thermo"
    with pytest.warns(ConfigWarning) as caught:
        nodes = {node.id for node in api.list_live_nodes()}
    assert {"oven", "sim"} <= nodes
    texts = [str(warning.message) for warning in caught]
    assert any("'broken' are left out: RuntimeError: no bus" in text for text in texts)
    sink = queue.Queue()
    with pytest.warns(ConfigWarning):
        api.proxy_live_stream("oven", "T", {}, sink)
    assert set(sink.get(timeout=10)["value"]) == {"T"}


def test_a_missing_package_says_what_to_install(api, monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "ataraxis\[lsl\]"'):
        lsl_source("x")
    from ataraxis.datamux import registry

    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceNotFound, match=r'needs pylsl.*"ataraxis\[lsl\]"'):
        api.list_live_streams("lsl")


def test_a_simulation_that_ends_raises_end_of_stream_never(api):
    source = SimulatedSource(
        Simulation(Stream("x", frequency=1000, fields={"v": Field()}))
    )
    source.open()
    out = np.zeros((5, 1))
    try:
        assert source.read_into(out, timeout=5) > 0
    except EndOfStream:  # pragma: no cover
        pytest.fail("it has no end")
    source.close()


def test_proxied_into_a_producer_frames_keep_the_arrival_and_device_times(api):
    (node,) = Simulated().nodes(0)
    made = dm.producer_of(node.outputs["ramp"], "ramp", sync=True)
    with made as producer, Consumer("ramp") as reader:
        ack = api.proxy_live_stream("sim", "ramp", {}, producer)
        frames = list(itertools.islice(reader, 50))
        stamps = [(f.device_time, f.device_sequence, f.time_ns) for f in frames]
        del frames
        api.stop_task(ack.randseq)
        while reader.receive(timeout=5) is not None:
            pass
    assert [s[0] for s in stamps] == [i * 1_000_000 for i in range(50)]
    assert [s[1] for s in stamps] == [*range(50)]
    assert all(abs(now_ns() - s[2]) < 60 * 10**9 for s in stamps)
