"""The tasks of an API: started, found by id, stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from ataraxis.datamux.ack import StreamAck
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.sink import Sink
from ataraxis.datamux.task import Deliver, Feed, Task
from ataraxis.datamux.util import gen_randseq, prefix

_REMEMBERED = 4096


class Tasks:
    """Starts tasks and remembers them; a part of `API`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()

    def stop_task(self, randseq: str) -> StreamAck:
        """Stop a task; its sink gets an end whose reason is 'stopped'.

        Stopping what has ended is fine.

        Raises
        ------
        SourceNotFound
            No task has that id.
        """
        with self._lock:
            task: Task = pick(self._tasks, randseq, "task", "this API")
        return StreamAck(task.stop(), randseq, task)

    def forget(self, randseq: str) -> None:
        """Let go of a task, and of the recording it holds; it goes on if it runs."""
        with self._lock:
            self._tasks.pop(randseq, None)

    def stop(self) -> None:
        """Stop every task of this API."""
        with self._lock:
            tasks = [*self._tasks.values()]
        for task in tasks:
            task.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop every task."""
        self.stop()

    def _start(
        self,
        feed: Feed,
        sink: Sink,
        deliver: Deliver,
        transform: Callable[[Any], Any],
    ) -> StreamAck:
        return self._begin(Task(prefix + gen_randseq(), feed, sink, deliver, transform))

    def _begin(self, task: Task) -> StreamAck:
        with self._lock:
            self._forget()
            self._tasks[task.randseq] = task
        task.start()
        return StreamAck(True, task.randseq, task)

    def _forget(self) -> None:
        """Keep only so many tasks that have ended, so that memory is bounded."""
        ended = [key for key, task in self._tasks.items() if task.is_done]
        for key in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._tasks[key]
