"""Servers among hostile clients; servers and clients killed at any moment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import random
import secrets
import signal
import threading
import time

import pytest
from deadline import wait_until
from remote_rig import CODECS, ServeCommand, connected, folder
from workers_remote import attack, count_into, read_on, serve

import ataraxis.datamux as dm

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 120.0
RATE = 2000
LIMITS = {
    "ring_bytes": 4 * 2**20, "resume_s": 2.0, "handshake_s": 1.0, "patience": 100,
    "heartbeat_s": 2.0,
}  # fmt: skip


@contextlib.contextmanager
def worker(target, *arguments):
    """A process, and a pipe to it."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()  # only the child has this end: reading ends if it dies
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        here.close()


def answer(pipe, question=None):
    if question is not None:
        pipe.send(question)
    assert pipe.poll(WAIT_S), "the worker says nothing"
    return pipe.recv()


def counted(sink) -> list[int]:
    """The numbers of the samples in a sink, without its end."""
    return [round(sink.get()["value"]["x"]) for _ in range(sink.qsize() - 1)]


def test_a_good_client_among_twenty_hostile_ones(tmp_path, figure):
    """It loses nothing, memory stays bounded, and bad clients get the reason."""
    seconds = figure(60, 6)
    token = secrets.token_urlsafe(32)
    folder(tmp_path)
    with worker(serve, tmp_path, token, LIMITS) as (_, server):
        port = answer(server)
        with connected(port, token=token, patience=WAIT_S) as api:
            before = answer(server, "statistics")
            sink = queue.Queue()
            ack = count_into(api, sink, RATE, seconds)
            most = before["rss_bytes"]
            with worker(attack, port, token, seconds) as (_, hostile):
                while not hostile.poll(0.5):
                    found = answer(server, "statistics")
                    most = max(most, found["rss_bytes"])
                    assert found["kept_bytes"] <= 64 * LIMITS["ring_bytes"]
                heard = hostile.recv()
            assert ack.wait(WAIT_S) is dm.END_OF_STREAM
            assert counted(sink) == [*range(round(RATE * seconds))]
            assert len(api.list_collections()) == 1
            # Four slow readers, each with a full ring and socket buffers.
            assert most - before["rss_bytes"] < 400 * 2**20
        wait_until(lambda: answer(server, "statistics")["streams"] == 0, WAIT_S)
    assert heard.get("wrong token was let in", 0) == 0
    assert heard.get("thief was let in", 0) == 0
    for answer_text in (
        "noise was cut off", "half-open was cut off", "huge: 1009", "token: 401",
        "unknown: SourceNotFound", "unknown: BadMessage", "bad: 1008",
        "thief was a new one", "vanished", "flood: too many requests",
    ):  # fmt: skip
        assert heard.get(answer_text, 0) > 0, (answer_text, heard)


def test_clients_killed_at_any_moment_leave_nothing(tmp_path, figure):
    """Their streams are stopped, and the others lose nothing."""
    rng = random.Random(1)
    with worker(serve, tmp_path, None, {**LIMITS, "resume_s": 0.2}) as (_, server):
        port = answer(server)
        with connected(port) as api:
            sink = queue.Queue()
            ack = count_into(api, sink, RATE, None)
            for k in range(int(figure(100, 3))):
                with worker(read_on, port, CODECS[k % 3]) as (process, client):
                    if k % 4:
                        assert answer(client) == "reads"
                    time.sleep(rng.random() * 0.05)
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
            wait_until(lambda: answer(server, "statistics")["streams"] == 1, WAIT_S)
            api.stop_task(ack.randseq)
            numbers = counted(sink)
            assert numbers == [*range(len(numbers))]
            assert numbers


def test_servers_killed_at_any_moment_end_streams_with_a_reason(tmp_path, figure):
    rng = random.Random(2)
    for k in range(int(figure(100, 3))):
        with (
            ServeCommand(tmp_path) as server,
            connected(server.port, CODECS[k % 3], patience=0.2) as api,
        ):
            sink = queue.Queue()
            ack = count_into(api, sink, RATE, None)
            sink.get(timeout=WAIT_S)
            time.sleep(rng.random() * 0.05)
            server.process.kill()
            end = ack.wait(WAIT_S)
            assert end.reason == "lost"
            assert "did not come back" in str(end.error)
            numbers = counted(sink)
            assert numbers == [*range(1, len(numbers) + 1)]
        assert not [t for t in threading.enumerate() if "ataraxis" in t.name]


@pytest.mark.parametrize("codec", CODECS)
def test_a_connection_cut_at_any_moment(tmp_path, figure, codec):
    """A hundred cuts: no sample is lost, none comes twice."""
    from relay import Relay
    from remote_rig import served

    rng, cuts = random.Random(3), int(figure(100, 5))
    with (
        served(tmp_path) as server,
        Relay(server.port) as relay,
        connected(relay.port, codec, token=server.token, patience=WAIT_S) as api,
    ):
        sink = queue.Queue()
        ack = count_into(api, sink, RATE, None)
        for _ in range(cuts):
            before = sink.qsize()
            wait_until(lambda n=before: sink.qsize() > n, WAIT_S)
            time.sleep(rng.random() * 0.1)
            relay.cut()
        before = sink.qsize()
        wait_until(lambda: sink.qsize() > before + 100, WAIT_S)
        api.stop_task(ack.randseq)
        numbers = counted(sink)
        assert numbers == [*range(len(numbers))]
        assert len(ack.task.statistics().reconnects) > cuts / 2
