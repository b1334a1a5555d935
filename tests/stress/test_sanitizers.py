"""ThreadSanitizer, AddressSanitizer and UBSan over the kernels: no reports.

Each has a control: a build with a planted fault, which must be reported, so that
silence means something.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import variants

SANITIZE = variants.ROOT / "tests" / "sanitize"
# Arrays with their lock; streams; the frame buffer; queues and the ports of workers.
DRIVES = ["drive", "drive_stream", "drive_framebuffer", "drive_pipe"]
LIBRARY = {"thread": "libtsan.so", "race": "libtsan.so"}


def library(variant: str) -> str:
    """Path of the sanitizer's runtime, or a reason to skip."""
    name = LIBRARY.get(variant, "libasan.so")
    compiler = variants.tool(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"the compiler has no {name}")
    # The soname in full: LD_PRELOAD wants no linker script.
    return os.path.realpath(found)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := variants.missing():
        pytest.skip(f"the kernels cannot be built with a sanitizer: {why}")
    kept = os.environ.get("ATARAXIS_VARIANTS")
    return Path(kept) if kept else tmp_path_factory.mktemp("sanitized")


def is_nightly() -> bool:
    return float(os.environ.get("ATARAXIS_STRESS", "0")) >= 1


def drive(
    program: str, variant: str, directory: Path, arena: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    preload = library(variant)
    if is_nightly():
        package = variants.build(variant, directory)
    elif program == "drive":
        package = variants.build(variant, directory, variants.ARRAYS)
    else:
        pytest.skip("some minutes of building: set ATARAXIS_STRESS=1")
    env = {
        **os.environ,
        "LD_PRELOAD": preload,
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
        "TSAN_OPTIONS": "exitcode=66:halt_on_error=0:report_thread_leaks=0",
        "ASAN_OPTIONS": "exitcode=66:detect_leaks=0",
        "UBSAN_OPTIONS": "exitcode=66:print_stacktrace=1:halt_on_error=1",
    }
    command = [
        sys.executable,
        "-P",
        SANITIZE / f"{program}.py",
        package,
        arena,
        str(seconds),
    ]
    # Shadow memory wants the usual layout of the address space.
    if steady := shutil.which("setarch"):
        command = [steady, "-R", *command]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=60 + 20 * seconds
    )


@pytest.mark.parametrize("program", DRIVES)
@pytest.mark.parametrize("variant", ["thread", "address"])
def test_nothing_is_reported(
    variant: str,
    program: str,
    directory: Path,
    arena: Path,
    figure: Callable[..., float],
) -> None:
    done = drive(program, variant, directory, arena, figure(60, 3))
    print(done.stdout)
    reports = done.stderr.count("WARNING: ThreadSanitizer")
    assert "Sanitizer" not in done.stderr, f"{reports} reports: {done.stderr[:6000]}"
    assert "runtime error" not in done.stderr, done.stderr[:6000]
    assert done.returncode == 0, done.stderr[-4000:]
    assert "done" in done.stdout


@pytest.mark.parametrize(
    ("program", "variant", "report"),
    [
        ("drive", "race", "WARNING: ThreadSanitizer: data race"),
        ("drive", "overrun", "ERROR: AddressSanitizer"),
        ("drive_stream", "race", "WARNING: ThreadSanitizer: data race"),
        ("drive_stream", "overrun", "ERROR: AddressSanitizer"),
        ("drive_framebuffer", "overrun", "ERROR: AddressSanitizer"),
        ("drive_pipe", "race", "WARNING: ThreadSanitizer: data race"),
        ("drive_pipe", "overrun", "ERROR: AddressSanitizer"),
    ],
)
def test_a_planted_fault_is_reported(
    program: str, variant: str, report: str, directory: Path, arena: Path
) -> None:
    done = drive(program, variant, directory, arena, 3)
    assert report in done.stderr, f"not found: {done.stdout} {done.stderr[-2000:]}"
    assert done.returncode != 0
    for name in os.listdir(arena):
        # A process that the sanitizer ended could not clean up.
        (arena / name).unlink()
