"""Workers of the command-line tests: streams that live in other processes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def produce(name: str, ready: Any, stop: Any, **more: Any) -> None:
    """Send frames of 8 bytes, a thousand a second, until stopped."""
    from ataraxis import Producer

    with Producer(name, shape=(2,), dtype="u4", **more) as stream:
        ready.set()
        sent = 0
        while not stop.is_set():
            stream.send(np.full(2, sent, "u4"))
            sent += 1
            time.sleep(0.001)
        stream.unlink()


def consume(name: str, policy: str, label: str, ready: Any) -> None:
    """Receive until the end."""
    from ataraxis import Consumer

    with Consumer(name, policy=policy, label=label, timeout=20) as stream:
        ready.set()
        for frame in stream:
            frame.release()


def consume_durable(name: str, ready: Any) -> None:
    """Receive under a durable name until killed."""
    from ataraxis import Consumer

    with Consumer(name, durable="recorder", timeout=20) as stream:
        ready.set()
        for frame in stream:
            frame.release()


def idle(name: str, ready: Any, stop: Any) -> None:
    """Make a stream, send a frame, and do nothing."""
    from ataraxis import Producer

    with Producer(name, 64, 4) as stream:
        stream.send(b"one")
        ready.set()
        stop.wait()
        stream.unlink()


def hold_array(name: str, ready: Any) -> None:
    """Make an array and live until killed."""
    from ataraxis import SharedMemoryArray

    array = SharedMemoryArray.create_array(name, np.zeros(1000))
    ready.set()
    time.sleep(600)
    array.destroy()
