"""The first page of a journal's file, and what its files are called.

A journal `NAME` in a directory is the files ``NAME.000000.axj``, ``NAME.000001.axj``
and beside each its index, ``NAME.000000.axi``, which begins with the same page.
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ataraxis.clock import Anchor
from ataraxis.errors import LayoutError
from ataraxis.frame import crc32

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
    """What the first page of a journal's file says.

    Examples
    --------
    >>> page = FileHeader.make("camera", 0)
    >>> FileHeader.unpack(page.pack()) == page
    True
    """

    name: str
    """Of the journal."""
    number: int
    """Of the file within the journal, from 0."""
    uuid: bytes
    """16 bytes, of this file alone: seed of its frames' header CRCs."""
    session: str
    """Of all files that one writer made: their sequences go on from file to file."""
    anchor: Anchor
    """Wall and monotonic time when the file was begun; host and boot."""
    about: dict[str, Any]
    """What its writer says of it: small JSON."""

    @classmethod
    def make(
        cls,
        name: str,
        number: int,
        about: dict[str, Any] | None = None,
        session: str | None = None,
    ) -> FileHeader:
        """Describe a file that is begun now."""
        own = uuid.uuid4()
        said = dict(about or {})
        return cls(name, number, own.bytes, session or own.hex, Anchor.take(), said)

    @property
    def seed(self) -> int:
        """What the header CRC of each frame goes on from."""
        return crc32(self.uuid)

    def pack(self) -> bytes:
        """Return the page, 4096 bytes.

        Raises
        ------
        ValueError
            `about` does not fit.
        """
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
                f"name, host and about= of the journal take {len(text)} bytes as JSON "
                f"and {_TEXT_BYTES} fit: say less in about=, or log it as an entry"
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
        """Read a page that anybody may have written.

        Raises
        ------
        LayoutError
            It is not the first page of a journal's file, or damaged.
        """
        if len(page) < PAGE:
            raise LayoutError(
                f"{where} has {len(page)} bytes and a journal 4096 or more: it was "
                "never written, or cut"
            )
        magic, version, data_at, own, size, run_bytes, number = _FIXED.unpack_from(page)
        if magic != MAGIC:
            raise LayoutError(f"{where} is no journal: it begins with {magic!r}")
        (stored,) = _CRC.unpack_from(page, _CRC_AT)
        if stored != crc32(page[:_CRC_AT]):
            raise LayoutError(
                f"{where}: its first page is damaged (CRC {stored:#010x}): "
                "'ataraxis recover' reads it without"
            )
        if (version, data_at, run_bytes) != (VERSION, PAGE, RUN_BYTES):
            raise LayoutError(
                f"{where} is a journal of version {version}, this program reads "
                f"{VERSION}: update ataraxis"
            )
        try:
            tree = json.loads(page[_TEXT_AT : _TEXT_AT + size])
            anchor = Anchor(**tree["anchor"])
            session, about = tree["session"], tree["about"]
            return cls(tree["name"], number, own, session, anchor, about)
        except (ValueError, TypeError, KeyError) as error:
            raise LayoutError(f"{where}: its description is damaged: {error}") from None


def data_path(directory: Path, name: str, number: int) -> Path:
    """Name a file of a journal."""
    return directory / f"{name}.{number:06d}.axj"


def index_path(data: Path) -> Path:
    """Name the index beside a file."""
    return data.with_suffix(".axi")


def split_name(path: Path) -> tuple[str, int] | None:
    """Tell journal and number of a file by its name; None: it is no journal's."""
    found = _FILE.fullmatch(path.name)
    return (found["name"], int(found["number"])) if found else None


def files_of(path: Path, name: str | None = None) -> dict[str, list[Path]]:
    """List the journals of a directory, or the one that a file belongs to.

    Parameters
    ----------
    path : Path
        A directory, or a journal's file.
    name : str, optional
        Only this journal.

    Returns
    -------
    dict of str to list of Path
        The files of each journal in their order; no journal, no key.
    """
    if path.is_file():
        own = split_name(path)
        if own is None:
            raise LayoutError(f"{path} is no journal: those are NAME.000000.axj")
        path, name = path.parent, own[0]
    found: dict[str, list[tuple[int, Path]]] = {}
    for entry in path.iterdir():
        own = split_name(entry)
        if own is not None and name in (None, own[0]):
            found.setdefault(own[0], []).append((own[1], entry))
    return {key: [p for _, p in sorted(found[key])] for key in sorted(found)}
