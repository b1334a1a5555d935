"""Segments: create, attach and unlink.

A segment is complete and backed by memory before it gets its name, and validated when
it is attached. Names are checked in `context`, the bytes in `header`; the kernels keep
the participants.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import secrets
import stat
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import framebuffer as _framebuffer  # noqa: F401 - see the next
from ataraxis._kernels import lock as _lock  # noqa: F401 - its clean-up registers
from ataraxis._kernels import queue as _queue  # noqa: F401 - so does this one's
from ataraxis._kernels import ring as _ring  # noqa: F401 - and this one's
from ataraxis._kernels.memory import (
    Mapping,
    Participant,
    allocate,
    anybody,
    crash_point,
)
from ataraxis.errors import (
    LayoutError,
    SegmentExists,
    StaleSegment,
    TooManyParticipants,
)
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike, checked_name, group_id
from ataraxis.shm.files import Found, has_proc
from ataraxis.shm.header import LIVE, PAGE, READY, Geometry, Kind, SegmentHeader
from ataraxis.shm.limits import raise_explained
from ataraxis.shm.thread import begin_exit

# ---- files without a name until they are complete

CHUNK = 16 << 20
TEMPORARY = ".tmp-"


class Nameless:
    """A file of `total` bytes in a directory, without a name until it is complete.

    Without O_TMPFILE or /proc it has a temporary name, which is removed after the death
    of its creator.
    """

    def __init__(self, directory: int, context: Context, total: int) -> None:
        self.total = total
        self._directory = directory
        self._context = context
        self._temporary: str | None = None
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            if not has_proc():
                raise OSError(errno.EOPNOTSUPP, "no /proc")
            here = "/proc/self/fd/" + str(directory)
            self.descriptor = os.open(here, flags | os.O_TMPFILE, 0o600)
        except (OSError, AttributeError) as error:
            refused = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
            if isinstance(error, OSError) and error.errno not in refused:
                raise
            self.descriptor = self._open_named(flags)

    def _open_named(self, flags: int) -> int:
        sweep_temporaries(self._directory)
        self._temporary = TEMPORARY + secrets.token_hex(8)
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(self._temporary, flags, 0o600, dir_fd=self._directory)

    def __enter__(self) -> Nameless:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self.descriptor)

    def permit(self, mode: int | None, group: str | int | None) -> None:
        """Set permission bits and group; 0o600, or 0o660 in a group context."""
        if mode is None:
            mode = 0o660 if self._context.is_shared_with_group else 0o600
        if mode & stat.S_IWOTH or mode & ~0o777 or mode & 0o600 != 0o600:
            raise ValueError(
                f"mode={mode:04o} cannot be used: a segment is readable and writable "
                "by its owner and never writable by all users"
            )
        if group is not None:
            os.fchown(self.descriptor, -1, group_id(group))
        os.fchmod(self.descriptor, mode)

    def allocate(self, name: str) -> None:
        """Back every byte with memory, so that no store fails later."""
        room = os.fstatvfs(self._directory)
        if self.total > room.f_bavail * room.f_frsize:
            raise self._no_room(name, errno.ENOSPC)
        if self.total > CHUNK and self.total > free_memory():
            # A tmpfs may be larger than the memory: the kernel would kill processes.
            raise self._no_room(name, errno.ENOMEM)
        done, chunk = 0, CHUNK
        while done < self.total:
            count = min(chunk, self.total - done)
            status = allocate(self.descriptor, done, count)
            if status == 0:
                done += count
            elif status == -errno.EINTR:
                # Some kernels undo an interrupted chunk: with a timer that fires
                # faster than a chunk takes, only smaller chunks succeed.
                chunk = max(chunk // 2, PAGE)
            else:
                raise self._no_room(name, -status)

    def _no_room(self, name: str, code: int) -> OSError:
        room = os.fstatvfs(self._directory)
        return OSError(
            code,
            f"{os.strerror(code)}: segment {name!r} needs {self.total} bytes, "
            f"{room.f_bavail * room.f_frsize} are free. Free memory, choose another "
            "context=, or enlarge it (Docker: --shm-size; Linux: mount -o "
            "remount,size=)",
            str(self._context.path),
        )

    def found(self) -> Found:
        """Return it as an open file, to attach to it."""
        where = self._context.join(self._temporary or "(no name yet)")
        status = os.fstat(self.descriptor)
        return Found(where, self.descriptor, status, self._directory)

    def link(self, name: str) -> bool:
        """Give it its name; return False if the name exists."""
        source = self._temporary or f"/proc/self/fd/{self.descriptor}"
        from_ = self._directory if self._temporary else None
        try:
            os.link(
                source,
                name,
                src_dir_fd=from_,
                dst_dir_fd=self._directory,
                follow_symlinks=self._temporary is None,
            )
        except FileExistsError:
            return False
        crash_point(b"create_linked")
        return True


def free_memory() -> int:
    """Return the bytes available without killing a process; without /proc, no limit."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        kib = sum(int(found[key].split()[0]) for key in ("MemAvailable", "SwapFree"))
        return kib * 1024
    except (OSError, KeyError, ValueError):
        return sys.maxsize


def sweep_temporaries(directory: int) -> int:
    """Remove temporary files whose creator has died; return how many."""
    swept = 0
    for name in os.listdir(directory):
        if not name.startswith(TEMPORARY):
            continue
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue
        try:
            if anybody(descriptor, 1024) == 0:
                os.unlink(name, dir_fd=directory)
                swept += 1
        except FileNotFoundError:
            pass
        finally:
            os.close(descriptor)
    return swept


# ---- the attachments that all handles of a process share

# Two attachments of one process to one lock would deadlock: handles share one.
# Producers and consumers have cursors, and do not share.

ONE_PER_PROCESS = frozenset({Kind.ARRAY})
_known: weakref.WeakValueDictionary[bytes, Segment] = weakref.WeakValueDictionary()
# Mappings are shared by all: pages are locked for a GPU once a mapping.
_mappings: weakref.WeakValueDictionary[tuple[int, ...], Mapping] = (
    weakref.WeakValueDictionary()
)
_known_lock = threading.Lock()
_forks_watched = False


def _known_guard() -> threading.Lock:
    """Return the lock of `_known`; a forked child has a new one."""
    global _forks_watched
    if not _forks_watched:
        _forks_watched = True
        os.register_at_fork(after_in_child=_forget_parent)
    return _known_lock


def _forget_parent() -> None:
    global _known_lock
    _known_lock = threading.Lock()
    # A driver may have kept pages that it locked out of this process.
    _mappings.clear()


def _map(descriptor: int, total: int) -> Mapping:
    """Map a file, or return the mapping that this process has; `_known_guard` is held.

    A live mapping keeps its file, so that another file cannot have its inode.
    """
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino, total)
    mapping = _mappings.get(key)
    if mapping is None:
        mapping = _mappings[key] = Mapping(descriptor, total)
    return mapping


# ---- the segment

TRIES = 8


@functools.cache
def _announce_exit() -> None:
    """Have daemon threads learn that the program ends, before finalizers run.

    The program's end calls what was registered last first, so it is called once a
    finalizer exists.
    """
    atexit.register(begin_exit)


class Segment:
    """One attachment to a named, mapped file. Made by `create` and `attach`.

    Views of `payload` keep the mapping. The attachment ends with the last reference to
    the segment.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        header: SegmentHeader,
        labels: Labels,
        mapping: Mapping,
        participant: Participant,
    ) -> None:
        self.name = name
        self.context = context
        self.header = header
        self.labels = labels
        self.mapping = mapping
        self.participant = participant
        self._unlinker: weakref.finalize[..., Segment] | None = None

    @classmethod
    def create(
        cls,
        name: str,
        kind: Kind,
        labels: Labels,
        *,
        control_bytes: int,
        payload_bytes: int,
        fill: Callable[[Segment], None],
        context: ContextLike = None,
        participants: int = 128,
        mode: int | None = None,
        group: str | int | None = None,
        exist_ok: bool = False,
    ) -> Segment:
        """Make a complete segment, then give it its name.

        Parameters
        ----------
        name : str
            A file name: no slash, no leading dot, at most 200 bytes.
        kind : Kind
            Kind of its contents.
        labels : Labels
            Labels of the payload.
        control_bytes, payload_bytes : int
            Sizes.
        fill : callable
            Writes the first contents, before the segment has its name.
        context : Context, str, Path or None
            Its directory; see `Context.of`.
        participants : int
            Largest number of participants at a time, 1 to 1024.
        mode, group : int or str, optional
            Permission bits, 0o600 or 0o660 in a group context, and owning group.
        exist_ok : bool
            Replace a live segment of the name; its users get `StaleSegment`.

        Raises
        ------
        SegmentExists
            The name is in use by a live segment (`exist_ok` false).
        OSError
            Not enough memory: nothing was created.
        """
        name = checked_name(name)
        context = Context.of(context)
        text = labels.to_json()
        geometry = Geometry(participants, control_bytes, len(text), payload_bytes)
        if problem := geometry.problem():
            raise ValueError(f"segment {name!r} cannot be made: {problem}")
        directory = _directory(context, f"segment {name!r} cannot be made")
        try:
            with Nameless(directory, context, geometry.total) as new:
                crash_point(b"create_opened")
                new.permit(mode, group)
                new.allocate(name)
                crash_point(b"create_allocated")
                with _known_guard():
                    mapping = _map(new.descriptor, geometry.total)
                header = SegmentHeader.new(kind, geometry, text)
                bytes_ = memoryview(mapping)
                bytes_[geometry.labels : geometry.labels + len(text)] = text
                bytes_[LIVE : LIVE + 4] = READY.to_bytes(4, "little")
                packed = header.pack()
                bytes_[: len(packed)] = packed
                participant = _take_part(name, context, header, mapping, new.found())
                segment = cls(name, context, header, labels, mapping, participant)
                fill(segment)
                crash_point(b"create_filled")
                _publish(segment, directory, new, exist_ok)
                crash_point(b"create_published")
        except OSError as error:
            what = f"segment {name!r} cannot be made"
            raise_explained(error, what, str(context.path), geometry.total)
            raise
        finally:
            os.close(directory)
        segment._unlinker = weakref.finalize(
            segment, _unlink, participant, context, name, geometry.participants
        )
        _announce_exit()
        if kind in ONE_PER_PROCESS:
            with _known_guard():
                _known[header.uuid] = segment
        return segment

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        kind: Kind | None = None,
        context: ContextLike = None,
        timeout: float | None = 0,
        uuid: bytes | None = None,
    ) -> Segment:
        """Attach to the segment that has the name.

        Parameters
        ----------
        name : str
            Its name.
        kind : Kind, optional
            The only kind that is accepted.
        context : Context, str, Path or None
            Its directory; see `Context.of`.
        timeout : float or None
            How long to wait for the name, s; None waits without end.
        uuid : bytes, optional
            Identity of the only segment that is accepted.

        Raises
        ------
        SegmentNotFound, TimeoutError
            No segment has the name (within `timeout`).
        LayoutError
            The file is damaged, of another version, or of another kind.
        StaleSegment
            The name now means another segment than `uuid`.
        """
        name = checked_name(name)
        context = Context.of(context)
        what = f"segment {name!r} cannot be attached"
        directory = _directory(context, what)
        try:
            found = files.wait_for(directory, context, name, timeout)
            for _ in range(TRIES):
                segment = cls._try_attach(name, context, found, kind, uuid)
                if segment is not None:
                    return segment
                crash_point(b"attach_again")
                found = files.wait_for(directory, context, name, timeout)
        except OSError as error:
            raise_explained(error, what, str(context.path))
            raise
        finally:
            os.close(directory)
        raise StaleSegment(
            f"segment {name!r} in {context.path} was replaced {TRIES} times while "
            "attaching; find out which program keeps recreating it"
        )

    @classmethod
    def _try_attach(
        cls,
        name: str,
        context: Context,
        found: Found,
        kind: Kind | None,
        uuid: bytes | None,
    ) -> Segment | None:
        """Attach to an open file; None if it lost its name meanwhile."""
        with found:
            header, labels = _validated(found)
            if kind is not None and header.kind is not kind:
                raise LayoutError(
                    f"{found.path} holds a {header.kind.name.lower()}, "
                    f"not a {kind.name.lower()}; open it with ataraxis.attach()"
                )
            if uuid is not None and header.uuid != uuid:
                raise StaleSegment(
                    f"the name {name!r} in {context.path} now means another segment "
                    f"than this handle's; attach again with attach({name!r})"
                )
            if found.is_retired():
                found.settle(header.geometry.participants)
                return None
            with _known_guard():
                is_shared = header.kind in ONE_PER_PROCESS
                known = _known.get(header.uuid) if is_shared else None
                if known is not None and not known.participant.is_inherited:
                    return known
                mapping = _map(found.descriptor, header.geometry.total)
                if bytes(memoryview(mapping)[:LIVE]) != found.page[:LIVE]:
                    raise LayoutError(f"{found.path}: its header changes while read")
                crash_point(b"attach_mapped")
                part = _take_part(name, context, header, mapping, found)
                if found.is_retired() or not found.has_name(name):
                    return None
                segment = cls(name, context, header, labels, mapping, part)
                if is_shared:
                    _known[header.uuid] = segment
                return segment

    @property
    def payload(self) -> NDArray[np.uint8]:
        """The data: a live, writable view, shape (bytes,)."""
        return self.view((self.header.geometry.payload_bytes,), np.dtype(np.uint8))

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """View the payload as an array; the view keeps the mapping."""
        offset = self.header.geometry.payload
        return np.ndarray(shape, dtype, memoryview(self.mapping), offset)

    @property
    def is_creator(self) -> bool:
        """Whether dropping this attachment removes the name."""
        return (
            self._unlinker is not None
            and self._unlinker.alive
            and not self.participant.is_inherited
        )

    def keep_name(self) -> None:
        """Keep the name when this attachment is dropped."""
        if self._unlinker is not None:
            self._unlinker.detach()

    def meaning_of_name(self) -> str:
        """Return what the name means now: 'this', 'another' or 'nothing'."""
        mine = os.fstat(self.participant.descriptor)
        try:
            with self.context.opened() as directory:
                there = os.stat(self.name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return "nothing"
        same = (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
        return "this" if same else "another"

    def unlink(self) -> bool:
        """Remove the name if it still means this segment; return whether it did.

        Participants keep the memory; no other process can attach.
        """
        if self._unlinker is not None:
            self._unlinker.detach()
        return _unlink(
            self.participant,
            self.context,
            self.name,
            self.header.geometry.participants,
        )


def _validated(found: Found) -> tuple[SegmentHeader, Labels]:
    """Read and check what can be checked without mapping the file."""
    header = SegmentHeader.unpack(found.page, found.status.st_size, found.path)
    g = header.geometry
    if found.status.st_blocks * 512 < found.status.st_size:
        raise LayoutError(
            f"{found.path}: {found.status.st_size} bytes long, but only "
            f"{found.status.st_blocks * 512} are backed by memory: it was copied or "
            "truncated; remove it"
        )
    text = os.pread(found.descriptor, g.labels_bytes, g.labels)
    if len(text) != g.labels_bytes or zlib.crc32(text) != header.labels_crc:
        raise LayoutError(
            f"{found.path}: its labels at byte {g.labels} do not match their CRC-32 "
            f"(found {zlib.crc32(text):#x}, expected {header.labels_crc:#x})"
        )
    labels = _labels_of(text)
    if header.kind is Kind.ARRAY and labels.nbytes != g.payload_bytes:
        raise LayoutError(f"{found.path}: its labels do not fit its data; remove it")
    return header, labels


@functools.lru_cache(maxsize=64)
def _labels_of(text: bytes) -> Labels:
    """Parse labels; equal text gives the same object."""
    return Labels.from_json(text)


def _directory(context: Context, what: str) -> int:
    """Open the context's directory."""
    try:
        return context.open_directory()
    except OSError as error:
        raise_explained(error, what, str(context.path))
        raise


def _take_part(
    name: str, context: Context, header: SegmentHeader, mapping: Mapping, found: Found
) -> Participant:
    g = header.geometry
    path = found.reopen_path()
    part = Participant(
        mapping,
        # A separate open file description: the mapping keeps the other one open, also
        # in a forked child, and a byte locked through that would stay locked.
        os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY),
        found.status.st_dev,
        found.status.st_ino,
        path,
        header.kind,
        g.participants,
        g.control,
        0,
        _label_of(sys.argv[0] if sys.argv else ""),
        os.fsencode(context.join(name)),
    )
    if part.slot < 0:
        raise TooManyParticipants(
            f"segment {name!r}: all {g.participants} participants' slots are held, by "
            f"{files.holders(found.descriptor, g.participants)}; close some, or create "
            "it with a larger participants="
        )
    return part


@functools.lru_cache(maxsize=1)
def _label_of(program: str) -> bytes:
    """Return the name of a program in a participant slot, at most 23 bytes."""
    return (os.path.basename(program) or "python").encode()[:23]


def _publish(segment: Segment, directory: int, new: Nameless, exist_ok: bool) -> None:
    """Give the complete segment its name, in place of one that is not in use."""
    deadline = time.monotonic() + 5
    while not new.link(segment.name):
        problem = files.make_room(directory, segment.context, segment.name, exist_ok)
        if problem == "busy":
            if time.monotonic() < deadline:
                time.sleep(0.001)
                continue
            problem = "another process keeps taking the name"
        if problem:
            raise SegmentExists(
                f"segment {segment.name!r} cannot be created in "
                f"{segment.context.path}: {problem}. Attach to it with "
                f"attach({segment.name!r}), use another name, or replace it with "
                f"exist_ok=True{files.unguarded()}"
            )


def _unlink(participant: Participant, context: Context, name: str, slots: int) -> bool:
    """Unlink; only in the creating process. Does nothing in forked children."""
    if participant.is_inherited:
        return False
    try:
        directory = context.open_directory()
    except FileNotFoundError:
        return False
    try:
        return files.take_name(participant.descriptor, directory, name, slots)
    finally:
        os.close(directory)
