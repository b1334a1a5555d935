"""Errors of limits: which one, who set it, what to do."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import numpy as np
import programs
import pytest

from ataraxis import Consumer, DataLogger, Producer
from ataraxis.shm.limits import advice, raise_explained

MAKE = """
import resource
import numpy as np
from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray
SharedMemoryArray.create_array("warm", np.zeros(1)).destroy()
{before}
resource.setrlimit(resource.{limit}, ({value}, {value}))
kept = []
try:
    for k in range(200):
        kept.append({make})
except Exception as error:
    text = str(error)
    kept.clear()
    print(text)
"""
ARRAY = "SharedMemoryArray.create_array(f'a{{k}}', np.zeros({n}))"
QUEUE = "MemQ(f'q{k}', buffer_count=4, buffer_size=64)"
THERE = "p = Producer('there', 64, 4)"
HUGE = (
    "SharedMemoryArray.create_array('b', "
    "np.broadcast_to(np.uint8(0), (1_500_000_000,)))"
)
FILES, SIZE, SPACE = "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS"
CASES = {
    "array": (FILES, 40, ARRAY.format(n=3), "", "40 descriptors", "ulimit -n"),
    "stream": (FILES, 40, "Producer(f's{k}', 64, 4)", "", "40 descr", "LimitNOFILE"),
    "queue": (FILES, 40, QUEUE, "", "40 descriptors", "segment 'q"),
    "attach": (FILES, 40, "Consumer('there')", THERE, "be attached", "ulimit -n"),
    "size": (SIZE, 1 << 20, ARRAY.format(n=10**6), "", "1048576 bytes", "ulimit -f"),
    "space": (SPACE, 1 << 30, HUGE, "", "1073741824 bytes", "ulimit -v"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_limit_says_which_it_is_and_what_to_do(case: str, context: Path) -> None:
    limit, value, make, before, *texts = CASES[case]
    output = programs.run(
        MAKE.format(limit=limit, value=value, make=make, before=before), warnings=""
    )
    for text in (limit, *texts):
        assert text in output, output
    for path in context.iterdir():
        path.unlink()


def test_a_context_that_is_read_only_says_so() -> None:
    error = OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(OSError, match="mounted read-only") as caught:
        raise_explained(error, "segment 'x' cannot be made", "/place")
    assert caught.value.errno == errno.EROFS
    for text in ("segment 'x' cannot be made", "/place"):
        assert text in str(caught.value)
    raise_explained(OSError(errno.ENOSPC, "full"), "x", "/place")  # not of a limit
    assert "fs.file-max" in advice(errno.ENFILE)
    assert advice(None) == ""


def test_a_producer_that_waits_for_its_own_process_says_so() -> None:
    producer = Producer("cam", 64, 4)
    consumer = Consumer("cam", policy="lossless")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            producer.send(b"x")
        with pytest.raises(TimeoutError):
            producer.send(b"x", timeout=2.0)
    (text,) = [str(w.message) for w in caught if "has waited" in str(w.message)]
    assert "a consumer of this process is open" in text
    consumer.close()
    producer.unlink()


def test_consumers_of_other_processes_are_not_named() -> None:
    producer = Producer("cam", 64, 4)
    code = (
        "from ataraxis import Consumer; c = Consumer('cam', policy='lossless'); input()"
    )
    with programs.Program(code), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert producer.wait_for_subscribers(1, 30)
        for _ in range(4):
            producer.send(b"x")
        with pytest.raises(TimeoutError):
            producer.send(b"x", timeout=2.0)
    texts = [str(w.message) for w in caught if "has waited" in str(w.message)]
    assert texts
    assert not any("of this process" in text for text in texts)
    producer.unlink()


@pytest.mark.parametrize("source", ["1", 1.5, None, (1,)])
def test_a_source_that_is_no_number_is_named(source: object, tmp_path: Path) -> None:
    with DataLogger(tmp_path, "log") as logger:
        for layout in (logger.log, logger.input_queue.log):
            with pytest.raises(TypeError, match=r"source_id=.* whole number") as caught:
                layout(source, np.zeros(3))  # type: ignore[arg-type]
            assert repr(source) in str(caught.value)
        logger.log(np.uint8(3), np.zeros(3, np.uint8))  # type: ignore[arg-type]
    assert logger.statistics().written == 1
    logger.close()


def test_a_value_that_is_no_record_names_the_fields() -> None:
    dtype = np.dtype([("x", "f4"), ("label", "S4")])
    producer = Producer("records", shape=(), dtype=dtype)
    with pytest.raises(TypeError) as caught:
        producer.send(np.zeros((), "f8"))
    for text in ("x (float32)", "label (|S4)", "float64", "structured array"):
        assert text in str(caught.value)
    producer.unlink()
