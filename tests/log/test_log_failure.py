"""A logger whose disk stalls or fails: nothing hangs, and errors state what is safe."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from deadline import wait_until
from disks import Disk, a_logger, package, through_a_stall
from workers_logger import accepted

from ataraxis import DataLogger
from ataraxis.errors import LoggerError
from ataraxis.log.journal.input import InputFile
from ataraxis.log.verification import verify

LAYOUTS = ["npy", "journal"]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def put_many(logger: DataLogger, stop: int) -> None:
    for number in range(1, stop):
        logger.input_queue.put(package(number))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stall_of_a_second(disk: Disk, tmp_path: Path, layout: str) -> None:
    through_a_stall(disk, tmp_path, layout, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_put_without_a_timeout_waits_for_the_disk(disk, tmp_path, layout) -> None:
    logger = a_logger(tmp_path, layout=layout)
    began = time.monotonic()
    with disk.stalled(0.7):
        put_many(logger, 40)
        assert time.monotonic() - began > 0.6
    logger.close()
    assert len(accepted(logger.output_directory)) == 40


def test_a_stall_warns(disk: Disk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ataraxis.log.queue._STALL_S", 0.3)
    monkeypatch.setattr("ataraxis.log.logger._STALL_S", 0.3)
    logger = a_logger(tmp_path)
    with disk.stalled(1.5), pytest.warns(RuntimeWarning, match="nothing written"):
        put_many(logger, 40)
    wait_until(logger.input_queue.empty, 30, "room")
    with disk.stalled(1.5):
        logger.input_queue.put(package(40))
        with pytest.warns(RuntimeWarning, match="nothing written"):
            logger.stop()
    logger.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stop_in_a_stall(disk: Disk, tmp_path: Path, layout: str) -> None:
    logger = a_logger(tmp_path, layout=layout)
    with disk.stalled(1):
        logger.input_queue.put(package(1))
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="writer continues"):
            logger.stop(timeout=0.2)
        assert time.monotonic() - began < 0.8
    logger.stop()
    assert len(accepted(logger.output_directory)) == 2
    logger.close()


def test_drop_newest_drops_and_counts(disk: Disk, tmp_path: Path) -> None:
    logger = a_logger(tmp_path, on_full="drop_newest")
    with disk.stalled(0.5):
        began = time.monotonic()
        for number in range(1, 300):
            logger.input_queue.put(package(number))
        assert time.monotonic() - began < 0.4
    logger.stop()
    dropped = logger.statistics().dropped
    assert dropped > 0
    assert len(accepted(logger.output_directory)) == 300 - dropped
    logger.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_permission_denied_half_way(disk: Disk, tmp_path: Path, layout: str) -> None:
    errors: list[LoggerError] = []
    logger = a_logger(tmp_path, layout=layout, on_error=errors.append)
    number, began = 1, time.monotonic()
    with disk.refusing():
        with pytest.raises(LoggerError, match="Permission denied") as refused:  # noqa: PT012
            while True:
                logger.input_queue.put(package(number))
                number += 1
        assert time.monotonic() - began < 1
        wait_until(lambda: errors, 1, "on_error")
        safe = int(re.search(r"(\d+) entries are in", str(refused.value))[1])
        assert 1 <= safe <= len(accepted(logger.output_directory))
    logger.start()
    logger.stop()
    assert len(accepted(logger.output_directory)) == number
    logger.close()


@pytest.mark.parametrize("entries", [1, 3])
def test_entries_of_a_failed_sync_are_written_again(
    disk: Disk, tmp_path: Path, entries: int
) -> None:
    """After EIO, the contents that the system still shows are not trusted."""
    logger = a_logger(tmp_path, layout="journal", durability="disk")
    number = 1
    with disk.losing(), pytest.raises(LoggerError, match="Input/output"):  # noqa: PT012
        while True:
            logger.input_queue.put(package(number))
            number += 1
            time.sleep(0.01 if number > entries else 0)
    files = sorted(logger.output_directory.glob("*.axj"))
    before = sum(len(InputFile(path)) for path in files)
    assert before > 1  # they are there to be seen
    logger.start()
    logger.stop()
    found = accepted(logger.output_directory)
    assert len(found) == number
    report = verify(logger.output_directory)
    assert report.is_complete
    again = [InputFile(path).header.about.get("again") for path in files]
    assert {"uuid": InputFile(files[0]).header.uuid.hex(), "entries": 1} in again
    logger.close()
