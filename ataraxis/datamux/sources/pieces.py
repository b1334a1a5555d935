"""Files that stay open, for recordings read in pieces, and files packed by gzip."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator

from ataraxis.config.limits import FILES
from ataraxis.datamux.folder import Folder, OpenedFile
from ataraxis.errors import RecordingError

_PIECE = 1 << 20


@contextlib.contextmanager
def opened_or_packed(folder: Folder, name: str, packed: str) -> Iterator[OpenedFile]:
    """Open a file, or else the one with `packed` at its name, unpacked in memory.

    Raises `RecordingError` if that is damaged, or larger than a file of its size may
    become.
    """
    if folder.is_there(name) or not folder.is_there(name + packed):
        with folder.opened(name) as opened:
            yield opened
        return
    with folder.opened(name + packed) as opened:
        whole = io.BytesIO()
        try:
            with gzip.GzipFile(fileobj=opened.file) as file:
                while piece := file.read(_PIECE):
                    whole.write(piece)
                    if whole.tell() > FILES.allowed(opened.size):
                        opened.check(whole.tell(), "the packed file")
        except (OSError, EOFError, zlib.error) as error:
            raise RecordingError(
                f"{opened.shown}: not packed by gzip, or damaged: {error}"
            ) from error
        size = whole.tell()
        whole.seek(0)
        yield OpenedFile(whole, opened.path, opened.shown, size)


def held(folder: Folder, name: str) -> OpenedFile:
    """Open a file of a folder that stays open; its file object must be closed."""
    with folder.opened(name) as opened:
        # Not its path: another file may have that by now.
        kept = open(f"/proc/self/fd/{opened.file.fileno()}", "rb")  # noqa: SIM115
    return OpenedFile(kept, opened.path, opened.shown, opened.size)
