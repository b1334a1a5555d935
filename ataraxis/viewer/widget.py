"""Widget: a view within a notebook, by messages of the kernel, without a port.

The page's own modules are sent as a dict; a loader makes a link of each, so that there
is one source of them, and no bundler.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ataraxis.errors import BadMessage
from ataraxis.log.optional import need
from ataraxis.shm.context import ContextLike
from ataraxis.viewer.door import STATIC
from ataraxis.viewer.page import Page
from ataraxis.viewer.pump import WATCH_S, Pump
from ataraxis.viewer.recorded_page import RecordedPage, RecordedPump

MODULES = ("words", "theme", "maps", "bundle", "hosts", "traces", "picture", "widget")
"""Modules of the widget, each after those that it imports."""
_IMPORT = re.compile(r'from "\./(\w+)\.js"')
_SHEET = """
.widget { display: flex; flex-flow: row wrap; gap: 8px; padding: 8px; min-height: 0;
  background: var(--page); color: var(--ink); border-radius: 10px;
  font: 14px/1.4 system-ui, sans-serif; }
.widget .panel { height: 380px; flex: 8 1 420px; }
.widget .panel.picture { flex: 3 1 300px; }
.widget .panel.hosts { height: auto; flex: 0 0 100%; order: 1; max-height: 300px; }
.widget .bar { flex: 0 0 100%; display: flex; }
.widget #verdict { margin: 0; }
"""

# Each module becomes a link, once those that it imports have one.
LOADER = """
export default async () => {
  let widget;
  return {
    async initialize({model}) {
      const links = {};
      for (const [name, text] of model.get("modules")) {
        const code = text.replace(/from "\\.\\/(\\w+)\\.js"/g,
          (_, other) => `from "${links[other]}"`);
        links[name] = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
      }
      widget = await import(links.widget);
    },
    render: context => widget.render(context),
  };
};
"""


def modules(names: Sequence[str] = MODULES) -> list[tuple[str, str]]:
    """Return names and texts of a widget's modules, in order.

    Examples
    --------
    >>> [name for name, _ in modules()][-1]
    'widget'
    """
    found: list[tuple[str, str]] = []
    for name in names:
        text = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        missing = set(_IMPORT.findall(text)) - {known for known, _ in found}
        if missing:
            raise ImportError(f"{name}.js imports {missing}, which come later")
        found.append((name, text))
    return found


def sheet() -> str:
    """Return the page's style, for the widget alone."""
    text = (STATIC / "style.css").read_text(encoding="utf-8")
    own = text.replace(":root[data", ".widget[data").replace(":root", ".widget")
    own = re.sub(r"^(?:html, )?body \{.*?\}$", "", own, flags=re.MULTILINE | re.DOTALL)
    return own + _SHEET


def make_widget(
    streams: Sequence[str],
    context: ContextLike,
    *,
    seconds: float,
    channels: Iterable[Sequence[int]],
    fps: float,
    history_s: float,
) -> Any:
    """Return a widget of anywidget.

    Raises `ModuleNotFoundError` if the extra ``ataraxis[notebook]`` is not installed.
    """
    anywidget = need("anywidget", "notebook", "a view in a notebook")
    traitlets = need("traitlets", "notebook", "a view in a notebook")
    fields = {
        "_esm": LOADER,
        "modules": traitlets.List(modules()).tag(sync=True),
        "sheet": traitlets.Unicode(sheet()).tag(sync=True),
        "streams": traitlets.List(list(streams)).tag(sync=True),
        "seconds": traitlets.Float(seconds).tag(sync=True),
        "channels": traitlets.List([list(c) for c in channels]).tag(sync=True),
    }
    widget = type("AtaraxisView", (anywidget.AnyWidget,), fields)()
    feed = KernelFeed(widget, Pump(context, streams, history_s), fps)
    widget.on_msg(feed.hear)
    widget.feed = feed
    return widget


class KernelFeed:
    """Sends bundles to a widget from the kernel's own loop, while a page shows it.

    A cell that runs keeps the loop busy: the widget goes on after it.
    """

    def __init__(self, widget: Any, pump: Pump | RecordedPump, fps: float) -> None:
        self._widget, self._pump = widget, pump
        self._period = 1 / fps
        self._page: Page | RecordedPage | None = None
        self._task: asyncio.Task[None] | None = None

    def hear(self, widget: Any, content: Any, buffers: Any) -> None:
        """Take a message of the widget's page."""
        text = content.get("view") if isinstance(content, dict) else None
        if not isinstance(text, str):
            return
        operation = _operation(text)
        if operation == "hello":
            self.start()
        elif operation == "bye":
            self.close()
        elif self._page is not None:
            try:
                self._page.hear(text)
            except BadMessage:  # of a page that was made for another kernel
                self.close()

    def start(self) -> None:
        """Begin again, for a page that has nothing yet."""
        self.close()
        self._page = self._pump.new_page()
        self._task = asyncio.get_running_loop().create_task(self._run(self._page))

    def close(self) -> None:
        """Send no more, and leave every stream."""
        task, self._task, self._page = self._task, None, None
        if task is not None:
            task.cancel()
        self._pump.close()

    def end(self) -> None:
        """Send no more, and close what is read."""
        self.close()
        self._pump.end()

    async def _run(self, page: Page | RecordedPage) -> None:
        looked = 0.0
        while page is self._page:
            began = time.monotonic()
            if began - looked >= WATCH_S:
                looked = began
                self._pump.look(1)
            pages: list[Any] = [page]
            for _, data in self._pump.step(pages):
                if data is None:
                    return
                self._widget.send({"bundle": page.tick}, [data])
            await asyncio.sleep(max(self._period - (time.monotonic() - began), 0.002))


def _operation(text: str) -> Any:
    try:
        return json.loads(text).get("op")
    except (ValueError, AttributeError):
        return None
