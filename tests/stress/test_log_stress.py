"""The log under crashes: every accepted entry is on disk or recovered, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import programs
import pytest
from deadline import wait_until
from places import PRINTED
from workers_logger import accepted

from ataraxis import DataLogger, LogPackage
from ataraxis.log import recover_log
from ataraxis.log.status import LogStatus, statuses

PRODUCERS = 3
RIG = """
    import multiprocessing, sys
    from ataraxis import DataLogger
    from workers_logger import log_and_count
    logger = DataLogger(sys.argv[1], layout=sys.argv[2], buffer_count=64)
    logger.start()
    how = multiprocessing.get_context("fork")
    for source in range(3):
        given = logger.input_queue, source, f"{sys.argv[1]}/count{source}"
        how.Process(target=log_and_count, args=given, daemon=True).start()
    print("there", flush=True)
    input()
"""


class Rig(programs.Program):
    """A program with three producers, in a process group of its own."""

    def __init__(self, path: Path, layout: str) -> None:
        popen = subprocess.Popen
        subprocess.Popen = lambda *a, **k: popen(*a, start_new_session=True, **k)
        try:
            super().__init__(RIG, path, layout)
        finally:
            subprocess.Popen = popen


def counts(path: Path) -> list[int]:
    """Return how many puts of each producer had returned."""
    found = []
    for source in range(PRODUCERS):
        data = (path / f"count{source}").read_bytes()
        found.append(int.from_bytes(data[:8], "little"))
    return found


def is_unwritten() -> bool:
    return not any(LogStatus(path).is_written() for path in statuses())


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_a_group_killed_at_random_moments(arena, tmp_path, monkeypatch, figure, layout):
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    chance = random.Random(layout)
    for kill in range(int(figure(100, 3))):
        path = tmp_path / str(kill)
        path.mkdir()
        for source in range(PRODUCERS):
            (path / f"count{source}").write_bytes(bytes(8))
        with Rig(path, layout) as rig:
            rig.expect("there")
            wait_until(lambda p=path: min(counts(p)) > 0, 30, "entries")
            time.sleep(chance.random() * 0.2)  # the moment
            os.killpg(rig.pid, signal.SIGKILL)
            rig.process.wait(10)
        wait_until(is_unwritten, 10, "the writer's end")
        for saved in recover_log(path):
            assert not saved.problem
        check_whole(path)
        assert os.listdir(arena) == []


def check_whole(path: Path) -> None:
    """Every accepted entry is there once; each producer may leave one in flight."""
    found: dict[int, list[int]] = {source: [] for source in range(PRODUCERS)}
    for data in accepted(path / "data_logger_data_log"):
        source, number = data.split(b" ")[:2]
        assert data == b"%s %s " % (source, number) + b"x" * (int(number) % 200)
        found[int(source)].append(int(number))
    for source, count in enumerate(counts(path)):
        numbers = sorted(found[source])
        assert numbers[:count] == list(range(count))
        assert numbers[count:] in ([], [count])


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_the_writer_killed_at_random_moments(
    arena, tmp_path, monkeypatch, figure, layout
):
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    chance = random.Random(layout)
    for kill in range(int(figure(100, 3))):
        logger = DataLogger(tmp_path / str(kill), layout=layout)
        logger.start()
        status = logger._status
        wait_until(status.is_written, 30, "a writer")
        expected = []
        moment = chance.randrange(2000)
        for i in range(2000):
            data = b"0 %d" % i
            logger.input_queue.put(LogPackage(0, i // 3, np.frombuffer(data, "u1")))
            expected.append(data)
            if i == moment:
                os.kill(logger.input_queue._writer.pid, signal.SIGKILL)
        logger.stop()
        assert logger.statistics().writers <= 2
        assert accepted(logger.output_directory) == sorted(expected)
        logger.close()
        del logger, status
        assert os.listdir(arena) == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_seeds_chapter_twenty_times(arena, monkeypatch, figure, method) -> None:
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    copy = PRINTED / "logger.py"
    block = copy.read_text(encoding="utf-8")
    block = block.replace(
        "from ataraxis_data_structures import", "from ataraxis import"
    )
    start = f"import multiprocessing; multiprocessing.set_start_method({method!r})\n"
    for _ in range(int(figure(20, 2))):
        warnings = "-W error -W ignore::ResourceWarning"
        assert programs.run(start + block, warnings=warnings, timeout=120) == ""
        assert os.listdir(arena) == []
