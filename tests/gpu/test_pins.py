"""pin(): locked once a process, unlocked in time, and by the process that locked."""

from __future__ import annotations

import errno
import gc
import os
import re
from typing import Any

import numpy as np
import programs
import pytest
from gpu_rig import fake_driver, fake_library, in_child

from ataraxis import Consumer, Producer, SharedMemoryArray
from ataraxis.errors import AtaraxisError, GpuUnavailable, NotConnectedError, PinError
from ataraxis.gpu import drivers
from ataraxis.gpu.drivers import DEVICE_MAP, PORTABLE, READ_ONLY, use_driver
from ataraxis.testing.gpu import FakePinDriver

FRAME = np.arange(6, dtype="f4")


def stream(name: str = "s", **options: Any) -> Producer:
    return Producer(name, shape=(6,), dtype="f4", buffer_count=8, **options)


def names(driver: FakePinDriver) -> list[str]:
    return [name for _, name, _ in driver.calls]


# ---- locked once, unlocked once


def test_a_block_locks_and_unlocks() -> None:
    with fake_driver() as driver, stream() as producer:
        with producer.pin() as pin:
            assert pin.is_pinned
            assert pin.driver == "fake"
            assert list(driver.registered.values()) == [pin.nbytes]
            assert "locked by fake" in repr(pin)
        assert not pin.is_pinned
        assert pin.driver == ""
        assert "not locked" in repr(pin)
        assert names(driver) == ["register", "unregister"]


def test_the_whole_mapping_is_locked_for_every_gpu_and_written_by_them() -> None:
    with fake_driver() as driver, stream() as producer:
        with producer.pin() as pin:
            assert pin.nbytes >= 8 * FRAME.nbytes
        assert driver.flags == [PORTABLE | DEVICE_MAP]


def test_a_mapping_that_cannot_be_written_is_registered_as_such() -> None:
    with fake_driver() as driver:
        memory = bytearray(1 << 16)
        address = np.frombuffer(memory, np.uint8).ctypes.data
        page = -(-address // 4096) * 4096
        pin = drivers_pin(memoryview(memory).toreadonly(), page)
        assert driver.flags[0] & READ_ONLY
        pin.close()


def drivers_pin(memory: Any, address: int) -> Any:
    from ataraxis.gpu import Pin

    return Pin(memory, address, 4096, "a test's memory").begin()


def test_handles_of_a_process_share_one_registration() -> None:
    with fake_driver() as driver, stream() as producer:
        one, other = Consumer("s"), Consumer("s")
        one.pin(), other.pin(), producer.pin()
        assert names(driver) == ["register"]
        one.close()
        producer.send(FRAME)
        assert len(driver.registered) == 1
        other.close()
        assert len(driver.registered) == 1
        producer.unlink()
        assert names(driver) == ["register", "unregister"]


def test_blocks_are_counted() -> None:
    with fake_driver() as driver, stream() as producer:
        with producer.pin() as outer:
            with producer.pin() as inner:
                assert inner is outer
            assert outer.is_pinned
        assert names(driver) == ["register", "unregister"]
        producer.pin()
        assert names(driver) == ["register", "unregister", "register"]


def test_arrays_share_it_too() -> None:
    with fake_driver() as driver:
        array = SharedMemoryArray.create_array("a", np.zeros(5))
        other = SharedMemoryArray.attach("a")
        array.pin(), other.pin()
        array.disconnect()
        assert len(driver.registered) == 1
        other.destroy()
        assert names(driver) == ["register", "unregister"]


def test_a_closed_handle_is_not_pinned() -> None:
    with fake_driver():
        producer = stream()
        producer.close()
        with pytest.raises(NotConnectedError):
            producer.pin()


# ---- unlocked in time


def test_close_unlocks() -> None:
    with fake_driver() as driver, stream() as producer, Consumer("s") as consumer:
        consumer.pin()
        consumer.close()
        assert driver.registered == {}
        producer.pin()
        producer.close()
        assert driver.registered == {}


@pytest.mark.parametrize("how", ["receive", "iterate", "read", "read_block", "await"])
def test_the_end_of_the_stream_unlocks(how: str) -> None:
    with fake_driver() as driver, stream() as producer, Consumer("s") as consumer:
        consumer.pin()
        producer.send(FRAME)
        producer.end()
        assert driver.registered
        if how == "receive":
            assert consumer.receive() is not None
            assert driver.registered
            assert consumer.receive() is None
        elif how == "iterate":
            assert len([frame.sequence for frame in consumer]) == 1
        elif how == "read":
            assert len(consumer.read(5)) == 1
        elif how == "read_block":
            assert len(consumer.read_block(5)) == 1
        else:
            assert consumer.is_alive
            assert consumer.receive() is not None
            assert not consumer.is_alive
        assert driver.registered == {}


def test_end_of_the_producer_unlocks_it() -> None:
    with fake_driver() as driver, stream() as producer:
        producer.pin()
        producer.end()
        assert driver.registered == {}


@pytest.mark.parametrize("durable", [None, "reader"])
def test_a_dropped_handle_unlocks(durable: str | None) -> None:
    with fake_driver() as driver, stream() as producer:
        consumer = Consumer("s", durable=durable)
        consumer.pin()
        assert driver.registered
        del consumer
        gc.collect()
        assert driver.registered == {}
        producer.unlink()


def test_the_end_of_the_program_unlocks() -> None:
    printed = programs.run("""
        import atexit
        import numpy as np
        from ataraxis import Consumer, Producer, SharedMemoryArray
        from ataraxis.gpu.drivers import use_driver
        from ataraxis.testing.gpu import FakePinDriver
        driver = FakePinDriver()
        atexit.register(lambda: print(len(driver.calls), driver.registered))
        manager = use_driver(driver)
        manager.__enter__()
        producer = Producer("s", 64, 8)
        consumer = Consumer("s")
        array = SharedMemoryArray.create_array("a", np.zeros(9))
        producer.pin(), consumer.pin(), array.pin()
        print(len(driver.registered))
        """)
    assert printed.split("\n")[:2] == ["2", "4 {}"]


def test_a_copy_under_way_is_completed_before() -> None:
    with fake_driver() as driver, fake_library() as library, stream() as producer:
        consumer = Consumer("s")
        consumer.pin()
        producer.send(FRAME)
        library.stop()
        made = consumer.receive().to_torch()
        consumer.close()
        assert driver.registered, "the copy still reads the pages"
        library.go()
    assert driver.registered == {}
    assert np.array_equal(made.memory, FRAME)


def test_a_stream_made_anew_is_locked_anew() -> None:
    with fake_driver() as driver:
        first = stream()
        consumer = Consumer("s")
        first.pin(), consumer.pin()
        first.unlink()
        second = stream()
        second.pin()
        other = Consumer("s")
        other.pin()
        assert len(driver.registered) == 2
        second.send(FRAME)
        assert other.receive().array.tolist() == FRAME.tolist()
        for handle in (consumer, other, second):
            handle.close()


# ---- forks


@pytest.mark.parametrize("keeps", [False, True], ids=["shared", "kept from children"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*_at_fork.*")  # of JAX, if it is there
def test_a_forked_child_unlocks_nothing(keeps: bool) -> None:
    parent = os.getpid()
    with fake_driver(keeps_from_children=keeps) as driver, stream() as producer:
        consumer = Consumer("s")
        array = SharedMemoryArray.create_array("a", np.arange(3.0))
        pin = consumer.pin()
        producer.pin(), array.pin()

        def child() -> None:
            assert not pin.is_pinned
            consumer.close()
            producer.close()
            pin.close()
            assert array[2] == 2.0  # the handle attaches again
            array.disconnect()
            # Its own pins are its own.
            with Consumer("s") as own, own.pin():
                assert own.receive(timeout=10).array.tolist() == FRAME.tolist()
            calls = [name for pid, name, _ in driver.calls if pid != parent]
            assert calls == ["register", "unregister"]
            gc.collect()

        driver_of_child = FakePinDriver(keeps_from_children=keeps)

        def with_driver() -> None:
            driver.registered.clear()  # of the parent's memory
            driver_of_child.calls = driver.calls
            with use_driver(driver_of_child):
                child()

        producer.send(FRAME)
        in_child(with_driver)
        assert pin.is_pinned
        assert len(driver.registered) == 2
        assert consumer.receive().array.tolist() == FRAME.tolist()
        consumer.close()
        array.destroy()


def flags_of_participants() -> list[str]:
    """VmFlags of the pages that hold participants' bytes: one page each."""
    with open("/proc/self/smaps", encoding="ascii") as lines:
        text = lines.read()
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M)
    found = []
    for area in areas:
        start, stop = [*area.split(" ", 1)[0].split("-"), "0"][:2]
        if os.environ["ATARAXIS_CONTEXT"] in area and (
            int(stop, 16) - int(start, 16) == 4096
        ):
            found += re.findall(r"VmFlags: (.*)", area)
    return found


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*_at_fork.*")  # of JAX, if it is there
def test_participants_stay_kept_from_children() -> None:
    """A driver that sets and clears MADV_DONTFORK does not reach their page."""
    with fake_driver(keeps_from_children=True), stream() as producer:
        before = flags_of_participants()
        assert before
        assert all(" dc" in flags for flags in before)
        with producer.pin():
            assert all(" dc" in flags for flags in flags_of_participants())
            in_child(lambda: None)
        assert flags_of_participants() == before


# ---- errors


def test_no_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "_is_installed", lambda module: False)
    with stream() as producer, pytest.raises(GpuUnavailable) as raised:
        producer.pin()
    text = str(raised.value)
    assert isinstance(raised.value, AtaraxisError)
    assert "stream 's' cannot be page-locked" in text
    assert "cuda-bindings is not installed; PyTorch is not installed" in text
    assert "ataraxis[gpu]" in text
    assert "leave out pin()" in text


def test_a_driver_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise RuntimeError("libcuda.so.1:\n cannot open")

    monkeypatch.setattr(drivers, "_KINDS", (("PyTorch", "numpy", missing),))
    with stream() as producer, pytest.raises(GpuUnavailable, match=r"PyTorch: libcuda"):
        producer.pin()


@pytest.mark.parametrize(
    ("code", "number", "words"),
    [
        (2, errno.ENOMEM, "ulimit -l"),
        (304, errno.ENOMEM, "memlock"),
        (800, errno.EPERM, "may lock memory"),
        (801, errno.EOPNOTSUPP, "cannot lock memory"),
        (712, errno.EEXIST, "leave it to pin"),
        (999, errno.EIO, "dmesg"),
    ],
)
def test_what_cannot_be_locked_is_told(code: int, number: int, words: str) -> None:
    with fake_driver() as driver, stream() as producer:
        driver.fails["register"] = code
        with pytest.raises(PinError) as raised:
            producer.pin()
        text = str(raised.value)
        assert raised.value.errno == number
        assert "stream 's'" in text
        assert re.search(r"\d+ bytes cannot be page-locked", text)
        assert f"CUDA error {code}" in text
        assert words in text
        # It goes on without, and can be tried again.
        producer.send(FRAME)
        driver.fails.clear()
        with producer.pin() as pin:
            assert pin.is_pinned
        producer.unlink()


def test_an_unlock_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with use_driver(FakePinDriver()) as driver, stream() as producer:
        producer.pin()
        driver.fails["unregister"] = 999
        producer.close()
    assert "CUDA error 999" in caplog.text


def test_a_frame_of_an_unpinned_stream_is_copied_too() -> None:
    with fake_library(), stream() as producer, Consumer("s") as consumer:
        producer.send(FRAME)
        made = consumer.receive().to_torch()
    assert np.array_equal(made.memory, FRAME)
