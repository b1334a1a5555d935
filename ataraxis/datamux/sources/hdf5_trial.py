"""A trial read of an HDF5 file in a child process, before it is opened in this one.

A damaged file can make the HDF5 library crash, or loop forever with its lock held. So a
file is first read in a process with limited time and memory. The result is kept while
the file is unchanged.
"""

from __future__ import annotations

import os
import subprocess
import sys

from ataraxis.config.limits import FILES
from ataraxis.datamux.folder import OpenedFile
from ataraxis.errors import RecordingError

_CPU_S = 1.0
_BYTES_S = 20e6
_MEMORY = 1 << 30
_WALL_S = 30.0
_KEPT = 1024
_trials: dict[tuple[int, ...], str] = {}
_PROGRAM = r"""
import math, resource, sys
import h5py
path, cpu_s, memory, allowed = sys.argv[1], *map(int, sys.argv[2:])
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + cpu_s),) * 2)
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
seen, left = set(), allowed
def look(item):
    global left
    for name in item.attrs:
        try:
            made = item.attrs.get_id(name)
            if math.prod(made.shape or ()) * made.dtype.itemsize <= 2**16:
                item.attrs[name]
        except Exception:
            pass
    if isinstance(item, h5py.Dataset):
        plist = item.id.get_create_plist()
        nbytes = math.prod(item.shape or ()) * max(1, item.dtype.itemsize)
        if plist.get_layout() != h5py.h5d.VIRTUAL and not plist.get_external_count():
            if nbytes <= left and nbytes <= 2**26:
                left -= nbytes
                item[...]
        return []
    return [item[n] for n in item
            if item.id.links.get_info(n.encode("utf-8", "surrogateescape")).type == 0]
try:
    with h5py.File(path, "r") as file:
        pending = [file]
        while pending and len(seen) < 20000:
            item = pending.pop()
            where = h5py.h5o.get_info(item.id).addr
            if where not in seen:
                seen.add(where)
                try:
                    pending += look(item)
                except Exception:
                    pass
except Exception:
    pass
"""


def try_hdf5(opened: OpenedFile) -> None:
    """Raise `RecordingError` if reading the file crashes or hangs the HDF5 library."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return  # without an interpreter for the trial
    status = os.fstat(opened.file.fileno())
    which = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    problem = _trials.get(which)
    if problem is None:
        problem = _trial(opened.file.fileno(), status.st_size)
        if len(_trials) >= _KEPT:
            _trials.pop(next(iter(_trials)), None)
        _trials[which] = problem
    if problem:
        raise RecordingError(f"{opened.shown}: damaged: {problem}")


def _trial(descriptor: int, size: int) -> str:
    """Return the problem of a file, or ''."""
    command = [
        sys.executable, "-c", _PROGRAM, f"/proc/self/fd/{descriptor}",
        str(int(_CPU_S + size / _BYTES_S)), str(_MEMORY + 4 * FILES.allowed(size)),
        str(FILES.allowed(size)),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, pass_fds=(descriptor,), capture_output=True, check=False,
            stdin=subprocess.DEVNULL, timeout=_WALL_S + size / _BYTES_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "the HDF5 library hangs"
    if done.returncode < 0:
        return f"the HDF5 library crashes or hangs (signal {-done.returncode})"
    return ""
