"""DataMux: recordings, live sources and models as streams.

``import ataraxis.datamux as dm`` replaces ``import streaminghub_datamux as dm``.
Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the file it lives in.
_HOME = {
    "API": "api",
    "Author": "description",
    "Block": "block",
    "Collection": "description",
    "Device": "description",
    "END_OF_STREAM": "end",
    "End": "end",
    "Enveloper": "streaminghub.util",
    "Faults": "simulation",
    "Field": "description",
    "Group": "description",
    "Flag": "streaminghub.util",
    "JournalSink": "sinks.journal",
    "LabelledBlock": "block",
    "Limits": "remote.gate",
    "LslOutlet": "sources.lsl",
    "Mirror": "remote.mirror",
    "Node": "description",
    "Queue": "streaminghub.util",
    "Recording": "recording",
    "RemoteAPI": "remote.api",
    "RemoteTimeline": "remote.api",
    "STAMP": "source",
    "Server": "remote.server",
    "Settings": "streaminghub.util",
    "Simulation": "simulation",
    "Source": "source",
    "Stream": "description",
    "StreamAck": "task",
    "Task": "task",
    "Timeline": "timeline",
    "create_flag": "streaminghub.util",
    "envelope": "streaminghub.util",
    "gen_randseq": "streaminghub.util",
    "identity": "task",
    "open_recordings": "formats",
    "prefix": "streaminghub.util",
    "producer_of": "sinks.stream",
    "sleep": "streaminghub.util",
    "write_nwb": "sources.nwb",
    "write_xdf": "sources.xdf",
    "xdf_fits": "sources.xdf",
}

__all__ = sorted([*_HOME, "util"])


def __getattr__(name: str) -> Any:
    if name == "util":
        return importlib.import_module("ataraxis.datamux.util")
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.datamux' has no attribute {name!r}")
    module = importlib.import_module(f"ataraxis.datamux.{_HOME[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
