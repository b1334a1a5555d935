"""Attackers of a server, each a program: ``workers_doors.py KIND PORT TOKEN TLS COUNT``.

They run until the count is reached, or until they are stopped, and print what
they were answered.
"""
# ruff: noqa: E501

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import resource
import socket
import ssl
import sys
import time
from typing import Any

import msgpack
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from ataraxis.datamux.remote.codec import codec_of

TRIES = (OSError, WebSocketException, InvalidHandshake, TimeoutError, EOFError)


def socket_of(port: int, token: str, tls: str, codec: str = "json") -> Any:
    context = ssl.create_default_context(cafile=tls) if tls else None
    return connect(
        f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/ws", ssl=context, proxy=None,
        subprotocols=[f"ataraxis.1.{codec}"], max_size=None, max_queue=1,
        additional_headers={"Authorization": f"Bearer {token}"}, compression=None,
        open_timeout=30, ping_interval=None, close_timeout=1,
    )  # fmt: skip


async def silent(port: int, token: str, tls: str, count: int) -> None:
    """Open connections that send nothing, or one byte; many at a time, repeatedly."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 500), most))
    rng, held, made = random.Random(1), collections.deque(), 0
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for _ in range(100):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
            held.append(one)
            made += 1
        for one in rng.sample([*held], 10):  # some send a little
            with contextlib.suppress(OSError):
                one.send(rng.choice((b"\x16", b"G", b"\x16\x03\x01\x02\x00", b"\0")))
        while len(held) > count:
            held.popleft().close()
        await asyncio.sleep(0.05)
    print("silent", made, "held", len(held))


def hostile_message(codec: str, rng: random.Random) -> bytes:
    """Return a message that RemoteAPI would not send."""
    kind = rng.randrange(12)
    big = rng.choice((2**31, 2**63, 10**18, -1, 1.5, "x", None, [], {}, True))
    calls = ("proxy_live_stream", "replay_collection_stream", "simulate_stream", "seek",
             "stop", "list_live_streams", "statistics", "position", "../x", "__init__",
             "eval", "x" * 5000, "")  # fmt: skip
    message: Any = {
        "op": "request", "id": rng.choice((1, 2, 10**18)), "call": rng.choice(calls),
        "stream": big, "arguments": rng.choice((
            {}, {"x": 1}, {"node_id": "sim"}, {"node_id": big, "stream_id": big}, [], 3,
            {"collection_id": "../..", "stream_id": "x", "attrs": {"path": "/etc"}},
            {"source": {"name": "x", "fields": {"a": {"dtype": "f64", "shape": [2**40]}}}},
            {"node_id": "sim", "stream_id": "noise", "attrs": {"channels": 10**9}},
            {"node_id": "sim", "stream_id": "sine", "attrs": {"rate_hz": big}},
        )),
    }  # fmt: skip
    if kind == 0:
        message = {"op": rng.choice(("hello", "bye2", "", "confirm", "x" * 999))}
    elif kind == 1:
        message = {"op": "confirm", "streams": rng.choice(([[1, 2]], [[big, 3]], big))}
    elif kind == 2:
        deep: Any = []
        for _ in range(rng.choice((10, 400))):
            deep = [deep]
        message["arguments"] = deep
    if codec == "msgpack":
        try:
            data = msgpack.packb(message)
        except (OverflowError, ValueError):
            data = b"\xc1"
    else:
        try:
            data = codec_of(codec).encode(message)
        except ValueError:
            data = b"AXF1"
    if kind == 3:
        data = bytes(rng.randrange(256) for _ in range(rng.choice((1, 60, 3000))))
    elif kind == 4:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    elif kind == 5:
        data = rng.choice((b"[" * 100_000, b"\x91" * 100_000, b"", b"\xdf\xff\xff\xff\xff",
                           b"9" * 100_000, b'{"a":' * 9999, b"AXF1" + bytes(60)))  # fmt: skip
    return data


async def messages(port: int, token: str, tls: str, count: int) -> None:
    """Send hostile messages for each codec, dozens per connection."""
    heard: collections.Counter[str] = collections.Counter()

    async def one(codec: str) -> None:
        rng, sent = random.Random(codec), 0
        hello = codec_of(codec).encode({"op": "hello", "version": 1})
        while sent < count:
            try:
                async with socket_of(port, token, tls, codec) as made:
                    await made.send(hello, text=codec == "json")
                    await asyncio.wait_for(made.recv(), 30)
                    for _ in range(40):
                        data = hostile_message(codec, rng)
                        if codec == "json":
                            data = data.decode("latin-1").encode()
                        await made.send(data, text=codec == "json")
                        sent += 1
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(made.recv(), 0.001)
            except TRIES as error:
                heard[type(error).__name__] += 1
        heard[codec] = sent

    await asyncio.gather(*(one(codec) for codec in ("json", "msgpack", "frame")))
    print("messages", dict(heard))


PRICED = (
    ("proxy_live_stream", {"node_id": "sim", "stream_id": "noise",
                           "attrs": {"channels": 100_000_000}}),
    ("proxy_live_stream", {"node_id": "sim", "stream_id": "camera",
                           "attrs": {"shape": [30_000, 30_000], "rate_hz": 30}}),
    ("proxy_live_stream", {"node_id": "sim", "stream_id": "sine",
                           "attrs": {"rate_hz": 1e15}}),
    ("proxy_live_stream", {"node_id": "sim", "stream_id": "sine", "attrs": {},
                           "block": 10**15}),
    ("proxy_live_stream", {"node_id": "sim", "stream_id": "probe",
                           "attrs": {"channels": 16_384, "rate_hz": 1e6}}),
    ("simulate_stream", {"source": {"name": "x", "frequency": 1e6, "fields": {"a": {
        "name": "a", "dtype": "f64", "shape": [1000, 1000]}}}, "stream_id": "x",
        "signals": {"signal": "Noise"}}),
    ("simulate_stream", {"source": {"name": "x", "fields": {"a": {"dtype": "u8"}}},
                         "stream_id": "x", "signals": {"signal": "Events", "rate_hz": 2e8}}),
    ("simulate_stream", {"source": {"name": "x", "frequency": 1e9, "fields": {"a": {
        "dtype": "u8"}}}, "stream_id": "x", "speed": 1e9}),
    ("simulate_stream", {"source": {"name": "x", "frequency": 1000, "fields": {"a": {
        "dtype": "f64", "shape": [100, 100]}}}, "stream_id": "x", "block": 60.0}),
)  # fmt: skip


async def priced(port: int, token: str, tls: str, count: int) -> None:
    """Send requests that cost too much: each is refused with a reason."""
    refused, counts = 0, collections.Counter()
    async with socket_of(port, token, tls) as made:
        await made.send(json.dumps({"op": "hello", "version": 1}))
        await made.recv()
        for k in range(count):
            call, arguments = PRICED[k % len(PRICED)]
            await made.send(json.dumps({"op": "request", "id": k + 1, "call": call,
                                        "stream": k + 1, "arguments": arguments}))  # fmt: skip
            while True:
                answer = json.loads(await asyncio.wait_for(made.recv(), 60))
                if answer["op"] == "reply":
                    break
            refused += "error" in answer
            counts[
                answer.get("error", {}).get("type", "GRANTED " + str(arguments))
            ] += 1
    print("priced", refused, "of", count, dict(counts))


async def unread(port: int, token: str, tls: str, count: int) -> None:
    """Clients that start streams as fast as they come, and never read."""
    source = {"name": "x", "frequency": 1000, "fields": {
        f"c{i}": {"dtype": "f64"} for i in range(64)}}  # fmt: skip
    began = 0

    async def one() -> None:
        nonlocal began
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                async with socket_of(port, token, tls) as made:
                    await made.send(json.dumps({"op": "hello", "version": 1}))
                    for k in (1, 2):
                        await made.send(json.dumps({
                            "op": "request", "id": k, "call": "simulate_stream",
                            "stream": k, "arguments": {
                                "source": source, "stream_id": "x", "rate_limit": False,
                            }}))  # fmt: skip
                    began += 1
                    await asyncio.sleep(max(0.0, end - time.monotonic()))
            except TRIES:
                await asyncio.sleep(0.2)

    await asyncio.gather(*(one() for _ in range(count)))
    print("unread", began)


if __name__ == "__main__":
    kind, port, token, tls, count = sys.argv[1:6]
    asyncio.run(globals()[kind](int(port), token, tls, int(count)))
