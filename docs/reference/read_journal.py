"""Read a journal of ataraxis with NumPy alone: the whole format.

    python read_journal.py recording/camera.000000.axj

Every intact frame is listed, even if the rest of the file is damaged; the index file is
not needed. docs/explanation/formats.md has the byte tables.
"""

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAGE, HEADER, ALIGN = 4096, 64, 64
CONTROL = 2**32 - 1  # source of the journal's own records
DTYPES = {
    1: "u1", 2: "<u2", 3: "<u4", 4: "<u8", 10: "i1", 11: "<i2", 12: "<i4", 13: "<i8",
    14: "<f2", 15: "<f4", 16: "<f8", 17: "<c8", 18: "<c16", 19: "?",
}  # fmt: skip


class Entry(NamedTuple):
    """A frame of a source."""

    source: int
    sequence: int
    time_ns: int  # monotonic clock of the host
    device: tuple[int, int] | None  # time in the device's ticks, and its counter
    value: Any  # an array, text, or bytes


def first_page(data: bytes) -> tuple[int, dict[str, Any]]:
    """Seed of the header checksums, and name, session and wall clock."""
    magic, version, _, uuid, size = struct.unpack_from("<8sII16sI", data)
    if magic != b"AXJRNAL1" or version != 1:
        raise ValueError(f"not a journal of version 1: {magic!r}, {version}")
    (crc,) = struct.unpack_from("<I", data, PAGE - 4)
    if crc != zlib.crc32(data[: PAGE - 4]):
        raise ValueError("the first page is damaged: use 'ataraxis recover'")
    return zlib.crc32(uuid), json.loads(data[64 : 64 + size])


def dtype_of(tree: Any) -> np.dtype:
    """Convert the dtype of labels from JSON to NumPy."""
    if isinstance(tree, str):
        return np.dtype(tree)
    if "base" in tree:
        return np.dtype((dtype_of(tree["base"]), tuple(tree["shape"])))
    names, kinds, offsets = zip(*tree["fields"], strict=True)
    fields = {"names": names, "formats": [dtype_of(kind) for kind in kinds]}
    return np.dtype({**fields, "offsets": offsets, "itemsize": tree["itemsize"]})


def value_of(code: int, shape: tuple[int, ...], payload: bytes, labels: Any) -> Any:
    """Decode a payload; unknown codes stay bytes."""
    if code in DTYPES:
        return np.frombuffer(payload, DTYPES[code]).reshape(shape)
    if code == 9 and labels is not None:
        return np.frombuffer(payload, dtype_of(labels["dtype"])).reshape(shape)
    if code == 5:
        return payload.decode()
    return json.loads(payload) if code == 6 else payload


def read(path: str | Path) -> tuple[list[Entry], list[tuple[int, int]], list[Any]]:
    """Entries, gaps in the file (offset, bytes), and the journal's own records."""
    data = Path(path).read_bytes()
    seed, _ = first_page(data)
    entries, gaps, records, labels = [], [], [], {}
    at = lost = PAGE
    while at + HEADER <= len(data):
        head = data[at : at + HEADER]
        magic, code, ndim, flags, size, sequence, time_ns = struct.unpack_from(
            "<4sBBHQQq", head
        )
        *extents, source, crc, labels_id, own = struct.unpack_from("<8I", head, 32)
        body = data[at + HEADER : at + HEADER + size] if magic == b"AXF1" else b""
        if magic != b"AXF1" or own != zlib.crc32(head[:60], seed):
            at += ALIGN  # not a header: try the next multiple of 64
            continue
        if lost < at:
            gaps.append((lost, at - lost))
        if len(body) < size or (flags & 1 and crc != zlib.crc32(body)):
            gaps.append((at, HEADER + len(body)))  # cut off, or its bytes were changed
        else:
            if flags & 8:  # more than 4 extents, or large ones
                extents, body = struct.unpack_from("<8Q", body), body[64:]
            device = None
            if flags & 16:
                device = struct.unpack_from("<QQ" if flags & 32 else "<qQ", body)
                body = body[16:]
            if flags & 64:  # the number of the input of a pipeline's frame
                body = body[24:]
            value = value_of(code, tuple(extents[:ndim]), body, labels.get(labels_id))
            if source != CONTROL:
                entries.append(Entry(source, sequence, time_ns, device, value))
            else:
                records.append(value)
                if value["record"] == "labels":
                    labels[value["id"]] = value["labels"]
        at += HEADER + size + -(HEADER + size) % ALIGN
        lost = at
    if lost < len(data):
        gaps.append((lost, len(data) - lost))
    return entries, gaps, records


if __name__ == "__main__":
    found, missing, _ = read(sys.argv[1])
    for entry in found:
        what = getattr(entry.value, "shape", entry.value)
        print(entry.source, entry.sequence, entry.time_ns, entry.device, what)
    for offset, count in missing:
        print(f"{count} bytes at {offset} are damaged or cut off", file=sys.stderr)
