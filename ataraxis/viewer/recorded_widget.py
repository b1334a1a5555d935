"""Widget of a recording: the panels of its page, in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ataraxis.log.optional import need
from ataraxis.viewer.recorded_page import RecordedPump
from ataraxis.viewer.widget import LOADER, MODULES, KernelFeed, modules, sheet

_OWN = (
    "strips", "times", "navigator", "recorded_traces", "recording", "recorded_widget",
)  # fmt: skip
_SHEET = """
.widget.recorded { height: 680px; }
.widget.recorded:focus-visible { outline: 2px solid var(--accent); }
.widget.recorded .panel { height: auto; }
.widget.recorded main { padding: 0; }
@media (max-width: 1120px) {
  .widget.recorded { height: auto; }
  .widget.recorded #view, .widget.recorded main { flex: none; }
  .widget.recorded .column { flex: none; }
}
"""


def make_recorded_widget(path: str, streams: Sequence[str], fps: float) -> Any:
    """Return a widget of anywidget that shows a recording.

    Raises `ModuleNotFoundError` if the extra ``ataraxis[notebook]`` is not installed,
    and `FileNotFoundError` if the path has no log.
    """
    anywidget = need("anywidget", "notebook", "a recording in a notebook")
    traitlets = need("traitlets", "notebook", "a recording in a notebook")
    pump = RecordedPump(path)
    fields = {
        "_esm": LOADER.replace("links.widget", "links.recorded_widget"),
        "modules": traitlets.List(modules([*MODULES, *_OWN])).tag(sync=True),
        "sheet": traitlets.Unicode(sheet() + _SHEET).tag(sync=True),
        "streams": traitlets.List(list(streams)).tag(sync=True),
    }
    widget = type("AtaraxisRecording", (anywidget.AnyWidget,), fields)()
    feed = KernelFeed(widget, pump, fps)
    widget.on_msg(feed.hear)
    widget.feed = feed
    return widget
