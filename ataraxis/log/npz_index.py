"""What is in an npz archive: by its directory, or by its members where that is hurt.

The directory is only an index, without a checksum: what the members say themselves is
believed where the two do not agree and a member is whole.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32
from ataraxis.log.npz import CENTRAL, LOCAL, LOCAL_MAGIC, Member, unpack
from ataraxis.log.npz_directory import FAR, MEMBER, read_directory, text_at
from ataraxis.log.npz_search import NO_ENTRY, is_whole, local, search
from ataraxis.log.problem import Problem

_SAID = ("method", "crc", "packed_bytes", "nbytes", "at", "source", "stamp", "copy")
_STREAMED = 8  # a flag: sizes and checksum follow the bytes


def open_bytes(path: str | Path) -> NDArray[np.uint8]:
    """Map a file, read-only; an empty one is an empty array."""
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "u1")


class NpzIndex:
    """The members of one archive.

    Parameters
    ----------
    path : str or Path
        An npz of any generation, whole or not.
    dtype : dtype, optional
        `MEMBER`, or one that has its fields.

    Attributes
    ----------
    table : ndarray of MEMBER
        Members in the order of the archive.
    problem : str or None
        Why its directory could not be used, and members were searched for.
    damaged : list of Problem
        What was found broken at opening.
    """

    def __init__(self, path: str | Path, dtype: np.dtype[Any] = MEMBER) -> None:
        self.path = Path(path)
        self.data = open_bytes(path)
        self.view = self.data.data
        self.problem: str | None = None
        self.damaged: list[Problem] = []
        self._unlisted: dict[str, Any] | None = None
        try:
            self.table = read_directory(self.data, dtype)
        except CorruptFrame as error:
            self.problem = str(error)
            found, lost = search(self.data)
            self.damaged += [Problem(self.path, *each) for each in lost]
            self.table = np.zeros(len(found), dtype)
            for name in MEMBER.names or ():
                self.table[name] = found[name]
        else:
            self._look_at_foreign()

    def name(self, row: Any) -> str:
        """Return the name of a member, with suffix."""
        return text_at(self.data, int(row["name_at"]), int(row["name_bytes"]))

    def member(self, row: Any) -> Member:
        """Return a member as `NpzWriter.add_packed` takes it."""
        start = int(row["name_at"])
        return Member(
            bytes(self.view[start : start + int(row["name_bytes"])]),
            int(row["method"]),
            int(row["crc"]),
            int(row["packed_bytes"]),
            int(row["nbytes"]),
            int(row["written_ns"]),
        )

    def packed(self, row: Any) -> memoryview:
        """Return the packed bytes of a member: a view.

        Raises
        ------
        CorruptFrame
            There is no member where the directory says.
        """
        at = int(row["at"])
        if at + LOCAL.size > len(self.data) or self.view[at : at + 4] != LOCAL_MAGIC:
            raise CorruptFrame(f"{self.path}: no member at byte {at}")
        name_bytes, extra_bytes = struct.unpack_from("<2H", self.view, at + 26)
        start = at + LOCAL.size + name_bytes + extra_bytes
        end = start + int(row["packed_bytes"])
        if end > len(self.data):
            raise CorruptFrame(f"{self.path}: the member at byte {at} is cut off")
        return self.view[start:end]

    def read(self, row: Any, *, verify: bool = True) -> memoryview | bytes:
        """Return the npy file of a member: a view of a stored one, else new bytes.

        Raises
        ------
        CorruptFrame
            Its bytes are not what was written.
        """
        packed: memoryview | bytes = self.packed(row)
        data = unpack(packed, int(row["method"]), int(row["nbytes"]))
        if verify and crc32(data) != int(row["crc"]):
            raise CorruptFrame(f"{self.path}: {self.name(row)}: wrong checksum")
        return data

    # ---- where the directory is damaged

    def agrees(self, row: Any) -> bool:
        """Whether a member's local header says what the directory does."""
        at = int(row["at"])
        if at + LOCAL.size > len(self.data):
            return False
        fields = LOCAL.unpack_from(self.view, at)
        magic, _, flags, method, _, _, crc, packed, nbytes, name_bytes, _ = fields
        own = text_at(self.data, at + LOCAL.size, name_bytes)
        if magic != LOCAL_MAGIC or own != self.name(row):
            return False
        if flags & _STREAMED:
            return True
        sizes = int(row["packed_bytes"]), int(row["nbytes"])
        is_far = FAR in (packed, nbytes)
        same = (method, crc) == (int(row["method"]), int(row["crc"]))
        return same and (is_far or sizes == (packed, nbytes))

    def mend(self, row: Any) -> Problem | None:
        """Correct a row, in place, by what its member says itself.

        Parameters
        ----------
        row : void
            A view of a row whose member could not be read by it.

        Returns
        -------
        Problem or None
            That the directory is damaged there; None: the row stays, its member is not
            whole, or says the same.
        """
        at, name = int(row["at"]), self.name(row)
        found = local(self.data, at)
        # Its name is looked for also where no header is: then that was hit, not `at`.
        own = text_at(self.data, at + LOCAL.size, int(row["name_bytes"]))
        is_named = own == name
        is_shared = np.count_nonzero(self.table["at"] == np.uint64(at)) > 1
        if found is not None and not is_whole(self.data, found):
            found = None
        if not is_named and (found is None or is_shared):
            found = self._elsewhere(name)
        if found is None or not found["is_entry"]:
            return None
        if row["is_entry"] and all(found[field] == row[field] for field in _SAID):
            return None
        start = max(int(row["name_at"]) - CENTRAL.size, 0)
        size = CENTRAL.size + int(row["name_bytes"])
        for field in (*_SAID, "name_at", "name_bytes", "is_entry"):
            row[field] = found[field]
        what = f"the directory is damaged; {self.name(row)} is read by its own header"
        return Problem(self.path, start, size, what)

    def _elsewhere(self, name: str) -> Any:
        """Take a member at which no row begins: of that name, or of none of a row."""
        if self._unlisted is None:
            starts = set(self.table["at"].tolist())
            found, _ = search(self.data)
            free = [row for row in found if int(row["at"]) not in starts]
            self._unlisted = {self.name(row): row for row in free}
        if name not in self._unlisted:
            names = {self.name(row) for row in self.table} if self._unlisted else set()
            name = next((own for own in self._unlisted if own not in names), "")
        return self._unlisted.pop(name, None)

    def _look_at_foreign(self) -> None:
        """Look whether members that are no entries are some by their own names."""
        for i in np.flatnonzero(~self.table["is_entry"]).tolist():
            row = self.table[i]
            if self.agrees(row):
                continue
            at, size = int(row["at"]), int(row["packed_bytes"])
            what = f"{self.name(row)}: {NO_ENTRY}, and its member says otherwise"
            said = self.mend(row) or Problem(self.path, at, size, what)
            self.damaged.append(said)
