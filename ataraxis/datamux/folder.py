"""A folder of recordings or descriptions: opens its files by name.

For programs of the user any path is opened. For clients of a server the folder is
confined: a name that leads out of it, by '..' or by a link, is not opened; messages
have names in it instead of paths; and a name that leads out, does not exist or cannot
be read is reported as missing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ataraxis.config.limits import FILES
from ataraxis.datamux.price import Price, charge, refund
from ataraxis.errors import AtaraxisError, RecordingError, SourceNotFound
from ataraxis.shm.beneath import open_beneath, path_of

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class OpenedFile(NamedTuple):
    """An open file."""

    file: BinaryIO
    """The file object, for reading."""
    path: str
    """Path of this open file, for libraries that need a path."""
    shown: str
    """Name in messages."""
    size: int
    """Size in bytes."""

    def check(self, nbytes: int, what: str) -> None:
        """Raise `RecordingError` if `nbytes` of arrays are more than the file allows.

        Nothing was read then; `what` names the part that declares them.
        """
        if nbytes > FILES.allowed(self.size):
            raise RecordingError(
                f"{self.shown}: {what} declares {nbytes} bytes, the file has "
                f"{self.size}: more than {FILES.expansion} times as much. If you trust "
                "the file, read it under 'with ataraxis.config.limits.lifted():'"
            )
        charge(Price(recording_bytes=nbytes))


class Folder:
    """A folder that may be confined: files outside are not opened, nor named in errors.

    `inside` is the folder below `path` that this is; confinement is to `path`.
    """

    def __init__(
        self, path: Path, *, is_confined: bool = False, inside: str = ""
    ) -> None:
        self.path = path
        self.is_confined = is_confined
        self._inside = inside

    def below(self, name: str) -> Folder:
        """Return a folder inside this one."""
        inside = f"{self._inside}/{name}" if self._inside else name
        return Folder(self.path, is_confined=self.is_confined, inside=inside)

    def shown(self, name: str = "") -> str:
        """Return the name of a file in messages."""
        inside = "/".join(part for part in (self._inside, name) if part)
        if self.is_confined:
            return inside or "the folder"
        return str(self.path / inside)

    def _within(self, name: str) -> str:
        return "/".join(part for part in (self._inside, name) if part) or "."

    # ---- one file

    def descriptor(self, name: str, flags: int = _FLAGS) -> int:
        """Open a file or folder by name; the caller closes the descriptor.

        A file's suffix may be in capitals: ``A.XDF`` is found as ``A.xdf``. Raises as
        `os.open`; if confined, always `FileNotFoundError`.
        """
        try:
            return self._descriptor(name, flags)
        except FileNotFoundError:
            stem, dot, suffix = name.rpartition(".")
            if not dot or suffix == suffix.upper() or flags & os.O_DIRECTORY:
                raise
            with contextlib.suppress(FileNotFoundError):
                return self._descriptor(f"{stem}.{suffix.upper()}", flags)
            raise

    def _descriptor(self, name: str, flags: int) -> int:
        within = self._within(name)
        if not self.is_confined:
            try:
                return os.open(self.path / within, flags)
            except ValueError as error:  # a NUL
                raise FileNotFoundError(2, str(error), self.shown(name)) from None
        root = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_beneath(root, within, flags)
        except (OSError, ValueError):
            raise self.not_there(name) from None
        finally:
            os.close(root)

    def not_there(self, name: str) -> FileNotFoundError:
        """Return the error that a recording does not exist."""
        return FileNotFoundError(2, "no such recording", self.shown(name))

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[OpenedFile]:
        """Open a regular file for reading, or raise `FileNotFoundError`; never waits.

        If confined, errors raised meanwhile have the file's name, not its path.
        """
        descriptor = self.descriptor(name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self.not_there(name)
            file: BinaryIO = os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
        path = str(self.path / self._within(name))
        shown = self.shown(name)
        if self.is_confined:
            path = path_of(file.fileno())
        open_price = Price(files=1)
        with file, self.reworded(path, shown):
            charge(Price(recording_bytes=status.st_size) + open_price)
            try:
                yield OpenedFile(file, path, shown, status.st_size)
            finally:
                refund(open_price)

    @contextlib.contextmanager
    def reworded(self, path: str, shown: str) -> Iterator[None]:
        """If confined, replace a file's path in errors by its name."""
        if not self.is_confined:
            yield
            return
        try:
            yield
        except AtaraxisError as error:
            raise _renamed(error, path, shown, str(self.path)) from None
        except OSError as error:
            raise SourceNotFound(f"{shown}: cannot be read") from error

    def is_there(self, name: str) -> bool:
        """Whether a regular file of the name exists."""
        try:
            descriptor = self.descriptor(name)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def is_folder(self, name: str = "") -> bool:
        """Whether a folder of the name exists."""
        try:
            os.close(self.descriptor(name, _FLAGS | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    # ---- all files

    def walk(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder below, '' first, and its files; linked folders are skipped.

        A link to a file is included if the file may be opened.
        """
        pending = [""]
        while pending:
            inside = pending.pop(0)
            try:
                descriptor = self.descriptor(inside, _FLAGS | os.O_DIRECTORY)
            except OSError:
                continue
            found: list[str] = []
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        name = f"{inside}/{entry.name}" if inside else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(name)
                        elif entry.is_file(follow_symlinks=False) or (
                            entry.is_symlink() and self.is_there(name)
                        ):
                            found.append(entry.name)
            finally:
                os.close(descriptor)
            yield inside, sorted(found)

    def files(self, suffix: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the sorted paths, without suffix, of files, also in sub-folders."""
        found = []
        for inside, names in self.walk():
            found += [
                f"{inside}/{name}" if inside else name
                for name in names
                if name.endswith((suffix, suffix.upper()))
            ]
        # Of two files that differ in the case of the suffix alone, one is opened.
        keys = dict.fromkeys(name[: -len(suffix)] for name in sorted(found))
        return [(key, {}) for key in keys]


class SuffixFormat:
    """A `RecordingFormat` whose recordings are files of one suffix.

    `suffix` replaces the one of the class, of a format that has several.
    """

    suffix: str

    def __init__(self, suffix: str = "") -> None:
        if suffix:
            self.suffix = suffix

    def keys(self, folder: Folder) -> list[tuple[str, Mapping[str, Any]]]:
        """List the files, also in sub-folders."""
        return folder.files(self.suffix)


def _renamed(error: AtaraxisError, path: str, shown: str, folder: str) -> AtaraxisError:
    """Return the same error with a name instead of a path."""
    text = str(error).replace(path, shown).replace(f"{folder}/", "")
    make: Callable[[str], AtaraxisError] = type(error)
    try:
        return make(text)
    except TypeError:  # an error that takes more than a text
        return RecordingError(text)
