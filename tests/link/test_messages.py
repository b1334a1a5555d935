"""Messages of a link: what is sent arrives; what is not a message is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ataraxis.errors import BadMessage
from ataraxis.frame import DType, Frame
from ataraxis.link import messages
from ataraxis.link.messages import (
    Absent,
    Ack,
    Ask,
    Beat,
    EdgeConfirm,
    EdgeFence,
    EdgeGrant,
    EdgeOffer,
    EdgeWant,
    FarAccount,
    FramesLost,
    Hello,
    Offer,
    Refuse,
    Reply,
    StreamEnd,
    Want,
    decode,
    encode,
    is_data,
    next_message,
)  # fmt: skip

ALL = [
    Hello("rig", "acq", "boot", "agent", features=("a", "b")),
    Refuse("another lab"),
    Beat(1, 2, 3),
    Want("camera", "camera", stream_id="ab", next=7, acked=5, credit=4096),
    Want("camera", "camera", policy="latest", on_spool_full="lose"),
    Ack(5, 4096, True),
    Offer("camera", "ab", '{"dtype": "u1"}', 3, 16, 1024, True),
    Absent("camera", "it has not started"),
    FramesLost(3, 4, "the spool was full"),
    FarAccount(1, 2, 3, 4, 5),
    StreamEnd(9, True, "killed"),
    Ask(1, "streams", {"pattern": "*"}),
    Reply(1, {"streams": ["é", None, 1.5]}, "none"),
    EdgeWant("run", "run.edge.detect", "generation", 64, 4096, 2),
    EdgeOffer("queue", "generation"),
    EdgeGrant(128, 8192),
    EdgeConfirm(3),
    EdgeFence("run", "generation"),
]


def frame(tree: Any, **more: Any) -> bytes:
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    options = {"dtype": DType.JSON, "source": 0, "checksum": True, **more}
    return Frame(
        payload_bytes=len(text), parts=(memoryview(text),), **options
    ).to_bytes()


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_a_message_comes_back(message: Any) -> None:
    assert decode(encode(message)) == message
    assert {type(m) for m in ALL} == set(messages._KINDS.values())


def test_messages_follow_each_other_in_any_pieces() -> None:
    data = memoryview(b"".join(encode(m) for m in ALL))
    found, at = [], 0
    for stop in range(len(data) + 1):
        message, at = next_message(data, at, stop)
        if message is not None:
            found.append(message)
    assert found == ALL
    assert at == len(data)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ([], "JSON object"),
        ({"message": "nonsense"}, "not known"),
        ({"message": ["ack"]}, "not known"),
        ({"message": "ack", "next": 1}, "no 'granted'"),
        ({"message": "ack", "next": -1, "granted": 0}, "next must be"),
        ({"message": "ack", "next": 2**63, "granted": 0}, "next must be"),
        ({"message": "ack", "next": True, "granted": 0}, "next must be"),
        ({"message": "ack", "next": 1.0, "granted": 0}, "next must be"),
        ({"message": "ack", "next": 1, "granted": 0, "has_ended": 1}, "has_ended"),
        ({"message": "want", "stream": "s" * 300, "mirror": "m"}, "stream must be"),
        ({"message": "want", "stream": "s", "mirror": "m", "policy": "x"}, "policy"),
        ({"message": "ask", "number": 1, "what": "x", "arguments": []}, "arguments"),
        ({"message": "hello", "lab": "l", "host": "h", "boot": "b", "agent": "a",
          "features": [1]}, "features"),
        ({"message": "refuse", "why": "x" * 70_000}, "at most 65536"),
        (b"{", "not JSON"),
        (b'{"message": NaN}', "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"message": "ack", "next": ' + b"9" * 6000 + b"}", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_not_a_message_is_refused(tree: Any, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        decode(frame(tree))


def test_unknown_fields_are_ignored() -> None:
    tree = {"message": "ack", "next": 1, "granted": 2, "color": "red"}
    assert decode(frame(tree)) == Ack(1, 2)


def test_what_the_other_side_would_refuse_is_not_sent() -> None:
    for message in (
        Ack(-1, 0),
        Refuse("x" * 5000),
        Offer("s", "i", "x" * 2**21, 0, 1, 1),
    ):
        with pytest.raises(BadMessage):
            encode(message)


def test_long_labels_are_offered() -> None:
    labels = "x" * messages.MOST_LABELS
    offer = Offer("s", "i", labels, 0, 1, 1)
    assert decode(encode(offer)) == offer


@pytest.mark.parametrize(
    "more", [{"dtype": DType.RAW}, {"checksum": False}, {"source": 1}]
)
def test_other_frames_are_refused(more: Any) -> None:
    with pytest.raises(BadMessage):
        decode(frame({"message": "ack", "next": 1, "granted": 2}, **more))


def test_a_long_message_is_refused_before_it_arrives() -> None:
    data = memoryview(frame(b" " * (messages.MOST_LABELS + messages.MOST_BYTES + 1)))
    with pytest.raises(BadMessage, match="at most"):
        next_message(data, 0, 64)


def test_a_damaged_byte_is_found() -> None:
    data = encode(Ack(5, 4096))
    for k in range(len(data)):
        bad = bytearray(data)
        bad[k] ^= 4
        with pytest.raises(BadMessage):
            decode(bad)


def test_a_frame_of_a_stream_is_told_from_a_message() -> None:
    data = memoryview(frame(b"", dtype=DType.RAW, source=1))
    assert is_data(data, 0, len(data))
    assert not is_data(data, 0, 40)
    message = memoryview(encode(Beat(1)))
    assert not is_data(message, 0, len(message))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits(data: bytes) -> None:
    view = memoryview(data)
    try:
        message, at = next_message(view, 0, len(view))
    except BadMessage:
        return
    assert (message, at) == (None, 0)
    assert len(data) < 64


def test_every_field_has_bounds() -> None:
    for kind in messages._KINDS.values():
        for f in fields(kind):
            assert f.type in (
                "int", "int | None", "str", "bool", "tuple[str, ...]", "dict[str, Any]"
            )  # fmt: skip
            if "int" in str(f.type) or f.type == "str":
                assert f.metadata["most"] > 0
    assert replace(Beat(1), arrived=2) == Beat(1, 2)
