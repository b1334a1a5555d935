"""The messages of a link: JSON in frames of source 0, between the frames of streams.

A channel carries frames back to back, without padding: those of a stream have source
1, a message has source 0 and a JSON object as payload. The other side is not trusted:
lengths are checked before anything is read, numbers before anything is done.

================ ========== =====================================================
message          sent by    states
================ ========== =====================================================
`Hello`          both       who this is; the first message of a channel
`Refuse`         both       why the channel is closed
`Beat`           both       that this side lives; a round trip of two clocks
`Want`           inlet      which stream, and from which frame on
`Ack`            inlet      what it has, and how many bytes more may be sent
`Offer`          outlet     labels of the stream; frames follow
`Absent`         outlet     that the stream does not exist; an offer follows later
`FramesLost`     outlet     frames that will never be sent, and why
`FarAccount`     outlet     losses, waits and backlog at the stream's own host
`StreamEnd`      outlet     that the stream has ended; after its last frame
`Ask`, `Reply`   both       a question to the other agent
`EdgeWant`       inbox      whose values of an edge queue are wanted, how many
`EdgeOffer`      source     that values follow, and which of them are leased already
`EdgeGrant`      inbox      how many values more may be sent
`EdgeConfirm`    source     how many settlements it has taken
`EdgeFence`      both       that the other host must end its workers, and begin again
================ ========== =====================================================
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from ataraxis.errors import BadMessage, CorruptFrame
from ataraxis.frame import HEADER_BYTES, DType, Frame, crc32

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION = 1
"""Of the messages; agents of another version are refused."""
MESSAGE_SOURCE, DATA_SOURCE = 0, 1
HEAD_BYTES = HEADER_BYTES + 64 + 16 + 24
"""Most bytes of a frame before its payload: header, extents, stamps, origin."""
MOST_BYTES = 1 << 16
"""Longest JSON of a message, but of an `Offer` and a `Reply`."""
MOST_LABELS = 1 << 20
"""Longest labels of an `Offer`, JSON of a `Reply`."""
MOST_SEQUENCE = 2**62
_TEXT = 255
_LENGTH_AT, _SOURCE_AT, _CRC_AT = 8, 48, 60


def _text(most: int = _TEXT, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"most": most})


def _number(most: int = MOST_SEQUENCE, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"most": most})


@dataclass(frozen=True)
class Hello:
    """Who this is; the first message of both sides."""

    lab: str = _text()
    """Name of the laboratory: both sides have the same."""
    host: str = _text()
    """Name of this host; the certificate proves it, not this field."""
    boot: str = _text()
    """Boot id of this host: its clock begins again with it."""
    agent: str = _text()
    """Random id of this agent's process."""
    version: int = _number(default=VERSION)
    features: tuple[str, ...] = ()
    """What this side can do beyond this version; unknown ones are ignored."""


@dataclass(frozen=True)
class Refuse:
    """Why this side closes the channel."""

    why: str = _text(4096)


@dataclass(frozen=True)
class Beat:
    """A sign of life, and half of a round trip; monotonic times of both hosts, ns.

    The asking side sends `sent`, and the other one returns the beat with `arrived` and
    `returned` filled in.
    """

    sent: int = _number()
    """When the beat was sent: clock of the asking host."""
    arrived: int = _number(default=0)
    """When it arrived: clock of the answering host; 0 in a question."""
    returned: int = _number(default=0)
    """When the answer was sent: clock of the answering host; 0 in a question."""


@dataclass(frozen=True)
class Want:
    """An inlet asks for a stream: from a frame on, or as much as there is."""

    stream: str = _text()
    """Name of the stream at the other host."""
    mirror: str = _text()
    """Name of the mirror here: with the host's, what it is known by."""
    policy: str = _text(default="lossless")
    """'lossless', 'lossy' or 'latest'."""
    stream_id: str = _text(default="")
    """Id of the stream whose frames are here already; '' if there are none."""
    next: int | None = _number(default=None)
    """Number of the first frame that is not here; None without a stream id."""
    acked: int | None = _number(default=None)
    """Every frame before this number may be forgotten; None: before `next`."""
    has_ended: bool = False
    """Whether that stream is here to its end: the next one of the name is wanted."""
    credit: int = _number(default=0)
    """Bytes of frames that may be sent before the first `Ack`."""
    on_spool_full: str = _text(default="wait")
    """'wait' or 'lose'."""


@dataclass(frozen=True)
class Ack:
    """What an inlet has. Both numbers only grow while the channel lives."""

    next: int = _number()
    """Every frame before this number is here: it needs never be sent again."""
    granted: int = _number()
    """Bytes of frames that may be sent on this channel, since its `Want`."""
    has_ended: bool = False
    """Whether the mirror of the stream was ended: all of it is here."""


@dataclass(frozen=True)
class Offer:
    """The stream that an outlet is going to send."""

    stream: str = _text()
    stream_id: str = _text()
    """Id of the stream: another one, even of the same name, has another."""
    labels: str = _text(MOST_LABELS)
    """Its labels, as JSON."""
    first: int = _number()
    """Number of the first frame that follows, or that `FramesLost` begins with."""
    slots: int = _number(2**32)
    """Slots of its ring."""
    slot_bytes: int = _number(2**48)
    """Most bytes of the payload of a frame."""
    has_ended: bool = False
    """Whether the stream has ended; its last frames may still follow."""


@dataclass(frozen=True)
class Absent:
    """The stream does not exist now; an `Offer` follows once it does."""

    stream: str = _text()
    why: str = _text(4096, "")


@dataclass(frozen=True)
class FramesLost:
    """Frames that will not follow. The next frame has number ``first + count``."""

    first: int = _number()
    count: int = _number()
    why: str = _text(4096, "")
    is_skipped: bool = False
    """Whether these numbers never had a frame: producers that share it skip slots."""


@dataclass(frozen=True)
class FarAccount:
    """Losses, waits and backlog at the stream's own host, since the stream began."""

    refused: int = _number(2**63)
    """Frames that its producer did not send, as the ring was full."""
    gaps: int = _number(2**63)
    """Frames that its device lost."""
    stalled_ns: int = _number(2**63)
    """Time that its producer waited for readers, ns."""
    next: int = _number()
    """Number that its next frame will have."""
    spooled_bytes: int = _number(2**63, 0)
    """Bytes of its spool that this mirror has not acknowledged."""


@dataclass(frozen=True)
class StreamEnd:
    """The stream has ended; this follows its last frame."""

    next: int = _number()
    """Number that the next frame would have."""
    has_died: bool = False
    """Whether its producer died, instead of ending it."""
    why: str = _text(4096, "")


@dataclass(frozen=True)
class Ask:
    """A question to the other agent, as 'streams' or 'forget'."""

    number: int = _number()
    """Of the question, chosen by the asking side."""
    what: str = _text()
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The answer to an `Ask`: a result, or an error in words."""

    number: int = _number()
    """Of the question."""
    result: dict[str, Any] = field(default_factory=dict)
    error: str = _text(4096, "")


@dataclass(frozen=True)
class EdgeWant:
    """A host asks for the values of an edge queue, for workers there."""

    run: str = _text()
    edge: str = _text()
    """Name of the edge queue."""
    generation: str = _text()
    """Of the run on the asking host: what an earlier one had there is gone."""
    frames: int = _number()
    """Values that may be sent, before the first `EdgeGrant`."""
    nbytes: int = _number()
    """Bytes that may be sent."""
    ends: int = _number(default=1)
    """Frames that end a stream that it takes at most: its readers."""


@dataclass(frozen=True)
class EdgeOffer:
    """Values follow, after the numbers of those that the host has leased already."""

    queue: str = _text()
    """Id of the edge queue: another one has other numbers."""
    generation: str = _text()
    """Of the run on this host."""


@dataclass(frozen=True)
class EdgeGrant:
    """How many values may be sent on this channel since its `EdgeWant`, in all."""

    frames: int = _number()
    nbytes: int = _number()


@dataclass(frozen=True)
class EdgeConfirm:
    """How many settlements of this channel have been taken: they may be forgotten."""

    count: int = _number()


@dataclass(frozen=True)
class EdgeFence:
    """What a generation has was given to others: its host ends its workers."""

    run: str = _text()
    generation: str = _text()


LinkMessage: TypeAlias = (
    Hello | Refuse | Beat | Want | Ack | Offer | Absent | FramesLost | FarAccount
    | StreamEnd | Ask | Reply | EdgeWant | EdgeOffer | EdgeGrant | EdgeConfirm
    | EdgeFence
)  # fmt: skip
_KINDS: dict[str, type[Any]] = {
    "hello": Hello, "refuse": Refuse, "beat": Beat, "want": Want, "ack": Ack,
    "offer": Offer, "absent": Absent, "lost": FramesLost, "account": FarAccount,
    "end": StreamEnd, "ask": Ask, "reply": Reply, "edge want": EdgeWant,
    "edge offer": EdgeOffer, "edge grant": EdgeGrant, "edge confirm": EdgeConfirm,
    "edge fence": EdgeFence,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FIELDS = {kind: fields(kind) for kind in _NAMES}
_LONG = (Offer, Reply)
_CHOICES = {
    "policy": ("lossless", "lossy", "latest"), "on_spool_full": ("wait", "lose")
}  # fmt: skip


def encode(message: LinkMessage) -> bytes:
    """Return a message as the frame that is sent.

    Raises
    ------
    BadMessage
        A field is of a wrong type, or larger than the other side accepts.

    Examples
    --------
    >>> data = encode(Ack(next=5, granted=4096))
    >>> decode(data)
    Ack(next=5, granted=4096, has_ended=False)
    """
    kind = type(message)
    tree = {f.name: getattr(message, f.name) for f in _FIELDS[kind]}
    _check(kind, tree)
    tree["message"] = _NAMES[kind]
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    _check_size(kind, len(text))
    frame = Frame(
        dtype=DType.JSON, payload_bytes=len(text), source=MESSAGE_SOURCE,
        checksum=True, parts=(memoryview(text),),
    )  # fmt: skip
    return frame.to_bytes()


def decode(data: Buffer) -> LinkMessage:
    """Return the message in the bytes of one whole frame.

    Raises
    ------
    BadMessage
        The bytes are not a whole message, or not one of this version.
    """
    view = memoryview(data).cast("B")
    message, end = next_message(view, 0, len(view))
    if message is None or end != len(view):
        raise BadMessage(f"expected one whole message, got {len(view)} bytes")
    return message


def next_message(
    data: memoryview, start: int, stop: int
) -> tuple[LinkMessage | None, int]:
    """Take the message that begins at a byte.

    Parameters
    ----------
    data : memoryview
        Bytes of a channel, as they arrived.
    start, stop : int
        The message begins at `start`; bytes from `stop` on have not arrived.

    Returns
    -------
    message : LinkMessage or None
        None if it has not arrived completely.
    end : int
        Where the next frame begins; `start` without a message.

    Raises
    ------
    BadMessage
        No message begins there, or it is damaged or too long: close the channel.

    Examples
    --------
    >>> data = memoryview(encode(Refuse("another lab")))
    >>> next_message(data, 0, 40)
    (None, 0)
    >>> next_message(data, 0, len(data))[0].why
    'another lab'
    """
    if stop - start < HEADER_BYTES:
        return None, start
    head = data[start : start + HEADER_BYTES]
    if crc32(head[:_CRC_AT]) != int.from_bytes(head[_CRC_AT:], "little"):
        raise BadMessage("no message begins here, or its header is damaged")
    length = int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 8], "little")
    source = int.from_bytes(head[_SOURCE_AT : _SOURCE_AT + 4], "little")
    if source != MESSAGE_SOURCE or length > MOST_LABELS + MOST_BYTES:
        raise BadMessage(
            f"expected a message of source 0 and at most {MOST_LABELS + MOST_BYTES} "
            f"bytes, found source {source} and {length} bytes: the link is closed"
        )
    end = start + HEADER_BYTES + length
    if end > stop:
        return None, start
    try:
        frame = Frame.from_buffer(data[start:end])
    except CorruptFrame as error:
        raise BadMessage(f"a message is damaged: {error}") from error
    if frame.dtype != DType.JSON or not frame.checksum or frame.shape:
        raise BadMessage(f"expected JSON with a checksum, found {frame}")
    return _parse(bytes(frame.payload)), end


def is_data(data: memoryview, start: int, stop: int) -> bool:
    """Whether a frame of a stream begins at a byte, as far as has arrived."""
    at = start + _SOURCE_AT
    return stop - at >= 4 and data[at] == DATA_SOURCE


def _parse(text: bytes) -> LinkMessage:
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"a message is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise BadMessage(f"a message must be a JSON object, got {_show(tree)}")
    name = tree.get("message")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BadMessage(f"message {_show(name)} is not known: update ataraxis")
    _check_size(kind, len(text))
    found = {}
    for f in _FIELDS[kind]:
        if f.name in tree:
            found[f.name] = tree[f.name]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise BadMessage(f"message {name!r} has no {f.name!r}")
    if isinstance(found.get("features"), list):
        found["features"] = tuple(found["features"])
    _check(kind, found)
    message: LinkMessage = kind(**found)
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_size(kind: type[Any], size: int) -> None:
    most = MOST_LABELS + MOST_BYTES if kind in _LONG else MOST_BYTES
    if size > most:
        raise BadMessage(
            f"message {_NAMES[kind]!r} has {size} bytes, at most {most} are accepted"
        )


def _check(kind: type[Any], tree: dict[str, Any]) -> None:
    """Raise unless every value has its field's type and is within its bounds."""
    for f in _FIELDS[kind]:
        if f.name not in tree:
            continue
        value, of = tree[f.name], str(f.type)
        if of == "int" or (of == "int | None" and value is not None):
            is_good = type(value) is int and 0 <= value <= f.metadata["most"]
        elif of == "str":
            is_good = isinstance(value, str) and len(value) <= f.metadata["most"]
            if is_good and f.name in _CHOICES:
                is_good = value in _CHOICES[f.name]
        elif of == "bool":
            is_good = isinstance(value, bool)
        elif of == "tuple[str, ...]":
            is_good = isinstance(value, tuple) and len(value) <= 64
            is_good = is_good and all(isinstance(v, str) for v in value)
        else:
            is_good = value is None if "None" in of else isinstance(value, dict)
        if not is_good:
            raise BadMessage(
                f"message {_NAMES[kind]!r}: {f.name} must be {of} within its bounds, "
                f"got {_show(value)}"
            )


def _show(value: object) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
