"""The frame buffer against a plain model: the right bytes or FrameBufferTimeout.

The model is a bytearray and a counter. After any sequence of allocations, writes (in
time, late, overlapping, into chunks of others) and reads (late, again), a read must
give what its checksum was made of exactly when those bytes are still there.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
from ataraxis.framebuffer import Ticket

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None


@dataclass(frozen=True)
class Chunk:
    """An allocation that was not written to."""

    offset: int
    size: int


@dataclass(frozen=True)
class Message:
    """What a writer sends to a reader."""

    offset: int
    data: bytes
    checksum: bytes


@dataclass(frozen=True)
class Sent:
    """A ticket, and the array it is of."""

    ticket: Ticket
    array: np.ndarray


class PlainRing:
    """The oracle: what a ring is, without shared memory, threads or cleverness."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.memory = bytearray(capacity)
        self.head = 0
        self.chunks = 0

    def allocate(self, size: int, align: int) -> tuple[int, int]:
        position = self.head
        while (
            position % self.capacity + size > self.capacity
            or position % self.capacity % align
        ):
            position += 1
        self.head = position + size
        self.chunks += 1
        return position % self.capacity, position

    def has(self, offset: int, data: bytes) -> bool:
        return self.memory[offset : offset + len(data)] == data

    def write(self, offset: int, data: bytes) -> None:
        self.memory[offset : offset + len(data)] = data


class Comparison(RuleBasedStateMachine):
    chunks = Bundle("chunks")
    messages = Bundle("messages")
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="ataraxis-test-", dir=SHM)

    @initialize(capacity=st.integers(1, 300), clients=st.integers(1, 3))
    def serve(self, capacity: int, clients: int) -> None:
        self.plain = PlainRing(capacity)
        self.server = FrameBufferServer("key", capacity, context=self.directory)
        self.server.start()
        self.clients = [
            FrameBufferClient("key", context=self.directory) for _ in range(clients)
        ]
        for client in self.clients:
            client.start()

    def teardown(self) -> None:
        if hasattr(self, "clients"):
            for client in self.clients:
                client.stop()
            self.server.stop()
        assert os.listdir(self.directory) == []
        Path(self.directory).rmdir()

    def client(self, who: int) -> FrameBufferClient:
        return self.clients[who % len(self.clients)]

    @rule(target=chunks, size=st.integers(1, 300), align=st.sampled_from([1, 1, 2, 64]))
    def allocate(self, size: int, align: int) -> object:
        if size > self.plain.capacity:
            with pytest.raises(ValueError, match="cannot allocate"):
                self.server.allocate(size, align=align)
            return multiple()
        offset, _ = self.plain.allocate(size, align)
        assert self.server.allocate(size, align=align) == offset
        return Chunk(offset, size)

    @rule(
        target=messages,
        chunk=st.one_of(chunks, consumes(chunks)),
        seed=st.integers(0, 3),
        who=st.integers(0, 2),
    )
    def write(self, chunk: Chunk, seed: int, who: int) -> Message:
        """In time or long after the chunk was allocated again."""
        data = np.random.default_rng(seed).bytes(chunk.size)
        checksum = self.client(who).write(chunk.offset, data)
        self.plain.write(chunk.offset, data)
        return Message(chunk.offset, data, checksum)

    @rule(
        target=messages,
        offset=st.integers(-2, 302),
        data=st.binary(max_size=40),
        who=st.integers(0, 2),
    )
    def write_anywhere(self, offset: int, data: bytes, who: int) -> object:
        """What a hostile or confused writer does."""
        if not data or offset < 0 or offset + len(data) > self.plain.capacity:
            with pytest.raises(ValueError, match="inside the ring"):
                self.client(who).write(offset, data)
            return multiple()
        checksum = self.client(who).write(offset, data)
        self.plain.write(offset, data)
        return Message(offset, data, checksum)

    @rule(message=messages, who=st.integers(0, 2), way=st.integers(0, 2))
    def read(self, message: Message, who: int, way: int) -> None:
        offset, data, checksum = message.offset, message.data, message.checksum
        client, size = self.client(who), len(message.data)
        try:
            if way == 0:
                found = client.read(offset, size, checksum)
            elif way == 1:
                out = bytearray(size)
                client.read_into(offset, size, checksum, out)
                found = bytes(out)
            else:
                with client.view(offset, size, checksum) as live:
                    found = live.tobytes()
        except FrameBufferTimeout:
            assert not self.plain.has(offset, data)
        else:
            assert found == data
            assert self.plain.has(offset, data)

    @rule(message=messages, other=messages, who=st.integers(0, 2))
    def mix_up(self, message: Message, other: Message, who: int) -> None:
        """Offset of one, checksum of another: right only where the bytes agree."""
        here = message.offset
        there = self.plain.memory[here : here + len(other.data)]
        try:
            found = self.client(who).read(here, len(other.data), other.checksum)
        except ValueError:
            assert here + len(other.data) > self.plain.capacity
        except FrameBufferTimeout:
            assert there != other.data
        else:
            assert found == other.data == there

    @rule(message=messages, other=messages, who=st.integers(0, 2))
    def overwrite_in_a_view(self, message: Message, other: Message, who: int) -> None:
        """What changes while it is looked at is found out at the end."""
        offset, data = message.offset, message.data
        was = self.plain.has(offset, data)
        before = bytes(self.plain.memory)
        try:
            with self.client(who).view(offset, len(data), message.checksum):
                self.client(who + 1).write(other.offset, other.data)
                self.plain.write(other.offset, other.data)
        except FrameBufferTimeout:
            assert not was or not self.plain.has(offset, data)
            assert was or self.plain.memory == before
        else:
            assert was
            assert self.plain.has(offset, data)

    @rule(target=tickets, count=st.integers(0, 40), who=st.integers(0, 2))
    def put(self, count: int, who: int) -> object:
        array = np.random.default_rng(count).integers(0, 9, count).astype("u2")
        if array.nbytes > self.plain.capacity:
            with pytest.raises(ValueError, match="cannot allocate"):
                self.client(who).put(array)
            return multiple()
        ticket = self.client(who).put(array)
        if count:
            at = self.plain.allocate(array.nbytes, 64)
            assert (ticket.offset, ticket.position) == at
            self.plain.write(ticket.offset, array.tobytes())
        return Sent(ticket, array)

    @rule(sent=tickets, who=st.integers(0, 2), is_json=st.booleans())
    def get(self, sent: Sent, who: int, is_json: bool) -> None:
        ticket, plain = sent.ticket, self.plain
        is_whole = not ticket.size or (
            plain.head - ticket.position <= plain.capacity
            and plain.has(ticket.offset, sent.array.tobytes())
        )
        try:
            found = self.client(who).get(ticket.to_json() if is_json else ticket)
        except FrameBufferTimeout:
            assert not is_whole
        else:
            assert is_whole
            assert np.array_equal(found, sent.array)
            assert found.dtype == sent.array.dtype

    @invariant()
    def statistics_agree(self) -> None:
        if hasattr(self, "clients"):
            for handle in (self.server, self.clients[-1]):
                seen = handle.statistics()
                assert seen.handed_out_bytes == self.plain.head
                assert seen.chunks == self.plain.chunks
                assert seen.capacity_bytes == self.plain.capacity
                assert seen.is_served
                assert (seen.oldest_s > 0) == (self.plain.head > 0)


scale = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
Comparison.TestCase.settings = settings(
    max_examples=max(100, int(2000 * scale)), stateful_step_count=60
)
TestComparison = Comparison.TestCase
