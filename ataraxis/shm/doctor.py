"""Doctor: check what ataraxis needs of this machine, with advice on each problem."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import functools
import mmap
import os
import platform
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ataraxis._kernels.memory import byte_held
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.gc import collect
from ataraxis.shm.header import PAGE
from ataraxis.shm.segment import Nameless

# ---- self-test: what the kernel must do, tried on a file of the context

_SLOT = 3
_BYTES = 1 << 62
_FUTEX_CALL = {
    "x86_64": 202,
    "aarch64": 98,
    "riscv64": 98,
    "ppc64le": 221,
    "s390x": 238,
}
_WAIT, _WAKE = 0, 1


def check_locks(context: Context) -> str:
    """Test that a byte is locked as long as a mapping; return what is wrong, or ''."""
    return _on_scratch(context, _try_locks)


def _try_locks(new: Nameless) -> str:
    holder = os.open(new.found().reopen_path(), os.O_RDWR | os.O_CLOEXEC)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, _BYTES + _SLOT, 1, 0)
        fcntl.fcntl(holder, fcntl.F_OFD_SETLK, lock)
        page = mmap.mmap(holder, PAGE, prot=mmap.PROT_READ)
    finally:
        os.close(holder)
    # Python's mapping keeps a descriptor of the same open file.
    with page:
        if byte_held(new.descriptor, _SLOT) != 1:
            return "a locked byte is unlocked while its holder lives"
    if byte_held(new.descriptor, _SLOT) != 0:
        return "a locked byte stays locked after its holder has ended"
    return ""


def check_futex(context: Context) -> str:
    """Test that a process can sleep on a shared word; return what is wrong, or ''."""
    call = _FUTEX_CALL.get(platform.machine())
    if call is None:
        return f"not tried on {platform.machine()}"
    return _on_scratch(context, functools.partial(_sleep, call))


def _on_scratch(context: Context, test: Callable[[Nameless], str]) -> str:
    """Run a test on a page of a file in the context, without a name."""
    directory = context.open_directory()
    try:
        with Nameless(directory, context, PAGE) as new:
            new.allocate("self-test")
            return test(new)
    except OSError as error:
        return str(error)
    finally:
        os.close(directory)


def _sleep(call: int, new: Nameless) -> str:
    with mmap.mmap(new.descriptor, PAGE) as page:
        word = ctypes.c_uint32.from_buffer(page)
        try:
            return _try_futex(call, word)
        finally:
            del word


def _try_futex(call: int, word: ctypes.c_uint32) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    soon = (ctypes.c_long * 2)(0, 1_000_000)
    at = ctypes.byref(word)

    def futex(operation: int, value: int) -> int:
        libc.syscall.restype = ctypes.c_long
        done = libc.syscall(
            ctypes.c_long(call), at, operation, value, ctypes.byref(soon), None, 0
        )
        return -ctypes.get_errno() if done < 0 else int(done)

    expected = {(_WAIT, 1): -errno.EAGAIN, (_WAIT, 0): -errno.ETIMEDOUT, (_WAKE, 1): 0}
    for (operation, value), wanted in expected.items():
        found = futex(operation, value)
        if found != wanted and found != -errno.EINTR:
            what = os.strerror(-found) if found < 0 else str(found)
            return f"futex({operation}, {value}) gave {what!r}: seccomp may forbid it"
    return ""


# ---- the doctor

SMALL_BYTES = 64 << 20
LOGIND = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")
# Magic numbers of statfs(2).
MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}
DISK = {
    0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x2FC12FC1: "zfs",
    0x794C7630: "overlay",
}  # fmt: skip
REMOTE = {
    0x6969: "nfs", 0xFF534D42: "cifs", 0xFE534D42: "smb2", 0x00C36400: "ceph",
    0x01021997: "9p", 0x65735546: "fuse",
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One check."""

    name: str
    """What was checked."""
    verdict: Literal["ok", "warn", "fail"]
    """Whether ataraxis works: well, with a drawback, or not."""
    found: str
    """What was found."""
    advice: str = ""
    """What to do; '' if nothing."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


def examine(context: ContextLike = None) -> list[Check]:
    """Check the machine and a context.

    Parameters
    ----------
    context : Context, str, Path or None
        The directory; None is the user's default.

    Returns
    -------
    list of Check
        Of the machine; and of the context, if that is safe to use.
    """
    checks = [_kernel(platform.release()), _cpus(), _proc()]
    try:
        place = Context.of(context)
    except OSError as error:
        return [*checks, Check("context", "fail", str(error), "see the message")]
    if os.statvfs(place.path).f_flag & os.ST_RDONLY:
        advice = "mount it writable, to attach; 'ls' and 'top' work as it is"
        checks.append(Check("context", "fail", f"{place.path}, read-only", advice))
    else:
        checks.append(Check("context", "ok", f"{place.path}, safe to use"))
        checks += [_locks(place), _futex(place)]
    checks += [_file_system(place), _room(place), _remove_ipc(place, os.geteuid())]
    return [*checks, *_leftovers(place)]


def _kernel(release: str) -> Check:
    found = f"Linux {release}, {platform.machine()}"
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = tuple(map(int, numbers.groups())) if numbers else (0, 0)
    if version < (3, 15):
        return Check("kernel", "fail", found, "use Linux 3.15 or newer")
    return Check("kernel", "ok", found)


def _cpus() -> Check:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0))
    found = f"{usable} of {total} usable by this process"
    if usable == 1:
        advice = "with one CPU waits sleep at once: allow more for low latency"
        return Check("CPUs", "warn", found, advice)
    return Check("CPUs", "ok", found)


def _proc() -> Check:
    if files.has_proc():
        return Check("/proc", "ok", "lists the descriptors of this process")
    advice = "mount it; until then segments are made under a temporary name"
    return Check("/proc", "warn", "missing", advice)


def _file_system(context: Context) -> Check:
    magic = statfs_type(context.path)
    if magic in MEMORY:
        return Check("file system", "ok", MEMORY[magic])
    if magic in REMOTE:
        advice = "mappings are not shared between hosts, or not at all: use /dev/shm"
        return Check("file system", "fail", REMOTE[magic], advice)
    name = DISK.get(magic, f"type {magic:#x}" if magic >= 0 else "unknown")
    advice = "not in memory: it writes to disk. Use a context in /dev/shm"
    return Check("file system", "warn", name, advice)


def statfs_type(path: Path) -> int:
    """Return the magic number of a file system; -1 if unknown."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        return -1
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 64)()
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        return -1
    # f_type is the first field; an int on s390x, a long elsewhere.
    return int(buffer[0]) & 0xFFFFFFFF


def _room(context: Context) -> Check:
    room = os.statvfs(context.path)
    total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    found = f"{free / 2**20:,.0f} of {total / 2**20:,.0f} MiB free"
    advice = "enlarge it (Docker: --shm-size; Linux: mount -o remount,size=), 'gc'"
    if free < 1 << 20:
        return Check("room", "fail", found, advice)
    if total <= SMALL_BYTES or free < SMALL_BYTES:
        return Check("room", "warn", found, advice)
    return Check("room", "ok", found)


def _locks(context: Context) -> Check:
    if problem := check_locks(context):
        advice = "liveness depends on it: use another file system or kernel"
        return Check("locks", "fail", problem, advice)
    return Check("locks", "ok", "a byte is locked as long as its mapping exists")


def _futex(context: Context) -> Check:
    if problem := check_futex(context):
        return Check("futex", "warn", problem, "waits become bounded sleeps: slower")
    return Check("futex", "ok", "processes can sleep on a shared word")


def _remove_ipc(context: Context, user: int, roots: tuple[str, ...] = LOGIND) -> Check:
    if not Path("/run/systemd/system").is_dir() and roots is LOGIND:
        return Check("RemoveIPC", "ok", "systemd does not run here")
    if user < 1000 or not context.path.is_relative_to("/dev/shm"):
        return Check("RemoveIPC", "ok", "does not apply to this user and context")
    value = "yes"  # the default of logind
    for line in _lines(roots):
        if setting := re.match(r"\s*RemoveIPC\s*=\s*(\w+)", line):
            value = setting[1].lower()
    if value in ("no", "false", "0", "off"):
        return Check("RemoveIPC", "ok", f"RemoveIPC={value}")
    advice = (
        "logind may remove the context at this user's last logout: set RemoveIPC=no in "
        "/etc/systemd/logind.conf, or run as a system user"
    )
    return Check("RemoveIPC", "warn", f"RemoveIPC={value}", advice)


def _lines(roots: tuple[str, ...]) -> Iterator[str]:
    for root in roots:
        parts = sorted(Path(root).glob("logind.conf.d/*.conf"))
        for file in [Path(root) / "logind.conf", *parts]:
            try:
                yield from file.read_text(errors="replace").splitlines()
            except OSError:
                continue


def _leftovers(context: Context) -> list[Check]:
    leftovers = collect(context, is_dry=True)
    stale = [left for left in leftovers if left.is_removed]
    kept = [left for left in leftovers if not left.is_removed and left.kind]
    broken = [left for left in leftovers if not left.kind]
    total = sum(left.bytes for left in stale)
    found = f"{len(stale)}, {total:,} bytes"
    verdict: Literal["ok", "warn"] = "warn" if stale else "ok"
    advice = "remove them: 'ataraxis gc'" if stale else ""
    checks = [Check("stale segments", verdict, found, advice)]
    if kept:
        names = ", ".join(left.name for left in kept)
        advice = "start the readers they wait for, or 'ataraxis recover'"
        checks.append(Check("kept segments", "warn", names, advice))
    if broken:
        names = ", ".join(left.name for left in broken)
        advice = "'ataraxis ls' shows what is wrong; remove them by hand"
        checks.append(Check("other files", "warn", names, advice))
    return checks
