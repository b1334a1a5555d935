"""Interrupts at random moments, as they come: real signals, and of another thread."""

from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from injection import Injected

from ataraxis import LogArchive, Producer, Recorder
from ataraxis.shm.thread import Latch

SOON_S = 5.0


class Interrupt(BaseException):
    """What the signal's handler raises."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise in the main thread after some time; nothing is left of it afterwards."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except Interrupt:
        pass
    finally:
        with contextlib.suppress(Interrupt):
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_real_signals_at_random_moments_leave_no_recorder_behind(
    tmp_path: Path, figure: Callable[..., float]
) -> None:
    rng, came = random.Random(3), 0
    for k in range(int(figure(400, 12))):
        producer = Producer(f"real{k}", shape=(8,), dtype="u1")
        recorder = Recorder(producer.name, tmp_path / str(k))
        producer.send(np.zeros(8, "u1"))
        with alarm(rng.uniform(1e-5, 4e-3)):
            while True:
                recorder.wait(0.001)
        came += 1
        began = time.monotonic()
        recorder.stop()
        assert time.monotonic() - began < SOON_S
        assert not producer.statistics().readers
        with contextlib.closing(LogArchive(tmp_path / str(k))) as archive:
            assert len(archive.read(producer.name).data) == 1
        producer.unlink()
    assert came >= 12


def test_an_exception_from_another_thread_leaves_a_flag_usable(
    figure: Callable[..., float],
) -> None:
    """`PyThreadState_SetAsyncExc`, as tools that cancel a cell of a notebook use it."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    rng, came = random.Random(4), 0
    for _ in range(int(figure(2000, 40))):
        flag, over = Latch(), Latch()

        def work(flag: Latch = flag, over: Latch = over) -> None:
            with contextlib.suppress(Injected):
                while True:
                    flag.wait(1e-5)
            over.set()

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(rng.uniform(0, 1e-3))
        came += raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Injected))
        assert over.wait(SOON_S)
        thread.join()
        flag.set()
        assert flag.wait(SOON_S)
    assert came >= 40
