"""Sessions: one directory for one experiment, recorded, judged, replayed.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module it lives in.
_HOME = {
    "EventStream": "ataraxis.session.events",
    "Output": "ataraxis.session.outputs",
    "OutputRecord": "ataraxis.session.outputs",
    "Preflight": "ataraxis.session.preflight",
    "Provenance": "ataraxis.session.directory",
    "Rig": "ataraxis.session.rig",
    "RigAlarm": "ataraxis.session.alarms",
    "RigHeartbeat": "ataraxis.session.alarms",
    "RigMail": "ataraxis.session.alarms",
    "Session": "ataraxis.session.session",
    "SessionFolder": "ataraxis.session.directory",
    "SessionLoss": "ataraxis.session.stream_recorder",
    "SessionReplay": "ataraxis.session.playback",
    "StreamClock": "ataraxis.session.clocks",
    "StreamVerdict": "ataraxis.session.verdict",
    "Verdict": "ataraxis.session.verdict",
    "around": "ataraxis.session.trials",
    "check": "ataraxis.session.preflight",
    "events_of": "ataraxis.session.trials",
    "finish_sessions": "ataraxis.session.recovery",
    "fit_session": "ataraxis.session.clocks",
    "psth": "ataraxis.session.trials",
    "raster": "ataraxis.session.trials",
    "replay": "ataraxis.session.playback",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.session' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
