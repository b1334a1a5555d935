"""Bytes on the wire: codecs, untrusted bytes, buffers, errors, access."""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import examples
from remote_rig import CODECS

from ataraxis import errors
from ataraxis.datamux import Block, Field, Limits, Stream
from ataraxis.datamux.remote.access import (
    Access,
    checked_token,
    identity_of,
    is_loopback,
    token_from,
)
from ataraxis.datamux.remote.codec import LENT_BYTES, Fragments, codec_of
from ataraxis.datamux.remote.connection import Bucket
from ataraxis.datamux.remote.layout import Layout, packed_error, unpacked_error
from ataraxis.datamux.remote.outbound import Budget, ResendBuffer
from ataraxis.errors import AccessDenied, BadMessage, RemoteError

NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
OF = {"f": "f64", "i": "i64", "u": "u64", "b": "bool", "U": "str", "S": "bytes"}


def extreme(dtype: str, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values of a dtype, including its extremes."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, n * int(np.prod(shape)) * kind.itemsize, "u1")
    if kind.kind == "b":
        raw %= 2
    with np.errstate(invalid="ignore"):
        made = raw.view(kind).reshape(n, *shape).copy()
    if kind.kind == "f" and made.size > 3:
        made.reshape(-1)[:4] = [np.nan, np.inf, -np.inf, -0.0]
    return made


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    is_nan = np.isnan(one)
    return bool((is_nan == np.isnan(other)).all()) and (
        one[~is_nan].tobytes() == other[~is_nan].tobytes()
    )


def sent(codec, block: Block) -> Block:
    """Return a block after encoding and decoding, with its labels."""
    layout = Layout.of(block)
    assert layout.fitted(block) is not None
    message = codec.decode(
        codec.encode({"op": "labels", "stream": 3, "sequence": 0, **layout.pack()})
    )
    there = Layout.unpack(message)
    data = codec.encode_block(3, 9, block.sequence, layout.arrays(block))
    message = codec.decode(bytes(data))
    assert (message["op"], message["stream"], message["sequence"]) == ("block", 3, 9)
    return there.block(*codec.arrays(message, there.columns))


@pytest.fixture(params=CODECS, scope="module")
def codec(request):
    return codec_of(request.param)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    dtypes=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4),
    n=st.integers(0, 9),
    shape=st.sampled_from([(), (), (2,), (2, 3)]),
    first=st.integers(0, 2**40),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_come_back_as_they_were(codec, dtypes, n, shape, first, seed):
    names = [f"c{i}" for i in range(len(dtypes))]
    fields = {
        name: Field(dtype=_name(kind), shape=shape)
        for name, kind in zip(names, dtypes, strict=True)
    }
    values = {
        name: extreme(kind, n, shape, seed + i)
        for i, (name, kind) in enumerate(zip(names, dtypes, strict=True))
    }
    t = np.arange(n) / 7 - 3
    index = {"device_sequence": np.arange(n, dtype="i8") - 2**62}
    stream = Stream("s", frequency=7, fields=fields, attrs={"id": "s", "a": [1, "x"]})
    block = Block(stream, t, values, index, sequence=first, origin_s=1.5)
    again = sent(codec, block)
    assert again.sequence == first
    assert again.origin_s == 1.5
    assert again.stream == stream
    assert same(again.t, t)
    assert [*again.values] == names
    for name in names:
        assert same(again.values[name], values[name]), name
    assert same(again.index["device_sequence"], index["device_sequence"])


def _name(kind: str) -> str:
    if kind == "?":
        return "bool"
    return f"{kind[0]}{int(kind[1]) * 8}"


def test_text_times_and_strides_too(codec):
    stream = Stream(
        "s", fields={"word": Field(dtype="str"), "raw": Field(dtype="bytes")}
    )
    values = {
        "word": np.array(["µ", "", "a\ud7ffb"]),
        "raw": np.array([b"\xff", b"x", b""]),
    }
    index = {"when": np.array(["2026-01-01", "NaT", "1960-05-05"], "M8[ns]")}
    again = sent(codec, Block(stream, np.zeros(3), values, index))
    for name, column in values.items():
        assert again.values[name].tolist() == column.tolist()
    assert (
        again.index["when"].astype("i8").tolist() == index["when"].astype("i8").tolist()
    )
    wide = np.arange(24, dtype=">f4").reshape(4, 6)[:, ::2]
    fields = {f"c{i}": Field(dtype="f32") for i in range(3)}
    columns = {f"c{i}": wide[:, i] for i in range(3)}
    again = sent(codec, Block(Stream("s", fields=fields), np.zeros(4), columns))
    assert (again.array == wide).all()
    assert again.array.dtype == np.dtype("<f4")


def test_no_copy_is_made_of_a_frame():
    codec = codec_of("frame")
    stream = Stream("s", fields={"a": Field(dtype="f32"), "b": Field(dtype="f32")})
    array = np.ones((5, 2), "f4")
    values = {"a": array[:, 0], "b": array[:, 1]}
    layout = Layout.of(block := Block(stream, np.zeros(5), values, array=array))
    assert np.shares_memory(layout.arrays(block)[1], array)
    data = bytes(codec.encode_block(1, 0, 0, [*layout.arrays(block)]))
    _, (_, found) = codec.arrays(codec.decode(data), layout.columns)
    assert not found.flags.owndata
    assert found.ctypes.data % 8 == 0


def test_as_many_columns_as_a_stream_may_have_are_sent(codec):
    kinds = ["i16", "f32"]
    fields = {f"c{k}": Field(dtype=kinds[k % 2]) for k in range(4095)}
    values = {name: np.ones(2, f.numpy_dtype) for name, f in fields.items()}
    block = Block(Stream("many", fields=fields), np.zeros(2), values)
    assert len(sent(codec, block).values) == len(fields)


def test_large_columns_are_sent_as_they_are():
    """Neither copied nor joined; the bytes are the same."""
    codec = codec_of("frame")
    rows = LENT_BYTES // 8 + 1
    stream = Stream("s", fields={"a": Field(dtype="i64")})
    block = Block(stream, np.arange(rows) / 10, {"a": np.arange(rows)})
    layout = Layout.of(block)
    arrays = layout.arrays(block)
    data = codec.encode_block(1, 2, 3, arrays)
    assert len(data) == len(bytes(data))
    for array in arrays:
        assert any(
            np.shares_memory(np.frombuffer(piece, "u1"), array) for piece in data.pieces
        )
    first, found = codec.arrays(codec.decode(bytes(data)), layout.columns)
    assert first == 3
    assert all((a == b).all() for a, b in zip(arrays, found, strict=True))


# ---- untrusted bytes


def hostile_reads(codec, data: bytes) -> None:
    """Decode bytes as a server and as a client do: only one error is raised."""
    try:
        message = codec.decode(data)
        if message["op"] == "block":
            codec.arrays(message, LAYOUT.columns)
        elif message["op"] == "labels":
            Layout.unpack(message)
    except BadMessage:
        pass


_BLOCK = Block(
    Stream("s", fields={"a": Field(dtype="f32"), "b": Field(dtype="i64")}),
    np.arange(3) / 10,
    {"a": np.ones(3, "f4"), "b": np.arange(3)},
)
LAYOUT = Layout.of(_BLOCK)


@settings(max_examples=examples(300))
@given(data=st.binary(max_size=300))
def test_random_bytes_are_not_a_message(data):
    for name in CODECS:
        hostile_reads(codec_of(name), data)


@settings(max_examples=examples(300))
@given(
    name=st.sampled_from(CODECS),
    which=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.integers(1, 6),
)
def test_damaged_messages_raise_one_error(name, which, seed, cuts):
    codec, rng = codec_of(name), random.Random(seed)
    data = bytearray(
        [
            bytes(codec.encode_block(1, 5, 0, LAYOUT.arrays(_BLOCK))),
            codec.encode({"op": "labels", **LAYOUT.pack()}),
            codec.encode({"op": "request", "id": 1, "call": "time", "arguments": {}}),
        ][which]
    )
    for _ in range(cuts):
        at = rng.randrange(len(data))
        action = rng.randrange(4)
        if action == 0:
            data[at] = rng.randrange(256)
        elif action == 1:
            del data[at : at + rng.randrange(20)]
        elif action == 2:
            data[at:at] = rng.randbytes(rng.randrange(20))
        else:
            data[at : at + 8] = struct.pack("<Q", rng.choice([2**63, 2**32, 0]))
        if not data:
            break
    hostile_reads(codec, bytes(data))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("json", b"[" * 100_000),
        ("json", b'{"op": ' + b"[" * 5000),
        ("json", b'{"op": "block", "stream": -1, "sequence": 0}'),
        ("json", b'{"op": "block", "stream": 1e400, "sequence": 0}'),
        ("json", b"1" * 5000),
        ("json", b"\xff\xfe"),
        ("msgpack", b"\x91" * 5000),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("msgpack", b"\xc6\xff\xff\xff\xff"),
        ("msgpack", b"\x81\xa2op\xc7\x01\x05\x00"),
        ("msgpack", b"\xd6\xff\x00\x00\x00\x00"),
        ("frame", b"AXF1" + bytes(60)),
    ],
)
def test_known_tricks_are_refused(name, data):
    with pytest.raises(BadMessage):
        codec_of(name).decode(data)


def test_nothing_is_unpickled(codec, tmp_path):
    """Not even a pickle in a frame of the codec `frame`."""
    import pickle

    from ataraxis.frame import Frame

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    trap = Frame.from_value({"op": Trap()}, allow_pickle=True).to_bytes()
    for data in (trap, pickle.dumps({"op": Trap()})):
        with pytest.raises(BadMessage):
            codec.decode(data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "columns",
    [
        [["time", "", "|O", []]],
        [["time", "", "<f4", []]],
        [["joint", "", "<f8", [1]]],
        [["time", "", "<f8", []], ["value", "a", "<U99999999", []]],
        [["time", "", "<f8", []], ["value", "a", "<f8", [-1]]],
        [["time", "", "<f8", []], ["value", "a", "<i4,<i4", []]],
        [["time", "", "<f8", []], ["value"]],
        [],
        "time",
    ],
)
def test_labels_of_strangers_are_checked(columns):
    message = {**LAYOUT.pack(), "columns": columns}
    with pytest.raises(BadMessage):
        Layout.unpack(message)


# ---- buffers, rates, errors


def taken(ring, count, window=10**6):
    found = [ring.take(window) for _ in range(count)]
    return [None if data is None else bytes(data) for data in found]


def test_a_ring_forgets_only_what_was_read():
    ring = ResendBuffer(Budget(10))
    for k in range(5):
        assert ring.fits(2)
        ring.append(Fragments([bytes([k]) * 2]))
    assert not ring.fits(1)
    assert taken(ring, 3, 4) == [b"\0\0", b"\1\1", None]
    ring.confirm(1)
    assert taken(ring, 1, 4) == [b"\2\2"]
    ring.confirm(99)  # unsent messages cannot be confirmed
    assert (ring.first, ring.next, ring.budget.used) == (3, 5, 4)
    assert taken(ring, 1, 4) == [b"\3\3"]
    ring.rewind(3)
    assert taken(ring, 3) == [b"\3\3", b"\4\4", None]
    assert ring.evict()
    with pytest.raises(RemoteError, match="evicted: 1 messages"):
        ring.rewind(3)
    ring.clear(following=3)
    ring.append(Fragments([b"end"]))
    assert (taken(ring, 1), ring.first) == ([b"end"], 3)
    with pytest.raises(RemoteError, match="the next is 4"):
        ring.rewind(7)


@given(st.lists(st.sampled_from("atcre"), max_size=60), st.randoms())
def test_a_ring_is_a_list_with_a_beginning(actions, rng):
    """Compare with a list of all appended messages."""
    ring, sent_, first, cursor, read = ResendBuffer(Budget(1000)), [], 0, 0, 0
    for action in actions:
        if action == "a":
            data = bytes([len(sent_) % 256]) * rng.randrange(1, 9)
            assert ring.next == len(sent_)
            ring.append(Fragments([data]))
            sent_.append(data)
        elif action == "t" and cursor >= first:
            expected = sent_[cursor] if cursor < len(sent_) else None
            assert taken(ring, 1) == [expected]
            cursor = min(cursor + 1, len(sent_))
        elif action == "c":
            until = rng.randrange(len(sent_) + 1)
            ring.confirm(until)
            first = max(first, min(until, cursor))
            read = max(read, min(until, cursor))
        elif action == "r" and first <= cursor:
            to = rng.randrange(first, cursor + 1)
            ring.rewind(to)
            first = cursor = read = to
        elif action == "e":
            assert ring.evict() == (first < len(sent_))
            first = min(first + 1, len(sent_))
        assert ring.first == first
        assert ring.budget.used == sum(map(len, sent_[first:]))
        # Evicted messages still count: the window is of unread messages.
        assert ring.flying == sum(map(len, sent_[read:cursor]))


def test_a_bucket_allows_its_rate():
    bucket = Bucket(100.0, burst=10)
    assert sum(bucket.take(now=0.0) == 0 for _ in range(50)) == 10
    assert bucket.take(now=0.0) == pytest.approx(0.41)
    assert bucket.take(now=10.0) == 0
    with pytest.raises(ValueError, match="clients"):
        Limits(clients=0)


@pytest.mark.parametrize(
    "error",
    [
        errors.SourceNotFound("no stream 'x'"),
        errors.ConfigError("a.yaml:3: bad"),
        ValueError("speed=0"),
        FileNotFoundError(2, "not there", "/x"),
        errors.SourceLost("cable"),
    ],
)
def test_errors_keep_their_class(error):
    again = unpacked_error(packed_error(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_foreign_errors_become_the_nearest_known():
    class Odd(ValueError):
        pass

    again = unpacked_error(packed_error(Odd("x")))
    assert type(again) is ValueError
    assert str(again) == "Odd: x"
    for data in ({"type": "PipeError", "message": "x"}, {"type": "exit"}, None, 3):
        assert type(unpacked_error(data)) is RemoteError


# ---- access


def test_beyond_this_machine_only_with_tls_and_token():
    for host in ("0.0.0.0", "", "::", "192.0.2.1"):
        with pytest.raises(AccessDenied, match=r"TLS .* and a token"):
            Access(host)
        with pytest.raises(AccessDenied, match="without TLS"):
            Access(host, "t" * 43)
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("no.such.host.invalid")
    with pytest.raises(AccessDenied, match="at least 22"):
        Access("127.0.0.1", "short")


def test_origin_host_and_token_are_looked_at():
    access = Access("127.0.0.1", "t" * 43, origins=["https://lab.example"])
    bearer = {"authorization": "Bearer " + "t" * 43}
    here = {"host": "localhost:8765"}
    assert access.refusal({**here, **bearer}) is None
    assert access.refusal({"host": "[::1]:8765", **bearer}) is None
    assert access.refusal({"host": "evil.example", **bearer})[0] == 421
    assert access.refusal(bearer)[0] == 421
    evil = {**here, **bearer, "origin": "https://evil.example"}
    assert access.refusal(evil)[0] == 403
    good = {**evil, "origin": "https://lab.example"}
    assert access.refusal(good) is None
    assert access.refusal(here)[0] == 401
    for shown in ("Bearer", "Bearer ", "Bearer x", "t" * 43, "Bearer \udcff"):
        wrong = {**here, "authorization": shown}
        if shown.isascii():
            assert access.refusal(wrong)[0] == 401


def test_tokens_in_files(tmp_path, monkeypatch):
    path = tmp_path / "token"
    made = token_from(path, is_made=True)
    assert token_from(path, is_made=True) == token_from(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(AccessDenied, match="chmod 600"):
        token_from(path)
    with pytest.raises(AccessDenied):
        checked_token("with a\nnewline" * 3)
    with pytest.raises(AccessDenied, match="unencrypted"):
        identity_of("192.0.2.1", "t" * 43, tls=False)
    monkeypatch.setenv("ATARAXIS_TOKEN", "e" * 43)
    assert identity_of("127.0.0.1", None, None).token == "e" * 43
    assert identity_of("192.0.2.1", "t" * 43, None).tls is not None
