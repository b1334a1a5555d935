"""Through a pipe and back: a process calls a plain function in a worker of a pipe.

With a loop, the result also goes to a device, and the event is over when it has come
back from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.latency.loops import DeviceLoop, loop_of
from ataraxis.latency.task import (
    RESTARTS,
    SENT,
    START_S,
    STARTED,
    EventSchedule,
    LatencyTask,
    StampFile,
    taking_part,
)
from ataraxis.pipeline import Pipe, Processor
from ataraxis.pipeline.engine import Child, Local
from ataraxis.pipeline.spec import WorkerSpec

_MISSED = 3
"""So many events in a row that do not come back end the measurement."""


def answer(event: int) -> int:
    """Return an event as it is: the plain function of the worker.

    Examples
    --------
    >>> answer(7)
    7
    """
    return event


class PinnedEngine(Local):
    """Start workers on given CPUs.

    Examples
    --------
    >>> from ataraxis.pipeline import Pipe, Processor
    >>> pipe = Pipe("doc_pinned")
    >>> _ = pipe.add(Processor("cpus", func=lambda _: len(os.sched_getaffinity(0))))
    >>> with PinnedEngine([min(os.sched_getaffinity(0))]) as engine:
    ...     list(pipe.map([0], engine=engine))
    [1]
    """

    def __init__(self, cpus: Any) -> None:
        super().__init__()
        self._cpus = cpus

    def spawn(self, host: str, spec: WorkerSpec) -> Child:
        """Start a worker; it inherits the CPUs of the thread that starts it."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus)
        try:
            return super().spawn(host, spec)
        finally:
            os.sched_setaffinity(0, before)


def call(text: str) -> None:
    """Run the process that calls; the entry of `ataraxis.shm.process`."""
    with taking_part(text) as task, ExitStack() as stack:
        stamps = StampFile(task.stamps)
        loop = loop_of(task)
        if loop is not None:
            stack.callback(loop.close)
        engine = PinnedEngine(task.worker_cpus or os.sched_getaffinity(0))
        pipe = Pipe("latency", context=task.context)
        pipe.add(Processor("answer", func=answer))
        with engine, pipe.run(engine=engine) as run:
            run.wait_until_ready(START_S)
            try:
                _exchange(task, stamps, run.call, loop)
            finally:
                restarts = run.statistics()["restarts"].sum()
                stamps.words[RESTARTS] = int(restarts)
            run.stop()


def _exchange(
    task: LatencyTask,
    stamps: StampFile,
    call: Callable[..., Any],
    loop: DeviceLoop | None,
) -> None:
    words, sent, received = stamps.words, stamps.sent, stamps.received
    deadline = task.deadline_s
    schedule = None if task.rate_hz is None else EventSchedule(task.rate_hz)
    words[STARTED] = now_ns() if schedule is None else schedule.begin()
    missed = 0
    for k in range(task.events):
        if schedule is not None:
            schedule.wait(k)
        sent[k] = now_ns()
        result = call(k, timeout=deadline)
        if loop is None or loop.exchange(result):
            received[k] = now_ns()
            missed = 0
        else:
            missed += 1
        words[SENT] = k + 1
        if loop is not None and missed == _MISSED:
            raise TimeoutError(loop.silence(_MISSED))
