"""The kinds of live sources: built in, and of plug-ins, looked up at first use."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from dataclasses import asdict, dataclass
from typing import Any, cast

from ataraxis.datamux.catalog import pick
from ataraxis.datamux.source import Driver
from ataraxis.errors import ConfigWarning

GROUP = "ataraxis.sources"


@dataclass(frozen=True)
class SourceKind:
    """A kind of source."""

    name: str
    """Its name, which is also the scheme of its nodes' uri."""
    summary: str
    """What it reads."""
    home: str
    """``module:class`` of its driver."""
    package: str = ""
    """The module it needs; empty: none."""
    install: str = ""
    """What to type to have it."""

    @property
    def is_here(self) -> bool:
        """Whether what it needs is installed; nothing is imported."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def driver(self) -> Driver:
        """Load the driver."""
        module, _, name = self.home.partition(":")
        return cast(Driver, getattr(importlib.import_module(module), name)())

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "is_here": self.is_here}


def _built_in(name: str, summary: str, kind: str, package: str = "") -> SourceKind:
    home = f"ataraxis.datamux.sources.{name}:{kind}"
    install = f'pip install "ataraxis[{name}]"' if package else ""
    return SourceKind(name, summary, home, package, install)


# Linux says by itself what telemetry asks.
_HOST = "" if os.path.exists("/proc/stat") else "psutil"
BUILT_IN = {
    kind.name: kind
    for kind in (
        _built_in("camera", "cameras and video files", "Cameras", "cv2"),
        _built_in("recording", "recordings, played as if live", "Recorded"),
        _built_in("lsl", "the Lab Streaming Layer", "Lsl", "pylsl"),
        _built_in("serial", "boards on a serial line", "Serial", "serial"),
        _built_in("shared", "streams of ataraxis in this context", "Shared"),
        _built_in("sim", "simulated streams", "Simulated"),
        _built_in("telemetry", "this machine itself", "Telemetry", _HOST),
    )
}
"""The kinds that come with ataraxis, by name."""


def kinds() -> dict[str, SourceKind]:
    """Return every kind of source by name: built in, and of installed plug-ins.

    A plug-in of a built-in name is left out with a warning.
    """
    found = dict(BUILT_IN)
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in BUILT_IN:
            warnings.warn(
                f"plug-in {point.value} is left out: {point.name!r} is built in",
                ConfigWarning,
                stacklevel=2,
            )
            continue
        of = point.dist.name if point.dist is not None else "a plug-in"
        found[point.name] = SourceKind(point.name, f"from {of}", point.value)
    return dict(sorted(found.items()))


def kind_of(name: str) -> SourceKind:
    """Return the kind of a name.

    Raises
    ------
    SourceNotFound
        There is none.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    return cast(SourceKind, pick(kinds(), name, "kind of source", "ataraxis sources"))
