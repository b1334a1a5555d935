"""The frame buffer's 14 decisions, each a test or more, and untrusted input.

The numbers are those of the decisions (study of core-framebuffer, section c). Deaths
and signals are in test_framebuffer_life.py, the pages in test_framebuffer_seed.py.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from deadline import wait_until
from programs import run

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout, attach
from ataraxis.errors import LayoutError, NotConnectedError, SegmentNotFound
from ataraxis.framebuffer import Ticket
from ataraxis.framebuffer.ring import name_of

CAPACITY = 1000
NONSENSE = [-1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]


@pytest.fixture
def server(context: object) -> Iterator[FrameBufferServer]:
    with FrameBufferServer("key", CAPACITY) as serving:
        yield serving


@pytest.fixture
def client(server: FrameBufferServer) -> Iterator[FrameBufferClient]:
    with FrameBufferClient("key") as reading:
        yield reading


def head(server: FrameBufferServer) -> int:
    return server.statistics().handed_out_bytes


# ---- 1, 2, 3: allocation


def test_a_chunk_never_straddles_the_end(server: FrameBufferServer) -> None:
    """Decision 1: the tail is skipped; 0 <= offset <= capacity - size."""
    assert [server.allocate(600), server.allocate(600)] == [0, 0]
    assert server.allocate(400) == 600
    assert server.allocate(1) == 0
    assert server.allocate(CAPACITY) == 0
    assert server.allocate(CAPACITY) == 0


@pytest.mark.parametrize("size", [1, 3, 7, 100, 333, 500, 999, 1000])
def test_all_bytes_are_usable(server: FrameBufferServer, size: int) -> None:
    """Decision 1: capacity // n chunks of n bytes are disjoint, nothing is padded."""
    count = CAPACITY // size
    for _ in range(3):
        offsets = [server.allocate(size) for _ in range(count)]
        assert sorted(offsets) == [k * size for k in range(count)]


def test_alignment_is_there_for_the_asking(server: FrameBufferServer) -> None:
    """Decision 1: align= moves the offset, and only then."""
    assert server.allocate(5) == 0
    assert server.allocate(5) == 5
    assert server.allocate(5, align=64) == 64
    assert server.allocate(930, align=64) == 0
    for align in (0, 3, -8, 8192):
        with pytest.raises(ValueError, match="power of two"):
            server.allocate(5, align=align)


def test_the_oldest_goes_first(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 2: all of the last capacity - 2 * largest bytes are whole."""
    chance = np.random.default_rng(2)
    largest, kept = 90, []
    for _ in range(2000):
        size = int(chance.integers(1, largest + 1))
        offset = server.allocate(size)
        data = chance.bytes(size)
        kept.append((offset, size, client.write(offset, data), data))
        recent = 0
        for offset, size, checksum, data in reversed(kept):
            recent += size
            if recent > CAPACITY - 2 * largest:
                break
            assert client.read(offset, size, checksum) == data
        kept = kept[-200:]


@pytest.mark.parametrize("size", [0, -1, CAPACITY + 1, *NONSENSE])
def test_impossible_sizes_are_refused(server: FrameBufferServer, size: int) -> None:
    """Decision 3: and the ring does not move."""
    server.allocate(10)
    before = server.statistics()
    with pytest.raises(ValueError, match="cannot allocate"):
        server.allocate(size)
    assert head(server) == before.handed_out_bytes
    assert server.statistics().chunks == before.chunks
    assert server.allocate(10) == 10


@pytest.mark.parametrize("size", [True, np.True_, 1.0, "1", b"1", None, [1]])
def test_sizes_of_other_types_are_refused(
    server: FrameBufferServer, size: object
) -> None:
    """Decision 3: bool, float and str are not sizes; numpy's integers are."""
    with pytest.raises(TypeError, match="is an int"):
        server.allocate(size)  # type: ignore[arg-type]
    assert head(server) == 0
    assert server.allocate(np.uint16(7)) == 0  # type: ignore[arg-type]
    assert server.allocate(1) == 7


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), (-5, ValueError), (2**64, ValueError), (1.5, TypeError),
     (True, TypeError), ("9", TypeError)],
)  # fmt: skip
def test_a_server_has_a_possible_size(size: object, error: type[Exception]) -> None:
    """Decision 3: the ring itself obeys the same rule."""
    with pytest.raises(error):
        FrameBufferServer("key", size)  # type: ignore[arg-type]


# ---- 4: ranges, before arithmetic overflows


@pytest.mark.parametrize("number", [*NONSENSE, CAPACITY, CAPACITY - 9])
def test_offsets_outside_are_refused(client: FrameBufferClient, number: int) -> None:
    """Decision 4: also those that wrap to inside when the size is added."""
    checksum = client.write(0, b"0123456789")
    with pytest.raises(ValueError, match="inside the ring"):
        client.write(number, b"0123456789")
    for call in (client.read, client.view):
        with pytest.raises(ValueError, match="inside the ring"):
            with_view(call(number, 10, checksum))
    with pytest.raises(ValueError, match="inside the ring"):
        client.read_into(number, 10, checksum, bytearray(10))
    assert client.read(0, 10, checksum) == b"0123456789"


@pytest.mark.parametrize("number", [*NONSENSE, 0, CAPACITY + 1, CAPACITY])
def test_sizes_outside_are_refused(client: FrameBufferClient, number: int) -> None:
    """Decision 4: offset 1 and any of these overlap the end, or are none."""
    checksum = client.write(0, b"0123456789")
    for call in (client.read, client.view):
        with pytest.raises(ValueError, match="inside the ring"):
            with_view(call(1, number, checksum))
    with pytest.raises(ValueError, match="inside the ring"):
        client.read_into(1, number, checksum, bytearray(10))
    with pytest.raises(ValueError, match="inside the ring"):
        client.write(0, b"")


@pytest.mark.parametrize("bad", [True, 1.0, None, b"1", [1], np.float64(1)])
def test_offsets_and_sizes_have_types(client: FrameBufferClient, bad: object) -> None:
    """Decision 4: a clear error, whatever a peer sends."""
    for arguments in [(bad, 10, b"12345678"), (0, bad, b"12345678")]:
        with pytest.raises(TypeError, match="is an int"):
            client.read(*arguments)
        with pytest.raises(TypeError, match=r"is an int|takes offset"):
            client.view(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is an int"):
        client.write(bad, b"0123456789")


def test_decimal_text_is_an_offset(client: FrameBufferClient) -> None:
    """The seed's tree says ``allocate -> offset: str``; its client takes an int."""
    checksum = client.write("12", b"twelve")
    assert client.read("12", 6, checksum) == client.read(12, 6, checksum) == b"twelve"
    for text in ("", "-1", "1.0", "0x10", "\u0661", "1" * 30, "x" * 9999):
        with pytest.raises(ValueError, match="an offset must be"):
            client.read(text, 6, checksum)
    # 2**64 - 1 has 20 digits: text that long is an offset still.
    assert client.read("12".zfill(20), 6, checksum) == b"twelve"
    with pytest.raises(ValueError, match="not inside the ring"):
        client.read(str(2**64 - 1), 6, checksum)
    with pytest.raises(TypeError, match="is an int"):
        client.read(12, "6", checksum)


def with_view(view: object) -> None:
    with view:  # type: ignore[attr-defined]
        pass


# ---- 5, 6, 7: the checksum


def test_the_copy_is_what_is_verified(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 5: bytes that change between copying and hashing do no harm.

    The hash itself overwrites the ring: what was hashed must be what is returned.
    """
    original = b"a" * 500
    checksum = client.write(0, original)
    ring = client._segment.payload  # type: ignore[union-attr]
    digest = __import__("xxhash").xxh3_64_digest

    def meddle(data: object) -> bytes:
        found = digest(data)
        ring[:500] = ord("b")
        return found

    client._hash_by(meddle)
    assert client.read(0, 500, checksum) == original
    client.write(0, original)
    assert bytes(ring[:500]) == b"b" * 500
    with pytest.raises(FrameBufferTimeout):
        client.read(0, 500, checksum)
    client._hash_by(digest)
    client.write(0, original)
    client._hash_by(meddle)
    out = bytearray(500)
    client.read_into(0, 500, checksum, out)
    assert out == original
    client._hash_by(digest)


def test_what_is_hashed_is_what_is_returned(client: FrameBufferClient) -> None:
    """Decision 5: the very object, so that nothing can change in between."""
    digest = __import__("xxhash").xxh3_64_digest
    hashed: list[object] = []

    def spy(data: object) -> bytes:
        hashed.append(data)
        return digest(data)

    client._hash_by(spy)
    data, out = b"data", bytearray(4)
    checksum = client.write(0, data)
    found = client.read(0, 4, checksum)
    client.read_into(0, 4, checksum, out)
    expected = [data, found, out]
    assert [a is b for a, b in zip(hashed, expected, strict=True)] == [True] * 3


def test_the_writer_certifies_its_own_bytes(client: FrameBufferClient) -> None:
    """Decisions 5 and 8: never bytes that another client put there meanwhile."""
    digest = __import__("xxhash").xxh3_64_digest
    ring = client._segment.payload  # type: ignore[union-attr]

    def late(data: object) -> bytes:
        ring[:3] = ord("x")
        return digest(data)

    client._hash_by(late)
    assert client.write(0, b"abc") == digest(b"abc")
    client._hash_by(digest)


def test_a_view_is_checked_again_at_its_end(client: FrameBufferClient) -> None:
    """Decision 5: the zero-copy form verifies twice."""
    checksum = client.write(0, b"first")
    with client.view(0, 5, checksum) as live:
        assert live.tobytes() == b"first"
        assert not live.flags.writeable
        assert live.dtype == np.uint8
        assert live.shape == (5,)
    view = client.view(0, 5, checksum)
    live = view.__enter__()
    client.write(0, b"other")
    assert live.tobytes() == b"other"
    with pytest.raises(FrameBufferTimeout, match="was overwritten"):
        view.__exit__(None, None, None)
    with pytest.raises(FrameBufferTimeout), client.view(0, 5, checksum):
        pytest.fail("entered")  # pragma: no cover
    assert live.tobytes() == b"other"


def test_a_view_is_late_though_its_bytes_came_back(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 5: right, wrong and right again was wrong: the ring's head tells."""
    for use_ticket in (True, False):
        ticket = client.put(np.full(100, 7, "u1"), align=1)
        chunk = (ticket.offset, 100, ticket.digest)
        lent = client.view(ticket) if use_ticket else client.view(*chunk)
        live = lent.__enter__()
        for value in (8, 7):
            while server.allocate(100) != ticket.offset:
                pass
            client.write(ticket.offset, bytes([value] * 100))
            assert live.max() == value
        assert live.tobytes() == bytes([7] * 100)
        with pytest.raises(FrameBufferTimeout, match="was overwritten"):
            lent.__exit__(None, None, None)


def test_a_view_lasts_until_its_bytes_are_handed_out(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 5: and not a byte before, wherever in the ring the chunk lies."""
    for skip in range(0, CAPACITY, 37):
        server.allocate(1 + skip % 91)
        ticket = client.put(np.full(100, skip % 251, "u1"), align=1)
        with client.view(ticket):
            while True:
                left = ticket.position + CAPACITY - head(server)
                if not left:
                    break
                tail = CAPACITY - head(server) % CAPACITY
                server.allocate(min(left, tail))
        with pytest.raises(FrameBufferTimeout), client.view(*(
            ticket.offset, ticket.size, ticket.digest
        )):  # fmt: skip
            server.allocate(1)
    with client.view(client.put(np.empty(0))) as nothing:
        server.allocate(CAPACITY)
        assert nothing.size == 0


def test_errors_in_a_view_that_changed_are_its_doing(
    client: FrameBufferClient,
) -> None:
    """Decision 5: an error of changed bytes is a timeout; others are raised."""

    def look(error: type[BaseException], overwrites: bool) -> None:
        with client.view(0, 5, client.write(0, b"first")):
            if overwrites:
                client.write(0, b"other")
            raise error

    with pytest.raises(ZeroDivisionError):
        look(ZeroDivisionError, overwrites=False)
    with pytest.raises(FrameBufferTimeout) as caught:
        look(ZeroDivisionError, overwrites=True)
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        look(KeyboardInterrupt, overwrites=True)


def test_the_checksum_is_the_same_everywhere(client: FrameBufferClient) -> None:
    """Decision 6: the published XXH3 vector, and 64 bits, in every process."""
    code = """
        import sys
        from ataraxis import FrameBufferClient
        with FrameBufferClient("key") as client:
            print(client.write(int(sys.argv[1]), b"0123456789" * 10).hex())
    """
    mine = client.write(0, b"0123456789" * 10)
    assert len(mine) == 8
    assert run(code, 200).strip() == run(code, 300).strip() == mine.hex()
    # XXH3_64bits("a"), from the reference implementation's own command line.
    assert client.write(0, b"a").hex() == "e6c632b61e964e1f"


def test_the_checksum_covers_the_length(client: FrameBufferClient) -> None:
    """Decision 6: zeros of one length are not zeros of another."""
    sums = {client.write(0, bytes(n)) for n in range(1, 300)}
    assert len(sums) == 299
    checksum = client.write(0, bytes(100))
    for size in (99, 101, 1):
        with pytest.raises(FrameBufferTimeout):
            client.read(0, size, checksum)


def test_every_bit_of_data_and_checksum_counts(client: FrameBufferClient) -> None:
    """Decision 6: compared exactly."""
    data = bytearray(b"sixteen bytes...")
    checksum = client.write(0, data)
    for bit in range(64):
        other = (int.from_bytes(checksum, "big") ^ 1 << bit).to_bytes(8, "big")
        with pytest.raises(FrameBufferTimeout):
            client.read(0, 16, other)
    for bit in range(128):
        data[bit // 8] ^= 1 << bit % 8
        client.write(0, data)
        with pytest.raises(FrameBufferTimeout):
            client.read(0, 16, checksum)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("length", [0, 1, 7, 9, 16, 100_000])
def test_checksums_of_another_length(client: FrameBufferClient, length: int) -> None:
    """Decision 6: cannot match, and the message says why; also when a prefix would."""
    checksum = client.write(0, b"data")
    wrong = (checksum * (length // 8 + 1))[:length]
    for call in (client.read, client.view):
        with pytest.raises(FrameBufferTimeout, match="checksum has"):
            with_view(call(0, 4, wrong))


@pytest.mark.parametrize("bad", ["", "0123456789abcdef", 5, None, [1], 1.5])
def test_checksums_of_another_type(client: FrameBufferClient, bad: object) -> None:
    """Decision 6: TypeError; bytes-likes are taken."""
    checksum = client.write(0, b"data")
    for call in (client.read, client.view):
        with pytest.raises(TypeError, match=r"a checksum is bytes|takes offset"):
            call(0, 4, bad)  # type: ignore[operator]
    with pytest.raises(TypeError, match="a checksum is bytes"):
        client.read_into(0, 4, bad, bytearray(4))
    for good in (bytearray(checksum), memoryview(checksum)):
        assert client.read(0, 4, good) == b"data"


def test_the_same_bytes_are_the_right_bytes(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 7: overwritten by identical bytes, a chunk can still be read."""
    offset = server.allocate(CAPACITY)
    checksum = client.write(offset, b"s" * CAPACITY)
    offset = server.allocate(CAPACITY)
    assert client.write(offset, b"s" * CAPACITY) == checksum
    assert client.read(offset, CAPACITY, checksum) == b"s" * CAPACITY


# ---- 8: slow writers


def test_two_writers_of_one_chunk(client: FrameBufferClient) -> None:
    """Decision 8: the last wins or both fail; never a mixture."""
    first = client.write(100, b"a" * 50)
    second = client.write(120, b"b" * 50)
    with pytest.raises(FrameBufferTimeout):
        client.read(100, 50, first)
    assert client.read(120, 50, second) == b"b" * 50
    client.write(100, b"a" * 50)
    for offset, checksum in ((120, second),):
        with pytest.raises(FrameBufferTimeout):
            client.read(offset, 50, checksum)
    assert client.read(100, 50, first) == b"a" * 50


def test_put_notices_that_it_was_overtaken(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 8: with a position, a chunk that expired while written is refused."""
    digest = __import__("xxhash").xxh3_64_digest

    def slow(data: object) -> bytes:
        server.allocate(CAPACITY)
        return digest(data)

    client._hash_by(slow)
    with pytest.raises(FrameBufferTimeout):
        client.put(np.arange(10))


def test_a_ticket_knows_that_it_was_overtaken(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """Decision 8: as soon as the chunk is handed out again, and not a byte before."""
    ticket = client.put(np.arange(100, dtype="u1"))
    server.allocate(CAPACITY - 100)
    assert client.get(ticket).sum() == 4950
    server.allocate(1)
    for call in (client.get, client.view):
        with pytest.raises(FrameBufferTimeout):
            call(ticket)
    far = dataclasses.replace(ticket, position=2**64 - 1)
    with pytest.raises(FrameBufferTimeout):
        client.get(far)


# ---- 9: life without deaths (those are in test_framebuffer_life.py)


def test_not_started(context: object) -> None:
    """Decision 9: RuntimeError, and what to do."""
    server, client = FrameBufferServer("key", 10), FrameBufferClient("key")
    for call in (
        lambda: server.allocate(1),
        lambda: client.write(0, b"x"),
        lambda: client.read(0, 1, b"12345678"),
        lambda: client.read_into(0, 1, b"12345678", bytearray(1)),
        lambda: client.put(np.ones(1, "u1")),
        lambda: with_view(client.view(0, 1, b"12345678")),
        lambda: client.allocate(1),
        client.statistics,
        server.statistics,
    ):
        with pytest.raises(RuntimeError, match="not started") as caught:
            call()
        assert isinstance(caught.value, NotConnectedError)
    assert not server.is_started
    assert not client.is_started


def test_stop_is_idempotent_and_start_comes_again(context: object) -> None:
    """Decision 9: and start twice is start once."""
    server, client = FrameBufferServer("key", 10), FrameBufferClient("key")
    server.stop()
    client.stop()
    for _ in range(3):
        server.start()
        server.start()
        client.start()
        client.start()
        assert client.read(0, 2, client.write(server.allocate(2), b"hi")) == b"hi"
        client.stop()
        client.stop()
        server.stop()
        server.stop()
        with pytest.raises(SegmentNotFound, match="no server serves"):
            client.start()


def test_stop_with_clients_attached(context: object) -> None:
    """Decision 9: what they have stays readable; writing raises: no server."""
    server, client = FrameBufferServer("key", 100), FrameBufferClient("key")
    server.start()
    client.start()
    checksum = client.write(0, b"data")
    with client.view(0, 4, checksum) as live:
        server.stop()
        assert client.read(0, 4, checksum) == b"data"
    assert not client.statistics().is_served
    with pytest.raises(SegmentNotFound, match="no server serves"):
        client.write(0, b"more")
    with pytest.raises(SegmentNotFound):
        client.put(np.arange(3))
    client.stop()
    assert live.tobytes() == b"data"


def test_clients_follow_their_key(context: object) -> None:
    """Decision 9: to the next server's ring, of whatever size, reading or writing."""
    with FrameBufferServer("key", 100), FrameBufferClient("key") as writer:
        checksum = writer.write(0, b"old")
        reader = FrameBufferClient("key")
        reader.start()
    with FrameBufferServer("key", 200) as server:
        with pytest.raises(FrameBufferTimeout):
            reader.read(0, 3, checksum)
        with FrameBufferClient("key") as third:
            assert reader.read(150, 3, third.write(150, b"new")) == b"new"
        assert reader.statistics().capacity_bytes == 200
        assert server.statistics().is_served
        reader.stop()


def test_a_client_waits_for_its_server(context: object) -> None:
    """Decision 9: without a server an error at once, or after `timeout`."""
    with pytest.raises(SegmentNotFound, match="no server serves"):
        FrameBufferClient("key").start()
    with pytest.raises(TimeoutError, match=r"waited 0\.05 s"):
        FrameBufferClient("key", timeout=0.05).start()
    client = FrameBufferClient("key", timeout=20)
    thread = threading.Thread(target=client.start)
    thread.start()
    with FrameBufferServer("key", 10):
        thread.join(20)
        assert client.is_started
        client.stop()


# ---- 12: files (11 and 10 are in test_framebuffer_life.py)


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../x", "k" * 100_000, "a\0b", "\ud800", " ", ".", "\u00e4"]
)
def test_any_text_is_a_key(context: object, key: str) -> None:
    """Decision 12: a hash of it names the file, so that none leads astray."""
    with FrameBufferServer(key, 10) as server, FrameBufferClient(key) as client:
        assert server.get_key() == key
        assert client.read(0, 1, client.write(0, b"x")) == b"x"
        (name,) = (p.name for p in context.iterdir())  # type: ignore[attr-defined]
        assert name == server.name == name_of(key)
        assert key == " " or key == "." or key not in name


@pytest.mark.parametrize("key", [b"key", 5, None, ""])
def test_other_keys_are_refused(key: object) -> None:
    """Decision 12: text, and not none at all."""
    for make in (lambda: FrameBufferServer(key, 1), lambda: FrameBufferClient(key)):  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match="key"):
            make()


def test_the_file_is_its_owners(context: object) -> None:
    """Decision 12: mode 0600, or what was asked; never writable by all users."""
    path = context / name_of("key")  # type: ignore[operator]
    with FrameBufferServer("key", 10):
        assert path.stat().st_mode & 0o777 == 0o600
    with FrameBufferServer("key", 10, mode=0o660):
        assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(ValueError, match="mode"):
        FrameBufferServer("key", 10, mode=0o666).start()
    path.symlink_to("/etc/passwd")
    with pytest.raises(LayoutError, match="link"):
        FrameBufferServer("key", 10).start()
    with pytest.raises(LayoutError, match="link"):
        FrameBufferClient("key").start()
    path.unlink()


def test_a_damaged_file_is_not_a_ring(context: object) -> None:
    """Decision 12: magic, version, kind and size are checked before anything."""
    from ataraxis.labels import Labels
    from ataraxis.shm import Segment
    from ataraxis.shm.header import Kind

    path = context / name_of("key")  # type: ignore[operator]
    path.write_bytes(b"nonsense" * 1000)
    for handle in (FrameBufferClient("key"), FrameBufferServer("key", 10)):
        with pytest.raises(LayoutError):
            handle.start()
    path.unlink()
    # Of our kind, but with a control block that is too small.
    segment = Segment.create(
        name_of("key"), Kind.FRAMEBUFFER, Labels("u1", (1,)), control_bytes=128,
        payload_bytes=1, fill=lambda segment: None,
    )  # fmt: skip
    with pytest.raises(LayoutError, match="control words"):
        FrameBufferClient("key").start()
    del segment


# ---- 13: threads


def test_threads_allocate_at_once(server: FrameBufferServer) -> None:
    """Decision 13: no two chunks of one lap overlap; nothing is lost."""
    found: list[list[int]] = [[] for _ in range(8)]

    def allocate(mine: list[int]) -> None:
        for _ in range(2000):
            mine.append(server.allocate(10))

    threads = [threading.Thread(target=allocate, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.statistics().chunks == 16_000
    assert head(server) == 160_000
    counts = np.bincount([offset // 10 for mine in found for offset in mine])
    assert counts.tolist() == [160] * 100


def test_processes_allocate_at_once(server: FrameBufferServer) -> None:
    """Decision 13: the ring's head is one word that all of them move."""
    code = """
        from ataraxis import FrameBufferClient
        with FrameBufferClient("key") as client:
            client.allocate(10)
            while client.statistics().chunks < 3:
                pass
            for _ in range(200_000):
                client.allocate(10)
    """
    threads = [threading.Thread(target=run, args=(code,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.statistics().chunks == 600_003
    assert head(server) == 6_000_030


def test_allocation_costs_the_same_in_every_ring(context: object) -> None:
    """Decision 13: O(1): the words touched do not grow with ring or history."""
    with FrameBufferServer("large", 1 << 24) as server:
        for _ in range(1000):
            server.allocate(1 << 23)
        began = time.perf_counter()
        for _ in range(1000):
            server.allocate(1 << 24)
        # 128 stamps each: microseconds, on any machine.
        assert time.perf_counter() - began < 1.0


# ---- 14: data


def test_any_contiguous_buffer_is_data(client: FrameBufferClient) -> None:
    """Decision 14: whatever its dtype and dimensions."""
    plain = bytes(range(96))
    for data in (
        bytearray(plain),
        memoryview(plain),
        np.frombuffer(plain, "u1"),
        np.frombuffer(plain, "<f8").reshape(3, 4),
        np.frombuffer(plain, "<i8").view("M8[ns]"),
        np.frombuffer(plain, [("a", "<i4"), ("b", "<f8")]),
        memoryview(np.frombuffer(plain, "<i4").reshape(2, 12)),
        np.array(7.5),
    ):
        checksum = client.write(0, data)
        size = memoryview(np.asarray(data).reshape(-1).view("u1")).nbytes
        assert client.read(0, size, checksum) == np.asarray(data).tobytes()


@pytest.mark.parametrize("bad", ["text", 5, None, [1, 2], 1.5, {}])
def test_other_data_are_refused(client: FrameBufferClient, bad: object) -> None:
    """Decision 14: str is a TypeError that names the remedy."""
    with pytest.raises(TypeError, match="bytes-like"):
        client.write(0, bad)


@pytest.mark.parametrize("fields", ["O", [("a", "u1"), ("b", "O")]])
def test_objects_have_no_bytes(client: FrameBufferClient, fields: object) -> None:
    """Decision 14: their memory is pointers, which kill a process that reads them."""
    objects = np.zeros(2, fields)
    for data in (objects, memoryview(objects)):
        with pytest.raises(TypeError, match="Python objects"):
            client.write(0, data)
        checksum = client.write(0, bytes(objects.nbytes))
        with pytest.raises(TypeError, match="Python objects"):
            client.read_into(0, objects.nbytes, checksum, data)
    # An 'O' in a name is not an object.
    named = np.ones(2, [("Offset", "u1")])
    checksum = client.write(0, memoryview(named))
    out = np.zeros_like(named)
    client.read_into(0, 2, checksum, out)
    assert out.tolist() == named.tolist()
    times = np.zeros(2, "M8[s]")
    client.read_into(0, 16, client.write(0, np.arange(2).astype("M8[s]")), times)
    assert times.astype("i8").tolist() == [0, 1]


def test_strided_data_are_refused(client: FrameBufferClient) -> None:
    """Decision 14: by write; put copies them."""
    square = np.arange(100, dtype="u1").reshape(10, 10)
    for data in (square[:, ::2], square.T, memoryview(bytes(10))[::2]):
        with pytest.raises(ValueError, match="contiguous"):
            client.write(0, data)
    assert np.array_equal(client.get(client.put(square.T)), square.T)


def test_read_into(client: FrameBufferClient) -> None:
    """Into exactly as many bytes, contiguous and writable; the rest is refused."""
    checksum = client.write(3, np.arange(10, dtype="<u2"))
    out = np.zeros((2, 5), "<u2")
    assert client.read_into(3, 20, checksum, out) is None
    assert out.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    for size in (19, 21, 0):
        with pytest.raises(ValueError, match="exactly"):
            client.read_into(3, 20, checksum, bytearray(size))
    for bad in (bytes(20), np.zeros((20, 2), "u1")[:, 0], "x" * 20):
        with pytest.raises((TypeError, ValueError, BufferError)):
            client.read_into(3, 20, checksum, bad)
    with pytest.raises(FrameBufferTimeout):
        client.read_into(4, 20, checksum, bytearray(20))


def test_large_copies_let_other_threads_run(context: object) -> None:
    """Copies and hashes of more than 64 KiB release the GIL.

    A thread that counts must come to count while the others' chunks are worked on: with
    a switch interval beyond the test's length, only a released GIL lets it.
    """
    code = """
        import sys, threading, time
        from ataraxis import FrameBufferClient, FrameBufferServer
        from ataraxis.framebuffer.client import WIDTH, digest_of
        size = 64 << 20
        data, out = bytes(size), bytearray(size)
        with FrameBufferServer("gil", size), FrameBufferClient("gil") as client:
            checksum = client.write(0, data)
            calls = (
                lambda: client.write(0, data),
                lambda: client.read_into(0, size, checksum, out),
                lambda: client.read(0, size, checksum),
            )
            # Without the library's hash: what is left is the copy of this one.
            ways = ((lambda data: checksum, 0), (digest_of, WIDTH))
            for call, way in [(call, way) for call in calls for way in ways]:
                client._hash_by(*way)
                counted, go, done = [0], threading.Event(), threading.Event()
                def count():
                    go.set()
                    while not done.is_set():
                        counted[0] += 1
                        if counted[0] % 64 == 0:
                            time.sleep(0)  # lets go of the GIL
                thread = threading.Thread(target=count)
                thread.start()
                go.wait()
                sys.setswitchinterval(1000)
                # What was asked for at the old interval happens now; after that, the
                # other runs only while a call lets it, and has as many tries as it
                # takes on a busy machine.
                warm = time.monotonic() + 0.1
                while time.monotonic() < warm:
                    pass
                during, end = 0, time.monotonic() + 10
                while not during and time.monotonic() < end:
                    before = counted[0]
                    call()
                    during = counted[0] - before
                sys.setswitchinterval(0.005)
                done.set()
                thread.join()
                print(during > 0)
    """
    assert run(code).split() == ["True"] * 6


# ---- tickets


def test_tickets_carry_arrays(client: FrameBufferClient) -> None:
    """dtype, shape, dims, coords and attrs in the ticket, through JSON."""
    pose = np.arange(12.0).reshape(4, 3)
    ticket = client.put(
        pose, dims=("mouse", "axis"), coords={"axis": list("xyz")}, attrs={"u": "mm"}
    )
    for form in (
        ticket,
        ticket.to_json(),
        ticket.to_json().encode(),
        dataclasses.asdict(ticket),
        json.loads(json.dumps(dataclasses.asdict(ticket))),
        pickle.loads(pickle.dumps(ticket)),
    ):
        assert np.array_equal(client.get(form), pose)
        labelled = client.get_xarray(form)
        assert labelled.dims == ("mouse", "axis")
        assert labelled.sel(axis="y").values.tolist() == [1, 4, 7, 10]
        assert labelled.attrs == {"u": "mm"}
    again = client.put(labelled)
    assert client.get_xarray(again).identical(labelled)
    assert (ticket.shape, ticket.dtype, ticket.attrs) == ((4, 3), "f8", {"u": "mm"})
    assert ticket.coords["axis"].values.tolist() == list("xyz")
    with client.view(ticket) as live:
        assert np.array_equal(live, pose)
        assert not live.flags.writeable
    with client.view(dataclasses.asdict(ticket)) as live:
        assert live.shape == (4, 3)
    with pytest.raises(TypeError, match="brings its own"):
        client.put(labelled, dims=("a", "b"))


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.array("2026-01-01", "M8[ns]"),
        np.zeros((0, 3)),
        np.empty(0, "u1"),
        np.arange(5, dtype=">i4"),
        np.array([(1, 2.0)], [("a", "u1"), ("b", "<f8")]),
        np.array(["a", "bcd"]),
        np.array([True, False]),
        np.arange(6, dtype="c16").reshape(1, 2, 3),
        np.arange(24, dtype="u1").reshape(2, 3, 4)[::-1, ::2, 1:],
        [1, 2, 3],
        5,
    ],
)
def test_arrays_of_every_kind_come_back(
    client: FrameBufferClient, array: object
) -> None:
    """Also 0-d, empty, strided, of other byte order, structured, text and times."""
    ticket = client.put(array)
    found, expected = client.get(ticket), np.asarray(array)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    with client.view(ticket) as live:
        assert live.tobytes() == expected.tobytes()
        assert live.shape == expected.shape


def test_objects_are_never_put(client: FrameBufferClient) -> None:
    with pytest.raises((TypeError, ValueError)):
        client.put(np.array([None, {}], object))
    assert client.statistics().chunks == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", -1), ("offset", 2**63), ("offset", True), ("offset", "0"),
        ("offset", 1.0), ("offset", None), ("offset", 2**63 - 1), ("size", -1),
        ("size", 79), ("size", 81), ("size", 2**63 - 1), ("size", 2**64 - 1),
        ("position", -1), ("position", 2**64), ("position", None),
        ("checksum", "zz" * 8), ("checksum", "00" * 7), ("checksum", "00" * 9),
        ("checksum", "0 1 2 3 4 5 6 7 "), ("checksum", b"12345678"),
        ("labels", ""), ("labels", "[]"), ("labels", "x" * 2_000_000),
        ("labels", '{"dims":["t"],"dtype":"|O","shape":[10]}'),
        ("labels", '{"dims":["t"],"dtype":"<i8","shape":[-10]}'),
        ("labels", '{"dims":["a","b"],"dtype":"<i8","shape":[1099511627776,10]}'),
        ("labels", None), ("labels", "\ud800"), ("extra", 1),
    ],
)  # fmt: skip
def test_untrusted_tickets(
    client: FrameBufferClient, field: str, value: object
) -> None:
    """Whatever a hostile peer writes into one: a clear error, nothing else."""
    fields = dataclasses.asdict(client.put(np.arange(10)))
    fields[field] = value
    for call in (client.get, client.get_xarray, client.view):
        with pytest.raises((TypeError, ValueError, FrameBufferTimeout)):
            call(fields)


@pytest.mark.parametrize("bad", [5, None, "", "{", "[]", "[" * 100_000, b"\xff", {}])
def test_what_is_not_a_ticket(client: FrameBufferClient, bad: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        client.get(bad)  # type: ignore[arg-type]


def test_a_tickets_reach_is_checked_first(client: FrameBufferClient) -> None:
    """A huge size is refused before memory is made for it."""
    labels = '{"dims":["t"],"dtype":"|u1","shape":[1125899906842624]}'
    ticket = Ticket(0, 2**50, "00" * 8, 0, labels)
    with pytest.raises(ValueError, match="inside the ring"):
        client.get(ticket)
    with pytest.raises(ValueError, match="inside the ring"):
        client.read(0, 2**50, b"12345678")


# ---- what it says of itself


def test_age_of_the_oldest_byte(server: FrameBufferServer) -> None:
    """`oldest_s`: the age of the chunk that goes next; 0 of a ring never used."""
    assert server.statistics().oldest_s == 0
    handed: list[tuple[float, float]] = []

    def allocate() -> None:
        before = time.monotonic()
        server.allocate(100)
        handed.append((before, time.monotonic()))
        wait_until(lambda at=handed[-1][1] + 0.01: time.monotonic() > at)

    for _ in range(10):
        allocate()
    for k in range(30):
        # The ring holds the last ten; the first of them is what goes next. Whatever
        # the machine does in between, the age lies between what was read around it.
        before = time.monotonic()
        age = server.statistics().oldest_s
        after = time.monotonic()
        assert before - handed[-9][1] <= age <= after - handed[-10][0], k
        allocate()


@pytest.mark.parametrize("capacity", [1, 2, 3, 127, 128, 129, 1000, 4097])
def test_age_in_rings_of_every_size(context: object, capacity: int) -> None:
    """It never says more than is true: chunks younger than `oldest_s` are whole."""
    chance = np.random.default_rng(capacity)
    with FrameBufferServer("key", capacity) as server:
        times: list[tuple[int, float]] = []
        for _ in range(300):
            size = int(chance.integers(1, max(capacity // 3, 1) + 1))
            times.append((head(server), time.monotonic()))
            server.allocate(size)
            seen = server.statistics()
            overtaken = [
                at for end, at in times if end < seen.handed_out_bytes - capacity
            ]
            now = time.monotonic()
            assert seen.oldest_s >= 0
            if overtaken:
                assert seen.oldest_s <= now - overtaken[-1]


def test_age_after_a_kill_between_two_words(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """A death after moving the head, before the stamps: the age is not older."""
    for _ in range(25):
        server.allocate(100)
    segment = client._segment
    assert segment is not None
    at = segment.header.geometry.control
    words = memoryview(segment.mapping)
    moved = head(server) + 300
    began = time.monotonic()
    server.allocate(100)
    words[at : at + 8] = moved.to_bytes(8, "little")
    # What is whole now begins 200 bytes later, and was handed out before `began`; its
    # own stamps are there. What the dead one took has none, and is passed over.
    for _ in range(9):
        assert server.statistics().oldest_s > 0
        server.allocate(100)
    # The oldest whole bytes are the dead one's; their stamps are of the lap before.
    assert server.statistics().oldest_s <= time.monotonic() - began


def test_a_spoilt_head_leads_nowhere_outside(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    """A peer that damages the control words does not harm this process's memory."""
    geometry = client._segment.header.geometry  # type: ignore[union-attr]
    words = memoryview(client._segment.mapping)  # type: ignore[union-attr]
    chance = np.random.default_rng(3)
    for value in [2**64 - 1, 2**64 - 500, 2**63, 1, *chance.integers(0, 2**63, 200)]:
        words[geometry.control : geometry.control + 8] = int(value).to_bytes(
            8, "little"
        )
        for size in (1, 999, 1000):
            offset = server.allocate(size)
            assert 0 <= offset <= CAPACITY - size
            assert client.statistics().oldest_s >= 0
    for slot in (0, 1, 5000, 2**32 - 1):
        at = geometry.control + 128
        words[at : at + 4] = slot.to_bytes(4, "little")
        client.statistics()


def test_attach_opens_it_by_its_name(server: FrameBufferServer) -> None:
    """`ataraxis.attach` takes names, as ``ataraxis ls`` shows them."""
    from ataraxis.shm.listing import list_segments

    (row,) = list_segments()
    assert (row.name, row.kind, row.shape) == (server.name, "framebuffer", (CAPACITY,))
    with attach(server.name) as client:
        assert isinstance(client, FrameBufferClient)
        assert client.read(0, 1, client.write(0, b"x")) == b"x"


def test_handles_travel_as_keys(
    server: FrameBufferServer, client: FrameBufferClient
) -> None:
    with pickle.loads(pickle.dumps(client)) as arrived:
        assert arrived.read(0, 1, client.write(0, b"x")) == b"x"
    with pickle.loads(pickle.dumps(attach(server.name))) as arrived:
        assert arrived.read(0, 1, client.write(0, b"y")) == b"y"
    with pytest.raises(TypeError, match="get_key"):
        pickle.dumps(server)
    assert "key" not in repr(server) + repr(client).replace("framebuffer", "")


def test_the_errors_are_builtin_ones_too() -> None:
    assert issubclass(FrameBufferTimeout, TimeoutError)
    from ataraxis.framebuffer import FrameBufferTimeout as third
    from ataraxis.framebuffer.client import FrameBufferTimeout as second

    assert second is third is FrameBufferTimeout
