"""Long messages: read into their final memory, however the network cuts them."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")

from websockets import frames
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from ataraxis.datamux import Block, Field, Stream
from ataraxis.datamux.remote.codec import Fragments, codec_of
from ataraxis.datamux.remote.layout import Layout
from ataraxis.datamux.remote.outbound import Budget, Outlet, ResendBuffer
from ataraxis.datamux.remote.websocket import LONG_BYTES, joined, reading
from ataraxis.errors import BadMessage

JOINED = joined(frames)
SIZES = (
    1, 125, 126, 2**12, LONG_BYTES - 1, LONG_BYTES, LONG_BYTES + 1, 2**18 + 7, 2**21,
)  # fmt: skip


class Wire(asyncio.Transport):
    """The target of a connection's writes; does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def feed(connection: Any, data: bytes, cuts: random.Random) -> None:
    """Give bytes as the loop does, in pieces of any size."""
    rest = memoryview(data)
    while rest:
        into = connection.get_buffer(-1)
        assert len(into)
        most = min(len(into), len(rest))
        n = most if cuts.random() < 0.5 else cuts.randint(1, most)
        into[:n] = rest[:n]
        rest = rest[n:]
        connection.buffer_updated(n)


async def pair(cuts: random.Random) -> tuple[Any, ServerProtocol]:
    """A client's connection and the server's end of it, after the handshake."""
    kind = reading(ClientConnection, frames)
    connection = kind(
        ClientProtocol(parse_uri("ws://a/"), max_size=2**22), ping_interval=None
    )
    wire = Wire()
    connection.connection_made(wire)
    handshake = asyncio.ensure_future(connection.handshake())
    while not wire.written:
        await asyncio.sleep(0)
    server = ServerProtocol()
    server.receive_data(bytes(wire.written))
    server.send_response(server.accept(server.events_received()[0]))
    feed(connection, b"".join(server.data_to_send()), cuts)
    await handshake
    return connection, server


def cut(data: bytes, cuts: random.Random) -> Fragments:
    """The message in pieces."""
    at = sorted(cuts.randint(0, len(data)) for _ in range(cuts.randint(0, 3)))
    edges = [0, *at, len(data)]
    return Fragments([memoryview(data)[a:b] for a, b in itertools.pairwise(edges)])


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_whole_however_they_are_cut(seed):
    rng = random.Random(seed)

    async def run() -> None:
        connection, server = await pair(rng)
        sent = [rng.randbytes(rng.choice(SIZES)) for _ in range(12)]
        wire = b""
        for message in sent:
            kind = rng.randrange(4)
            if kind == 0:  # fragments of another server
                server.send_binary(message[: len(message) // 2], fin=False)
                server.send_continuation(message[len(message) // 2 :], fin=True)
            elif kind == 1:
                server.send_binary(message)
            else:
                server.send_frame(JOINED(frames.Opcode.BINARY, cut(message, rng)))
            if rng.random() < 0.3:
                server.send_ping(b"there?")
            wire += b"".join(server.data_to_send())
        feed(connection, wire, rng)
        for message in sent:
            assert connection.take(await connection.recv(decode=False)) == message

    asyncio.run(run())


def test_a_long_message_stays_where_it_was_received():
    async def run() -> None:
        connection, server = await pair(random.Random(1))
        server.send_binary(bytes(2**20))
        wire = b"".join(server.data_to_send())
        into = connection.get_buffer(-1)
        into[:100] = wire[:100]
        connection.buffer_updated(100)
        place = connection.get_buffer(-1)
        assert len(place) == len(wire) - 100
        place[:] = wire[100:]
        connection.buffer_updated(len(place))
        whole = connection.take(await connection.recv(decode=False))
        assert np.shares_memory(np.frombuffer(whole, "u1"), np.frombuffer(place, "u1"))
        assert whole.readonly

    asyncio.run(run())


def test_a_long_message_that_breaks_off_ends_the_connection():
    async def run() -> None:
        connection, server = await pair(random.Random(2))
        server.send_binary(bytes(2**20))
        feed(connection, b"".join(server.data_to_send())[:-1], random.Random(2))
        connection.eof_received()
        connection.connection_lost(None)
        with pytest.raises(ConnectionClosed):
            await connection.recv(decode=False)

    asyncio.run(run())


def test_a_message_above_the_limit_is_refused_before_there_is_memory_for_it():
    async def run() -> None:
        connection, _ = await pair(random.Random(3))
        feed(connection, b"\x82\x7f" + (2**40).to_bytes(8, "big"), random.Random(3))
        assert len(connection.get_buffer(-1)) < 2**20
        assert connection.protocol.close_sent.code == frames.CloseCode.MESSAGE_TOO_BIG

    asyncio.run(run())


# ---- headers like the last


def blocks(values: np.ndarray, count: int = 2) -> tuple[Any, Layout, list[bytes]]:
    """A codec that has read one block of a stream, and messages of more."""
    codec = codec_of("frame")
    stream = Stream("s", fields={"a": Field(dtype="i64")})
    n = len(values)
    layout, messages = None, []
    for i in range(count + 1):
        block = Block(stream, np.arange(n) / 10 + i, {"a": values + i})
        layout = layout or Layout.of(block)
        data = bytes(codec.encode_block(7, i, i * n, layout.arrays(block)))
        messages.append(data)
    assert layout is not None
    codec.arrays(codec.decode(messages[0]), layout.columns)
    return codec, layout, messages[1:]


def test_a_header_like_the_last_is_still_checked_byte_for_byte():
    codec, layout, (message, _) = blocks(np.arange(5))
    first, (t, a) = codec.arrays(codec.decode(message), layout.columns)
    assert (first, t.tolist()) == (5, (np.arange(5) / 10 + 1).tolist())
    assert a[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert not a.flags.writeable
    for at in range(len(message)):
        damaged = bytearray(message)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(BadMessage):  # noqa: PT012 - either may raise
            found = codec.decode(bytes(damaged))
            codec.arrays({**found, "stream": 7, "sequence": 1}, layout.columns)
    for shorter in (message[:-1], message[:-8], message[:64], message + bytes(8)):
        with pytest.raises(BadMessage):
            codec.arrays(codec.decode(shorter), layout.columns)


def test_blocks_of_a_stream_may_change_their_length():
    codec, layout, _ = blocks(np.arange(5))
    stream = layout.stream
    for i, n in enumerate((5, 3, 0, 5, 1, 5), 1):
        block = Block(stream, np.arange(n) / 10, {"a": np.arange(n)})
        data = codec.encode_block(7, i, 9, layout.arrays(block))
        first, (t, a) = codec.arrays(codec.decode(bytes(data)), layout.columns)
        assert (first, len(t), a[:, 0].tolist()) == (9, n, list(range(n)))
    # Columns of two lengths, both seen before.
    mixed = [np.arange(5) / 10, np.arange(3).reshape(3, 1)]
    data = codec.encode_block(7, 8, 0, mixed)
    with pytest.raises(BadMessage, match="column 1"):
        codec.arrays(codec.decode(bytes(data)), layout.columns)


# ---- waking the sender


def test_the_sender_is_woken_once_it_has_nothing_else_to_send():
    wakes: list[None] = []
    stream = Stream("s", fields={"a": Field(dtype="i64")})
    block = Block(stream, np.arange(4) / 10, {"a": np.arange(4)})
    room = Budget(2**20)
    outlet = Outlet(
        1, codec_of("frame"), room, lambda: wakes.append(None),
        window=2**20, is_live=False,
    )  # fmt: skip
    outlet.put([block] * 9, lambda: False)
    assert len(wakes) == 1  # its labels; the sender sends until nothing is left
    sent = []
    while (data := outlet.take()) is not None:
        sent.append(data)
    assert len(sent) == 10
    outlet.put([block], lambda: False)
    assert len(wakes) == 2


def test_the_sender_is_woken_when_its_next_message_was_evicted():
    ring = ResendBuffer(Budget(10))
    ring.append(Fragments([b"abc"]))
    assert ring.is_due
    ring.append(Fragments([b"def"]))
    assert not ring.is_due
    ring.evict()
    assert ring.is_due
