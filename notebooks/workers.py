"""Functions that the notebooks run in other processes.

A new process imports its function by the name of its module. A function that is typed
into a notebook is in ``__main__``, which the new process cannot import: so these are in a
file beside the notebooks.
"""

from __future__ import annotations

import time
from collections import deque
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import numpy as np

from ataraxis import Consumer, Producer, SharedMemoryArray


def track(pose: SharedMemoryArray, steps: int) -> None:
    """Write a new position of the first mouse, `steps` times."""
    for step in range(1, steps + 1):
        pose[0] = [step, 2 * step, 3 * step]
        time.sleep(0.05)


def count(counts: SharedMemoryArray, times: int) -> None:
    """Add 1 to the first element, `times` times."""
    for _ in range(times):
        counts.add(0, 1)


def begin_to_write(pose: SharedMemoryArray, is_half_way: Event) -> None:
    """Write half of the array, then sleep inside the write."""
    with pose.array() as view:
        view[:2] = -1
        is_half_way.set()
        time.sleep(60)


def film(frames: int) -> None:
    """Send images of a bright column that moves to the right, 200 a second."""
    camera = Producer(
        "camera",
        shape=(48, 64),
        dtype="u1",
        dims=("y", "x"),
        attrs={"rate_hz": 200},
        buffer_count=16,
    )
    with camera:
        camera.wait_for_subscribers(2, timeout=20)
        for n in range(frames):
            with camera.next_to_send() as frame:
                frame.array[...] = 10
                frame.array[:, n % 64] = 255
            time.sleep(0.005)


def digitize(seconds: float) -> None:
    """Send two sines and a ramp, 1000 samples a second, in blocks of 50."""
    board = Producer(
        "daq",
        shape=(3,),
        dtype="f4",
        dims=("channel",),
        coords={"channel": ["theta", "gamma", "ramp"]},
        attrs={"rate_hz": 1000, "units": "mV"},
        buffer_seconds=5,
    )
    with board:
        board.wait_for_subscribers(1, timeout=20)
        began = time.monotonic_ns()
        for first in range(0, int(seconds * 1000), 50):
            t = np.arange(first, first + 50) * 1e-3
            columns = np.sin(2 * np.pi * 8 * t), np.sin(2 * np.pi * 40 * t), t
            block = np.stack(columns, axis=1).astype("f4")
            board.send_block(block, time_ns=began + first * 10**6, step_ns=10**6)
            time.sleep(0.05)


def find_beats(name: str, results: Connection) -> None:
    """Find the beats of an ECG stream while it runs; send their times, s, at the end.

    A beat is where the slope's energy, over 80 ms, rises above a third of that of recent
    beats; its time is where the signal is farthest from its mean within 150 ms. No two
    are closer than 250 ms.
    """
    reader = Consumer(name, policy="lossless", timeout=20)
    results.send("ready")
    rate = reader.labels.attrs["rate_hz"]
    window, look, rest = (round(s * rate) for s in (0.08, 0.15, 0.25))
    recent: deque[tuple[float, float]] = deque(maxlen=2 * look)
    slopes: deque[float] = deque(maxlen=window)
    beats: list[float] = []
    energy = peak = mean = 0.0
    left, wait = -1, 0
    for frame in reader:
        value = float(frame.array[0])
        mean += (value - mean) / rate
        recent.append((frame.device_time * 1e-9, value - mean))
        slope = value - recent[-5][1] - mean if len(recent) > 4 else 0.0
        energy += slope**2 - (slopes[0] if len(slopes) == window else 0.0)
        slopes.append(slope**2)
        peak = max(energy, peak * (1 - 0.1 / rate))
        wait -= 1
        left -= 1
        if left < 0 and wait <= 0 and energy > peak / 3 and len(recent) == 2 * look:
            left, wait = look // 2, rest
        elif left == 0:
            beats.append(max(recent, key=lambda sample: abs(sample[1]))[0])
    reader.close()
    results.send(beats)


def log_entries(queue, source):
    """Log 500 entries; the stamps count up, the payload is the number."""
    from ataraxis import LogPackage

    for number in range(500):
        payload = np.array([number], np.int64).view(np.uint8)
        queue.put(LogPackage(source, number, payload))


def square(value: int) -> int:
    """Return the square, after 1 ms of work."""
    time.sleep(0.001)
    return value * value


def add_one(value: int) -> int:
    """Return the next number."""
    return value + 1
