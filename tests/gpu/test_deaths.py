"""Processes that die with pins and copies: the others go on, with whole frames."""

from __future__ import annotations

import numpy as np
import programs
import pytest
from programs import Program

from ataraxis import Consumer, Producer

CONSUMER = """
import sys, time
from ataraxis import Consumer
from ataraxis.gpu.drivers import use_driver
from ataraxis.gpu.libraries import use_library
from ataraxis.testing.gpu import FakeLibrary, FakePinDriver
library = FakeLibrary()
library.stop()
with use_driver(FakePinDriver()), use_library("torch", library):
    consumer = Consumer("s", policy=sys.argv[1])
    consumer.pin()
    made = [consumer.receive().to_torch() for _ in range(3)]
    print("copying", flush=True)
    time.sleep(60)
"""

PRODUCER = """
import sys, threading, time
import numpy as np
from ataraxis import Producer
from ataraxis.gpu.drivers import use_driver
from ataraxis.gpu.libraries import use_library
from ataraxis.testing.gpu import FakeDeviceArray, FakeLibrary, FakePinDriver
library = FakeLibrary()
with use_driver(FakePinDriver()), use_library("ataraxis", library):
    producer = Producer("s", shape=(8,), dtype="i4", buffer_count=4, resume=True)
    producer.pin()
    for k in range(2):
        producer.send(FakeDeviceArray(np.full(8, k, "i4"), "cuda:0"))
    library.stop()
    value = FakeDeviceArray(np.full(8, 99, "i4"), "cuda:0")
    threading.Thread(target=producer.send, args=(value,), daemon=True).start()
    while library.calls[-2:] != ["copy_back", "mark"] or len(library.calls) < 6:
        time.sleep(0.001)
    print("copying", flush=True)
    time.sleep(60)
"""


def frame_of(k: int) -> np.ndarray:
    return np.full(8, k, "i4")


def stream(**options) -> Producer:
    return Producer("s", shape=(8,), dtype="i4", buffer_count=4, **options)


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_a_consumer_is_killed_while_its_gpu_reads(policy: str) -> None:
    with stream() as producer:
        with Program(CONSUMER, policy) as program:
            producer.wait_for_subscribers(1, timeout=30)
            for k in range(4):
                producer.send(frame_of(k), timeout=30)
                if policy == "latest":  # else it skips to the last one
                    programs_wait(producer, k + 1)
            program.expect("copying")
            program.process.kill()
            program.process.wait(30)
            with Consumer("s", policy="lossless", start="latest") as other:
                for k in range(20):
                    assert producer.send(frame_of(k), timeout=30)
                    assert np.array_equal(other.receive(timeout=30).array, frame_of(k))
        producer.unlink()


def programs_wait(producer: Producer, count: int) -> None:
    """Wait until the program has received so many, or three."""
    from deadline import wait_until

    wait_until(
        lambda: any(
            reader.received >= min(count, 3) for reader in producer.statistics().readers
        ),
        timeout=30,
    )


def test_a_producer_is_killed_while_its_gpu_writes() -> None:
    with Program(PRODUCER) as program:
        program.expect("copying")
        with Consumer("s", policy="lossless", start="oldest") as consumer:
            for k in range(2):
                assert np.array_equal(consumer.receive(timeout=30).array, frame_of(k))
            program.process.kill()
            program.process.wait(30)
            with stream(resume=True) as producer:
                for k in range(2, 12):
                    producer.send(frame_of(k), timeout=30)
                    found = consumer.receive(timeout=30)
                    assert (found.sequence, int(found.array[0])) == (k, k)
                    del found
                producer.unlink()


def test_a_program_ends_with_a_copy_under_way() -> None:
    """It waits for the copy, and unlocks the pages then."""
    printed = programs.run("""
        import atexit, threading
        import numpy as np
        from ataraxis import Consumer, Producer
        from ataraxis.gpu.drivers import use_driver
        from ataraxis.gpu.libraries import use_library
        from ataraxis.testing.gpu import FakeLibrary, FakePinDriver
        driver, library = FakePinDriver(), FakeLibrary()
        managers = use_driver(driver), use_library("torch", library)
        for manager in managers:
            manager.__enter__()
        @atexit.register
        def report():
            print(made.memory.tolist(), [name for _, name, _ in driver.calls])
        producer = Producer("s", shape=(3,), dtype="i4")
        consumer = Consumer("s")
        consumer.pin()
        producer.send(np.arange(3, dtype="i4"))
        library.stop()
        made = consumer.receive().to_torch()
        threading.Timer(0.2, library.go).start()
        """)
    assert printed == "[0, 1, 2] ['register', 'unregister']\n"


def test_a_program_ends_though_a_gpu_hangs() -> None:
    printed = programs.run("""
        import atexit, logging
        import numpy as np
        import ataraxis.gpu.pins as pins
        from ataraxis import Consumer, Producer
        from ataraxis.gpu.drivers import use_driver
        from ataraxis.gpu.libraries import use_library
        from ataraxis.testing.gpu import FakeLibrary, FakePinDriver
        pins.EXIT_S = 0.2
        logging.disable()
        driver, library = FakePinDriver(), FakeLibrary()
        managers = use_driver(driver), use_library("torch", library)
        for manager in managers:
            manager.__enter__()
        atexit.register(lambda: print([name for _, name, _ in driver.calls]))
        producer = Producer("s", shape=(3,), dtype="i4")
        consumer = Consumer("s", policy="lossy")
        consumer.pin()
        producer.send(np.arange(3, dtype="i4"))
        library.stop()
        made = consumer.receive().to_torch()
        producer.unlink()
        """)
    assert printed == "['register']\n", "pages that are read are not unlocked"
