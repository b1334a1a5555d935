"""ataraxis built in other ways: with crash points, sanitizers, a planted race.

As a script: ``python tests/support/variants.py crash DIRECTORY`` builds one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from places import ROOT

OPTIONS = {
    "crash": ("-Dc_args=-DAX_CRASH_POINTS",),
    "thread": ("-Db_sanitize=thread", "-Db_lundef=false"),
    "race": ("-Db_sanitize=thread", "-Db_lundef=false", "-Dc_args=-DAX_PLANT_RACE"),
    "address": (
        "-Db_sanitize=address,undefined",
        "-Db_lundef=false",
        "-Dc_args=-fno-sanitize-recover=undefined",
    ),
    "overrun": (
        "-Db_sanitize=address,undefined",
        "-Db_lundef=false",
        "-Dc_args=-DAX_PLANT_OVERRUN -fno-sanitize-recover=undefined",
    ),
}

POINT = re.compile(r'(?:ax_crash\(|crash_point\(b)"(\w+)"\)')
# All of them.
KERNELS = (
    "_cython", "memory", "lock", "array", "framebuffer", "ring", "producer",
    "consumer", "snapshot", "queue", "arena", "queue_handle", "messages", "worker",
    "journal_write", "journal_scan", "link", "dlpack", "edge",
)  # fmt: skip
# Enough for arrays, built in a quarter of the time.
ARRAYS = (
    "_cython", "memory", "lock", "array", "framebuffer", "ring", "queue",
)  # fmt: skip
FRAMEBUFFER = ("framebuffer.pyx", "include/unlink_on_signal.h")
QUEUE_FILES = (
    "arena.pyx", "arena.py", "queue.pyx", "queue_handle.pyx", "messages.pyx",
    "lease.py",
)  # fmt: skip


def crash_points() -> set[str]:
    """Return the names of all crash points but those of work queues."""
    return array_points() | stream_points() | framebuffer_points() | journal_points()


def array_points() -> set[str]:
    """Return those of segments, locks, arrays (tests/stress/test_crash_points.py)."""
    found: set[str] = set()
    for path in (ROOT / "ataraxis").rglob("*"):
        if path.suffix in {".h", ".pyx", ".pxd", ".py"}:
            found |= _points(path)
    others = stream_points(), framebuffer_points(), queue_points(), journal_points()
    return found.difference(*others)


def stream_points() -> set[str]:
    """Return those of the ring and its users (test_stream_crash_points.py)."""
    found: set[str] = set()
    for path in (ROOT / "ataraxis").rglob("*"):
        if path.name in QUEUE_FILES or path.name == "journal_write.pyx":
            continue
        if path.suffix in {".pyx", ".pxd"}:
            text = path.read_text(encoding="utf-8")
            stands_on = ("ax_stream", "ax_event", "_kernels.ring cimport")
            if any(name in text for name in stands_on):
                found |= _points(path)
    return found


def framebuffer_points() -> set[str]:
    """Return those of frame buffers only (test_framebuffer_crashes.py)."""
    kernels = ROOT / "ataraxis" / "_kernels"
    return set().union(*(_points(kernels / name) for name in FRAMEBUFFER))


def queue_points() -> set[str]:
    """Return those of work queues (test_queue_crash_points.py)."""
    paths = (ROOT / "ataraxis").rglob("*")
    return set().union(*(_points(path) for path in paths if path.name in QUEUE_FILES))


def journal_points() -> set[str]:
    """Return those of journals (test_journal_stress.py)."""
    paths = [ROOT / "ataraxis" / "_kernels" / "journal_write.pyx"]
    paths += (ROOT / "ataraxis" / "log" / "journal").glob("*.py")
    found: set[str] = set().union(*map(_points, paths))
    return {name for name in found if name.startswith("journal_")}


def _points(path: Path) -> set[str]:
    return set(POINT.findall(path.read_text(encoding="utf-8")))


def missing() -> str | None:
    """Return what is missing for a build, or None."""
    if not (ROOT / "meson.build").exists():
        return f"no sources in {ROOT}"
    for module in ("mesonbuild", "Cython", "numpy"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install meson ninja Cython numpy"
    if not tool("ninja"):
        return "ninja is not installed: pip install ninja"
    if not any(tool(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        return "there is no C compiler"
    return None


def tool(name: str) -> str | None:
    return shutil.which(name, path=search_path())


def search_path() -> str:
    """Search path, this virtual environment first."""
    here = str(Path(sys.executable).parent)
    return os.pathsep.join([here, os.environ.get("PATH", "")])


def build(variant: str, directory: Path, kernels: tuple[str, ...] = KERNELS) -> Path:
    """Build a variant below `directory`; return the folder of its package."""
    target = directory / (variant if kernels == KERNELS else f"{variant}-arrays")
    if (target / "ataraxis" / "__init__.py").exists():
        return target
    work = directory / f"{target.name}.build"
    env = {**os.environ, "PATH": search_path()}
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    run([*meson, "setup", work, ROOT, *OPTIONS[variant]], env)
    ending = sysconfig.get_config_var("EXT_SUFFIX")
    outputs = [f"ataraxis/_kernels/{kernel}{ending}" for kernel in kernels]
    run([tool("ninja") or "ninja", "-C", work, *outputs], env)
    made = directory / f"{target.name}.made"
    shutil.copytree(ROOT / "ataraxis", made / "ataraxis")
    for library in (work / "ataraxis" / "_kernels").glob("*.so"):
        shutil.copy(library, made / "ataraxis" / "_kernels")
    shutil.rmtree(work)
    made.rename(target)
    return target


def run(command: list[str | Path], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        text = " ".join(map(str, command))
        raise RuntimeError(f"{text}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2]).resolve()))
