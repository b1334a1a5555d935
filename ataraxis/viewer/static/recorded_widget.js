// Widget of a recording in a notebook, by messages of its kernel; no port.

import {decode} from "./bundle.js";
import {Recording} from "./recording.js";
import {setRoot, startTheme} from "./theme.js";
import {isDarkBehind} from "./widget.js";

const HELP = "wheel: zoom; drag: move; ← → + − 0 Home End n p g";

export function render({model, el}) {
  const shadow = el.attachShadow({mode: "open"});
  const sheet = document.createElement("style");
  sheet.textContent = model.get("sheet");
  const root = document.createElement("div");
  root.className = "widget recorded";
  root.tabIndex = 0;
  shadow.append(sheet, root);
  setRoot(root);
  startTheme(isDarkBehind(el) ? "dark" : "light");
  const verdict = Object.assign(document.createElement("p"), {id: "verdict"});
  verdict.setAttribute("role", "status");
  const words = document.createElement("span");
  verdict.append(Object.assign(document.createElement("span"), {className: "dot"}), words);
  const help = Object.assign(document.createElement("span"), {className: "quiet", textContent: HELP});
  const view = Object.assign(document.createElement("div"), {id: "view"});
  root.append(verdict, help, view);

  const pending = [];
  let isOver = false;
  const send = message => model.send({view: JSON.stringify(message)});
  const say = ({tone, text}) => { verdict.className = tone; words.textContent = text; };
  const recording = new Recording(view, send, say, model.get("streams"));
  el.viewCounts = recording.counts;
  el.recording = recording;

  // Keys are the notebook's unless the widget has the focus.
  root.addEventListener("keydown", event => {
    if (recording.press(event)) event.stopPropagation();
  });
  const onMessage = (message, buffers) => {
    const data = buffers[0];
    if (data) pending.push(data.buffer
      ? data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) : data);
  };
  model.on("msg:custom", onMessage);
  function frame() {
    if (isOver) return;
    recording.counts.frames++;
    let tick = 0;
    for (const data of pending.splice(0)) {
      const bundle = decode(data);
      tick = bundle.tick;
      recording.take(bundle);
    }
    if (tick) send({op: "ack", tick});
    requestAnimationFrame(frame);
  }
  requestAnimationFrame(frame);
  send({op: "hello"});
  return () => {
    isOver = true;
    recording.end();
    model.off("msg:custom", onMessage);
    send({op: "bye"});
  };
}

export default {render};
