"""Share, stream, record, replay and process arrays between laboratory programs.

Each name is loaded from its room on first use (PEP 562): ``import ataraxis`` is cheap.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_system = sys.platform  # a variable: type checkers on other systems read on
if _system != "linux":
    _system = {"win32": "Windows", "darwin": "macOS"}.get(_system, _system)
    raise ImportError(
        f"ataraxis runs on Linux only: this is {_system}. Use a Linux machine, a "
        "container, or WSL 2"
    )

# Public name -> the module it lives in. One line a name.
_HOME = {
    "SharedMemoryArray": "ataraxis.shm.array",
    "attach": "ataraxis.shm.attach",
    "freeze_support": "ataraxis.shm.process",
    "FrameBufferServer": "ataraxis.framebuffer.server",
    "FrameBufferClient": "ataraxis.framebuffer.client",
    "FrameBufferTimeout": "ataraxis.errors",
    "Producer": "ataraxis.stream",
    "Consumer": "ataraxis.stream",
    "MemQ": "ataraxis.stream",
    "YamlConfig": "ataraxis.config",
    "DataLogger": "ataraxis.log.logger",
    "LogPackage": "ataraxis.log.npy.package",
    "compress_npy_logs": "ataraxis.log.npy.archiving",
    "assemble_log_archives": "ataraxis.log.npy.archiving",
    "LogArchive": "ataraxis.log.archive",
    "Recorder": "ataraxis.log.recorder",
    "API": "ataraxis.datamux.api",
    "RemoteAPI": "ataraxis.datamux.remote.api",
    "END_OF_STREAM": "ataraxis.datamux.end",
    "DType": "ataraxis.frame",
    "DataFrame": "ataraxis.pipeline",
    "Pipe": "ataraxis.pipeline.pipe",
    "Processor": "ataraxis.pipeline.processors",
    "Session": "ataraxis.session.session",
    "replay": "ataraxis.session.playback",
    "around": "ataraxis.session.trials",
    "view": "ataraxis.viewer.view",
    "overview": "ataraxis.viewer.overview",
    "report": "ataraxis.viewer.report",
    "plot": "ataraxis.viewer.plot",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use."""
    if name == "__version__":
        value = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'ataraxis' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_HOME, "__version__"})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ataraxis")
    except metadata.PackageNotFoundError:
        raise AttributeError(
            "ataraxis has no __version__: it is imported from its source folder and is "
            "not installed. 'pip install .' installs it"
        ) from None
