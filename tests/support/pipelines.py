"""Pipes that tests of pipelines make."""

from __future__ import annotations

from typing import Any

from ataraxis.pipeline import Pipe, Processor


def chain(*stages: Processor, name: str = "p", **keywords: Any) -> Pipe:
    """Return a pipe of processors, one behind the other."""
    pipe = Pipe(name, **keywords)
    last = pipe.add(stages[0])
    for stage in stages[1:]:
        last = last.add(stage)
    return pipe
