"""Calling something in another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def in_thread(function: Callable[[], Any]) -> Any:
    """Call it in another thread, and give what it gave."""
    results: list[Any] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(timeout=30)
    assert results, "the thread hangs"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]
