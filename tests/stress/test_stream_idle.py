"""Who waits and gets nothing costs nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import Program

SHARE = 0.001


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_an_idle_reader_uses_no_processor(
    policy: str, figure: Callable[..., float]
) -> None:
    """Under 0.1 %, over the whole wait, beside other idle readers."""
    code = f"""
    import time
    from ataraxis.stream import Consumer, Producer
    stream = Producer("s", 8, 4)
    others = [Consumer("s") for _ in range(3)]
    consumer = Consumer("s", policy={policy!r})
    consumer.receive(blocking=False)
    began, before = time.monotonic(), time.process_time()
    try:
        consumer.receive(timeout={figure(60, 15)})
    except TimeoutError:
        used = time.process_time() - before
        print(used / (time.monotonic() - began))
    stream.unlink()
    """
    with Program(code) as program:
        share = float(program.succeed(90))
    print(f"{share:.4%}")
    assert share < SHARE
