"""Cluster: this host, the others of the lab, and the streams mirrored between them.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> its module.
_HOME = {
    "Agent": "ataraxis.cluster.agent",
    "Cluster": "ataraxis.cluster.engine",
    "Hosts": "ataraxis.link.hosts",
    "Mirror": "ataraxis.cluster.mirror",
    "MirrorStatistics": "ataraxis.cluster.status",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.cluster' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *_HOME})
