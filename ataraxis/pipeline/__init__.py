"""Pipelines: functions in worker processes, joined by queues into a graph.

``from ataraxis.pipeline import Processor, Pipe, DType`` replaces ``from upipe import
...``. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> its module.
_HOME = {
    "APIProcSettings": "ataraxis.pipeline.upipe",
    "DType": "ataraxis.frame",
    "DataFrame": "ataraxis.frame",
    "Engine": "ataraxis.pipeline.engine",
    "Event": "ataraxis.pipeline.supervisor",
    "Host": "ataraxis.pipeline.placement",
    "Local": "ataraxis.pipeline.engine",
    "MemQ": "ataraxis.stream",
    "MemQueue": "ataraxis.stream",
    "Pipe": "ataraxis.pipeline.pipe",
    "PipeError": "ataraxis.errors",
    "Processor": "ataraxis.pipeline.processors",
    "ProcessorError": "ataraxis.errors",
    "Restart": "ataraxis.pipeline.settings",
    "Run": "ataraxis.pipeline.run",
    "Worker": "ataraxis.pipeline.upipe",
    "processor": "ataraxis.pipeline.processors",
    "register_data_type": "ataraxis.frame",
    "types": "ataraxis.pipeline.upipe",
}
_OTHER_NAME = {"DataFrame": "Frame", "MemQueue": "MemQ"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.pipeline' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    # In uPipe, `types` is a module.
    value = module if name == "types" else getattr(module, _OTHER_NAME.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *_HOME})
