"""Lists, tuples and dicts as payloads: a tree of tagged nodes, at most 64 deep.

ARRAY and TUPLE are a count (u32) and that many nodes; DICT is a count and as many pairs
of nodes. A node is its code (u8) and a body: NONE nothing, BOOL a byte, F64 8 and C128
16 bytes; INT (little-endian, signed), STR and RAW a length (u64) and bytes; lists,
tuples and dicts as above. Any other value is embedded: 255, the code (u8) and ndim (u8)
of its payload, zeros to a multiple of 8 of the tree, its length (u64), ndim extents
(u64), and the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ataraxis.frame._arrays import EncodedPayload
from ataraxis.frame._header import (
    CUSTOM_END,
    CUSTOM_START,
    MAX_NDIM,
    PLAIN,
    DType,
    corrupt,
)

MAX_DEPTH = 64
EMBEDDED = 255
COUNT = struct.Struct("<I")
LENGTH = struct.Struct("<Q")
INLINE = {
    type(None): DType.NONE,
    bool: DType.BOOL,
    int: DType.INT,
    float: DType.F64,
    complex: DType.C128,
    str: DType.STR,
    bytes: DType.RAW,
    list: DType.ARRAY,
    tuple: DType.TUPLE,
    dict: DType.DICT,
}
TREES = frozenset((DType.ARRAY, DType.TUPLE, DType.DICT))
_EMBEDDED = frozenset(PLAIN) | {DType.ND_ARR, DType.PICKLED}


def int_bytes(value: int) -> bytes:
    """Encode an int in the fewest bytes, little-endian two's complement."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


class _Writer:
    """Collects nodes; embedded payloads stay views."""

    def __init__(self, encode: Callable[[Any], EncodedPayload]) -> None:
        self.encode = encode
        self.parts: list[Any] = [bytearray()]
        self.size = 0
        self.pickled = False

    def put(self, data: bytes) -> None:
        self.parts[-1] += data
        self.size += len(data)

    def tree(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(
                f"the value nests deeper than {MAX_DEPTH} levels (or contains itself):"
                " flatten it."
            )
        self.put(COUNT.pack(len(value)))
        items = (
            [part for pair in value.items() for part in pair]
            if isinstance(value, dict)
            else value
        )
        for item in items:
            self.node(item, depth)

    def node(self, value: Any, depth: int) -> None:
        code = INLINE.get(type(value))
        if code is None:
            self.embed(value)
            return
        self.put(bytes([code]))
        if code in TREES:
            self.tree(value, depth + 1)
        elif code == DType.BOOL:
            self.put(bytes([value]))
        elif code == DType.F64:
            self.put(struct.pack("<d", value))
        elif code == DType.C128:
            self.put(struct.pack("<dd", value.real, value.imag))
        elif code != DType.NONE:
            if code == DType.INT:
                value = int_bytes(value)
            elif code == DType.STR:
                value = value.encode("utf-8", "surrogatepass")
            self.put(LENGTH.pack(len(value)) + value)

    def embed(self, value: Any) -> None:
        """Write any other value as a payload of its own."""
        encoded = self.encode(value)
        self.pickled |= encoded.pickled
        parts = [memoryview(part).cast("B") for part in encoded.parts if len(part)]
        length = sum(map(len, parts))
        self.put(bytes([EMBEDDED, encoded.dtype, len(encoded.shape)]))
        self.put(bytes(-self.size % 8))
        self.put(struct.pack(f"<{1 + len(encoded.shape)}Q", length, *encoded.shape))
        self.parts += [*parts, bytearray()]
        self.size += length


def encode_tree(
    value: Any, encode: Callable[[Any], EncodedPayload]
) -> tuple[list[Any], bool]:
    """Encode a list, tuple or dict; `encode` encodes embedded values.

    Returns the parts of the payload, and whether one of them is a pickle.
    """
    writer = _Writer(encode)
    writer.tree(value, 1)
    return writer.parts, writer.pickled


class _Reader:
    """Reads untrusted nodes; memory and depth are bounded by the payload."""

    def __init__(
        self,
        payload: memoryview,
        decode: Callable[[DType, tuple[int, ...], memoryview], Any],
    ) -> None:
        self.payload = payload
        self.decode = decode
        self.at = 0

    def take(self, count: int) -> memoryview:
        data = self.payload[self.at : self.at + count]
        if len(data) != count:
            raise corrupt(self.at, "payload", f"{len(data)} bytes", f"{count} more")
        self.at += count
        return data

    def tree(self, code: int, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise corrupt(self.at, "nesting", depth, f"at most {MAX_DEPTH} levels")
        (count,) = COUNT.unpack(self.take(4))
        if count > len(self.payload) - self.at:
            raise corrupt(self.at - 4, "count", count, "what the payload holds")
        if code != DType.DICT:
            items = [self.node(depth) for _ in range(count)]
            return items if code == DType.ARRAY else tuple(items)
        result: dict[Any, Any] = {}
        for _ in range(count):
            start, key = self.at, self.node(depth)
            try:
                known = key in result
            except TypeError as error:
                raise corrupt(start, "key", str(error), "a hashable one") from error
            if known:
                raise corrupt(start, "key", "a duplicate", "each key once")
            result[key] = self.node(depth)
        return result

    def node(self, depth: int) -> Any:
        start = self.at
        code = self.take(1)[0]
        if code in TREES:
            return self.tree(code, depth + 1)
        if code == DType.NONE:
            return None
        if code == DType.BOOL:
            return decode_bool(self.take(1), start)
        if code == DType.F64:
            return struct.unpack("<d", self.take(8))[0]
        if code == DType.C128:
            return complex(*struct.unpack("<dd", self.take(16)))
        if code in (DType.INT, DType.STR, DType.RAW):
            data = self.take(LENGTH.unpack(self.take(8))[0])
            return decode_bytes(code, data, start)
        if code == EMBEDDED:
            return self.embedded(start)
        raise corrupt(start, "code of a node", code, "the code of a node")

    def embedded(self, start: int) -> Any:
        """Read an embedded payload, aligned to 8 bytes of the tree."""
        code, ndim = self.take(2)
        if not (code in _EMBEDDED or CUSTOM_START <= code <= CUSTOM_END):
            raise corrupt(start + 1, "code in a tree", code, "an embedded type")
        if ndim > MAX_NDIM or (ndim and code not in PLAIN and code != DType.ND_ARR):
            raise corrupt(start + 2, "ndim in a tree", ndim, "at most 8")
        if any(self.take(-self.at % 8)):
            raise corrupt(start + 3, "padding", "bytes", "zeros")
        length, *shape = struct.unpack(f"<{1 + ndim}Q", self.take(8 + 8 * ndim))
        return self.decode(DType(code), tuple(shape), self.take(length))


def decode_tree(
    code: DType,
    payload: memoryview,
    decode: Callable[[DType, tuple[int, ...], memoryview], Any],
) -> Any:
    """Decode a list, tuple or dict; `decode` decodes embedded payloads."""
    reader = _Reader(payload, decode)
    value = reader.tree(code, 1)
    if reader.at != len(payload):
        raise corrupt(reader.at, "payload", len(payload), f"{reader.at} bytes")
    return value


def decode_bool(data: memoryview, at: int) -> bool:
    """Decode a bool: 0 or 1."""
    if data[0] > 1:
        raise corrupt(at, "bool", data[0], "0 or 1")
    return data[0] == 1


def decode_bytes(code: int, data: memoryview, at: int) -> Any:
    """Decode an INT, STR or RAW."""
    if code == DType.RAW:
        return data.tobytes()
    if code == DType.INT:
        if not data:
            raise corrupt(at, "integer", "no bytes", "1 or more")
        return int.from_bytes(data, "little", signed=True)
    try:
        return str(data, "utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise corrupt(at, "text", str(error), "UTF-8") from error
