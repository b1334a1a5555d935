"""Self-test: what the kernel must do, tried on a file of the context itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import platform
import struct
from collections.abc import Callable

from ataraxis._kernels.memory import byte_held
from ataraxis.shm.context import Context
from ataraxis.shm.header import PAGE
from ataraxis.shm.nameless import Nameless

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
    """Check that a locked byte lives exactly as long as the mapping that holds it.

    Parameters
    ----------
    context : Context
        Where the file of the test is made; it never has a name.

    Returns
    -------
    str
        What is wrong, or ''.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return "Python's fcntl has no open-file-description locks"
    return _on_scratch(context, _locks)


def _locks(new: Nameless) -> str:
    holder = os.open(new.found().reopen_path(), os.O_RDWR | os.O_CLOEXEC)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, _BYTES + _SLOT, 1, 0)
        fcntl.fcntl(holder, fcntl.F_OFD_SETLK, lock)
        page = mmap.mmap(holder, PAGE, prot=mmap.PROT_READ)
    finally:
        os.close(holder)
    # Python's mapping keeps a descriptor of its own, of the same open file.
    with page:
        if byte_held(new.descriptor, _SLOT) != 1:
            return "a locked byte comes free while its holder lives"
    if byte_held(new.descriptor, _SLOT) != 0:
        return "a locked byte stays locked after its holder is gone"
    return ""


def check_futex(context: Context) -> str:
    """Check that one can sleep on a word of a shared file, and be refused a wrong one.

    Parameters
    ----------
    context : Context
        Where the file of the test is made; it never has a name.

    Returns
    -------
    str
        What is wrong, or ''.
    """
    call = _FUTEX_CALL.get(platform.machine())
    if call is None:
        return f"not tried on {platform.machine()}"
    return _on_scratch(context, functools.partial(_sleep, call))


def _on_scratch(context: Context, test: Callable[[Nameless], str]) -> str:
    """Try something on a page of the context that never has a name."""
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
            return _futex(call, word)
        finally:
            del word


def _futex(call: int, word: ctypes.c_uint32) -> str:
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
