"""DataLogger: the seed's chapter, every start method, its flaws, crashes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue as std_queue
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from click.testing import CliRunner
from deadline import wait_until
from places import PRINTED, TESTS
from workers_logger import accepted, log_many

from ataraxis import DataLogger, LogPackage
from ataraxis.cli import main
from ataraxis.errors import LoggerError, NotConnectedError
from ataraxis.log import Loss, LowDisk, recover_log, writer
from ataraxis.log.status import (
    CREATED,
    ENDED,
    RUNNING,
    STATE,
    STOPPED,
    LogStatus,
    statuses,
)

COPY = PRINTED / "logger.py"
OLD_IMPORT = "from ataraxis_data_structures import DataLogger, LogPackage\n"
PAYLOAD = np.array([9, 8, 7], np.uint8)
# Each entry takes one slot of a queue with slots of this size.
SLOTFUL = np.arange(1000).astype(np.uint8)
METHODS = ["fork", "spawn", "forkserver"]


def entries(path: Path) -> list[bytes]:
    """Payloads of an npy log, unordered."""
    return [bytes(np.load(p)[9:]) for p in path.glob("*.npy")]


def writers() -> list[int]:
    """Pids of the writers this process started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with_command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"ataraxis.log.writer" in with_command:
                found.append(int(pid))
    return found


def status_of(logger: DataLogger) -> LogStatus:
    return logger._status


def a_writer(logger: DataLogger) -> int:
    """Wait until the writer works, so that it can be killed."""
    wait_until(lambda: status_of(logger).is_written(), 30, "a writer")
    return writers()[0]


# ---- the seed


def seed_block() -> str:
    block = COPY.read_text(encoding="utf-8")
    assert block.count(OLD_IMPORT) == 1
    return block.replace(OLD_IMPORT, "from ataraxis import DataLogger, LogPackage\n")


def test_the_copy_is_the_chapter_word_for_word() -> None:
    for folder in TESTS.parents:
        seed = folder / "shared/seeds/ataraxis-data-structures.md"
        if seed.exists():
            break
    else:
        pytest.skip("the seeds are not beside this repository: their copy is run")
    chapter = seed.read_text(encoding="utf-8").split("### DataLogger\n")[1]
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```$", chapter, re.M | re.S)
    assert blocks == [COPY.read_text(encoding="utf-8")]


@pytest.mark.parametrize("method", [*METHODS, None])
def test_the_seeds_chapter_runs_as_printed(method: str | None, context: Path) -> None:
    start = f"import multiprocessing; multiprocessing.set_start_method({method!r})\n"
    # The example leaves its temporary directory to the garbage collector.
    warnings = "-W error -W ignore::ResourceWarning"
    code = (start if method else "") + seed_block()
    assert programs.run(code, warnings=warnings) == ""
    assert list(context.iterdir()) == []


def test_the_chapter_needs_no_guard(context: Path) -> None:
    code = seed_block().replace('if __name__ == "__main__":', "if True:")
    assert programs.run(code, warnings="-W error -W ignore::ResourceWarning") == ""
    assert list(context.iterdir()) == []


# ---- entries from everywhere


@pytest.mark.parametrize("layout", ["npy", "journal"])
@pytest.mark.parametrize("method", METHODS)
def test_entries_of_three_processes(tmp_path: Path, method: str, layout: str) -> None:
    how = multiprocessing.get_context(method)
    with DataLogger(tmp_path, "three", layout=layout) as logger:
        producers = [
            how.Process(target=log_many, args=(logger.input_queue, source, 200))
            for source in range(3)
        ]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join(60)
            assert producer.exitcode == 0
    expected = {f"{s} {i}".encode() for s in range(3) for i in range(200)}
    assert accepted(logger.output_directory) == sorted(expected)
    assert logger.statistics().written == 600
    if method == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()


def test_two_loggers_of_one_name_and_two_sessions(tmp_path: Path) -> None:
    """Flaw 16 and 20: entries were overwritten, stop() hung."""
    for _ in range(2):
        one, two = (DataLogger(tmp_path, "same", exist_ok=True) for _ in range(2))
        for logger in (one, two):
            logger.start()
            for i in range(20):
                logger.input_queue.put(LogPackage(1, i, PAYLOAD))
        one.stop()
        two.stop()
        one.close()
        two.close()
    assert len(entries(tmp_path / "same_data_log")) == 80
    logger.compress_logs(remove_sources=True)
    with np.load(tmp_path / "same_data_log" / "1_log.npz") as archive:
        assert len(archive.files) == 80


def test_start_and_stop_may_be_cycled(tmp_path: Path) -> None:
    with DataLogger(output_directory=tmp_path, instance_name="cycle") as logger:
        for i in range(3):
            assert logger.started
            assert logger.alive
            logger.start()
            logger.input_queue.put(LogPackage(i, i, PAYLOAD))
            logger.stop()
            logger.stop()
            assert not logger.started
            assert len(entries(logger.output_directory)) == 2 * i + 1
            # Entries put while it is stopped wait.
            logger.input_queue.put(LogPackage(i, 100, PAYLOAD))
            assert not logger.input_queue.empty()
            logger.start()
            wait_until(lambda n=2 * i + 1: len(entries(logger.output_directory)) > n)
    assert len(entries(logger.output_directory)) == 6
    assert repr(logger).startswith("DataLogger(name='cycle'")
    assert logger.name == "cycle"


@pytest.mark.parametrize(
    "bad", [5, None, "x", PAYLOAD, (1, 2, PAYLOAD), {"source_id": 1}]
)
def test_a_wrong_package_is_refused_in_the_caller(tmp_path: Path, bad) -> None:
    """Flaw 17: it killed the logger, and the caller got no error."""
    with DataLogger(tmp_path) as logger:
        with pytest.raises(TypeError, match="takes a LogPackage"):
            logger.input_queue.put(bad)
        logger.input_queue.put(LogPackage(1, 2, PAYLOAD))
    assert entries(logger.output_directory) == [bytes(PAYLOAD)]


def test_arrays_and_blocks_without_stamps(tmp_path: Path) -> None:
    with DataLogger(tmp_path) as logger:
        logger.log(3, np.arange(4, dtype=np.float64))
        logger.log(3, 7, timestamp=5)
        logger.log(4, np.array(["2026-01-01"], "M8[ns]"))
        assert logger.log_block(5, np.arange(12).reshape(4, 3), timestamp=10, step=2)
        with pytest.raises(ValueError, match="0 to 255"):
            logger.log(256, PAYLOAD)
        with pytest.raises(TypeError, match="Python objects"):
            logger.log(1, np.array([object()]))
    keys = sorted(p.name for p in logger.output_directory.glob("005_*"))
    assert keys == [f"005_{stamp:020d}.npy" for stamp in (10, 12, 14, 16)]
    first = np.load(logger.output_directory / keys[1])[9:].view(np.int64)
    assert first.tolist() == [3, 4, 5]
    (named,) = logger.output_directory.glob("003_00000000000000000005.npy")
    assert np.load(named)[9:].view(np.int64).tolist() == [7]
    assert len(entries(logger.output_directory)) == 7


def test_a_journal_keeps_what_arrays_are(tmp_path: Path) -> None:
    from ataraxis.log.journal.reader import JournalReader

    block = np.arange(60_000, dtype=np.float32).reshape(-1, 3)
    with DataLogger(tmp_path, layout="journal") as logger:
        logger.input_queue.put(LogPackage(1, 2**64 - 1, PAYLOAD))
        logger.log(70_000, np.eye(3))
        assert logger.log_block(9, block, timestamp=100, step=10) == 20_000
    with JournalReader(logger.output_directory) as log:
        assert len(log) == 20_002
        assert log.frame(0).device_time == 2**64 - 1
        assert log.frame(0).value.tolist() == [9, 8, 7]
        assert np.array_equal(log.frame(1).value, np.eye(3))
        found = log.select(source=9)
        rows = np.stack([frame.array for frame in log.frames(found[:50])])
        assert np.array_equal(rows, block[:50])
        stamps = log.device_stamps(found)
        assert stamps is not None
        assert np.array_equal(stamps[:, 0], 100 + 10 * np.arange(20_000))


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_entries_larger_than_a_slot(tmp_path: Path, layout: str) -> None:
    with DataLogger(tmp_path, layout=layout, buffer_size=1000) as logger:
        for size in (999, 1000, 1001, 100_000, 9_000_000):
            logger.log(1, np.full(size, size % 251, np.uint8))
        logger.log_block(2, np.zeros((3, 5000), np.uint8))
    sizes = sorted(map(len, accepted(logger.output_directory)))
    assert sizes == [999, 1000, 1001, 5000, 5000, 5000, 100_000, 9_000_000]


def test_a_full_queue(tmp_path: Path) -> None:
    size = len(SLOTFUL)
    logger = DataLogger(
        tmp_path, on_full="drop_newest", buffer_count=4, buffer_size=size
    )
    for i in range(10):
        logger.input_queue.put(LogPackage(1, i, SLOTFUL))
    assert logger.statistics().dropped == 6
    assert logger.input_queue.full()
    logger.close()
    assert len(entries(logger.output_directory)) == 4
    where = tmp_path / "x"
    logger = DataLogger(where, on_full="raise", buffer_count=1, buffer_size=size)
    logger.input_queue.put_nowait(LogPackage(1, 1, SLOTFUL))
    with pytest.raises(std_queue.Full):
        logger.input_queue.put(LogPackage(1, 1, SLOTFUL))
    logger.close()
    logger = DataLogger(tmp_path / "y", buffer_count=1, buffer_size=size)
    logger.input_queue.put(LogPackage(1, 1, SLOTFUL))
    with pytest.raises(std_queue.Full):
        logger.input_queue.put_nowait(LogPackage(1, 1, SLOTFUL))
    with pytest.raises(TimeoutError):
        logger.input_queue.put(LogPackage(1, 1, SLOTFUL), timeout=0.01)
    logger.close()


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_entries_share_slots(tmp_path: Path, layout: str) -> None:
    logger = DataLogger(tmp_path, on_full="drop_newest", buffer_count=2, layout=layout)
    for i in range(70):
        logger.input_queue.put(LogPackage(1, i, PAYLOAD))
    rows = np.arange(256, dtype=np.uint8).reshape(64, 4)
    logger.log_block(2, rows, timestamp=1000)
    statistics = logger.statistics()
    # 64 per slot: 6 of 134 entries do not fit.
    assert (statistics.waiting, statistics.dropped) == (128, 6)
    logger.start()
    logger.stop()
    found = accepted(logger.output_directory)
    assert len(found) == 128
    assert [bytes(row) for row in rows[:58]] == [one for one in found if len(one) == 4]


def test_a_handle_is_pickled(tmp_path: Path) -> None:
    with DataLogger(tmp_path) as logger:
        queue = pickle.loads(pickle.dumps(logger.input_queue))
        queue.put(LogPackage(1, 1, PAYLOAD))
        queue.close()
    assert len(entries(logger.output_directory)) == 1


def test_a_logger_is_not_pickled(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path)
    with pytest.raises(TypeError, match="input_queue"):
        pickle.dumps(logger)
    logger.close()


def test_wrong_arguments(tmp_path: Path) -> None:
    for wrong in ({"layout": "x"}, {"durability": "x"}, {"on_full": "x"}):
        with pytest.raises(ValueError, match="one of"):
            DataLogger(tmp_path, **wrong)
    for name in ("", ".", "..", "a/..", "a\0b"):
        with pytest.raises(ValueError, match="cannot be used"):
            DataLogger(tmp_path, name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_to_the_disk(tmp_path: Path, layout: str) -> None:
    with DataLogger(tmp_path, durability="disk", layout=layout) as logger:
        for i in range(10):
            logger.input_queue.put(LogPackage(1, i, b"".join([PAYLOAD]) and PAYLOAD))
    assert len(accepted(logger.output_directory)) == 10


# ---- ends


END = """
    import os, signal, sys
    import numpy as np
    from ataraxis import DataLogger, LogPackage
    logger = DataLogger(sys.argv[1], layout=sys.argv[3])
    logger.start()
    for i in range(300):
        logger.input_queue.put(LogPackage(1, i, np.frombuffer(b"1 %d" % i, np.uint8)))
    exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("signal.raise_signal(signal.SIGINT)", -2),
        ("os._exit(0)", 0),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_a_program_that_ends_without_stop(tmp_path, context, end, code, layout):
    """Flaws 18 and 19: entries were lost, processes never ended."""
    with programs.Program(END, tmp_path, end, layout) as program:
        assert program.finish()[0] == code
    path = tmp_path / "data_logger_data_log"
    wait_until(lambda: not list(context.iterdir()), 20, "the writer to finish")
    assert accepted(path) == sorted(b"1 %d" % i for i in range(300))


def test_ctrl_c_for_the_whole_group(tmp_path: Path, context: Path) -> None:
    code = END.replace("exec(sys.argv[2])", "print('there', flush=True); input()")
    with programs.Program(code, tmp_path, "", "npy") as program:
        program.expect("there")
        for pid in {program.pid, *_children_of(program.pid)}:
            os.kill(pid, signal.SIGINT)
        program.finish()
    wait_until(lambda: not list(context.iterdir()), 20, "the writer to finish")
    assert len(entries(tmp_path / "data_logger_data_log")) == 300


def _children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_a_writer_that_is_killed_is_replaced_once(tmp_path, layout) -> None:
    with DataLogger(tmp_path, layout=layout) as logger:
        for i in range(2000):
            if i == 1000:
                os.kill(a_writer(logger), signal.SIGKILL)
            logger.input_queue.put(
                LogPackage(1, i, np.frombuffer(b"1 %d" % i, np.uint8))
            )
    assert logger.statistics().writers == 2
    assert accepted(logger.output_directory) == sorted(b"1 %d" % i for i in range(2000))


def test_a_writer_that_is_killed_twice(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path, buffer_count=64, buffer_size=len(SLOTFUL))
    logger.start()
    os.kill(a_writer(logger), signal.SIGKILL)
    for i in range(65):
        logger.input_queue.put(LogPackage(1, i, SLOTFUL))
    pid = a_writer(logger)
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    done = 65
    with pytest.raises(LoggerError, match="killed"):  # noqa: PT012
        while done < 500:
            logger.input_queue.put(LogPackage(1, done, SLOTFUL), timeout=20)
            done += 1
    logger.start()
    logger.stop()
    assert len(entries(logger.output_directory)) == done


def test_a_removed_directory(tmp_path: Path) -> None:
    """Flaw 16: stop() returned normally with nothing saved."""
    logger = DataLogger(tmp_path, "gone")
    logger.start()
    queue = logger.input_queue
    queue.put(LogPackage(1, 1, PAYLOAD))
    wait_until(lambda: logger.statistics().written == 1, 30, "a writer at work")
    shutil.rmtree(logger.output_directory)
    wait_until(lambda: _refuses(queue), 5, "the caller's error")
    with pytest.raises(LoggerError, match="removed") as raised:
        logger.stop()
    assert "1 entries are in" in str(raised.value)
    logger.output_directory.mkdir()
    logger.start()
    logger.stop()
    assert len(entries(logger.output_directory)) >= 1
    logger.close()


def _refuses(queue) -> bool:
    try:
        queue.put(LogPackage(1, 1, PAYLOAD), timeout=1)
    except LoggerError:
        return True
    return False


def test_a_directory_that_may_not_be_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"[Nn]ot a directory|exists"):
        DataLogger(tmp_path / "file", "x")


def _mount(path: Path, size: str) -> None:
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root")


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_a_disk_that_is_full(tmp_path: Path, layout: str) -> None:
    disk = tmp_path / "disk"
    _mount(disk, "1m")
    try:
        low: list[LowDisk] = []
        refused: list[LoggerError] = []
        logger = DataLogger(
            disk, layout=layout, on_low_disk=low.append, on_error=refused.append,
            buffer_size=1000,
        )  # fmt: skip
        logger.start()
        count, began = 0, 0.0
        with pytest.raises(LoggerError, match="No space") as raised:  # noqa: PT012
            for count in range(5000):
                data = np.frombuffer(b"%05d" % count * 200, np.uint8)
                began = time.monotonic()
                logger.input_queue.put(LogPackage(1, count, data))
        assert time.monotonic() - began < 1
        with pytest.raises(LoggerError):
            logger.stop()
        assert low[0].free_bytes <= 2**20
        assert "No space" in str(refused[0])
        safe = int(re.search(r"(\d+) entries are in", str(raised.value))[1])
        written = accepted(logger.output_directory)
        assert len(written) >= safe > 10
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        logger.start()
        logger.stop()
        expected = [b"%05d" % i * 200 for i in range(count)]
        assert accepted(logger.output_directory) == expected
        logger.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_at_the_end_of_the_program(tmp_path: Path, context: Path) -> None:
    disk = tmp_path / "disk"
    _mount(disk, "100k")
    try:
        with programs.Program(END, disk, "pass", "npy") as program:
            _, _, errors = program.finish()
        assert "No space" in errors
        before = len(entries(disk / "data_logger_data_log"))
        assert 0 < before < 300
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        (saved,) = recover_log(disk)
        assert (saved.entries, saved.problem) == (300 - before, "")
    finally:
        found = accepted(disk / "data_logger_data_log")
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert found == sorted(b"1 %d" % i for i in range(300))
    assert recover_log() == []
    assert list(context.iterdir()) == []


@pytest.mark.parametrize("layout", ["npy", "journal"])
def test_everything_killed_and_recovered(tmp_path, context, layout) -> None:
    code = END.replace("exec(sys.argv[2])", "print('there', flush=True); input()")
    with programs.Program(code, tmp_path, "", layout) as program:
        program.expect("there")
        for pid in [*_children_of(program.pid), program.pid]:
            os.kill(pid, signal.SIGSTOP)
        for pid in [*_children_of(program.pid), program.pid]:
            os.kill(pid, signal.SIGKILL)
        program.finish()
    path = tmp_path / "data_logger_data_log"
    wait_until(_writes_no_more, 10, "the writer to be gone")
    done = CliRunner().invoke(main, ["recover", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "entries written now" in done.output
    assert accepted(path) == sorted(b"1 %d" % i for i in range(300))
    assert list(context.iterdir()) == []
    assert recover_log(tmp_path) == []


def _writes_no_more() -> bool:
    return not any(LogStatus(path).is_written() for path in statuses())


def test_a_living_logger_is_not_recovered(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path)
    logger.input_queue.put(LogPackage(1, 1, PAYLOAD))
    assert recover_log(tmp_path) == []
    logger.close()
    assert len(entries(logger.output_directory)) == 1


def test_an_orphan_gets_an_error(tmp_path: Path, context: Path) -> None:
    """A producer that outlives the logger's program is refused, and nothing hangs."""
    with programs.Program(
        """
        import multiprocessing, os, signal, sys
        from ataraxis import DataLogger
        from workers_logger import log_until_refused
        logger = DataLogger(sys.argv[1])
        logger.start()
        how = multiprocessing.get_context("fork")
        given = logger.input_queue, sys.argv[2]
        how.Process(target=log_until_refused, args=given).start()
        input()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        tmp_path / "refused",
    ) as program:
        path = tmp_path / "data_logger_data_log"
        wait_until(lambda: list(path.glob("*.npy")), 20, "an entry")
        program.tell()
        program.process.wait(10)
        wait_until((tmp_path / "refused").exists, 10, "the orphan's error")
    count = int((tmp_path / "refused").read_text())
    # Counted, not read, which would delay the writer.
    wait_until(lambda: len(list(path.glob("*.npy"))) >= count, 90, "the last entry")
    wait_until(_writes_no_more, 10, "the writer to be gone")
    # The orphan ended as forked processes do: without closing the queue.
    recover_log()
    assert list(context.iterdir()) == []
    assert len(entries(path)) == count


def test_an_entry_put_while_the_last_writer_ends_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan sees the writer, which has checked the queue for the last time."""
    logger = DataLogger(tmp_path)
    status = status_of(logger)
    put = logger.input_queue._put
    whole_run, used, ends = writer.run, [], []

    def run(status: LogStatus) -> None:
        used.append(status)
        whole_run(status)
        assert status.words[STATE] == ENDED
        if not ends:
            put(PAYLOAD, True, 1, source=1, device_time=1)
        ends.append(len(list(logger.output_directory.glob("*.npy"))))

    created, status.words[CREATED] = status.words[CREATED], 1  # long gone
    status.words[STATE] = RUNNING
    with monkeypatch.context() as patch:
        patch.setattr(writer, "run", run)
        patch.setattr(os, "_exit", lambda code: None)
        writer.main(status.path)
    assert ends == [0, 1]
    used[0].close()  # its process would have ended
    status.words[CREATED], status.words[STATE] = created, STOPPED
    logger.close()


def test_an_idle_logger_takes_next_to_no_time(tmp_path: Path) -> None:
    """Flaw 15: a third of a core."""
    with DataLogger(tmp_path) as logger:
        pid = a_writer(logger)
        wait_until(lambda: _is_idle(pid), 30, "the writer to have started")
        before, began = _ticks(pid), time.monotonic()
        threading.Event().wait(1.0)
        used = (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
        assert used < 0.05 * (time.monotonic() - began)


def _is_idle(pid: int) -> bool:
    before = _ticks(pid)
    threading.Event().wait(0.3)
    return _ticks(pid) == before


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_forked_copy_ends_nothing(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path)
    logger.start()
    pid = os.fork()
    if pid == 0:
        try:
            logger.stop()
        except RuntimeError:
            logger.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    logger.input_queue.put(LogPackage(1, 1, PAYLOAD))
    logger.stop()
    assert len(entries(logger.output_directory)) == 1


def test_nothing_is_left_in_the_context(tmp_path: Path, context: Path) -> None:
    logger = DataLogger(tmp_path)
    assert len(statuses()) == 1
    logger.start()
    assert status_of(logger).words[STATE]
    del logger
    assert list(context.iterdir()) == []


def test_a_context_that_was_removed(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path, context=_private(tmp_path / "context"))
    shutil.rmtree(tmp_path / "context")
    logger.start()
    logger.input_queue.put(LogPackage(1, 1, PAYLOAD))
    with pytest.raises(LoggerError, match="context of its queue was removed"):
        logger.stop()


def _private(path: Path) -> Path:
    path.mkdir(0o700)
    return path


def test_the_input_queue_closed_before_the_logger(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path)
    logger.start()
    queue = logger.input_queue
    queue.put(LogPackage(1, 1, PAYLOAD))
    queue.close()
    for put in (queue.put, queue.put_nowait):
        with pytest.raises(NotConnectedError, match="closed"):
            put(LogPackage(1, 2, PAYLOAD))
    logger.close()
    assert len(entries(logger.output_directory)) == 1


def test_every_process_that_puts_warns_of_a_low_disk(tmp_path: Path) -> None:
    _mount(tmp_path / "disk", "2m")
    try:
        logger = DataLogger(tmp_path / "disk")
        logger.start()
        wait_until(lambda: status_of(logger).low_disk() is not None, 30, "a check")
        with pytest.warns(RuntimeWarning, match="make room"):
            logger.input_queue.put(LogPackage(1, 1, PAYLOAD))
        logger.input_queue.put(LogPackage(1, 2, PAYLOAD))
        remount = ["mount", "-o", "remount,size=1g", str(tmp_path / "disk")]
        subprocess.run(remount, check=True)
        wait_until(lambda: status_of(logger).low_disk() is None, 30, "another check")
        logger.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_dropped_entries_are_reported(tmp_path: Path) -> None:
    losses: list[Loss] = []
    with DataLogger(
        tmp_path, on_full="drop_newest", buffer_count=4, buffer_size=1000,
        on_loss=losses.append,
    ) as logger:  # fmt: skip
        os.kill(a_writer(logger), signal.SIGSTOP)
        for i in range(20):
            logger.input_queue.put(LogPackage(1, i, SLOTFUL))
        wait_until(lambda: losses, 5, "the report of the loss")
        os.kill(writers()[0], signal.SIGCONT)
    dropped = logger.statistics().dropped
    assert sum(loss.count for loss in losses) == losses[-1].total == dropped
    assert len(entries(logger.output_directory)) == 20 - dropped
    logger.close()


@pytest.mark.parametrize("layout", ["npy", "journal"])
@pytest.mark.parametrize("is_absolute", [True, False])
def test_an_instance_name_may_be_a_path(
    tmp_path: Path, layout: Any, is_absolute: bool
) -> None:
    name = str(tmp_path / "a" / "rig") if is_absolute else "a/rig"
    logger = DataLogger(tmp_path, instance_name=name, layout=layout)
    assert logger.output_directory == tmp_path / "a" / "rig_data_log"
    with logger:
        logger.log(1, np.arange(3, dtype="u1"))
    assert len(list(logger.output_directory.iterdir())) > 0
