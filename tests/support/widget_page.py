"""A widget in a page of Chromium, without a notebook."""

from __future__ import annotations

import asyncio
import base64
from typing import Any


class FakeWidget:
    """Stands for anywidget's: sends into a page of Chromium."""

    def __init__(self, page: Any) -> None:
        self._page, self.sent = page, 0

    def send(self, content: Any, buffers: list[bytes]) -> None:
        self.sent += 1
        text = base64.b64encode(buffers[0]).decode()
        asyncio.get_running_loop().create_task(
            self._page.evaluate("text => deliver(text)", text)
        )


HARNESS = """async ([loader, values]) => {
  const heard = [];
  const model = {
    get: name => values[name], on: (_, call) => heard.push(call),
    off: () => {}, send: message => toKernel(message),
  };
  globalThis.deliver = text => {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    for (const call of heard) call({}, [new DataView(bytes.buffer)]);
  };
  const link = URL.createObjectURL(new Blob([loader], {type: "text/javascript"}));
  const widget = await (await import(link)).default();
  await widget.initialize({model});
  const el = document.body.appendChild(document.createElement("div"));
  globalThis.end = await widget.render({model, el});
  globalThis.el = el;
}"""
