"""The first page of a journal's file, the names of its files, and its records.

A journal `NAME` in a directory consists of ``NAME.000000.axj``, ``NAME.000001.axj``,
... and an index of each, ``NAME.000000.axi``, which begins with the same page.
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.clock import Anchor, now_ns
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.frame import HEADER_BYTES, DType, Frame, crc32
from ataraxis.frame import MAGIC as FRAME_MAGIC
from ataraxis.labels import Labels

MAGIC = b"AXJRNAL1"
VERSION = 1
PAGE = 4096
RUN_BYTES = 64
_FIXED = struct.Struct("<8sII16sIIQ")
_CRC = struct.Struct("<I")
_TEXT_AT = 64
_CRC_AT = PAGE - _CRC.size
_TEXT_BYTES = _CRC_AT - _TEXT_AT
_FILE = re.compile(r"(?P<name>.+)\.(?P<number>\d{6,})\.axj")


@dataclass(frozen=True)
class FileHeader:
    """Contents of the first page of a journal's file."""

    name: str
    """Name of the journal."""
    number: int
    """Number of the file within the journal, from 0."""
    uuid: bytes
    """16 bytes, unique to this file: seed of its frames' header CRCs."""
    session: str
    """Shared by the files of one writer: their sequence numbers continue."""
    anchor: Anchor
    """Wall and monotonic time when the file was begun; host and boot."""
    about: dict[str, Any]
    """Small JSON of its writer."""

    @classmethod
    def make(
        cls,
        name: str,
        number: int,
        about: dict[str, Any] | None = None,
        session: str | None = None,
    ) -> FileHeader:
        """Describe a file that begins now."""
        own = uuid.uuid4()
        anchor, about = Anchor.take(), dict(about or {})
        return cls(name, number, own.bytes, session or own.hex, anchor, about)

    @property
    def seed(self) -> int:
        """Seed of the header CRC of each frame."""
        return crc32(self.uuid)

    def pack(self) -> bytes:
        """Return the page, 4096 bytes; raise `ValueError` if `about` does not fit."""
        text = json.dumps(
            {
                "name": self.name,
                "session": self.session,
                "anchor": asdict(self.anchor),
                "about": self.about,
            },
            separators=(",", ":"),
        ).encode()
        if len(text) > _TEXT_BYTES:
            raise ValueError(
                f"name, host and about= of the journal take {len(text)} bytes as JSON, "
                f"but only {_TEXT_BYTES} fit: shorten about=, or log it as an entry"
            )
        page = bytearray(PAGE)
        _FIXED.pack_into(
            page, 0, MAGIC, VERSION, PAGE, self.uuid, len(text), RUN_BYTES, self.number
        )
        page[_TEXT_AT : _TEXT_AT + len(text)] = text
        _CRC.pack_into(page, _CRC_AT, crc32(page[:_CRC_AT]))
        return bytes(page)

    @classmethod
    def unpack(cls, page: bytes, where: str = "the file") -> FileHeader:
        """Read a page of any content.

        Raises `LayoutError` if it is not a journal's first page, or is damaged.
        """
        if len(page) < PAGE:
            raise LayoutError(
                f"{where} has {len(page)} bytes, but a journal has 4096 or more: it "
                "was never written, or was cut"
            )
        magic, version, data_at, own, size, run_bytes, number = _FIXED.unpack_from(page)
        if magic != MAGIC:
            raise LayoutError(f"{where} is not a journal: it begins with {magic!r}")
        (stored,) = _CRC.unpack_from(page, _CRC_AT)
        if stored != crc32(page[:_CRC_AT]):
            raise LayoutError(
                f"{where}: its first page is damaged (CRC {stored:#010x}): "
                "'ataraxis recover' reads the rest"
            )
        if (version, data_at, run_bytes) != (VERSION, PAGE, RUN_BYTES):
            raise LayoutError(
                f"{where} is a journal of version {version}, but this program reads "
                f"version {VERSION}: update ataraxis"
            )
        try:
            tree = json.loads(page[_TEXT_AT : _TEXT_AT + size])
            anchor = Anchor(**tree["anchor"])
            session, about = tree["session"], tree["about"]
            return cls(tree["name"], number, own, session, anchor, about)
        except (ValueError, TypeError, KeyError) as error:
            raise LayoutError(f"{where}: its description is damaged: {error}") from None


def data_path(directory: Path, name: str, number: int) -> Path:
    """Return the path of a journal's file."""
    return directory / f"{name}.{number:06d}.axj"


def index_path(data: Path) -> Path:
    """Return the path of a file's index."""
    return data.with_suffix(".axi")


def split_name(path: Path) -> tuple[str, int] | None:
    """Return journal and number from a file name; None if it is not a journal's."""
    found = _FILE.fullmatch(path.name)
    return (found["name"], int(found["number"])) if found else None


def files_of(path: Path, name: str | None = None) -> dict[str, list[Path]]:
    """List the journals of a directory, or of a file: their files, in order, by name.

    With `name`, only this journal.
    """
    if path.is_file():
        own = split_name(path)
        if own is None:
            raise LayoutError(f"{path} is not a journal: those are NAME.000000.axj")
        path, name = path.parent, own[0]
    found: dict[str, list[tuple[int, Path]]] = {}
    for entry in path.iterdir():
        own = split_name(entry)
        if own is not None and name in (None, own[0]):
            found.setdefault(own[0], []).append((own[1], entry))
    return {key: [p for _, p in sorted(found[key])] for key in sorted(found)}


# ---- records of a journal about itself, between the frames of its sources

# A record is a frame of source 4294967295; its payload is a JSON object with its kind
# in "record". Records do not count as entries.

CONTROL_SOURCE = 2**32 - 1


@dataclass(frozen=True)
class Gap:
    """Frames of a source that are missing in the journal."""

    source: int
    """Number of the source."""
    first: int
    """Sequence number of the first missing frame."""
    count: int
    """Number of missing frames."""
    reason: str
    """Why, as far as is known."""
    time_ns: int = 0
    """When it was noticed, monotonic ns."""


def encode_record(kind: str, content: dict[str, Any], sequence: int) -> bytes:
    """Encode a record as a frame."""
    tree = {"record": kind, **content}
    frame = Frame.from_value(
        tree, DType.JSON, source=CONTROL_SOURCE, sequence=sequence, time_ns=now_ns()
    )
    return frame.to_bytes()


def labels_record(number: int, labels: Labels) -> dict[str, Any]:
    """Return the record that defines a labels id."""
    return {"id": number, "labels": json.loads(labels.to_json())}


class FileRecords:
    """Contents of the records of one file, added in order."""

    def __init__(self) -> None:
        self.labels: dict[int, Labels] = {}
        """By their id in this file."""
        self.sources: dict[int, dict[str, Any]] = {}
        """By number: name, labels id, and further fields."""
        self.anchors: list[Anchor] = []
        """One per minute."""
        self.gaps: list[Gap] = []
        """Missing frames."""
        self.close: dict[str, Any] | None = None
        """The last record of a complete file; else None."""

    def add(self, frame: Frame) -> None:
        """Add a record; ignore unknown kinds; raise `CorruptFrame` if invalid."""
        tree = frame.value
        try:
            kind = tree["record"]
            if kind == "labels":
                text = json.dumps(tree["labels"]).encode()
                self.labels[int(tree["id"])] = Labels.from_json(text)
            elif kind == "source":
                self.sources[int(tree["source"])] = tree
            elif kind == "anchor":
                fields = {k: v for k, v in tree.items() if k != "record"}
                self.anchors.append(Anchor(**fields))
            elif kind == "gap":
                fields = {k: v for k, v in tree.items() if k != "record"}
                self.gaps.append(Gap(**{**fields, "time_ns": frame.time_ns}))
            elif kind == "close":
                self.close = tree
        except (KeyError, TypeError, ValueError, LayoutError) as error:
            raise CorruptFrame(
                f"record {frame.sequence} of the journal is invalid: {error!r}"
            ) from error


# ---- the CRC seed of a journal whose first page is lost

_ENOUGH = 64
_ALIGN = 64


def recover_crc_seed(data: Any) -> int | None:
    """Find the seed of the header CRCs of most frames of a file, first page included.

    A CRC is linear: it differs from the CRC without a seed by a value that depends on
    the seed alone, and can be inverted. None if fewer than two headers agree.
    """
    basis = _seed_basis()
    seeds: Counter[int] = Counter()
    for at in _header_offsets(memoryview(data)):
        head = bytes(data[at : at + HEADER_BYTES])
        stored = int.from_bytes(head[60:], "little")
        seeds[_solve_seed(stored ^ crc32(head[:60]), basis)] += 1
        seed, count = seeds.most_common(1)[0]
        if count >= _ENOUGH:
            return seed
    if not seeds:
        return None
    seed, count = seeds.most_common(1)[0]
    return seed if count >= 2 else None


def _header_offsets(view: memoryview) -> Any:
    step = 2**20
    for start in range(PAGE, len(view) - HEADER_BYTES + 1, step):
        words = np.frombuffer(
            view[start : start + min(step, (len(view) - start) // _ALIGN * _ALIGN)],
            "<u4",
        )
        found = np.flatnonzero(
            words[:: _ALIGN // 4] == int.from_bytes(FRAME_MAGIC, "little")
        )
        yield from (start + int(k) * _ALIGN for k in found)


def _seed_basis() -> list[tuple[int, int]]:
    """Return the effect of the seed bits on the CRC of 60 bytes, in echelon form.

    Pairs of an effect and the seed bits that cause it.
    """
    zero = crc32(bytes(60), 0)
    rows: list[tuple[int, int]] = []
    for bit in range(32):
        effect, made = crc32(bytes(60), 1 << bit) ^ zero, 1 << bit
        for other, how in rows:
            if effect ^ other < effect:
                effect, made = effect ^ other, made ^ how
        rows.append((effect, made))
        rows.sort(reverse=True)
    return rows


def _solve_seed(effect: int, rows: list[tuple[int, int]]) -> int:
    seed = 0
    for column, made in rows:
        if effect ^ column < effect:
            effect, seed = effect ^ column, seed ^ made
    return seed
