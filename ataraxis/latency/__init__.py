"""``ataraxis latency``: how long an event takes, measured between real processes.

`ataraxis.latency.bench` starts the processes and reads their stamps; `ring` and `call`
are these processes, `loops` the devices, `load` what goes on meanwhile.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module it lives in.
_HOME = {
    "LatencyBench": "ataraxis.latency.bench",
    "LatencyResult": "ataraxis.latency.bench",
    "LoadReport": "ataraxis.latency.load",
    "draw": "ataraxis.latency.picture",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.latency' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
