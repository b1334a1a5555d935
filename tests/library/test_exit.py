"""A program ends while a daemon thread waits: nothing printed, nothing left."""

from __future__ import annotations

from pathlib import Path

import programs
import pytest

FRAME = """
import threading, time
import numpy as np
from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray
{make}
def run():
    begun.set()
    {wait}
begun = threading.Event()
threading.Thread(target=run, daemon=True).start()
begun.wait()
time.sleep({pause})
"""
STREAM = "p = Producer('s', 64, 4); c = Consumer('s')"
FULL = STREAM.replace("4)", "4, sync=True)") + "; [p.send(b'x') for _ in '1234']"
TYPED = "p = Producer('s', shape=(2,), dtype='f4'); c = Consumer('s')"
QUEUE = "q = MemQ('q', buffer_count=2, buffer_size=64)"
ARRAY = "a = SharedMemoryArray.create_array('a', np.zeros(3))"
WAITS = {
    "for frame in consumer": (STREAM, "[frame for frame in c]"),
    "receive": (STREAM, "c.receive()"),
    "read": (TYPED, "c.read(5)"),
    "is_alive": (STREAM, "c.is_alive"),
    "send": (FULL, "p.send(b'x')"),
    "await receive": (
        "import asyncio; " + STREAM, "asyncio.run(c.receive_async())"
    ),
    "get": (QUEUE, "q.get()"),
    "put": (QUEUE + "; q.put(1); q.put(2)", "q.put(3)"),
    "lease": (QUEUE, "with q.lease() as value: pass"),
    "wait_for_change": (ARRAY, "a.wait_for_change()"),
    "acquire": (ARRAY + "; a.lock.acquire()", "a.lock.acquire()"),
    "caught": (STREAM, "\n    try: c.receive()\n    except Exception as e: print(e)"),
}  # fmt: skip


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["at once", "asleep"])
def test_a_daemon_thread_that_waits_is_silent_at_the_end(
    what: str, pause: float, context: Path
) -> None:
    make, wait = WAITS[what]
    printed = programs.run(FRAME.format(make=make, wait=wait, pause=pause), warnings="")
    assert printed == ""
    # A segment with undelivered frames stays on purpose.
    kept = ["q"] if what == "put" else ["s"] if what == "send" else []
    left = sorted(path.name for path in context.iterdir())
    assert left == kept
    for name in left:
        (context / name).unlink()


def test_in_the_main_thread_a_closed_handle_is_still_an_error() -> None:
    printed = programs.run("""
        import atexit
        from ataraxis import Consumer, Producer
        def last():
            try:
                consumer.receive(blocking=False)
            except ConnectionError as error:
                print("closed" in str(error))
        atexit.register(last)
        producer = Producer("s", 64, 4)
        consumer = Consumer("s")
        """)
    assert printed == "True\n"
