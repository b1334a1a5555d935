"""A process that waits and gets nothing costs nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import Program

SHARE = 0.001
WAKES_HZ = 3  # looks for the dead: two a second, and some more at first
CODE = """
import resource, time
from ataraxis.stream import Consumer, Producer

def cost(wait):
    began, used = time.monotonic(), time.process_time()
    wakes = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    wait()
    wakes = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - wakes
    return time.process_time() - used, wakes, time.monotonic() - began

def wait():
    try:
        consumer.receive(timeout={seconds})
    except TimeoutError:
        pass

stream = Producer("s", 8, 4)
others = [Consumer("s") for _ in range(3)]
consumer = Consumer("s", policy={policy!r})
consumer.receive(blocking=False)
used, wakes, seconds = cost(wait)
bare, naps, _ = cost(lambda: [time.sleep(0.25) for _ in range(20)])
stream.unlink()
print(used / seconds, wakes / seconds, used / wakes, bare / naps)
"""


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_an_idle_reader_uses_no_processor(
    policy: str, figure: Callable[..., float]
) -> None:
    """Under 0.1 %, over the whole wait, beside other idle readers.

    Where the machine itself takes longer than that to wake anybody (a virtual one that
    pages out what is idle: 2 ms for a bare sleep), each wake-up costs no more than
    twice a bare one. What else runs only adds to it: the least of three waits counts.
    """
    for _ in range(3):
        with Program(CODE.format(policy=policy, seconds=figure(60, 15))) as program:
            numbers = map(float, program.succeed(120).split())
        share, wakes_hz, wake_s, bare_s = numbers
        print(f"{share:.4%}, {wakes_hz:.1f} wakes/s of {wake_s * 1e6:.0f} us,", end=" ")
        print(f"a bare one {bare_s * 1e6:.0f} us")
        assert wakes_hz < WAKES_HZ
        if share < SHARE or wake_s < 2 * bare_s:
            return
    pytest.fail("more than 0.1 % of a processor, three times")
