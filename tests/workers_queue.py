"""Workers of the queue tests; run by spawn, fork, forkserver or a `Zygote`."""

from __future__ import annotations

from typing import Any


def echo(questions: Any, answers: Any) -> None:
    """Answer each value with itself until None comes."""
    while (value := questions.get(timeout=30)) is not None:
        answers.put(value)


def use_inherited(questions: Any, answers: Any) -> None:
    """Use handles that a fork has copied, without their being passed."""
    echo(questions, answers)
    questions.close()
    answers.close()
