"""From the ring to a reader: one process sends events, another receives them.

Back to back, the reader answers each event through a second stream, and the next one is
sent then: an event never waits behind another.
"""

from __future__ import annotations

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.latency.task import (
    SENT,
    START_S,
    STARTED,
    EventSchedule,
    LatencyTask,
    StampFile,
    taking_part,
)
from ataraxis.stream import Consumer, Producer

EVENTS, ANSWERS = "latency", "latency-answers"


def send(text: str) -> None:
    """Run the process that sends; the entry of `ataraxis.shm.process`."""
    with taking_part(text) as task:
        stamps = StampFile(task.stamps)
        with (
            Producer(EVENTS, shape=(1,), dtype="i8", context=task.context) as producer,
            Consumer(
                ANSWERS, policy="lossless", timeout=START_S, context=task.context
            ) as answers,
        ):
            _answered(answers, START_S)  # the reader has joined
            if task.rate_hz is None:
                _back_to_back(task, stamps, producer, answers)
            else:
                _at_rate(task, task.rate_hz, stamps, producer)


def _answered(answers: Consumer, timeout: float) -> None:
    """Wait for an answer of the reader."""
    frame = answers.receive(timeout=timeout)
    if frame is None:
        raise ValueError("the reader has ended")
    frame.release()


def _back_to_back(
    task: LatencyTask, stamps: StampFile, producer: Producer, answers: Consumer
) -> None:
    words, event, deadline = stamps.words, np.zeros(1, np.int64), task.deadline_s
    words[STARTED] = now_ns()
    for k in range(task.events):
        producer.send(event, timeout=deadline)
        words[SENT] = k + 1
        _answered(answers, deadline)


def _at_rate(
    task: LatencyTask, rate_hz: float, stamps: StampFile, producer: Producer
) -> None:
    words, event, deadline = stamps.words, np.zeros(1, np.int64), task.deadline_s
    schedule = EventSchedule(rate_hz)
    words[STARTED] = schedule.begin()
    for k in range(task.events):
        schedule.wait(k)
        producer.send(event, timeout=deadline)
        words[SENT] = k + 1


def read(text: str) -> None:
    """Run the process that receives; the entry of `ataraxis.shm.process`."""
    with taking_part(text) as task:
        stamps, event = StampFile(task.stamps), np.zeros(1, np.int64)
        sent, received, deadline = stamps.sent, stamps.received, task.deadline_s
        is_answered = task.rate_hz is None
        with (
            Producer(
                ANSWERS, shape=(1,), dtype="i8", sync=True, context=task.context
            ) as answers,
            Consumer(
                EVENTS, policy="lossless", timeout=START_S, context=task.context
            ) as events,
        ):
            answers.send(event)
            while (frame := events.receive(timeout=deadline)) is not None:
                arrived_ns, k = now_ns(), frame.sequence
                received[k], sent[k] = arrived_ns, frame.time_ns
                frame.release()
                if is_answered:
                    answers.send(event, timeout=deadline)
