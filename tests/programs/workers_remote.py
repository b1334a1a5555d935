"""Spawn targets of the tests of the remote API: servers, clients, hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ataraxis.datamux as dm
from ataraxis.datamux.simulation import Ramp

STREAM = dm.Stream("n", fields={"x": dm.Field(dtype="f64")}, attrs={"id": "n"})


def count_into(api: Any, sink: Any, rate: float, seconds: float | None) -> Any:
    """Start a simulation whose samples' values are their numbers."""
    stream = STREAM.copy()
    stream.frequency = rate
    return api.simulate_stream(
        stream, sink=sink, signals={"x": Ramp(2e9 / rate, 2e9)}, duration=seconds,
        buffer=2**18,  # a sink that is not read before the end
    )  # fmt: skip


def serve(path: Path, token: str | None, limits: dict[str, Any], pipe: Any) -> None:
    """Serve; send the port; answer each 'statistics' until 'end'."""
    with dm.Server(dm.API(path, path), token=token, limits=dm.Limits(**limits)) as made:
        pipe.send(made.port)
        while pipe.recv() == "statistics":
            status = Path("/proc/self/status").read_text()
            rss_kib = int(status.partition("VmRSS:")[2].split()[0])
            pipe.send({**made.statistics(), "rss_bytes": rss_kib * 1024})


def read_on(port: int, codec: str, pipe: Any) -> None:
    """Read counted samples until killed; report the first."""
    with dm.RemoteAPI("websocket", codec) as api:
        api.connect("127.0.0.1", port)
        seen = []
        count_into(api, seen.append, 2000, None)
        while not seen:
            time.sleep(0.001)
        pipe.send("reads")
        pipe.recv()


# ---- hostile ones


def attack(port: int, token: str, seconds: float, pipe: Any) -> None:
    """Let twenty clients misbehave for some seconds; send the counts of answers."""
    pipe.send(dict(asyncio.run(_attack(port, token, seconds))))


async def _attack(port: int, token: str, seconds: float) -> Counter[str]:
    heard: Counter[str] = Counter()
    until = time.monotonic() + seconds
    kinds = [
        noise, half_open, huge_lengths, wrong_token, slow_reader, unknown_ids,
        many_requests, bad_messages, thief, connects,
    ]  # fmt: skip

    async def repeat(kind: Any, seed: int) -> None:
        rng, rounds = random.Random(seed), 0
        while time.monotonic() < until or not rounds:
            left = max(0.1 if rounds else 60.0, until - time.monotonic())
            rounds += 1
            with contextlib.suppress(OSError, TimeoutError, EOFError, _closed()):
                async with asyncio.timeout(left):
                    await kind(port, token, rng, heard)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(repeat(kinds[i % 10], i) for i in range(20)))
    return heard


def _closed() -> Any:
    """Errors of a closed connection, also during its handshake."""
    from websockets.exceptions import ConnectionClosed, InvalidMessage

    return ConnectionClosed, InvalidMessage


async def _raw(port: int) -> Any:
    return await asyncio.open_connection("127.0.0.1", port)


async def _upgraded(port: int, token: str) -> Any:
    """A WebSocket by hand, up to the point where frames begin."""
    reader, writer = await _raw(port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ataraxis.1.json\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def _socket(port: int, token: str, codec: str = "json") -> Any:
    from websockets.asyncio.client import connect

    return connect(
        f"ws://127.0.0.1:{port}/ws", subprotocols=[f"ataraxis.1.{codec}"],
        additional_headers={"Authorization": f"Bearer {token}"}, compression=None,
        max_size=None, proxy=None, ping_interval=None,
    )  # fmt: skip


async def _hello(socket: Any, **more: Any) -> Any:
    await socket.send(json.dumps({"op": "hello", "version": 1, **more}))
    message = json.loads(await socket.recv())
    if message["op"] == "error":
        # Too late on a busy machine: a handshake may take a second.
        raise ConnectionRefusedError(message["error"]["message"])
    assert message["op"] == "welcome", message
    return message


async def noise(port, token, rng, heard) -> None:
    """Send random bytes before and after the handshake."""
    _, writer = await _raw(port)
    writer.write(rng.randbytes(rng.randrange(1, 4000)))
    await writer.drain()
    writer.close()
    reader, writer = await _upgraded(port, token)
    writer.write(rng.randbytes(2000))
    await writer.drain()
    await reader.read()
    heard["noise was cut off"] += 1
    writer.close()


async def half_open(port, token, rng, heard) -> None:
    """Send nothing, or a part, or stop after the handshake."""
    reader, writer = await _raw(port)
    writer.write([b"", b"GET /ws HTTP/1.1\r\nHost: 127"][rng.randrange(2)])
    await writer.drain()
    await reader.read()
    heard["half-open was cut off"] += 1
    writer.close()


async def huge_lengths(port, token, rng, heard) -> None:
    """A frame of 2**40 bytes, or a message of two megabytes."""
    reader, writer = await _upgraded(port, token)
    length = rng.choice([2**40, 2**63 - 1, 2**21])
    writer.write(b"\x82\xff" + struct.pack(">Q", length) + bytes(4) + bytes(5000))
    await writer.drain()
    data = await reader.read()
    heard["huge: " + ("1009" if b"\x03\xf1" in data else "cut off")] += 1
    writer.close()


async def wrong_token(port, token, rng, heard) -> None:
    """Guess the token."""
    from websockets.exceptions import InvalidStatus

    try:
        async with _socket(port, rng.choice(["x" * 43, "", token[:-1]])):
            heard["wrong token was let in"] += 1
    except InvalidStatus as error:
        heard[f"token: {error.response.status_code}"] += 1


async def slow_reader(port, token, rng, heard) -> None:
    """Request streams without rate limit, and never read."""
    async with _socket(port, token) as socket:
        await _hello(socket)
        fields = {f"c{i}": {"dtype": "f64"} for i in range(16)}
        described = {"name": "w", "frequency": 1e6, "fields": fields}
        for number in range(1, 20):
            await socket.send(json.dumps({
                "op": "request", "id": number, "call": "simulate_stream",
                "stream": number,
                "arguments": {"source": described, "rate_limit": False},
            }))  # fmt: skip
        socket.transport.pause_reading()
        heard["slow reader"] += 1
        await asyncio.sleep(3)  # without reading


async def unknown_ids(port, token, rng, heard) -> None:
    """Request unknown streams, calls and arguments."""
    asked = [
        {"call": "pause", "stream": 77},
        {"call": "nonsense"},
        {"call": "__class__", "arguments": {}},
        {"call": "list_collection_streams", "arguments": {"collection_id": "../x"}},
        {"call": "list_collections", "arguments": {"api": 1}},
        {"call": "proxy_live_stream", "stream": 2**70, "arguments": {}},
        {"call": "proxy_live_stream", "stream": 1, "arguments": {}},
        {"call": "simulate_stream", "stream": 1, "arguments": {"block": 1e300}},
        {"call": "replay_collection_stream", "stream": 1,
         "arguments": {"collection_id": "eyes", "stream_id": "gaze",
                       "attrs": {"subject": "../../../etc/passwd"}}},
    ]  # fmt: skip
    async with _socket(port, token) as socket:
        await _hello(socket)
        for number in range(200):
            question = {"op": "request", "id": number, **rng.choice(asked)}
            await socket.send(json.dumps(question))
            answer = json.loads(await socket.recv())
            assert answer["id"] == number, answer
            assert answer["error"]["message"], answer
            heard["unknown: " + answer["error"]["type"]] += 1


async def many_requests(port, token, rng, heard) -> None:
    """Send a million requests as fast as possible."""
    async with _socket(port, token) as socket:
        await _hello(socket)

        async def listen() -> None:
            async for data in socket:
                message = json.loads(data)
                if message["op"] == "error":
                    heard["flood: " + message["error"]["message"][:17]] += 1

        listener = asyncio.create_task(listen())
        try:
            for number in range(1_000_000):
                await socket.send(
                    f'{{"op":"request","id":{number},"call":"list_collections"}}'
                )
        finally:
            with contextlib.suppress(_closed()):
                await listener


async def bad_messages(port, token, rng, heard) -> None:
    """Send invalid messages, or valid ones at the wrong time."""
    codec = rng.choice(["json", "frame", "msgpack"])
    async with _socket(port, token, codec) as socket:
        if codec == "json" and rng.random() < 0.7:
            await _hello(socket)
        await socket.send(
            rng.choice([b"[" * 100_000, b"{}", b'{"op": 3}', os.urandom(300),
                        b'{"op": "confirm", "streams": [[1, -1]]}', b"\x91" * 1000,
                        b'{"op": "hello", "version": 1}', b"AXF1" + bytes(60)])
        )  # fmt: skip
        with contextlib.suppress(_closed()):
            while True:
                await socket.recv()
        heard[f"bad: {socket.close_code}"] += 1


async def thief(port, token, rng, heard) -> None:
    """Guess the session of another client."""
    async with _socket(port, token) as socket:
        guess = rng.choice(["", "a" * 32, 3])
        welcome = await _hello(socket, session=guess, streams=[[1, 0]])
        heard["thief was " + ("let in" if welcome["is_resumed"] else "a new one")] += 1


async def connects(port, token, rng, heard) -> None:
    """Connect, send a request, and vanish."""
    async with _socket(port, token) as socket:
        await _hello(socket)
        await socket.send(json.dumps({
            "op": "request", "id": 1, "call": "proxy_live_stream", "stream": 1,
            "arguments": {"node_id": "sim", "stream_id": "sine", "attrs": {}},
        }))  # fmt: skip
        await socket.recv()
        socket.transport.abort()
        heard["vanished"] += 1
