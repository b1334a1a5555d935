"""Every test has a context of its own, and leaves nothing behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ataraxis", deadline=None, derandomize=True)
settings.load_profile("ataraxis")

GRACE_S = 10.0
# A shell's background jobs are told to ignore it, and so are the programs they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # so does nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
SLOW = ("stress", "model", "slow")
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
    return report


def _is_whole(config: pytest.Config) -> bool:
    """Whether plain ``pytest`` runs: no path was given."""
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["is_whole"])
    return config.args_source == config.ArgsSource.TESTPATHS


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a worker of pytest-xdist what only the first process knows."""
    node.workerinput["is_whole"] = _is_whole(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run all tests in two processes, as they mostly wait; some of them in one."""
    return 2 if _is_whole(config) and not config.option.markexpr else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave what is slow out of plain ``pytest``: `.ci/run` runs it, or -m."""
    if not _is_whole(config) or config.option.markexpr:
        return
    slow = [item for item in items if _is_slow(item)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not _is_slow(item)]


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in SLOW)


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests out of every look for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def context(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A directory of segments for this test alone, also for its child processes."""
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = Path(tempfile.mkdtemp(prefix="ataraxis-test-", dir=shm))
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(path))
    # A program that a test starts finds the installed package, not the source folder.
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    # pytest-xdist sets it, and tables are then cut to fit.
    monkeypatch.delenv("COLUMNS", raising=False)
    threads, children = _threads(), _children()
    try:
        yield path
    finally:
        # A failed test's traceback holds its handles: only its failure is reported.
        is_failed = request.node.stash.get(_failed, True)
        left = _left(path, threads, children, 0 if is_failed else GRACE_S)
        for pid in _children() - children:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)
    if left and not is_failed:
        pytest.fail("the test left behind: " + "; ".join(left))


def _left(
    path: Path, threads: set[threading.Thread], children: set[int], grace: float
) -> list[str]:
    """What remains, after some time for threads and processes to end."""
    deadline = time.monotonic() + grace
    while True:
        # The token of a server that was killed is swept by the next one.
        found = [p for p in path.rglob("*") if not p.match(".serve-*.token")]
        left = [f"file {p}" for p in found]
        left += [f"mapping {m}" for m in _mappings(path)]
        left += [f"open file {f}" for f in _descriptors(path)]
        left += [f"child process {p}" for p in multiprocessing.active_children()]
        left += [f"child process {pid}" for pid in _children() - children]
        left += [f"thread {t}" for t in _threads() - threads]
        if not left or time.monotonic() > deadline:
            return left
        gc.collect()  # only now: it takes longer than most tests
        time.sleep(0.01)


def _threads() -> set[threading.Thread]:
    """Threads that run: Python lists one it did not start even after its end."""
    running = sys._current_frames()
    return {
        t
        for t in threading.enumerate()
        if not isinstance(t, threading._DummyThread) or t.ident in running
    }


def _descriptors(path: Path) -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if target.startswith(str(path)):
            found.append(f"{descriptor} -> {target}")
    return found


def _mappings(path: Path) -> list[str]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line.split(maxsplit=5)[5] for line in maps if str(path) in line]


def _children() -> set[int]:
    """Living children of this process, but for Python's own resource tracker."""
    pids = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids |= {int(pid) for pid in (task / "children").read_text().split()}
        except FileNotFoundError:
            continue
    return {pid for pid in pids if "resource_tracker" not in _command(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
