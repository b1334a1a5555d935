"""Stress tests: an arena of their own, nothing left behind, counts that scale."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import variants
from workers_stress import Zygote


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stress)


def scaled(full: float, least: float = 1) -> float:
    """Scale a full figure by $ATARAXIS_STRESS (0.02; .ci/run 0.1; .ci/nightly 1)."""
    return max(least, full * float(os.environ.get("ATARAXIS_STRESS", "0.02")))


@pytest.fixture(scope="session")
def figure() -> Callable[..., float]:
    return scaled


def descriptors() -> set[str]:
    """List what our descriptors point to, without the one that lists them."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            pass
    return {f for f in found if "/proc/" not in f}


def children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as f:
            found.update(map(int, f.read().split()))
    return found


@pytest.fixture
def arena() -> Iterator[Path]:
    """Lend a context directory; afterwards nothing may be left of the test."""
    gc.collect()
    before = descriptors(), children(), set(threading.enumerate())
    path = Path(tempfile.mkdtemp(prefix="ataraxis-stress-", dir="/dev/shm"))
    yield path
    gc.collect()
    left = sorted(os.listdir(path))
    for name in left:
        os.unlink(path / name)
    path.rmdir()
    assert not left, f"files are left in the context: {left}"
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before[2] and time.monotonic() < deadline:
        for thread in set(threading.enumerate()) - before[2]:
            thread.join(0.05)
    running = set(threading.enumerate()) - before[2]
    assert not running, f"threads are left: {running}"
    kept = descriptors() - before[0]
    assert not kept, f"descriptors are left: {kept}"
    alive = children() - before[1]
    assert not alive, f"processes are left: {alive}"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build ataraxis with its crash points, once for all tests."""
    if why := variants.missing():
        pytest.skip(f"the kernels cannot be built with crash points: {why}")
    kept = os.environ.get("ATARAXIS_VARIANTS")
    return variants.build(
        "crash", Path(kept) if kept else tmp_path_factory.mktemp("variants")
    )


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start one zygote for all tests: an interpreter costs a second."""
    directory = tmp_path_factory.mktemp("nursery")
    with Zygote(directory, directory) as mother:
        yield mother


@pytest.fixture
def zygote(nursery: Zygote, arena: Path) -> Iterator[Zygote]:
    """Lend a process that forks workers quickly; ends with none of them left."""
    yield nursery.lend(arena)
    complaints = nursery.complaints()
    nursery.lend(arena)
    assert not complaints, complaints


@pytest.fixture(scope="session")
def crashers(
    package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Zygote]:
    directory = tmp_path_factory.mktemp("crashers")
    with Zygote(directory, directory, package=package) as zygote:
        yield zygote


@pytest.fixture
def mother(crashers: Zygote, arena: Path) -> Iterator[Zygote]:
    yield crashers.lend(arena)
    complaints = crashers.complaints()
    crashers.lend(arena)
    assert not complaints, complaints
