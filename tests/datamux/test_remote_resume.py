"""Broken connections: unread messages come again, once, or the end has the reason."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest
from deadline import wait_until
from relay import Relay
from remote_rig import CODECS, EYES, ServeCommand, connected, folder, served, values

import ataraxis.datamux as dm
from ataraxis.errors import NotConnectedError, RemoteError, SourceLost

WAIT_S = 60.0
ROWS = 3000


@pytest.fixture(params=CODECS)
def codec(request):
    return request.param


def counted(api, sink, **options):
    """Start an endless simulation whose value is its sample's number."""
    stream = dm.Stream(
        "n", frequency=2000, fields={"x": dm.Field(dtype="f64")}, attrs={"id": "n"}
    )
    ramp = dm_ramp(2e9 / 2000, 2e9)
    return api.simulate_stream(stream, sink=sink, signals={"x": ramp}, **options)


def dm_ramp(period_s, height):
    from ataraxis.datamux.simulation import Ramp

    return Ramp(period_s, height)


def test_every_sample_comes_once_over_many_connections(tmp_path, codec):
    """The connection is cut again and again in the middle of a paced stream."""
    sink = queue.Queue()
    with (
        served(tmp_path) as server,
        Relay(server.port) as relay,
        connected(relay.port, codec, token=server.token, patience=WAIT_S) as api,
    ):
        ack = counted(api, sink, duration=2.0)
        for _ in range(6):
            before = sink.qsize()
            wait_until(lambda n=before: sink.qsize() > n + 100, WAIT_S)
            relay.cut()
        assert ack.wait(WAIT_S) is dm.END_OF_STREAM
        numbers = [round(sink.get()["value"]["x"]) for _ in range(sink.qsize() - 1)]
        assert numbers == [*range(4000)]
        assert relay.connections > 3
        assert 2 < len(ack.task.statistics().reconnects) < relay.connections


def test_requests_are_answered_over_a_cut(tmp_path):
    folder(tmp_path)
    with (
        served(tmp_path) as server,
        Relay(server.port) as relay,
        connected(relay.port, token=server.token, patience=WAIT_S) as api,
    ):
        relay.shut()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(api.list_collections()))
        thread.start()
        sink = queue.Queue()
        starter = threading.Thread(
            target=lambda: api.replay_collection_stream(*EYES, sink, rate_limit=False)
        )
        starter.start()
        relay.open()
        thread.join(WAIT_S)
        starter.join(WAIT_S)
        assert [c.id for c in answers[0]] == ["eyes"]
        got = [sink.get(timeout=WAIT_S) for _ in range(31)]
        assert values(got[:-1]) == [*range(30)]


def test_silence_is_noticed_and_survived(tmp_path):
    """No side receives anything, and no packet reports it: the heartbeat does."""
    sink = queue.Queue()
    limits = dm.Limits(heartbeat_s=0.2)
    with (
        served(tmp_path, limits=limits) as server,
        Relay(server.port) as relay,
        connected(
            relay.port, token=server.token, patience=WAIT_S, heartbeat_s=0.2
        ) as api,
    ):
        ack = counted(api, sink, duration=3.0)
        wait_until(lambda: sink.qsize() > 100, WAIT_S)
        relay.silence()
        wait_until(lambda: server.statistics()["attached"] == 0, WAIT_S)
        relay.speak()
        assert ack.wait(WAIT_S) is dm.END_OF_STREAM
        numbers = [round(sink.get()["value"]["x"]) for _ in range(sink.qsize() - 1)]
        assert numbers == [*range(6000)]


def test_a_live_stream_that_was_away_too_long_says_evicted(tmp_path):
    """The source is not delayed: old messages are dropped, with an error."""
    sink = queue.Queue()
    limits = dm.Limits(ring_bytes=100_000)
    with (
        served(tmp_path, limits=limits) as server,
        Relay(server.port) as relay,
        connected(relay.port, token=server.token, patience=WAIT_S) as api,
    ):
        ack = api.proxy_live_stream("sim", "camera", {}, sink)
        sink.get(timeout=WAIT_S)
        relay.shut()
        (session,) = server._sessions.values()
        (outlet,) = session.streams.outlets()
        wait_until(lambda: outlet._resend_buffer.evicted > 3, WAIT_S)
        assert server.statistics()["kept_bytes"] <= 100_000
        relay.open()
        end = ack.wait(WAIT_S)
        assert end.reason == "lost"
        assert "evicted" in str(end.error)
        assert isinstance(end.error, SourceLost)
        wait_until(lambda: server.statistics()["streams"] == 0, WAIT_S)
        assert api.list_collections() == []


def test_a_reader_that_is_too_slow_never_holds_a_source_up(tmp_path):
    """Its stream is evicted; a recording waits for it instead."""
    folder(tmp_path, ROWS)
    limits = dm.Limits(ring_bytes=50_000)
    gate = threading.Event()

    def slow(item):
        gate.wait(WAIT_S)

    with served(tmp_path, limits=limits) as server, connected(server) as api:
        live = api.proxy_live_stream("sim", "camera", {}, slow)
        sink = queue.Queue(1)
        replayed = api.replay_collection_stream(*EYES, sink, rate_limit=False, block=10)
        (session,) = server._sessions.values()

        def evicted():
            outlets = [o for o in session.streams.outlets() if o.number == 1]
            return not outlets or outlets[0].is_closed

        wait_until(evicted, WAIT_S)
        assert server.statistics()["kept_bytes"] <= 100_000
        gate.set()
        assert live.wait(WAIT_S).reason == "lost"
        assert values([sink.get(timeout=WAIT_S) for _ in range(ROWS)]) == [*range(ROWS)]
        assert replayed.wait(WAIT_S) is dm.END_OF_STREAM


def test_a_client_that_does_not_come_back_is_forgotten(tmp_path):
    """Its tasks are stopped after its time limit; those of one that leaves, at once."""
    limits = dm.Limits(resume_s=0.5)
    with (
        served(tmp_path, limits=limits) as server,
        Relay(server.port) as relay,
        connected(relay.port, token=server.token, patience=0.2) as api,
    ):
        sink = queue.Queue()
        ack = counted(api, sink)
        sink.get(timeout=WAIT_S)
        assert server.statistics()["streams"] == 1
        relay.shut()
        end = ack.wait(WAIT_S)
        assert end.reason == "lost"
        assert "did not come back" in str(end.error)
        wait_until(lambda: server.statistics()["clients"] == 0, WAIT_S)
        with pytest.raises(RemoteError, match="did not come back"):
            api.list_collections()
        relay.open()
        with connected(relay.port, token=server.token) as api:
            counted(api, queue.Queue())
            assert server.statistics()["streams"] == 1
        wait_until(lambda: server.statistics()["clients"] == 0, WAIT_S)

        def runs():
            names = [thread.name for thread in threading.enumerate()]
            return any(name.startswith("ataraxis-d_") for name in names)

        wait_until(lambda: not runs(), WAIT_S)


def test_a_server_that_was_restarted_does_not_know_its_clients(tmp_path):
    sink = queue.Queue()
    with (
        ServeCommand(tmp_path) as first,
        connected(first.port, patience=WAIT_S) as api,
    ):
        ack = counted(api, sink)
        sink.get(timeout=WAIT_S)
        first.process.kill()
        first.process.wait()
        with ServeCommand(tmp_path, port=first.port):
            end = ack.wait(WAIT_S)
            assert end.reason == "lost"
            assert "does not know this session" in str(end.error)
            assert api.list_collections() == []


def test_a_server_that_ends_says_so(tmp_path):
    sink = queue.Queue()
    with served(tmp_path) as server:
        api = dm.RemoteAPI("websocket", "json")
        api.connect("127.0.0.1", server.port)
        ack = counted(api, sink)
        sink.get(timeout=WAIT_S)
    end = ack.wait(WAIT_S)
    assert end.reason == "lost"
    assert "shutting down" in str(end.error)
    with pytest.raises(RemoteError, match="shutting down"):
        api.list_collections()
    api.disconnect()
    with pytest.raises(NotConnectedError, match="not connected"):
        api.list_collections()


def test_clocks_are_compared(tmp_path):
    with served(tmp_path) as server, connected(server) as api:
        offset = api.measure_offset()
        assert abs(offset.offset_ns) <= offset.bound_ns
        assert offset.bound_ns < 5e9


def test_blocks_of_a_cut_stream_are_whole(tmp_path):
    """Large blocks, cut in the middle of a message."""
    sink = queue.Queue()
    fields = {f"c{i}": dm.Field(dtype="f32") for i in range(64)}
    stream = dm.Stream("w", frequency=1e6, fields=fields)
    with (
        served(tmp_path) as server,
        Relay(server.port) as relay,
        connected(relay.port, token=server.token, patience=WAIT_S) as api,
    ):
        ack = api.simulate_stream(
            stream, sink=sink, rate_limit=False, duration=0.1, block=4096,
            signals=dm_ramp(1.0, 1e6), deliver="block",
        )  # fmt: skip
        for _ in range(3):
            before = sink.qsize()
            wait_until(lambda n=before: sink.qsize() > n or ack.reason, WAIT_S)
            relay.cut()
        assert ack.wait(WAIT_S) is dm.END_OF_STREAM
        blocks = [sink.get() for _ in range(sink.qsize() - 1)]
        whole = np.concatenate([b.array for b in blocks])
        assert whole.shape == (100_000, 64)
        assert (np.rint(whole[:, 63]) == np.arange(100_000)).all()
